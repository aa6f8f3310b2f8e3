//! Takes the echo of what we send out of what we hear. Where the echo lies is searched for once
//! there is one; its path is then solved for by least squares, which speech converges in a tenth
//! of a second. Nothing is learned from a frame with a tone in it or next to it.

use super::codec;
use super::frame::{Frame, SAMPLES};
use crate::sip::offer::Law;

mod path;
mod search;

use path::{Path, REACH};
use search::{SPAN, Search};

/// Samples of ours kept: the longest delay, the frame it is looked for in, and what comes late.
const KEPT: usize = 4096;
/// Mean square of theirs below which there is nothing to learn: -50 dBm0.
const HEARD_MIN: f32 = 2.5e-6;
/// Frames searched in before the search is given up, and frames before the next.
const SEARCHED_MAX: u32 = 60;
const REST: u32 = 600;

/// Listens to both directions of one call.
pub struct Canceller {
    /// The last samples sent, in mu-law, a ring.
    sent: [u8; KEPT],
    /// How many were sent, wrapping.
    count: u32,
    /// Frames since one of ours that was not silent.
    quiet: u32,
    /// What turns an RTP timestamp of theirs into a count of ours.
    offset: Option<u32>,
    state: State,
    /// The frame heard last, and the one before if that had no tone; those to learn from.
    heard: Heard,
    before: Heard,
}

enum State {
    /// Nothing is searched for in this many frames.
    Resting(u32),
    /// And what is tried where it seems to be.
    Searching(Box<Search>, Option<Box<Path>>),
    Found(Box<Path>),
}

/// A frame as it was heard.
#[derive(Clone)]
struct Heard {
    sound: [f32; SAMPLES],
    /// The count of ours at which it began; `None`: there is nothing to learn.
    at: Option<u32>,
}

impl Canceller {
    pub fn new() -> Canceller {
        let heard = Heard { sound: [0.0; SAMPLES], at: None };
        Canceller {
            sent: [codec::silence(Law::Mu); KEPT],
            count: 0,
            quiet: u32::MAX,
            offset: None,
            state: State::Resting(0),
            before: heard.clone(),
            heard,
        }
    }

    /// The next frame we send.
    pub fn sent(&mut self, law: Law, frame: &Frame) {
        let silent = frame.iter().all(|&code| code == codec::silence(law));
        self.quiet = if silent { self.quiet.saturating_add(1) } else { 0 };
        for &code in frame {
            self.sent[self.count as usize % KEPT] = codec::transcode(code, law, Law::Mu);
            self.count = self.count.wrapping_add(1);
        }
    }

    /// Removes the echo from sound that began at this RTP timestamp. Call [`Canceller::learn`]
    /// once it is known whether there is a tone in it.
    pub fn remove(&mut self, timestamp: u32, sound: &mut [f32]) {
        let end = timestamp.wrapping_add(sound.len() as u32);
        let offset = *self.offset.get_or_insert(self.count.wrapping_sub(end));
        let at = timestamp.wrapping_add(offset);
        self.heard.at = None;
        if self.quiet as usize > SPAN / SAMPLES || power(sound) < HEARD_MIN {
            return;
        }
        if self.is_ours(at, sound) {
            return;
        }
        let Ok(frame) = <[f32; SAMPLES]>::try_from(&*sound) else { return };
        self.heard = Heard { sound: frame, at: Some(at) };
        if let State::Found(path) = &self.state {
            let mut ours = [0.0; REACH];
            self.reference(path.first(at), &mut ours);
            let mut left = frame;
            path.remove(&ours, &mut left);
            // A path that is wrong by now would add to what is heard.
            if power(&left) < power(sound) {
                sound.copy_from_slice(&left);
            }
        }
    }

    /// Learns from the frame before the last, unless either has a tone: one may begin at its end.
    pub fn learn(&mut self, tone: bool) {
        std::mem::swap(&mut self.heard, &mut self.before);
        let last = &mut self.heard;
        let at = last.at.take().filter(|_| !tone);
        if tone {
            self.before.at = None;
        }
        let Some(at) = at else { return };
        let mut state = std::mem::replace(&mut self.state, State::Resting(0));
        self.study(&mut state, at);
        self.state = state;
    }

    fn study(&self, state: &mut State, at: u32) {
        match state {
            State::Resting(0) => *state = State::Searching(Box::default(), None),
            State::Resting(left) => *left -= 1,
            State::Searching(search, path) => {
                let mut ours = [0.0; SPAN];
                self.reference(Search::first(at), &mut ours);
                search.study(&ours, &self.heard.sound);
                match search.found() {
                    Some(delay) if path.as_ref().is_none_or(|path| !path.has(delay)) => {
                        *path = Some(Box::new(Path::new(delay)));
                    }
                    _ => {}
                }
                if let Some(path) = path {
                    self.study_path(path, at);
                }
                if path.as_ref().is_some_and(|path| path.is_known()) {
                    *state = path.take().map_or(State::Resting(0), State::Found);
                } else if search.frames() >= SEARCHED_MAX {
                    *state = State::Resting(REST);
                }
            }
            State::Found(path) if path.is_settled(at / SAMPLES as u32) => {}
            State::Found(path) => {
                self.study_path(path, at);
                if path.is_lost() {
                    *state = State::Resting(0);
                }
            }
        }
    }

    fn study_path(&self, path: &mut Path, at: u32) {
        let mut ours = [0.0; REACH];
        self.reference(path.first(at), &mut ours);
        path.study(&ours, &self.heard.sound);
    }

    /// Whether this is bit by bit what we send at the time. No echo is: someone listens to a
    /// recording and gives it as its own reference.
    fn is_ours(&self, at: u32, sound: &[f32]) -> bool {
        let same =
            |(nth, &sample): (usize, &f32)| self.sample(at.wrapping_add(nth as u32)) == sample;
        sound.iter().enumerate().all(same)
    }

    /// What we sent from this count on; what is not sent yet, or too long ago, is silence.
    fn reference(&self, first: u32, ours: &mut [f32]) {
        for (nth, sample) in ours.iter_mut().enumerate() {
            *sample = self.sample(first.wrapping_add(nth as u32));
        }
    }

    fn sample(&self, at: u32) -> f32 {
        let ago = self.count.wrapping_sub(at);
        if !(1..=KEPT as u32).contains(&ago) {
            return 0.0;
        }
        f32::from(codec::decode(Law::Mu, self.sent[at as usize % KEPT])) / 32768.0
    }
}

impl Default for Canceller {
    fn default() -> Canceller {
        Canceller::new()
    }
}

fn power(sound: &[f32]) -> f32 {
    sound.iter().map(|sample| sample * sample).sum::<f32>() / sound.len().max(1) as f32
}

#[cfg(test)]
mod tests;
