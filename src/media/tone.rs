//! In-band DTMF, streaming.

use super::Digit;
use crate::sip::offer::Law;

#[derive(Default)]
pub struct Detector {}

/// A key heard.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    pub digit: Digit,
    /// Samples from the tone's start to the end of what was pushed.
    pub ago: u32,
}

impl Detector {
    pub fn new() -> Detector {
        Detector {}
    }
    pub fn push(&mut self, _law: Law, _codes: &[u8]) -> Option<Hit> {
        None
    }
    pub fn lose(&mut self, _samples: u32) {}
}
