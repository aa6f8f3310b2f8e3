//! One datagram at a time: what is understood, what is refused, and how.

use super::*;

const OPTIONS: &str = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
    From: <sip:x@y>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c1\r\nCSeq: 7 OPTIONS\r\n";

fn framed(text: &str) -> Framed {
    parse(text.as_bytes(), &Limits::default())
}

fn request(text: &str) -> Request {
    match framed(text) {
        Framed::Message(Message::Request(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn bad(text: &str) -> BadMessage {
    match framed(text) {
        Framed::Bad(bad) => bad,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keep_alives_and_leading_line_breaks() {
    for bytes in [b"".as_slice(), b"\r\n\r\n", b"\0\0\0\0", b"\n"] {
        assert!(matches!(parse(bytes, &Limits::default()), Framed::KeepAlive));
    }
    assert_eq!(request(&format!("\r\n\r\n{OPTIONS}\r\n")).core.cseq, 7);
}

#[test]
fn compact_folded_spaced_and_latin_1() {
    let bytes = b"OPTIONS sip:a@b SIP/2.0\r\nv : SIP/2.0/UDP\r\n h;branch=z9hG4bK1\r\n\
        f:\"J\xfcrgen\" <sip:x@y>\r\n ;tag=1\r\nT\t: <sip:a@b>\r\ni: c1\r\ncSEQ: 7\r\n\tOPTIONS\r\n\
        k: timer\r\nX-Any: \xe9\r\n\r\nrest";
    let Framed::Message(Message::Request(request)) = parse(bytes, &Limits::default()) else {
        panic!("not parsed");
    };
    assert_eq!(request.core.from.display.as_deref(), Some("J\u{fc}rgen"));
    assert_eq!((request.core.from_tag(), request.core.cseq), ("1", 7));
    assert_eq!(request.headers.first("supported"), Some("timer"));
    assert_eq!(request.headers.first("x-any"), Some("\u{e9}"));
    assert_eq!(&request.body[..], b"rest");
}

#[test]
fn content_length_rules() {
    let with = |value: &str| format!("{OPTIONS}Content-Length: {value}\r\n\r\n12345");
    assert_eq!(&request(&with("3")).body[..], b"123");
    assert_eq!(&request(&format!("{OPTIONS}\r\n12345")).body[..], b"12345");
    for value in ["6", "-1", "99999999999999999999", "5x", "5\r\nl: 4"] {
        let bad = bad(&with(value));
        assert_eq!(bad.status, 400, "{value}");
        assert_eq!(bad.echo.unwrap().first("CSeq"), Some("7 OPTIONS"));
    }
    assert_eq!(&request(&with("3\r\nl: 3")).body[..], b"123");
}

#[test]
fn limits_hold() {
    let many = format!("{OPTIONS}{}\r\n", "X: y\r\n".repeat(130));
    assert_eq!(bad(&many).reason, "too many headers");
    let long = format!("{OPTIONS}X: {}\r\n\r\n", "y".repeat(9_000));
    assert_eq!(bad(&long).reason, "header too long");
    let huge = format!("{OPTIONS}X: {}\r\n\r\n", "y".repeat(50_000));
    assert_eq!(bad(&huge).reason, "header too long");
    let all = format!("{OPTIONS}{}\r\n", format!("X: {}\r\n", "y".repeat(7_000)).repeat(6));
    assert_eq!(request(&all).headers.len(), 11);
    let small = Limits { head_bytes: 32_768, ..Limits::default() };
    let Framed::Bad(refused) = parse(all.as_bytes(), &small) else { panic!("not refused") };
    assert_eq!((refused.status, refused.reason), (513, "headers too large"));
    let folds = format!("{OPTIONS}X: y\r\n{}\r\n", " yyyyyyyyyyyyyyy\r\n".repeat(600));
    assert_eq!(bad(&folds).reason, "header too long");
    let uri = OPTIONS.replacen("a@b", &"u".repeat(9_000), 1);
    assert_eq!(bad(&format!("{uri}\r\n")).status, 414);
    assert_eq!(bad(&"x".repeat(70_000)).status, 513);
}

#[test]
fn what_cannot_be_answered_is_not() {
    assert!(bad("garbage\r\n\r\n").echo.is_none());
    assert!(bad("ACK sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n\r\n").echo.is_none());
    assert!(bad("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h\r\n\r\n").echo.is_none());
    assert!(bad("INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n\r\n").echo.is_some());
    assert_eq!(bad(OPTIONS).reason, "no empty line after the headers");
}
