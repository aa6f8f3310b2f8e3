//! `ringtill dtmf`: which keys are heard in a recording, or in RTP packets written down, by the
//! code that hears them on a call.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::clock;
use crate::media::ear::{Ear, Sound};
use crate::media::frame::{FRAME_MS, Frame, RATE, SAMPLES};
use crate::media::stream::PACKET_MAX;
use crate::media::{Command, Event, Setup, Source, Stream, codec};
use crate::rtp::packet::{HEADER_LEN, Header};
use crate::rtp::reorder::Unit;
use crate::sip::offer::{Codec, Direction, Law, Negotiated, Silence};
use crate::sip::profile::Latch;

#[cfg(test)]
mod tests;

/// Why a file could not be listened to, ready to print.
#[derive(Debug)]
pub enum Error {
    Unreadable(PathBuf, io::Error),
    /// What the file is, instead of a WAV with sound as the wire has it.
    NotWav(PathBuf, String),
    /// Line number, from 1, and what is wrong with it.
    NotPackets(PathBuf, usize, &'static str),
    Output(io::Error),
}

/// Prints `<key> <start_ms> <end_ms> <told_ms>` for each key in a recording, where `told_ms` is the
/// end of the 20 ms that told it and `end_ms` is `-` for a key that sounds to the end. `reference`
/// is what was sent meanwhile: its echo is removed.
pub fn hear(file: &Path, reference: Option<&Path>, out: &mut dyn Write) -> Result<(), Error> {
    let sound = read_wav(file)?;
    let reference = reference.map(read_wav).transpose()?;
    let text = keys_in(&sound, reference.as_deref());
    out.write_all(text.as_bytes()).map_err(Error::Output)
}

/// Prints `<key> <rtp_timestamp> - <told_ms>` for each key in packets, one a line:
/// `<arrival_ms> <sequence> <timestamp> <marker> <payload_type> <payload in hex>`. Type 101 is
/// telephone-event/8000, type 0 is PCMU; payload `-` stands for 20 ms of silence.
pub fn hear_packets(file: &Path, out: &mut dyn Write) -> Result<(), Error> {
    let text =
        std::fs::read_to_string(file).map_err(|error| Error::Unreadable(file.into(), error))?;
    let mut call = Call::new();
    let mut told = String::new();
    for (nth, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let packet =
            Received::parse(line).map_err(|what| Error::NotPackets(file.into(), nth + 1, what))?;
        call.pass(packet.at, &mut told);
        call.receive(&packet, &mut told);
    }
    call.pass(call.now + Duration::from_millis(200), &mut told);
    out.write_all(told.as_bytes()).map_err(Error::Output)
}

/// A key that was told, in samples from the start.
struct Told {
    key: char,
    start: u32,
    at: u32,
}

fn keys_in(sound: &[u8], reference: Option<&[u8]>) -> String {
    let mut ear = Ear::new(false);
    let mut text = String::new();
    let mut last: Option<Told> = None;
    for (nth, codes) in sound.chunks(SAMPLES).enumerate() {
        if let Some(reference) = reference {
            ear.sent(Law::Mu, &frame_at(reference, nth));
        }
        let start = (nth * SAMPLES) as u32;
        let at = start + codes.len() as u32;
        let unit = Unit::Audio { payload_type: 0, timestamp: start, payload: codes };
        let mut heard = None;
        ear.hear(unit, Law::Mu, true, None, |sound| {
            if let Sound::Tone { digit, start } = sound {
                heard = Some(Told { key: char::from(digit.expose()), start, at });
            }
        });
        if last.is_some() && (heard.is_some() || !ear.hears_key()) {
            write_key(&mut text, last.take(), ear.key_ended());
        }
        last = heard.or(last);
    }
    write_key(&mut text, last, None);
    text
}

fn write_key(text: &mut String, told: Option<Told>, end: Option<u32>) {
    let ms = |samples: u32| f64::from(samples) * 1000.0 / f64::from(RATE);
    let Some(Told { key, start, at }) = told else { return };
    let end = end.map_or("-".to_string(), |end| format!("{:.1}", ms(end)));
    let _ = writeln!(text, "{key} {:.1} {end} {:.1}", ms(start), ms(at));
}

fn frame_at(sound: &[u8], nth: usize) -> Frame {
    let mut frame = [codec::silence(Law::Mu); SAMPLES];
    let rest = sound.get(nth * SAMPLES..).unwrap_or_default();
    let len = rest.len().min(SAMPLES);
    frame[..len].copy_from_slice(&rest[..len]);
    frame
}

/// A call that gets packets written down, on their own clock.
struct Call {
    stream: Stream,
    began: Instant,
    now: Duration,
    /// When the stream's next turn is.
    turn: Duration,
    /// RTP timestamp of the last packet.
    timestamp: u32,
}

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4000);
const TURN: Duration = Duration::from_millis(FRAME_MS as u64);
/// A longer silence passes at once.
const PAUSE_MAX: Duration = Duration::from_secs(10);

impl Call {
    fn new() -> Call {
        let began = clock::now();
        let setup =
            Setup { ssrc: 1, sequence: 0, timestamp: 0, chance: 0, record: false, listen: false };
        let mut stream = Stream::new(setup, Latch::Strict, began);
        let agreed = Negotiated {
            remote: Some(PEER),
            codec: Codec::Pcmu,
            opus: None,
            silence: Silence::Packets,
            rtcp: None,
            events_out: Some((EVENTS, RATE)),
            events_in: Some((EVENTS, RATE)),
            ptime_ms: FRAME_MS as u8,
            direction: Direction::SendRecv,
            srtp: None,
        };
        stream.command(began, Command::Negotiated(agreed));
        Call { stream, began, now: Duration::ZERO, turn: Duration::ZERO, timestamp: 0 }
    }

    /// Takes the stream's turns up to this time.
    fn pass(&mut self, until: Duration, told: &mut String) {
        let mut packet = [0; PACKET_MAX];
        self.turn = self.turn.max(until.saturating_sub(PAUSE_MAX));
        while self.turn < until {
            self.now = self.turn;
            self.stream.transmit(self.began + self.now, &mut packet);
            self.tell(told);
            self.turn += TURN;
        }
        self.now = self.now.max(until);
    }

    fn receive(&mut self, packet: &Received, told: &mut String) {
        self.timestamp = packet.header.timestamp;
        let mut bytes = packet.header.bytes().to_vec();
        debug_assert_eq!(bytes.len(), HEADER_LEN);
        bytes.extend_from_slice(&packet.payload);
        self.stream.receive(self.began + self.now, PEER, &bytes);
        self.tell(told);
    }

    fn tell(&mut self, told: &mut String) {
        while let Some(event) = self.stream.poll() {
            if let Event::Key { digit, source: Source::Event | Source::Tone } = event {
                let (key, ms) = (char::from(digit.expose()), self.now.as_secs_f64() * 1000.0);
                let _ = writeln!(told, "{key} {} - {ms:.1}", self.timestamp);
            }
        }
    }
}

const EVENTS: u8 = 101;
/// No arrival is later than this: a day.
const ARRIVAL_MAX_MS: f64 = 86_400_000.0;
const PAYLOAD_MAX: usize = 480;

/// A line of the file.
struct Received {
    at: Duration,
    header: Header,
    payload: Vec<u8>,
}

impl Received {
    fn parse(line: &str) -> Result<Received, &'static str> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [arrival, sequence, timestamp, marker, payload_type, payload] = fields[..] else {
            return Err(
                "want `<arrival_ms> <sequence> <timestamp> <0 or 1> <payload_type> <hex or ->`",
            );
        };
        let at = arrival
            .parse::<f64>()
            .ok()
            .filter(|ms| (0.0..=ARRIVAL_MAX_MS).contains(ms))
            .ok_or("the arrival is no time in milliseconds within a day")?;
        let header = Header {
            marker: match marker {
                "0" => false,
                "1" => true,
                _ => return Err("the marker is neither 0 nor 1"),
            },
            payload_type: payload_type
                .parse()
                .ok()
                .filter(|kind| *kind < 128)
                .ok_or("the payload type is not within 0 to 127")?,
            sequence: sequence.parse().map_err(|_| "the sequence number has not 16 bits")?,
            timestamp: timestamp.parse().map_err(|_| "the timestamp has not 32 bits")?,
            ssrc: 1,
        };
        let payload = match payload {
            "-" => vec![codec::silence(Law::Mu); SAMPLES],
            hex => bytes(hex).ok_or("the payload is not hexadecimal, or longer than 60 ms")?,
        };
        Ok(Received { at: Duration::from_secs_f64(at / 1000.0), header, payload })
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    if hex.len() > 2 * PAYLOAD_MAX || !hex.len().is_multiple_of(2) {
        return None;
    }
    let digits: Option<Vec<u32>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    Some(digits?.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

/// The sound of a WAV file as it would be on the wire.
fn read_wav(path: &Path) -> Result<Vec<u8>, Error> {
    let file = std::fs::read(path).map_err(|error| Error::Unreadable(path.into(), error))?;
    let sound = wav_sound(&file).map_err(|what| Error::NotWav(path.into(), what))?;
    let encode = |pair: &[u8]| codec::encode(Law::Mu, i16::from_le_bytes([pair[0], pair[1]]));
    Ok(sound.chunks_exact(2).map(encode).collect())
}

/// The samples' bytes; what else the file is.
fn wav_sound(file: &[u8]) -> Result<&[u8], String> {
    let (b"RIFF", Some(b"WAVE")) = (file.get(..4).unwrap_or_default(), file.get(8..12)) else {
        return Err("not a WAV file".into());
    };
    let mut rest = &file[12..];
    let mut format = None;
    while let Some((head, body)) = rest.split_first_chunk::<8>() {
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        // A recorder that was killed leaves a length beyond the end, or none.
        let chunk = &body[..len.min(body.len())];
        match &head[..4] {
            b"fmt " => format = Some(check_format(chunk)?),
            b"data" if format.is_some() => return Ok(chunk),
            b"data" => return Err("WAV without a format before its sound".into()),
            _ => {}
        }
        // Chunks begin at even places.
        rest = body.get(len.saturating_add(len % 2)..).unwrap_or_default();
    }
    Err("WAV without sound".into())
}

/// Only what is on the wire: 8 kHz, 16 bit, mono.
fn check_format(chunk: &[u8]) -> Result<(), String> {
    const PCM: u16 = 1;
    /// The true format follows later in the chunk.
    const EXTENSIBLE: u16 = 0xfffe;
    let word = |at: usize| {
        let pair = chunk.get(at..at + 2).ok_or("WAV with a damaged header")?;
        Ok::<u16, String>(u16::from_le_bytes([pair[0], pair[1]]))
    };
    let (kind, channels, bits) = (word(0)?, word(2)?, word(14)?);
    let rate = u32::from(word(4)?) | u32::from(word(6)?) << 16;
    let kind = if kind == EXTENSIBLE { word(24)? } else { kind };
    if (kind, channels, rate, bits) == (PCM, 1, RATE, 16) {
        return Ok(());
    }
    let form = if kind == PCM { "PCM".to_string() } else { format!("format {kind}, not PCM") };
    Err(format!("{form}, {rate} Hz, {bits} bit, {channels} channels"))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreadable(path, error) => write!(f, "{}: {error}", path.display()),
            Error::NotWav(path, what) => write!(
                f,
                "{}: is {what}; give a WAV file with 8000 Hz, 16 bit, mono",
                path.display()
            ),
            Error::NotPackets(path, line, what) => {
                write!(f, "{}:{line}: {what}", path.display())
            }
            Error::Output(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Error {}
