//! The callers' sound: one thread that sends a packet for each call every 20 ms, keys included, and
//! notes when the kernel got what the server sent.

use std::collections::HashMap;
use std::io::IoSliceMut;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use ringtill::media::Digit;
use ringtill::media::codec;
use ringtill::media::digit::{HIGH_HZ, LOW_HZ};
use ringtill::rtp::packet::Header;
use ringtill::sip::offer::Law;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

const KEYS: usize = 16;
/// A key every 400 ms, 100 ms long, in turns of 20 ms.
const PERIOD: usize = 20;
const ON: usize = 5;
/// What those who speak say, in a synthetic voice.
pub const CARD: &str = "4111111111111111";
const VOICE: &[u8] = include_bytes!("../../src/server/demo/voice/card.flac");
const SLOTS: usize = 20;
const SLOT: Duration = Duration::from_millis(1);

/// How callers key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keying {
    Tones,
    Events,
    /// Each key by both ways at once.
    Both,
}

impl Keying {
    pub fn parse(text: &str) -> Option<Keying> {
        match text {
            "tones" => Some(Keying::Tones),
            "events" => Some(Keying::Events),
            "both" => Some(Keying::Both),
            _ => None,
        }
    }
}

/// Microseconds, counted in steps of 10 up to a second.
pub struct Histogram {
    counts: Vec<u64>,
    max_us: u64,
}

impl Histogram {
    fn new() -> Histogram {
        Histogram { counts: vec![0; 100_000], max_us: 0 }
    }

    fn add(&mut self, us: u64) {
        let last = self.counts.len() - 1;
        self.counts[(us as usize / 10).min(last)] += 1;
        self.max_us = self.max_us.max(us);
    }

    pub fn quantile_ms(&self, share: f64) -> f64 {
        let mut left = (self.counts.iter().sum::<u64>() as f64 * share) as u64;
        let at = self.counts.iter().position(|&count| {
            let here = left < count;
            left = left.saturating_sub(count);
            here
        });
        at.unwrap_or(0) as f64 / 100.0
    }

    pub fn max_ms(&self) -> f64 {
        self.max_us as f64 / 1e3
    }
}

pub struct Tally {
    /// By how much the time between two packets differs from 20 ms.
    pub pacing: Histogram,
    /// How late we were ourselves.
    pub late: Histogram,
    pub received: u64,
    pub missing: u64,
}

/// What the callers did.
pub struct Keyed {
    pub keys: HashMap<usize, String>,
    /// When those who spoke had finished, Unix milliseconds.
    pub ended_ms: HashMap<usize, u64>,
    pub tally: Tally,
}

pub struct Caller {
    nth: usize,
    socket: UdpSocket,
    keys: [Digit; KEYS],
    sequence: u16,
    /// Turns since everybody may key, and after how many of them this one does.
    turn: Option<usize>,
    delay: usize,
    timestamp: u32,
    last: Option<(u16, u64)>,
    /// Says what others key.
    speaks: bool,
    ended_ms: Option<u64>,
}

/// A receiver whose packets bear the kernel's time.
pub fn socket(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    setsockopt(&socket, ReceiveTimestampns, &true).unwrap();
    socket
}

impl Caller {
    pub fn new(nth: usize, socket: UdpSocket, speaks: bool) -> Caller {
        // Different keys for each, the same one twice in a row among them.
        let key = |at: usize| {
            let digit = (nth * 7 + at * at * 3 + at / 2) % 10;
            Digit::from_key(char::from(b'0' + digit as u8)).unwrap()
        };
        let keys = std::array::from_fn(key);
        let sequence = nth as u16;
        let (turn, delay, timestamp, last, ended_ms) = (None, 0, 0, None, None);
        Caller { nth, socket, keys, sequence, turn, delay, timestamp, last, speaks, ended_ms }
    }

    fn send(&mut self, sounds: &Sounds, keying: Keying, begun: bool) {
        if begun && self.turn.is_none() {
            // Not all at once: people do not key in step.
            self.turn = Some(0);
            self.delay = self.nth % PERIOD;
        }
        let keying_for = self.turn.and_then(|turn| turn.checked_sub(self.delay));
        if self.speaks {
            return self.speak(sounds, keying_for);
        }
        let place = keying_for.map(|turn| (turn / PERIOD, turn % PERIOD));
        let key = place.and_then(|(nth, at)| Some((self.keys.get(nth)?, at)));
        let mut audio = &sounds.noise[usize::from(self.sequence) % sounds.noise.len()];
        let mut event = None;
        if let Some((digit, at)) = key {
            if keying != Keying::Events && at < ON {
                audio = &sounds.keys[usize::from(digit.event())][at];
            }
            if keying != Keying::Tones && at <= ON {
                event = Some((*digit, at));
            }
        }
        if let Some((digit, at)) = event {
            let end = at == ON;
            let duration = (at.min(ON - 1) as u16 + 1) * 160;
            let payload =
                [digit.event(), 10 | u8::from(end) << 7, (duration >> 8) as u8, duration as u8];
            let start = self.timestamp.wrapping_sub(160 * at as u32);
            for _ in 0..if end { 3 } else { 1 } {
                self.packet(101, at == 0, start, &payload);
            }
        }
        if event.is_none_or(|(_, at)| at == ON) || keying == Keying::Both {
            self.packet(0, false, self.timestamp, audio);
        }
        self.timestamp = self.timestamp.wrapping_add(160);
        self.turn = self.turn.map(|turn| turn + 1);
    }

    fn speak(&mut self, sounds: &Sounds, turn: Option<usize>) {
        let noise = &sounds.noise[usize::from(self.sequence) % sounds.noise.len()];
        let voice = turn.and_then(|turn| sounds.voice.get(turn));
        self.packet(0, false, self.timestamp, voice.unwrap_or(noise));
        if turn == Some(sounds.voice.len() - 1) {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            self.ended_ms = Some(since.as_millis() as u64);
        }
        self.timestamp = self.timestamp.wrapping_add(160);
        self.turn = self.turn.map(|turn| turn + 1);
    }

    fn packet(&mut self, payload_type: u8, marker: bool, timestamp: u32, payload: &[u8]) {
        let (sequence, ssrc) = (self.sequence, self.nth as u32 + 1);
        let header = Header { marker, payload_type, sequence, timestamp, ssrc }.bytes();
        let mut packet = [0; 172];
        packet[..12].copy_from_slice(&header);
        packet[12..12 + payload.len()].copy_from_slice(payload);
        let _ = self.socket.send(&packet[..12 + payload.len()]);
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn receive(&mut self, tally: &mut Tally, stamps: &mut [u8], counts: bool) {
        let mut packet = [0; 512];
        loop {
            let mut parts = [IoSliceMut::new(&mut packet)];
            let fd = self.socket.as_raw_fd();
            let Ok(message) = recvmsg::<()>(fd, &mut parts, Some(stamps), MsgFlags::MSG_DONTWAIT)
            else {
                return;
            };
            let stamp = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|one| match one {
                    ControlMessageOwned::ScmTimestampns(at) => Some(nanoseconds(at)),
                    _ => None,
                })
            });
            let len = message.bytes;
            let (Some(at), true) = (stamp, len > 100) else { continue };
            let sequence = u16::from_be_bytes([packet[2], packet[3]]);
            if let Some((last, before)) = self.last.replace((sequence, at)) {
                let step = sequence.wrapping_sub(last);
                if step == 1 && counts {
                    tally.pacing.add((at - before).abs_diff(20_000_000) / 1_000);
                }
                tally.missing += u64::from(step.wrapping_sub(1).min(1_000)) * u64::from(counts);
            }
            tally.received += u64::from(counts);
        }
    }
}

fn nanoseconds(at: TimeSpec) -> u64 {
    at.tv_sec() as u64 * 1_000_000_000 + at.tv_nsec() as u64
}

/// Nobody keys yet; everybody does, and is measured; it is over.
const WAITING: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;

/// The thread.
pub struct Callers {
    new: Sender<Caller>,
    stage: Arc<AtomicU8>,
    thread: JoinHandle<Keyed>,
}

impl Callers {
    pub fn start(keying: Keying) -> Callers {
        let (new, inbox) = channel();
        let stage = Arc::new(AtomicU8::new(WAITING));
        let told = stage.clone();
        let thread = std::thread::spawn(move || serve(&inbox, &told, keying));
        Callers { new, stage, thread }
    }

    pub fn add(&self, caller: Caller) {
        self.new.send(caller).unwrap();
    }

    pub fn begin(&self) {
        self.stage.store(MEASURED, Ordering::Relaxed);
    }

    pub fn finish(self) -> Keyed {
        self.stage.store(OVER, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// As the server's own media thread has it; without the right to it both go without.
pub fn be_prompt() {
    let _ = ThreadPriorityValue::try_from(10u8).map(|priority| {
        set_thread_priority_and_policy(
            thread_native_id(),
            ThreadPriority::Crossplatform(priority),
            ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
        )
    });
}

fn serve(inbox: &Receiver<Caller>, stage: &AtomicU8, keying: Keying) -> Keyed {
    be_prompt();
    let sounds = Sounds::new();
    let mut slots: [Vec<Caller>; SLOTS] = std::array::from_fn(|_| Vec::new());
    let (pacing, late) = (Histogram::new(), Histogram::new());
    let mut tally = Tally { pacing, late, received: 0, missing: 0 };
    let mut stamps = nix::cmsg_space!(TimeSpec);
    let (mut due, mut slot) = (Instant::now(), 0);
    loop {
        let stage = stage.load(Ordering::Relaxed);
        if stage == OVER {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let counts = stage == MEASURED;
        if counts {
            tally.late.add(due.elapsed().as_micros() as u64);
        }
        for caller in inbox.try_iter() {
            let emptiest = (0..SLOTS).min_by_key(|&slot| slots[slot].len()).unwrap();
            slots[emptiest].push(caller);
        }
        for caller in &mut slots[slot] {
            caller.send(&sounds, keying, counts);
            caller.receive(&mut tally, &mut stamps, counts);
        }
        due += SLOT;
        slot = (slot + 1) % SLOTS;
    }
    let text = |keys: &[Digit]| keys.iter().map(|key| char::from(key.expose())).collect();
    let all = || slots.iter().flatten();
    let keys = all().filter(|caller| !caller.speaks);
    let keys = keys.map(|caller| (caller.nth, text(&caller.keys))).collect();
    let spoke = all().filter(|caller| caller.speaks);
    let ended_ms = spoke.map(|caller| (caller.nth, caller.ended_ms.unwrap_or(u64::MAX))).collect();
    Keyed { keys, ended_ms, tally }
}

/// What callers send, in mu-law.
struct Sounds {
    noise: Vec<[u8; 160]>,
    /// By event code, then turn.
    keys: Vec<[[u8; 160]; ON]>,
    /// A card number, to the end of its last word.
    voice: Vec<[u8; 160]>,
}

impl Sounds {
    fn new() -> Sounds {
        let mut state = 1u32;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as f32 / 65_536.0 - 0.5
        };
        let mut tone = |digit: Digit| {
            let (row, column) = digit.place();
            std::array::from_fn(|turn| {
                std::array::from_fn(|at| {
                    let time = (turn * 160 + at) as f32 * std::f32::consts::TAU / 8_000.0;
                    let low = 6_500.0 * (LOW_HZ[row] * time).sin();
                    let high = 7_300.0 * (HIGH_HZ[column] * time).sin();
                    codec::encode(Law::Mu, (low + high + 200.0 * noise()) as i16)
                })
            })
        };
        let keys = (0..16).map(|code| tone(Digit::from_event(code).unwrap())).collect();
        let mut quiet =
            || std::array::from_fn(|_| codec::encode(Law::Mu, (200.0 * noise()) as i16));
        Sounds { noise: (0..50).map(|_| quiet()).collect(), keys, voice: voice() }
    }
}

fn voice() -> Vec<[u8; 160]> {
    let clip = ringtill::server::dial::sound(VOICE.into()).unwrap();
    let mut frames = clip.mu.as_chunks::<160>().0.to_vec();
    let loudest = |frame: &[u8; 160]| {
        frame.iter().map(|&code| codec::decode(Law::Mu, code).unsigned_abs()).max().unwrap()
    };
    let end = frames.iter().rposition(|frame| loudest(frame) > 300).unwrap();
    frames.truncate(end + 1);
    frames
}

/// A recording of this length to play: something between a hum and a voice.
pub fn wav(ms: usize) -> Vec<u8> {
    let samples = (0..ms * 8).map(|at| {
        let time = at as f32 / 8_000.0;
        let syllable = (time * 4.0 * std::f32::consts::TAU).sin().max(0.0);
        let voice: f32 =
            (1..6).map(|n| (time * 150.0 * n as f32 * std::f32::consts::TAU).sin()).sum();
        (voice * syllable * 2_000.0) as i16
    });
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let mut wav = Vec::from(*b"RIFF");
    wav.extend_from_slice(&(36 + data.len() as u32).to_le_bytes());
    wav.extend_from_slice(
        b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data",
    );
    wav.extend_from_slice(&(data.len() as u32).to_le_bytes());
    wav.extend(data);
    wav
}
