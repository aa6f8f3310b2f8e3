//! Whatever comes in from outside is refused clearly, and the server keeps serving.

use std::collections::VecDeque;
use std::fs;
use std::net::UdpSocket;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use ringtill::dial::script::Keying;
use ringtill::rtp::packet::Header;

use crate::binary::{ACCOUNTS, Binary, RINGTILL, beside_others, config};
use crate::caller::{JAMES, Line, MARIA, Sip, sdp, words};
use crate::ports::free_port;
use crate::tones;

const ANYWHERE: &str = "127.0.0.1:30000";

fn offer() -> String {
    sdp(ANYWHERE.parse().expect("an address"))
}

/// The server answers, and a whole short call works.
fn expect_service(binary: &Binary) {
    let mut caller = Sip::at("127.0.0.1", binary.port);
    assert_eq!(caller.options().status, 200);
    caller.expect_a_working_call();
}

#[test]
fn sip_garbage_is_dropped_or_refused() {
    let _turn = beside_others();
    let mut binary = Binary::start("info", "");
    let mut caller = Sip::at("127.0.0.1", binary.port);
    random_bytes(&caller);
    half_requests(&mut caller);
    expect_service(&binary);
    for (what, request, status) in broken_requests(&mut caller) {
        let reply = caller.reply_within(&request, Duration::from_secs(10));
        let reply = reply.unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(reply.status, status, "{what}: {}", reply.text);
    }
    expect_service(&binary);
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
}

fn random_bytes(caller: &Sip) {
    let mut rng = StdRng::seed_from_u64(1);
    for round in 0..400 {
        let mut bytes = vec![0; rng.random_range(0..1_500)];
        rng.fill_bytes(&mut bytes);
        // Some of it begins as SIP does.
        if round % 4 == 0 {
            bytes.splice(0..0, *b"INVITE sip:pay@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP ");
        }
        caller.send(&bytes);
    }
    for bytes in [&b""[..], b"\r\n\r\n", b"\0\0\0\0", b"SIP/2.0 200 OK\r\n\r\n", &[b'A'; 65_000]] {
        caller.send(bytes);
    }
}

/// A request cut anywhere in its headers has no effect but a refusal: no call comes of it.
fn half_requests(caller: &mut Sip) {
    let whole = caller.invite(&offer());
    let head = whole.find("\r\n\r\n").expect("headers end");
    for end in (1..head).step_by(7) {
        caller.send(&whole.as_bytes()[..end]);
    }
}

/// What is wrong, the request, and the status that says so.
fn broken_requests(caller: &mut Sip) -> Vec<(&'static str, String, u16)> {
    let mut all = Vec::new();
    let mut broken = |what, method, from: &str, to: &str, status| {
        let whole = caller.request(method, "");
        assert!(whole.contains(from), "{from} is not in\n{whole}");
        all.push((what, whole.replacen(from, to, 1), status));
    };
    let length = "Content-Length: 0";
    broken("a body shorter than announced", "INVITE", length, "Content-Length: 400", 400);
    broken("a length that is no number", "OPTIONS", length, "Content-Length: many", 400);
    broken("a negative length", "OPTIONS", length, "Content-Length: -1", 400);
    broken("two lengths", "OPTIONS", length, "Content-Length: 0\r\nl: 9", 400);
    let huge = format!("{length}\r\nX-Huge: {}", "x".repeat(60_000));
    broken("a huge header", "OPTIONS", length, &huge, 400);
    let many = format!("X-Many: 1\r\n{}{length}", "X-Many: 1\r\n".repeat(500));
    broken("five hundred headers", "OPTIONS", length, &many, 400);
    broken("a header without a colon", "OPTIONS", "Max-Forwards: 70", "Max-Forwards 70", 400);
    broken("no Call-ID", "OPTIONS", "Call-ID: ", "X-Call: ", 400);
    broken("a CSeq out of range", "OPTIONS", "CSeq: 2", "CSeq: 99999999999", 400);
    broken("a CSeq of another method", "INVITE", "CSeq: 1 INVITE", "CSeq: 1 OPTIONS", 400);
    broken("From without an address", "INVITE", "From: <sip:", "From: <<:", 400);
    broken("a version to come", "OPTIONS", " SIP/2.0\r\n", " SIP/7.0\r\n", 505);
    broken("a method nobody knows", "PILFER", length, length, 501);
    broken("a loop", "INVITE", "Max-Forwards: 70", "Max-Forwards: 0", 483);
    broken("an extension we lack", "INVITE", length, "Require: teleport\r\nContent-Length: 0", 420);
    broken("a BYE of no call", "BYE", ">\r\nCall-ID", ">;tag=none\r\nCall-ID", 481);
    broken("a CANCEL of no call", "CANCEL", length, length, 481);
    all
}

#[test]
fn an_unknown_source_is_refused() {
    let _turn = beside_others();
    let mut binary = Binary::start("info", "");
    let mut stranger = Sip::at("127.0.0.2", binary.port);
    let invite = stranger.invite(&offer());
    assert_eq!(stranger.ask(&invite).status, 403);
    binary.wait_for("SECURITY rejected proto=udp src=127.0.0.2");
    expect_service(&binary);
    assert_eq!(binary.stop(), Some(0));
}

#[test]
fn sdp_that_cannot_be_used_is_refused() {
    let _turn = beside_others();
    let mut binary = Binary::start("info", "");
    let mut caller = Sip::at("127.0.0.1", binary.port);
    let whole = offer();
    let cut = |after: &str| whole.split_inclusive(after).next().expect("a part").to_string();
    for (what, body, status) in [
        ("cut within the version", "v".to_string(), 400),
        ("cut within its origin", cut("o=- 1"), 400),
        ("cut before the media", cut("t=0 0\r\n"), 488),
        ("cut within the media line", cut("m=audio"), 400),
        ("cut within the address", whole.replace("c=IN IP4 127.0.0.1", "c=IN IP4"), 400),
        ("no codec we have", whole.replace("RTP/AVP 0 101", "RTP/AVP 18 101"), 488),
        ("encrypted", whole.replace("RTP/AVP", "RTP/SAVP"), 488),
        ("a port out of range", whole.replace("m=audio 30000", "m=audio 300000"), 400),
        ("no SDP at all", "\u{1}\u{2}\u{3}".to_string(), 400),
    ] {
        let invite = caller.invite(&body);
        let reply = caller.ask(&invite);
        assert_eq!(reply.status, status, "{what}: {}", reply.text);
    }
    // The datagram itself is cut: less body than Content-Length says.
    let invite = caller.invite(&whole);
    let reply = caller.ask(&invite[..invite.len() - 40]);
    assert_eq!(reply.status, 400, "{}", reply.text);
    expect_service(&binary);
    assert_eq!(binary.stop(), Some(0));
}

/// 100 ms of the key 1 as telephone-events, then the copies of its end.
fn press_one(last: &Header) -> Vec<Vec<u8>> {
    let timestamp = last.timestamp.wrapping_add(8_000);
    let packet = |nth: u16, end: bool| {
        let sequence = last.sequence.wrapping_add(nth);
        let header = Header { marker: nth == 1, payload_type: 101, sequence, timestamp, ..*last };
        let duration = (160 * nth.min(5)).to_be_bytes();
        let mut bytes = header.bytes().to_vec();
        bytes.extend([1, u8::from(end) << 7 | 10, duration[0], duration[1]]);
        bytes
    };
    (1..=5).map(|nth| packet(nth, false)).chain((6..=8).map(|nth| packet(nth, true))).collect()
}

/// The key 1 as a tone of 100 ms, in packets of 20 ms.
fn tone_one(last: &Header) -> Vec<Vec<u8>> {
    let audio = tones::timeline(&[], (0.0, "1"), 0.14);
    let packet = |(nth, payload): (usize, &[u8])| {
        let sequence = last.sequence.wrapping_add(nth as u16);
        let timestamp = last.timestamp.wrapping_add(160 * nth as u32);
        let mut bytes = Header { payload_type: 0, sequence, timestamp, ..*last }.bytes().to_vec();
        bytes.extend(payload);
        bytes
    };
    audio.chunks(160).enumerate().map(packet).collect()
}

#[test]
fn keys_from_a_foreign_source_are_not_heard() {
    let _turn = beside_others();
    thread::scope(|scope| {
        let both = ["strict", "nat"].map(|latch| scope.spawn(|| expect_strangers_unheard(latch)));
        for one in both {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// Believing only the SDP the kernel drops strangers; behind NAT we do, and count them.
fn expect_strangers_unheard(latch: &str) {
    let more = format!("latch = \"{latch}\"\n\n[dialogue]\nfirst_key_ms = 2000\n");
    let mut binary = Binary::start("debug", &more);
    let mut line = Line::place(binary.port, JAMES, NO_KEY_THEN_ONE, Keying::default());
    line.run_until("answered");
    let sent = attack(&mut line, words("error.noinput1"));
    assert!(!line.log().contains(words("card.ask")), "{}", line.log());
    // The same packets from the caller's own port are heard: they were good enough.
    line.run_until(words("menu.amount"));
    let (last, server) = line.last.expect("the phone sends");
    for packet in press_one(&last) {
        line.rtp.send_to(&packet, server).expect("sent");
    }
    assert_eq!(line.run(), Ok(()), "{}", line.log());
    let closed = binary.wait_for("foreign: ");
    let counted = closed.split("foreign: ").nth(1).and_then(|rest| rest.split(',').next());
    let counted: usize = counted.and_then(|count| count.parse().ok()).expect("a number");
    let expected = if latch == "nat" { sent * 9 / 10..=sent } else { 0..=sent };
    assert!(expected.contains(&counted), "{latch}: {counted} of {sent} counted");
    expect_service(&binary);
    assert_eq!(binary.stop(), Some(0));
}

/// The menu is heard to its end, and asked again, since nobody has pressed a key.
const NO_KEY_THEN_ONE: &str = "hear menu.amount 60, hear error.noinput1, hear menu.amount, \
                               hear-start card.ask, hangup";

/// Presses 1 from two strangers' addresses until the phone has heard `end`: as events and as
/// tones, with the call's own SSRC and sequence numbers and with others. How many packets.
fn attack(line: &mut Line, end: &str) -> usize {
    const PACKETS_A_TURN: usize = 3;
    let strangers = ["127.0.0.1", "127.0.0.2"].map(|ip| UdpSocket::bind((ip, 0)).expect("a port"));
    let (mut waiting, mut turn, mut sent) = (VecDeque::new(), None, 0);
    while !line.log().contains(end) {
        let over = line.turn();
        assert!(over.is_none(), "{over:?}\n{}", line.log());
        let Some((last, server)) = line.last else { continue };
        if turn.replace(last.sequence) == Some(last.sequence) {
            continue;
        }
        if waiting.is_empty() {
            let other = Header { ssrc: !last.ssrc, ..last };
            for (nth, header) in [(0, last), (1, other), (1, last)] {
                waiting.extend(press_one(&header).into_iter().map(|packet| (nth, packet)));
                waiting.extend(tone_one(&header).into_iter().map(|packet| (nth, packet)));
            }
        }
        for (stranger, packet) in waiting.drain(..PACKETS_A_TURN.min(waiting.len())) {
            strangers[stranger].send_to(&packet, server).expect("sent");
            sent += 1;
        }
    }
    assert!(sent > 1_000, "{sent} packets only");
    sent
}

const BROKEN_ROWS: &str = "\
account_id,name_first,name_last,phone1,verify_zip,amount_due,due_date
1001,James,Walker,+13175550123,46201,321.72,2026-12-05
1002,Maria,Lopez,+13175550144,4620,88.10,2026-12-01
1003,Ann,Lee,+13175550155,46204,twelve,2026-12-01
1004,Bo,Ray,+13175550166,46204,10.00,12/01/2026
";

/// Line, column and reason of each row that is wrong.
const REJECTED: [(&str, &str, &str); 3] = [
    ("3", "verify_zip", "write five digits"),
    ("4", "amount_due", "it is no amount"),
    ("5", "due_date", "it is no date"),
];

#[test]
fn a_csv_with_broken_rows_serves_the_good_ones() {
    let _turn = beside_others();
    let mut binary = Binary::start_with(BROKEN_ROWS, "info", "");
    let log = binary.log.join("\n");
    let (line, column, reason) = REJECTED[0];
    for part in ["3 rows rejected", &format!("line {line}, {column}: {reason}"), "accounts.csv"] {
        assert!(log.contains(part), "`{part}` is not in\n{log}");
    }
    let report = fs::read_to_string(binary.path("accounts.rej.csv")).expect("the row report");
    assert_eq!(report.lines().count(), 1 + REJECTED.len(), "{report}");
    for (line, column, reason) in REJECTED {
        let found = report
            .lines()
            .any(|row| row.starts_with(&format!("{line},{column},")) && row.contains(reason));
        assert!(found, "line {line} is not in\n{report}");
    }
    let checked = ringtill("check", binary.folder.path());
    assert_eq!(checked.status.code(), Some(78));
    for (line, column, reason) in REJECTED {
        expect_text(&checked, &[&format!("line {line}, {column}: {reason}")]);
    }
    expect_greeting(&binary, JAMES, true);
    expect_greeting(&binary, MARIA, false);
    assert_eq!(binary.stop(), Some(0));
}

#[test]
fn a_broken_file_at_sighup_leaves_the_accounts_in_use() {
    let _turn = beside_others();
    let mut binary = Binary::start("info", "");
    let half = ACCOUNTS.split_inclusive('\n').take(2).collect::<String>();
    for (broken, says) in [
        ("account;;\u{0}\n,,,\n", "line 1"),
        ("", "the file is empty"),
        ("account_id,amount_due\n,1\n", "none of its 1 rows can be used"),
        (half.as_str(), "1 accounts where the last file had 2"),
    ] {
        fs::write(binary.path("accounts.csv"), broken).expect("written");
        binary.signal("HUP");
        let seen = binary.log.len();
        binary.wait_for("the accounts in use stay");
        let said = binary.log[seen..].join("\n");
        assert!(said.contains(says) && said.contains("accounts.csv"), "{says}: {said}");
    }
    expect_greeting(&binary, MARIA, true);
    // A good file is taken.
    let renumbered = ACCOUNTS.replace(MARIA, "+13175550177");
    fs::write(binary.path("accounts.csv"), renumbered).expect("written");
    binary.signal("HUP");
    binary.wait_for("accounts read");
    expect_greeting(&binary, MARIA, false);
    expect_greeting(&binary, "+13175550177", true);
    assert_eq!(binary.stop(), Some(0));
}

/// Whether a caller is known by number, as heard on the phone.
fn expect_greeting(binary: &Binary, number: &str, known: bool) {
    let heard = if known { "greet.hello" } else { "greet.welcome" };
    let script = format!("hear-start {heard} 10, hangup");
    let mut line = Line::place(binary.port, number, &script, Keying::default());
    assert_eq!(line.run(), Ok(()), "{number}:\n{}", line.log());
}

#[test]
fn a_typo_in_the_configuration_is_shown_with_line_caret_and_remedy() {
    let good = |folder: &tempfile::TempDir| {
        fs::write(folder.path().join("accounts.csv"), ACCOUNTS).expect("written");
        config(folder.path(), free_port(), "info", "")
    };
    let typo = |from: &str, to: &str, expected: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        let text = good(&folder);
        assert!(text.contains(from), "{from}");
        fs::write(folder.path().join("ringtill.toml"), text.replacen(from, to, 1))
            .expect("written");
        for command in ["check", "serve"] {
            let output = ringtill(command, folder.path());
            assert_eq!(output.status.code(), Some(78), "{command}: {output:?}");
            expect_text(&output, expected);
            expect_text(&output, &["^", "error: "]);
        }
    };
    typo("[media]", "[medai]", &["unknown section `medai`", "toml:4:2", "did you mean `media`?"]);
    typo("ports", "port", &["unknown key `port`", "toml:5:1", "did you mean `ports`?"]);
    typo("fee = \"2.00\"", "fee = \"two\"", &["`two` is no amount", "toml:23:7", "2.00"]);
    typo("listen = \"127", "listen = 127", &["toml:2:", "put text in quotes"]);
    typo("/32\"", "/99\"", &["trunk.sources", "toml:32:11"]);
    let folder = tempfile::tempdir().expect("a folder");
    let output = ringtill("serve", folder.path());
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    expect_text(&output, &["ringtill.toml", "name the configuration with -c FILE"]);
    fs::write(folder.path().join("ringtill.toml"), good(&folder)).expect("written");
    let output = ringtill("check", folder.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// Runs a command that must end by itself.
fn ringtill(command: &str, folder: &std::path::Path) -> Output {
    let run = Command::new("timeout")
        .args(["20", RINGTILL, command, "-c", "ringtill.toml"])
        .current_dir(folder)
        .output();
    run.expect("the binary runs")
}

fn expect_text(output: &Output, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

#[test]
fn draining_refuses_new_calls_and_lets_the_running_one_finish() {
    let _turn = beside_others();
    let mut binary = Binary::start("info", "");
    let script = "hear-start menu.amount 60, key 1, hear card.ask, hangup";
    let mut line = Line::place(binary.port, JAMES, script, Keying::default());
    line.run_until("answered");
    binary.signal("TERM");
    binary.wait_for("draining");
    let mut caller = Sip::at("127.0.0.1", binary.port);
    assert_eq!(caller.options().status, 503);
    let invite = caller.invite(&offer());
    let refused = caller.ask(&invite);
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.header("Retry-After").parse::<u32>().is_ok(), "{}", refused.text);
    assert_eq!(line.run(), Ok(()), "{}", line.log());
    assert_eq!(binary.exit(), Some(0), "{}", binary.log.join("\n"));
    assert!(binary.log.iter().any(|line| line.contains("stopped")), "{}", binary.log.join("\n"));
}
