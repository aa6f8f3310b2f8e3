//! Ringtill without a world: the agent, one call and its stream, a ledger in memory and the
//! simulated gateway, on a virtual clock.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringtill::account::Directory;
use ringtill::account::csv;
use ringtill::call::{Call, Input, Output, Policy, Setup, Telling};
use ringtill::dialogue::{self, Told};
use ringtill::gateway::bogus::Simulator;
use ringtill::gateway::{self, Routes};
use ringtill::instrument::FingerprintKey;
use ringtill::ledger::journal::Journal;
use ringtill::media::{self, ListenId, Stream};
use ringtill::money::Money;
use ringtill::payment::{self, Outcome};
use ringtill::prompt::Library;
use ringtill::sip::offer::{Codec, Local, Silence, SrtpPolicy, SrtpSeed};
use ringtill::sip::profile::Profile;
use ringtill::sip::{self, Agent, Leg};
use ringtill::speech::{Engine, Fields, Frame, Heard, Listener};

use crate::network::{Datagram, Network};

const WALL_MS: i64 = 1_795_400_000_000; // 23 November 2026
const TICK: Duration = Duration::from_millis(20);
/// What a round trip to the gateway takes.
const GATEWAY_TIME: Duration = Duration::from_millis(300);
const STORE_TIME: Duration = Duration::from_millis(2);

pub const ACCOUNTS: &str = "\
account_id,name_first,name_last,phone1,verify_zip,amount_due,due_date
1001,James,Walker,+13175550123,46201,321.72,2026-12-05
1002,Maria,Lopez,+13175550144,46204,88.10,2026-12-01
";

pub struct Server {
    start: Instant,
    pub sip_address: SocketAddr,
    pub rtp_address: SocketAddr,
    agent: Agent,
    call: Option<Running>,
    library: Arc<Library>,
    directory: Directory,
    routes: Arc<Routes>,
    pub simulator: Simulator,
    pub journal: Journal,
    replies: VecDeque<(Instant, Input)>,
    pub outcome: Option<Outcome>,
    pub tellings: Vec<Telling>,
    /// Keys as the call was given them.
    pub keys: String,
    /// What the trunk's profile accepts.
    pub codecs: Vec<Codec>,
    /// Callers may answer by voice.
    pub speech: Option<Arc<dyn Engine>>,
    /// Cards may be kept.
    pub saved: Option<payment::SavedSettings>,
    /// Bank accounts are taken.
    pub bank: Option<payment::BankSettings>,
    /// Routing number, account number and kind of what was debited, as the gateway was told.
    pub debits: Vec<String>,
    /// When prompts were cut short.
    pub cut: Vec<Instant>,
    /// Unix milliseconds at the start.
    pub started_ms: i64,
    seed: [u8; 32],
}

struct Running {
    call: Call,
    stream: Stream,
    tick: Instant,
    listening: Option<(ListenId, Listener)>,
}

impl Server {
    pub fn new(now: Instant, library: Arc<Library>, seed: u64) -> Server {
        let sip_address: SocketAddr = "192.0.2.1:5060".parse().unwrap();
        let settings = sip::agent::Settings::new(sip_address, "ringtill", 10);
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let table: toml::Table = gateway::example("bogus").unwrap().parse().unwrap();
        let key = table["api_key"].as_str().unwrap().to_string();
        let import = csv::parse(ACCOUNTS.as_bytes(), &csv::Options::default()).unwrap();
        assert!(import.rejected.is_empty(), "{:?}", import.rejected);
        Server {
            start: now,
            sip_address,
            rtp_address: "192.0.2.1:20000".parse().unwrap(),
            agent: Agent::new(settings, bytes),
            call: None,
            library,
            directory: import.directory,
            routes: Arc::new(Routes::one(gateway::open("bogus", table).unwrap())),
            simulator: Simulator::new(&key, seed),
            journal: Journal::new(),
            replies: VecDeque::new(),
            outcome: None,
            tellings: Vec::new(),
            keys: String::new(),
            codecs: vec![Codec::Pcmu, Codec::Pcma],
            speech: None,
            saved: None,
            bank: None,
            debits: Vec::new(),
            cut: Vec::new(),
            started_ms: WALL_MS,
            seed: bytes,
        }
    }

    fn wall_ms(&self, now: Instant) -> i64 {
        self.started_ms + now.duration_since(self.start).as_millis() as i64
    }

    pub fn receive(&mut self, now: Instant, datagram: &Datagram) {
        if datagram.destination == self.sip_address {
            let Datagram { source, bytes, .. } = datagram;
            let bytes = bytes.clone().into();
            self.agent.handle(now, sip::Input::datagram(*source, bytes));
        } else if let Some(running) = &mut self.call {
            running.stream.receive(now, datagram.source, &datagram.bytes);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        let running = self.call.iter().flat_map(|r| r.call.deadline().into_iter().chain([r.tick]));
        let reply = self.replies.front().map(|(at, _)| *at);
        running.chain(self.agent.deadline()).chain(reply).min()
    }

    /// Runs everything that is due, until nothing more comes out.
    pub fn run(&mut self, now: Instant, network: &mut Network) {
        if self.agent.deadline().is_some_and(|at| at <= now) {
            self.agent.handle(now, sip::Input::Tick);
        }
        loop {
            self.agent_outputs(now, network);
            let wall_ms = self.wall_ms(now);
            let Some(running) = &mut self.call else { return };
            if running.tick <= now {
                running.tick += TICK;
                let mut packet = [0; 512];
                if let Some(len) = running.stream.transmit(now, &mut packet)
                    && let Some(destination) = running.stream.remote()
                {
                    let bytes = packet[..len].to_vec();
                    network.send(now, Datagram { source: self.rtp_address, destination, bytes });
                }
            }
            while let Some(spoken) = running.stream.spoken() {
                let listening = running.listening.as_mut().filter(|(id, _)| *id == spoken.id);
                let Some((id, listener)) = listening else { continue };
                let heard = listener.hear(Frame::of(&spoken.sound), spoken.quiet_ms);
                let told = match heard {
                    None => continue,
                    Some(Heard::Nothing) => Told::Nothing,
                    Some(Heard::Answer) => Told::Answer(listener.answers()),
                };
                let id = *id;
                running.listening = None;
                running.call.handle(now, wall_ms, Input::Told(id, told));
            }
            while let Some(event) = running.stream.poll() {
                match &event {
                    media::Event::Key { digit, .. } => {
                        self.keys.push(char::from(digit.expose()));
                    }
                    media::Event::PlayEnded { completed: false, .. } => self.cut.push(now),
                    _ => {}
                }
                running.call.handle(now, wall_ms, Input::Media(event));
            }
            while self.replies.front().is_some_and(|(at, _)| *at <= now) {
                let (_, reply) = self.replies.pop_front().unwrap();
                running.call.handle(now, wall_ms, reply);
            }
            if running.call.deadline().is_some_and(|at| at <= now) {
                running.call.timeout(now, wall_ms);
            }
            if !self.call_outputs(now) {
                return;
            }
        }
    }

    fn agent_outputs(&mut self, now: Instant, network: &mut Network) {
        while let Some(output) = self.agent.poll() {
            match output {
                sip::Output::Transmit { destination, bytes } => {
                    let source = self.sip_address;
                    let (destination, bytes) = (destination.address, bytes.to_vec());
                    network.send(now, Datagram { source, destination, bytes });
                }
                sip::Output::Event(sip::Event::Offered { leg, invitation }) => {
                    assert!(self.call.is_none() && self.outcome.is_none(), "one call a simulation");
                    self.call = Some(self.offered(now, leg, invitation));
                }
                sip::Output::Intrusion(_)
                | sip::Output::Registered { .. }
                | sip::Output::Reachable { .. } => {
                    panic!("everybody may call, and nobody registers us")
                }
                sip::Output::Event(event) => {
                    let wall_ms = self.wall_ms(now);
                    if let Some(running) = &mut self.call {
                        running.call.handle(now, wall_ms, Input::Sip(event));
                    }
                }
            }
        }
    }

    fn offered(&self, now: Instant, leg: Leg, invitation: Box<sip::Invitation>) -> Running {
        let setup = media::Setup {
            ssrc: 7,
            sequence: 65_000,
            timestamp: u32::MAX - 80_000,
            chance: 7,
            record: false,
            listen: false,
        };
        let codecs = self.codecs.clone();
        let profile = Profile { trust_caller_id: true.into(), codecs, ..Profile::default() };
        let payment = payment::Settings {
            fee: payment::Fee::flat(Money::usd(200)),
            saved: self.saved.clone(),
            bank: self.bank.clone(),
            ..payment::Settings::default()
        };
        let policy = Policy {
            payment: Arc::new(payment),
            dialogue: dialogue::Settings::default(),
            fingerprints: Arc::new(FingerprintKey::new(&[7; 32]).unwrap()),
            banks: None,
            bins: None,
            authorisations_recorded: false,
            agent: None,
            speech: self.speech.as_ref().map_or(Fields::NONE, |_| Fields::ALL),
            duration_max: Duration::from_secs(600),
        };
        let mut stream = Stream::new(setup, profile.latch, now);
        if self.speech.is_some() {
            stream.hear_speech();
        }
        let local = Local {
            address: self.rtp_address.ip(),
            port: self.rtp_address.port(),
            codecs: Vec::new(),
            silence: Silence::Packets,
            events: true,
            session_id: 1,
            session_version: 1,
            srtp: SrtpPolicy::Off,
            keys: SrtpSeed::new([3; 32]),
        };
        let call = Call::new(
            now,
            Setup {
                id: "simulated".into(),
                leg,
                invitation,
                profile: Arc::new(profile),
                local,
                library: self.library.clone(),
                routes: self.routes.clone(),
                policy: Arc::new(policy),
                seed: self.seed,
            },
        );
        Running { call, stream, tick: now, listening: None }
    }

    /// Carries out what the call asks; false when there was nothing.
    fn call_outputs(&mut self, now: Instant) -> bool {
        let mut any = false;
        let wall_ms = self.wall_ms(now);
        while let Some(running) = &mut self.call
            && let Some(output) = running.call.poll()
        {
            any = true;
            match output {
                Output::Sip(command) => self.agent.handle(now, sip::Input::Command(command)),
                Output::Media(command) => running.stream.command(now, command),
                Output::Listen { id, field, keyed } => {
                    let engine = self.speech.as_deref().expect("nobody listens");
                    running.listening = Some((id, Listener::new(engine, field, &keyed)));
                }
                Output::Deaf => running.listening = None,
                Output::Lookup(serial, query) => {
                    let found = self.directory.answer(&query);
                    self.reply(now + STORE_TIME, Input::Found(serial, found));
                }
                Output::Screen(serial, screening) => {
                    let found = self.journal.screen(&screening);
                    self.reply(now + STORE_TIME, Input::Screened(serial, found));
                }
                Output::Keep(serial, _) => self.reply(now + STORE_TIME, Input::Kept(serial, true)),
                Output::Wallet(serial, biller, account) => {
                    let found = self.journal.wallet(&biller, &account);
                    self.reply(now + STORE_TIME, Input::Wallet(serial, found));
                }
                Output::Record(serial, entry) => {
                    let recorded = self.journal.record(entry);
                    self.reply(now + STORE_TIME, Input::Recorded(serial, recorded));
                }
                Output::Send(serial, _, request, _) => {
                    self.debits.extend(debited(&request.body));
                    let exchange = self.simulator.exchange(wall_ms, request);
                    self.reply(now + GATEWAY_TIME, Input::Exchanged(serial, exchange));
                }
                Output::Synthesize(serial, _) => {
                    self.reply(now + STORE_TIME, Input::Named(serial, None));
                }
                // Nobody is there to take callers over.
                Output::Way(serial) => self.reply(now, Input::Way(serial, None)),
                Output::Second(_) => {}
                Output::Tell(telling) => self.tellings.push(telling),
                Output::Ended(outcome) => {
                    self.outcome = Some(outcome);
                    self.call = None;
                }
            }
        }
        any
    }

    fn reply(&mut self, at: Instant, input: Input) {
        self.replies.push_back((at, input));
        self.replies.make_contiguous().sort_by_key(|(at, _)| *at);
    }

    /// Legs the agent still knows: none once a call is over and its transactions have died.
    pub fn legs(&self) -> usize {
        self.agent.calls()
    }

    pub fn states(&self) -> BTreeMap<String, ringtill::ledger::State> {
        self.journal.intents().into_iter().map(|(i, s)| (i.account_id, s)).collect()
    }
}

/// The bank account that a request debits.
fn debited(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let of = |key: &str| body["bank"][key].as_str().map(String::from);
    Some(format!("{} {} {}", of("routing")?, of("number")?, of("kind")?))
}
