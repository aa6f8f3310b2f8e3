//! What a call costs: streams alone, then streams on real sockets, in CPU time per frame.
//! `cargo bench --bench media [-- CALLS]`; figures of a busy machine are for comparison only.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ringtill::media::codec::Transcoder;
use ringtill::media::ear::Ear;
use ringtill::media::stream::PACKET_MAX;
use ringtill::media::{Clip, Command, Digit, Event, Method, PlayId, Setup, Stream};
use ringtill::rtp::packet::Header;
use ringtill::rtp::reorder::Unit;
use ringtill::server::media::{Folders, Media, OpenCall, Settings};
use ringtill::sip::offer::{
    Codec, Direction, Law, Negotiated, Opus, Silence, SrtpKeys, SrtpSeed, Suite,
};
use ringtill::sip::profile::Latch;
use tokio::sync::mpsc;

mod cpu;
#[cfg(feature = "opus")]
mod recovery;

use cpu::cpu_ns;

const STREAMS: usize = 200;
const TURNS: u32 = 250;
const TURN: Duration = Duration::from_millis(20);
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4000);

fn main() {
    println!("{STREAMS} streams, {TURNS} turns of 20 ms, one packet each way per turn:");
    alone("silence in, silence out", &[0xff; 8000], false);
    alone("voice in, prompt out", &voice(), true);
    alone("digits in, prompt out", &digits(), true);
    detector("silence", &[0xff; 8000], None);
    detector("voice", &voice(), None);
    detector("voice, our voice sent", &voice()[2000..], Some(&voice()));
    detector("digits", &digits(), None);
    encrypted();
    coded();
    #[cfg(feature = "opus")]
    recovery::measure(&voice());
    let canceller = size_of::<ringtill::media::echo::Canceller>();
    println!("  a stream is {} bytes, its echo canceller {canceller} more", size_of::<Stream>());
    // How many calls on sockets may be said: the thread's own cost is shared by them.
    let calls = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(STREAMS);
    on_sockets(calls & !1, Duration::from_secs(5));
}

/// Streams without sockets: what decoding, detection and playout cost.
fn alone(what: &str, sound: &[u8], prompt: bool) {
    let start = Instant::now();
    let mut streams: Vec<Stream> = (0..STREAMS).map(|_| stream(start, prompt)).collect();
    let mut packet = [0; PACKET_MAX];
    let mut incoming = [0; 172];
    let mut keys = 0;
    let before = cpu_ns();
    for turn in 0..TURNS {
        let now = start + TURN * turn;
        let at = (turn as usize * 160) % (sound.len() - 159);
        incoming[..12].copy_from_slice(&header(turn).bytes());
        incoming[12..].copy_from_slice(&sound[at..at + 160]);
        for stream in &mut streams {
            stream.receive(now, PEER, &incoming);
            stream.transmit(now, &mut packet);
            while let Some(event) = stream.poll() {
                keys += usize::from(matches!(event, Event::Key { .. }));
            }
        }
    }
    let frames = u64::from(TURNS) * STREAMS as u64;
    let ns = (cpu_ns() - before) / frames;
    let per_call = keys as f64 / STREAMS as f64;
    println!("  {what:<26} {ns:>6} ns per frame each way, {per_call} keys per call");
}

/// What looking for keys costs: a frame on average, and the dearest one, of several runs the best.
fn detector(what: &str, sound: &[u8], sent: Option<&[u8]>) {
    const RUNS: usize = 20;
    let mut best = vec![Duration::MAX; sound.len() / 160];
    for _ in 0..RUNS {
        let mut ear = Ear::new(false);
        for (nth, (best, payload)) in best.iter_mut().zip(sound.chunks_exact(160)).enumerate() {
            let frame = sent.and_then(|sent| sent[nth * 160..].first_chunk::<160>());
            let unit = Unit::Audio { payload_type: 0, timestamp: nth as u32 * 160, payload };
            let start = Instant::now();
            if let Some(frame) = frame {
                ear.sent(Law::Mu, frame);
            }
            ear.hear(unit, Law::Mu, true, None, |_| {});
            *best = start.elapsed().min(*best);
        }
    }
    let mean = best.iter().sum::<Duration>() / best.len() as u32;
    let most = best.iter().max().copied().unwrap_or_default();
    println!("  keys in {what:<22} {mean:>9.2?} per frame, at most {most:.0?}");
}

/// What the codecs cost besides G.711: a frame of 20 ms of a voice each way.
fn coded() {
    let agreed = [
        #[cfg(feature = "g722")]
        (Codec::G722, None),
        #[cfg(feature = "opus")]
        (Codec::Opus, Some(Opus::default())),
        #[cfg(feature = "opus")]
        (Codec::Opus, Some(Opus { recovers: true, ..Opus::default() })),
    ];
    for (codec, opus) in agreed {
        let mut coders: Vec<_> = (0..20).map(|_| Transcoder::of(codec, opus).unwrap()).collect();
        let sound = voice();
        let (mut encode_ns, mut decode_ns, mut frames) = (0, 0, 0);
        let (mut packets, mut bytes) = (vec![Vec::new(); coders.len()], 0);
        for frame in sound.chunks_exact(160).cycle().take(500) {
            let before = cpu_ns();
            for (coder, packet) in coders.iter_mut().zip(&mut packets) {
                packet.clear();
                packet.extend_from_slice(coder.encode(frame));
            }
            let between = cpu_ns();
            for (coder, packet) in coders.iter_mut().zip(&packets) {
                bytes += packet.len();
                coder.decode(packet).unwrap();
            }
            encode_ns += between - before;
            decode_ns += cpu_ns() - between;
            frames += coders.len() as u64;
        }
        let (encode, decode) = (encode_ns as f64 / 1e3, decode_ns as f64 / 1e3);
        let (encode, decode) = (encode / frames as f64, decode / frames as f64);
        let bits = bytes as u64 * 8 * 50 / frames / 1000;
        let copies = if opus.is_some_and(|opus| opus.recovers) { " with copies" } else { "" };
        println!(
            "  {codec:?}{copies}: {encode:.1} us to encode 20 ms, {decode:.1} us to decode, {bits} \
             kbit/s"
        );
    }
}

/// What SRTP adds to a stream, each suite next to the same without it. Streams in pairs: what one
/// sends the other receives.
fn encrypted() {
    let plain = pairs(None);
    for suite in Suite::ALL {
        let added = pairs(Some(suite)).saturating_sub(plain);
        // A frame each way 50 times a second, 1,000 calls, in hundredths of a core.
        let points = added as f64 * 50.0 * 1000.0 / 1e7;
        let name = suite.name();
        println!(
            "  {name:<26} {added:>6} ns more per frame each way, +{points:.1} % per 1000 calls"
        );
    }
}

/// CPU time in ns of a frame sent and one received.
fn pairs(suite: Option<Suite>) -> u64 {
    let start = Instant::now();
    let mut streams: Vec<Stream> =
        (0..STREAMS).map(|nth| secured(start, suite, nth % 2 == 0)).collect();
    let mut packet = [0; PACKET_MAX];
    let mut before = 0;
    for turn in 0..TURNS {
        let now = start + TURN * turn;
        for nth in 0..STREAMS {
            let len = streams[nth].transmit(now, &mut packet).unwrap();
            streams[nth ^ 1].receive(now, PEER, &packet[..len]);
            while streams[nth].poll().is_some() {}
        }
        // The first packets meet new keys.
        if turn == 0 {
            before = cpu_ns();
        }
    }
    assert!(streams.iter().all(|stream| stream.counters().received == u64::from(TURNS)));
    (cpu_ns() - before) / (u64::from(TURNS - 1) * STREAMS as u64)
}

fn secured(now: Instant, suite: Option<Suite>, first: bool) -> Stream {
    let mut stream = Stream::new(setup(), Latch::Strict, now);
    let key = |seed: u8, suite| SrtpSeed::new([seed; 32]).key(suite);
    let (ours, theirs) = if first { (1, 2) } else { (2, 1) };
    let keys = |suite| SrtpKeys { ours: key(ours, suite), theirs: key(theirs, suite) };
    let agreed = Negotiated { srtp: suite.map(keys), ..agreed(PEER) };
    stream.command(now, Command::Negotiated(agreed));
    stream.command(now, play(false));
    stream
}

/// Pairs of calls on loopback sockets, prompts playing both ways.
fn on_sockets(count: usize, time: Duration) {
    let settings = Settings {
        address: PEER.ip(),
        ports: 40_000..=49_999,
        threads: 1,
        recordings: Folders::default(),
    };
    let media = Media::start(settings).unwrap();
    let idle_kb = resident_kb();
    let mut calls = vec![];
    for nth in 0..count {
        let (events, inbox) = mpsc::channel(64);
        let call = OpenCall {
            name: format!("bench-{nth}"),
            setup: setup(),
            latch: Latch::Strict,
            networks: vec![],
            events,
            inlet: None,
        };
        calls.push((media.open(call).unwrap(), inbox));
    }
    let ports: Vec<u16> = calls.iter().map(|(session, _)| session.port()).collect();
    for (nth, (session, _)) in calls.iter().enumerate() {
        session.command(negotiated(SocketAddr::new(PEER.ip(), ports[nth ^ 1])));
        session.command(play(nth % 2 == 1));
    }
    std::thread::sleep(Duration::from_secs(1));
    let (before, start) = (cpu_ns(), Instant::now());
    std::thread::sleep(time);
    let (cpu, wall) = ((cpu_ns() - before) as f64, start.elapsed().as_nanos() as f64);
    let share = 100.0 * cpu / wall;
    let late = media.lateness();
    println!("{count} calls on sockets for {time:?}, tones listened for, prompts playing:");
    println!("  {share:.1} % of a core, {:.1} % per 1000 calls", share * 1000.0 / count as f64);
    // The most there was: all calls have looked for an echo.
    let memory = (resident_kb() - idle_kb) as f64 / count as f64;
    println!("  {memory:.1} KB of memory a call");
    println!("  turns late by p99 {:?}, max {:?}", late.p99, late.max);
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn setup() -> Setup {
    Setup { ssrc: 1, sequence: 0, timestamp: 0, chance: 1, record: false, listen: false }
}

fn negotiated(remote: SocketAddr) -> Command {
    Command::Negotiated(agreed(remote))
}

fn agreed(remote: SocketAddr) -> Negotiated {
    Negotiated {
        remote: Some(remote),
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

/// One of two voices, so that who sends one and hears the other looks for an echo.
fn play(other: bool) -> Command {
    static VOICES: LazyLock<[Arc<[u8]>; 2]> = LazyLock::new(|| {
        let one = voice().repeat(100);
        let other: Vec<u8> = one.iter().rev().copied().collect();
        [one.into(), other.into()]
    });
    let sound = &VOICES[usize::from(other)];
    let clips = vec![Clip::new(Arc::clone(sound), Arc::clone(sound))];
    Command::Play { id: PlayId(1), clips, barge_in: false }
}

fn stream(now: Instant, prompt: bool) -> Stream {
    let mut stream = Stream::new(setup(), Latch::Strict, now);
    stream.command(now, negotiated(PEER));
    if prompt {
        stream.command(now, play(false));
    }
    stream
}

fn header(turn: u32) -> Header {
    let (sequence, timestamp) = (turn as u16, turn.wrapping_mul(160));
    Header { marker: turn == 0, payload_type: 0, sequence, timestamp, ssrc: 9 }
}

/// A second and a half of something like voice: harmonics of a falling pitch under two formants
/// that wander.
fn voice() -> Vec<u8> {
    let mut phase = 0.0f32;
    (0..12_000)
        .map(|n| {
            let t = n as f32 / 12_000.0;
            phase += std::f32::consts::TAU * (160.0 - 60.0 * t) / 8000.0;
            let syllable = (t * 9.0 * std::f32::consts::PI).sin().abs();
            let sum: f32 = (1..20)
                .map(|h| {
                    let hz = h as f32 * 130.0;
                    let formant = |at: f32| 1.0 / (1.0 + ((hz - at) / 90.0).powi(2));
                    let (low, high) =
                        (500.0 + 250.0 * (t * 31.0).sin(), 1500.0 + 500.0 * (t * 23.0).sin());
                    (formant(low) + 0.5 * formant(high)) * (phase * h as f32).sin()
                })
                .sum();
            ringtill::media::codec::encode(Law::Mu, (sum * syllable * 6000.0) as i16)
        })
        .collect()
}

/// Sixteen digits of 80 ms as our own keypad makes them.
fn digits() -> Vec<u8> {
    let now = Instant::now();
    let mut stream = stream(now, false);
    let keys = "4111111111111111".chars().filter_map(Digit::from_key).collect();
    stream.command(now, Command::Press { keys, method: Method::InBand, on_ms: 80, off_ms: 80 });
    let mut sound = vec![];
    for turn in 0..130 {
        let mut packet = [0; PACKET_MAX];
        let len = stream.transmit(now + TURN * turn, &mut packet).unwrap();
        sound.extend_from_slice(&packet[12..len]);
    }
    sound
}
