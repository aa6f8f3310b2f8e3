//! A caller and an agent, each with a stream of ours, and the two joined.

use super::*;
use crate::sip::offer::{SrtpKeys, SrtpSeed, Suite};

const CALLER: ([u8; 4], u16) = ([192, 0, 2, 10], 6000);
const AGENT: ([u8; 4], u16) = ([192, 0, 2, 20], 7000);

/// Caller, our two streams, agent; and what our streams sent.
struct Bridge {
    now: Instant,
    caller: End,
    a: End,
    b: End,
    agent: End,
    /// To the caller and to the agent: turn, header, samples of sound.
    sent: [Vec<(u32, Header, usize)>; 2],
    turn: u32,
    /// Packets of the caller on their way, and how each fares.
    link: Vec<(Instant, Vec<u8>)>,
    lose: fn(u64) -> bool,
    jitter_ms: fn(u64) -> u64,
}

/// What the agent's side agreed on; the caller's is mu-law with events 101.
fn to_agent() -> Negotiated {
    Negotiated {
        codec: Codec::Pcma,
        events_out: Some((96, 8000)),
        events_in: Some((96, 8000)),
        ..negotiated(AGENT)
    }
}

impl Bridge {
    fn new() -> Bridge {
        Bridge::with(negotiated(CALLER), to_agent())
    }

    /// With the peers' views of it, which are the same but for the addresses and keys.
    fn with(caller: Negotiated, agent: Negotiated) -> Bridge {
        let now = Instant::now();
        let mut bridge = Bridge {
            now,
            caller: End::new(now, 1, CALLER),
            a: End::new(now, 2, A),
            b: End::new(now, 3, B),
            agent: End::new(now, 4, AGENT),
            sent: Default::default(),
            turn: 0,
            link: vec![],
            lose: |_| false,
            jitter_ms: |_| 0,
        };
        let mirrored = |agreed: &Negotiated, remote: ([u8; 4], u16)| Negotiated {
            remote: Some(remote.into()),
            events_out: agreed.events_in,
            events_in: agreed.events_out,
            srtp: agreed
                .srtp
                .clone()
                .map(|SrtpKeys { ours, theirs }| SrtpKeys { ours: theirs, theirs: ours }),
            ..agreed.clone()
        };
        let (to_a, to_b) = (mirrored(&caller, A), mirrored(&agent, B));
        for (end, agreed) in [
            (&mut bridge.caller, to_a),
            (&mut bridge.agent, to_b),
            (&mut bridge.a, caller),
            (&mut bridge.b, agent),
        ] {
            end.stream.command(now, Command::Negotiated(agreed));
        }
        bridge
    }

    fn join(&mut self) {
        self.a.stream.join();
        self.b.stream.join();
    }

    fn part(&mut self) {
        self.a.stream.part();
        self.b.stream.part();
    }

    fn turns(&mut self, turns: u32) {
        (0..turns).for_each(|_| self.turn());
    }

    fn turn(&mut self) {
        let now = self.now;
        let mut packet = [0; PACKET_MAX];
        if let Some(len) = self.caller.stream.transmit(now, &mut packet) {
            let nth = self.caller.stream.counters().sent;
            if !(self.lose)(nth) {
                let due = now + Duration::from_millis((self.jitter_ms)(nth));
                self.link.push((due, packet[..len].to_vec()));
            }
        }
        self.link.sort_by_key(|(due, _)| *due);
        let later = self.link.partition_point(|(due, _)| *due <= now);
        for (_, bytes) in self.link.drain(..later) {
            self.a.stream.receive(now, CALLER.into(), &bytes);
        }
        if let Some(len) = self.agent.stream.transmit(now, &mut packet) {
            self.b.stream.receive(now, AGENT.into(), &packet[..len]);
        }
        if self.a.stream.is_joined() {
            self.a.stream.exchange(now, &mut self.b.stream);
        }
        let ways = [(&mut self.a, &mut self.caller), (&mut self.b, &mut self.agent)];
        for (way, (ours, theirs)) in ways.into_iter().enumerate() {
            let mut len = ours.stream.transmit(now, &mut packet);
            while let Some(ready) = len {
                let header = Packet::parse(&packet[..ready]).unwrap().header;
                // Without the tag of SRTP.
                let samples = (ready - HEADER_LEN) / 80 * 80;
                self.sent[way].push((self.turn, header, samples));
                theirs.stream.receive(now, ours.address, &packet[..ready]);
                len = ours.stream.transmit_more(&mut packet);
            }
        }
        for end in [&mut self.caller, &mut self.a, &mut self.b, &mut self.agent] {
            end.settle();
        }
        self.now += TURN;
        self.turn += 1;
    }

    fn press(end: &mut End, now: Instant, keys: &str, method: Method) {
        let keys = keys.chars().map(|key| Digit::from_key(key).unwrap()).collect();
        let press = Command::Press { keys, method, on_ms: 100, off_ms: 100 };
        end.stream.command(now, press);
    }

    fn play(end: &mut End, now: Instant, id: u64, codes: &[u8]) {
        let a: Vec<u8> = codes.iter().map(|&c| codec::transcode(c, Law::Mu, Law::A)).collect();
        let clips = vec![Clip::new(codes.into(), a.into())];
        end.stream.command(now, Command::Play { id: PlayId(id), clips, barge_in: true });
    }

    /// One SSRC, numbers without a gap, timestamps that never go back, no burst.
    fn check_sent(&self) {
        for sent in &self.sent {
            let audio = |header: &Header| codec::law_of(header.payload_type).is_some();
            let mut end = None;
            for (at, (turn, header, len)) in sent.iter().enumerate() {
                let first = sent[0].1;
                assert_eq!(header.ssrc, first.ssrc);
                assert_eq!(header.sequence, first.sequence.wrapping_add(at as u16));
                if audio(header) {
                    let ahead = end.map_or(0, |end| header.timestamp.wrapping_sub(end));
                    assert!(ahead < 16_000, "turn {turn}: {ahead} ticks on, or back");
                    end = Some(header.timestamp.wrapping_add(*len as u32));
                }
                let in_turn = sent.iter().filter(|(other, ..)| other == turn).count();
                assert!(in_turn <= 3, "{in_turn} packets in turn {turn}");
            }
        }
    }
}

/// A sound that tells where it comes from.
fn sound(seed: u32, len: u32) -> Vec<u8> {
    (0..len).map(|n| 0x90 | ((n.wrapping_mul(2_654_435_761) >> 13) ^ seed) as u8 & 0x6f).collect()
}

fn contains(heard: &[u8], sound: &[u8]) -> bool {
    heard.windows(sound.len()).any(|window| window == sound)
}

fn as_law(sound: &[u8], law: Law) -> Vec<u8> {
    sound.iter().map(|&code| codec::transcode(code, Law::Mu, law)).collect()
}

/// As the caller hears what the agent sends in A-law.
fn there_and_back(sound: &[u8]) -> Vec<u8> {
    as_law(sound, Law::A).iter().map(|&code| codec::transcode(code, Law::A, Law::Mu)).collect()
}

#[test]
fn each_hears_the_other_in_the_law_agreed_on_and_keys_arrive_once() {
    for suite in [None, Some(Suite::Cm80), Some(Suite::Gcm)] {
        let key = |seed, suite| SrtpSeed::new([seed; 32]).key(suite);
        let srtp = suite.map(|suite| SrtpKeys { ours: key(1, suite), theirs: key(2, suite) });
        let mut bridge = Bridge::with(Negotiated { srtp, ..negotiated(CALLER) }, to_agent());
        bridge.turns(10);
        bridge.join();
        let (of_caller, of_agent) = (sound(1, 16_000), sound(2, 16_000));
        Bridge::play(&mut bridge.caller, bridge.now, 1, &of_caller);
        Bridge::play(&mut bridge.agent, bridge.now, 2, &of_agent);
        bridge.turns(120);
        assert!(contains(&bridge.agent.heard, &as_law(&of_caller, Law::A)), "{suite:?}");
        let back = there_and_back(&of_agent);
        assert!(contains(&bridge.caller.heard, &back), "{suite:?}");
        Bridge::press(&mut bridge.caller, bridge.now, CARD, Method::Events);
        Bridge::press(&mut bridge.agent, bridge.now, "0*", Method::Events);
        bridge.turns(200);
        assert_eq!((bridge.agent.keys.as_str(), bridge.caller.keys.as_str()), (CARD, "0*"));
        assert!(bridge.agent.sources.iter().all(|source| *source == Source::Event));
        assert_eq!(
            (bridge.a.keys.as_str(), bridge.b.keys.as_str()),
            ("", ""),
            "not for the script"
        );
        bridge.part();
        Bridge::press(&mut bridge.caller, bridge.now, "7", Method::Events);
        bridge.turns(30);
        assert_eq!((bridge.a.keys.as_str(), bridge.agent.keys.as_str()), ("7", CARD));
        bridge.check_sent();
        let kinds = |way: usize| bridge.sent[way].iter().map(|sent| sent.1.payload_type);
        assert!(kinds(0).all(|kind| kind == 0 || kind == 101));
        assert!(kinds(1).all(|kind| kind == 8 || kind == 96));
    }
}

#[test]
fn what_is_received_in_a_turn_is_sent_in_it() {
    let mut bridge = Bridge::new();
    bridge.join();
    bridge.turns(5);
    for turn in 5..100 {
        bridge.turn();
        for way in 0..2 {
            let now = bridge.sent[way].iter().filter(|sent| sent.0 == turn);
            assert_eq!(now.count(), 1, "turn {turn}");
        }
    }
    let received = [bridge.caller.stream.counters().sent, bridge.agent.stream.counters().sent];
    assert_eq!(received, [bridge.sent[1].len() as u64, bridge.sent[0].len() as u64]);
}

#[test]
fn a_bad_line_on_one_side_costs_neither_keys_nor_order() {
    for seed in 0..4u64 {
        let mut bridge = Bridge::new();
        bridge.turns(7);
        bridge.join();
        bridge.lose = match seed {
            0 => |nth| nth % 7 == 3,
            1 => |nth| nth % 11 < 2,
            2 => |nth| nth % 29 < 3,
            _ => |_| false,
        };
        bridge.jitter_ms = |nth| nth * 7919 % 55;
        let said = sound(9, 8_000);
        Bridge::play(&mut bridge.caller, bridge.now, 1, &said);
        bridge.turns(60);
        Bridge::press(&mut bridge.caller, bridge.now, CARD, Method::Events);
        bridge.turns(250);
        assert_eq!(bridge.agent.keys, CARD, "line {seed}");
        bridge.part();
        bridge.turns(10);
        bridge.check_sent();
        let dropped = bridge.b.stream.counters().dropped;
        assert!(dropped == 0, "line {seed}: {dropped} dropped");
        if seed == 3 {
            assert!(contains(&bridge.agent.heard, &as_law(&said, Law::A)));
        }
    }
}

#[test]
fn a_peer_without_telephone_event_gets_tones() {
    let plain = Negotiated { events_out: None, events_in: None, ..to_agent() };
    let mut bridge = Bridge::with(negotiated(CALLER), plain);
    bridge.join();
    bridge.turns(5);
    Bridge::press(&mut bridge.caller, bridge.now, "159#", Method::Events);
    bridge.turns(80);
    assert_eq!(bridge.agent.keys, "159#");
    assert!(bridge.agent.sources.iter().all(|source| *source == Source::Tone));
    assert_eq!((bridge.a.keys.as_str(), bridge.b.pressed), ("", 0));
    bridge.check_sent();
}

#[test]
fn another_event_clock_and_packets_of_any_length() {
    for ptime_ms in [20, 40, 60] {
        let wide = Negotiated {
            events_out: Some((97, 16_000)),
            events_in: Some((97, 16_000)),
            ..to_agent()
        };
        let mut bridge = Bridge::with(Negotiated { ptime_ms, ..negotiated(CALLER) }, wide);
        bridge.join();
        let said = sound(5, 9_600);
        Bridge::play(&mut bridge.caller, bridge.now, 1, &said);
        bridge.turns(70);
        Bridge::press(&mut bridge.caller, bridge.now, "159#", Method::Events);
        bridge.turns(60);
        assert!(contains(&bridge.agent.heard, &as_law(&said, Law::A)), "{ptime_ms} ms");
        assert_eq!(bridge.agent.keys, "159#", "{ptime_ms} ms");
        bridge.check_sent();
    }
}

#[test]
fn hold_on_one_side_is_respected() {
    let mut bridge = Bridge::new();
    bridge.join();
    bridge.turns(5);
    // The agent holds the call: it sends, and wants nothing.
    let held = Negotiated { direction: Direction::RecvOnly, ..to_agent() };
    bridge.b.stream.command(bridge.now, Command::Negotiated(held));
    let (before, said) = (bridge.sent[1].len(), sound(3, 4_000));
    Bridge::play(&mut bridge.agent, bridge.now, 1, &said);
    bridge.turns(40);
    assert_eq!(bridge.sent[1].len(), before);
    assert!(contains(&bridge.caller.heard, &there_and_back(&said)), "music on hold goes through");
    // Inactive: the caller gets silence, not what the agent sends nevertheless.
    let held = Negotiated { direction: Direction::Inactive, ..to_agent() };
    bridge.b.stream.command(bridge.now, Command::Negotiated(held));
    Bridge::play(&mut bridge.agent, bridge.now, 2, &said);
    let heard = bridge.caller.heard.len();
    bridge.turns(40);
    let silence = &bridge.caller.heard[heard..];
    assert!(silence.len() > 4_000 && silence.iter().all(|code| *code == 0xff));
    bridge.b.stream.command(bridge.now, Command::Negotiated(to_agent()));
    bridge.turns(2);
    let said = sound(4, 4_000);
    Bridge::play(&mut bridge.caller, bridge.now, 3, &said);
    bridge.turns(40);
    assert!(contains(&bridge.agent.heard, &as_law(&said, Law::A)));
    bridge.check_sent();
}

#[test]
fn prompts_and_the_recording_pause() {
    let mut bridge = Bridge::new();
    Bridge::play(&mut bridge.a, bridge.now, 1, &[0x90; 80_000]);
    bridge.turns(50);
    bridge.join();
    Bridge::play(&mut bridge.a, bridge.now, 2, &[0x11; 8_000]);
    Bridge::press(&mut bridge.a, bridge.now, "1", Method::Events);
    // The script closes its window; the agent's goes on.
    bridge.a.stream.command(bridge.now, Command::Sensitive(false));
    let (caller, agent) = (sound(6, 16_000), sound(7, 16_000));
    Bridge::play(&mut bridge.caller, bridge.now, 3, &caller);
    Bridge::play(&mut bridge.agent, bridge.now, 4, &agent);
    bridge.turns(100);
    assert_eq!(bridge.a.ended, [(PlayId(1), false), (PlayId(2), false)]);
    assert!(!bridge.caller.heard.contains(&0x11) && bridge.caller.keys.is_empty());
    let silent = |stereo: &Stereo| stereo.iter().all(|code| *code == 0xff);
    let recorded = bridge.a.recorded.len();
    // It reaches back 200 ms, which had not come out yet.
    assert!(bridge.a.recorded[40..].iter().all(silent), "{recorded} frames");
    bridge.part();
    bridge.turns(40);
    Bridge::play(&mut bridge.a, bridge.now, 5, &[0x12; 8_000]);
    bridge.turns(70);
    assert!(bridge.caller.heard.contains(&0x12));
    assert!(bridge.a.recorded.len() >= 245, "the timeline goes on");
    assert!(bridge.a.recorded[recorded + 10..].iter().any(|stereo| stereo.contains(&0x12)));
}

#[test]
fn each_leg_still_tells_of_its_own_silence() {
    let mut bridge = Bridge::new();
    bridge.join();
    bridge.turns(10);
    bridge.lose = |_| true;
    bridge.turns(1_600);
    assert_eq!((bridge.a.silent, bridge.b.silent), (1, 0));
    let to_agent = bridge.sent[1].len();
    assert!(to_agent > 1_590, "silence is sent on: {to_agent} packets");
    bridge.check_sent();
}

#[test]
fn nothing_is_relayed_to_an_address_that_has_not_proved_itself() {
    let mut bridge = Bridge::new();
    let now = bridge.now;
    bridge.b.stream = Stream::new(setup(3), Latch::Nat, now);
    bridge.b.stream.command(now, Command::Negotiated(to_agent()));
    // An agent that sends nothing yet.
    let agent = std::mem::replace(&mut bridge.agent, End::new(now, 4, AGENT));
    bridge.join();
    Bridge::play(&mut bridge.caller, now, 1, &[0x90; 8_000]);
    let (mut packet, mut silences) = ([0; PACKET_MAX], 0);
    for _ in 0..30 {
        let len = bridge.caller.stream.transmit(bridge.now, &mut packet).unwrap();
        bridge.a.stream.receive(bridge.now, CALLER.into(), &packet[..len]);
        bridge.a.stream.exchange(bridge.now, &mut bridge.b.stream);
        if let Some(len) = bridge.b.stream.transmit(bridge.now, &mut packet) {
            assert!(packet[HEADER_LEN..len].iter().all(|code| *code == 0xd5));
            silences += 1;
        }
        assert_eq!(bridge.b.stream.transmit_more(&mut packet), None);
        bridge.now += TURN;
    }
    assert!(silences > 20, "silence opens the way through a NAT");
    bridge.agent = agent;
    Bridge::play(&mut bridge.caller, bridge.now, 2, &sound(8, 4_000));
    bridge.turns(40);
    assert!(contains(&bridge.agent.heard, &as_law(&sound(8, 4_000), Law::A)[160..]));
}
