//! Messages in the shapes of RFC 4475, given to a user agent: valid ones are understood, broken
//! ones get the answer they deserve, and no mutation of either makes anything panic.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringtill::sip::agent::Settings;
use ringtill::sip::wire::{self, Framed, Limits};
use ringtill::sip::{Agent, Command, Event, Input, Invitation, Output, model, offer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// A call is offered, with SDP.
    Call,
    /// A request is answered with this final status and nothing else.
    Status(u16),
    /// A well-formed response; we wait for none, so nothing happens.
    Response(u16),
    /// No message: counted and dropped without an answer.
    Dropped,
}

use Expect::{Call, Dropped, Response, Status};

macro_rules! vectors {
    ($($name:literal => $expect:expr,)*) => {
        &[$(($name, include_bytes!(concat!("vectors/sip/", $name, ".dat")), $expect)),*]
    };
}

/// The cases of RFC 4475, section by section, each in our own bytes.
struct Section {
    title: &'static str,
    vectors: &'static [(&'static str, &'static [u8], Expect)],
}

#[rustfmt::skip]
const VALID: Section = Section { title: "3.1.1 valid", vectors: vectors! {
    "wsinv" => Call,         // folding, compact forms and white space everywhere
    "intmeth" => Status(501), // every character a method, a URI and a quoted string may hold
    "esc01" => Call,         // escapes in URIs
    "escnull" => Status(405), // escaped NULs; we are no registrar
    "esc02" => Status(501),  // escapes where none exist: a method of its own
    "lwsdisp" => Status(200), // no space between name and <
    "longreq" => Call,       // long values, 34 Vias, RFC 2543 branch
    "dblreq" => Status(405), // a second message behind Content-Length: 0 is no message
    "semiuri" => Status(200), // semicolon in the user part
    "transports" => Status(200), // transports we do not have, below the top Via
    "mpart01" => Call,       // SDP in multipart, binary beside it
    "unreason" => Response(200), // UTF-8 in the reason phrase
    "noreason" => Response(100), // no reason phrase
}};

#[rustfmt::skip]
const INVALID: Section = Section { title: "3.1.2 invalid", vectors: vectors! {
    "badinv01" => Status(400), // empty parameters and values in Via
    "clerr" => Status(400),  // Content-Length beyond the datagram
    "ncl" => Status(400),    // negative Content-Length
    "scalar02" => Status(400), // CSeq beyond 2^31
    "scalarlg" => Dropped,   // CSeq beyond 64 bits in a response
    "quotbal" => Status(400), // open quote
    "ltgtruri" => Status(400), // brackets around the Request-URI
    "lwsruri" => Status(400), // space in the Request-URI
    "lwsstart" => Status(400), // two spaces in the start line
    "trws" => Status(400),   // spaces after it
    "escruri" => Status(400), // headers in the Request-URI
    "baddate" => Call,       // a time zone other than GMT
    "regbadct" => Status(400), // headers in a Contact without brackets
    "badaspec" => Status(200), // spaces within the brackets
    "baddn" => Status(400),  // comma in an unquoted name
    "badvers" => Status(505),
    "mismatch01" => Status(400), // CSeq of another method
    "mismatch02" => Status(400),
    "bigcode" => Dropped,    // status code beyond 16 bits
}};

#[rustfmt::skip]
const OTHER: Section = Section { title: "3.2 to 3.4 well-formed, but", vectors: vectors! {
    "badbranch" => Status(200), // the magic cookie alone is no branch
    "insuf" => Status(400),  // no To, From, Call-ID
    "unkscm" => Status(416), // a scheme nobody knows
    "novelsc" => Status(416), // a scheme of something else
    "unksm2" => Status(405), // To, From and Contact of other schemes: we are no registrar
    "bext01" => Status(420), // Require of unknown extensions
    "invut" => Status(415),  // body of an unknown type
    "regaut01" => Status(405), // credentials of a scheme nobody knows
    "multi01" => Status(400), // single headers repeated
    "mcl01" => Status(400),  // two Content-Lengths
    "bcast" => Response(200), // second Via: not our response
    "zeromf" => Status(483), // no hop left
    "cparam01" => Status(405), // unknown parameter of a Contact
    "cparam02" => Status(405), // unknown parameter of its URI
    "regescrt" => Status(405), // headers in a Contact with brackets
    "sdp01" => Call,         // accepts no SDP: its offer is what we answer
    "inv2543" => Call,       // RFC 2543: no tag, no branch, no Contact, no Content-Length
}};

const SECTIONS: [Section; 3] = [VALID, INVALID, OTHER];

fn vectors() -> impl Iterator<Item = (&'static str, &'static [u8], Expect)> {
    SECTIONS.into_iter().flat_map(|section| section.vectors.iter().copied())
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn agent(calls_max: usize) -> Agent {
    let contact = address("198.51.100.1:5060");
    Agent::new(Settings::new(contact, "Ringtill/test", calls_max), [1; 32])
}

fn datagram(bytes: &[u8]) -> Input {
    Input::datagram(address("192.0.2.15:5060"), Bytes::copy_from_slice(bytes))
}

#[allow(clippy::disallowed_methods)]
fn start() -> Instant {
    Instant::now()
}

/// Final statuses sent, and calls offered.
fn outcome(agent: &mut Agent, now: Instant, bytes: &[u8]) -> (Vec<u16>, Vec<Invitation>) {
    agent.handle(now, datagram(bytes));
    let (mut statuses, mut calls) = (Vec::new(), Vec::new());
    while let Some(output) = agent.poll() {
        match output {
            Output::Transmit { bytes, .. } => {
                // Read by hand: the refusal of a broken request echoes what is broken.
                let line = bytes.split(|b| *b == b'\r').next().unwrap_or_default();
                let line = std::str::from_utf8(line).expect("a status line");
                let status = line.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3));
                let status: u16 = status.and_then(|s| s.parse().ok()).expect("a response");
                statuses.extend(Some(status).filter(|status| *status >= 200));
            }
            Output::Event(Event::Offered { invitation, .. }) => calls.push(*invitation),
            Output::Event(_)
            | Output::Intrusion(_)
            | Output::Registered { .. }
            | Output::Reachable { .. } => {
                panic!("an event out of nothing")
            }
        }
    }
    (statuses, calls)
}

fn check(name: &str, bytes: &[u8], expect: Expect, sdp: &[u8]) {
    let mut agent = agent(4);
    let (statuses, calls) = outcome(&mut agent, start(), bytes);
    match expect {
        Call => {
            assert_eq!((statuses.len(), calls.len()), (0, 1), "{name}: {statuses:?}");
            assert!(calls[0].offer.as_deref().unwrap_or_default().starts_with(sdp), "{name}");
        }
        Status(status) => assert_eq!((statuses, calls.len()), (vec![status], 0), "{name}"),
        Response(status) => {
            assert_eq!((statuses.len(), calls.len()), (0, 0), "{name}");
            assert_eq!(agent.counters().stray, 1, "{name}");
            match wire::parse(bytes, &Limits::default()) {
                Framed::Message(model::Message::Response(r)) => assert_eq!(r.status, status),
                other => panic!("{name}: {other:?}"),
            }
        }
        Dropped => {
            assert_eq!((statuses.len(), calls.len()), (0, 0), "{name}");
            assert_eq!(agent.counters().malformed, 1, "{name}");
        }
    }
}

/// Of the 19 invalid ones 17 are refused. Two are not, as RFC 4475 leaves it to us: `baddate`, for
/// we do not act on Date, and `badaspec`, for spaces inside the brackets leave no doubt about
/// what is meant, and a caller is worth more than the space.
#[test]
fn each_message_gets_what_it_deserves() {
    for section in SECTIONS {
        for (name, bytes, expect) in section.vectors {
            check(name, bytes, *expect, b"v=0\r\no=payer ");
        }
    }
    let refused = |(.., expect): &&(_, _, Expect)| match expect {
        Status(status) => *status >= 400,
        Dropped => true,
        Call | Response(_) => false,
    };
    let counts = SECTIONS.map(|section| section.vectors.len());
    assert_eq!(counts, [13, 19, 17], "{:?}", SECTIONS.map(|section| section.title));
    assert_eq!(INVALID.vectors.iter().filter(refused).count(), 17);
}

/// The messages of the RFC themselves, where they lie beside the repository.
#[test]
fn the_originals_get_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/sip-torture");
    if !folder.is_dir() {
        return eprintln!("skipped: {} is not there", folder.display());
    }
    for (name, _, expect) in vectors() {
        let expect = match name {
            "mpart01" => Status(405), // ours is a call; theirs is an instant message
            "wsinv" => Status(481),   // theirs has a tag in To
            _ => expect,
        };
        let bytes = fs::read(folder.join(name).with_extension("dat")).expect(name);
        check(name, &bytes, expect, b"v=0\r\no=mhandley ");
    }
}

/// An INVITE with `headers` after the start line, and `rest` after these.
fn invite(headers: &str, rest: &[u8]) -> Vec<u8> {
    let head = format!("INVITE sip:pay@h SIP/2.0\r\n{headers}");
    [head.as_bytes(), rest].concat()
}

const PLAIN: &str = "Via: SIP/2.0/UDP 192.0.2.15;branch=z9hG4bKx\r\nFrom: <sip:a@h>;tag=1\r\n\
    To: <sip:pay@h>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n\
    Contact: <sip:a@h>\r\n";
const SDP: &[u8] = b"Content-Type: application/sdp\r\n\r\nv=0\r\no=payer 1 1 IN IP4 192.0.2.4\r\n";

#[test]
fn what_peers_send_is_understood() {
    let compact = PLAIN.replace("Via:", "v :").replace("From:", "f:").replace("To:", "T\t:");
    let compact = compact.replace("Call-ID:", "i:\r\n  ").replace("Contact: ", "m:\r\n\t");
    let call = |name: &str, bytes: &[u8]| check(name, bytes, Call, b"v=0\r\no=payer ");
    call("compact and folded", &invite(&compact, SDP));
    call("leading line breaks", &[b"\r\n\r\n", &invite(PLAIN, SDP)[..]].concat());
    let bare = invite(PLAIN, b"").replace_all(b"\r\n", b"\n");
    call("bare line feeds", &[&bare, SDP].concat());
    let utf8 = PLAIN.replace("From: <", "From: \"J\u{fc}rgen \u{420}\u{443}\" <");
    call("UTF-8 name", &invite(&utf8, SDP));
    let latin1 =
        invite(&PLAIN.replace("From: <", "From: \"J?rgen\" <"), SDP).replace_all(b"?", b"\xfc");
    call("Latin-1 name", &latin1);
    let invitation = outcome(&mut agent(4), start(), &latin1).1.pop().unwrap();
    let from = model::NameAddr::parse(header(&invitation, "From")).unwrap();
    assert_eq!(from.display.as_deref(), Some("J\u{fc}rgen"));
    let mut largest = invite(PLAIN, SDP);
    largest.resize(65_507, b' ');
    call("the largest datagram", &largest);
    let invitation = outcome(&mut agent(4), start(), &largest).1.pop().unwrap();
    assert!(invitation.offer.unwrap().len() > 65_000, "without Content-Length all is body");
}

trait ReplaceAll {
    fn replace_all(&self, from: &[u8], to: &[u8]) -> Vec<u8>;
}

impl ReplaceAll for Vec<u8> {
    fn replace_all(&self, from: &[u8], to: &[u8]) -> Vec<u8> {
        let (mut out, mut rest) = (Vec::new(), &self[..]);
        while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(to);
            rest = &rest[at + from.len()..];
        }
        [&out[..], rest].concat()
    }
}

#[test]
fn what_is_malformed_is_told_so_if_it_can_be() {
    let odd = |from: &str, to: &str| {
        let bytes = invite(&PLAIN.replace(from, to), SDP);
        assert_ne!(bytes, invite(PLAIN, SDP), "{from} is not there");
        bytes
    };
    for (from, to) in [
        ("CSeq: 1 INVITE", "CSeq: one INVITE"),
        ("CSeq: 1 INVITE", "CSeq: 1"),
        ("From: <sip:a@h>", "From: <sip:a@h"),
        ("To: <sip:pay@h>", "To: pay"),
        ("To: <sip:pay@h>", "Two: <sip:pay@h>"),
        ("Call-ID: x", "Call-ID:"),
        ("Max-Forwards: 70", "Max-Forwards: -1"),
        ("Contact: <sip:a@h>", "Contact: <sip:a h>"),
        ("Contact: <", "Con tact: <"),
        ("192.0.2.15;", "192.0.2.15:99999;"),
    ] {
        check(to, &odd(from, to), Status(400), b"");
    }
    check("no Via", &odd("Via: ", "Ia: "), Dropped, b"");
    let ack = PLAIN.replace("1 INVITE", "one ACK");
    check("ACK", &[b"ACK sip:pay@h SIP/2.0\r\n", ack.as_bytes(), b"\r\n"].concat(), Dropped, b"");
    let answer = PLAIN.replace("1 INVITE", "one INVITE");
    check("answer", &[b"SIP/2.0 200 OK\r\n", answer.as_bytes(), b"\r\n"].concat(), Dropped, b"");
    check("garbage", b"\x16\x03\x01\x02\0\x01\0\r\n\r\n", Dropped, b"");
}

fn invitation(name: &str) -> Invitation {
    let (_, bytes, _) = vectors().find(|(n, ..)| *n == name).unwrap();
    outcome(&mut agent(4), start(), bytes).1.pop().unwrap()
}

fn header<'a>(invitation: &'a Invitation, name: &str) -> &'a str {
    let header = invitation.headers.iter().find(|(n, _)| n == name);
    header.map_or("", |(_, value)| value.as_str())
}

#[test]
fn nothing_is_lost_of_the_valid_ones() {
    let spaced = invitation("wsinv");
    let from = model::NameAddr::parse(header(&spaced, "From")).unwrap();
    assert_eq!(from.display.as_deref(), Some("R Hopper \\\""));
    assert_eq!(from.tag(), Some("77aa"));
    assert_eq!(header(&spaced, "NewHeader"), "a new value that goes on");
    assert_eq!(header(&spaced, "UnknownHeaderWithStrangeValue"), ";;,,;;,;");
    let contact = model::NameAddr::parse(header(&spaced, "Contact")).unwrap();
    assert_eq!(contact.display.as_deref(), Some("Quoted \"\" contact"));
    assert_eq!(contact.params.value("q"), Some("0.33"));
    assert_eq!(spaced.dialled, "cashier");
    assert_eq!(invitation("esc01").dialled, "sips:cashier@example.com");
    let old = invitation("inv2543");
    let caller = model::NameAddr::parse(header(&old, "From")).unwrap();
    assert_eq!(caller.uri.number().as_deref(), Some("+13035551111"));
    let parts = invitation("mpart01").offer.unwrap();
    assert!(parts.ends_with(b"a=rtpmap:31 LPC\r\n\r\n"), "the whole part and no more");
}

/// One of: a flipped bit, a byte replaced, a run removed, a run doubled, a cut, a splice.
fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.random_range(0..bytes.len());
    let end = rng.random_range(at..=bytes.len().min(at + 40));
    match rng.random_range(0..7) {
        0 => bytes[at] ^= 1 << rng.random_range(0..8),
        1 => bytes[at] = rng.random(),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let run = bytes[at..end].to_vec();
            bytes.splice(at..at, run);
        }
        4 => bytes.truncate(at),
        5 => {
            let from = rng.random_range(0..other.len());
            bytes.splice(at.., other[from..].iter().copied());
        }
        _ => {
            let special = b";,<>\"\\:=@% \r\n\t[]()\0\xff9";
            bytes[at] = special[rng.random_range(0..special.len())];
        }
    }
}

/// Of the vectors, unless the variable `MUTANTS` says how many.
const MUTANTS: u64 = 25_000;

#[test]
fn mutants_do_no_harm() {
    let mutants = std::env::var("MUTANTS").map_or(MUTANTS, |n| n.parse().expect("a number"));
    let seeds: Vec<&[u8]> = vectors().map(|(_, bytes, _)| bytes).collect();
    let mut agent = agent(50);
    let mut now = start();
    let mut answered = 0;
    for seed in 0..mutants {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bytes = seeds[rng.random_range(0..seeds.len())].to_vec();
        let other = seeds[rng.random_range(0..seeds.len())];
        for _ in 0..rng.random_range(1..6) {
            mutate(&mut rng, &mut bytes, other);
        }
        let guarded = std::panic::AssertUnwindSafe(|| {
            wire::fuzz(&bytes);
            wire::fuzz_stream(&bytes);
            offer::fuzz(&bytes);
            let body = bytes.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
            offer::fuzz(&bytes[body..]);
            now += Duration::from_millis(20);
            agent.handle(now, datagram(&bytes));
            while let Some(output) = agent.poll() {
                match output {
                    Output::Event(Event::Offered { leg, .. }) => {
                        let command = match seed % 3 {
                            0 => Command::Answer { leg, sdp: b"v=0\r\n".to_vec() },
                            1 => Command::Hangup { leg, reason: None },
                            _ => continue,
                        };
                        agent.handle(now, Input::Command(command));
                    }
                    Output::Transmit { .. } => answered += 1,
                    Output::Event(_)
                    | Output::Intrusion(_)
                    | Output::Registered { .. }
                    | Output::Reachable { .. } => {}
                }
            }
        });
        let result = std::panic::catch_unwind(guarded);
        assert!(result.is_ok(), "seed {seed}: {}", bytes.escape_ascii());
        assert!(agent.calls() <= 50, "seed {seed}");
    }
    assert!(answered > mutants / 2, "the mutants were all too broken to matter: {answered}");
}
