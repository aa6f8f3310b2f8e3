//! Keyed digits as telephone-events, RFC 4733: each press is told once, at the first packet of
//! it that arrives, whatever is lost, repeated, reordered or misstamped around it.

use super::packet::Header;

/// Copies of the end packet, RFC 4733 §2.5.1.4.
const END_COPIES: u8 = 3;
/// Event codes above this are not keys.
const KEY_MAX: u8 = 15;

/// Reads the events of one call. The identity of a press is (SSRC, event, start timestamp), all
/// compared on the RTP clock: no timer decides whether two packets are one press.
pub struct Receiver {
    /// Ticks per second of the payload type's clock.
    clock: u32,
    press: Option<Open>,
}

/// A new key press.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Press {
    /// RFC 4733 §3.2: 0 to 9, `*` 10, `#` 11, A to D 12 to 15.
    pub event: u8,
    /// RTP timestamp of its start.
    pub start: u32,
    /// Duration so far, in ticks.
    pub duration: u32,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Pressed(Press),
    /// Of the press already told.
    Again,
    /// Of an earlier press: dropped.
    Late,
    /// Not a key, such as flash-hook.
    Other,
    Malformed,
}

struct Open {
    ssrc: u32,
    event: u8,
    /// Start of the press, and of its latest segment (§2.5.1.3); the same unless it is long.
    start: u32,
    segment: u32,
    /// Longest duration seen in the latest segment.
    duration: u32,
    /// Sequence number of the first end packet seen.
    ended: Option<u16>,
}

impl Receiver {
    pub fn new(clock: u32) -> Receiver {
        Receiver { clock: clock.max(1), press: None }
    }

    /// One packet of the negotiated payload type.
    pub fn receive(&mut self, header: &Header, payload: &[u8]) -> Heard {
        // Some senders append padding of their own: only the first four bytes are the event.
        let [event, flags, high, low] = match payload.first_chunk::<4>() {
            Some(first) if payload.len().is_multiple_of(4) => *first,
            _ => return Heard::Malformed,
        };
        if event > KEY_MAX {
            return Heard::Other;
        }
        let report = Report {
            event,
            end: flags & 0x80 != 0,
            duration: u32::from(u16::from_be_bytes([high, low])),
        };
        match &mut self.press {
            Some(press) if press.ssrc == header.ssrc => {
                if is_before(header.timestamp, press.start) {
                    return Heard::Late;
                }
                if press.is_continued_by(header, &report, self.clock) {
                    press.update(header, &report);
                    return Heard::Again;
                }
            }
            _ => {}
        }
        self.press = Some(Open::new(header, &report));
        Heard::Pressed(Press { event, start: header.timestamp, duration: report.duration })
    }
}

/// The event block of one packet, RFC 4733 §2.3.
struct Report {
    event: u8,
    end: bool,
    duration: u32,
}

impl Open {
    fn new(header: &Header, report: &Report) -> Open {
        Open {
            ssrc: header.ssrc,
            event: report.event,
            start: header.timestamp,
            segment: header.timestamp,
            duration: report.duration,
            ended: report.end.then_some(header.sequence),
        }
    }

    /// Whether a packet that is not older than this press belongs to it.
    fn is_continued_by(&self, header: &Header, report: &Report, clock: u32) -> bool {
        if self.event != report.event {
            return false;
        }
        if header.timestamp == self.start || is_before(header.timestamp, self.segment) {
            return true;
        }
        // Beyond the start the timestamp differs: end copies restamped on the way (a new one for
        // each copy), a sender whose timestamp runs along, or the next segment of a long press.
        let beyond = header.timestamp.wrapping_sub(self.segment);
        if let Some(ended) = self.ended {
            let after = header.sequence.wrapping_sub(ended);
            let copy = after < u16::from(END_COPIES) && report.duration == self.duration;
            // Past its end a press has only end packets and what was overtaken by them.
            let old = after >= 0x8000;
            return report.end && (copy || beyond <= self.duration) || old;
        }
        let runs = report.duration == self.duration.wrapping_add(beyond);
        let full = self.duration.saturating_add(clock) > 0xffff;
        let near = beyond.abs_diff(0xffff) <= clock / 1000 * 60;
        beyond <= self.duration || runs || full && near && !header.marker
    }

    fn update(&mut self, header: &Header, report: &Report) {
        let newer = is_before(self.segment, header.timestamp);
        // A duration that starts over is a new segment; one that goes on is a running timestamp.
        if newer && self.ended.is_none() && report.duration < self.duration {
            self.segment = header.timestamp;
            self.duration = report.duration;
        } else if header.timestamp == self.segment || newer {
            self.duration = self.duration.max(report.duration);
        }
        if report.end && self.ended.is_none() {
            self.ended = Some(header.sequence);
        }
    }
}

/// `a` before `b` on the RTP clock, which wraps.
fn is_before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

/// Sends one key press: a packet per turn while it is held, then copies of its end.
pub struct Sender {
    event: u8,
    start: u32,
    /// Ticks it is held.
    length: u32,
    step: u32,
    /// How much of `length` earlier segments have covered (§2.5.1.3).
    segmented: u32,
    ends_left: u8,
    first: bool,
}

/// One packet to send; the sequence number is the stream's next, as always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    pub marker: bool,
    pub timestamp: u32,
    pub payload: [u8; 4],
}

impl Sender {
    /// `start` is the RTP timestamp of the key press, `length` and `step` (time between packets)
    /// are in ticks.
    pub fn new(event: u8, start: u32, length: u32, step: u32) -> Sender {
        let step = step.max(1);
        Sender {
            event,
            start,
            length: length.max(step),
            step,
            segmented: 0,
            ends_left: END_COPIES,
            first: true,
        }
    }

    /// The packet for the turn at `timestamp` of the stream, which never falls behind if turns
    /// were missed; `None` when all of it, the end copies too, is sent.
    pub fn next(&mut self, timestamp: u32) -> Option<Sending> {
        if self.ends_left == 0 {
            return None;
        }
        let elapsed = timestamp.wrapping_sub(self.start).saturating_add(self.step);
        let end = elapsed >= self.length;
        if elapsed.min(self.length) - self.segmented > 0xffff {
            // One step before the field overflows the segment is closed without an end bit.
            self.segmented += 0xffff / self.step * self.step;
        }
        let duration = elapsed.min(self.length) - self.segmented;
        let marker = std::mem::take(&mut self.first);
        if end {
            self.ends_left -= 1;
        }
        let [high, low] = (duration.min(0xffff) as u16).to_be_bytes();
        Some(Sending {
            marker,
            timestamp: self.start.wrapping_add(self.segmented),
            payload: [self.event, u8::from(end) << 7 | VOLUME, high, low],
        })
    }

    /// Whether the key is still held down.
    pub fn is_held(&self) -> bool {
        self.ends_left == END_COPIES
    }
}

/// -10 dBm0 per RFC 4733 §2.3.3.
const VOLUME: u8 = 10;

/// Fuzz body: a script of packets, 8 bytes each, runs through a receiver.
pub fn fuzz(bytes: &[u8]) {
    let mut receiver = Receiver::new(8000);
    let mut header =
        Header { marker: false, payload_type: 101, sequence: 0, timestamp: 0, ssrc: 1 };
    for step in bytes.chunks_exact(8) {
        header.marker = step[0] & 1 != 0;
        header.ssrc = u32::from(step[0] >> 7);
        header.sequence = header.sequence.wrapping_add(u16::from(step[1]).wrapping_sub(8));
        let jump = u32::from(u16::from_be_bytes([step[2], step[3]]));
        header.timestamp = header.timestamp.wrapping_add(jump << (step[0] >> 1 & 0xf));
        let len = usize::from(step[0] >> 5 & 3).min(1) * 4;
        let heard = receiver.receive(&header, &step[4..4 + len]);
        if let Heard::Pressed(press) = heard {
            assert!(press.event <= KEY_MAX && press.start == header.timestamp);
            let again = receiver.receive(&header, &step[4..4 + len]);
            assert_eq!(again, Heard::Again, "a repeated packet is not a second press");
        }
    }
}

#[cfg(test)]
mod tests;
