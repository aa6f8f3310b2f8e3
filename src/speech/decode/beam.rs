//! CTC prefix beam search: the likeliest sequences of tokens, all alignments of each summed, as
//! far as a language admits them. Bounded in memory and in time per step.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use zeroize::{Zeroize, Zeroizing};

/// The most tokens in a sequence: a card's digits, and some that mean nothing.
pub const TOKENS_MAX: usize = 28;
/// A token less likely than this at a step begins nothing there (natural logarithm).
const TOKEN_MIN: f32 = -9.0;
/// A sequence so much less likely than the best is given up.
const BEHIND_MAX: f32 = 25.0;
/// Impossible.
const NEVER: f32 = -1e30;

/// A sequence of tokens.
#[derive(Clone, Copy, Zeroize)]
pub struct Hypothesis {
    tokens: [u8; TOKENS_MAX],
    /// The step at which each token is likeliest told.
    steps: [u16; TOKENS_MAX],
    /// Log-probability of the last token where it is told.
    told: f32,
    len: u8,
    /// Names the sequence.
    key: u64,
    /// Of all alignments that end in a blank, and in the last token.
    blank: f32,
    token: f32,
}

impl Hypothesis {
    const EMPTY: Hypothesis = Hypothesis {
        tokens: [0; TOKENS_MAX],
        steps: [0; TOKENS_MAX],
        told: NEVER,
        len: 0,
        key: 0,
        blank: 0.0,
        token: NEVER,
    };

    pub fn tokens(&self) -> &[u8] {
        &self.tokens[..usize::from(self.len)]
    }

    pub fn steps(&self) -> &[u16] {
        &self.steps[..usize::from(self.len)]
    }

    /// Log-probability of the sequence.
    pub fn score(&self) -> f32 {
        log_add(self.blank, self.token)
    }

    fn last(&self) -> Option<u8> {
        self.tokens().last().copied()
    }
}

/// A sequence longer by a token, not yet admitted.
#[derive(Clone, Copy)]
struct Candidate {
    score: f32,
    parent: u32,
    token: u8,
    key: u64,
}

pub struct Beam {
    width: usize,
    hypotheses: Zeroizing<Vec<Hypothesis>>,
    /// What the next step makes of them; otherwise empty.
    next: Zeroizing<Vec<Hypothesis>>,
    candidates: Vec<Candidate>,
    /// Where the sequence of a key is.
    places: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    step: u16,
}

impl Beam {
    /// Keeps `width` sequences.
    pub fn new(width: usize) -> Beam {
        let mut hypotheses = Zeroizing::new(Vec::with_capacity(2 * width));
        hypotheses.push(Hypothesis::EMPTY);
        Beam {
            width,
            hypotheses,
            next: Zeroizing::new(Vec::with_capacity(2 * width)),
            candidates: Vec::with_capacity(16 * width),
            places: HashMap::with_capacity_and_hasher(2 * width, BuildHasherDefault::default()),
            step: 0,
        }
    }

    /// One step further: log-probabilities of all tokens, of which `blank` is none. `admits` says
    /// whether the language has a sequence that begins so.
    pub fn step(&mut self, row: &[f32], blank: usize, mut admits: impl FnMut(&[u8]) -> bool) {
        self.stay(row, blank);
        self.extend(row, blank);
        self.candidates.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
        self.keep(row, &mut admits);
        self.step = self.step.saturating_add(1);
    }

    /// The sequences, the likeliest first.
    pub fn hypotheses(&self) -> &[Hypothesis] {
        &self.hypotheses
    }

    /// Steps taken.
    pub fn steps(&self) -> u16 {
        self.step
    }

    /// No sequence grows: a blank, or its last token goes on.
    fn stay(&mut self, row: &[f32], blank: usize) {
        self.places.clear();
        self.next.clear();
        for (place, hypothesis) in self.hypotheses.iter().enumerate() {
            let mut same = *hypothesis;
            same.blank = hypothesis.score() + row[blank];
            if let Some(last) = hypothesis.last() {
                let here = row[usize::from(last)];
                same.token = hypothesis.token + here;
                if hypothesis.token > hypothesis.blank && here > hypothesis.told {
                    same.told = here;
                    same.steps[usize::from(same.len) - 1] = self.step;
                }
            }
            self.places.insert(same.key, place as u32);
            self.next.push(same);
        }
    }

    /// Every sequence grows by every token that may be told here.
    fn extend(&mut self, row: &[f32], blank: usize) {
        self.candidates.clear();
        let best = self.next.iter().map(Hypothesis::score).fold(NEVER, f32::max);
        for (token, &here) in row.iter().enumerate() {
            if token == blank || here < TOKEN_MIN {
                continue;
            }
            for (parent, hypothesis) in self.hypotheses.iter().enumerate() {
                // The same token twice needs a blank in between.
                let again = hypothesis.last() == Some(token as u8);
                let before = if again { hypothesis.blank } else { hypothesis.score() };
                let score = before + here;
                if score < best - BEHIND_MAX || usize::from(hypothesis.len) == TOKENS_MAX {
                    continue;
                }
                let key = longer(hypothesis.key, token as u8);
                match self.places.get(&key) {
                    Some(&place) => {
                        let known = &mut self.next[place as usize];
                        known.token = log_add(known.token, score);
                    }
                    None => {
                        let (parent, token) = (parent as u32, token as u8);
                        self.candidates.push(Candidate { score, parent, token, key });
                    }
                }
            }
        }
    }

    /// Keeps the likeliest of both.
    fn keep(&mut self, row: &[f32], admits: &mut impl FnMut(&[u8]) -> bool) {
        let by_score = |a: &Hypothesis, b: &Hypothesis| b.score().total_cmp(&a.score());
        self.next.sort_unstable_by(by_score);
        let mut stayed = self.next.len();
        let mut grown = 0;
        for candidate in &self.candidates {
            // Whatever stays and is less likely than this one ranks below it.
            while stayed > 0 && self.next[stayed - 1].score() < candidate.score {
                stayed -= 1;
            }
            if stayed + grown >= self.width {
                break;
            }
            let mut hypothesis = self.hypotheses[candidate.parent as usize];
            let place = usize::from(hypothesis.len);
            hypothesis.tokens[place] = candidate.token;
            hypothesis.steps[place] = self.step;
            hypothesis.len += 1;
            if admits(hypothesis.tokens()) {
                hypothesis.key = candidate.key;
                hypothesis.told = row[usize::from(candidate.token)];
                (hypothesis.blank, hypothesis.token) = (NEVER, candidate.score);
                self.next.push(hypothesis);
                grown += 1;
            }
        }
        self.next.sort_unstable_by(by_score);
        self.next.truncate(self.width);
        let best = self.next.first().map_or(NEVER, Hypothesis::score);
        self.next.retain(|hypothesis| hypothesis.score() >= best - BEHIND_MAX);
        std::mem::swap(&mut self.hypotheses, &mut self.next);
    }
}

impl Drop for Beam {
    fn drop(&mut self) {
        // Candidates name parents and tokens of what is wiped above.
        self.candidates.iter_mut().for_each(|candidate| candidate.token = 0);
    }
}

fn longer(key: u64, token: u8) -> u64 {
    let mixed = (key ^ (u64::from(token) + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// `ln(e^a + e^b)`.
pub fn log_add(a: f32, b: f32) -> f32 {
    let (most, least) = if a > b { (a, b) } else { (b, a) };
    if least < most - 17.0 { most } else { most + (least - most).exp().ln_1p() }
}

/// Keys are mixed already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All sequences of tokens 1 and 2 over a few steps, by brute force over every alignment.
    fn exact(rows: &[[f32; 3]]) -> Vec<(Vec<u8>, f32)> {
        let mut sums: HashMap<Vec<u8>, f32> = HashMap::new();
        for path in 0..3usize.pow(rows.len() as u32) {
            let symbols: Vec<usize> =
                (0..rows.len()).map(|at| path / 3usize.pow(at as u32) % 3).collect();
            let score = symbols.iter().zip(rows).map(|(symbol, row)| row[*symbol]).sum();
            let mut tokens = symbols.clone();
            tokens.dedup();
            let tokens = tokens.into_iter().filter(|s| *s > 0).map(|s| s as u8).collect();
            let sum = sums.entry(tokens).or_insert(NEVER);
            *sum = log_add(*sum, score);
        }
        let mut all: Vec<_> = sums.into_iter().collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all
    }

    fn rows(seed: u64, len: usize) -> Vec<[f32; 3]> {
        let mut state = seed;
        let mut chance = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) as f32 / (1u64 << 31) as f32).max(0.01)
        };
        let row = |values: [f32; 3]| values.map(|value| (value / values.iter().sum::<f32>()).ln());
        (0..len).map(|_| row([chance(), chance(), chance()])).collect()
    }

    #[test]
    fn sums_every_alignment_as_brute_force_does() {
        for seed in 0..40 {
            let rows = rows(seed, 6);
            let mut beam = Beam::new(400);
            for row in &rows {
                beam.step(row, 0, |_| true);
            }
            let exact = exact(&rows);
            assert_eq!(beam.hypotheses().len(), exact.len(), "seed {seed}");
            for hypothesis in beam.hypotheses() {
                let (_, score) =
                    exact.iter().find(|(tokens, _)| tokens == hypothesis.tokens()).unwrap();
                assert!((score - hypothesis.score()).abs() < 1e-3, "seed {seed}");
            }
        }
    }

    #[test]
    fn keeps_to_the_language_and_to_its_width() {
        for seed in 0..40 {
            let rows = rows(seed, 7);
            let mut beam = Beam::new(8);
            let admits = |tokens: &[u8]| tokens.len() <= 3 && !tokens.contains(&2);
            for row in &rows {
                beam.step(row, 0, admits);
            }
            assert!(beam.hypotheses().iter().all(|hypothesis| admits(hypothesis.tokens())));
            assert!(beam.hypotheses().len() <= 8);
            let sorted = beam.hypotheses().is_sorted_by(|a, b| a.score() >= b.score());
            assert!(sorted);
        }
    }
}
