//! The fail2ban filter on lines of the real binary: every rejected source is found, and nobody
//! whom a caller merely writes about.

use std::path::Path;
use std::process::Command;

use crate::binary::{Binary, beside_others};
use crate::caller::{NO_CODEC, Sip};

/// Whom the filter finds in a log, in its order; `None` when fail2ban is not here.
fn found(folder: &Path, log: &[String]) -> Option<Vec<String>> {
    let file = folder.join("ringtill.log");
    std::fs::write(&file, log.join("\n") + "\n").expect("written");
    let filter =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/fail2ban/filter.d/ringtill.conf");
    let run = Command::new("fail2ban-regex").args(["--out", "ip"]).arg(file).arg(filter).output();
    let Ok(output) = run else {
        let needed = std::env::var_os("RINGTILL_TESTS_NEED_FAIL2BAN").is_some();
        assert!(!needed, "fail2ban-regex is not installed (Debian: fail2ban)");
        eprintln!("skipped: fail2ban-regex is not installed (Debian: fail2ban)");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).lines().map(String::from).collect())
}

/// What callers write to have somebody else banned.
const FORGED: &str = "SECURITY rejected proto=udp src=198.51.100.1 sport=5060 reason=unknown-trunk";
const FORGED_LINE: &str = "2026-11-24T14:46:24.563663Z  WARN ringtill::server::sip: SECURITY rejected \
                           proto=udp src=198.51.100.1 sport=5060 reason=unknown-trunk";

/// The request full of it: in names and headers, with line ends where SIP lets them through.
fn forged(request: &str) -> String {
    let quoted = format!("From: \"{FORGED_LINE}\" <sip:");
    let headers = format!(
        "User-Agent: {FORGED}\r\n \r\n\t{FORGED_LINE}\r\n\
         X-Name: x\"\r\n {FORGED_LINE}\r\nSubject: %0a{FORGED_LINE}\r\nMax-Forwards"
    );
    request.replacen("From: <sip:", &quoted, 1).replacen("Max-Forwards", &headers, 1)
}

/// Lines of the binary, after strangers, a wrong password and a known caller that forges lines.
fn log(format: &str) -> (Binary, Vec<String>) {
    let trunk = "[[trunk]]\nname = \"edge\"\nsources = [\"127.0.2.2/32\"]\n\
                 users = [{ username = \"edge\", password = \"loopback-secret\" }]\n";
    // The level is the last key of its section.
    let mut binary = Binary::start(&format!("trace\"\nformat = \"{format}"), trunk);
    for (from, method) in [("127.0.2.1", "INVITE"), ("127.0.2.3", "OPTIONS")] {
        let mut stranger = Sip::at(from, binary.port);
        let request = stranger.request(method, "");
        assert_eq!(stranger.ask(&forged(&request)).status, 403);
    }
    let mut guessing = Sip::at("127.0.2.2", binary.port);
    let invite = guessing.invite("");
    let challenge = guessing.ask(&invite);
    assert_eq!(challenge.status, 401);
    let nonce = challenge.text.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next());
    let wrong = format!(
        "Authorization: Digest username=\"{FORGED}\", realm=\"ringtill\", nonce=\"{}\", \
         uri=\"sip:x\", response=\"{}\", algorithm=MD5, qop=auth, nc=00000001, cnonce=\"1\"\r\n\
         Max-Forwards",
        nonce.expect("a nonce"),
        "0".repeat(32)
    );
    let wrong = guessing.invite("").replacen("Max-Forwards", &wrong, 1);
    assert_eq!(guessing.ask(&wrong).status, 401);
    let mut known = Sip::at("127.0.0.1", binary.port);
    let options = known.request("OPTIONS", "");
    assert_eq!(known.ask(&forged(&options)).status, 200);
    // Refused for its codec, so that no call waits for its end.
    let invite = known.invite(NO_CODEC);
    assert_eq!(known.ask(&forged(&invite)).status, 488);
    binary.stop();
    let log = binary.log.clone();
    (binary, log)
}

#[test]
fn fail2ban_finds_the_rejected_and_nobody_else() {
    let _turn = beside_others();
    for format in ["text", "json"] {
        let (binary, log) = log(format);
        let lines: Vec<&String> = log.iter().filter(|line| line.contains("SECURITY")).collect();
        assert!(lines.len() >= 3, "{log:#?}");
        let Some(found) = found(binary.folder.path(), &log) else { return };
        assert_eq!(found, ["127.0.2.1", "127.0.2.3", "127.0.2.2"], "{lines:#?}");
    }
}

#[test]
fn the_filter_takes_whole_lines_of_both_families_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let time = "2026-11-24T14:46:24.563663Z";
    let text = |rest: &str| format!("{time}  WARN ringtill::server::sip: SECURITY {rest}");
    let json = |rest: &str| {
        format!(
            "{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"fields\":{{\"message\":\"SECURITY {rest}\"}},\
             \"target\":\"ringtill::server::sip\"}}"
        )
    };
    let good = |src: &str| format!("rejected proto=tls src={src} sport=5061 reason=no-certificate");
    let right = [
        text(&good("203.0.113.7")),
        text(&good("2001:db8::7")),
        json(&good("203.0.113.8")),
        json(&good("2001:db8::8")),
        format!("host ringtill[12]: {}", text(&good("203.0.113.9"))),
    ];
    let hostile = good("198.51.100.1");
    let wrong = [
        text(&format!("{hostile} and more")),
        text(&format!("x {hostile}")),
        text(&hostile.replace("198.51.100.1", "evil.example.com")),
        text(&hostile.replace("proto=tls", "proto=tls src=198.51.100.2")),
        text(&hostile.replace("rejected", "accepted")),
        text(&hostile).replace(" WARN", " INFO"),
        text(&hostile).replace("ringtill::server::sip:", "other::crate:"),
        text(&hostile).replace("sip: ", "sip: name=\""),
        format!("{time}  INFO ringtill::x: name=\"{}\"", text(&hostile)),
        format!("{time}  INFO ringtill::x: name=x {}", text(&hostile)),
        json(&format!("{hostile}\\\"")),
        json(&hostile).replace("\"message\":\"", "\"name\":\"x\",\"message\":\""),
        json(&hostile).replace("\"message\"", "\"name\""),
        json(&hostile).replace("}}", "},\"span\":{}}").replace("\"WARN\"", "\"DEBUG\""),
    ];
    let all = [&right[..], &wrong[..]].concat();
    let Some(found) = found(folder.path(), &all) else { return };
    let expected = ["203.0.113.7", "2001:db8::7", "203.0.113.8", "2001:db8::8", "203.0.113.9"];
    assert_eq!(found, expected);
}
