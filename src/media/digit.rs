//! One key press, whichever detector heard it.

use std::fmt;
use std::time::{Duration, Instant};

/// A DTMF key: `0`-`9`, `*`, `#`, `A`-`D`. Prints as `*`: a key may be part of a card number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digit(u8);

/// Which detector reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// RFC 4733 telephone-event.
    Event,
    /// DTMF tone in the audio.
    Tone,
    /// SIP INFO.
    Info,
}

const KEYS: &[u8; 16] = b"0123456789*#ABCD";
/// The keys as they lie on the pad: a low tone per row, a high tone per column.
const PAD: &[u8; 16] = b"123A456B789C*0#D";

/// The low tones by row and the high tones by column, Q.23.
pub const LOW_HZ: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
pub const HIGH_HZ: [f32; 4] = [1209.0, 1336.0, 1477.0, 1633.0];

impl Digit {
    /// From the character on the key; lower-case letters are taken too.
    pub fn from_key(key: char) -> Option<Digit> {
        let key = key.to_ascii_uppercase();
        KEYS.iter().find(|&&k| char::from(k) == key).map(|&k| Digit(k))
    }

    /// From an RFC 4733 event code: 0-15 are DTMF keys, everything else is not.
    pub fn from_event(code: u8) -> Option<Digit> {
        KEYS.get(usize::from(code)).map(|&key| Digit(key))
    }

    /// The RFC 4733 event code, 0 to 15.
    pub fn event(self) -> u8 {
        KEYS.iter().position(|&k| k == self.0).unwrap_or_default() as u8
    }

    /// The key in a row and column of the pad, each 0 to 3.
    pub fn at(row: usize, column: usize) -> Digit {
        Digit(PAD[row % 4 * 4 + column % 4])
    }

    /// Row and column on the pad, each 0 to 3.
    pub fn place(self) -> (usize, usize) {
        let at = PAD.iter().position(|&key| key == self.0).unwrap_or_default();
        (at / 4, at % 4)
    }

    /// The key as an ASCII byte. Every use is a place to review.
    pub fn expose(self) -> u8 {
        self.0
    }
}

/// Makes one press of the reports of all sources. Tones are listened for until the call's first
/// telephone-event or INFO: from then on the peer signals its keys, and tones are echoes. Of those
/// two the one that came first is believed for the rest of the call.
#[derive(Default)]
pub struct Merger {
    events: bool,
    infos: bool,
    /// The last key heard as a tone, and when it was reported.
    told: Option<(Digit, Instant)>,
    /// The last key heard as a tone and the RTP timestamp of its start.
    tone: Option<(Digit, u32)>,
}

/// How far, in RTP ticks at 8 kHz, a tone may start outside the event of the same press: 60 ms.
const SAME_PRESS: u32 = 480;
/// How long after its tone an INFO may still report the same press.
const SAME_REPORT: Duration = Duration::from_millis(1_500);

impl Merger {
    /// Whether the tone detector need run.
    pub fn wants_tones(&self) -> bool {
        !self.events && !self.infos
    }

    /// A tone that began at RTP timestamp `start`: whether it is a new press.
    pub fn tone(&mut self, now: Instant, digit: Digit, start: u32) -> bool {
        self.tone = Some((digit, start));
        self.told = Some((digit, now));
        self.wants_tones()
    }

    /// A key reported by SIP INFO: whether it is a new press. The report comes when the key was
    /// released at the latest: the first one may be of a tone that was heard already.
    pub fn info(&mut self, now: Instant, digit: Digit) -> bool {
        if self.events {
            return false;
        }
        self.infos = true;
        let told = self.told.take();
        !told.is_some_and(|(tone, at)| {
            tone == digit && now.saturating_duration_since(at) < SAME_REPORT
        })
    }

    /// A telephone-event that spans `duration` ticks so far: whether it is a new press.
    pub fn event(&mut self, digit: Digit, start: u32, duration: u32) -> bool {
        if self.infos {
            return false;
        }
        self.events = true;
        let Some((tone, tone_start)) = self.tone.take() else { return true };
        let into = tone_start.wrapping_sub(start.wrapping_sub(SAME_PRESS));
        tone != digit || into > duration + 2 * SAME_PRESS
    }
}

impl fmt::Debug for Digit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn now() -> Instant {
        Instant::now()
    }

    fn digit(key: char) -> Digit {
        Digit::from_key(key).unwrap()
    }

    #[test]
    fn keys_and_event_codes_agree_and_print_nothing() {
        for (code, key) in "0123456789*#ABCD".chars().enumerate() {
            let pressed = digit(key);
            assert_eq!(usize::from(pressed.event()), code);
            assert_eq!(Digit::from_event(code as u8), Some(pressed));
            assert_eq!((char::from(pressed.expose()), format!("{pressed:?}")), (key, "*".into()));
        }
        for (place, key) in "123A456B789C*0#D".chars().enumerate() {
            assert_eq!(digit(key).place(), (place / 4, place % 4));
            assert_eq!(Digit::at(place / 4, place % 4), digit(key));
        }
        assert_eq!((Digit::from_event(16), Digit::from_key('E')), (None, None));
    }

    #[test]
    fn a_tone_that_leaked_before_its_event_is_one_press() {
        for start in [0, 50_000, u32::MAX - 100] {
            for lead in [-480i32, -200, 0, 160, 640] {
                let mut merger = Merger::default();
                assert!(merger.tone(now(), digit('5'), start));
                let event = start.wrapping_sub(lead as u32);
                assert!(!merger.event(digit('5'), event, 160), "event {lead} ticks earlier");
                assert!(merger.event(digit('5'), event.wrapping_add(1600), 160));
            }
        }
    }

    #[test]
    fn another_key_or_another_time_is_another_press() {
        let mut merger = Merger::default();
        merger.tone(now(), digit('5'), 50_000);
        assert!(merger.event(digit('6'), 50_000, 160));
        let mut merger = Merger::default();
        merger.tone(now(), digit('5'), 50_000);
        assert!(merger.event(digit('5'), 50_481, 160));
        let mut merger = Merger::default();
        merger.tone(now(), digit('5'), 50_000);
        assert!(merger.event(digit('5'), 50_000 - 641, 160));
    }

    #[test]
    fn events_end_the_listening_for_tones() {
        let mut merger = Merger::default();
        assert!(merger.wants_tones());
        assert!(merger.event(digit('1'), 0, 160));
        assert!(!merger.wants_tones());
        assert!(!merger.tone(now(), digit('1'), 100));
    }

    #[test]
    fn an_info_is_a_press_unless_it_was_heard_already() {
        let start = now();
        let mut merger = Merger::default();
        assert!(merger.tone(start, digit('5'), 100));
        assert!(!merger.info(start + Duration::from_millis(300), digit('5')), "the same press");
        assert!(merger.info(start + Duration::from_millis(600), digit('5')), "the next");
        assert!(!merger.wants_tones());
        assert!(!merger.tone(start, digit('5'), 9_000), "its echo");
        assert!(!merger.event(digit('5'), 9_000, 160), "the same key once more");
        let mut merger = Merger::default();
        assert!(merger.event(digit('1'), 0, 160));
        assert!(!merger.info(start, digit('1')), "telephone-event came first");
        let mut merger = Merger::default();
        merger.tone(start, digit('5'), 100);
        assert!(merger.info(start, digit('6')), "another key");
    }
}
