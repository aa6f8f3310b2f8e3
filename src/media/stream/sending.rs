//! What a stream sends: one packet a turn, on its own RTP clock, and what was missed is skipped.

use super::clock::Outward;
use super::joined::outside;
use super::*;
use crate::rtp::rtcp::Sent;

/// The RTP we send.
pub(super) struct Out {
    pub(super) ssrc: u32,
    pub(super) sequence: u16,
    /// Of the next turn, as all timestamps here on the clock inside.
    pub(super) timestamp: u32,
    pub(super) clock: Outward,
    /// The next audio packet follows a pause.
    pub(super) marker: bool,
    /// Sound of turns that do not yet fill a packet of the agreed ptime; room for one, once it is
    /// longer than a turn.
    payload: Vec<u8>,
    /// Turns since the last packet of comfort noise.
    quiet: u32,
    /// Of payload, since the beginning.
    octets: u32,
}

/// Turns from one packet of comfort noise to the next.
const NOISE_TURNS: u32 = 10;
/// Missed turns that whoever listens for echo is told of: after more it begins anew anyway.
const MISSED_MAX: u32 = 50;
/// Its level in -dBov (RFC 3389 §3): hardly to be heard.
const NOISE_LEVEL: u8 = 70;

impl Stream {
    /// Writes this turn's packet and says how long it is; `None` while there is nobody to send
    /// to. A turn that comes late by more than 20 ms sends one packet like any other: what was
    /// missed is skipped on the RTP clock, never sent in a burst.
    pub fn transmit(&mut self, now: Instant, packet: &mut [u8; PACKET_MAX]) -> Option<usize> {
        self.drain(now);
        if let Some(hearing) = self.ear.hearing() {
            hearing.turn();
        }
        let agreed = self.agreed?;
        self.skip_missed(now);
        self.watch_silence(now, agreed);
        let sends = agreed.sends();
        if self.is_joined() {
            return self.relay_turn(agreed, packet);
        }
        let mut frame = [codec::silence(agreed.law); SAMPLES];
        let certain = self.gate.is_certain();
        let (turn, sounds) = match sends && certain {
            true => self.compose(agreed, &mut frame),
            false => (Turn::Idle, false),
        };
        if let Some(recorder) = &mut self.recorder {
            // Keys that we press are no more kept than the caller's.
            recorder.turn(&match turn {
                Turn::Idle => frame.map(|code| codec::transcode(code, agreed.law, Law::Mu)),
                _ => [codec::silence(Law::Mu); SAMPLES],
            });
        }
        if self.ear.wants_sent(self.merger.wants_tones()) {
            self.ear.sent(agreed.law, &frame);
        }
        // Who is not known yet by address must hear from us to be heard.
        let quiet = !sounds && certain && self.out.payload.is_empty();
        let len = match (turn, agreed.events_out) {
            _ if !sends => {
                self.out.pause();
                None
            }
            (Turn::Event(sending), Some((kind, _))) => Some(self.out.write(
                packet,
                sending.marker,
                kind,
                sending.timestamp,
                &sending.payload,
            )),
            _ if quiet && agreed.silence != Silence::Packets => {
                self.out.keep_quiet(packet, agreed.silence)
            }
            _ => self.out.write_audio(packet, agreed, &mut self.transcoder, &frame),
        };
        self.out.timestamp = self.out.timestamp.wrapping_add(SAMPLES as u32);
        self.protected(packet, len?)
    }

    /// What goes on the wire of a packet with this length.
    pub(super) fn protected(&mut self, packet: &mut [u8; PACKET_MAX], len: usize) -> Option<usize> {
        let len = if self.shield.is_on() { self.shield.protect(packet, len)? } else { len };
        self.counters.sent += 1;
        Some(len)
    }

    /// Leaves out of the sound what was missed. A tone with a hole in it would be two keys: it goes
    /// on, and what was missed meanwhile is left out after it.
    fn skip_missed(&mut self, now: Instant) {
        self.count_missed(now);
        if self.behind > 0 && !self.keypad.is_sounding() {
            self.out.skip(std::mem::take(&mut self.behind));
        }
    }

    fn count_missed(&mut self, now: Instant) {
        let since = self.last_turn.replace(now).map(|last| now.saturating_duration_since(last));
        let Some(since) = since.filter(|&since| since > 2 * TURN) else { return };
        let half = TURN / 2;
        let missed = ((since + half).as_millis() / TURN.as_millis()).saturating_sub(1) as u32;
        self.counters.missed_turns += u64::from(missed);
        self.behind = self.behind.saturating_add(missed);
        if let Some(recorder) = &mut self.recorder {
            recorder.pass(missed);
        }
        let wanted = self.ear.wants_sent(self.merger.wants_tones());
        if let (Some(agreed), true) = (self.agreed, wanted) {
            let silence = [codec::silence(agreed.law); SAMPLES];
            (0..missed.min(MISSED_MAX)).for_each(|_| self.ear.sent(agreed.law, &silence));
        }
    }

    /// What goes out this turn, keys before clips, and whether it is anything but silence.
    fn compose(&mut self, agreed: Agreed, frame: &mut Frame) -> (Turn, bool) {
        let moment = Moment {
            timestamp: self.out.timestamp,
            events: agreed.events_out.map(|(_, clock)| clock),
            packet_start: self.out.payload.is_empty(),
        };
        let turn = self.keypad.turn(agreed.law, moment, frame);
        if self.keypad.take_finished() {
            self.outbox.push(Event::Pressed);
        }
        let sounds = turn != Turn::Idle || self.playout.is_playing();
        if turn == Turn::Idle {
            let ended = self.playout.fill(agreed.law, frame);
            self.outbox.ended(ended, true);
        }
        (turn, sounds)
    }
}

impl Out {
    pub(super) fn new(setup: &Setup) -> Out {
        Out {
            ssrc: setup.ssrc,
            sequence: setup.sequence,
            timestamp: setup.timestamp,
            clock: Outward::new(),
            marker: true,
            payload: Vec::new(),
            quiet: 0,
            octets: 0,
        }
    }

    pub(super) fn set_clock(&mut self, clock: u32) {
        self.clock.set(clock, self.timestamp);
    }

    pub(super) fn pause(&mut self) {
        self.payload.clear();
        self.marker = true;
    }

    fn skip(&mut self, turns: u32) {
        self.pause();
        self.timestamp = self.timestamp.wrapping_add(turns.wrapping_mul(SAMPLES as u32));
    }

    /// What a report says of it.
    pub(super) fn sent(&self, packets: u64) -> Sent {
        let timestamp = self.clock.at(self.timestamp.wrapping_sub(SAMPLES as u32));
        Sent { packets: packets as u32, octets: self.octets, timestamp }
    }

    /// A turn with nothing to say; what is said next is marked as the end of a pause.
    fn keep_quiet(&mut self, packet: &mut [u8; PACKET_MAX], silence: Silence) -> Option<usize> {
        let first = !self.marker;
        self.pause();
        self.quiet = if first { 0 } else { (self.quiet + 1) % NOISE_TURNS };
        let due = silence == Silence::ComfortNoise && self.quiet == 0;
        let timestamp = self.timestamp;
        due.then(|| self.write(packet, false, COMFORT_NOISE, timestamp, &[NOISE_LEVEL]))
    }

    /// Adds this turn's frame; a packet once there is as much as was agreed on, in whole frames.
    fn write_audio(
        &mut self,
        packet: &mut [u8; PACKET_MAX],
        agreed: Agreed,
        transcoder: &mut Option<Transcoder>,
        frame: &Frame,
    ) -> Option<usize> {
        let payload_type = agreed.payload_type();
        let frames = usize::from(agreed.ptime_ms) / FRAME_MS as usize;
        if frames <= 1 && self.payload.is_empty() {
            let marker = std::mem::take(&mut self.marker);
            let wire = outside(transcoder, frame);
            return Some(self.write(packet, marker, payload_type, self.timestamp, wire));
        }
        let start = self.timestamp.wrapping_sub(self.payload.len() as u32);
        self.payload.reserve_exact(PAYLOAD_MAX - self.payload.len());
        self.payload.extend(frame);
        let full = self.payload.len() >= frames.clamp(1, PAYLOAD_MAX / SAMPLES) * SAMPLES;
        full.then(|| {
            let marker = std::mem::take(&mut self.marker);
            let mut payload = std::mem::take(&mut self.payload);
            let wire = outside(transcoder, &payload);
            let len = self.write(packet, marker, payload_type, start, wire);
            payload.clear();
            self.payload = payload;
            len
        })
    }

    pub(super) fn write(
        &mut self,
        packet: &mut [u8; PACKET_MAX],
        marker: bool,
        payload_type: u8,
        timestamp: u32,
        payload: &[u8],
    ) -> usize {
        let (sequence, ssrc) = (self.sequence, self.ssrc);
        let timestamp = self.clock.at(timestamp);
        let header = Header { marker, payload_type, sequence, timestamp, ssrc };
        self.sequence = self.sequence.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
        packet[..HEADER_LEN].copy_from_slice(&header.bytes());
        packet[HEADER_LEN..HEADER_LEN + payload.len()].copy_from_slice(payload);
        HEADER_LEN + payload.len()
    }
}
