//! From what the network tells every 40 ms to the answers a field admits: a beam search over the
//! field's grammar beside one over anything, whose distance says how far to trust the first.

use zeroize::Zeroize;

use super::word::Word;
use super::{Field, Progress};
use crate::secret::Keys;

pub mod answer; // the likeliest answers, and what to do with them
pub mod beam; // sequences of tokens
pub mod confidence; // how often such an answer is right
pub mod fuse; // two tries at one question
pub mod grammar; // which sequences mean something

use answer::{Answers, Evidence, Hypothesis};
use beam::{Beam, TOKENS_MAX};
use grammar::{Commands, Extent, Grammar, Scratch};

/// Sequences kept for a long number, for a word, and to see what else it may have been.
const WIDTH: usize = 160;
const WIDTH_COMMAND: usize = 6;
const WIDTH_ANYTHING: usize = 6;
/// How much less likely a blank is than the network says: it has learned from long silences.
const BLANK_PENALTY: f32 = 1.4;
/// How often a caller says a command instead of an answer, as a natural logarithm.
const COMMAND: f32 = -4.0;

/// What a head of the network tells: which of its tokens mean what. Token 0 is the blank.
pub struct Tokens<'a> {
    pub digits: (usize, &'a [Option<Word>]),
    pub words: (usize, &'a [Option<Word>]),
    /// Milliseconds of sound that a step stands for.
    pub step_ms: u32,
}

/// Listens for one answer.
pub struct Decoder {
    field: Field,
    searches: Vec<Search>,
    step_ms: u32,
}

/// Answers of one grammar as one head hears them.
struct Search {
    head: usize,
    words: Vec<Word>,
    grammar: Box<dyn Grammar>,
    /// Of this grammar against the others.
    weight: f32,
    beam: Beam,
    anything: Beam,
    scratch: Scratch,
    /// What is left of a row after the penalty.
    row: Vec<f32>,
}

impl Decoder {
    pub fn new(field: Field, keyed: &Keys, tokens: &Tokens<'_>) -> Decoder {
        let answer = || grammar::of(field, keyed);
        let (digits, words) = (tokens.digits, tokens.words);
        let searches = match field {
            Field::Amount | Field::YesNo => vec![
                Search::new(words, answer(), 0.0, WIDTH),
                Search::new(words, Box::new(Commands), COMMAND, WIDTH_COMMAND),
            ],
            // Only one head knows the months.
            Field::Expiry(_) => vec![
                Search::new(digits, answer(), 0.5f32.ln(), WIDTH),
                Search::new(words, answer(), 0.5f32.ln(), WIDTH),
                Search::new(words, Box::new(Commands), COMMAND, WIDTH_COMMAND),
            ],
            _ => vec![
                Search::new(digits, answer(), 0.0, WIDTH),
                Search::new(words, Box::new(Commands), COMMAND, WIDTH_COMMAND),
            ],
        };
        Decoder { field, searches, step_ms: tokens.step_ms }
    }

    /// Takes a step: `row` gives what each head tells, log-posteriors of its tokens.
    pub fn step<'a>(&mut self, row: impl Fn(usize) -> &'a [f32]) {
        for search in &mut self.searches {
            search.step(row(search.head));
        }
    }

    pub fn progress(&self) -> Progress {
        let mut best: Option<(f32, Progress)> = None;
        for search in &self.searches {
            let Some((score, progress)) = search.progress(self.step_ms) else { continue };
            if best.is_none_or(|(known, _)| score > known) {
                best = Some((score, progress));
            }
        }
        best.map_or(NOTHING, |(_, progress)| progress)
    }

    /// The likeliest answers so far.
    pub fn answers(&self) -> Answers {
        let mut answers = Answers::none(self.field);
        let mut evidence = Evidence::default();
        for search in &self.searches {
            search.collect(self.step_ms, &mut answers);
            evidence.anything =
                beam::log_add(evidence.anything, search.weight + search.best_of_anything());
        }
        answers.finish(evidence);
        answers
    }
}

const NOTHING: Progress = Progress { words: 0, extent: Extent::Short, quiet_ms: None };

impl Search {
    fn new(
        (head, words): (usize, &[Option<Word>]),
        grammar: Box<dyn Grammar>,
        weight: f32,
        width: usize,
    ) -> Search {
        Search {
            head,
            words: words.iter().map(|word| word.unwrap_or(Word::Other)).collect(),
            grammar,
            weight,
            beam: Beam::new(width),
            anything: Beam::new(WIDTH_ANYTHING),
            scratch: Scratch::default(),
            row: Vec::with_capacity(words.len()),
        }
    }

    fn step(&mut self, row: &[f32]) {
        const BLANK: usize = 0;
        self.row.clear();
        self.row.extend_from_slice(row);
        penalise(&mut self.row, BLANK, BLANK_PENALTY);
        let Search { row, grammar, words, scratch, .. } = self;
        self.beam.step(row, BLANK, |tokens| {
            let mut room = [Word::Other; TOKENS_MAX];
            let said = meanings(tokens, words, &mut room);
            scratch.read(&**grammar, said, |_, _| ()).is_some()
        });
        self.anything.step(row, BLANK, |_| true);
    }

    fn best_of_anything(&self) -> f32 {
        self.anything.hypotheses().first().map_or(f32::MIN, beam::Hypothesis::score)
    }

    /// How far the likeliest sequence has come, and how likely it is.
    fn progress(&self, step_ms: u32) -> Option<(f32, Progress)> {
        let likeliest = self.beam.hypotheses().first()?;
        let mut room = [Word::Other; TOKENS_MAX];
        let said = meanings(likeliest.tokens(), &self.words, &mut room);
        let extent = Scratch::default().read(&*self.grammar, said, |extent, _| extent)?;
        let quiet = |step: u16| u32::from(self.beam.steps() - step) * step_ms;
        let quiet_ms = likeliest.steps().last().map(|step| quiet(*step));
        Some((self.weight + likeliest.score(), Progress { words: said.len(), extent, quiet_ms }))
    }

    /// Adds the answers of this search.
    fn collect(&self, step_ms: u32, answers: &mut Answers) {
        let mut scratch = Scratch::default();
        let mut room = [Word::Other; TOKENS_MAX];
        for likely in self.beam.hypotheses() {
            let said = meanings(likely.tokens(), &self.words, &mut room);
            scratch.read(&*self.grammar, said, |extent, meaning| {
                if extent == Extent::Short {
                    return;
                }
                let score = self.weight + self.grammar.prior(meaning) + likely.score();
                let times = likely.steps().iter().map(|step| u32::from(*step) * step_ms);
                answers.add(Hypothesis::new(*meaning, score, said.len(), times));
            });
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.row.zeroize();
    }
}

fn meanings<'a>(tokens: &[u8], words: &[Word], room: &'a mut [Word; TOKENS_MAX]) -> &'a [Word] {
    for (place, token) in room.iter_mut().zip(tokens) {
        *place = words[usize::from(*token)];
    }
    &room[..tokens.len()]
}

/// Makes the blank less likely; the row stays a distribution.
fn penalise(row: &mut [f32], blank: usize, penalty: f32) {
    if penalty == 0.0 {
        return;
    }
    let before = row[blank].exp();
    row[blank] -= penalty;
    let whole = (1.0 - before + row[blank].exp()).ln();
    row.iter_mut().for_each(|value| *value -= whole);
}

#[cfg(test)]
mod tests;
