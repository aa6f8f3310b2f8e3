//! One call: script and dialogue over a SIP leg and a media stream; routing only.
//!
//! The caller's side of a call ends with the leg; the money side ends with the script, which
//! finishes a charge it has begun even when nobody listens any more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::account::{Account, Caller, Query};
use crate::dialogue::{self, Dialogue, Heard, Hold};
use crate::gateway::{self, Exchange, Gateway};
use crate::ledger::{Entry, Recorded};
use crate::media::{self, Clip, Digit, PlayId};
use crate::payment::{self, Desk, Flow, Note, Outcome, Reply, Request, Step};
use crate::prompt::Library;
use crate::sip::offer::{self, Direction, Local, Negotiated, Refusal};
use crate::sip::profile::Profile;
use crate::sip::{self, Invitation, Leg};

/// What a call is given when it is offered.
pub struct Setup {
    /// Our id of the call, in logs, records and the ledger.
    pub id: String,
    pub leg: Leg,
    pub invitation: Box<Invitation>,
    pub profile: Arc<Profile>,
    /// Where our media is; laws and events as the profile says.
    pub local: Local,
    pub library: Arc<Library>,
    pub gateway: Arc<dyn Gateway>,
    pub policy: Arc<Policy>,
    pub seed: [u8; 32],
}

/// What is the same for every call.
#[derive(Clone, Debug)]
pub struct Policy {
    pub payment: Arc<payment::Settings>,
    pub dialogue: dialogue::Settings,
    /// SIP URI callers are transferred to; `None`: nobody is there.
    pub agent: Option<String>,
    /// A call longer than this is ended.
    pub duration_max: Duration,
}

/// Numbers a request to the world; its reply carries the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial(u64);

pub enum Input {
    Sip(sip::Event),
    Media(media::Event),
    Found(Serial, Vec<Account>),
    Recorded(Serial, Recorded),
    Exchanged(Serial, Exchange),
    Named(Serial, Option<Clip>),
}

pub enum Output {
    Sip(sip::Command),
    Media(media::Command),
    Lookup(Serial, Query),
    Record(Serial, Entry),
    Send(Serial, gateway::Request, Duration),
    Synthesize(Serial, String),
    Tell(Telling),
    /// Nothing follows.
    Ended(Outcome),
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
    },
    Silence {
        field: &'static str,
    },
    Note(Note),
    CallerHungUp,
    /// We ended the call, for this reason.
    Dropped(&'static str),
}

pub struct Call {
    leg: Leg,
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
    answered: Telling,
    late_offer: bool,
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
    Record(Serial, Instant),
    Send(Serial, Instant, Hold),
    Wait(Instant, Hold),
    Transfer {
        until: Instant,
        accepted: bool,
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
const SEND_GRACE: Duration = Duration::from_secs(2);
const TRANSFER_LIMIT: Duration = Duration::from_secs(30);
/// Beyond a prompt's own length; longer than media takes to report a caller who sends nothing.
const PLAY_GRACE: Duration = Duration::from_secs(35);

impl Call {
    /// Answers or refuses the INVITE at once; see the outputs.
    pub fn new(now: Instant, setup: Setup) -> Call {
        let Setup { id, leg, invitation, profile, mut local, library, gateway, policy, seed } =
            setup;
        local.laws = profile.codecs.clone();
        local.events = profile.telephone_event;
        let early = profile.early_media;
        let caller = Caller::from_invitation(&invitation, &profile);
        let answered = Telling::Answered {
            caller: caller.number.clone().or(caller.name.clone()),
            trunk: profile.name.clone(),
            negotiated: String::new(),
        };
        let settings = policy.payment.clone();
        let desk = Desk { settings, gateway, caller, call_id: id, agent: policy.agent.is_some() };
        let mut call = Call {
            leg,
            local,
            library,
            flow: Flow::new(seed, |line| payment::script(line, desk)),
            dialogue: Dialogue::new(policy.dialogue.clone()),
            pending: Pending::Nothing,
            playing: None,
            audible: false,
            serial: 0,
            name: None,
            answered,
            late_offer: invitation.offer.is_none(),
            started: false,
            hung_up: false,
            over: false,
            ends: now + policy.duration_max,
            policy,
            outputs: VecDeque::new(),
        };
        call.answer(now, invitation.offer.as_deref(), early);
        call
    }

    pub fn handle(&mut self, now: Instant, wall_ms: i64, input: Input) {
        if self.over {
            return;
        }
        match input {
            Input::Sip(event) => self.sip(now, wall_ms, event),
            Input::Media(event) => self.media(now, wall_ms, event),
            Input::Found(serial, accounts) => {
                if matches!(self.pending, Pending::Lookup(asked, _) if asked == serial) {
                    self.resume(now, wall_ms, Reply::Lookup(accounts));
                }
            }
            Input::Recorded(serial, recorded) => {
                if matches!(self.pending, Pending::Record(asked, _) if asked == serial) {
                    self.resume(now, wall_ms, Reply::Record(recorded));
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
            Pending::Record(_, until) if now >= *until => {
                Some(Reply::Record(Recorded::Failed("the store did not answer".into())))
            }
            Pending::Send(_, until, _) if now >= *until => {
                Some(Reply::Send(Exchange::NoAnswer("no answer in time".into())))
            }
            Pending::Wait(until, _) if now >= *until => Some(Reply::Wait),
            Pending::Transfer { until, .. } if now >= *until => Some(Reply::Transfer(false)),
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
            Pending::Lookup(_, until) | Pending::Name(_, until, _) | Pending::Record(_, until) => {
                Some(*until)
            }
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

    /// Answers the INVITE: the answer to its offer, or our offer when it had none. `early` says so
    /// in a 183 first, for peers that must hear us before the call counts as answered.
    fn answer(&mut self, now: Instant, offer: Option<&[u8]>, early: bool) {
        let sdp = match offer {
            None => offer::offer(&self.local),
            Some(offer) => match offer::answer(offer, &self.local) {
                Ok((sdp, negotiated)) => {
                    self.negotiated(now, negotiated);
                    sdp
                }
                Err(refusal) => return self.refuse(refusal),
            },
        };
        let leg = self.leg;
        if early && offer.is_some() {
            let sdp = sdp.clone();
            self.outputs.push_back(Output::Sip(sip::Command::Early { leg, sdp }));
        }
        self.outputs.push_back(Output::Sip(sip::Command::Answer { leg, sdp }));
    }

    fn refuse(&mut self, refusal: Refusal) {
        let (status, reason) = match refusal {
            Refusal::Malformed(why) => (400, why),
            Refusal::NoCommonCodec(why) => (488, why),
        };
        let leg = self.leg;
        self.outputs.push_back(Output::Sip(sip::Command::Reject {
            leg,
            status,
            reason,
            retry_after_s: None,
        }));
        if !self.started {
            self.end(Outcome::Failed("no media in common"));
        }
    }

    fn negotiated(&mut self, now: Instant, negotiated: Negotiated) {
        let sends = matches!(negotiated.direction, Direction::SendRecv | Direction::SendOnly);
        self.audible = sends && negotiated.remote.is_some();
        // What stood still on hold has its time before it again.
        if let Some(playing) = &mut self.playing {
            playing.until = now + playing.length + PLAY_GRACE;
        }
        let events = if negotiated.events_in.is_some() { " + telephone-event" } else { "" };
        let description = format!("{}{events}", negotiated.law.encoding());
        if let Telling::Answered { negotiated, .. } = &mut self.answered {
            *negotiated = description;
        }
        self.outputs.push_back(Output::Media(media::Command::Negotiated(negotiated)));
    }

    fn sip(&mut self, now: Instant, wall_ms: i64, event: sip::Event) {
        match event {
            sip::Event::Established { sdp, .. } => self.established(now, wall_ms, sdp),
            sip::Event::Reoffered { sdp, .. } => {
                self.local.session_version += 1;
                self.late_offer = sdp.is_none();
                self.answer(now, sdp.as_deref(), false);
            }
            sip::Event::Referred { status, .. } => {
                let Pending::Transfer { accepted, .. } = &mut self.pending else { return };
                *accepted |= status < 300;
                if status >= 200 {
                    self.resume(now, wall_ms, Reply::Transfer(status < 300));
                }
            }
            sip::Event::Ended { .. } => self.leg_ended(now, wall_ms),
            sip::Event::Reanswered { sdp, .. } => {
                if let Ok(negotiated) = offer::accept(&sdp, &self.local) {
                    self.negotiated(now, negotiated);
                }
            }
            sip::Event::Redirected { leg, .. } => {
                self.local.session_version += 1;
                let sdp = offer::offer(&self.local);
                self.outputs.push_back(Output::Sip(sip::Command::Follow { leg, sdp }));
            }
            sip::Event::Key { key, .. } => {
                if let Some(digit) = Digit::from_key(char::from(*key.expose())) {
                    self.dialogue.key(now, digit);
                }
            }
            // What was agreed before goes on; the re-offer of a new peer follows by itself.
            sip::Event::ReofferRefused { .. } | sip::Event::Replaced { .. } => {}
            // Events of legs we placed ourselves, and the offer that made this call.
            sip::Event::Offered { .. }
            | sip::Event::Progress { .. }
            | sip::Event::Answered { .. } => {}
        }
    }

    fn established(&mut self, now: Instant, wall_ms: i64, answer: Option<Vec<u8>>) {
        if self.late_offer {
            let accepted = answer.map(|sdp| offer::accept(&sdp, &self.local));
            match accepted {
                Some(Ok(negotiated)) => self.negotiated(now, negotiated),
                _ => return self.drop_leg(now, wall_ms, "no answer to our offer"),
            }
            self.late_offer = false;
        }
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        self.outputs.push_back(Output::Tell(self.answered.clone()));
        let step = self.flow.start(wall_ms);
        self.run(now, wall_ms, step);
    }

    fn media(&mut self, now: Instant, wall_ms: i64, event: media::Event) {
        match event {
            media::Event::Key { digit, .. } => self.dialogue.key(now, digit),
            media::Event::PlayEnded { id, .. } => {
                self.playing.take_if(|playing| playing.id == id);
                self.dialogue.play_ended(now, id);
            }
            media::Event::Silent => self.drop_leg(now, wall_ms, "no media from the caller"),
            media::Event::Pressed | media::Event::Heard(_) => {}
        }
    }

    /// The leg is gone, by whoever's hand: nobody listens from here on.
    fn leg_ended(&mut self, now: Instant, wall_ms: i64) {
        if !std::mem::replace(&mut self.hung_up, true) {
            self.outputs.push_back(Output::Tell(Telling::CallerHungUp));
        }
        self.dialogue.cancel();
        if !self.started {
            return self.end(Outcome::HungUp);
        }
        match self.pending {
            Pending::Ask => self.resume(now, wall_ms, Reply::Ask(Heard::Hangup)),
            Pending::Say => self.resume(now, wall_ms, Reply::Say),
            Pending::Transfer { accepted, .. } => {
                self.resume(now, wall_ms, Reply::Transfer(accepted));
            }
            _ => {}
        }
    }

    /// We end the leg: the caller is silent, the call is too long or has no media.
    fn drop_leg(&mut self, now: Instant, wall_ms: i64, why: &'static str) {
        if std::mem::replace(&mut self.hung_up, true) {
            return;
        }
        self.outputs.push_back(Output::Tell(Telling::Dropped(why)));
        let reason = Some(format!("SIP;cause=200;text=\"{why}\""));
        self.outputs.push_back(Output::Sip(sip::Command::Hangup { leg: self.leg, reason }));
        self.leg_ended(now, wall_ms);
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
                dialogue::Output::Sensitive(on) => {
                    self.outputs.push_back(Output::Media(media::Command::Sensitive(on)));
                }
                dialogue::Output::Entered { field, shown, rejected } => {
                    let keyed = Telling::Keyed { field, shown, rejected };
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
            Request::Record(entry) => {
                let serial = self.next_serial();
                self.outputs.push_back(Output::Record(serial, entry));
                self.pending = Pending::Record(serial, now + RECORD_LIMIT);
            }
            Request::Send { request, limit } => {
                let serial = self.next_serial();
                self.outputs.push_back(Output::Send(serial, request, limit));
                self.pending = Pending::Send(serial, now + limit + SEND_GRACE, Hold::new(now));
            }
            Request::Wait(time) => {
                self.pending = Pending::Wait(now + time, Hold::new(now));
            }
            Request::Transfer => {
                let target = self.policy.agent.clone().filter(|_| !self.hung_up);
                let Some(target) = target else { return Some(Reply::Transfer(false)) };
                let (leg, headers) = (self.leg, Vec::new());
                let refer = sip::Command::Refer { leg, target, replaces: None, headers };
                self.outputs.push_back(Output::Sip(refer));
                let until = now + TRANSFER_LIMIT;
                self.pending = Pending::Transfer { until, accepted: false };
            }
        }
        None
    }

    fn end(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.hung_up, true) && self.started {
            let hangup = sip::Command::Hangup { leg: self.leg, reason: None };
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
