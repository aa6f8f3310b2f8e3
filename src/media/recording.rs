//! Both directions of a call in time order, keys and sensitive windows silenced, and the WAV
//! container they are written in: mu-law, 8 kHz, the caller left and us right.

use std::collections::VecDeque;

use super::frame::{Frame, SAMPLES};
use super::tone::Detector;
use crate::sip::offer::Law;

/// 20 ms of both directions in mu-law: 160 bytes of the caller, then 160 of ours.
pub type Stereo = [u8; 2 * SAMPLES];

const SILENCE: u8 = 0xff;
/// Frames held back before release: a window opened 200 ms late still covers a key's beginning.
const LOOK_BACK: usize = 10;
/// Frames beyond a window's end that are silenced too: 500 ms.
const TAIL: u32 = 25;
/// Frames that may be due and not taken: 1 s.
const BEHIND_MAX: usize = 50;
/// Bytes of the caller's sound that may wait for their turn: 200 ms of jitter.
const WAITING_MAX: usize = 10 * SAMPLES;

/// A segment runs no longer than this: 5 minutes.
const SEGMENT_MAX: u32 = 5 * 60 * 50;

/// Numbers the segments of a call that are kept by themselves: each number is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentId(pub u16);

/// 20 ms of the recording.
pub struct Recorded {
    pub stereo: Stereo,
    /// The segment it belongs to.
    pub segment: Option<SegmentId>,
}

pub struct Recorder {
    /// The whole call is wanted, not its segments alone.
    whole: bool,
    /// What the caller said and no turn has taken yet.
    waiting: VecDeque<u8>,
    held: VecDeque<Recorded>,
    sensitive: bool,
    tail: u32,
    /// Turns for which the caller's side stays silent after a key.
    keyed: u32,
    /// Hears what is about to be written: tones that nobody else listens for are keys too.
    detector: Box<Detector>,
    segment: Option<SegmentId>,
    /// Turns it has left.
    segment_left: u32,
    /// The frame taken last belonged to a segment.
    in_segment: bool,
    closed: bool,
}

impl Recorder {
    /// With `whole` every frame is given, otherwise those of segments, each segment followed by
    /// one frame that is not part of it.
    pub fn new(whole: bool) -> Recorder {
        Recorder {
            whole,
            waiting: VecDeque::with_capacity(WAITING_MAX),
            held: VecDeque::with_capacity(LOOK_BACK + BEHIND_MAX),
            sensitive: false,
            tail: 0,
            keyed: 0,
            detector: Box::new(Detector::new()),
            segment: None,
            segment_left: 0,
            in_segment: false,
            closed: false,
        }
    }

    /// Sound of the caller, in order, in mu-law.
    pub fn hear(&mut self, code: u8) {
        if self.waiting.len() == WAITING_MAX {
            self.waiting.drain(..SAMPLES);
        }
        self.waiting.push_back(code);
    }

    /// One turn: what we sent meets what the caller said meanwhile.
    pub fn turn(&mut self, ours: &Frame) {
        let mut stereo = [SILENCE; 2 * SAMPLES];
        stereo[SAMPLES..].copy_from_slice(ours);
        let len = self.waiting.len().min(SAMPLES);
        for (place, code) in stereo.iter_mut().zip(self.waiting.drain(..len)) {
            *place = code;
        }
        if self.detector.push(Law::Mu, &stereo[..SAMPLES]).is_some() || self.detector.is_held() {
            self.key();
        }
        if self.sensitive || self.tail > 0 {
            stereo = [SILENCE; 2 * SAMPLES];
            self.tail = self.tail.saturating_sub(1);
        }
        if self.keyed > 0 {
            stereo[..SAMPLES].fill(SILENCE);
            self.keyed -= 1;
        }
        if self.held.len() == LOOK_BACK + BEHIND_MAX {
            self.held.pop_front();
        }
        self.held.push_back(Recorded { stereo, segment: self.segment });
        self.segment_left = self.segment_left.saturating_sub(1);
        self.segment = self.segment.filter(|_| self.segment_left > 0);
    }

    /// Turns that were missed: the timeline goes on without sound of ours.
    pub fn pass(&mut self, turns: u32) {
        (0..turns.min(BEHIND_MAX as u32)).for_each(|_| self.turn(&[SILENCE; SAMPLES]));
    }

    /// Opens or closes a sensitive window.
    pub fn sensitive(&mut self, on: bool) {
        if on {
            self.held.iter_mut().for_each(|held| held.stereo.fill(SILENCE));
        }
        if on || self.sensitive {
            self.tail = TAIL;
        }
        self.sensitive = on;
    }

    /// A key sounds. Whatever the windows say the caller's side is silent around it: a card may be
    /// keyed before it is asked for.
    pub fn key(&mut self) {
        self.held.iter_mut().for_each(|held| held.stereo[..SAMPLES].fill(SILENCE));
        self.keyed = TAIL;
    }

    /// From the next turn on frames belong to this segment, or to none.
    pub fn mark(&mut self, segment: Option<SegmentId>) {
        self.segment = segment;
        self.segment_left = SEGMENT_MAX;
    }

    /// The call is over: what is held is released.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// The next frame that no later window can reach: take all there are, every turn.
    pub fn take(&mut self) -> Option<Recorded> {
        while self.held.len() > LOOK_BACK || self.closed {
            let recorded = self.held.pop_front()?;
            let was_in_segment =
                std::mem::replace(&mut self.in_segment, recorded.segment.is_some());
            if self.whole || self.in_segment || was_in_segment {
                return Some(recorded);
            }
        }
        None
    }

    /// Whether nothing will come before the next segment is marked.
    pub fn is_idle(&self) -> bool {
        let held = || self.held.iter().any(|held| held.segment.is_some());
        !self.whole && self.segment.is_none() && !self.in_segment && !held()
    }
}

/// Bytes of [`wav_header`].
pub const WAV_HEADER_LEN: usize = 58;

/// The header of a WAV file with `frames` frames of 20 ms, each as [`interleaved`]. Written with
/// 0 at the start and again at the close.
pub fn wav_header(frames: u32) -> [u8; WAV_HEADER_LEN] {
    const MU_LAW: u16 = 7;
    const CHANNELS: u16 = 2;
    const RATE: u32 = 8000;
    const FRAMES_MAX: u32 = (u32::MAX - WAV_HEADER_LEN as u32) / (2 * SAMPLES as u32);
    let bytes = frames.min(FRAMES_MAX) * 2 * SAMPLES as u32;
    let mut header = [0; WAV_HEADER_LEN];
    let mut at = 0;
    let mut put = |field: &[u8]| {
        header[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    put(b"RIFF");
    put(&(bytes + WAV_HEADER_LEN as u32 - 8).to_le_bytes());
    put(b"WAVEfmt ");
    put(&18u32.to_le_bytes());
    put(&MU_LAW.to_le_bytes());
    put(&CHANNELS.to_le_bytes());
    put(&RATE.to_le_bytes());
    put(&(RATE * u32::from(CHANNELS)).to_le_bytes());
    put(&CHANNELS.to_le_bytes());
    put(&8u16.to_le_bytes());
    put(&0u16.to_le_bytes());
    // Formats other than PCM must say how many samples there are.
    put(b"fact");
    put(&4u32.to_le_bytes());
    put(&(bytes / u32::from(CHANNELS)).to_le_bytes());
    put(b"data");
    put(&bytes.to_le_bytes());
    header
}

/// A frame as WAV wants it: left and right in turn.
pub fn interleaved(stereo: &Stereo) -> Stereo {
    let (caller, ours) = stereo.split_at(SAMPLES);
    let mut samples = [0; 2 * SAMPLES];
    for (pair, (left, right)) in samples.chunks_exact_mut(2).zip(caller.iter().zip(ours)) {
        pair.copy_from_slice(&[*left, *right]);
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sounds(recorded: &Recorded) -> (u8, u8) {
        (recorded.stereo[0], recorded.stereo[SAMPLES])
    }

    /// Runs `turns` turns in which both sides make a sound numbered by the turn.
    fn run(recorder: &mut Recorder, from: u8, turns: u8) -> Vec<(u8, u8)> {
        let mut out = vec![];
        for turn in from..from + turns {
            (0..SAMPLES).for_each(|_| recorder.hear(turn));
            recorder.turn(&[turn; SAMPLES]);
            out.extend(recorder.take().map(|frame| sounds(&frame)));
        }
        out
    }

    #[test]
    fn frames_come_out_200_ms_later_in_order_and_the_rest_at_the_close() {
        let mut recorder = Recorder::new(true);
        let mut out = run(&mut recorder, 0, 30);
        assert_eq!(out.len(), 20);
        recorder.close();
        out.extend(std::iter::from_fn(|| recorder.take()).map(|frame| sounds(&frame)));
        let expected: Vec<(u8, u8)> = (0..30).map(|turn| (turn, turn)).collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn a_window_reaches_200_ms_back_and_500_ms_on() {
        let mut recorder = Recorder::new(true);
        let mut out = run(&mut recorder, 0, 40);
        recorder.sensitive(true);
        out.extend(run(&mut recorder, 40, 20));
        recorder.sensitive(false);
        out.extend(run(&mut recorder, 60, 60));
        let silent: Vec<usize> =
            (0..out.len()).filter(|&turn| out[turn] == (SILENCE, SILENCE)).collect();
        assert_eq!(silent, (30..85).collect::<Vec<_>>());
        // The timeline is kept: every other frame is where it was.
        assert!((0..out.len()).all(|turn| silent.contains(&turn) || out[turn].0 == turn as u8));
    }

    #[test]
    fn a_key_silences_the_caller_alone() {
        let mut recorder = Recorder::new(true);
        let mut out = run(&mut recorder, 0, 40);
        recorder.key();
        out.extend(run(&mut recorder, 40, 60));
        let silent: Vec<usize> = (0..out.len()).filter(|&turn| out[turn].0 == SILENCE).collect();
        assert_eq!(silent, (30..65).collect::<Vec<_>>());
        assert!((0..out.len()).all(|turn| out[turn].1 == turn as u8), "our side goes on");
    }

    #[test]
    fn a_segment_alone_gives_its_frames_and_one_more() {
        let mut recorder = Recorder::new(false);
        assert!(recorder.is_idle());
        let mut out = run(&mut recorder, 0, 20);
        recorder.mark(Some(SegmentId(1)));
        out.extend(run(&mut recorder, 20, 15));
        recorder.mark(None);
        assert!(!recorder.is_idle(), "some of it is held back");
        out.extend(run(&mut recorder, 35, 15));
        let expected: Vec<(u8, u8)> = (20..36).map(|turn| (turn, turn)).collect();
        assert_eq!((out, recorder.is_idle()), (expected, true));
    }

    #[test]
    fn a_segment_ends_after_5_minutes() {
        let mut recorder = Recorder::new(false);
        recorder.mark(Some(SegmentId(1)));
        let mut frames = 0;
        for _ in 0..20_000 {
            recorder.turn(&[1; SAMPLES]);
            frames +=
                std::iter::from_fn(|| recorder.take()).filter(|f| f.segment.is_some()).count();
        }
        assert_eq!((frames, recorder.is_idle()), (15_000, true));
    }

    #[test]
    fn closing_a_window_that_was_not_open_silences_nothing() {
        let mut recorder = Recorder::new(true);
        recorder.sensitive(false);
        assert_eq!(run(&mut recorder, 0, 20).len(), 10);
        assert!(run(&mut recorder, 20, 20).iter().all(|frame| frame.0 != SILENCE));
    }

    #[test]
    fn a_caller_who_falls_silent_or_runs_ahead_keeps_the_timeline() {
        let mut recorder = Recorder::new(true);
        (0..5 * WAITING_MAX).for_each(|_| recorder.hear(1));
        for _ in 0..30 {
            recorder.turn(&[2; SAMPLES]);
            recorder.take();
        }
        recorder.close();
        let last = std::iter::from_fn(|| recorder.take()).last().unwrap();
        assert_eq!(sounds(&last), (SILENCE, 2));
    }

    #[test]
    fn header_says_what_follows() {
        let header = wav_header(50);
        assert_eq!(&header[..4], b"RIFF");
        let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!(field(4) as usize, 16_000 + WAV_HEADER_LEN - 8);
        assert_eq!(field(24), 8000);
        assert_eq!((field(46), field(54)), (8000, 16_000));
        let longest = u32::from_le_bytes(wav_header(u32::MAX)[54..].try_into().unwrap());
        assert_eq!((longest % 320, longest > 4_000_000_000), (0, true));
    }

    #[test]
    fn left_is_the_caller() {
        let mut stereo = [1; 2 * SAMPLES];
        stereo[SAMPLES..].fill(2);
        assert_eq!(interleaved(&stereo)[..4], [1, 2, 1, 2]);
    }
}
