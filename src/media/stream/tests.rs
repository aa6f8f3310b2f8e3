//! Two streams talk to each other on a virtual clock, over a link that loses and delays.
#![allow(clippy::disallowed_methods)]

use super::*;
use crate::media::recording::Stereo;

mod begun;
mod codecs;
mod control;
mod joined;
mod opus;
mod reception;
mod recorded;
mod recovery;
mod secure;
mod silence;

const A: ([u8; 4], u16) = ([192, 0, 2, 1], 4000);
const B: ([u8; 4], u16) = ([192, 0, 2, 2], 5000);

/// One end, and what it told.
struct End {
    stream: Stream,
    address: SocketAddr,
    keys: String,
    sources: Vec<Source>,
    ended: Vec<(PlayId, bool)>,
    pressed: usize,
    silent: usize,
    heard: Vec<u8>,
    speech: Vec<ListenId>,
    recorded: Vec<Stereo>,
    /// What of it is in segments, and where one ended.
    segments: Vec<Recorded>,
}

struct Pair {
    now: Instant,
    a: End,
    b: End,
    /// Packets on their way from A to B and back: due, to B, bytes.
    link: Vec<(Instant, bool, Vec<u8>)>,
    /// Whether the packet from A with this number is lost.
    lose: fn(u64) -> bool,
    jitter_ms: fn(u64) -> u64,
}

fn setup(seed: u32) -> Setup {
    Setup {
        ssrc: seed,
        sequence: 0xfff0,
        timestamp: u32::MAX - 4000 * seed,
        chance: u128::from(seed),
        record: true,
        listen: true,
    }
}

fn negotiated(remote: ([u8; 4], u16)) -> Negotiated {
    Negotiated {
        remote: Some(remote.into()),
        codec: Codec::Pcmu,
        opus: None,
        silence: Silence::Packets,
        events_out: Some((101, 8000)),
        events_in: Some((101, 8000)),
        ptime_ms: 20,
        direction: Direction::SendRecv,
        rtcp: None,
        srtp: None,
    }
}

impl End {
    fn new(now: Instant, seed: u32, address: ([u8; 4], u16)) -> End {
        End {
            stream: Stream::new(setup(seed), Latch::Strict, now),
            address: address.into(),
            keys: String::new(),
            sources: vec![],
            ended: vec![],
            pressed: 0,
            silent: 0,
            heard: vec![],
            speech: vec![],
            recorded: vec![],
            segments: vec![],
        }
    }

    fn settle(&mut self) {
        while let Some(event) = self.stream.poll() {
            match event {
                Event::Key { digit, source } => {
                    self.keys.push(char::from(digit.expose()));
                    self.sources.push(source);
                }
                Event::PlayEnded { id, completed } => self.ended.push((id, completed)),
                Event::Pressed => self.pressed += 1,
                Event::Silent => self.silent += 1,
                Event::Heard(frame) => self.heard.extend_from_slice(&frame[..]),
                Event::Speech(id) => self.speech.push(id),
            }
        }
        while let Some(recorded) = self.stream.recorded() {
            self.recorded.push(recorded.stereo);
            self.segments.push(recorded);
        }
    }
}

impl Pair {
    fn new() -> Pair {
        Pair::with(negotiated(B), negotiated(A))
    }

    fn with(a: Negotiated, b: Negotiated) -> Pair {
        let now = Instant::now();
        let mut pair = Pair {
            now,
            a: End::new(now, 1, A),
            b: End::new(now, 2, B),
            link: vec![],
            lose: |_| false,
            jitter_ms: |_| 0,
        };
        pair.a.stream.command(now, Command::Negotiated(a));
        pair.b.stream.command(now, Command::Negotiated(b));
        pair
    }

    fn turns(&mut self, turns: u32) {
        for _ in 0..turns {
            self.turn();
        }
    }

    fn turn(&mut self) {
        let mut packet = [0; PACKET_MAX];
        for to_b in [true, false] {
            let end = if to_b { &mut self.a } else { &mut self.b };
            if let Some(len) = end.stream.transmit(self.now, &mut packet) {
                let nth = end.stream.counters().sent;
                let delay = Duration::from_millis(1 + (self.jitter_ms)(nth));
                if !(to_b && (self.lose)(nth)) {
                    self.link.push((self.now + delay, to_b, packet[..len].to_vec()));
                }
            }
            end.settle();
        }
        let next = self.now + TURN;
        self.link.sort_by_key(|(due, ..)| *due);
        while self.link.first().is_some_and(|(due, ..)| *due < next) {
            let (due, to_b, bytes) = self.link.remove(0);
            let (from, to) = if to_b { (&self.a, &mut self.b) } else { (&self.b, &mut self.a) };
            to.stream.receive(due, from.address, &bytes);
            to.settle();
        }
        self.now = next;
    }

    fn press(&mut self, keys: &str, method: Method, ms: u16) {
        let keys = keys.chars().map(|key| Digit::from_key(key).unwrap()).collect();
        let press = Command::Press { keys, method, on_ms: ms, off_ms: ms };
        self.a.stream.command(self.now, press);
    }

    fn play(&mut self, id: u64, bytes: &[u8], barge_in: bool) {
        let clip = Clip::new(bytes.into(), bytes.into());
        let play = Command::Play { id: PlayId(id), clips: vec![clip], barge_in };
        self.b.stream.command(self.now, play);
    }
}

const CARD: &str = "4111111111111111#";

#[test]
fn keys_as_events_are_told_once() {
    let mut pair = Pair::new();
    pair.press(CARD, Method::Events, 60);
    pair.turns(120);
    assert_eq!((pair.b.keys.as_str(), pair.a.pressed), (CARD, 1));
    assert!(pair.b.sources.iter().all(|source| *source == Source::Event));
}

#[test]
fn keys_as_events_survive_loss_and_jitter() {
    let mut pair = Pair::new();
    pair.lose = |nth| nth % 7 == 3 || nth % 11 == 5;
    pair.jitter_ms = |nth| nth * 7919 % 45;
    pair.press(CARD, Method::Events, 100);
    pair.turns(250);
    assert_eq!(pair.b.keys, CARD);
    assert!(pair.b.stream.counters().lost > 10);
}

#[test]
fn a_turn_always_sends_silence_when_idle() {
    let now = Instant::now();
    let mut stream = Stream::new(setup(9), Latch::Strict, now);
    let mut packet = [0; PACKET_MAX];
    assert_eq!(stream.transmit(now, &mut packet), None);
    for (law, silence) in [(Law::Mu, 0xff), (Law::A, 0xd5)] {
        stream.command(now, Command::Negotiated(Negotiated { codec: law.into(), ..negotiated(B) }));
        let len = stream.transmit(now, &mut packet).unwrap();
        let sent = Packet::parse(&packet[..len]).unwrap();
        assert_eq!(sent.payload, [silence; SAMPLES]);
        assert_eq!(sent.header.payload_type, Codec::from(law).payload_type());
        assert_eq!(stream.remote(), Some(B.into()));
    }
}

#[test]
fn audio_timestamps_and_sequence_run_on_across_events() {
    let now = Instant::now();
    let mut stream = Stream::new(setup(9), Latch::Strict, now);
    stream.command(now, Command::Negotiated(negotiated(B)));
    let keys = vec![Digit::from_key('5').unwrap()];
    let method = Method::Events;
    let mut headers = vec![];
    for turn in 0..30u32 {
        if turn == 5 {
            let keys = keys.clone();
            stream.command(now, Command::Press { keys, method, on_ms: 100, off_ms: 60 });
        }
        let mut packet = [0; PACKET_MAX];
        let len = stream.transmit(now + TURN * turn, &mut packet).unwrap();
        headers.push(Packet::parse(&packet[..len]).unwrap().header);
    }
    let first = headers[0];
    assert!(first.marker);
    for (turn, header) in headers.iter().enumerate() {
        let turn = turn as u32;
        assert_eq!(header.sequence, first.sequence.wrapping_add(turn as u16));
        let event = (5..12).contains(&turn);
        assert_eq!(header.payload_type, if event { 101 } else { 0 }, "turn {turn}");
        let ticks = if event { 5 * 160 } else { turn * 160 };
        assert_eq!(header.timestamp, first.timestamp.wrapping_add(ticks), "turn {turn}");
        assert_eq!(header.marker, turn == 0 || turn == 5);
    }
}

#[test]
fn a_clip_arrives_whole_and_its_end_is_told() {
    let mut pair = Pair::new();
    let sound: Vec<u8> = (0..1000u32).map(|n| (n % 100) as u8).collect();
    pair.play(7, &sound, true);
    pair.turns(7);
    assert_eq!(pair.b.ended, [(PlayId(7), true)]);
    assert_eq!(pair.a.heard[..1000], sound);
    assert!(pair.a.heard[1000..].iter().all(|&code| code == 0xff));
}

#[test]
fn barge_in_stops_the_prompt_within_one_frame() {
    let mut pair = Pair::new();
    pair.play(7, &[1; 80_000], true);
    pair.turns(20);
    pair.press("5", Method::Events, 60);
    while pair.b.keys.is_empty() {
        pair.turn();
    }
    assert_eq!(pair.b.ended, [(PlayId(7), false)]);
    let before = pair.a.heard.iter().filter(|&&code| code == 1).count();
    pair.turns(5);
    assert_eq!(pair.a.heard.iter().filter(|&&code| code == 1).count(), before);
}

#[test]
fn a_prompt_without_barge_in_goes_on_and_a_new_one_replaces_it() {
    let mut pair = Pair::new();
    pair.play(7, &[1; 80_000], false);
    pair.press("5", Method::Events, 60);
    pair.turns(20);
    assert_eq!((pair.b.keys.as_str(), pair.b.ended.len()), ("5", 0));
    pair.play(8, &[2; 160], false);
    pair.turns(2);
    assert_eq!(pair.b.ended, [(PlayId(7), false), (PlayId(8), true)]);
    pair.play(9, &[2; 1600], false);
    pair.b.stream.command(pair.now, Command::Stop);
    pair.turn();
    assert_eq!(pair.b.ended.last(), Some(&(PlayId(9), false)));
}

#[test]
fn strangers_and_garbage_are_counted_and_ignored() {
    let mut pair = Pair::new();
    pair.turns(5);
    let header = Header { marker: true, payload_type: 101, sequence: 5, timestamp: 9, ssrc: 1 };
    let mut event = header.bytes().to_vec();
    event.extend_from_slice(&[5, 10, 0, 160]);
    let (now, stream) = (pair.now, &mut pair.b.stream);
    stream.receive(now, ([192, 0, 2, 1], 4001).into(), &event);
    stream.receive(now, ([192, 0, 2, 66], 4000).into(), &event);
    stream.receive(now, A.into(), &[0x80, 200, 0, 0]);
    stream.receive(now, A.into(), b"\x00\x01garbage");
    let unknown = Header { payload_type: 96, sequence: 0xfff5, ..header };
    stream.receive(now, A.into(), &unknown.bytes());
    pair.turns(5);
    let counters = pair.b.stream.counters();
    assert_eq!(pair.b.keys, "");
    assert_eq!((counters.foreign, counters.malformed, counters.rtcp), (2, 2, 0));
    assert_eq!(counters.unknown_type, 1);
}

#[test]
fn nat_says_nothing_personal_until_the_peer_is_certain() {
    let mut pair = Pair::new();
    pair.b.stream = Stream::new(setup(2), Latch::Nat, pair.now);
    let elsewhere = ([10, 0, 0, 9], 9);
    pair.b.stream.command(pair.now, Command::Negotiated(negotiated(elsewhere)));
    pair.play(7, &[1; 1600], true);
    pair.turns(5);
    assert!(pair.a.heard.iter().all(|&code| code == 0xff));
    assert_eq!(pair.b.stream.remote(), Some(elsewhere.into()));
    pair.turns(20);
    assert_eq!(pair.b.stream.remote(), Some(A.into()));
    assert_eq!(pair.a.heard.iter().filter(|&&code| code == 1).count(), 1600);
}

#[test]
fn a_late_turn_skips_on_the_clock_and_never_bursts() {
    let now = Instant::now();
    let mut stream = Stream::new(setup(9), Latch::Strict, now);
    stream.command(now, Command::Negotiated(negotiated(B)));
    let mut send = |ms: u64| {
        let mut packet = [0; PACKET_MAX];
        let len = stream.transmit(now + Duration::from_millis(ms), &mut packet).unwrap();
        let header = Packet::parse(&packet[..len]).unwrap().header;
        (header.marker, header.timestamp, header.sequence)
    };
    let (_, first, sequence) = send(0);
    assert_eq!(send(20 + 19), (false, first.wrapping_add(160), sequence.wrapping_add(1)));
    assert_eq!(send(40), (false, first.wrapping_add(320), sequence.wrapping_add(2)));
    assert_eq!(send(40 + 120), (true, first.wrapping_add(8 * 160), sequence.wrapping_add(3)));
    assert_eq!(stream.counters().missed_turns, 5);
}

#[test]
fn hold_sends_nothing_and_is_no_silence() {
    let mut pair = Pair::new();
    let hold = Negotiated { remote: None, direction: Direction::Inactive, ..negotiated(A) };
    pair.turns(10);
    let sent = pair.b.stream.counters().sent;
    pair.b.stream.command(pair.now, Command::Negotiated(hold));
    pair.turns(2000);
    assert_eq!((pair.b.stream.counters().sent, pair.b.silent), (sent, 0));
    pair.b.stream.command(pair.now, Command::Negotiated(negotiated(A)));
    pair.press("1", Method::Events, 60);
    pair.turns(20);
    assert_eq!(pair.b.keys, "1");
}

#[test]
fn a_peer_that_holds_us_without_music_is_not_silent() {
    let mut pair = Pair::new();
    let hold = Negotiated { direction: Direction::RecvOnly, ..negotiated(A) };
    pair.b.stream.command(pair.now, Command::Negotiated(hold));
    pair.lose = |_| true;
    pair.turns(2_000);
    assert_eq!(pair.b.silent, 0);
}

#[test]
fn thirty_silent_seconds_are_told_once() {
    let mut pair = Pair::new();
    pair.lose = |_| true;
    pair.turns(1499);
    assert_eq!(pair.b.silent, 0);
    pair.turns(1000);
    assert_eq!((pair.b.silent, pair.a.silent), (1, 0));
}

#[test]
fn longer_packets_carry_the_same_sound() {
    for ptime_ms in [20, 40, 60] {
        let ours = Negotiated { ptime_ms, ..negotiated(A) };
        let mut pair = Pair::with(negotiated(B), ours);
        let sound: Vec<u8> = (0..4000u32).map(|n| (n % 100) as u8).collect();
        pair.play(1, &sound, true);
        pair.turns(30);
        assert_eq!(pair.a.heard[..4000], sound, "{ptime_ms} ms");
        assert_eq!(pair.b.stream.counters().sent, 30 * 20 / u64::from(ptime_ms));
    }
}

#[test]
fn the_other_law_is_understood_too() {
    let mut pair = Pair::new();
    let a_law = Negotiated { codec: Codec::Pcma, ..negotiated(A) };
    pair.b.stream.command(pair.now, Command::Negotiated(a_law));
    let sound: Vec<u8> = (0..160u8).collect();
    pair.play(1, &sound, true);
    pair.turns(3);
    let expected: Vec<u8> =
        sound.iter().map(|&code| codec::transcode(code, Law::A, Law::Mu)).collect();
    assert_eq!(pair.a.heard[..160], expected);
}

#[test]
fn a_new_ssrc_of_the_same_peer_is_followed() {
    let mut pair = Pair::new();
    pair.turns(10);
    pair.a.stream = Stream::new(setup(3), Latch::Strict, pair.now);
    pair.a.stream.command(pair.now, Command::Negotiated(negotiated(B)));
    pair.press("12", Method::Events, 60);
    pair.turns(30);
    assert_eq!((pair.b.keys.as_str(), pair.b.stream.counters().ssrc_changes), ("12", 1));
}

#[test]
fn keys_as_tones_are_told_once_in_both_laws() {
    for law in [Law::Mu, Law::A] {
        let negotiated = |remote| Negotiated { codec: law.into(), ..negotiated(remote) };
        let mut pair = Pair::with(negotiated(B), negotiated(A));
        pair.press(CARD, Method::InBand, 60);
        pair.turns(120);
        assert_eq!((pair.b.keys.as_str(), pair.a.pressed), (CARD, 1), "{law:?}");
        assert!(pair.b.sources.iter().all(|source| *source == Source::Tone));
    }
}

#[test]
fn keys_as_tones_survive_single_losses_and_jitter() {
    for offset in 0..29 {
        let mut pair = Pair::new();
        pair.lose = |nth| nth % 29 == 0;
        pair.jitter_ms = |nth| nth * 7919 % 45;
        pair.turns(offset);
        pair.press(CARD, Method::InBand, 100);
        pair.turns(200);
        assert_eq!(pair.b.keys, CARD, "offset {offset}");
    }
}

/// A machine that has too much to do comes back late, in the middle of keys too.
#[test]
fn keys_as_tones_stay_whole_where_turns_are_missed() {
    for offset in 1..12 {
        let mut pair = Pair::new();
        let (began, first) = (pair.now, pair.a.stream.out.timestamp);
        pair.press(CARD, Method::InBand, 100);
        for _ in 0..15 {
            pair.turns(offset);
            pair.now += 6 * TURN;
        }
        pair.turns(200);
        assert_eq!((pair.b.keys.as_str(), pair.a.pressed), (CARD, 1), "offset {offset}");
        // What was missed has been left out.
        let turns = (pair.now - began).as_millis() / TURN.as_millis();
        let sent = pair.a.stream.out.timestamp.wrapping_sub(first);
        assert_eq!(u128::from(sent), turns * SAMPLES as u128, "offset {offset}");
    }
}

#[test]
fn keys_as_tones_interrupt_a_prompt() {
    let mut pair = Pair::new();
    pair.play(7, &[0x90; 80_000], true);
    pair.press("5", Method::InBand, 60);
    pair.turns(10);
    assert_eq!((pair.b.keys.as_str(), &pair.b.ended[..]), ("5", &[(PlayId(7), false)][..]));
}

#[test]
fn a_press_that_comes_as_tone_and_event_is_one() {
    // A gateway that lets 60 ms of tone through before it notices, then says it with an event.
    let mut pair = Pair::new();
    pair.turns(5);
    let start = pair.a.stream.out.timestamp;
    pair.press("5", Method::InBand, 60);
    pair.turns(8);
    assert_eq!(pair.b.keys, "5");
    let (sequence, ssrc) = (pair.a.stream.out.sequence, pair.a.stream.out.ssrc);
    for (nth, duration) in [640u16, 800, 960].into_iter().enumerate() {
        let sequence = sequence.wrapping_add(nth as u16);
        let marker = nth == 0;
        let header = Header { marker, payload_type: 101, sequence, timestamp: start, ssrc };
        let mut event = header.bytes().to_vec();
        event.extend_from_slice(&[5, 10, duration.to_be_bytes()[0], duration.to_be_bytes()[1]]);
        pair.b.stream.receive(pair.now, A.into(), &event);
    }
    pair.b.settle();
    assert_eq!(pair.b.keys, "5");
    // From now on tones are echoes.
    pair.a.stream.out.sequence = sequence.wrapping_add(3);
    pair.press("6", Method::InBand, 60);
    pair.turns(10);
    assert_eq!(pair.b.keys, "5");
    pair.press("7", Method::Events, 60);
    pair.turns(10);
    assert_eq!(pair.b.keys, "57");
}
