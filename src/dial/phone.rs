//! The test phone: a user agent and a media stream, driven by a script. Told the time and handed
//! the bytes, like everything else: it runs over sockets and on a virtual clock alike.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::listen::{Heard, Index, Listener, SoundId};
pub use super::report::Report;
use super::run::{Action, Failure, Run};
use super::script::{Keying, Script, masked};
use crate::media::frame::SAMPLES;
use crate::media::stream::PACKET_MAX;
use crate::media::{self, Clip, Digit, Method, Stream, codec};
use crate::prompt::clip::encode;
use crate::secret::Keys;
use crate::sip::agent::{self, Agent, Cause, Command, Event, Input, Leg, Placement};
use crate::sip::offer::{self, Law, Local, Negotiated, Silence, SrtpPolicy, SrtpSeed};
use crate::sip::profile::Latch;
use crate::sip::transport::Peer;

const TURN: Duration = Duration::from_millis(20);
/// After a turn that came this late the next is counted from now, not made up for.
const LATE_MAX: Duration = Duration::from_millis(200);
/// How long to wait for the answer to our BYE.
const GOODBYE: Duration = Duration::from_secs(2);
const OUTPUTS_MAX: usize = 1_024;
/// What is said live, a frame at a time.
const LIVE: media::PlayId = media::PlayId(1);
/// Frames of live speech that may wait: older ones would only make it later.
const VOICE_MAX: usize = 5;

/// One call to be placed.
pub struct Setup {
    /// Request URI, for example `sip:pay@198.51.100.7`.
    pub target: String,
    /// Where its packets go.
    pub destination: SocketAddr,
    /// Our URI in From, for example `sip:+12025550123@198.51.100.9`.
    pub from: String,
    /// Added to the INVITE.
    pub headers: Vec<(String, String)>,
    /// Our addresses as the other side reaches them.
    pub sip: SocketAddr,
    pub rtp: SocketAddr,
    /// The prompts we know, in each law that we offer, preferred first. At least one.
    pub prompts: Vec<Arc<Index>>,
    /// Offered in place of their laws, preferred first. Prompts are recognised in G.711 alone.
    pub codecs: Vec<offer::Codec>,
    pub script: Script,
    pub keying: Keying,
    /// With `Required` it offers SRTP alone, else it takes what a re-INVITE brings.
    pub srtp: SrtpPolicy,
    /// All that SIP and RTP want unpredictable comes from here.
    pub seed: [u8; 32],
    /// The call is ended after this.
    pub call_max: Duration,
}

#[derive(Debug)]
pub enum Output {
    Sip {
        destination: SocketAddr,
        bytes: Bytes,
    },
    Rtp {
        destination: SocketAddr,
        bytes: Bytes,
    },
    Report(Report),
    /// 20 ms of what the other side says, for [`Phone::live`].
    Sound(Box<[i16; SAMPLES]>),
}

/// One call. Hand in what arrives, call [`Phone::tick`] at [`Phone::deadline`], then
/// [`Phone::poll`] until `None`, until [`Phone::finished`].
pub struct Phone {
    setup: Setup,
    agent: Agent,
    leg: Leg,
    stream: Stream,
    listener: Listener,
    run: Run,
    transcript: Transcript,
    /// Somebody hears what is heard.
    live: bool,
    /// What is said live and not sent yet.
    voice: VecDeque<Clip>,
    local: Local,
    /// Our offer went out with a 200 and its answer is awaited in the ACK.
    offered: bool,
    phase: Phase,
    /// When the next packet is due, once there is somebody to send to.
    turn: Option<Instant>,
    call_end: Instant,
    out: VecDeque<Output>,
    result: Option<Result<(), Failure>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Calling,
    Up,
    /// We hung up: the BYE is on its way until then.
    Closing {
        until: Instant,
    },
    Over,
}

impl Phone {
    /// Places the call.
    pub fn new(mut setup: Setup, now: Instant) -> Phone {
        let mut random = StdRng::from_seed(setup.seed);
        let product = concat!("ringtill-dial/", env!("CARGO_PKG_VERSION"));
        let settings = agent::Settings::new(setup.sip, product, 1);
        let mut agent = Agent::new(settings, random.random());
        let stream = media::Setup {
            ssrc: random.random(),
            sequence: random.random(),
            timestamp: random.random(),
            chance: random.random(),
            record: false,
            listen: true,
        };
        let index = setup.prompts.first().cloned();
        let index = index.unwrap_or_else(|| Arc::new(Index::new(Law::Mu, std::iter::empty())));
        let local = Local {
            address: setup.rtp.ip(),
            port: setup.rtp.port(),
            codecs: match setup.codecs.as_slice() {
                [] => setup.prompts.iter().map(|index| index.law().into()).collect(),
                codecs => codecs.to_vec(),
            },
            silence: Silence::Packets,
            events: setup.keying.method == Method::Events,
            session_id: random.random::<u32>().into(),
            session_version: 1,
            srtp: setup.srtp,
            keys: SrtpSeed::new(random.random()),
        };
        let leg = agent.next_leg();
        let script = std::mem::take(&mut setup.script);
        let mut phone = Phone {
            agent,
            leg,
            stream: Stream::new(stream, Latch::Nat, now),
            listener: Listener::new(index),
            run: Run::new(script),
            transcript: Transcript::default(),
            live: false,
            voice: VecDeque::new(),
            local,
            offered: false,
            phase: Phase::Calling,
            turn: None,
            call_end: now + setup.call_max,
            out: VecDeque::new(),
            result: None,
            setup,
        };
        phone.place(now);
        phone
    }

    /// Somebody has it in their hand: they are given [`Output::Sound`].
    pub fn live(mut self) -> Phone {
        self.live = true;
        self
    }

    fn place(&mut self, now: Instant) {
        let call = Box::new(Placement {
            target: self.setup.target.clone(),
            destinations: vec![Peer::udp(self.setup.destination)],
            from: self.setup.from.clone(),
            headers: std::mem::take(&mut self.setup.headers),
            sdp: offer::offer(&self.local),
            trunk: Arc::default(),
        });
        self.command(now, Command::Invite { leg: self.leg, call });
    }

    /// A datagram that arrived on the SIP socket.
    pub fn sip(&mut self, now: Instant, source: SocketAddr, bytes: Bytes) {
        self.agent.handle(now, Input::datagram(source, bytes));
        self.settle(now);
    }

    /// A datagram that arrived on the RTP socket.
    pub fn rtp(&mut self, now: Instant, source: SocketAddr, bytes: &[u8]) {
        self.stream.receive(now, source, bytes);
        self.settle(now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        self.agent.handle(now, Input::Tick);
        if let Some(turn) = self.turn.filter(|&turn| turn <= now) {
            self.transmit(now);
            let next = turn + TURN;
            self.turn = Some(if now > next + LATE_MAX { now + TURN } else { next });
        }
        self.settle(now);
    }

    /// Says something that is not in the script.
    pub fn say(&mut self, now: Instant, name: &str, sound: Clip) {
        self.report(Report::Says { name: name.to_string() });
        let (id, clips) = (media::PlayId(0), vec![sound]);
        self.stream.command(now, media::Command::Play { id, clips, barge_in: false });
        self.settle(now);
    }

    /// Whether a packet is due, and with it the next 20 ms of what is said live.
    pub fn due(&self, now: Instant) -> bool {
        self.turn.is_some_and(|turn| turn <= now)
    }

    /// Says the next 20 ms live, 8 kHz; of frames that come faster than they can be sent the oldest
    /// are lost.
    pub fn speak(&mut self, sound: &[i16; SAMPLES]) {
        if self.voice.len() == VOICE_MAX {
            self.voice.pop_front();
        }
        self.voice.push_back(encode(sound));
    }

    /// Presses keys that are not in the script.
    pub fn press(&mut self, now: Instant, keys: Keys) {
        self.send_keys(now, &keys);
        self.settle(now);
    }

    fn send_keys(&mut self, now: Instant, keys: &Keys) {
        let Keying { method, on_ms, off_ms } = self.setup.keying;
        self.report(Report::Keys { shown: masked(keys), method });
        let digits = keys.expose().chars().filter_map(Digit::from_key).collect();
        let press = media::Command::Press { keys: digits, method, on_ms, off_ms };
        self.stream.command(now, press);
    }

    /// Ends the call although the script has not ended, and this is how it went.
    pub fn hang_up_early(&mut self, now: Instant, result: Result<(), Failure>) {
        if self.result.is_none() {
            self.result = Some(result);
            self.hang_up(now);
        }
        self.settle(now);
    }

    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to call [`Phone::tick`].
    pub fn deadline(&self) -> Option<Instant> {
        let closing = match self.phase {
            Phase::Closing { until } => Some(until),
            Phase::Over => return None,
            Phase::Up => self.run.deadline(),
            Phase::Calling => None,
        };
        let call_end = (self.result.is_none()).then_some(self.call_end);
        [self.agent.deadline(), self.turn, closing, call_end].into_iter().flatten().min()
    }

    /// How the call went, once all is said and done.
    pub fn finished(&self) -> Option<&Result<(), Failure>> {
        self.result.as_ref().filter(|_| self.phase == Phase::Over)
    }

    /// What became of the packets.
    pub fn counters(&self) -> media::stream::Counters {
        self.stream.counters()
    }

    fn transmit(&mut self, now: Instant) {
        if let Some(frame) = self.voice.pop_front() {
            let (id, clips) = (LIVE, vec![frame]);
            self.stream.command(now, media::Command::Play { id, clips, barge_in: false });
        }
        let mut packet = [0; PACKET_MAX];
        let len = self.stream.transmit(now, &mut packet);
        if let (Some(len), Some(destination)) = (len, self.stream.remote()) {
            self.push(Output::Rtp { destination, bytes: Bytes::copy_from_slice(&packet[..len]) });
        }
    }

    /// Carries everything that has happened to where it belongs.
    fn settle(&mut self, now: Instant) {
        self.signals(now);
        while let Some(event) = self.stream.poll() {
            match event {
                media::Event::Heard(frame) => {
                    if self.live {
                        let law = self.listener.index().law();
                        let sound = frame.map(|code| codec::decode(law, code));
                        self.push(Output::Sound(Box::new(sound)));
                    }
                    self.listener.hear(&*frame);
                }
                media::Event::Pressed => self.run.pressed(),
                media::Event::PlayEnded { id: LIVE, .. } => {}
                // Nobody keys to us.
                media::Event::PlayEnded { .. } => self.run.pressed(),
                media::Event::Key { .. } => {}
                media::Event::Silent | media::Event::Speech(_) => {}
            }
        }
        self.take_heard(now);
        if self.phase == Phase::Up {
            self.steps(now);
        }
        if self.result.is_none() && now >= self.call_end {
            self.fail(now, Failure::TooLong);
        }
        if let Phase::Closing { until } = self.phase
            && (self.agent.calls() == 0 || now >= until)
        {
            self.phase = Phase::Over;
        }
    }

    fn take_heard(&mut self, now: Instant) {
        while let Some(heard) = self.listener.poll() {
            self.run.heard(heard);
            let report = self.transcript.heard(now, heard, self.listener.index());
            if let Some(report) = report {
                self.report(report);
            }
        }
    }

    fn steps(&mut self, now: Instant) {
        while let Some(action) = self.run.advance(now, self.listener.index()) {
            match action {
                Action::Press(keys) => {
                    let said = self.transcript.said(true);
                    said.into_iter().for_each(|report| self.report(report));
                    self.send_keys(now, &keys);
                }
                Action::Say(said) => {
                    let heard = self.transcript.said(true);
                    heard.into_iter().for_each(|report| self.report(report));
                    self.report(Report::Says { name: said.name });
                    let clips = said.sound.into_iter().collect();
                    let id = media::PlayId(0);
                    self.stream.command(now, media::Command::Play { id, clips, barge_in: false });
                }
                Action::Hangup => {
                    self.result = Some(Ok(()));
                    return self.hang_up(now);
                }
                Action::Fail(failure) => return self.fail(now, failure),
            }
        }
    }

    fn event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Progress { status, sdp, .. } => {
                self.report(Report::Ringing { status });
                // Early media is a courtesy: if it cannot be used, the answer will tell.
                if let Some(Ok(negotiated)) = sdp.map(|sdp| offer::accept(&sdp, &self.local)) {
                    self.negotiated(now, negotiated);
                }
            }
            Event::Answered { sdp, .. } => match offer::accept(&sdp, &self.local) {
                Ok(negotiated) => {
                    let Negotiated { codec, events_out, .. } = negotiated;
                    let (events, secured) = (events_out.is_some(), offer::secured(&negotiated));
                    self.report(Report::Answered { codec, events, secured });
                    self.negotiated(now, negotiated);
                    self.phase = Phase::Up;
                }
                Err(refusal) => self.fail(now, Failure::NoMedia(format!("{refusal:?}"))),
            },
            Event::Reoffered { leg, sdp } => self.reoffered(now, leg, sdp),
            Event::Reanswered { sdp, .. } => {
                if let Ok(negotiated) = offer::accept(&sdp, &self.local) {
                    self.negotiated(now, negotiated);
                }
            }
            Event::Redirected { leg, .. } => {
                self.local.session_version += 1;
                let sdp = offer::offer(&self.local);
                self.command(now, Command::Follow { leg, sdp });
            }
            Event::Established { sdp: Some(sdp), .. } if self.offered => {
                self.offered = false;
                if let Ok(negotiated) = offer::accept(&sdp, &self.local) {
                    self.negotiated(now, negotiated);
                }
            }
            Event::Offered { leg, .. } => {
                let reason = "this phone only places calls".into();
                self.command(
                    now,
                    Command::Reject { leg, status: 486, reason, retry_after_s: None },
                );
            }
            Event::Ended { leg, cause } if leg == self.leg => self.ended(now, cause),
            Event::Ended { .. }
            | Event::Established { .. }
            | Event::Referred { .. }
            | Event::ReofferRefused { .. }
            | Event::Replaced { .. }
            | Event::Key { .. } => {}
        }
    }

    fn reoffered(&mut self, now: Instant, leg: Leg, sdp: Option<Vec<u8>>) {
        self.local.session_version += 1;
        let command = match sdp.map(|sdp| offer::answer(&sdp, &self.local)) {
            None => {
                self.offered = true;
                Command::Answer { leg, sdp: offer::offer(&self.local) }
            }
            Some(Ok((sdp, negotiated))) => {
                self.negotiated(now, negotiated);
                Command::Answer { leg, sdp }
            }
            Some(Err(refusal)) => Command::Reject {
                leg,
                status: refusal.status(),
                reason: format!("{refusal:?}"),
                retry_after_s: None,
            },
        };
        self.command(now, command);
    }

    fn negotiated(&mut self, now: Instant, negotiated: Negotiated) {
        let law = negotiated.codec.law();
        if law != self.listener.index().law() {
            let index = self.setup.prompts.iter().find(|index| index.law() == law);
            if let Some(index) = index {
                self.listener = Listener::new(Arc::clone(index));
                self.run.forget();
            }
        }
        self.stream.command(now, media::Command::Negotiated(negotiated));
        self.turn.get_or_insert(now);
    }

    fn ended(&mut self, now: Instant, cause: Cause) {
        if self.result.is_none() {
            let result = match cause {
                Cause::Refused { status, reason } => Err(Failure::Refused { status, reason }),
                Cause::Timeout => Err(Failure::NoAnswer),
                Cause::PeerHungUp | Cause::Cancelled | Cause::WeHungUp => {
                    self.listener.finish();
                    self.take_heard(now);
                    let said = self.transcript.said(false);
                    said.into_iter().for_each(|report| self.report(report));
                    self.report(Report::TheyHungUp);
                    self.run.over(now, self.listener.index())
                }
            };
            self.result = Some(result);
        }
        self.close(now);
    }

    fn fail(&mut self, now: Instant, failure: Failure) {
        self.result.get_or_insert(Err(failure));
        self.hang_up(now);
    }

    fn hang_up(&mut self, now: Instant) {
        self.listener.finish();
        self.take_heard(now);
        let said = self.transcript.said(true);
        said.into_iter().for_each(|report| self.report(report));
        self.report(Report::HungUp);
        self.close(now);
        self.command(now, Command::Hangup { leg: self.leg, reason: None });
    }

    /// No more sound; what remains is the answer to a BYE.
    fn close(&mut self, now: Instant) {
        self.turn = None;
        if !matches!(self.phase, Phase::Closing { .. } | Phase::Over) {
            self.phase = Phase::Closing { until: now + GOODBYE };
        }
    }

    fn command(&mut self, now: Instant, command: Command) {
        self.agent.handle(now, Input::Command(command));
        self.signals(now);
    }

    fn signals(&mut self, now: Instant) {
        while let Some(output) = self.agent.poll() {
            match output {
                agent::Output::Transmit { destination, bytes } => {
                    self.push(Output::Sip { destination: destination.address, bytes });
                }
                agent::Output::Event(event) => self.event(now, event),
                // Anybody may call a phone, and it registers nowhere.
                agent::Output::Intrusion(_)
                | agent::Output::Registered { .. }
                | agent::Output::Reachable { .. } => {}
            }
        }
    }

    fn report(&mut self, report: Report) {
        self.push(Output::Report(report));
    }

    /// Whoever does not poll loses the oldest.
    fn push(&mut self, output: Output) {
        if self.out.len() == OUTPUTS_MAX {
            self.out.pop_front();
        }
        self.out.push_back(output);
    }
}

/// Puts what was heard together to sentences.
#[derive(Default)]
struct Transcript {
    words: Vec<String>,
    /// When sound began, and whether any of it was recognised.
    speech: Option<Instant>,
    recognised: bool,
}

impl Transcript {
    fn heard(&mut self, now: Instant, heard: Heard, index: &Index) -> Option<Report> {
        match heard {
            Heard::Started(_) => {
                self.recognised = true;
                None
            }
            Heard::Ended { sound, complete } => {
                self.recognised = true;
                self.words.push(words(index, sound));
                let closed = self.words.last().is_some_and(|words| words.ends_with(['.', '?']));
                if !complete {
                    self.said(true)
                } else if closed {
                    self.said(false)
                } else {
                    None
                }
            }
            Heard::Speech => {
                self.speech = Some(now);
                None
            }
            Heard::Silence => {
                let recognised = std::mem::take(&mut self.recognised);
                match self.speech.take() {
                    Some(since) if !recognised => {
                        let ms = now.saturating_duration_since(since).as_millis() as u64;
                        Some(Report::Speech { ms })
                    }
                    _ => self.said(false),
                }
            }
        }
    }

    /// What is put together so far.
    fn said(&mut self, cut: bool) -> Option<Report> {
        let words = std::mem::take(&mut self.words).join(" ");
        (!words.is_empty()).then_some(Report::Heard { words, cut })
    }
}

fn words(index: &Index, sound: SoundId) -> String {
    match index.text(sound) {
        "" => index.id(sound).to_string(),
        text => text.to_string(),
    }
}

#[cfg(test)]
mod tests;
