//! What reading and writing one SIP message costs, in CPU time (user and system).
//! `cargo bench --bench sip`; figures of a busy machine are for comparison only.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringtill::sip::model::{Draft, Message, Request};
use ringtill::sip::wire::{self, Framed, Limits};

mod cpu;

use cpu::cpu_ns;

/// As a carrier's session border controller sends it: 1.2 kB with SDP.
const INVITE: &str = "INVITE sip:+13175550199@203.0.113.10:5060;user=phone SIP/2.0\r\n\
    Via: SIP/2.0/UDP 198.51.100.20:5060;branch=z9hG4bK0cB7a6e41f55d0d9a31\r\n\
    Via: SIP/2.0/UDP 10.12.0.7:5060;branch=z9hG4bK77f1.2;received=10.12.0.7;rport=5060\r\n\
    Record-Route: <sip:198.51.100.20:5060;lr;ftag=gK0c9a4b21>\r\n\
    From: \"WIRELESS CALLER\" <sip:+13175550123@198.51.100.20;user=phone>;tag=gK0c9a4b21\r\n\
    To: <sip:+13175550199@203.0.113.10:5060;user=phone>\r\n\
    Call-ID: 335605254_123706183@198.51.100.20\r\n\
    CSeq: 58213 INVITE\r\n\
    Max-Forwards: 67\r\n\
    Allow: INVITE, ACK, CANCEL, BYE, REGISTER, REFER, INFO, SUBSCRIBE, NOTIFY, PRACK, UPDATE\r\n\
    Accept: application/sdp, application/isup, application/dtmf-relay, multipart/mixed\r\n\
    Contact: \"WIRELESS CALLER\" <sip:+13175550123@198.51.100.20:5060>\r\n\
    P-Asserted-Identity: \"WIRELESS CALLER\" <sip:+13175550123@198.51.100.20:5060>\r\n\
    Supported: timer, 100rel, replaces\r\n\
    Session-Expires: 1800\r\n\
    Min-SE: 90\r\n\
    Content-Disposition: session;handling=required\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 308\r\n\r\n\
    v=0\r\no=Sonus_UAC 471983 826771 IN IP4 198.51.100.20\r\ns=SIP Media Capabilities\r\n\
    c=IN IP4 198.51.100.21\r\nt=0 0\r\nm=audio 17428 RTP/AVP 0 8 18 101\r\n\
    a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:18 G729/8000\r\na=fmtp:18 annexb=no\r\n\
    a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\na=ptime:20\r\n";

fn main() {
    let limits = Limits::default();
    let invite = request(INVITE, &limits);
    let ns = per_unit(200_000, |_| {
        black_box(wire::parse(black_box(INVITE.as_bytes()), &limits));
    });
    println!("parse: {:.2} us an INVITE of {} bytes (goal 10)", ns / 1e3, INVITE.len());
    let mix = mix(20_000);
    let ns = per_unit(5 * mix.len(), |n| {
        black_box(wire::parse(black_box(&mix[n % mix.len()]), &limits));
    });
    let rate = 1e9 / ns;
    println!("parse: {:.2} us a torture message or mutant, {rate:.0}/s (bar 24000)", ns / 1e3);
    let source: SocketAddr = "198.51.100.20:5060".parse().unwrap();
    let sdp = INVITE.split_once("\r\n\r\n").unwrap().1.as_bytes();
    let ns = per_unit(200_000, |_| {
        let answer = Draft::response(&invite, 200, source, "tag-of-ours")
            .with("Contact", "<sip:203.0.113.10:5060>")
            .with("Server", "Ringtill/bench")
            .with_body("application/sdp", sdp);
        black_box(answer.encode());
    });
    println!("write: {:.2} us a 200 with SDP", ns / 1e3);
}

fn request(text: &str, limits: &Limits) -> Request {
    match wire::parse(text.as_bytes(), limits) {
        Framed::Message(Message::Request(request)) => request,
        other => panic!("{other:?}"),
    }
}

/// CPU nanoseconds for one call of `work`, which is told its number.
fn per_unit(units: usize, mut work: impl FnMut(usize)) -> f64 {
    let before = cpu_ns();
    (0..units).for_each(&mut work);
    (cpu_ns() - before) as f64 / units as f64
}

/// Half of them torture messages as they are, half with one to five bytes changed.
fn mix(count: usize) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/sip");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let mut rng = StdRng::seed_from_u64(1);
    let one = |n: usize| {
        let mut bytes = seeds[n % seeds.len()].clone();
        let changes = if n.is_multiple_of(2) { 0 } else { rng.random_range(1..=5) };
        for _ in 0..changes {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        bytes
    };
    (0..count).map(one).collect()
}
