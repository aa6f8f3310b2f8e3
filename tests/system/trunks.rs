//! `ringtill trunk`, and a trunk that has to prove who it is.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use ringtill::sip::auth::{Client, Credentials};
use ringtill::sip::model::{Headers, Method};

use crate::binary::{Binary, RINGTILL, beside_others, config};
use crate::caller::{NO_CODEC, Sip};

const INVITE: &str = "\
INVITE sip:+13175550100@203.0.113.5 SIP/2.0
Via: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bK1
Max-Forwards: 70
From: \"James Walker\" <sip:3175550123@198.51.100.7>;tag=1
To: <sip:+13175550100@203.0.113.5>
Subject: secret-subject
Call-ID: a
CSeq: 1 INVITE
Contact: <sip:198.51.100.7>
Content-Type: application/sdp

v=0
o=x 1 1 IN IP4 198.51.100.7
s=secret-session-name
c=IN IP4 198.51.100.7
t=0 0
m=audio 4000 RTP/AVP 0
";

/// Runs `ringtill trunk` with a configuration of two trunks; `input` goes to its standard input.
fn trunk(arguments: &[&str], input: &str) -> (i32, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let trunks =
        "[[trunk]]\nprofile = \"asterisk\"\nname = \"pbx\"\nsources = [\"198.51.100.0/24\"]\n";
    let text = config(folder.path(), 5060, "info", trunks);
    std::fs::write(folder.path().join("ringtill.toml"), text).expect("written");
    std::fs::write(folder.path().join("invite.txt"), INVITE).expect("written");
    let mut child = Command::new(RINGTILL)
        .arg("trunk")
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = child.stdin.take().expect("piped");
    // One that does not read its input has closed it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    let text = [stdout, stderr].concat();
    (status.code().expect("a code"), String::from_utf8(text).expect("text"))
}

#[test]
fn trunk_explain_tells_the_trunk_by_exit_code_and_words() {
    let (code, text) = trunk(&["explain", "invite.txt"], "");
    assert_eq!(code, 0, "{text}");
    for part in [
        "loopback      no: 198.51.100.7 is in none of its `sources`",
        "pbx           TAKES IT: its source is in 198.51.100.0/24",
        "caller        +13175550123, from From",
        "We would answer it with 200: PCMU",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("secret"), "{text}");
    let (code, same) = trunk(&["explain", "-c", "ringtill.toml", "-"], INVITE);
    assert_eq!((code, same), (0, text));
    let from = ["explain", "invite.txt", "--from", "203.0.113.99:5060", "--transport", "tcp"];
    let (code, text) = trunk(&from, "");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("sources = [\"203.0.113.99/32\"]"), "{text}");
    assert_eq!(trunk(&["explain", "-"], "hello").0, 2);
    assert_eq!(trunk(&["explain", "nowhere.txt"], "").0, 2);
    assert_eq!(trunk(&["explain", "invite.txt", "-c", "nowhere.toml"], "").0, 78);
    let (code, text) = trunk(&["list"], "");
    assert_eq!((code, text.lines().count()), (0, 12), "{text}");
}

/// Only the right answer to the challenge leads on, to where the offer is looked at.
#[test]
fn a_proxy_that_proves_who_it_is_is_served() {
    let _turn = beside_others();
    let kamailio = "[[trunk]]\nprofile = \"kamailio\"\nsources = [\"127.0.1.11/32\"]\n\
                    users = [{ username = \"edge\", password = \"loopback-secret\" }]\n";
    let mut binary = Binary::start("info", kamailio);
    for (password, status) in [("wrong", 401), ("loopback-secret", 488)] {
        let mut proxy = Sip::at("127.0.1.11", binary.port);
        let uri = format!("sip:pay@{}", proxy.server);
        let invite = proxy.invite(NO_CODEC);
        let challenge = proxy.ask(&invite);
        assert_eq!(challenge.status, 401);
        let mut headers = Headers::default();
        for line in challenge.text.lines().filter_map(|line| line.strip_prefix("WWW-Auth")) {
            let (_, value) = line.split_once(": ").expect("a header");
            headers.push("WWW-Authenticate", value);
        }
        assert_eq!(headers.len(), 2, "SHA-256 and MD5: {}", challenge.text);
        let credentials = [Credentials::new("edge", password.into(), None)];
        let mut client = Client::default();
        client.challenged(401, &headers, &credentials).expect("an answer");
        let proof = client.authorize(&Method::INVITE, &uri, b"", "c0ffee");
        let proof: String = proof.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let again = invite
            .replacen("Max-Forwards", &format!("{proof}Max-Forwards"), 1)
            .replacen("CSeq: 1", "CSeq: 2", 1)
            .replacen("branch=z9hG4bK-INVITE", "branch=z9hG4bK-again", 1);
        assert_eq!(proxy.ask(&again).status, status, "{password}");
    }
    binary.stop();
    let rejected = binary.log.iter().filter(|line| line.contains("auth-failed")).count();
    assert_eq!(rejected, 1, "{}", binary.log.join("\n"));
    assert!(!binary.log.join("\n").contains("loopback-secret"));
}
