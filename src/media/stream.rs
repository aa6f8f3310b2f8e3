//! One call's media: packets in, one packet out every 20 ms, keys and playout events between.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::codec::Transcoder;
use super::digit::Merger;
use super::ear::{Ear, Sound};
use super::frame::{FRAME_MS, Frame, RATE, SAMPLES};
use super::hearing::{ListenId, Spoken};
use super::playout::{Keypad, Moment, Playout, Turn};
use super::recording::{Recorded, Recorder, SegmentId};
use super::relay::{Kind, Relay};
use super::{Clip, Digit, Source, codec};
use crate::near;
use crate::rtp::latch::Gate;
use crate::rtp::packet::{HEADER_LEN, Header, Packet, is_rtcp};
use crate::rtp::reception::Reception;
use crate::rtp::reorder::{Arrival, PACKED_MAX, PAYLOAD_MAX, Reorder, Unit};
use crate::rtp::rtcp::{Control, Malformed};
use crate::rtp::srtp::{GROWTH_MAX, Refused, Shield};
use crate::rtp::telephone_event::{Heard, Receiver};
use crate::sip::offer::{COMFORT_NOISE, Codec, Direction, Law, Negotiated, Opus, Rtcp, Silence};
use crate::sip::profile::Latch;

mod clock; // of the codec, and ours
mod control; // reports both ways
mod joined; // with another stream
mod reception; // datagrams in
mod recorded; // both directions, as far as they may be kept
mod sending; // packets out

use clock::Inward;
use sending::Out;

/// Numbers a `Play` so that its end can be told from an earlier one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlayId(pub u64);

/// Random values that RFC 3550 wants unpredictable, drawn by whoever owns randomness.
#[derive(Clone, Copy)]
pub struct Setup {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    /// For our name in RTCP and the times of its reports.
    pub chance: u128,
    /// Keep frames of both directions for [`Stream::recorded`], whether in a segment or not.
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
    /// Listens for what the caller says until `Deaf`, or the next of these. With `stops` speech
    /// ends a prompt that lets itself be interrupted, as a key does.
    Listen {
        id: ListenId,
        stops: bool,
    },
    Deaf,
    /// A key that signalling reported.
    Signalled(Digit),
    /// While true, and 500 ms beyond, both directions of the recording are silenced.
    Sensitive(bool),
    /// What follows is a segment of the recording, for a file of its own even where the call is not
    /// recorded, until another one or `None` comes, at most 5 minutes. It is as silent as the
    /// recording, in sensitive windows and around keys.
    Segment(Option<SegmentId>),
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
    /// The caller began to speak while it was listened for this.
    Speech(ListenId),
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
    /// Lost or late, but heard all the same: the next packet held a copy.
    pub recovered: u64,
    /// Too late to be put in order.
    pub late: u64,
    pub duplicate: u64,
    /// SRTP that came before, or is too old to tell.
    pub replayed: u64,
    /// From someone who is not the peer.
    pub foreign: u64,
    pub malformed: u64,
    /// SRTP and SRTCP whose tag is wrong.
    pub unauthentic: u64,
    /// Of a payload type that was not agreed on.
    pub unknown_type: u64,
    /// RTCP packets of the peer that were read.
    pub rtcp: u64,
    /// RTCP packets of ours.
    pub reports: u64,
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

// Thousands are held: each stays below 16 KiB with its queue of events, packets and prompt's echo.
const _: () = assert!(size_of::<Stream>() + EVENTS_MAX * size_of::<Event>() < 10 * 1024);

/// One call's media. Call [`Stream::receive`] for each datagram, [`Stream::transmit`] once every
/// 20 ms, and then [`Stream::poll`] until `None`.
pub struct Stream {
    agreed: Option<Agreed>,
    shield: Shield,
    gate: Gate,
    reorder: Reorder,
    heard: Reception,
    control: Control,
    keys: Receiver,
    merger: Merger,
    ear: Ear,
    /// Unless G.711 was agreed on.
    transcoder: Option<Transcoder>,
    inward: Inward,
    playout: Playout,
    /// Speech ends a prompt.
    speech_stops: bool,
    keypad: Keypad,
    recorder: Option<Recorder>,
    /// The script is in a sensitive window.
    sensitive: bool,
    /// When it last left one.
    sensitive_until: Option<Instant>,
    /// While joined to another stream.
    relay: Option<Box<Relay>>,
    out: Out,
    outbox: Outbox,
    counters: Counters,
    last_turn: Option<Instant>,
    /// Turns that were missed while a key was pressed as a tone.
    behind: u32,
    last_heard: Instant,
    told_silent: bool,
}

/// What offer/answer agreed on, as each packet needs it.
#[derive(Clone, Copy)]
struct Agreed {
    codec: Codec,
    opus: Option<Opus>,
    /// Of its sound inside.
    law: Law,
    silence: Silence,
    events_out: Option<(u8, u32)>,
    events_in: Option<(u8, u32)>,
    ptime_ms: u8,
    direction: Direction,
    /// There is an address to send to.
    reachable: bool,
    rtcp: Option<Rtcp>,
}

/// Events waiting to be polled.
struct Outbox {
    events: VecDeque<Event>,
    dropped: u64,
}

impl Stream {
    pub fn new(setup: Setup, latch: Latch, now: Instant) -> Stream {
        Stream {
            agreed: None,
            shield: Shield::default(),
            gate: Gate::new(latch),
            reorder: Reorder::new(),
            heard: Reception::new(now, RATE),
            control: Control::new(now, setup.ssrc, setup.chance),
            keys: Receiver::new(RATE),
            merger: Merger::default(),
            ear: Ear::new(setup.listen),
            transcoder: None,
            inward: Inward::new(RATE),
            playout: Playout::default(),
            speech_stops: false,
            keypad: Keypad::new(),
            recorder: setup.record.then(|| Recorder::new(true)),
            sensitive: false,
            sensitive_until: None,
            relay: None,
            out: Out::new(&setup),
            outbox: Outbox { events: VecDeque::with_capacity(EVENTS_MAX), dropped: 0 },
            counters: Counters::default(),
            last_turn: None,
            behind: 0,
            last_heard: now,
            told_silent: false,
        }
    }

    /// Asks for the memory that every turn needs, and that tells what else it will need: once it is
    /// near, [`Stream::fetch`] asks for that.
    #[inline(always)]
    pub fn fetch_first(&self) {
        near::bring(&self.agreed);
        near::bring(&self.gate);
        near::bring(&self.heard);
        near::bring(&self.control);
        near::bring(&self.merger);
        near::bring(&self.playout);
        near::bring(&self.keypad);
        near::bring(&self.out);
        near::bring(&self.outbox);
        near::bring(&self.counters);
        near::bring(&self.last_turn);
        near::bring(&self.last_heard);
        near::bring(&self.behind);
        self.reorder.fetch();
        self.ear.fetch_first();
    }

    /// Asks for the rest of the memory that a turn needs.
    #[inline(always)]
    pub fn fetch(&self) {
        self.playout.fetch();
        self.ear.fetch();
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
            Command::Listen { id, stops } => {
                self.speech_stops = stops;
                self.listen(Some(id));
            }
            Command::Deaf => self.listen(None),
            Command::Signalled(digit) => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.key();
                }
                if self.relay.is_none() && self.merger.info(now, digit) {
                    self.outbox.key(digit, Source::Info, &mut self.playout);
                }
            }
            Command::Sensitive(on) => {
                if self.sensitive && !on {
                    self.sensitive_until = Some(now);
                }
                self.sensitive = on;
                self.silence_recording();
            }
            Command::Segment(segment) => self.mark_segment(now, segment),
        }
    }

    /// Behind NAT, believe only sources within these networks; none: any.
    pub fn admit_only(&mut self, networks: Vec<IpNet>) {
        self.gate.admit_only(networks);
    }

    /// The caller may answer by voice: take what is said with [`Stream::spoken`].
    pub fn hear_speech(&mut self) {
        self.ear.hear_speech();
    }

    /// The next 20 ms of an answer by voice.
    pub fn spoken(&mut self) -> Option<Spoken> {
        self.ear.hearing()?.take()
    }

    /// Whether [`Stream::poll`] has something to tell.
    pub fn has_news(&self) -> bool {
        !self.outbox.events.is_empty()
    }

    pub fn poll(&mut self) -> Option<Event> {
        self.outbox.events.pop_front()
    }

    /// Where to send.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.gate.remote()
    }

    pub fn counters(&self) -> Counters {
        Counters { dropped: self.outbox.dropped, ..self.counters }
    }

    fn listen(&mut self, id: Option<ListenId>) {
        let joined = self.is_joined();
        if let Some(hearing) = self.ear.hearing() {
            hearing.listen(id.filter(|_| !joined));
        }
    }

    fn negotiate(&mut self, now: Instant, negotiated: Negotiated) {
        let agreed = Agreed::of(&negotiated);
        if self.agreed.map(Agreed::events_clock) != Some(agreed.events_clock()) {
            self.keys = Receiver::new(agreed.events_clock());
        }
        if self.agreed.map(Agreed::coding) != Some(agreed.coding()) {
            self.transcoder = Transcoder::of(agreed.codec, agreed.opus);
            let longest = if agreed.codec.is_opus() { PACKED_MAX } else { PAYLOAD_MAX };
            self.reorder.set_longest(longest);
            self.set_clock(agreed.codec.clock());
        }
        if let Some(relay) = &mut self.relay {
            // What was said before there was anybody to hear it.
            relay.forget();
        }
        let control = match negotiated.rtcp {
            Some(Rtcp::Apart(address)) => Some(address),
            _ => None,
        };
        self.gate.renegotiate(negotiated.remote, control);
        self.shield.agree(negotiated.srtp.as_ref());
        if self.shield.is_on() && self.counters.sent == 0 {
            // Should the first packets be lost, those that come must still be numbered as in the
            // first round of 65,536 (RFC 4568 §6.4).
            self.out.sequence &= 0x7fff;
        }
        self.agreed = Some(agreed);
        self.last_heard = now;
    }

    /// Of the RTP of both directions.
    fn set_clock(&mut self, clock: u32) {
        self.inward = Inward::new(clock);
        self.heard.set_clock(clock);
        self.control.set_clock(clock);
        self.out.set_clock(clock);
    }
}

impl Agreed {
    fn of(negotiated: &Negotiated) -> Agreed {
        Agreed {
            codec: negotiated.codec,
            opus: negotiated.opus,
            law: negotiated.codec.law(),
            silence: negotiated.silence,
            events_out: negotiated.events_out,
            events_in: negotiated.events_in,
            ptime_ms: negotiated.ptime_ms,
            direction: negotiated.direction,
            reachable: negotiated.remote.is_some(),
            rtcp: negotiated.rtcp,
        }
    }

    /// Whether packets of this type are sound.
    fn is_audio(self, payload_type: u8) -> bool {
        let ours = self.opus.map_or(self.codec.payload_type(), |opus| opus.received);
        codec::law_of(payload_type).is_some() || payload_type == ours
    }

    /// The type that packets of sound have for the peer.
    fn payload_type(self) -> u8 {
        self.opus.map_or(self.codec.payload_type(), |opus| opus.sent)
    }

    fn coding(self) -> (Codec, Option<Opus>) {
        (self.codec, self.opus)
    }

    fn events_clock(self) -> u32 {
        self.events_in.map_or(self.codec.clock(), |(_, clock)| clock)
    }

    /// Whether the peer hears us.
    fn sends(self) -> bool {
        self.reachable && matches!(self.direction, Direction::SendRecv | Direction::SendOnly)
    }

    /// Whether our peer may be heard.
    fn listens(self) -> bool {
        matches!(self.direction, Direction::SendRecv | Direction::RecvOnly)
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
