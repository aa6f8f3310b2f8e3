//! The phone calls a small server of its own over a network that loses and delays.

use std::collections::{BTreeMap, VecDeque};
use std::sync::OnceLock;

use super::*;
use crate::media::PlayId;
use crate::prompt::Prompt;
use crate::prompt::library::tests::library;

const MS: Duration = Duration::from_millis(1);
const CARD: &str = "hear card.ask, key 4111111111111111#, hear consent.accept, pause 200, key 1,\
                    hear bye.thanks, wait-end 5s";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn caller() -> [SocketAddr; 2] {
    ["192.0.2.1:5060", "192.0.2.1:40000"].map(address)
}

fn server() -> [SocketAddr; 2] {
    ["192.0.2.2:5060", "192.0.2.2:20000"].map(address)
}

fn indexes() -> Vec<Arc<Index>> {
    static INDEXES: OnceLock<Vec<Arc<Index>>> = OnceLock::new();
    let index = |law| Arc::new(Index::of(&library(), law));
    INDEXES.get_or_init(|| [Law::Mu, Law::A].map(index).to_vec()).clone()
}

/// Asks for a card, then for consent (which does not let itself be interrupted), then says
/// goodbye and hangs up. Keeps the keys it got.
struct Server {
    agent: Agent,
    stream: Stream,
    leg: Option<Leg>,
    law: Law,
    keys: String,
    asking: usize,
    /// Refuses the call with this.
    refuses: Option<u16>,
    mute: bool,
}

const SAYS: [&str; 3] = ["card.ask", "consent.accept", "bye.thanks"];

impl Server {
    fn new(now: Instant, law: Law) -> Server {
        let settings = agent::Settings::new(server()[0], "test", 10);
        let media = media::Setup {
            ssrc: 1,
            sequence: 65_530,
            timestamp: 9,
            chance: 1,
            record: false,
            listen: false,
        };
        Server {
            agent: Agent::new(settings, [7; 32]),
            stream: Stream::new(media, Latch::Strict, now),
            leg: None,
            law,
            keys: String::new(),
            asking: 0,
            refuses: None,
            mute: false,
        }
    }

    fn ask(&mut self, now: Instant) {
        if self.mute {
            return;
        }
        let clips = library().clips(&[Prompt::Phrase(SAYS[self.asking])], &|_| None);
        let id = PlayId(self.asking as u64);
        let barge_in = self.asking == 0;
        self.stream.command(now, media::Command::Play { id, clips, barge_in });
    }

    fn event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Offered { leg, invitation } => {
                if let Some(status) = self.refuses {
                    let command =
                        Command::Reject { leg, status, reason: String::new(), retry_after_s: None };
                    return self.agent.handle(now, Input::Command(command));
                }
                let local = Local {
                    address: server()[1].ip(),
                    port: server()[1].port(),
                    codecs: vec![self.law.into()],
                    silence: Silence::Packets,
                    events: true,
                    session_id: 1,
                    session_version: 1,
                    srtp: SrtpPolicy::Optional,
                    keys: SrtpSeed::new([3; 32]),
                };
                let (sdp, negotiated) =
                    offer::answer(invitation.offer.as_ref().unwrap(), &local).unwrap();
                self.stream.command(now, media::Command::Negotiated(negotiated));
                self.leg = Some(leg);
                self.agent.handle(now, Input::Command(Command::Answer { leg, sdp }));
            }
            Event::Established { .. } => self.ask(now),
            Event::Ended { .. } => self.leg = None,
            _ => {}
        }
    }

    /// What media tells; true when the call is to be ended.
    fn heard(&mut self, now: Instant, event: media::Event) -> bool {
        match event {
            media::Event::Key { digit, .. } => {
                self.keys.push(char::from(digit.expose()));
                if matches!(digit.expose(), b'#' | b'1') && self.keys.len() > 16 {
                    self.asking += 1;
                    self.ask(now);
                }
                false
            }
            media::Event::PlayEnded { completed, .. } => completed && self.asking == 2,
            _ => false,
        }
    }
}

/// Two parties and a network between them.
struct World {
    start: Instant,
    now: Instant,
    random: StdRng,
    loss: f64,
    jitter_ms: u64,
    /// In flight, by arrival: for the phone or the server, SIP (0) or RTP (1).
    flying: BTreeMap<(Instant, u64), (bool, usize, Bytes)>,
    sent: u64,
    phone: Phone,
    server: Server,
    turn: Instant,
    reports: Vec<String>,
    /// Of somebody live: what they say, a frame each turn, and what they hear.
    said: VecDeque<[i16; SAMPLES]>,
    sound: Vec<i16>,
}

fn world(seed: u64, law: Law, script: &str, method: Method) -> World {
    world_with(seed, law, script, method, SrtpPolicy::Off)
}

#[allow(clippy::disallowed_methods)]
fn world_with(seed: u64, law: Law, script: &str, method: Method, srtp: SrtpPolicy) -> World {
    let start = Instant::now();
    let known = |id: &str| library().catalog().entry(id).is_some();
    let setup = Setup {
        target: "sip:pay@192.0.2.2".into(),
        destination: server()[0],
        from: "sip:+12025550123@192.0.2.1".into(),
        headers: vec![],
        sip: caller()[0],
        rtp: caller()[1],
        prompts: indexes(),
        codecs: Vec::new(),
        script: Script::parse(script, &known).unwrap(),
        srtp,
        keying: Keying { method, ..Keying::default() },
        seed: [seed as u8; 32],
        call_max: Duration::from_secs(120),
    };
    World {
        start,
        now: start,
        random: StdRng::seed_from_u64(seed),
        loss: 0.0,
        jitter_ms: 0,
        flying: BTreeMap::new(),
        sent: 0,
        phone: Phone::new(setup, start),
        server: Server::new(start, law),
        turn: start,
        reports: vec![],
        said: VecDeque::new(),
        sound: vec![],
    }
}

impl World {
    /// Runs until the phone has finished.
    fn run(&mut self) -> Result<(), Failure> {
        loop {
            self.collect();
            if let Some(result) = self.phone.finished() {
                return result.clone();
            }
            let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
            let due = [arrival, self.phone.deadline(), self.server.agent.deadline()];
            let next = due.into_iter().flatten().chain([self.turn]).min().unwrap();
            self.now = next.max(self.now);
            assert!(self.now < self.start + Duration::from_secs(300), "{:#?}", self.reports);
            self.step();
        }
    }

    fn step(&mut self) {
        while let Some(first) = self.flying.first_entry() {
            if first.key().0 > self.now {
                break;
            }
            let (to_phone, kind, bytes) = first.remove();
            let now = self.now;
            match (to_phone, kind) {
                (true, 0) => self.phone.sip(now, server()[0], bytes),
                (true, _) => self.phone.rtp(now, server()[1], &bytes),
                (false, 0) => {
                    let source = caller()[0];
                    self.server.agent.handle(now, Input::datagram(source, bytes));
                }
                (false, _) => self.server.stream.receive(now, caller()[1], &bytes),
            }
        }
        if self.phone.deadline().is_some_and(|at| at <= self.now) {
            self.phone.tick(self.now);
        }
        self.server.agent.handle(self.now, Input::Tick);
        if self.turn <= self.now {
            self.turn += 20 * MS;
            if let Some(frame) = self.said.pop_front() {
                self.phone.speak(&frame);
            }
            let mut packet = [0; PACKET_MAX];
            if let Some(len) = self.server.stream.transmit(self.now, &mut packet) {
                self.send(true, 1, Bytes::copy_from_slice(&packet[..len]));
            }
        }
    }

    fn collect(&mut self) {
        while let Some(output) = self.phone.poll() {
            match output {
                Output::Sip { destination, bytes } => {
                    assert_eq!(destination, server()[0]);
                    self.send(false, 0, bytes);
                }
                Output::Rtp { destination, bytes } => {
                    assert_eq!(destination, server()[1]);
                    self.send(false, 1, bytes);
                }
                Output::Report(report) => self.reports.push(report.to_string()),
                Output::Sound(sound) => self.sound.extend(*sound),
            }
        }
        while let Some(output) = self.server.agent.poll() {
            match output {
                agent::Output::Transmit { bytes, .. } => self.send(true, 0, bytes),
                agent::Output::Event(event) => self.server.event(self.now, event),
                agent::Output::Intrusion(_)
                | agent::Output::Registered { .. }
                | agent::Output::Reachable { .. } => {}
            }
        }
        while let Some(event) = self.server.stream.poll() {
            if self.server.heard(self.now, event)
                && let Some(leg) = self.server.leg
            {
                let command = Command::Hangup { leg, reason: None };
                self.server.agent.handle(self.now, Input::Command(command));
                self.collect();
            }
        }
    }

    fn send(&mut self, to_phone: bool, kind: usize, bytes: Bytes) {
        if self.random.random_bool(self.loss) {
            return;
        }
        let jitter = self.random.random_range(0..=self.jitter_ms);
        let at = self.now + 5 * MS + jitter as u32 * MS;
        self.sent += 1;
        self.flying.insert((at, self.sent), (to_phone, kind, bytes));
    }
}

#[test]
fn a_call_is_reported_as_it_happens() {
    let mut world = world(1, Law::Mu, CARD, Method::Events);
    assert_eq!(world.run(), Ok(()), "{:#?}", world.reports);
    assert_eq!(
        world.reports,
        [
            "answered, PCMU and telephone-event",
            "heard \"Enter your card number, then press pound.\"",
            "keys 16 digits ending in 1111 + #",
            "heard \"To accept and pay, press 1. To cancel, press 2.\"",
            "keys 1",
            "heard \"Thank you for your payment. Goodbye.\"",
            "the other side hung up",
        ]
    );
    assert_eq!(world.server.keys, "4111111111111111#1");
}

#[test]
fn somebody_live_hears_and_is_heard() {
    let script = "hear-start card.ask, pause 3000, hangup";
    let mut world = world(5, Law::A, script, Method::InBand);
    world.phone = world.phone.live();
    // A key of another phone, held to the microphone for a tenth of a second.
    let wave = |hz: f32, n: usize| (std::f32::consts::TAU * hz * n as f32 / 8_000.0).sin();
    let key = |n: usize| (6_000.0 * (wave(770.0, n) + wave(1_209.0, n))) as i16;
    let frame = |nth: usize| {
        std::array::from_fn(|n| if (90..95).contains(&nth) { key(nth * SAMPLES + n) } else { 0 })
    };
    world.said = (0..150).map(frame).collect();
    assert_eq!(world.run(), Ok(()), "{:#?}", world.reports);
    assert_eq!(world.server.keys, "4");
    let loud = world.sound.iter().filter(|sample| sample.unsigned_abs() > 1_000).count();
    assert!(loud > 1_000, "{loud} of {} samples", world.sound.len());
}

#[test]
fn what_is_said_too_fast_is_not_said_late() {
    let mut world = world(6, Law::Mu, "hear-start card.ask, hangup", Method::Events);
    (0..100).for_each(|_| world.phone.speak(&[0; SAMPLES]));
    assert_eq!(world.phone.voice.len(), VOICE_MAX);
}

#[test]
fn calls_end_well_on_a_bad_line() {
    for seed in 0..60 {
        let law = if seed % 2 == 0 { Law::Mu } else { Law::A };
        let mut world = world(seed, law, CARD, Method::Events);
        (world.loss, world.jitter_ms) = (0.03, 30);
        assert_eq!(world.run(), Ok(()), "seed {seed}: {:#?}", world.reports);
        assert_eq!(world.server.keys, "4111111111111111#1", "seed {seed}");
    }
}

#[test]
fn an_encrypted_call_on_a_bad_line() {
    for (seed, method) in [(10, Method::Events), (11, Method::InBand)] {
        let mut world = world_with(seed, Law::Mu, CARD, method, SrtpPolicy::Required);
        world.jitter_ms = 30;
        world.loss = if method == Method::Events { 0.03 } else { 0.0 };
        assert_eq!(world.run(), Ok(()), "seed {seed}: {:#?}", world.reports);
        assert_eq!(world.server.keys, "4111111111111111#1", "seed {seed}");
        assert!(world.reports[0].ends_with(", encrypted"), "{:#?}", world.reports);
        let counters = world.server.stream.counters();
        assert_eq!((counters.unauthentic, counters.malformed), (0, 0), "seed {seed}");
    }
}

#[test]
fn keys_reach_a_server_without_telephone_event_as_tones() {
    for (seed, law) in [(8, Law::Mu), (9, Law::A)] {
        let mut world = world(seed, law, CARD, Method::InBand);
        world.jitter_ms = 30;
        assert_eq!(world.run(), Ok(()), "seed {seed}: {:#?}", world.reports);
        assert_eq!(world.server.keys, "4111111111111111#1", "seed {seed}");
        let shown = "keys 16 digits ending in 1111 + # as tones".to_string();
        assert!(world.reports.contains(&shown), "{:#?}", world.reports);
    }
}

#[test]
fn keys_can_interrupt_a_prompt() {
    let script = "hear-start card.ask, key 4111111111111111#, hear consent.accept, hangup";
    let mut world = world(3, Law::Mu, script, Method::Events);
    assert_eq!(world.run(), Ok(()), "{:#?}", world.reports);
    let cut = "heard \"Enter your card number, then press pound. ...\"".to_string();
    assert!(world.reports.contains(&cut), "{:#?}", world.reports);
    assert_eq!(world.reports.last().map(String::as_str), Some("we hung up"));
    assert_eq!(world.server.leg, None, "the server saw our BYE");
}

#[test]
fn what_goes_otherwise_than_written_is_a_failure() {
    type Prepare = fn(&mut Server);
    let (none, mute, busy): (Prepare, Prepare, Prepare) =
        (|_| {}, |server| server.mute = true, |server| server.refuses = Some(486));
    let card = "hear card.ask, key 4111111111111111#, hear consent.accept, key 1";
    for (script, prepare, want) in [
        (
            "hear greet.welcome 7s",
            none,
            "`hear greet.welcome 7s`: not heard; the last we \
                                         recognised was card.ask",
        ),
        ("hear speech 5s", mute, "`hear speech 5s`: heard nothing we know"),
        ("wait-end 9s", mute, "the other side did not hang up"),
        (
            &format!("{card}, hear greet.welcome"),
            none,
            "the other side hung up before `hear \
                                                        greet.welcome 30s`",
        ),
        ("hear card.ask", busy, "refused with 486 Busy Here"),
        ("hear speech, hangup", none, ""),
        ("pause 119000, pause 9000", mute, "the call took longer than it may"),
    ] {
        let mut world = world(4, Law::A, script, Method::Events);
        prepare(&mut world.server);
        let told = world.run().err().map(|failure| failure.to_string()).unwrap_or_default();
        assert_eq!(told, want, "{script}: {:#?}", world.reports);
        assert_eq!(world.server.leg, None, "{script}: the call is over on both sides");
    }
}

#[test]
fn a_caller_may_give_up() {
    let mut world = world(6, Law::Mu, "wait-end", Method::Events);
    while world.reports.len() < 2 {
        world.collect();
        world.now += MS;
        world.step();
    }
    world.phone.hang_up_early(world.now, Err(Failure::Interrupted));
    assert_eq!(world.run(), Err(Failure::Interrupted));
    assert_eq!(world.server.leg, None);
}

#[test]
fn nobody_there_is_no_answer() {
    let mut world = world(5, Law::Mu, CARD, Method::Events);
    world.loss = 1.0;
    assert_eq!(world.run(), Err(Failure::NoAnswer));
}
