//! One call's media: packets in, one packet out every 20 ms, keys and playout events between.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::digit::Merger;
use super::ear::{Ear, Sound};
use super::frame::{FRAME_MS, Frame, RATE, SAMPLES};
use super::playout::{Keypad, Moment, Playout, Turn};
use super::recording::{Recorder, Stereo};
use super::relay::{Kind, Relay};
use super::{Clip, Digit, Source, codec};
use crate::rtp::latch::Gate;
use crate::rtp::packet::{HEADER_LEN, Header, Packet, is_rtcp};
use crate::rtp::reorder::{Arrival, PAYLOAD_MAX, Reorder, Unit};
use crate::rtp::srtp::{Refused, Shield};
use crate::rtp::telephone_event::{Heard, Receiver};
use crate::sip::offer::{Direction, Law, Negotiated};
use crate::sip::profile::Latch;

mod joined;

/// Numbers a `Play` so that its end can be told from an earlier one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlayId(pub u64);

/// Random values that RFC 3550 wants unpredictable, drawn by whoever owns randomness.
#[derive(Clone, Copy)]
pub struct Setup {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    /// Keep frames of both directions for [`Stream::recorded`].
    pub record: bool,
    /// Report received audio as [`Event::Heard`].
    pub listen: bool,
}

pub enum Command {
    /// What offer/answer agreed on; again after each re-INVITE.
    Negotiated(Negotiated),
    /// Replaces what is playing. With `barge_in` the first key stops it within one frame.
    Play {
        id: PlayId,
        clips: Vec<Clip>,
        barge_in: bool,
    },
    Stop,
    /// Sends keys to the peer, each `on_ms` long and followed by `off_ms` of silence.
    Press {
        keys: Vec<Digit>,
        method: Method,
        on_ms: u16,
        off_ms: u16,
    },
    /// A key that signalling reported.
    Signalled(Digit),
    /// While true, and 500 ms beyond, both directions of the recording are silenced.
    Sensitive(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// RFC 4733 telephone-events.
    Events,
    /// DTMF tones in the audio.
    InBand,
}

pub enum Event {
    /// A key press, reported once whichever way it came.
    Key { digit: Digit, source: Source },
    /// `completed` is false when barge-in, `Stop` or another `Play` cut it short.
    PlayEnded { id: PlayId, completed: bool },
    /// All keys of the last `Press` are on the wire.
    Pressed,
    /// 20 ms of received audio in order, in the negotiated law (only with `Setup::listen`).
    Heard(Box<[u8; 160]>),
    /// Nothing was received for 30 s although the call is not on hold. Told once per silence.
    Silent,
}

/// What happened to this call's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// RTP packets of the peer, whatever became of them.
    pub received: u64,
    pub sent: u64,
    pub lost: u64,
    /// Too late to be put in order.
    pub late: u64,
    /// With SRTP replays too.
    pub duplicate: u64,
    /// From someone who is not the peer.
    pub foreign: u64,
    pub malformed: u64,
    /// SRTP and SRTCP whose tag is wrong.
    pub unauthentic: u64,
    /// Of a payload type that was not agreed on.
    pub unknown_type: u64,
    /// RTCP that shares the port: authenticated, but not read yet.
    pub rtcp: u64,
    pub ssrc_changes: u64,
    /// Turns of 20 ms in which nothing could be sent because we were late.
    pub missed_turns: u64,
    /// Events nobody took in time, and keys beyond what can wait to be pressed.
    pub dropped: u64,
}

/// The largest packet [`Stream::transmit`] makes.
pub const PACKET_MAX: usize = 512;

/// After this long without a packet the peer is reported silent.
const SILENCE: Duration = Duration::from_secs(30);
const TURN: Duration = Duration::from_millis(FRAME_MS as u64);
const EVENTS_MAX: usize = 64;
/// Received audio gives way to other events when this many wait.
const HEARD_MAX: usize = 32;
/// Payload type of comfort noise, RFC 3389.
const COMFORT_NOISE: u8 = 13;

/// One call's media. Call [`Stream::receive`] for each datagram, [`Stream::transmit`] once every
/// 20 ms, and then [`Stream::poll`] until `None`.
pub struct Stream {
    /// Without its keys, which are in `shield`.
    negotiated: Option<Negotiated>,
    shield: Shield,
    gate: Gate,
    reorder: Reorder,
    keys: Receiver,
    merger: Merger,
    ear: Ear,
    playout: Playout,
    keypad: Keypad,
    recorder: Option<Recorder>,
    /// The script is in a sensitive window.
    sensitive: bool,
    /// While joined to another stream.
    relay: Option<Box<Relay>>,
    out: Out,
    outbox: Outbox,
    counters: Counters,
    last_turn: Option<Instant>,
    last_heard: Instant,
    told_silent: bool,
}

/// The RTP we send.
struct Out {
    ssrc: u32,
    sequence: u16,
    /// Of the next turn.
    timestamp: u32,
    /// The next audio packet follows a pause.
    marker: bool,
    /// Audio of turns that do not yet fill a packet of the agreed ptime.
    payload: [u8; PAYLOAD_MAX],
    filled: usize,
}

/// Events waiting to be polled.
struct Outbox {
    events: VecDeque<Event>,
    dropped: u64,
}

impl Stream {
    pub fn new(setup: Setup, latch: Latch, now: Instant) -> Stream {
        Stream {
            negotiated: None,
            shield: Shield::default(),
            gate: Gate::new(latch),
            reorder: Reorder::new(),
            keys: Receiver::new(RATE),
            merger: Merger::default(),
            ear: Ear::new(setup.listen),
            playout: Playout::default(),
            keypad: Keypad::new(),
            recorder: setup.record.then(Recorder::new),
            sensitive: false,
            relay: None,
            out: Out::new(&setup),
            outbox: Outbox { events: VecDeque::with_capacity(EVENTS_MAX), dropped: 0 },
            counters: Counters::default(),
            last_turn: None,
            last_heard: now,
            told_silent: false,
        }
    }

    pub fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Negotiated(negotiated) => self.negotiate(now, negotiated),
            Command::Play { id, .. } if self.is_joined() => self.outbox.ended(Some(id), false),
            Command::Play { id, clips, barge_in } => {
                let replaced = self.playout.play(id, clips, barge_in);
                self.outbox.ended(replaced, false);
            }
            Command::Stop => {
                let stopped = self.playout.stop();
                self.outbox.ended(stopped, false);
            }
            Command::Press { keys, .. } if self.is_joined() => {
                self.outbox.dropped += keys.len() as u64;
            }
            Command::Press { keys, method, on_ms, off_ms } => {
                let refused = self.keypad.press(&keys, method, on_ms, off_ms);
                self.outbox.dropped += refused as u64;
            }
            Command::Signalled(digit) => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.key();
                }
                if self.relay.is_none() && self.merger.info(now, digit) {
                    self.outbox.key(digit, Source::Info, &mut self.playout);
                }
            }
            Command::Sensitive(on) => {
                self.sensitive = on;
                self.silence_recording();
            }
        }
    }

    /// A datagram that arrived on the call's RTP port.
    pub fn receive(&mut self, now: Instant, source: SocketAddr, bytes: &[u8]) {
        if !self.shield.is_on() {
            return self.receive_plain(now, source, bytes);
        }
        // Only what authenticates may prove an address or take a number of the window.
        if self.gate.is_stranger(source) {
            self.counters.foreign += 1;
            return;
        }
        let plain = match is_rtcp(bytes) {
            true => self.shield.unprotect_control(bytes),
            false => self.shield.unprotect(bytes),
        };
        match plain {
            Ok(plain) => self.receive_plain(now, source, &plain),
            Err(Refused::Malformed) => self.counters.malformed += 1,
            Err(Refused::Unauthentic) => self.counters.unauthentic += 1,
            Err(Refused::Replayed) => self.counters.duplicate += 1,
        }
    }

    fn receive_plain(&mut self, now: Instant, source: SocketAddr, bytes: &[u8]) {
        if is_rtcp(bytes) {
            self.counters.rtcp += 1;
            return;
        }
        let Some(packet) = Packet::parse(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        let negotiated = match &self.negotiated {
            Some(negotiated) if self.gate.admit(now, source, packet.header.sequence) => {
                negotiated.clone()
            }
            _ => {
                self.counters.foreign += 1;
                return;
            }
        };
        self.counters.received += 1;
        self.last_heard = now;
        self.told_silent = false;
        let header = &packet.header;
        let is_audio = codec::law_of(header.payload_type).is_some();
        let arrival = if is_audio {
            self.reorder.insert(now, header, packet.payload)
        } else {
            self.reorder.skip(now, header)
        };
        self.count(arrival);
        let events = negotiated.events_in.filter(|(kind, _)| *kind == header.payload_type);
        if let Some((_, clock)) = events {
            let heard = self.keys.receive(&packet.header, packet.payload);
            match (&mut self.relay, heard) {
                (Some(relay), Heard::Pressed(_) | Heard::Again) => {
                    let again = heard == Heard::Again;
                    if joined::listens(&negotiated) && arrival != Arrival::Duplicate {
                        relay.hear(Kind::Key { clock, again }, header.timestamp, packet.payload);
                    }
                }
                _ => self.key(clock, heard),
            }
        } else if !is_audio && header.payload_type != COMFORT_NOISE {
            self.counters.unknown_type += 1;
        }
        self.drain(now);
    }

    /// Writes this turn's packet and says how long it is; `None` while there is nobody to send
    /// to. A turn that comes late by more than 20 ms sends one packet like any other: what was
    /// missed is skipped on the RTP clock, never sent in a burst.
    pub fn transmit(&mut self, now: Instant, packet: &mut [u8; PACKET_MAX]) -> Option<usize> {
        self.drain(now);
        let negotiated = self.negotiated.clone()?;
        self.skip_missed(now);
        self.watch_silence(now, &negotiated);
        let sends = negotiated.remote.is_some()
            && matches!(negotiated.direction, Direction::SendRecv | Direction::SendOnly);
        if self.is_joined() {
            return self.relay_turn(&negotiated, sends, packet);
        }
        let mut frame = [codec::silence(negotiated.law); SAMPLES];
        let turn = match sends && self.gate.is_certain() {
            true => self.compose(&negotiated, &mut frame),
            false => Turn::Idle,
        };
        if let Some(recorder) = &mut self.recorder {
            recorder.turn(&frame.map(|code| codec::transcode(code, negotiated.law, Law::Mu)));
        }
        if self.merger.wants_tones() {
            self.ear.sent(negotiated.law, &frame);
        }
        let len = match (turn, negotiated.events_out) {
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
            _ => {
                let kind = codec::payload_type(negotiated.law);
                self.out.write_audio(packet, kind, negotiated.ptime_ms, &frame)
            }
        };
        self.out.timestamp = self.out.timestamp.wrapping_add(SAMPLES as u32);
        self.protected(packet, len?)
    }

    /// What goes on the wire of a packet with this length.
    fn protected(&mut self, packet: &mut [u8; PACKET_MAX], len: usize) -> Option<usize> {
        let len = if self.shield.is_on() { self.shield.protect(packet, len)? } else { len };
        self.counters.sent += 1;
        Some(len)
    }

    pub fn poll(&mut self) -> Option<Event> {
        self.outbox.events.pop_front()
    }

    /// Where to send.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.gate.remote()
    }

    /// The next 20 ms of the recording: the caller's 160 bytes, then ours, in mu-law.
    pub fn recorded(&mut self) -> Option<Stereo> {
        self.recorder.as_mut()?.take()
    }

    /// The call is over: [`Stream::recorded`] gives what was still held back.
    pub fn close(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.close();
        }
    }

    pub fn counters(&self) -> Counters {
        Counters { dropped: self.outbox.dropped, ..self.counters }
    }

    fn negotiate(&mut self, now: Instant, negotiated: Negotiated) {
        let clock = |negotiated: &Negotiated| negotiated.events_in.map_or(RATE, |(_, clock)| clock);
        if self.negotiated.as_ref().map(clock) != Some(clock(&negotiated)) {
            self.keys = Receiver::new(clock(&negotiated));
        }
        if let Some(relay) = &mut self.relay {
            // What was said before there was anybody to hear it.
            relay.forget();
        }
        self.gate.renegotiate(negotiated.remote);
        self.shield.agree(negotiated.srtp.as_ref());
        if self.shield.is_on() && self.counters.sent == 0 {
            // Should the first packets be lost, those that come must still be numbered as in the
            // first round of 65,536 (RFC 4568 §6.4).
            self.out.sequence &= 0x7fff;
        }
        self.negotiated = Some(Negotiated { srtp: None, ..negotiated });
        self.last_heard = now;
    }

    fn count(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Taken => {}
            Arrival::NewSource => {
                // The first source of a call is not a change.
                self.counters.ssrc_changes += u64::from(self.counters.received > 1);
                self.ear.reset();
            }
            Arrival::Late => self.counters.late += 1,
            Arrival::Duplicate => self.counters.duplicate += 1,
            Arrival::Refused => self.counters.malformed += 1,
        }
    }

    fn key(&mut self, clock: u32, heard: Heard) {
        if let (Heard::Pressed(_) | Heard::Again, Some(recorder)) = (&heard, &mut self.recorder) {
            recorder.key();
        }
        match heard {
            Heard::Pressed(press) => {
                let Some(digit) = Digit::from_event(press.event) else { return };
                // Only on the audio's clock can a press be compared with a tone.
                let duration = if clock == RATE { press.duration } else { 0 };
                if self.merger.event(digit, press.start, duration) {
                    self.outbox.key(digit, Source::Event, &mut self.playout);
                }
            }
            Heard::Malformed => self.counters.malformed += 1,
            Heard::Again | Heard::Late | Heard::Other => {}
        }
    }

    /// Hears whatever is due.
    fn drain(&mut self, now: Instant) {
        let Some(negotiated) = &self.negotiated else { return };
        let law = negotiated.law;
        if self.relay.is_some() {
            let listens = joined::listens(negotiated);
            return self.drain_joined(now, law, listens);
        }
        let Stream { reorder, ear, merger, recorder, outbox, playout, counters, .. } = self;
        while let Some(unit) = reorder.take(now) {
            if let Unit::Lost { packets } = unit {
                counters.lost += u64::from(packets);
            }
            let wants_tones = merger.wants_tones();
            ear.hear(unit, law, wants_tones, recorder.as_mut(), |sound| match sound {
                Sound::Tone { digit, start } => {
                    if merger.tone(now, digit, start) {
                        outbox.key(digit, Source::Tone, playout);
                    }
                }
                Sound::Begun => outbox.ended(playout.barge_in(), false),
                Sound::Frame(frame) => outbox.heard(frame),
            });
            if let Some(recorder) = recorder.as_mut().filter(|_| ear.hears_key()) {
                recorder.key();
            }
        }
    }

    fn skip_missed(&mut self, now: Instant) {
        let since = self.last_turn.replace(now).map(|last| now.saturating_duration_since(last));
        let Some(since) = since.filter(|&since| since > 2 * TURN) else { return };
        let half = TURN / 2;
        let missed = ((since + half).as_millis() / TURN.as_millis()).saturating_sub(1) as u32;
        self.counters.missed_turns += u64::from(missed);
        self.out.skip(missed);
        if let Some(recorder) = &mut self.recorder {
            recorder.pass(missed);
        }
    }

    fn watch_silence(&mut self, now: Instant, negotiated: &Negotiated) {
        // A peer that holds us may send music, or nothing.
        if negotiated.remote.is_none() || negotiated.direction != Direction::SendRecv {
            self.last_heard = now;
        } else if now.saturating_duration_since(self.last_heard) >= SILENCE && !self.told_silent {
            self.told_silent = true;
            self.outbox.push(Event::Silent);
        }
    }

    /// What goes out this turn: keys before clips.
    fn compose(&mut self, negotiated: &Negotiated, frame: &mut Frame) -> Turn {
        let moment = Moment {
            timestamp: self.out.timestamp,
            events: negotiated.events_out.map(|(_, clock)| clock),
            packet_start: self.out.filled == 0,
        };
        let turn = self.keypad.turn(negotiated.law, moment, frame);
        if self.keypad.take_finished() {
            self.outbox.push(Event::Pressed);
        }
        if turn == Turn::Idle {
            let ended = self.playout.fill(negotiated.law, frame);
            self.outbox.ended(ended, true);
        }
        turn
    }
}

impl Out {
    fn new(setup: &Setup) -> Out {
        Out {
            ssrc: setup.ssrc,
            sequence: setup.sequence,
            timestamp: setup.timestamp,
            marker: true,
            payload: [0; PAYLOAD_MAX],
            filled: 0,
        }
    }

    fn pause(&mut self) {
        self.filled = 0;
        self.marker = true;
    }

    fn skip(&mut self, turns: u32) {
        self.pause();
        self.timestamp = self.timestamp.wrapping_add(turns.wrapping_mul(SAMPLES as u32));
    }

    /// Adds this turn's frame; a packet once there are `ptime_ms` of them, in whole frames.
    fn write_audio(
        &mut self,
        packet: &mut [u8; PACKET_MAX],
        payload_type: u8,
        ptime_ms: u8,
        frame: &Frame,
    ) -> Option<usize> {
        let frames = usize::from(ptime_ms) / FRAME_MS as usize;
        if frames <= 1 && self.filled == 0 {
            let marker = std::mem::take(&mut self.marker);
            return Some(self.write(packet, marker, payload_type, self.timestamp, frame));
        }
        let start = self.timestamp.wrapping_sub(self.filled as u32);
        self.payload[self.filled..self.filled + SAMPLES].copy_from_slice(frame);
        self.filled += SAMPLES;
        let full = self.filled >= frames.clamp(1, PAYLOAD_MAX / SAMPLES) * SAMPLES;
        full.then(|| {
            let len = std::mem::take(&mut self.filled);
            let marker = std::mem::take(&mut self.marker);
            let payload = self.payload;
            self.write(packet, marker, payload_type, start, &payload[..len])
        })
    }

    fn write(
        &mut self,
        packet: &mut [u8; PACKET_MAX],
        marker: bool,
        payload_type: u8,
        timestamp: u32,
        payload: &[u8],
    ) -> usize {
        let (sequence, ssrc) = (self.sequence, self.ssrc);
        let header = Header { marker, payload_type, sequence, timestamp, ssrc };
        self.sequence = self.sequence.wrapping_add(1);
        packet[..HEADER_LEN].copy_from_slice(&header.bytes());
        packet[HEADER_LEN..HEADER_LEN + payload.len()].copy_from_slice(payload);
        HEADER_LEN + payload.len()
    }
}

impl Outbox {
    fn push(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.dropped += 1;
        } else {
            self.events.push_back(event);
        }
    }

    /// A key, and with it the end of a prompt that lets itself be interrupted.
    fn key(&mut self, digit: Digit, source: Source, playout: &mut Playout) {
        self.push(Event::Key { digit, source });
        let stopped = playout.barge_in();
        self.ended(stopped, false);
    }

    fn ended(&mut self, id: Option<PlayId>, completed: bool) {
        if let Some(id) = id {
            self.push(Event::PlayEnded { id, completed });
        }
    }

    fn heard(&mut self, frame: &Frame) {
        if self.events.len() >= HEARD_MAX {
            self.dropped += 1;
        } else {
            self.push(Event::Heard(Box::new(*frame)));
        }
    }
}

#[cfg(test)]
mod tests;
