//! What the peer says, in order, to whoever listens: the tone detector, the recorder, the call.

use super::Digit;
use super::codec;
use super::echo::{self, Canceller};
use super::frame::{Cutter, Frame, SAMPLES, dot};
use super::hearing::{Hearing, ListenId};
use super::recording::Recorder;
use super::tone::{Detector, amplitudes};
use crate::near;
use crate::rtp::reorder::{PAYLOAD_MAX, Unit};
use crate::sip::offer::Law;

/// A hole is filled with at most this much: 1 s.
const FILL_MAX: u32 = 8000;

pub struct Ear {
    detector: Detector,
    /// Since we first sent a sound.
    canceller: Option<Box<Canceller>>,
    cutter: Cutter,
    listen: bool,
    /// Where callers may answer by voice.
    hearing: Option<Box<Hearing>>,
    /// RTP timestamp due next.
    due: Option<u32>,
    /// Packets were lost since the last that came.
    lost: bool,
}

/// What was made out.
pub enum Sound<'a> {
    /// A key as a tone that began at this RTP timestamp.
    Tone { digit: Digit, start: u32 },
    /// A tone seems to begin. If it is a key, `Tone` follows; if not, nothing does.
    Begun,
    /// Speech begins that answers this.
    Speech(ListenId),
    /// 20 ms in the negotiated law (only for who listens).
    Frame(&'a Frame),
}

impl Ear {
    pub fn new(listen: bool) -> Ear {
        Ear {
            detector: Detector::new(),
            canceller: None,
            cutter: Cutter::new(),
            listen,
            hearing: None,
            due: None,
            lost: false,
        }
    }

    /// As [`Stream::fetch_first`](super::Stream::fetch_first).
    #[inline(always)]
    pub fn fetch_first(&self) {
        near::bring(&self.canceller);
        near::bring(&self.due);
        near::bring(&self.lost);
        self.detector.fetch_first();
    }

    /// As [`Stream::fetch`](super::Stream::fetch).
    #[inline(always)]
    pub fn fetch(&self) {
        if let Some(canceller) = &self.canceller {
            canceller.fetch();
        }
        self.detector.fetch();
    }

    /// Another source speaks: nothing of the last one's sound goes on.
    pub fn reset(&mut self) {
        let mut hearing = self.hearing.take();
        hearing.iter_mut().for_each(|hearing| hearing.reset());
        *self = Ear { hearing, ..Ear::new(self.listen) };
    }

    /// Callers may answer by voice from here on.
    pub fn hear_speech(&mut self) {
        self.hearing.get_or_insert_default();
    }

    /// What is said by callers who may answer by voice.
    pub fn hearing(&mut self) -> Option<&mut Hearing> {
        self.hearing.as_deref_mut()
    }

    /// Whether the frames we send must be [told](Ear::sent): something is listened for in their
    /// echo.
    pub fn wants_sent(&self, wants_tones: bool) -> bool {
        wants_tones || self.hearing.is_some()
    }

    /// Whether a key sounds at the end of what was heard.
    pub fn hears_key(&self) -> bool {
        self.detector.is_held()
    }

    /// RTP timestamp at which the last key's tones ended; `None` while one sounds.
    pub fn key_ended(&self) -> Option<u32> {
        Some(self.due?.wrapping_sub(self.detector.silent_for()?))
    }

    /// The frame we send in this turn: its echo is removed from what comes back. Every turn has
    /// one, silent or not.
    pub fn sent(&mut self, law: Law, frame: &Frame) {
        if let Some(hearing) = &mut self.hearing {
            hearing.sent(power(law, frame));
        }
        match &mut self.canceller {
            Some(canceller) => canceller.sent(law, frame),
            None if echo::is_silent(law, frame) => {}
            none => none.insert(Box::default()).sent(law, frame),
        }
    }

    /// Takes the next unit of the sequence; `law` is the negotiated one.
    pub fn hear(
        &mut self,
        unit: Unit<'_>,
        law: Law,
        wants_tones: bool,
        recorder: Option<&mut Recorder>,
        mut each: impl FnMut(Sound<'_>),
    ) {
        let Unit::Audio { payload_type, timestamp, payload } = unit else {
            self.lost = true;
            return;
        };
        self.close_hole(timestamp, law, wants_tones, &mut each);
        let from = codec::law_of(payload_type).unwrap_or(law);
        if let Some(recorder) = recorder {
            payload.iter().for_each(|&code| recorder.hear(codec::transcode(code, from, Law::Mu)));
        }
        if wants_tones || self.hearing.is_some() {
            for (nth, codes) in payload.chunks(SAMPLES).enumerate() {
                let start = timestamp.wrapping_add((nth * SAMPLES) as u32);
                self.hear_sound(from, start, codes, wants_tones, &mut each);
            }
        }
        if self.listen {
            let mut codes = [0; PAYLOAD_MAX];
            let codes = &mut codes[..payload.len()];
            for (code, &sent) in codes.iter_mut().zip(payload) {
                *code = codec::transcode(sent, from, law);
            }
            self.cutter.push(codes, |frame| each(Sound::Frame(frame)));
        }
        self.due = Some(timestamp.wrapping_add(payload.len() as u32));
    }

    /// Looks for keys and speech in at most 20 ms that began at `start`.
    fn hear_sound(
        &mut self,
        law: Law,
        start: u32,
        codes: &[u8],
        wants_tones: bool,
        each: &mut impl FnMut(Sound<'_>),
    ) {
        let mut room = [0.0; SAMPLES];
        let sound = amplitudes(law, codes, &mut room);
        if let Some(canceller) = &mut self.canceller {
            canceller.remove(start, sound);
        }
        let hit = self.detector.hear(sound);
        if let Some(canceller) = &mut self.canceller {
            canceller.learn(self.detector.suspects());
        }
        let tone = self.detector.suspects() || self.detector.is_held();
        let speech = self.hearing.as_mut().and_then(|hearing| hearing.hear(sound, tone));
        match hit {
            _ if !wants_tones => {}
            Some(hit) => {
                let end = start.wrapping_add(codes.len() as u32);
                each(Sound::Tone { digit: hit.digit, start: end.wrapping_sub(hit.ago) });
            }
            None if self.detector.begins() => each(Sound::Begun),
            None => {}
        }
        if let Some(id) = speech {
            each(Sound::Speech(id));
        }
    }

    /// Accounts for the time between what came last and `timestamp`. With packets missing it is
    /// a hole in what was said; without, the peer sent nothing because it had nothing to say.
    fn close_hole(
        &mut self,
        timestamp: u32,
        law: Law,
        wants_tones: bool,
        each: &mut impl FnMut(Sound<'_>),
    ) {
        let lost = std::mem::take(&mut self.lost);
        let hole = self.due.map_or(0, |due| timestamp.wrapping_sub(due));
        if hole == 0 || hole > i32::MAX as u32 {
            return;
        }
        let hole = hole.min(FILL_MAX);
        let silence = [codec::silence(law); SAMPLES];
        if wants_tones && lost {
            self.detector.lose(hole);
        }
        if let Some(hearing) = &mut self.hearing {
            // Without packets lost there was nothing to say: silence sounds no other than a hole.
            hearing.lose(hole as usize);
        }
        let mut left = hole as usize;
        while left > 0 {
            let codes = &silence[..left.min(SAMPLES)];
            if wants_tones && !lost {
                // Silence ends a key; it cannot begin one.
                self.detector.push(law, codes);
            }
            if self.listen {
                self.cutter.push(codes, |frame| each(Sound::Frame(frame)));
            }
            left -= codes.len();
        }
    }
}

/// Mean square of a frame, full scale is 1.
fn power(law: Law, frame: &Frame) -> f32 {
    if echo::is_silent(law, frame) {
        return 0.0;
    }
    let mut room = [0.0; SAMPLES];
    let sound = amplitudes(law, frame, &mut room);
    dot(sound, sound) / SAMPLES as f32
}

#[cfg(test)]
mod tests;
