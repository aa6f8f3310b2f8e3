//! Takes the echo of what we send out of what we hear. Where the echo lies is searched for while
//! there may be one; its path is then solved for by least squares, which speech converges in a
//! tenth of a second. Nothing is learned from a frame with a tone in it or next to it.

use super::codec;
use super::frame::{Frame, SAMPLES, dot};
use super::tone::amplitudes;
use crate::near;
use crate::sip::offer::Law;

mod path;
mod search;

use path::{Path, REACH};
use search::{SPAN, Search};

/// Samples of ours kept: the longest delay, the frames it is looked for in, and what comes late.
const KEPT: usize = 20 * SAMPLES;
/// Mean square of theirs below which no echo matters to a key: -50 dBm0.
const HEARD_MIN: f32 = 2.5e-6;
/// Mean square of theirs below which no echo is searched for: -45 dBm0, 20 dB below the weakest key
/// that must be heard. A quiet line costs nothing.
const SEARCHED_MIN: f32 = 8e-6;
/// Frames in which a delay must be found, and then its path.
const SEARCHED_MAX: u32 = 24;
const TRIED_MAX: u32 = 10;
/// Frames before the next search; twice as many after each in vain, up to so often.
const REST: u32 = 50;
const DOUBLED_MAX: u32 = 6;
/// So often it is no more than a delay mistaken: that is searched for again at once.
const MISTAKEN_MAX: u32 = 4;

/// Listens to both directions of one call.
pub struct Canceller {
    /// How many samples were sent, wrapping.
    count: u32,
    /// Where the next of them is kept.
    next: usize,
    /// Frames since one of ours that was not silent.
    quiet: u32,
    /// What turns an RTP timestamp of theirs into a count of ours.
    offset: Option<u32>,
    state: State,
    /// Searches in vain, and delays mistaken, since an echo was there.
    failed: u32,
    mistaken: u32,
    /// The count of ours at which the frame heard last began, and the one before if that had no
    /// tone; `None`: there is nothing to learn.
    at: [Option<u32>; 2],
    /// What was heard in them.
    heard: [[i16; SAMPLES]; 2],
    /// The last samples sent, in mu-law, a ring.
    sent: [u8; KEPT],
}

enum State {
    /// Nothing is searched for in this many frames.
    Resting(u32),
    Searching(Box<Search>),
    /// What is tried where an echo seems to be, and for how long.
    Trying(Path, u32),
    Found(Path),
}

impl Canceller {
    pub fn new() -> Canceller {
        Canceller {
            count: 0,
            next: 0,
            quiet: u32::MAX,
            offset: None,
            state: State::Resting(0),
            failed: 0,
            mistaken: 0,
            at: [None; 2],
            heard: [[0; SAMPLES]; 2],
            sent: [codec::silence(Law::Mu); KEPT],
        }
    }

    /// As [`Stream::fetch`](super::Stream::fetch): but for where the next frame we send goes, which
    /// is told by what is asked for here.
    #[inline(always)]
    pub fn fetch(&self) {
        let Canceller { count, quiet, offset, state, at, mistaken, .. } = self;
        near::bring(count);
        near::bring(quiet);
        near::bring(offset);
        near::bring(state);
        near::bring(at);
        near::bring(mistaken);
    }

    /// The next frame we send.
    pub fn sent(&mut self, law: Law, frame: &Frame) {
        self.quiet = if is_silent(law, frame) { self.quiet.saturating_add(1) } else { 0 };
        let kept = &mut self.sent[self.next..self.next + SAMPLES];
        match law {
            Law::Mu => kept.copy_from_slice(frame),
            Law::A => {
                for (kept, &code) in kept.iter_mut().zip(frame) {
                    *kept = codec::transcode(code, law, Law::Mu);
                }
            }
        }
        self.next = (self.next + SAMPLES) % KEPT;
        self.count = self.count.wrapping_add(SAMPLES as u32);
    }

    /// Removes the echo from sound that began at this RTP timestamp. Call [`Canceller::learn`]
    /// once it is known whether there is a tone in it.
    pub fn remove(&mut self, timestamp: u32, sound: &mut [f32]) {
        let end = timestamp.wrapping_add(sound.len() as u32);
        let offset = *self.offset.get_or_insert(self.count.wrapping_sub(end));
        self.at[0] = None;
        if self.quiet as usize > SPAN / SAMPLES {
            return;
        }
        let (power_heard, resting) = (power(sound), matches!(self.state, State::Resting(_)));
        if power_heard < if resting { SEARCHED_MIN } else { HEARD_MIN } {
            return;
        }
        if let State::Resting(left @ 1..) = &mut self.state {
            *left -= 1;
            return;
        }
        let Ok(frame) = <&mut [f32; SAMPLES]>::try_from(sound) else { return };
        let at = timestamp.wrapping_add(offset);
        if self.is_ours(at, frame) {
            return;
        }
        self.at[0] = Some(at);
        self.heard[0] = frame.map(|sample| (sample * 32768.0) as i16);
        if let State::Found(path) = &self.state {
            let mut ours = [0.0; REACH];
            self.reference(path.first(at), &mut ours);
            let left = path.removed(&ours, frame);
            // A path that is wrong by now would add to what is heard.
            if power(&left) < power_heard {
                *frame = left;
            }
        }
    }

    /// Learns from the frame before the last, unless either has a tone: one may begin at its end.
    pub fn learn(&mut self, tone: bool) {
        let at = self.at[1].take().filter(|_| !tone);
        if let (Some(at), false) = (at, self.is_settled(at)) {
            let mut state = std::mem::replace(&mut self.state, State::Resting(0));
            let sound = self.heard[1].map(|sample| f32::from(sample) / 32768.0);
            self.study(&mut state, at, &sound);
            self.state = state;
        }
        if self.at[0].is_some() && !tone {
            self.at.swap(0, 1);
            self.heard.swap(0, 1);
        }
    }

    fn is_settled(&self, at: Option<u32>) -> bool {
        match (&self.state, at) {
            (State::Found(path), Some(at)) => path.is_settled(at / SAMPLES as u32),
            _ => false,
        }
    }

    fn study(&mut self, state: &mut State, at: u32, sound: &[f32; SAMPLES]) {
        match state {
            State::Resting(_) => *state = State::Searching(Box::default()),
            State::Searching(search) => {
                search.study(self.count, |first, ours| self.reference(first, ours), at, sound);
                if let Some(delay) = search.found() {
                    *state = State::Trying(Path::new(delay), 0);
                } else if search.frames() >= SEARCHED_MAX {
                    *state = self.rest();
                }
            }
            State::Trying(path, tried) => {
                *tried += 1;
                self.study_path(path, at, sound);
                if path.is_known() {
                    (self.failed, self.mistaken) = (0, 0);
                    let path = std::mem::replace(path, Path::new(0));
                    *state = State::Found(path);
                } else if path.is_lost() || *tried >= TRIED_MAX {
                    self.mistaken += 1;
                    *state = match self.mistaken <= MISTAKEN_MAX {
                        true => State::Resting(0),
                        false => self.rest(),
                    };
                }
            }
            State::Found(path) => {
                self.study_path(path, at, sound);
                if path.is_lost() {
                    *state = State::Resting(0);
                }
            }
        }
    }

    /// A line without echo costs less and less.
    fn rest(&mut self) -> State {
        let rest = REST << self.failed.min(DOUBLED_MAX);
        self.failed += 1;
        State::Resting(rest)
    }

    fn study_path(&self, path: &mut Path, at: u32, sound: &[f32; SAMPLES]) {
        let mut ours = [0.0; REACH];
        self.reference(path.first(at), &mut ours);
        path.study(&ours, sound);
    }

    /// Whether this is bit by bit what we send at the time. No echo is: someone listens to a
    /// recording and gives it as its own reference.
    fn is_ours(&self, at: u32, sound: &[f32; SAMPLES]) -> bool {
        let mut first = [0.0];
        self.reference(at, &mut first);
        let mut ours = [0.0; SAMPLES];
        first[0] == sound[0] && {
            self.reference(at, &mut ours);
            ours == *sound
        }
    }

    /// What we sent from this count on; what is not sent yet, or too long ago, is silence.
    fn reference(&self, first: u32, ours: &mut [f32]) {
        let ago = self.count.wrapping_sub(first) as i32;
        // Samples before what is kept, and those kept.
        let early = (i64::from(ago) - KEPT as i64).clamp(0, ours.len() as i64) as usize;
        let (before, ours) = ours.split_at_mut(early);
        before.fill(0.0);
        let ago = ago.clamp(0, KEPT as i32) as usize;
        let (ours, after) = ours.split_at_mut(ago.min(ours.len()));
        after.fill(0.0);
        let from = (self.next + KEPT - ago) % KEPT;
        let (ours, wrapped) = ours.split_at_mut(ours.len().min(KEPT - from));
        amplitudes(Law::Mu, &self.sent[from..], ours);
        amplitudes(Law::Mu, &self.sent, wrapped);
    }
}

/// Whether a frame is nothing but digital silence.
pub fn is_silent(law: Law, frame: &Frame) -> bool {
    let silence = codec::silence(law);
    frame.iter().fold(0, |any, &code| any | (code ^ silence)) == 0
}

impl Default for Canceller {
    fn default() -> Canceller {
        Canceller::new()
    }
}

/// Mean square.
fn power(sound: &[f32]) -> f32 {
    dot(sound, sound) / sound.len().max(1) as f32
}

#[cfg(test)]
mod tests;
