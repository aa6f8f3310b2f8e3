//! The likeliest answers to a question, how sure the first is, and what to do about it.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::beam::{TOKENS_MAX, log_add};
use super::confidence::{self, Ear};
use super::grammar::{Meaning, Spoken};
use crate::secret::Keys;
use crate::speech::Field;

/// The most answers told.
pub const ANSWERS_MAX: usize = 24;

/// What a caller may have said.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Hypothesis {
    meaning: Meaning,
    /// Natural logarithm of how likely it is that this was said, against everything.
    score: f32,
    words: u8,
    /// When each word was told, in milliseconds from the start.
    times: [u32; TOKENS_MAX],
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is so: go on.
    Accept,
    /// It is likely so: read back what may be read, and ask.
    Confirm,
    /// Nothing, or nothing that is sure enough to bother the caller with.
    Again,
}

/// The likeliest answers, the likeliest first.
pub struct Answers {
    ear: Ear,
    field: Field,
    list: Zeroizing<Vec<Hypothesis>>,
    evidence: Evidence,
}

/// What tells how far the first answer may be trusted, in natural logarithms.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// How likely the first answer is.
    pub best: f32,
    /// How much more likely than the second it is.
    pub margin: f32,
    /// How likely the likeliest sequence of any words is, an answer or not.
    pub anything: f32,
    /// Words in the first answer.
    pub words: usize,
}

/// What is done with what was said.
pub struct Answer {
    pub outcome: Outcome,
    /// How often such an answer is right: 0 to 1.
    pub confidence: f32,
    /// The likeliest answer, whatever the outcome.
    pub best: Option<Hypothesis>,
}

impl Hypothesis {
    pub fn new(
        meaning: Meaning,
        score: f32,
        words: usize,
        told: impl Iterator<Item = u32>,
    ) -> Hypothesis {
        let mut times = [0; TOKENS_MAX];
        times.iter_mut().zip(told).for_each(|(place, time)| *place = time);
        Hypothesis { meaning, score, words: words.min(TOKENS_MAX) as u8, times }
    }

    /// The digits as they would have been keyed; none for a word.
    pub fn keys(&self) -> Keys {
        self.meaning.digits().iter().map(|digit| b'0' + digit).collect()
    }

    /// Yes, no or a command.
    pub fn word(&self) -> Option<Spoken> {
        self.meaning.word()
    }

    pub fn score(&self) -> f32 {
        self.score
    }

    /// When each word was told, in milliseconds from the start.
    pub fn times_ms(&self) -> &[u32] {
        &self.times[..usize::from(self.words)]
    }

    pub(in crate::speech) fn meaning(&self) -> &Meaning {
        &self.meaning
    }
}

impl Answers {
    /// As the built-in network hears.
    pub fn none(field: Field) -> Answers {
        Answers::heard_by(Ear::BuiltIn, field)
    }

    pub fn heard_by(ear: Ear, field: Field) -> Answers {
        let list = Zeroizing::new(Vec::with_capacity(ANSWERS_MAX));
        Answers { ear, field, list, evidence: Evidence::default() }
    }

    pub fn ear(&self) -> Ear {
        self.ear
    }

    pub fn field(&self) -> Field {
        self.field
    }

    pub fn list(&self) -> &[Hypothesis] {
        &self.list
    }

    pub fn evidence(&self) -> Evidence {
        self.evidence
    }

    /// Adds an answer; the same one heard in another way adds to it.
    pub fn add(&mut self, hypothesis: Hypothesis) {
        let known = self.list.iter_mut().find(|known| known.meaning == hypothesis.meaning);
        if let Some(known) = known {
            let sum = log_add(known.score, hypothesis.score);
            if hypothesis.score > known.score {
                *known = hypothesis;
            }
            known.score = sum;
        } else if self.list.len() < ANSWERS_MAX {
            self.list.push(hypothesis);
        } else if let Some(least) = self.list.iter_mut().min_by(|a, b| a.score.total_cmp(&b.score))
            && least.score < hypothesis.score
        {
            *least = hypothesis;
        }
    }

    /// The caller says it is not this one.
    pub fn exclude(&mut self, keys: &Keys) {
        self.list.retain(|known| known.keys().expose() != keys.expose());
    }

    /// Puts the answers in order once all have been added.
    pub fn finish(&mut self, evidence: Evidence) {
        self.list.sort_by(|a, b| b.score.total_cmp(&a.score));
        let Some(best) = self.list.first() else { return self.evidence = evidence };
        let second = self.list.get(1).map_or(f32::MIN, Hypothesis::score);
        self.evidence = Evidence {
            best: best.score,
            margin: best.score - second,
            words: best.times_ms().len(),
            // The answer is one of the sequences there are.
            anything: evidence.anything.max(best.score),
        };
    }

    /// One answer that is judged so, or as nearly so as the field allows.
    #[cfg(test)]
    pub(crate) fn judged(field: Field, meaning: Meaning, outcome: Outcome) -> Answers {
        let words = 4;
        let mut nearest: Option<Answers> = None;
        for margin in [12.0, 8.0, 4.0, 3.0, 2.0, 1.0, 0.0] {
            for word in [0.01, 0.1, 0.2, 0.3, 1.0, 3.0] {
                let best = -word * words as f32;
                let mut answers = Answers::none(field);
                answers.add(Hypothesis::new(meaning, best, words, (1..5).map(|n| 400 * n)));
                answers.evidence = Evidence { best, margin, anything: best, words };
                if answers.judge().outcome == outcome {
                    return answers;
                }
                nearest.get_or_insert(answers);
            }
        }
        nearest.unwrap_or_else(|| Answers::none(field))
    }

    /// What to do with the likeliest of them.
    pub fn judge(&self) -> Answer {
        let Some(best) = self.list.first() else {
            return Answer { outcome: Outcome::Again, confidence: 0.0, best: None };
        };
        let (outcome, confidence) = confidence::judge(self.ear, self.field, &self.evidence);
        Answer { outcome, confidence, best: Some(best.clone()) }
    }
}

impl Default for Evidence {
    fn default() -> Evidence {
        Evidence { best: f32::MIN, margin: 0.0, anything: f32::MIN, words: 0 }
    }
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Accept => "accept",
            Outcome::Confirm => "confirm",
            Outcome::Again => "again",
        }
    }
}
