//! What is on the wire now: clips joined without a gap, keys we press, silence otherwise.

use std::collections::VecDeque;
use std::sync::Arc;

use super::codec;
use super::digit::{HIGH_HZ, LOW_HZ};
use super::frame::{FRAME_MS, Frame, RATE, SAMPLES};
use super::{Digit, Method, PlayId};
use crate::near;
use crate::rtp::telephone_event::{Sender, Sending};
use crate::sip::offer::Law;

/// Audio ready for the wire: 8 kHz, encoded once in both laws, shared by all calls.
#[derive(Clone)]
pub struct Clip {
    pub mu: Arc<[u8]>,
    pub a: Arc<[u8]>,
}

/// Plays one list of clips at a time.
#[derive(Default)]
pub struct Playout {
    id: Option<PlayId>,
    barge_in: bool,
    clips: Vec<Clip>,
    /// The clip being played, and how much of it has been.
    clip: usize,
    offset: usize,
}

impl Clip {
    pub fn new(mu: Arc<[u8]>, a: Arc<[u8]>) -> Clip {
        Clip { mu, a }
    }

    fn sound(&self, law: Law) -> &[u8] {
        match law {
            Law::Mu => &self.mu,
            Law::A => &self.a,
        }
    }
}

impl Playout {
    /// As [`Stream::fetch`](super::Stream::fetch).
    #[inline(always)]
    pub fn fetch(&self) {
        if let Some(clip) = self.clips.get(self.clip) {
            near::bring(clip);
        }
    }

    /// Starts from the next frame; the id of what it replaces, if something was playing.
    pub fn play(&mut self, id: PlayId, clips: Vec<Clip>, barge_in: bool) -> Option<PlayId> {
        let replaced = self.stop();
        *self = Playout { id: Some(id), barge_in, clips, clip: 0, offset: 0 };
        replaced
    }

    /// The id of what was cut short.
    pub fn stop(&mut self) -> Option<PlayId> {
        self.clips.clear();
        self.id.take()
    }

    /// A key was pressed: stops what allows it.
    pub fn barge_in(&mut self) -> Option<PlayId> {
        if self.barge_in { self.stop() } else { None }
    }

    pub fn is_playing(&self) -> bool {
        self.id.is_some()
    }

    /// Puts the next 20 ms over the silence in `frame`; the id of what ended with it.
    pub fn fill(&mut self, law: Law, frame: &mut Frame) -> Option<PlayId> {
        self.id?;
        let mut filled = 0;
        while let Some(clip) = self.clips.get(self.clip) {
            let rest = clip.sound(law).get(self.offset..).unwrap_or_default();
            let len = rest.len().min(SAMPLES - filled);
            frame[filled..filled + len].copy_from_slice(&rest[..len]);
            filled += len;
            self.offset += len;
            if len < rest.len() {
                return None;
            }
            self.clip += 1;
            self.offset = 0;
        }
        self.stop()
    }
}

/// Keys waiting to be pressed; more than this at once are refused.
const KEYS_MAX: usize = 64;
/// The high tone is 2 dB the louder, to make up for the line (twist).
const LOW_DBM0: f32 = -9.0;
const HIGH_DBM0: f32 = -7.0;

/// Presses keys one after the other, as events or as tones.
pub struct Keypad {
    waiting: VecDeque<Key>,
    pressing: Option<Pressing>,
    /// Keys were pressed and their end is not told yet.
    busy: bool,
}

/// What this turn's packet carries.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// No key: the frame is untouched.
    Idle,
    /// The frame holds tone or the silence between keys.
    Sound,
    Event(Sending),
}

/// The peer's telephone-event clock and the RTP timestamp of a turn.
#[derive(Clone, Copy)]
pub struct Moment {
    pub timestamp: u32,
    /// Ticks per second of telephone-event; `None`: the peer takes tones only.
    pub events: Option<u32>,
    /// Whether the turn begins a packet, so that an event may start.
    pub packet_start: bool,
}

struct Key {
    digit: Digit,
    method: Method,
    on: u32,
    off: u32,
}

enum Pressing {
    /// `over` is the timestamp at which the pause after the key ends.
    Event {
        sender: Sender,
        start: u32,
        over: u32,
    },
    Tone {
        pair: Pair,
        on_left: u32,
        off_left: u32,
    },
}

impl Keypad {
    pub fn new() -> Keypad {
        Keypad { waiting: VecDeque::new(), pressing: None, busy: false }
    }

    /// Adds keys behind those not yet pressed; how many did not fit.
    pub fn press(&mut self, keys: &[Digit], method: Method, on_ms: u16, off_ms: u16) -> usize {
        let samples = |ms: u16| u32::from(ms) * RATE / 1000;
        self.busy = true;
        let room = KEYS_MAX - self.waiting.len();
        for &digit in keys.iter().take(room) {
            let (on, off) = (samples(on_ms.max(1)), samples(off_ms));
            self.waiting.push_back(Key { digit, method, on, off });
        }
        keys.len().saturating_sub(room)
    }

    /// Whether a key is being pressed as a tone.
    pub fn is_sounding(&self) -> bool {
        matches!(self.pressing, Some(Pressing::Tone { .. }))
    }

    /// The next 20 ms, over the silence in `frame`.
    pub fn turn(&mut self, law: Law, moment: Moment, frame: &mut Frame) -> Turn {
        let mut filled = 0;
        while filled < SAMPLES {
            match &mut self.pressing {
                None => {
                    if !self.begin(moment, filled) {
                        break;
                    }
                }
                Some(Pressing::Tone { pair, on_left, off_left }) => {
                    let on = (*on_left as usize).min(SAMPLES - filled);
                    for code in &mut frame[filled..filled + on] {
                        *code = codec::encode(law, pair.sample());
                    }
                    filled += on;
                    *on_left -= on as u32;
                    let off = (*off_left as usize).min(SAMPLES - filled);
                    filled += off;
                    *off_left -= off as u32;
                    if *on_left == 0 && *off_left == 0 {
                        self.pressing = None;
                    }
                }
                Some(Pressing::Event { sender, start, over }) => {
                    let elapsed = moment.timestamp.wrapping_sub(*start);
                    let clock = u64::from(moment.events.unwrap_or(RATE).max(1));
                    let ticks = (u64::from(elapsed) * clock / u64::from(RATE)) as u32;
                    if let Some(sending) = sender.next(ticks) {
                        // Of its segment: durations are in ticks of the event, timestamps are not.
                        let since = u64::from(sending.timestamp) * u64::from(RATE) / clock;
                        let timestamp = start.wrapping_add(since as u32);
                        return Turn::Event(Sending { timestamp, ..sending });
                    }
                    if moment.timestamp.wrapping_sub(*over) >= 1 << 31 {
                        return Turn::Sound;
                    }
                    self.pressing = None;
                }
            }
        }
        if filled > 0 || self.pressing.is_some() { Turn::Sound } else { Turn::Idle }
    }

    /// True once after the last key and its pause.
    pub fn take_finished(&mut self) -> bool {
        let finished = self.busy && self.waiting.is_empty() && self.pressing.is_none();
        self.busy &= !finished;
        finished
    }

    /// Starts the next key; false when there is none, or it must wait for a packet's start.
    fn begin(&mut self, moment: Moment, filled: usize) -> bool {
        let Some(key) = self.waiting.front() else { return false };
        let clock = moment.events.filter(|_| key.method == Method::Events);
        let pressing = match clock {
            Some(_) if filled > 0 || !moment.packet_start => return false,
            Some(clock) => {
                let ticks = |samples| (u64::from(samples) * u64::from(clock) / 8000) as u32;
                let step = ticks(RATE * FRAME_MS / 1000);
                let start = moment.timestamp;
                let sender = Sender::new(key.digit.event(), 0, ticks(key.on), step);
                let over = start.wrapping_add(key.on + key.off);
                Pressing::Event { sender, start, over }
            }
            None => {
                let pair = Pair::new(key.digit);
                Pressing::Tone { pair, on_left: key.on, off_left: key.off }
            }
        };
        self.waiting.pop_front();
        self.pressing = Some(pressing);
        true
    }
}

impl Default for Keypad {
    fn default() -> Keypad {
        Keypad::new()
    }
}

/// The two sines of a key, each a phasor turned once per sample.
struct Pair {
    phasors: [[f32; 2]; 2],
    turns: [[f32; 2]; 2],
}

impl Pair {
    fn new(digit: Digit) -> Pair {
        let (row, column) = digit.place();
        let turn = |hz: f32| {
            let angle = std::f32::consts::TAU * hz / RATE as f32;
            [angle.cos(), angle.sin()]
        };
        Pair {
            phasors: [[amplitude(LOW_DBM0), 0.0], [amplitude(HIGH_DBM0), 0.0]],
            turns: [turn(LOW_HZ[row]), turn(HIGH_HZ[column])],
        }
    }

    fn sample(&mut self) -> i16 {
        let mut sum = 0.0;
        for (phasor, turn) in self.phasors.iter_mut().zip(&self.turns) {
            sum += phasor[1];
            let [re, im] = *phasor;
            *phasor = [re * turn[0] - im * turn[1], re * turn[1] + im * turn[0]];
        }
        sum as i16
    }
}

/// Peak of a sine at this level; a full-scale sine is +3.17 dBm0 (G.711, mu-law).
fn amplitude(dbm0: f32) -> f32 {
    32767.0 * 10f32.powf((dbm0 - 3.17) / 20.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(bytes: &[u8]) -> Clip {
        Clip::new(bytes.into(), bytes.iter().map(|b| b ^ 0x80).collect())
    }

    fn frame(playout: &mut Playout) -> (Frame, Option<PlayId>) {
        let mut frame = [0xff; SAMPLES];
        let ended = playout.fill(Law::Mu, &mut frame);
        (frame, ended)
    }

    #[test]
    fn clips_join_mid_frame_without_a_gap() {
        let mut playout = Playout::default();
        playout.play(PlayId(1), vec![clip(&[1; 100]), clip(&[]), clip(&[2; 100])], true);
        let (first, ended) = frame(&mut playout);
        assert_eq!((&first[..100], &first[100..], ended), (&[1; 100][..], &[2; 60][..], None));
        let (second, ended) = frame(&mut playout);
        assert_eq!((&second[..40], &second[40..]), (&[2; 40][..], &[0xff; 120][..]));
        assert_eq!(ended, Some(PlayId(1)));
        assert_eq!(frame(&mut playout), ([0xff; SAMPLES], None));
    }

    #[test]
    fn ends_with_the_frame_that_carries_its_last_sample() {
        let mut playout = Playout::default();
        playout.play(PlayId(1), vec![clip(&[1; 160]), clip(&[])], true);
        assert_eq!(frame(&mut playout), ([1; SAMPLES], Some(PlayId(1))));
        playout.play(PlayId(2), vec![], true);
        assert_eq!(frame(&mut playout), ([0xff; SAMPLES], Some(PlayId(2))));
    }

    #[test]
    fn takes_the_law_of_the_moment() {
        let mut playout = Playout::default();
        playout.play(PlayId(1), vec![clip(&[1; 320])], true);
        frame(&mut playout);
        let mut a = [0xd5; SAMPLES];
        playout.fill(Law::A, &mut a);
        assert_eq!(a, [0x81; SAMPLES]);
    }

    #[test]
    fn barge_in_stops_only_what_allows_it() {
        let mut playout = Playout::default();
        playout.play(PlayId(1), vec![clip(&[1; 999])], false);
        assert_eq!(playout.barge_in(), None);
        assert_eq!(playout.play(PlayId(2), vec![clip(&[2; 999])], true), Some(PlayId(1)));
        assert_eq!(frame(&mut playout).0, [2; SAMPLES]);
        assert_eq!(playout.barge_in(), Some(PlayId(2)));
        assert_eq!(frame(&mut playout), ([0xff; SAMPLES], None));
    }

    /// Runs turns until all is pressed: the frames, and the events with their timestamps.
    fn run(keypad: &mut Keypad, events: Option<u32>) -> (Vec<u8>, Vec<(u32, Sending)>) {
        let (mut sound, mut sent) = (vec![], vec![]);
        for turn in 0..500u32 {
            let mut frame = [0xff; SAMPLES];
            let timestamp = (u32::MAX - 800).wrapping_add(turn * 160);
            let moment = Moment { timestamp, events, packet_start: true };
            match keypad.turn(Law::Mu, moment, &mut frame) {
                Turn::Idle => {}
                Turn::Sound => sound.extend_from_slice(&frame),
                Turn::Event(sending) => sent.push((timestamp, sending)),
            }
            if keypad.take_finished() {
                return (sound, sent);
            }
        }
        panic!("never finished");
    }

    fn digits(keys: &str) -> Vec<Digit> {
        keys.chars().map(|key| Digit::from_key(key).unwrap()).collect()
    }

    #[test]
    fn tones_last_exactly_as_long_as_asked() {
        let mut keypad = Keypad::new();
        keypad.press(&digits("5D"), Method::InBand, 53, 47);
        let (sound, sent) = run(&mut keypad, Some(8000));
        assert!(sent.is_empty());
        let loud = |at: usize| sound[at * 8..at * 8 + 8].iter().any(|&code| code & 0x7f < 0x60);
        let shape: Vec<bool> = (0..200).map(loud).collect();
        let expected: Vec<bool> = (0..200).map(|ms| ms % 100 < 53).collect();
        assert_eq!(shape, expected);
    }

    #[test]
    fn events_keep_their_timestamp_and_the_pause() {
        let mut keypad = Keypad::new();
        keypad.press(&digits("12"), Method::Events, 100, 100);
        let (_, sent) = run(&mut keypad, Some(8000));
        let starts: Vec<u32> = sent.iter().map(|(_, sending)| sending.timestamp).collect();
        let first = u32::MAX - 800;
        let second = first.wrapping_add(1600);
        assert_eq!(starts, [[first; 7], [second; 7]].concat());
        assert_eq!(sent.iter().filter(|(_, sending)| sending.marker).count(), 2);
        assert_eq!(sent[4].1.payload, [1, 0x80 | 10, 800u16.to_be_bytes()[0], 0x20]);
    }

    #[test]
    fn a_peer_without_events_gets_tones() {
        let mut keypad = Keypad::new();
        keypad.press(&digits("1"), Method::Events, 100, 100);
        let (sound, sent) = run(&mut keypad, None);
        assert_eq!((sound.len(), sent.len()), (1600, 0));
    }

    #[test]
    fn more_keys_than_fit_are_refused() {
        let mut keypad = Keypad::new();
        assert_eq!(keypad.press(&digits(&"7".repeat(70)), Method::InBand, 1, 1), 6);
    }
}
