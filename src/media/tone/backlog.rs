//! Quiet sound that nothing was asked of yet. A line is quiet most of the time, and what is too
//! quiet for a key matters only as what was there before one: it is kept as it came, and looked at
//! when something louder comes.

use super::bank::HOP;
use super::fit::{EVERY, WINDOW};
use super::noisy::{self, LOOKS};
use crate::media::frame::SAMPLES;
use crate::near;

/// Frames kept: 80 ms.
const KEPT: usize = 4;

// More hops than any look goes back to, so that those before them need not be looked at: a third of
// a long window as many looks ago as are remembered, and what rose out of silence before.
const _: () = {
    let hops = KEPT * SAMPLES / HOP;
    assert!(hops >= (LOOKS + 1) * EVERY as usize + WINDOW / 2);
    assert!(hops >= noisy::FRESH.end + WINDOW / 2 - 1);
};

pub struct Backlog {
    /// A ring, as G.711 has them.
    frames: [[i16; SAMPLES]; KEPT],
    next: usize,
    held: usize,
    /// Samples that came before those held, since it was empty; wrapping.
    left_out: u32,
}

impl Backlog {
    pub fn new() -> Backlog {
        Backlog { frames: [[0; SAMPLES]; KEPT], next: 0, held: 0, left_out: 0 }
    }

    /// As [`Detector::fetch_first`](super::Detector::fetch_first).
    #[inline(always)]
    pub fn fetch_first(&self) {
        near::bring(&self.next);
        near::bring(&self.left_out);
    }

    /// As [`Detector::fetch`](super::Detector::fetch).
    #[inline(always)]
    pub fn fetch(&self) {
        near::bring(&self.frames[self.next % KEPT]);
    }

    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// How many samples were put here since it was empty; wrapping.
    pub fn span(&self) -> u32 {
        self.left_out.wrapping_add((self.held * SAMPLES) as u32)
    }

    /// The last samples put here.
    pub fn end<const N: usize>(&self) -> Option<[f32; N]> {
        let last = &self.frames[(self.next + KEPT - 1) % KEPT];
        let end = last.last_chunk().filter(|_| self.held > 0);
        end.map(|end| end.map(amplitude))
    }

    /// Keeps a frame, and leaves out the oldest if there are enough.
    pub fn put(&mut self, frame: &[f32; SAMPLES]) {
        if self.held == KEPT {
            self.left_out = self.left_out.wrapping_add(SAMPLES as u32);
        } else {
            self.held += 1;
        }
        let kept = &mut self.frames[self.next];
        for (kept, sample) in kept.iter_mut().zip(frame) {
            *kept = (sample * 32768.0) as i16;
        }
        self.next = (self.next + 1) % KEPT;
    }

    /// How many samples before the oldest frame were left out; asked for once, before it is taken.
    pub fn take_left_out(&mut self) -> u32 {
        std::mem::take(&mut self.left_out)
    }

    /// The oldest frame.
    pub fn take(&mut self) -> Option<[f32; SAMPLES]> {
        let oldest = (self.next + KEPT - self.held) % KEPT;
        self.held = self.held.checked_sub(1)?;
        Some(self.frames[oldest].map(amplitude))
    }
}

fn amplitude(sample: i16) -> f32 {
    f32::from(sample) / 32768.0
}
