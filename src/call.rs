//! One call: script and dialogue over a SIP leg and a media stream; routing only.
//!
//! The caller's side of a call ends with the leg; the money side ends with the script, which
//! finishes a charge it has begun even when nobody listens any more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::account::{Account, Caller, Query};
use crate::dialogue::{self, Dialogue, Heard, Hold, Told};
use crate::gateway::{self, Exchange};
use crate::instrument::FingerprintKey;
use crate::ledger::{Entry, Recorded, Screened, Screening, Wallet};
use crate::media::{self, Clip, ListenId, PlayId, SegmentId};
use crate::payment::{
    self, Banks, Bins, Desk, Evidence, Flow, Note, Outcome, Reply, Request, Step,
};
use crate::prompt::Library;
use crate::secret::Keys;
use crate::sip::offer::Local;
use crate::sip::profile::Profile;
use crate::sip::{self, Invitation, Leg, Transport};
use crate::speech;

use self::transfer::{Passing, Second, Summary};

mod leg; // the leg that carries the call
mod transfer; // passing the caller on: REFER, or a call of our own

pub use transfer::{SecondLeg, Way};

/// What a call is given when it is offered.
pub struct Setup {
    /// Our id of the call, in logs, records and the ledger.
    pub id: String,
    pub leg: Leg,
    pub invitation: Box<Invitation>,
    pub profile: Arc<Profile>,
    /// Where our media is; codecs and events as the profile says.
    pub local: Local,
    pub library: Arc<Library>,
    pub routes: Arc<gateway::Routes>,
    pub policy: Arc<Policy>,
    pub seed: [u8; 32],
}

/// What is the same for every call.
#[derive(Clone, Debug)]
pub struct Policy {
    pub payment: Arc<payment::Settings>,
    pub dialogue: dialogue::Settings,
    pub fingerprints: Arc<FingerprintKey>,
    /// Banks by routing number, if they are known.
    pub banks: Option<Arc<Banks>>,
    pub bins: Option<Arc<Bins>>,
    /// Authorisations of debits are recorded.
    pub authorisations_recorded: bool,
    /// SIP URI callers are transferred to; `None`: nobody is there.
    pub agent: Option<String>,
    /// What callers may say.
    pub speech: speech::Fields,
    /// A call longer than this is ended.
    pub duration_max: Duration,
}

/// Numbers a request to the world; its reply carries the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial(u64);

pub enum Input {
    Sip(sip::Event),
    Media(media::Event),
    /// What a recognizer made of what is listened for.
    Told(ListenId, Told),
    Found(Serial, Vec<Account>),
    Screened(Serial, Option<Screened>),
    Wallet(Serial, Option<Wallet>),
    Recorded(Serial, Recorded),
    /// Whether evidence is durable.
    Kept(Serial, bool),
    Exchanged(Serial, Exchange),
    Named(Serial, Option<Clip>),
    /// A way to the agent; `None`: there is none.
    Way(Serial, Option<Way>),
    /// On the leg to the agent.
    Second(sip::Event),
}

pub enum Output {
    Sip(sip::Command),
    Media(media::Command),
    /// Recognize what the media hears as [`media::Command::Listen`] of the same number; it follows.
    Listen {
        id: ListenId,
        field: speech::Field,
        keyed: Keys,
    },
    /// Recognize no more.
    Deaf,
    Lookup(Serial, Query),
    Screen(Serial, Screening),
    /// Cards that are kept, by biller and account.
    Wallet(Serial, String, String),
    Record(Serial, Entry),
    Keep(Serial, Box<Kept>),
    /// To the gateway of this id.
    Send(Serial, Arc<str>, gateway::Request, Duration),
    Synthesize(Serial, String),
    /// A media port beside ours, and where the agent is.
    Way(Serial),
    Second(SecondLeg),
    Tell(Telling),
    /// Nothing follows.
    Ended(Outcome),
}

/// Evidence with the sound that belongs to it.
pub struct Kept {
    pub evidence: Evidence,
    /// What was said, in words.
    pub words: String,
    /// The segment of the recording; `None`: it was not recorded.
    pub segment: Option<SegmentId>,
    /// How long it took to say, a name apart that is not recorded.
    pub length: Duration,
}

/// The call as a person may watch it. Never card data.
#[derive(Clone, Debug, PartialEq)]
pub enum Telling {
    Answered {
        caller: Option<String>,
        trunk: String,
        negotiated: String,
    },
    Said(String),
    Keyed {
        field: &'static str,
        shown: String,
        rejected: bool,
        /// Said, not keyed.
        spoken: bool,
    },
    Silence {
        field: &'static str,
    },
    /// Something was said that was not understood.
    NotUnderstood {
        field: &'static str,
    },
    Note(Note),
    CallerHungUp,
    /// Caller and agent talk through us.
    Connected,
    /// We ended the call, for this reason.
    Dropped(&'static str),
}

pub struct Call {
    id: String,
    leg: Leg,
    trunk: Arc<Profile>,
    caller: Caller,
    /// Signalling came over TLS.
    over_tls: bool,
    local: Local,
    library: Arc<Library>,
    policy: Arc<Policy>,
    flow: Flow,
    dialogue: Dialogue,
    pending: Pending,
    playing: Option<Playing>,
    /// Sound of ours goes out: the call is not on hold.
    audible: bool,
    serial: u64,
    /// A name synthesised for this call.
    name: Option<(String, Clip)>,
    /// Segments recorded by themselves until now.
    segments: u16,
    answered: Telling,
    late_offer: bool,
    summary: Summary,
    /// The leg to the agent.
    second: Option<Second>,
    /// How the script ended while caller and agent talk on.
    concluded: Option<Outcome>,
    started: bool,
    hung_up: bool,
    over: bool,
    ends: Instant,
    outputs: VecDeque<Output>,
}

/// The request of the script that is being served.
enum Pending {
    Nothing,
    /// The dialogue has it.
    Ask,
    Say,
    Lookup(Serial, Instant),
    Name(Serial, Instant, String),
    Screen(Serial, Instant),
    Wallet(Serial, Instant),
    Record(Serial, Instant),
    Keep(Serial, Instant),
    Send(Serial, Instant, Hold),
    Wait(Instant, Hold),
    Transfer {
        until: Instant,
        passing: Passing,
    },
}

/// A prompt that media was told to play.
struct Playing {
    id: PlayId,
    length: Duration,
    /// Without word of its end by then media has failed us.
    until: Instant,
}

/// The world answers within these, or the call goes on without it.
const LOOKUP_LIMIT: Duration = Duration::from_secs(3);
const NAME_LIMIT: Duration = Duration::from_millis(2_500);
const RECORD_LIMIT: Duration = Duration::from_secs(10);
/// Sound is held back for a fraction of a second, then it is written.
const KEEP_LIMIT: Duration = Duration::from_secs(10);
const SEND_GRACE: Duration = Duration::from_secs(2);
/// Beyond a prompt's own length; longer than media takes to report a caller who sends nothing.
const PLAY_GRACE: Duration = Duration::from_secs(35);

/// Reason of the BYE after a transfer (RFC 3326 §3.1).
const COMPLETED_ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

impl Call {
    /// Answers or refuses the INVITE at once; see the outputs.
    pub fn new(now: Instant, setup: Setup) -> Call {
        let Setup { id, leg, invitation, profile, mut local, library, routes, policy, seed } =
            setup;
        local.codecs = profile.codecs.clone();
        local.silence = profile.silence;
        local.events = profile.telephone_event;
        let caller = Caller::from_invitation(&invitation, &profile);
        let answered = Telling::Answered {
            caller: caller.number.clone().or(caller.name.clone()),
            trunk: profile.name.clone(),
            negotiated: String::new(),
        };
        let settings = policy.payment.clone();
        let agent = policy.agent.is_some();
        let mut dialogue = Dialogue::new(policy.dialogue.clone());
        dialogue.has_agent(agent);
        dialogue.offer_voice(policy.speech);
        let desk = Desk {
            settings,
            routes,
            fingerprints: policy.fingerprints.clone(),
            banks: policy.banks.clone(),
            bins: policy.bins.clone(),
            authorisations_recorded: policy.authorisations_recorded,
            caller: caller.clone(),
            caller_placed: true,
            trunk: profile.name.clone(),
            call_id: id.clone(),
            agent,
        };
        let mut call = Call {
            id,
            leg,
            trunk: profile,
            caller,
            over_tls: invitation.source.transport == Transport::Tls,
            local,
            library,
            flow: Flow::new(seed, |line| payment::script(line, desk)),
            dialogue,
            pending: Pending::Nothing,
            playing: None,
            audible: false,
            serial: 0,
            name: None,
            segments: 0,
            answered,
            late_offer: invitation.offer.is_none(),
            summary: Summary::default(),
            second: None,
            concluded: None,
            started: false,
            hung_up: false,
            over: false,
            ends: now + policy.duration_max,
            policy,
            outputs: VecDeque::new(),
        };
        call.answer(now, invitation.offer.as_deref());
        call
    }

    pub fn handle(&mut self, now: Instant, wall_ms: i64, input: Input) {
        if self.over {
            return;
        }
        match input {
            Input::Sip(event) => self.sip(now, wall_ms, event),
            Input::Second(event) => self.second(now, wall_ms, event),
            Input::Way(serial, way) => self.way_found(now, wall_ms, serial, way),
            Input::Media(event) => self.media(now, wall_ms, event),
            Input::Told(id, told) => self.dialogue.told(now, id, told),
            Input::Found(serial, accounts) => {
                if matches!(self.pending, Pending::Lookup(asked, _) if asked == serial) {
                    self.resume(now, wall_ms, Reply::Lookup(accounts));
                }
            }
            Input::Screened(serial, found) => {
                if matches!(self.pending, Pending::Screen(asked, _) if asked == serial) {
                    self.resume(now, wall_ms, Reply::Screen(found));
                }
            }
            Input::Wallet(serial, found) => {
                if matches!(self.pending, Pending::Wallet(asked, _) if asked == serial) {
                    self.resume(now, wall_ms, Reply::Wallet(found));
                }
            }
            Input::Recorded(serial, recorded) => {
                if matches!(self.pending, Pending::Record(asked, _) if asked == serial) {
                    self.resume(now, wall_ms, Reply::Record(recorded));
                }
            }
            Input::Kept(serial, kept) => {
                if matches!(self.pending, Pending::Keep(asked, _) if asked == serial) {
                    self.resume(now, wall_ms, Reply::Keep(kept));
                }
            }
            Input::Exchanged(serial, exchange) => {
                if matches!(self.pending, Pending::Send(asked, ..) if asked == serial) {
                    self.resume(now, wall_ms, Reply::Send(exchange));
                }
            }
            Input::Named(serial, clip) => {
                if let Pending::Name(asked, _, name) = &mut self.pending
                    && *asked == serial
                {
                    let ready = clip.is_some();
                    self.name = clip.map(|clip| (std::mem::take(name), clip));
                    self.resume(now, wall_ms, Reply::Name(ready));
                }
            }
        }
        self.drain_dialogue(now, wall_ms);
    }

    /// Call when [`Call::deadline`] has come.
    pub fn timeout(&mut self, now: Instant, wall_ms: i64) {
        if self.over {
            return;
        }
        if now >= self.ends && !self.hung_up {
            self.drop_leg(now, wall_ms, "call too long");
        } else if self.play_limit().is_some_and(|until| now >= until) {
            // Not taken for played: nobody pays by a prompt that was never heard.
            self.drop_leg(now, wall_ms, "media failed");
        }
        self.dialogue.timeout(now);
        self.drain_dialogue(now, wall_ms);
        let late = match &mut self.pending {
            Pending::Lookup(_, until) if now >= *until => Some(Reply::Lookup(Vec::new())),
            Pending::Name(_, until, _) if now >= *until => Some(Reply::Name(false)),
            Pending::Screen(_, until) if now >= *until => Some(Reply::Screen(None)),
            Pending::Wallet(_, until) if now >= *until => Some(Reply::Wallet(None)),
            Pending::Record(_, until) if now >= *until => {
                Some(Reply::Record(Recorded::Failed("the store did not answer".into())))
            }
            Pending::Keep(_, until) if now >= *until => Some(Reply::Keep(false)),
            Pending::Send(_, until, _) if now >= *until => {
                Some(Reply::Send(Exchange::NoAnswer("no answer in time".into())))
            }
            Pending::Wait(until, _) if now >= *until => Some(Reply::Wait),
            Pending::Transfer { until, .. } if now >= *until => {
                self.close_second();
                Some(Reply::Transfer(false))
            }
            Pending::Send(_, _, hold) | Pending::Wait(_, hold) => {
                if let Some(prompt) = hold.timeout(now).filter(|_| !self.hung_up) {
                    self.dialogue.say(vec![prompt], false);
                    self.drain_dialogue(now, wall_ms);
                }
                None
            }
            _ => None,
        };
        if let Some(reply) = late {
            self.resume(now, wall_ms, reply);
            self.drain_dialogue(now, wall_ms);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let pending = match &self.pending {
            Pending::Nothing => None,
            Pending::Ask | Pending::Say => self.dialogue.deadline(),
            Pending::Lookup(_, until) | Pending::Name(_, until, _) => Some(*until),
            Pending::Screen(_, until) | Pending::Record(_, until) => Some(*until),
            Pending::Keep(_, until) | Pending::Wallet(_, until) => Some(*until),
            Pending::Send(_, until, hold) | Pending::Wait(until, hold) => {
                Some((*until).min(hold.deadline()))
            }
            Pending::Transfer { until, .. } => Some(*until),
        };
        let ends = (!self.hung_up).then_some(self.ends);
        pending.into_iter().chain(ends).chain(self.play_limit()).min()
    }

    fn play_limit(&self) -> Option<Instant> {
        let playing = self.playing.as_ref().filter(|_| self.audible && !self.hung_up);
        playing.map(|playing| playing.until)
    }

    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn drain_dialogue(&mut self, now: Instant, wall_ms: i64) {
        while let Some(output) = self.dialogue.poll() {
            match output {
                dialogue::Output::Play { id, prompts, barge_in } => {
                    let name = self.name.as_ref();
                    let synthesised = |wanted: &str| {
                        name.filter(|(name, _)| name == wanted).map(|(_, clip)| clip.clone())
                    };
                    let clips = self.library.clips(&prompts, &synthesised);
                    let length = length(&clips);
                    self.playing = Some(Playing { id, length, until: now + length + PLAY_GRACE });
                    let words = self.library.words(&prompts);
                    self.outputs.push_back(Output::Tell(Telling::Said(words)));
                    let play = media::Command::Play { id, clips, barge_in };
                    self.outputs.push_back(Output::Media(play));
                }
                dialogue::Output::Listen { id, field, keyed, stops } => {
                    self.outputs.push_back(Output::Listen { id, field, keyed });
                    let listen = media::Command::Listen { id, stops };
                    self.outputs.push_back(Output::Media(listen));
                }
                dialogue::Output::Deaf => {
                    self.outputs.push_back(Output::Media(media::Command::Deaf));
                    self.outputs.push_back(Output::Deaf);
                }
                dialogue::Output::NoMatch { field } => {
                    self.outputs.push_back(Output::Tell(Telling::NotUnderstood { field }));
                }
                dialogue::Output::Sensitive(on) => {
                    self.outputs.push_back(Output::Media(media::Command::Sensitive(on)));
                }
                dialogue::Output::Segment(on) => {
                    self.segments += u16::from(on);
                    let segment = on.then_some(SegmentId(self.segments));
                    self.outputs.push_back(Output::Media(media::Command::Segment(segment)));
                }
                dialogue::Output::Entered { field, shown, rejected, spoken } => {
                    let keyed = Telling::Keyed { field, shown, rejected, spoken };
                    self.outputs.push_back(Output::Tell(keyed));
                }
                dialogue::Output::NoInput { field } => {
                    self.outputs.push_back(Output::Tell(Telling::Silence { field }));
                }
                dialogue::Output::Heard(heard) if matches!(self.pending, Pending::Ask) => {
                    self.resume(now, wall_ms, Reply::Ask(heard));
                }
                dialogue::Output::Said if matches!(self.pending, Pending::Say) => {
                    self.resume(now, wall_ms, Reply::Say);
                }
                // The end of a hold prompt.
                dialogue::Output::Heard(_) | dialogue::Output::Said => {}
            }
        }
    }

    fn resume(&mut self, now: Instant, wall_ms: i64, reply: Reply) {
        self.pending = Pending::Nothing;
        let step = self.flow.resume(wall_ms, reply);
        self.run(now, wall_ms, step);
    }

    /// Serves requests until one has to wait for the caller or the world.
    fn run(&mut self, now: Instant, wall_ms: i64, mut step: Step) {
        loop {
            for note in self.flow.notes() {
                self.summary.note(&note);
                self.outputs.push_back(Output::Tell(Telling::Note(note)));
            }
            let at_once = match step {
                Step::Ended(outcome) => return self.end(outcome),
                Step::Request(request) => self.serve(now, request),
            };
            let Some(reply) = at_once else { return };
            step = self.flow.resume(wall_ms, reply);
        }
    }

    /// Begins to serve a request; the reply when there is nothing to wait for.
    fn serve(&mut self, now: Instant, request: Request) -> Option<Reply> {
        match request {
            Request::Ask(_) if self.hung_up => return Some(Reply::Ask(Heard::Hangup)),
            Request::Ask(question) => {
                self.dialogue.ask(now, question);
                self.pending = Pending::Ask;
            }
            Request::Say { .. } if self.hung_up => return Some(Reply::Say),
            Request::Say { prompts, barge_in } => {
                self.dialogue.say(prompts, barge_in);
                self.pending = Pending::Say;
            }
            Request::Lookup(query) => {
                let serial = self.next_serial();
                self.outputs.push_back(Output::Lookup(serial, query));
                self.pending = Pending::Lookup(serial, now + LOOKUP_LIMIT);
            }
            Request::Name(name) => {
                if self.library.name(&name).is_some() {
                    return Some(Reply::Name(true));
                }
                let serial = self.next_serial();
                self.outputs.push_back(Output::Synthesize(serial, name.clone()));
                self.pending = Pending::Name(serial, now + NAME_LIMIT, name);
            }
            Request::Screen(screening) => {
                let serial = self.next_serial();
                self.outputs.push_back(Output::Screen(serial, screening));
                self.pending = Pending::Screen(serial, now + RECORD_LIMIT);
            }
            Request::Wallet { biller, account_id } => {
                let serial = self.next_serial();
                self.outputs.push_back(Output::Wallet(serial, biller, account_id));
                self.pending = Pending::Wallet(serial, now + LOOKUP_LIMIT);
            }
            Request::Record(entry) => {
                let serial = self.next_serial();
                self.outputs.push_back(Output::Record(serial, entry));
                self.pending = Pending::Record(serial, now + RECORD_LIMIT);
            }
            Request::Keep(evidence) => {
                let serial = self.next_serial();
                let said = &evidence.authorisation;
                let words = self.library.words(&said.said);
                let segment = said.recorded.then_some(SegmentId(self.segments));
                let length = length(&self.library.clips(&said.said, &|_| None));
                let kept = Kept { evidence: *evidence, words, segment, length };
                self.outputs.push_back(Output::Keep(serial, Box::new(kept)));
                self.pending = Pending::Keep(serial, now + KEEP_LIMIT);
            }
            Request::Send { gateway, request, limit } => {
                let serial = self.next_serial();
                self.outputs.push_back(Output::Send(serial, gateway, request, limit));
                self.pending = Pending::Send(serial, now + limit + SEND_GRACE, Hold::new(now));
            }
            Request::Wait(time) => {
                self.pending = Pending::Wait(now + time, Hold::new(now));
            }
            Request::Transfer => return self.pass_on(now),
        }
        None
    }

    fn end(&mut self, outcome: Outcome) {
        if self.goes_on(&outcome) {
            return;
        }
        self.close_second();
        if !std::mem::replace(&mut self.hung_up, true) && self.started {
            // The peer has moved the call: it may want to know that all is well.
            let moved = (outcome == Outcome::Transferred).then_some(COMPLETED_ELSEWHERE);
            let reason = moved.map(String::from);
            let hangup = sip::Command::Hangup { leg: self.leg, reason };
            self.outputs.push_back(Output::Sip(hangup));
        }
        self.over = true;
        self.pending = Pending::Nothing;
        self.outputs.push_back(Output::Ended(outcome));
    }

    fn next_serial(&mut self) -> Serial {
        self.serial += 1;
        Serial(self.serial)
    }
}

/// How long clips play, one after the other: one byte a sample, 8,000 a second.
fn length(clips: &[Clip]) -> Duration {
    let samples: usize = clips.iter().map(|clip| clip.mu.len()).sum();
    Duration::from_millis(samples as u64 / 8)
}
