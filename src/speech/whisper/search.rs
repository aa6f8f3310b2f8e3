//! The likeliest texts that are answers: a beam search over tokens, each of which the model is
//! asked for after all that came before it.

use zeroize::{Zeroize, Zeroizing};

use super::vocabulary::Choice;
use crate::speech::decode::grammar::{Extent, Grammar, Meaning, Scratch};
use crate::speech::word::Word;

/// What tells how likely each token is after `text`: as many logarithms as there are tokens, of
/// numbers in proportion to it.
pub trait Teller {
    type Error;
    fn after(&mut self, text: &[i32]) -> Result<&[f32], Self::Error>;
}

/// An answer as the model may have heard it.
pub struct Text {
    pub meaning: Meaning,
    pub words: usize,
    /// Natural logarithm of how likely just this text is.
    pub score: f32,
    /// How far it is behind the text that is likelier at each token, whatever that may say.
    pub behind: f32,
}

/// Texts kept at each length, beside those that are favoured.
const WIDTH: usize = 4;
/// A text so much less likely than the best is given up; more patience with the favoured.
const BEHIND_MAX: f32 = 6.0;
const FAVOURED_BEHIND_MAX: f32 = 14.0;
/// More words has no answer.
const WORDS_MAX: usize = 24;

struct Beginning {
    tokens: Zeroizing<Vec<i32>>,
    words: Vec<Word>,
    score: f32,
    behind: f32,
    favoured: bool,
}

impl Drop for Beginning {
    fn drop(&mut self) {
        self.words.fill(Word::Other);
    }
}

/// The answers of `grammar` that are made of `choices` and followed by `end`, in no order. What
/// `favours` knows the beginning of is asked about to its end, however unlikely that makes it.
pub fn search<T: Teller>(
    teller: &mut T,
    choices: &[Choice],
    end: i32,
    grammar: &dyn Grammar,
    favours: impl Fn(&Meaning) -> bool,
) -> Result<Vec<Text>, T::Error> {
    let mut scratch = Scratch::default();
    let mut found: Vec<Text> = vec![];
    let empty = Beginning {
        tokens: Zeroizing::new(vec![]),
        words: Vec::with_capacity(WORDS_MAX),
        score: 0.0,
        behind: 0.0,
        favoured: true,
    };
    let mut beginnings = vec![empty];
    while !beginnings.is_empty() {
        let mut longer: Vec<Beginning> = vec![];
        for beginning in &beginnings {
            let told = teller.after(&beginning.tokens)?;
            let (whole, likeliest) = mass(told);
            let score = |token: i32| {
                let told = usize::try_from(token).ok().and_then(|token| told.get(token));
                told.map_or(f32::MIN, |told| told - whole)
            };
            let extended = |token: i32| {
                let (score, behind) = (score(token), likeliest - whole - score(token));
                (beginning.score + score, beginning.behind + behind)
            };
            scratch.read(grammar, &beginning.words, |extent, meaning| {
                if extent != Extent::Short {
                    let (score, behind) = extended(end);
                    let words = beginning.words.len();
                    found.push(Text { meaning: *meaning, words, score, behind });
                }
            });
            for choice in choices {
                if beginning.words.len() + choice.words.len() > WORDS_MAX {
                    continue;
                }
                let mut words = Vec::with_capacity(WORDS_MAX);
                words.extend_from_slice(&beginning.words);
                words.extend_from_slice(&choice.words);
                let favoured = scratch.read(grammar, &words, |_, meaning| favours(meaning));
                let Some(favoured) = favoured else { continue };
                let mut tokens = Zeroizing::new(Vec::with_capacity(WORDS_MAX));
                tokens.extend_from_slice(&beginning.tokens);
                tokens.push(choice.token);
                let (score, behind) = extended(choice.token);
                longer.push(Beginning { tokens, words, score, behind, favoured });
            }
        }
        let best = found.iter().map(|text| text.score).fold(f32::MIN, f32::max);
        longer.sort_by(|a, b| b.score.total_cmp(&a.score));
        let ahead = longer.first().map_or(best, |first| first.score.max(best));
        let mut rank = 0;
        longer.retain(|beginning| {
            rank += 1;
            let behind = ahead - beginning.score;
            let likely = rank <= WIDTH && behind < BEHIND_MAX;
            likely || beginning.favoured && behind < FAVOURED_BEHIND_MAX
        });
        // In this order each shares the most with what the model was asked before it.
        longer.sort_by(|a, b| a.tokens.cmp(&b.tokens));
        beginnings = longer;
    }
    Ok(found)
}

/// Logarithm of the sum, and of the likeliest.
fn mass(told: &[f32]) -> (f32, f32) {
    let likeliest = told.iter().copied().fold(f32::MIN, f32::max);
    let sum: f32 = told.iter().map(|value| (value - likeliest).exp()).sum();
    (likeliest + sum.ln(), likeliest)
}

impl Drop for Text {
    fn drop(&mut self) {
        self.meaning.zeroize();
    }
}
