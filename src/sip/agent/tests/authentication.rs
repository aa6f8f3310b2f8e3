//! Digest on both sides, registration, and who is let in.

use super::peer::{Scripted, field};
use super::*;
use crate::sip::auth::{Client, Credentials};
use crate::sip::model::{Headers, Method};

const SDP: &str = "Content-Type: application/sdp\r\n";
const ACCOUNT: &str = "[account]\nusername = 'us'\npassword = 'tomato'";

/// A challenge as a trunk writes it.
const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"x\", nonce=\"n1\", qop=\"auth\"\r\n";

#[test]
fn a_challenged_call_is_placed_once_more() {
    let mut peer = Scripted::trunk(ACCOUNT);
    let invite = peer.place("sip:x@192.0.2.1");
    peer.respond_with(&invite, "401 Unauthorized", "one", CHALLENGE, "");
    peer.sent("ACK ");
    let again = peer.sent("INVITE ");
    assert_eq!(field(&again, "CSeq"), "2 INVITE");
    let credentials = field(&again, "Authorization");
    assert!(credentials.contains("username=\"us\"") && credentials.contains("nc=00000001"));
    assert!(!again.contains("tomato"));
    assert_eq!(field(&again, "Call-ID"), field(&invite, "Call-ID"));
    assert_ne!(field(&again, "Via"), field(&invite, "Via"));
    peer.respond_with(&again, "200 OK", "one", SDP, OFFER);
    let ack = peer.sent("ACK ");
    assert_eq!((field(&ack, "CSeq"), field(&ack, "Authorization")), ("2 ACK", credentials));
    let Some(Event::Answered { leg, .. }) = peer.events().pop() else { panic!("not answered") };
    peer.command(hang_up(leg));
    let bye = peer.sent("BYE ");
    assert!(field(&bye, "Authorization").contains("nc=00000002"), "known from here on");
    assert_eq!(field(&bye, "CSeq"), "3 BYE");
    // Another nonce: the BYE goes out once more.
    let stale = CHALLENGE.replace("n1\"", "n2\", stale=true");
    peer.respond_with(&bye, "401 Unauthorized", "one", &stale, "");
    let bye = peer.sent("BYE ");
    assert!(field(&bye, "Authorization").contains("nonce=\"n2\""));
    peer.respond(&bye, "200 OK");
    assert_eq!(peer.agent.calls(), 0);
}

#[test]
fn a_wrong_password_or_none_ends_the_call() {
    let mut peer = Scripted::trunk(ACCOUNT);
    let invite = peer.place("sip:x@192.0.2.1");
    peer.respond_with(&invite, "401 Unauthorized", "one", CHALLENGE, "");
    let again = peer.sent("INVITE ");
    peer.respond_with(&again, "401 Unauthorized", "one", CHALLENGE, "");
    let refused = |events: &[Event]| {
        matches!(events, [Event::Ended { cause: Cause::Refused { status: 401, .. }, .. }])
    };
    assert!(refused(&peer.events()));
    let mut peer = Scripted::new();
    let invite = peer.place("sip:x@192.0.2.1");
    peer.respond_with(&invite, "401 Unauthorized", "one", CHALLENGE, "");
    assert!(refused(&peer.events()));
    assert_eq!(peer.agent.counters().unproved, 1);
}

#[test]
fn a_transfer_and_a_proxy_that_ask_who_we_are() {
    let mut peer = Scripted::trunk(ACCOUNT).called("");
    let leg = peer.leg;
    let (replaces, headers) = (None, Vec::new());
    let target = "sip:agent@192.0.2.5".to_string();
    peer.command(Command::Refer { leg, target, replaces, headers });
    let refer = peer.sent("REFER ");
    let challenge = CHALLENGE.replace("WWW-", "Proxy-");
    peer.respond_with(&refer, "407 Proxy Authentication Required", "them", &challenge, "");
    let again = peer.sent("REFER ");
    assert!(!field(&again, "Proxy-Authorization").is_empty());
    assert_eq!((field(&refer, "CSeq"), field(&again, "CSeq")), ("1 REFER", "2 REFER"));
    assert_eq!(field(&again, "Refer-To"), field(&refer, "Refer-To"));
    peer.respond(&again, "202 Accepted");
    assert_eq!(peer.referred(), [100]);
}

/// What a client says to our challenge.
fn credentials(challenge: &str, password: &str) -> String {
    let mut headers = Headers::default();
    for line in challenge.split("\r\n").filter(|line| line.starts_with("WWW-Authenticate: ")) {
        headers.push("WWW-Authenticate", &line["WWW-Authenticate: ".len()..]);
    }
    let mut client = Client::default();
    let ours = [Credentials::new("pbx", password.into(), None)];
    client.challenged(401, &headers, &ours).unwrap();
    let fields = client.authorize(&Method::INVITE, "sip:1000@192.0.2.2", b"", "cnonce");
    fields.into_iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

#[test]
fn callers_prove_who_they_are() {
    let users = "name = 'pbx'\n[[users]]\nusername = 'pbx'\npassword = 'carrot'";
    let mut peer = Scripted::trunk(users);
    let next = |peer: &Scripted, headers: &str, cseq: u32| {
        let invite = peer.invite().replace("Contact:", &format!("{headers}Contact:"));
        invite
            .replace("CSeq: 1 ", &format!("CSeq: {cseq} "))
            .replace("z9hG4bK1", &format!("z9hG4bKd{cseq}"))
    };
    peer.receive(&next(&peer, "", 1));
    let challenge = peer.sent("SIP/2.0 401");
    let algorithms: Vec<&str> =
        challenge.split("\r\n").filter(|line| line.starts_with("WWW-Authenticate: ")).collect();
    assert!(algorithms[0].contains("SHA-256") && algorithms[1].contains("MD5"), "{challenge}");
    peer.receive(&next(&peer, &credentials(&challenge, "potato"), 2));
    let challenge = peer.sent("SIP/2.0 401");
    assert_eq!(peer.intrusions.len(), 1);
    assert_eq!(peer.intrusions[0].reason, "auth-failed");
    assert!(peer.events().is_empty());
    let right = credentials(&challenge, "carrot");
    peer.receive(&next(&peer, &right, 3));
    assert_eq!(peer.offered().1.trunk.name, "pbx");
    // The same credentials once more are somebody else's.
    let replayed = next(&peer, &right, 4).replace("Call-ID: c1", "Call-ID: c9");
    peer.receive(&replayed);
    assert!(peer.sent("SIP/2.0 401").contains("stale=true"));
    assert_eq!(peer.agent.counters().unauthenticated, 1);
    peer.receive(&peer.request("OPTIONS", 9, "z9hG4bKo", None, "", ""));
    peer.sent("SIP/2.0 200");
}

#[test]
fn strangers_are_refused_or_get_no_answer() {
    let mut peer = Scripted::trunk("");
    let stranger = "198.51.100.66:5060";
    let invite = peer.invite();
    peer.receive_from(&invite, stranger);
    assert!(peer.sent("SIP/2.0 403").contains("198.51.100.66 is in none of its `sources`"));
    assert_eq!(peer.intrusions.pop().unwrap().reason, "unknown-trunk");
    peer.receive_from(&invite.replace("CSeq:", "User-Agent: friendly-scanner\r\nCSeq:"), stranger);
    assert!(peer.transmitted.is_empty(), "a scanner gets nothing");
    assert_eq!(peer.intrusions.pop().unwrap().reason, "scanner");
    assert!(peer.agent.transactions.is_empty() && peer.events().is_empty(), "nothing is kept");
    let trunks = peer.agent.settings.trunks.clone();
    let strangers = Strangers::Drop;
    let mut silent = Scripted::with(Settings { trunks, strangers, ..settings(US) });
    for number in 0..6 {
        let invite = invite.replace("sip:1000@192.0.2.2 SIP", &format!("sip:10{number}@h SIP"));
        silent.receive_from(&invite, stranger);
        silent.receive_from(&invite.replace("CSeq: 1 INVITE", "CSeq: 1 BYE"), stranger);
    }
    assert!(silent.transmitted.is_empty());
    let reasons: Vec<_> = silent.intrusions.iter().map(|intrusion| intrusion.reason).collect();
    assert_eq!(reasons[..4], ["unknown-trunk"; 4]);
    assert_eq!(reasons[4..], ["scanner"; 2], "one number after the other");
    let counters = silent.agent.counters();
    assert_eq!((counters.strangers, counters.scanners, counters.malformed), (6, 2, 6));
    silent.receive(&silent.invite());
    assert_eq!(silent.offered().0, Leg(1), "whoever may call still can");
}

#[test]
fn calls_come_no_faster_than_allowed() {
    let mut peer = Scripted::with(Settings { calls_per_second: 2, calls_max: 100, ..settings(US) });
    let mut call = 0;
    let mut offer = |peer: &mut Scripted| {
        call += 1;
        let invite = peer
            .invite()
            .replace("z9hG4bK1", &format!("z9hG4bKc{call}"))
            .replace("Call-ID: c1", &format!("Call-ID: c{call}"));
        peer.receive(&invite);
        let branch = format!("=z9hG4bKc{call}\r\n");
        let busy = |sent: &String| sent.starts_with("SIP/2.0 503") && sent.contains(&branch);
        let refused = peer.transmitted.iter().any(busy);
        peer.transmitted.clear();
        !refused
    };
    let burst = (0..10).filter(|_| offer(&mut peer)).count();
    assert_eq!(burst, 4, "two seconds' worth at once");
    peer.now += Duration::from_secs(1);
    assert_eq!((0..10).filter(|_| offer(&mut peer)).count(), 2);
    peer.now += Duration::from_secs(10);
    peer.command(Command::Overloaded(true));
    assert!(!offer(&mut peer), "media does not keep up");
    peer.command(Command::Overloaded(false));
    assert!(offer(&mut peer));
}

#[test]
fn a_trunk_is_registered_with_and_told_so() {
    let register = format!(
        "{ACCOUNT}\n[register]\nregistrar = 'sip:carrier.example'\naddress = 'sip:us@carrier.example'"
    );
    let mut peer = Scripted::trunk(&register);
    let trunk = peer.agent.settings.trunks[0].clone();
    peer.command(Command::Register { trunk, servers: vec![Peer::udp(address(PEER))] });
    let first = peer.sent("REGISTER sip:carrier.example ");
    assert!(field(&first, "Contact").starts_with("<sip:us@192.0.2.2:5060>;expires=3600"));
    peer.respond_with(&first, "401 Unauthorized", "r", CHALLENGE, "");
    let second = peer.sent("REGISTER ");
    assert!(field(&second, "Authorization").contains("username=\"us\""));
    peer.respond_with(&second, "423 Interval Too Brief", "r", "Min-Expires: 7200\r\n", "");
    let third = peer.sent("REGISTER ");
    assert_eq!(field(&third, "Expires"), "7200");
    let granted = "Contact: <sip:us@192.0.2.2:5060>;expires=7200\r\n\
                   Service-Route: <sip:edge.carrier.example;lr>\r\n";
    peer.respond_with(&third, "200 OK", "r", granted, "");
    assert_eq!(peer.registered, [Registered::Yes]);
    let invite = peer.place("sip:x@192.0.2.1");
    assert_eq!(field(&invite, "Route"), "<sip:edge.carrier.example;lr>");
    peer.respond_with(&invite, "486 Busy Here", "x", "", "");
    peer.transmitted.clear();
    peer.pass(Duration::from_secs(6_000));
    assert!(peer.transmitted.is_empty());
    peer.pass(Duration::from_secs(125));
    let refresh = peer.sent("REGISTER ");
    assert_eq!(field(&refresh, "Call-ID"), field(&first, "Call-ID"));
    peer.respond_with(&refresh, "503 Service Unavailable", "r", "", "");
    assert_eq!(peer.registered.last(), Some(&Registered::No(Some(503))));
}

#[test]
fn a_call_that_reaches_nobody_goes_to_the_next_server() {
    let mut peer = Scripted::new();
    let leg = peer.agent.next_leg();
    let servers = ["192.0.2.1:5060", "192.0.2.11:5060", "192.0.2.12:5060", "192.0.2.13:5060"];
    let call = Box::new(Placement {
        target: "sip:x@carrier.example".into(),
        destinations: servers.map(|server| Peer::udp(address(server))).to_vec(),
        from: "sip:us@192.0.2.2".into(),
        headers: Vec::new(),
        sdp: OFFER.into(),
        trunk: Arc::default(),
    });
    peer.command(Command::Invite { leg, call });
    let first = peer.sent("INVITE ");
    peer.pass(Duration::from_millis(32_100));
    peer.transmitted.retain(|sent| *sent != first);
    let second = peer.sent("INVITE ");
    assert_eq!(peer.destinations.last(), Some(&address(servers[1])));
    peer.respond_with(&second, "503 Service Unavailable", "x", "", "");
    peer.sent("ACK ");
    peer.sent("INVITE ");
    assert_eq!(peer.destinations.last(), Some(&address(servers[2])));
    peer.agent.handle(peer.now, Input::Unreachable(Peer::udp(address(servers[2]))));
    peer.collect();
    let last = peer.sent("INVITE ");
    assert_eq!(peer.destinations.last(), Some(&address(servers[3])));
    assert!(peer.events().is_empty());
    peer.respond_with(&last, "200 OK", "x", SDP, OFFER);
    assert!(matches!(peer.events()[..], [Event::Answered { .. }]));
}

/// Two trunks, told apart by their addresses.
fn two_trunks(limits: &str) -> Settings {
    let trunk = |name: &str, source: &str, limits: &str| {
        let text = format!("name = '{name}'\nsources = ['{source}/32']\n{limits}");
        Arc::new(Profile::parse(&text).unwrap())
    };
    let trunks = vec![trunk("wild", "192.0.2.1", limits), trunk("calm", "192.0.2.9", "")];
    Settings { trunks, calls_max: 20, ..settings(US) }
}

/// Whether a new call from this address is taken.
fn is_taken(peer: &mut Scripted, from: &str, call: u32) -> bool {
    let invite = peer
        .invite()
        .replace("z9hG4bK1", &format!("z9hG4bKc{call}"))
        .replace("Call-ID: c1", &format!("Call-ID: c{call}"));
    peer.transmitted.clear();
    peer.receive_from(&invite, from);
    let refused = peer.transmitted.iter().any(|sent| sent.starts_with("SIP/2.0 503"));
    !refused
}

#[test]
fn a_trunk_that_runs_wild_leaves_room_to_the_others() {
    let mut peer = Scripted::with(two_trunks(""));
    let taken = (0..100).filter(|n| is_taken(&mut peer, "192.0.2.1:5060", *n)).count();
    assert_eq!(taken, 18, "nine tenths");
    assert!(is_taken(&mut peer, "192.0.2.9:5060", 200));
    let mut peer = Scripted::with(two_trunks("calls_max = 3"));
    let taken = (0..100).filter(|n| is_taken(&mut peer, "192.0.2.1:5060", *n)).count();
    assert_eq!((taken, peer.agent.calls()), (3, 3));
    let rest = (200..300).filter(|n| is_taken(&mut peer, "192.0.2.9:5060", *n)).count();
    assert_eq!(rest, 17);
    let limited = Settings { calls_max: 1_000, ..two_trunks("calls_per_second = 5") };
    let mut peer = Scripted::with(limited);
    let taken = (0..100).filter(|n| is_taken(&mut peer, "192.0.2.1:5060", *n)).count();
    assert_eq!(taken, 10, "two seconds' worth");
    assert!(is_taken(&mut peer, "192.0.2.9:5060", 200));
    // What ends gives its place back.
    let mut peer = Scripted::with(two_trunks("calls_max = 1")).called("");
    assert!(!is_taken(&mut peer, "192.0.2.1:5060", 1));
    peer.receive(&peer.request("BYE", 2, "z9hG4bKbye", Some(&format!("To: {}", peer.to)), "", ""));
    assert!(is_taken(&mut peer, "192.0.2.1:5060", 2));
}

#[test]
fn made_up_requests_of_a_trunk_do_not_keep_a_call_from_ending() {
    let mut peer = Scripted::trunk("").called("");
    let made_up = "To: <sip:x@y>;tag=none";
    for n in 0..20_000 {
        let branch = format!("z9hG4bKm{n}");
        peer.receive(&peer.request("BYE", 9, &branch, Some(made_up), "", ""));
        let branch = format!("z9hG4bKo{n}");
        let options = peer.request("OPTIONS", 9, &branch, None, "", "");
        peer.receive(&options.replace("Call-ID: c1", &format!("Call-ID: o{n}")));
        peer.transmitted.clear();
    }
    let ours = format!("To: {}", peer.to);
    let bye = peer.request("BYE", 2, "z9hG4bKbye", Some(&ours), "", "");
    peer.receive(&bye);
    let first = peer.sent("SIP/2.0 200");
    assert_eq!(peer.agent.calls(), 0);
    peer.transmitted.clear();
    peer.receive(&bye);
    assert_eq!(peer.sent("SIP/2.0 200"), first, "the same answer, made anew");
}

#[test]
fn repeated_options_get_the_same_answer() {
    let mut peer = Scripted::trunk("");
    let options = peer.request("OPTIONS", 9, "z9hG4bKo", None, "", "");
    peer.receive(&options);
    let first = peer.sent("SIP/2.0 200");
    peer.transmitted.clear();
    peer.receive(&options);
    assert_eq!(peer.sent("SIP/2.0 200"), first);
    assert!(first.contains(";tag=") && first.contains("\r\nAllow:"));
}
