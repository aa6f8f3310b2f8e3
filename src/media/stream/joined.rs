//! A stream joined to another: what its peer says goes to the other's peer, and nobody else hears
//! it. Prompts, keys for the script and the recording pause meanwhile.

use super::reception::inside;
use super::*;
use crate::media::relay::{Kind, Relay};
use crate::rtp::reorder::HOLD;

/// How long a joined stream waits for a missing packet: the peers have jitter buffers of their own.
const JOINED_HOLD: Duration = TURN;
/// A key that the peer can take only as a tone.
const TONE_MS: u16 = 100;
const PAUSE_MS: u16 = 80;

impl Stream {
    /// Stops the prompt and keys still to be pressed, silences the recording, and gives the peer's
    /// packets to whichever stream is [exchanged](Stream::exchange) with. Both of a pair must be
    /// joined. What the peer's silence is told by goes on as before.
    pub fn join(&mut self) {
        if self.relay.is_some() {
            return;
        }
        self.out.pause();
        let stopped = self.playout.stop();
        self.outbox.ended(stopped, false);
        self.keypad = Keypad::new();
        self.reorder.set_hold(JOINED_HOLD);
        self.relay = Some(Box::new(Relay::new(self.out.timestamp)));
        self.silence_recording();
    }

    /// Ends what [`Stream::join`] began: the stream has its peer to itself again.
    pub fn part(&mut self) {
        let Some(relay) = self.relay.take() else { return };
        self.outbox.dropped += relay.dropped();
        // Relayed timestamps may be ahead of our own clock, by jitter at most.
        let ahead = relay.end().wrapping_sub(self.out.timestamp);
        if ahead < 1 << 31 {
            self.out.timestamp = relay.end();
        }
        self.out.pause();
        self.keypad = Keypad::new();
        self.ear.reset();
        self.reorder.set_hold(HOLD);
        self.sensitive_until = self.last_turn;
        self.silence_recording();
    }

    pub fn is_joined(&self) -> bool {
        self.relay.is_some()
    }

    /// Hands over what either has heard. Call it between [`Stream::receive`] of both and
    /// [`Stream::transmit`] of both.
    pub fn exchange(&mut self, now: Instant, other: &mut Stream) {
        // A gap that is given up in this turn.
        self.drain(now);
        other.drain(now);
        if let (Some(ours), Some(theirs)) = (&mut self.relay, &mut other.relay) {
            ours.take_from(theirs);
            theirs.take_from(ours);
        }
    }

    /// After [`Stream::transmit`]: further packets of this turn, until `None`.
    pub fn transmit_more(&mut self, packet: &mut [u8; PACKET_MAX]) -> Option<usize> {
        self.relay.as_ref()?;
        let agreed = self.agreed?;
        let len = self.relayed(agreed, packet)?;
        self.protected(packet, len)
    }

    /// This turn's first packet of a joined stream.
    pub(super) fn relay_turn(
        &mut self,
        agreed: Agreed,
        packet: &mut [u8; PACKET_MAX],
    ) -> Option<usize> {
        let sends = agreed.sends();
        let running = self.out.timestamp;
        self.out.timestamp = running.wrapping_add(SAMPLES as u32);
        if let Some(recorder) = &mut self.recorder {
            recorder.turn(&[codec::silence(Law::Mu); SAMPLES]);
        }
        let certain = self.gate.is_certain();
        let relay = self.relay.as_mut()?;
        relay.begin_turn();
        if !sends || !certain {
            relay.forget();
        }
        if !sends {
            self.out.pause();
            return None;
        }
        let mut frame = [codec::silence(agreed.law); SAMPLES];
        let len = if self.press_relayed(agreed, running, &mut frame) {
            self.write_own(agreed, running, packet, &frame)
        } else {
            match self.relayed(agreed, packet) {
                Some(len) => len,
                None if self.relay.as_ref().is_some_and(|relay| relay.is_quiet()) => {
                    self.write_own(agreed, running, packet, &frame)
                }
                None => return None,
            }
        };
        self.protected(packet, len)
    }

    /// Keys for a peer without telephone-event sound in place of what the other side says: whether
    /// one does in this turn.
    fn press_relayed(&mut self, agreed: Agreed, running: u32, frame: &mut Frame) -> bool {
        if agreed.events_out.is_some() {
            return false;
        }
        let Some(relay) = &mut self.relay else { return false };
        relay.take_keys(|event| {
            let digits: Vec<Digit> = Digit::from_event(event).into_iter().collect();
            let refused = self.keypad.press(&digits, Method::InBand, TONE_MS, PAUSE_MS);
            self.outbox.dropped += refused as u64;
        });
        let moment = Moment { timestamp: running, events: None, packet_start: true };
        let sounds = self.keypad.turn(agreed.law, moment, frame) != Turn::Idle;
        self.keypad.take_finished();
        if sounds {
            relay.forget();
        }
        sounds
    }

    /// A frame of ours, at our own clock or right behind what was relayed.
    fn write_own(
        &mut self,
        agreed: Agreed,
        running: u32,
        packet: &mut [u8; PACKET_MAX],
        frame: &Frame,
    ) -> usize {
        let timestamp = match &mut self.relay {
            Some(relay) => relay.place_own(running),
            None => running,
        };
        let marker = std::mem::take(&mut self.out.marker);
        let wire = outside(&mut self.transcoder, frame);
        self.out.write(packet, marker, agreed.payload_type(), timestamp, wire)
    }

    /// The next packet of the other side, as our peer wants it.
    fn relayed(&mut self, agreed: Agreed, packet: &mut [u8; PACKET_MAX]) -> Option<usize> {
        let relay = self.relay.as_mut()?;
        // Of the turn that has begun.
        let running = self.out.timestamp.wrapping_sub(SAMPLES as u32);
        let said = relay.take()?;
        match (said.kind, agreed.events_out) {
            (Kind::Audio(_), _) => {
                let (timestamp, moved) = relay.place_audio(&said, running);
                let mut sound = [0; PAYLOAD_MAX];
                let len = said.sound(agreed.law, &mut sound);
                let marker = std::mem::take(&mut self.out.marker) || moved;
                let wire = outside(&mut self.transcoder, &sound[..len]);
                Some(self.out.write(packet, marker, agreed.payload_type(), timestamp, wire))
            }
            (Kind::Key { again, .. }, Some((kind, clock))) => {
                let timestamp = relay.place_key(&said, again, running);
                Some(self.out.write(packet, !again, kind, timestamp, &said.event(clock)))
            }
            (Kind::Key { .. }, None) => None,
        }
    }

    /// What a joined stream does with what is due instead of hearing it.
    pub(super) fn drain_joined(&mut self, now: Instant, agreed_law: Law, listens: bool) {
        let Some(relay) = &mut self.relay else { return };
        let Stream { transcoder, inward, counters, .. } = self;
        while let Some(unit) = self.reorder.take(now) {
            inside(transcoder, inward, counters, unit, |unit| match unit {
                Unit::Audio { payload_type, timestamp, payload } if listens => {
                    let law = codec::law_of(payload_type).unwrap_or(agreed_law);
                    relay.hear(Kind::Audio(law), timestamp, payload);
                }
                Unit::Audio { .. } | Unit::Lost { .. } => {}
            });
        }
    }
}

/// Sound as the peer wants it.
pub(super) fn outside<'a>(transcoder: &'a mut Option<Transcoder>, codes: &'a [u8]) -> &'a [u8] {
    match transcoder {
        Some(transcoder) => transcoder.encode(codes),
        None => codes,
    }
}
