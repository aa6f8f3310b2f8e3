//! Streams cut up every which way: the same messages come out, and no more is held than one.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::{Framed, parse_stream};
use super::*;

const HEAD: &str = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\n\
    From: <sip:x@y>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c1\r\nCSeq: 7 OPTIONS\r\n";

fn message(length: &str, body: &str) -> String {
    format!("{HEAD}{length}\r\n\r\n{body}")
}

fn chunks(framer: &mut Framer, bytes: &[u8]) -> Vec<Chunk> {
    framer.push(bytes);
    framer.collect()
}

fn all(text: &str) -> Vec<Chunk> {
    chunks(&mut Framer::new(Limits::default()), text.as_bytes())
}

fn whole(text: &str) -> Chunk {
    Chunk::Message(Bytes::copy_from_slice(text.as_bytes()))
}

/// Status and reason of the last chunk, which must be the end of the stream.
fn broken(text: &str) -> (u16, &'static str) {
    match all(text).pop() {
        Some(Chunk::Broken { status, reason, head }) => {
            let Framed::Bad(bad) = parse_stream(&head, &Limits::default()) else {
                panic!("{reason}, but it can be read");
            };
            assert!(bad.status >= 400 && text.as_bytes().starts_with(&head));
            (status, reason)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn content_length_in_all_its_spellings_ends_a_message() {
    for length in [
        "Content-Length: 5",
        "content-LENGTH : 5",
        "l:5",
        "L\t:\r\n 5",
        "Content-Length:  \r\n\t5  ",
        "l: 5\r\nContent-Length: 5",
        "Contact: <sip:a@h>\r\nContent-Length: 0005",
    ] {
        let text = message(length, "12345");
        assert_eq!(all(&format!("{text}{text}")), [whole(&text), whole(&text)], "{length}");
        assert!(matches!(
            parse_stream(text.as_bytes(), &Limits::default()),
            Framed::Message(Message::Request(request)) if &request.body[..] == b"12345"
        ));
    }
}

#[test]
fn without_a_length_the_stream_is_lost_but_the_peer_is_told() {
    assert_eq!(broken(&message("X: y", "")), (400, "no Content-Length on a stream"));
    for length in ["l: 5\r\nl: 6", "l: -1", "l: 5x", "l:", "l: 99999999999999999999", "l: 5\r\n 6"]
    {
        assert_eq!(broken(&message(length, "12345")).0, 400, "{length}");
    }
    let text = message("X: y", "");
    let Framed::Bad(bad) = parse_stream(text.as_bytes(), &Limits::default()) else { panic!() };
    assert_eq!((bad.status, bad.reason), (400, "no Content-Length on a stream"));
    assert_eq!(bad.echo.unwrap().first("CSeq"), Some("7 OPTIONS"));
}

#[test]
fn limits_end_the_stream() {
    assert_eq!(broken(&message("l: 65535", "")), (513, "message too large"));
    assert_eq!(broken(&message(&format!("l: {}", usize::MAX), "")), (513, "message too large"));
    assert_eq!(broken(&format!("OPTIONS {}", "x".repeat(9_000))), (414, "start line too long"));
    assert_eq!(broken(&format!("{HEAD}X: {}", "y".repeat(9_000))), (400, "header too long"));
    let many =
        format!("{HEAD}{}", "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1_500));
    assert_eq!(broken(&many), (513, "headers too large"));
    assert_eq!(broken("GET / HTTP/1.1\r\nHost: h\r\n\r\n").0, 400);
    let mut framer = Framer::new(Limits::default());
    assert_eq!(chunks(&mut framer, many.as_bytes()).len(), 1);
    assert_eq!(chunks(&mut framer, message("l: 0", "").as_bytes()), [], "nothing after the end");
    assert_eq!(framer.pending(), 0);
}

#[test]
fn pings_are_told_from_pongs_and_from_nothing() {
    let text = message("l: 0", "");
    assert_eq!(all("\r\n\r\n\r\n\r\n"), [Chunk::Ping, Chunk::Ping]);
    assert_eq!(all(&format!("\r\n{text}\r\n{text}")), [whole(&text), whole(&text)]);
    assert_eq!(all(&format!("{text}\r\n\r\n{text}")), [whole(&text), Chunk::Ping, whole(&text)]);
    let mut framer = Framer::new(Limits::default());
    framer.expect_pong();
    assert_eq!(chunks(&mut framer, b"\r\n"), [Chunk::Pong]);
    assert_eq!(chunks(&mut framer, b"\r"), []);
    assert_eq!(chunks(&mut framer, b"\n\r"), []);
    assert_eq!(chunks(&mut framer, b"\n"), [Chunk::Ping]);
}

/// Where a stream is cut up says nothing about what it carries.
#[test]
fn any_split_gives_the_same_chunks() {
    for seed in 0..300_u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut stream, mut expected) = (String::new(), Vec::new());
        for _ in 0..rng.random_range(1..6) {
            if rng.random_bool(0.3) {
                stream.push_str("\r\n\r\n");
                expected.push(Chunk::Ping);
            }
            let body = "v=0\r\n\r\n".repeat(rng.random_range(0..40));
            let fold = if rng.random() { "l :\r\n " } else { "Content-Length: " };
            let text = message(&format!("X: \r\n\tz\r\n{fold}{}", body.len()), &body);
            stream.push_str(&text);
            expected.push(whole(&text));
        }
        let (mut framer, mut got, mut rest) = (Framer::new(Limits::default()), vec![], &stream[..]);
        while !rest.is_empty() {
            let most = if rng.random() { 3 } else { 700 };
            let (piece, after) = rest.split_at(rng.random_range(1..=most).min(rest.len()));
            got.extend(chunks(&mut framer, piece.as_bytes()));
            rest = after;
        }
        assert_eq!(got, expected, "seed {seed}");
        assert_eq!(framer.pending(), 0, "seed {seed}");
    }
}

#[test]
fn a_peer_that_drips_costs_one_message_and_no_quadratic_time() {
    let limits = Limits { message_bytes: 4_096, head_bytes: 2_048, ..Limits::default() };
    let mut framer = Framer::new(limits);
    let mut ended = 0;
    for _ in 0..1_000_000 {
        ended += chunks(&mut framer, b"x").len();
        assert!(framer.pending() <= limits.message_bytes);
        assert!(framer.buffer.capacity() <= 2 * limits.message_bytes);
    }
    assert_eq!(ended, 1, "said once");
}

#[test]
fn a_long_message_does_not_hold_its_memory() {
    let mut framer = Framer::new(Limits::default());
    let text = message("l: 60000", &"x".repeat(60_000));
    for piece in text.as_bytes().chunks(1_000) {
        chunks(&mut framer, piece);
    }
    assert_eq!((framer.pending(), framer.buffer.capacity()), (0, 0));
}
