//! What joined calls have for each other: packets of one peer on their way to the other, and where
//! they stand on the other's RTP clock.

use std::collections::VecDeque;

use super::codec;
use super::frame::{RATE, SAMPLES};
use crate::rtp::reorder::PAYLOAD_MAX;
use crate::sip::offer::Law;

/// Packets that may wait each way; beyond this the oldest is dropped.
const WAITING_MAX: usize = 8;
/// Packets to one peer in a turn: two of audio, as 10 ms ones come, and one of an event.
const TURN_MAX: u8 = 3;
/// How far relayed timestamps may be from our own clock, 200 ms: jitter, and clocks that drift.
const DRIFT_MAX: u32 = 1600;
/// Turns without a packet after which silence is sent, so that nobody on the way takes the call
/// for dead.
const QUIET_TURNS: u32 = 5;

/// One stream's side of the bridge.
pub struct Relay {
    /// From our peer, for the other side.
    heard: VecDeque<Said>,
    /// From the other side, for our peer.
    due: VecDeque<Said>,
    timeline: Timeline,
    /// Our timestamp of the key that is being relayed.
    key: Option<u32>,
    /// Packets sent in this turn.
    sent: u8,
    /// Turns since the last one that sent something relayed.
    quiet: u32,
    dropped: u64,
}

/// One packet as its stream heard it.
pub struct Said {
    pub kind: Kind,
    pub timestamp: u32,
    len: u16,
    payload: [u8; PAYLOAD_MAX],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Audio(Law),
    /// A packet of a key; `again` when it is not the first that came of it.
    Key {
        /// Ticks per second of its duration.
        clock: u32,
        again: bool,
    },
}

impl Relay {
    /// `timestamp` is the next that our peer may get.
    pub fn new(timestamp: u32) -> Relay {
        Relay {
            heard: VecDeque::with_capacity(WAITING_MAX),
            due: VecDeque::with_capacity(WAITING_MAX),
            timeline: Timeline { base: None, end: timestamp },
            key: None,
            sent: 0,
            quiet: 0,
            dropped: 0,
        }
    }

    /// Something our peer said; `payload` is at most [`PAYLOAD_MAX`] bytes.
    pub fn hear(&mut self, kind: Kind, timestamp: u32, payload: &[u8]) {
        let len = payload.len().min(PAYLOAD_MAX);
        let mut said = Said { kind, timestamp, len: len as u16, payload: [0; PAYLOAD_MAX] };
        said.payload[..len].copy_from_slice(&payload[..len]);
        push(&mut self.heard, said, &mut self.dropped);
    }

    /// Takes what the other side has heard.
    pub fn take_from(&mut self, other: &mut Relay) {
        for said in other.heard.drain(..) {
            push(&mut self.due, said, &mut self.dropped);
        }
    }

    pub fn begin_turn(&mut self) {
        self.sent = 0;
        self.quiet = self.quiet.saturating_add(1);
    }

    /// The next packet for our peer, if one more may be sent in this turn.
    pub fn take(&mut self) -> Option<Said> {
        if self.sent == TURN_MAX {
            return None;
        }
        let said = self.due.pop_front()?;
        self.sent += 1;
        self.quiet = 0;
        Some(said)
    }

    /// Keys that our peer can take only as tones are not sent as packets.
    pub fn take_keys(&mut self, mut press: impl FnMut(u8)) {
        self.due.retain(|said| match said.kind {
            Kind::Audio(_) => true,
            Kind::Key { again, .. } => {
                if !again {
                    press(said.payload[0]);
                }
                false
            }
        });
    }

    /// Nobody can be sent what waits.
    pub fn forget(&mut self) {
        self.dropped += self.due.len() as u64;
        self.due.clear();
    }

    /// Whether silence is due.
    pub fn is_quiet(&self) -> bool {
        self.quiet >= QUIET_TURNS
    }

    /// Our timestamp for a frame of our own.
    pub fn place_own(&mut self, running: u32) -> u32 {
        let at = later(running, self.timeline.end);
        self.timeline.use_up(at.wrapping_add(SAMPLES as u32));
        at
    }

    /// Our timestamp for sound of `said`, at our own clock's `running`; true if it is not where
    /// the last one leads to, so that the packet must be marked.
    pub fn place_audio(&mut self, said: &Said, running: u32) -> (u32, bool) {
        let (at, moved) = self.timeline.place(said.timestamp, running);
        self.timeline.use_up(at.wrapping_add(u32::from(said.len)));
        (at, moved)
    }

    /// Our timestamp for a packet of a key: the same for all of them, whatever else happens.
    pub fn place_key(&mut self, said: &Said, again: bool, running: u32) -> u32 {
        match self.key.filter(|_| again) {
            Some(start) => start,
            None => {
                let start = self.timeline.glance(said.timestamp, running);
                *self.key.insert(start)
            }
        }
    }

    /// The first timestamp that no relayed packet has used.
    pub fn end(&self) -> u32 {
        self.timeline.end
    }

    /// Packets that found no room or nobody to be sent to.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Said {
    /// Its sound in this law, into `sound`; how many bytes.
    pub fn sound(&self, law: Law, sound: &mut [u8; PAYLOAD_MAX]) -> usize {
        let Kind::Audio(from) = self.kind else { return 0 };
        let len = usize::from(self.len);
        for (code, &said) in sound.iter_mut().zip(&self.payload[..len]) {
            *code = codec::transcode(said, from, law);
        }
        len
    }

    /// The event block of a key (RFC 4733 §2.3) with its duration in ticks of `clock`.
    pub fn event(&self, clock: u32) -> [u8; 4] {
        let [event, flags, high, low] = [0, 1, 2, 3].map(|at| self.payload[at]);
        let Kind::Key { clock: from, .. } = self.kind else { return [event, flags, high, low] };
        let ticks = u64::from(u16::from_be_bytes([high, low]));
        let ticks = ticks * u64::from(clock) / u64::from(from.max(1));
        let [high, low] = (ticks.min(0xffff) as u16).to_be_bytes();
        [event, flags, high, low]
    }
}

/// Their clock on ours.
struct Timeline {
    /// A timestamp of theirs and the one of ours that it became.
    base: Option<(u32, u32)>,
    /// The first timestamp of ours not used yet.
    end: u32,
}

impl Timeline {
    /// Their distances are kept. Where that would go back, or away from our own clock, a new
    /// beginning is made there.
    fn place(&mut self, theirs: u32, running: u32) -> (u32, bool) {
        let kept = self.kept(theirs, running).filter(|at| !is_before(*at, self.end));
        if let Some(at) = kept {
            return (at, false);
        }
        let at = later(running, self.end);
        self.base = Some((theirs, at));
        (at, true)
    }

    /// The same for what stands beside the sound and uses nothing up.
    fn glance(&mut self, theirs: u32, running: u32) -> u32 {
        self.kept(theirs, running).unwrap_or(running)
    }

    fn kept(&self, theirs: u32, running: u32) -> Option<u32> {
        let (from, to) = self.base?;
        let at = to.wrapping_add(theirs.wrapping_sub(from));
        let near = at.wrapping_sub(running).wrapping_add(DRIFT_MAX) <= 2 * DRIFT_MAX;
        near.then_some(at)
    }

    fn use_up(&mut self, end: u32) {
        if is_before(self.end, end) {
            self.end = end;
        }
    }
}

fn later(a: u32, b: u32) -> u32 {
    if is_before(a, b) { b } else { a }
}

/// `a` before `b` on the RTP clock, which wraps.
fn is_before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

/// A full queue loses its oldest sound; a key only where there is nothing else.
fn push(queue: &mut VecDeque<Said>, said: Said, dropped: &mut u64) {
    if queue.len() == WAITING_MAX {
        let oldest = queue.iter().position(|said| matches!(said.kind, Kind::Audio(_)));
        queue.remove(oldest.unwrap_or(0));
        *dropped += 1;
    }
    queue.push_back(said);
}

const _: () = assert!(RATE == 8000, "a byte of sound is a tick of the clock");

#[cfg(test)]
mod tests {
    use super::*;

    fn audio(timestamp: u32) -> Said {
        let mut relay = Relay::new(0);
        relay.hear(Kind::Audio(Law::Mu), timestamp, &[0xff; 160]);
        relay.heard.pop_front().unwrap()
    }

    #[test]
    fn distances_are_kept_over_jitter_and_the_wrap() {
        let start = u32::MAX - 400;
        let mut relay = Relay::new(start);
        let mut placed = vec![];
        // Their packets 0 to 5, of which 3 is lost and 4 comes a turn late.
        for (packet, turn) in [(0, 0), (1, 1), (2, 2), (4, 5), (5, 5)] {
            let running = start.wrapping_add(turn * 160);
            placed.push(relay.place_audio(&audio(7000 + packet * 160), running));
        }
        let expected =
            [0, 1, 2, 4, 5].map(|packet| (start.wrapping_add(packet * 160), packet == 0));
        assert_eq!(placed, expected);
        assert_eq!(relay.end(), start.wrapping_add(6 * 160));
    }

    #[test]
    fn a_jump_of_their_clock_is_none_of_ours() {
        let mut relay = Relay::new(50_000);
        assert_eq!(relay.place_audio(&audio(0), 50_000), (50_000, true));
        assert_eq!(relay.place_audio(&audio(1_000_000), 50_160), (50_160, true));
        assert_eq!(relay.place_audio(&audio(1_000_160), 50_320), (50_320, false));
        // Back in time: it goes behind what was used.
        assert_eq!(relay.place_audio(&audio(1_000_100), 50_400), (50_480, true));
    }

    #[test]
    fn a_key_keeps_its_start() {
        let mut relay = Relay::new(800);
        relay.place_audio(&audio(100), 800);
        assert_eq!(relay.place_key(&audio(420), false, 1280), 1120);
        // Their clock jumps in the middle of the key, or its end copies are restamped.
        relay.place_audio(&audio(90_000), 1440);
        assert_eq!(relay.place_key(&audio(420), true, 1600), 1120);
        assert_eq!(relay.place_key(&audio(580), true, 1760), 1120);
        assert_eq!(relay.place_key(&audio(90_480), false, 1920), 1920);
    }

    #[test]
    fn a_full_queue_keeps_keys_and_a_turn_is_no_burst() {
        let mut relay = Relay::new(0);
        let mut other = Relay::new(0);
        other.hear(Kind::Key { clock: 8000, again: false }, 0, &[5, 10, 0, 160]);
        for packet in 0..20 {
            other.hear(Kind::Audio(Law::Mu), packet * 160, &[0xff; 160]);
        }
        relay.take_from(&mut other);
        relay.begin_turn();
        let first = relay.take().unwrap();
        assert_eq!(first.event(16_000), [5, 10, 1, 64]);
        assert_eq!(relay.take().unwrap().timestamp, 13 * 160);
        assert_eq!((relay.take().is_some(), relay.take().is_some()), (true, false));
        relay.begin_turn();
        assert_eq!(std::iter::from_fn(|| relay.take()).count(), 3);
        assert_eq!(other.dropped(), 13);
    }
}
