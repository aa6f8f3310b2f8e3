//! One call alone, its world played by hand: what it does when the world fails it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringtill::account::directory::Directory;
use ringtill::account::{Account, csv};
use ringtill::call::{Call, Input, Output, Policy, SecondLeg, Serial, Setup, Telling};
use ringtill::dialogue;
use ringtill::gateway::{self, Exchange, Routes};
use ringtill::instrument::FingerprintKey;
use ringtill::ledger::journal::Journal;
use ringtill::ledger::{Recorded, State};
use ringtill::media::{self, Digit, PlayId, Source};
use ringtill::payment::{self, Outcome};
use ringtill::sip::offer::{self, Codec, Local, Silence, SrtpPolicy, SrtpSeed};
use ringtill::sip::profile::Profile;
use ringtill::sip::{Command, Event, Invitation, Leg};
use ringtill::speech::Fields;

use crate::server::ACCOUNTS;

pub const LEG: Leg = Leg(1);
const WALL_MS: i64 = 1_795_400_000_000; // 23 November 2026

pub struct World {
    now: Instant,
    call: Call,
    directory: Directory,
    journal: Journal,
    /// Prompts end by themselves at once.
    plays_end: bool,
    store_answers: bool,
    playing: Option<PlayId>,
    sent: Vec<Serial>,
    pub hangups: usize,
    pub ended: Vec<Outcome>,
    pub said: String,
    /// Commands for the caller's leg, orders for the agent's, and who asked for a way.
    pub commands: Vec<Command>,
    pub orders: Vec<SecondLeg>,
    pub ways: Vec<Serial>,
}

pub fn local(port: u16) -> Local {
    Local {
        address: "192.0.2.1".parse().unwrap(),
        port,
        codecs: vec![Codec::Pcmu],
        silence: Silence::Packets,
        events: true,
        session_id: 1,
        session_version: 1,
        srtp: SrtpPolicy::Off,
        keys: SrtpSeed::new([3; 32]),
    }
}

impl World {
    fn new() -> World {
        World::with(None, Profile::default())
    }

    /// With an agent to pass callers on to, by the trunk's way.
    #[allow(clippy::disallowed_methods)]
    pub fn with(agent: Option<&str>, profile: Profile) -> World {
        let now = Instant::now();
        let table: toml::Table = gateway::example("bogus").unwrap().parse().unwrap();
        let invitation = Invitation {
            source: ringtill::sip::Peer::udp("192.0.2.9:5060".parse().unwrap()),
            trunk: Arc::default(),
            local: "192.0.2.1:5060".parse().unwrap(),
            call_id: "routing".into(),
            dialled: "pay".into(),
            headers: vec![("From".into(), "<sip:+13175550123@192.0.2.9>;tag=1".into())],
            offer: Some(offer::offer(&local(4_000))),
        };
        let policy = Policy {
            payment: Arc::new(payment::Settings::default()),
            dialogue: dialogue::Settings::default(),
            fingerprints: Arc::new(FingerprintKey::new(&[7; 32]).unwrap()),
            banks: None,
            bins: None,
            authorisations_recorded: false,
            agent: agent.map(String::from),
            speech: Fields::NONE,
            duration_max: Duration::from_secs(600),
        };
        let setup = Setup {
            id: "routing".into(),
            leg: LEG,
            invitation: Box::new(invitation),
            profile: Arc::new(Profile { trust_caller_id: true.into(), ..profile }),
            local: local(20_000),
            library: crate::library().clone(),
            routes: Arc::new(Routes::one(gateway::open("bogus", table).unwrap())),
            policy: Arc::new(policy),
            seed: [9; 32],
        };
        World {
            now,
            call: Call::new(now, setup),
            directory: csv::parse(ACCOUNTS.as_bytes(), &csv::Options::default()).unwrap().directory,
            journal: Journal::new(),
            plays_end: true,
            store_answers: true,
            playing: None,
            sent: Vec::new(),
            hangups: 0,
            ended: Vec::new(),
            said: String::new(),
            commands: Vec::new(),
            orders: Vec::new(),
            ways: Vec::new(),
        }
    }

    pub fn give(&mut self, input: Input) {
        self.call.handle(self.now, WALL_MS, input);
        self.settle();
    }

    /// Carries out what the call asks for until it asks for nothing more.
    pub fn settle(&mut self) {
        while let Some(output) = self.call.poll() {
            let reply = match output {
                Output::Sip(command) => {
                    self.hangups += usize::from(matches!(command, Command::Hangup { .. }));
                    self.commands.push(command);
                    None
                }
                Output::Media(media::Command::Play { id, .. }) => {
                    self.playing = Some(id);
                    let ended = media::Event::PlayEnded { id, completed: true };
                    self.plays_end.then_some(Input::Media(ended))
                }
                Output::Media(_) | Output::Listen { .. } | Output::Deaf => None,
                Output::Lookup(serial, query) => {
                    let found: Vec<Account> = self.directory.answer(&query);
                    Some(Input::Found(serial, found))
                }
                Output::Screen(serial, screening) => {
                    Some(Input::Screened(serial, self.journal.screen(&screening)))
                }
                Output::Wallet(serial, biller, account) => {
                    Some(Input::Wallet(serial, self.journal.wallet(&biller, &account)))
                }
                Output::Keep(serial, _) => Some(Input::Kept(serial, true)),
                Output::Record(serial, entry) => {
                    let recorded = self.journal.record(entry);
                    self.store_answers.then_some(Input::Recorded(serial, recorded))
                }
                Output::Send(serial, ..) => {
                    self.sent.push(serial);
                    None
                }
                Output::Synthesize(serial, _) => Some(Input::Named(serial, None)),
                Output::Tell(Telling::Said(words)) => {
                    self.said += &words;
                    None
                }
                Output::Way(serial) => {
                    self.ways.push(serial);
                    None
                }
                Output::Second(order) => {
                    self.orders.push(order);
                    None
                }
                Output::Tell(_) => None,
                Output::Ended(outcome) => {
                    self.ended.push(outcome);
                    None
                }
            };
            if let Some(input) = reply {
                self.call.handle(self.now, WALL_MS, input);
            }
        }
    }

    pub fn key(&mut self, keys: &str) {
        for key in keys.chars() {
            let digit = Digit::from_key(key).unwrap();
            self.give(Input::Media(media::Event::Key { digit, source: Source::Event }));
        }
    }

    /// Lets time pass, deadline by deadline.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.call.deadline().filter(|due| *due <= until) {
            self.now = due.max(self.now);
            self.call.timeout(self.now, WALL_MS);
            self.settle();
        }
        self.now = until;
    }

    pub fn answered(&mut self) {
        self.give(Input::Sip(Event::Established { leg: LEG, sdp: None }));
    }

    /// From the answer to the sale that has just left.
    fn charging(&mut self) {
        self.answered();
        self.key("1");
        self.key("4111111111111111#");
        self.key("1230");
        self.key("123");
        self.key("46201");
        self.key("1");
        assert_eq!(self.sent.len(), 1, "{}", self.said);
    }

    fn states(&self) -> Vec<&'static str> {
        self.journal.intents().iter().map(|(_, state)| state.name()).collect()
    }
}

#[test]
fn a_prompt_whose_end_is_never_told_ends_the_call_and_pays_nothing() {
    let mut world = World::new();
    world.plays_end = false;
    world.answered();
    world.pass(Duration::from_secs(30));
    assert_eq!(world.hangups, 0);
    world.pass(Duration::from_secs(30));
    assert_eq!((world.hangups, &world.ended[..]), (1, &[Outcome::HungUp][..]));
}

#[test]
fn on_hold_a_prompt_may_stand_still() {
    let mut world = World::new();
    world.plays_end = false;
    world.answered();
    let held = String::from_utf8(offer::offer(&local(4_000))).unwrap();
    let held = held.replace("a=sendrecv", "a=sendonly");
    assert!(held.contains("a=sendonly"), "{held}");
    world.give(Input::Sip(Event::Reoffered { leg: LEG, sdp: Some(held.into_bytes()) }));
    world.pass(Duration::from_secs(300));
    assert_eq!(world.hangups, 0);
    let back = offer::offer(&local(4_000));
    world.give(Input::Sip(Event::Reoffered { leg: LEG, sdp: Some(back) }));
    world.pass(Duration::from_secs(30));
    assert_eq!(world.hangups, 0, "what stood still has its time again");
    world.plays_end = true;
    let id = world.playing.unwrap();
    world.give(Input::Media(media::Event::PlayEnded { id, completed: true }));
    world.pass(Duration::from_secs(5));
    assert_eq!(world.hangups, 0);
}

#[test]
fn after_the_end_nothing_follows() {
    let mut world = World::new();
    world.give(Input::Sip(Event::Ended { leg: LEG, cause: ringtill::sip::Cause::Cancelled }));
    assert_eq!(world.ended.len(), 1);
    world.answered();
    world.give(Input::Sip(Event::Ended { leg: LEG, cause: ringtill::sip::Cause::PeerHungUp }));
    world.key("1");
    world.pass(Duration::from_secs(700));
    assert_eq!((world.ended.len(), world.said.as_str()), (1, ""));
    assert_eq!(world.call.deadline(), None);
}

#[test]
fn an_answer_after_the_watchdog_changes_nothing() {
    let mut world = World::new();
    world.charging();
    world.pass(Duration::from_secs(50));
    assert_eq!(world.states(), ["unknown"], "the answer is late: it is looked up");
    assert_eq!(world.sent.len(), 2, "a lookup, not a second sale");
    let reply = http::Response::new(b"{\"status\":\"declined\"}".to_vec());
    let late = Input::Exchanged(world.sent[0], Exchange::Response(reply));
    world.give(late);
    assert_eq!(world.states(), ["unknown"]);
    world.pass(Duration::from_secs(120));
    assert!(matches!(world.ended[..], [Outcome::Pending { .. }]), "{:?}", world.ended);
    assert!(!world.said.contains("declined"), "{}", world.said);
}

#[test]
fn a_call_that_is_too_long_still_gets_its_answer() {
    let mut world = World::new();
    world.charging();
    world.give(Input::Media(media::Event::Silent));
    assert_eq!((world.hangups, world.ended.len()), (1, 0), "the money side goes on");
    let body = b"{\"id\":\"s1\",\"status\":\"approved\",\"auth_code\":\"A1\"}".to_vec();
    world.give(Input::Exchanged(world.sent[0], Exchange::Response(http::Response::new(body))));
    world.pass(Duration::from_secs(60));
    let paid = matches!(world.ended[..], [Outcome::Paid { .. }]);
    assert!(paid, "{:?} {:?}", world.ended, world.journal.intents());
    assert_eq!(world.states(), ["approved"]);
}

#[test]
fn a_store_that_never_answers_ends_before_anything_is_sent() {
    let mut world = World::new();
    world.store_answers = false;
    world.answered();
    world.key("1");
    world.key("4111111111111111#");
    world.key("1230");
    world.key("123");
    world.key("46201");
    world.key("1");
    world.pass(Duration::from_secs(60));
    assert!(world.sent.is_empty());
    assert!(matches!(world.ended[..], [Outcome::Failed(_)]), "{:?}", world.ended);
    let (_, state) = &world.journal.intents()[0];
    assert!(matches!(state, State::NotCharged(_)), "{state:?}");
    assert_ne!(world.journal.record(sending(&world)), Recorded::Stored);
}

/// A write that was on its way all the time.
fn sending(world: &World) -> ringtill::ledger::Entry {
    let id = world.journal.intents()[0].0.id.clone();
    ringtill::ledger::Entry::Move { id, to: State::Sending }
}
