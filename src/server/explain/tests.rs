//! Requests as traces hold them, and what is said of them.

use super::*;

const INVITE: &str = "\
INVITE sip:+13175550100@203.0.113.5 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bK1
Max-Forwards: 70
From: \"James Walker\" <sip:3175550123@192.0.2.9>;tag=1
To: <sip:+13175550100@203.0.113.5>
P-Asserted-Identity: <sip:+13175550142;verstat=TN-Validation-Passed-A@192.0.2.9>
Diversion: <sip:3175550199@h>;reason=no-answer
X-Account-Number: 1001
Call-ID: a
CSeq: 1 INVITE
Contact: <sip:192.0.2.9:5062>
Supported: timer, 100rel
Allow: INVITE, ACK, BYE, CANCEL, UPDATE
Content-Type: application/sdp
Content-Length: 9999

v=0
o=x 1 1 IN IP4 192.0.2.9
s=secret-session-name
c=IN IP4 192.0.2.9
t=0 0
m=audio 4000 RTP/AVP 18 8 101
a=rtpmap:101 telephone-event/8000
";

fn trunks(tomls: &[&str]) -> Vec<Arc<Profile>> {
    tomls.iter().map(|toml| Arc::new(Profile::parse(toml).unwrap())).collect()
}

fn options() -> Options {
    Options { file: "-".into(), from: None, transport: None, certificates: Vec::new() }
}

fn told(tomls: &[&str], message: &str, options: &Options) -> (String, Verdict) {
    explained(&trunks(tomls), message.as_bytes(), options)
}

const PBX: &str = "name = 'pbx'\nsources = ['192.0.2.0/24']\ntransports = ['udp']\n\
                   trust_caller_id = 'attested'\nheaders = { X-Account-Number = 'account' }";

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

#[test]
fn the_trunk_its_rule_and_the_others_misses_are_told() {
    let other = "name = 'other'\nsources = ['198.51.100.0/24']";
    let secured = "name = 'secured'\nsources = ['192.0.2.0/24']\ntransports = ['tls']";
    let later = "name = 'later'\nsources = ['192.0.2.9/32']";
    let (text, verdict) = told(&[other, secured, PBX, later], INVITE, &options());
    assert_eq!(verdict, Verdict::Taken);
    has(
        &text,
        &[
            "INVITE for `+13175550100` by udp from 192.0.2.9:5062, guessed",
            "other         no: 192.0.2.9 is in none of its `sources`",
            "secured       no: it came by udp",
            "pbx           TAKES IT: its source is in 192.0.2.0/24, udp is one of its transports",
            "later         not reached; it would take it too: its source is in 192.0.2.9/32",
        ],
    );
}

#[test]
fn what_is_read_of_the_caller_is_told() {
    let (text, _) = told(&[PBX], INVITE, &options());
    has(
        &text,
        &[
            "caller        +13175550142, from P-Asserted-Identity",
            "trusted       yes: verified with attestation A",
            "verified      passed, attestation A",
            "name          none",
            "account       1001",
            "diverted from +13175550199",
            "its side can  100rel, timer, UPDATE",
            "We would answer it with 200: PCMA, telephone-event 101.",
        ],
    );
    assert!(!text.contains("secret-session-name"), "{text}");
    assert!(!text.contains("James"), "the name is of another header: {text}");
    let late = INVITE.split("Content-Type").next().unwrap().to_string() + "\n";
    has(&told(&[PBX], &late, &options()).0, &["offer of our own", "late offer"]);
}

#[test]
fn a_refusal_is_told_with_its_reason() {
    let strict = format!("{PBX}\nreliable = 'required'\nsession_min_s = 600");
    let without = INVITE.replace("Supported: timer, 100rel", "Supported: timer");
    let short = INVITE.replace("Supported: ", "Session-Expires: 90\nSupported: ");
    let unknown = INVITE.replace("Supported: ", "Require: teleport\nSupported: ");
    let only_g729 = INVITE.replace("RTP/AVP 18 8 101", "RTP/AVP 18 101");
    let secured = INVITE.replace("RTP/AVP", "RTP/SAVP");
    let running = INVITE.replace("To: <sip:+13175550100@203.0.113.5>", "To: <sip:a@h>;tag=9");
    let replacing = INVITE.replace("Supported: ", "Replaces: x;to-tag=1;from-tag=2\nSupported: ");
    for (message, parts) in [
        (without, ["421", "wants 100rel"]),
        (short, ["422", "below 600 s"]),
        (unknown, ["420", "requires teleport"]),
        (only_g729, ["488", "none of the codecs that we accept"]),
        (secured, ["488", "SRTP"]),
        (running, ["481", "belongs to a call"]),
        (replacing, ["481", "unless the call it replaces runs here"]),
    ] {
        let (text, verdict) = told(&[&strict], &message, &options());
        assert_eq!(verdict, Verdict::Taken, "{text}");
        has(&text, &["We would refuse it with ", parts[0], parts[1]]);
    }
    let fixed = format!("{PBX}\naccept_replaces = false");
    let replacing = INVITE.replace("Supported: ", "Replaces: x;to-tag=1;from-tag=2\nSupported: ");
    has(&told(&[&fixed], &replacing, &options()).0, &["403", "`accept_replaces`"]);
    let ping =
        INVITE.replace("INVITE", "OPTIONS").split("Content-Type").next().unwrap().to_string();
    has(&told(&[PBX], &ping, &options()).0, &["OPTIONS for", "We would answer it with 200"]);
}

#[test]
fn what_to_write_is_told_when_no_trunk_takes_it() {
    let from = Some("[2001:db8::7]:5060".parse().unwrap());
    let (text, verdict) = told(&[PBX], INVITE, &Options { from, ..options() });
    assert_eq!(verdict, Verdict::Unknown);
    let block = text.split("[[trunk]]").nth(1).unwrap();
    let profile: toml::Table = toml::from_str(block).unwrap();
    assert_eq!(profile["sources"][0].as_str(), Some("2001:db8::7/128"));
    assert!(!text.contains("guessed"), "{text}");
}

#[test]
fn certificates_and_users_are_taken_into_account() {
    let teams = "name = 'teams'\ntransports = ['tls']\ncertificates = ['*.pstnhub.example']";
    let users = "name = 'users'\nusers = [{ username = 'edge', password = 'hidden-password' }]";
    let tls = Options { transport: Some(Transport::Tls), ..options() };
    let (text, verdict) = told(&[teams], INVITE, &tls);
    assert_eq!(verdict, Verdict::Unknown);
    has(&text, &["no: no verified TLS client certificate was shown"]);
    let certificates = vec!["sip.pstnhub.example".to_string()];
    let (text, _) = told(&[teams], INVITE, &Options { certificates, ..tls });
    has(&text, &["TAKES IT", "the certificate shown is for *.pstnhub.example", "with 200"]);
    let (text, verdict) = told(&[users], INVITE, &options());
    assert_eq!(verdict, Verdict::Taken);
    has(&text, &["must prove to be edge (digest)", "gets 401 first", "with 200"]);
    assert!(!text.contains("hidden-password"));
}

#[test]
fn what_is_no_request_is_refused_and_nothing_of_it_shown() {
    let hostile =
        INVITE.replace("James Walker", "\u{1b}[31mred").replace("+13175550142", "x\u{1b}[2J");
    let (text, _) = told(&[PBX], &hostile, &options());
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let nameless = INVITE.replace("192.0.2.9:5062;branch", "pbx.example.com;branch");
    for (message, part) in [
        ("", "nothing in it"),
        ("hello, world", "no SIP request"),
        ("SIP/2.0 200 OK\r\n\r\n", "no SIP request"),
        (
            &*INVITE.replace("INVITE sip:+13175550100@203.0.113.5 SIP/2.0", "SIP/2.0 200 OK"),
            "a response",
        ),
        (nameless.as_str(), "--from"),
    ] {
        let (text, verdict) = told(&[PBX], message, &options());
        assert_eq!(verdict, Verdict::Unreadable, "{message}: {text}");
        has(&text, &[part]);
    }
}

/// As sent, with CRLF and a length that counts, it is the same request.
#[test]
fn line_ends_do_not_matter() {
    let (head, body) = INVITE.split_once("\n\n").unwrap();
    let body = body.replace('\n', "\r\n");
    let head = head.replace('\n', "\r\n").replace("9999", &body.len().to_string());
    let sent = format!("{head}\r\n\r\n{body}");
    assert_eq!(told(&[PBX], &sent, &options()), told(&[PBX], INVITE, &options()));
}

#[test]
fn the_list_tells_what_each_profile_is_for() {
    let list = list();
    assert_eq!(list.lines().count(), 12, "{list}");
    has(&list, &["voipms      VoIP.ms: calls come only to where we are registered"]);
}
