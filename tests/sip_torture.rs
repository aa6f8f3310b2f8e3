//! Messages in the shapes of RFC 4475, given to a user agent: valid ones are understood, broken
//! ones get the answer they deserve, and no mutation of either makes anything panic.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
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

#[rustfmt::skip]
const VECTORS: &[(&str, &[u8], Expect)] = vectors! {
    // Valid, however odd.
    "wsinv" => Call,         // folding, compact forms and white space everywhere
    "intmeth" => Status(501), // every character a method, a URI and a quoted string may hold
    "esc01" => Call,         // escapes in URIs
    "escnull" => Status(405), // escaped NULs
    "esc02" => Status(501),  // escapes where none exist: a method of its own
    "lwsdisp" => Status(200), // no space between name and <
    "longreq" => Call,       // long values, 34 Vias, RFC 2543 branch
    "dblreq" => Status(405), // a second message behind Content-Length: 0 is no message
    "semiuri" => Status(200), // semicolon in the user part
    "transports" => Status(200), // transports we do not have, below the top Via
    "mpart01" => Call,       // SDP in multipart, binary beside it
    "unreason" => Response(200), // UTF-8 in the reason phrase
    "noreason" => Response(100), // no reason phrase
    "inv2543" => Call,       // RFC 2543: no tag, no branch, no Contact, no Content-Length
    "badbranch" => Status(200), // the magic cookie alone is no branch
    // Broken.
    "badinv01" => Status(400), // empty parameters and values in Via
    "clerr" => Status(400),  // Content-Length beyond the datagram
    "ncl" => Status(400),    // negative Content-Length
    "scalar02" => Status(400), // CSeq beyond 2^31
    "mismatch01" => Status(400), // CSeq of another method
    "mismatch02" => Status(400),
    "multi01" => Status(400), // single headers repeated
    "mcl01" => Status(400),  // two Content-Lengths
    "quotbal" => Status(400), // open quote
    "baddn" => Status(400),  // comma in an unquoted name
    "badvers" => Status(505),
    "ltgtruri" => Status(400), // brackets around the Request-URI
    "lwsruri" => Status(400), // space in the Request-URI
    "lwsstart" => Status(400), // two spaces in the start line
    "trws" => Status(400),   // spaces after it
    "insuf" => Status(400),  // no To, From, Call-ID
    "bigcode" => Dropped,    // status code beyond 16 bits
    "scalarlg" => Dropped,   // CSeq beyond 64 bits in a response
    // Well-formed, but not for us.
    "bcast" => Response(200), // second Via: not our response
    "zeromf" => Status(483),
    "unkscm" => Status(416),
    "novelsc" => Status(416),
    "bext01" => Status(420), // Require of unknown extensions
    "invut" => Status(415),  // body of an unknown type
};

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
            Output::Event(_) | Output::Intrusion(_) | Output::Registered { .. } => {
                panic!("an event out of nothing")
            }
        }
    }
    (statuses, calls)
}

#[test]
fn each_message_gets_what_it_deserves() {
    for (name, bytes, expect) in VECTORS {
        let mut agent = agent(4);
        let (statuses, calls) = outcome(&mut agent, start(), bytes);
        match *expect {
            Call => {
                assert_eq!((statuses.len(), calls.len()), (0, 1), "{name}: {statuses:?}");
                let sdp = calls[0].offer.as_deref().unwrap_or_default();
                assert!(sdp.starts_with(b"v=0\r\no=payer "), "{name}");
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
}

fn invitation(name: &str) -> Invitation {
    let (_, bytes, _) = VECTORS.iter().find(|(n, ..)| *n == name).unwrap();
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

#[test]
fn twenty_thousand_mutants_do_no_harm() {
    let mut agent = agent(50);
    let mut now = start();
    let mut answered = 0;
    for seed in 0..20_000_u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bytes = VECTORS[rng.random_range(0..VECTORS.len())].1.to_vec();
        let other = VECTORS[rng.random_range(0..VECTORS.len())].1;
        for _ in 0..rng.random_range(1..6) {
            mutate(&mut rng, &mut bytes, other);
        }
        let guarded = std::panic::AssertUnwindSafe(|| {
            wire::fuzz(&bytes);
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
                    Output::Event(_) | Output::Intrusion(_) | Output::Registered { .. } => {}
                }
            }
        });
        let result = std::panic::catch_unwind(guarded);
        assert!(result.is_ok(), "seed {seed}: {}", bytes.escape_ascii());
        assert!(agent.calls() <= 50, "seed {seed}");
    }
    assert!(answered > 10_000, "the mutants were all too broken to matter: {answered}");
}
