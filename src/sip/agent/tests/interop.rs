//! The problems that trunks and PBXs are known for, each by its name. What lies below the agent is
//! tested where it lives: SDP in `sip::offer`, keys in `rtp::telephone_event` and `media::digit`,
//! latching in `rtp::latch`, routes in `sip::dialog`.

use super::peer::{Scripted, field};
use super::*;
use crate::sip::offer::{self, Codec, Direction, Local, Silence, SrtpPolicy, SrtpSeed};
use crate::sip::transport::Listener;

const SDP: &str = "Content-Type: application/sdp\r\n";
const CONTACT: &str = "Contact: <sip:a@192.0.2.1:5060>\r\n";

fn local() -> Local {
    Local {
        address: "192.0.2.2".parse().unwrap(),
        port: 4000,
        codecs: vec![Codec::Pcmu, Codec::Pcma],
        silence: Silence::Packets,
        events: true,
        session_id: 1,
        session_version: 1,
        srtp: SrtpPolicy::Off,
        keys: SrtpSeed::new([1; 32]),
    }
}

/// A re-INVITE with this description, answered as a call does; what was agreed on.
fn reinvited(peer: &mut Scripted, cseq: u32, sdp: &str) -> offer::Negotiated {
    let branch = format!("z9hG4bKre{cseq}");
    let headers = format!("{SDP}{CONTACT}");
    peer.receive(&peer.in_dialog("INVITE", cseq, &branch, &headers, sdp));
    let Some(Event::Reoffered { leg, sdp: Some(offer) }) = peer.events().pop() else {
        panic!("no offer");
    };
    let (sdp, negotiated) = offer::answer(&offer, &local()).unwrap();
    peer.command(Command::Answer { leg, sdp });
    peer.sent("SIP/2.0 200");
    peer.receive(&peer.in_dialog("ACK", cseq, &format!("{branch}a"), "", ""));
    assert!(matches!(peer.events()[..], [Event::Established { .. }]));
    negotiated
}

#[test]
fn problem_1_late_offer_and_a_duplicate_ack() {
    let mut peer = Scripted::new();
    peer.receive(&peer.request("INVITE", 1, "z9hG4bK1", None, CONTACT, ""));
    let (leg, invitation) = peer.offered();
    assert_eq!(invitation.offer, None);
    peer.command(Command::Answer { leg, sdp: offer::offer(&local()) });
    let ok = peer.sent("SIP/2.0 200");
    assert!(ok.contains("m=audio 4000 RTP/AVP 0 8 101"));
    for _ in 0..3 {
        peer.receive(&peer.request("ACK", 1, "z9hG4bK2", Some(&ok), SDP, OFFER));
    }
    assert!(matches!(&peer.events()[..], [Event::Established { sdp: Some(_), .. }]));
    // A re-INVITE without an offer asks for ours as well.
    peer.to = field(&ok, "To").to_string();
    peer.receive(&peer.in_dialog("INVITE", 2, "z9hG4bK3", CONTACT, ""));
    assert!(matches!(peer.events()[..], [Event::Reoffered { sdp: None, .. }]));
}

#[test]
fn problem_2_hold_and_unhold() {
    let mut peer = Scripted::up("");
    let with = |attribute: &str| format!("{OFFER}a={attribute}\r\n");
    let held = reinvited(&mut peer, 2, &with("sendonly"));
    assert_eq!(held.direction, Direction::RecvOnly);
    assert_eq!(reinvited(&mut peer, 3, &with("inactive")).direction, Direction::Inactive);
    let old = OFFER.replace("c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0");
    let held = reinvited(&mut peer, 4, &old);
    assert_eq!((held.direction, held.remote), (Direction::RecvOnly, None));
    let resumed = reinvited(&mut peer, 5, &with("sendrecv"));
    assert_eq!(resumed.direction, Direction::SendRecv);
    assert_eq!(resumed.remote, Some(address("192.0.2.1:4000")));
    assert_eq!(peer.agent.calls(), 1);
}

#[test]
fn problem_3_a_reinvite_changes_the_codec() {
    let mut peer = Scripted::up("");
    assert_eq!(reinvited(&mut peer, 2, OFFER).codec, Codec::Pcmu);
    let other = OFFER.replace("RTP/AVP 0", "RTP/AVP 8").replace("4000", "4010");
    let changed = reinvited(&mut peer, 3, &other);
    assert_eq!((changed.codec, changed.remote), (Codec::Pcma, Some(address("192.0.2.1:4010"))));
}

#[test]
fn problem_4_session_timers_keep_a_long_call() {
    // The peer insists on being refreshed by us: a call of an hour lives on its refreshes.
    let headers = "Supported: timer\r\nSession-Expires: 1800;refresher=uas\r\nAllow: UPDATE\r\n";
    let mut peer = Scripted::new().called(headers);
    for _ in 0..4 {
        peer.pass(Duration::from_millis(900_100));
        let update = peer.sent("UPDATE ");
        let granted = "Session-Expires: 1800;refresher=uac\r\n";
        peer.respond_with(&update, "200 OK", "them", granted, "");
    }
    assert!(peer.transmitted.is_empty() && peer.events().is_empty());
    // One that knows nothing of timers is left alone.
    let mut plain = Scripted::new().called("");
    plain.pass(Duration::from_secs(7_200));
    assert!(plain.transmitted.is_empty() && plain.agent.calls() == 1);
}

#[test]
fn problem_5_a_private_contact_behind_nat() {
    let mut peer = Scripted::new();
    let invite = peer
        .invite()
        .replace("192.0.2.1:5060;branch", "10.0.0.7:5060;branch")
        .replace("<sip:a@192.0.2.1:5060>", "<sip:a@10.0.0.7:5060>");
    let outside = "203.0.113.9:6001";
    peer.receive_from(&invite, outside);
    assert_eq!(peer.destinations, [address(outside)], "even without rport");
    let (leg, _) = peer.offered();
    peer.command(Command::Answer { leg, sdp: OFFER.into() });
    let ok = peer.sent("SIP/2.0 200");
    peer.receive_from(&peer.request("ACK", 1, "z9hG4bK2", Some(&ok), "", ""), outside);
    peer.command(hang_up(leg));
    assert!(peer.sent("BYE ").starts_with("BYE sip:a@10.0.0.7:5060 "));
    assert_eq!(peer.destinations.last(), Some(&address(outside)));
}

/// Reached by UDP and TCP, from inside at another address.
fn two_listeners() -> Settings {
    let mut listeners = vec![
        Listener::new(Transport::Udp, address("203.0.113.5:5060")),
        Listener::new(Transport::Tcp, address("203.0.113.5:5062")),
    ];
    for listener in &mut listeners {
        listener.inside.push(("10.0.0.0/8".parse().unwrap(), "10.0.0.5".parse().unwrap()));
    }
    Settings { listeners, ..settings(US) }
}

fn over(transport: Transport, from: &str) -> Peer {
    let stream = transport != Transport::Udp;
    Peer {
        transport,
        listener: usize::from(stream),
        address: address(from),
        connection: stream.then_some(9),
    }
}

fn receive(peer: &mut Scripted, from: Peer, text: &str) {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let input = Input::Received { peer: from, certificate: None, bytes };
    peer.agent.handle(peer.now, input);
    peer.collect();
}

#[test]
fn problem_6_our_own_contact_is_right_for_each_transport_and_network() {
    for (transport, from, want) in [
        (Transport::Udp, "198.51.100.1:5060", "<sip:203.0.113.5:5060>"),
        (Transport::Udp, "10.1.2.3:5060", "<sip:10.0.0.5:5060>"),
        (Transport::Tcp, "198.51.100.1:40000", "<sip:203.0.113.5:5062;transport=tcp>"),
    ] {
        let mut peer = Scripted::with(two_listeners());
        let theirs = format!("<sip:a@{from}>");
        let invite = peer.invite().replace("<sip:a@192.0.2.1:5060>", &theirs);
        receive(&mut peer, over(transport, from), &invite);
        let leg = peer.offered().0;
        peer.command(Command::Answer { leg, sdp: OFFER.into() });
        let ok = peer.sent("SIP/2.0 200");
        assert_eq!(field(&ok, "Contact"), want);
        let ack = peer.request("ACK", 1, "z9hG4bK2", Some(&ok), "", "");
        receive(&mut peer, over(transport, from), &ack);
        peer.command(hang_up(leg));
        let bye = peer.sent("BYE ");
        let (_, ours) = want.split_once(':').unwrap();
        let ours = ours.split([';', '>']).next().unwrap();
        assert!(field(&bye, "Via").starts_with(&format!("SIP/2.0/{} {ours};", transport.name())));
    }
}

#[test]
fn problem_7_a_private_address_in_the_sdp() {
    // What the peer writes is only where we begin; `rtp::latch` takes its packets from elsewhere.
    let mut peer = Scripted::up("");
    let private = OFFER.replace("c=IN IP4 192.0.2.1", "c=IN IP4 10.0.0.7");
    let agreed = reinvited(&mut peer, 2, &private);
    assert_eq!(agreed.remote, Some(address("10.0.0.7:4000")));
    assert_eq!(agreed.direction, Direction::SendRecv);
}

#[test]
fn problem_8_the_route_set_leads_ack_and_bye() {
    let mut peer = Scripted::new();
    let invite = peer.place("sip:x@192.0.2.1");
    let routes = "Record-Route: <sip:192.0.2.1:5070;lr>\r\nRecord-Route: <sip:192.0.2.1;lr>\r\n";
    let headers = format!("{routes}Contact: <sip:x@198.51.100.77>\r\n{SDP}");
    peer.respond_with(&invite, "200 OK", "x", &headers, OFFER);
    let ack = peer.sent("ACK sip:x@198.51.100.77 ");
    assert!(ack.contains("Route: <sip:192.0.2.1;lr>\r\nRoute: <sip:192.0.2.1:5070;lr>\r\n"));
    assert_eq!(peer.destinations.last(), Some(&address("192.0.2.1:5060")), "first hop, reversed");
    let Some(Event::Answered { leg, .. }) = peer.events().pop() else { panic!("not answered") };
    peer.command(hang_up(leg));
    peer.sent("BYE sip:x@198.51.100.77 ");
    assert_eq!(peer.destinations.last(), Some(&address("192.0.2.1:5060")));
}

#[test]
fn problem_9_responses_and_bye_stay_on_the_stream() {
    let mut peer = Scripted::with(two_listeners());
    let stream = over(Transport::Tcp, "198.51.100.1:40000");
    let invite = peer.invite().replace("<sip:a@192.0.2.1:5060>", "<sip:a@198.51.100.1>");
    peer.agent.handle(
        peer.now,
        Input::Received {
            peer: stream,
            certificate: None,
            bytes: Bytes::copy_from_slice(invite.as_bytes()),
        },
    );
    let mut connections = Vec::new();
    let drain = |peer: &mut Scripted, connections: &mut Vec<Option<u64>>| {
        let mut leg = None;
        while let Some(output) = peer.agent.poll() {
            match output {
                Output::Transmit { destination, bytes } => {
                    connections.push(destination.connection);
                    peer.transmitted.push(String::from_utf8(bytes.to_vec()).unwrap());
                }
                Output::Event(Event::Offered { leg: offered, .. }) => leg = Some(offered),
                _ => {}
            }
        }
        leg
    };
    let leg = drain(&mut peer, &mut connections).unwrap();
    let answer = Command::Answer { leg, sdp: OFFER.into() };
    peer.agent.handle(peer.now, Input::Command(answer));
    drain(&mut peer, &mut connections);
    let ok = peer.sent("SIP/2.0 200");
    let ack = peer.request("ACK", 1, "z9hG4bK2", Some(&ok), "", "");
    let bytes = Bytes::copy_from_slice(ack.as_bytes());
    let received = Input::Received { peer: stream, certificate: None, bytes };
    peer.agent.handle(peer.now, received);
    peer.agent.handle(peer.now, Input::Command(hang_up(leg)));
    drain(&mut peer, &mut connections);
    peer.sent("BYE ");
    assert_eq!(connections, [Some(9), Some(9), Some(9)], "100, 200, BYE");
    // The stream is lost before the BYE is answered: the leg ends all the same.
    peer.agent.handle(peer.now, Input::Unreachable(stream));
    assert_eq!(peer.agent.calls(), 0);
}

#[test]
fn problem_10_keys_by_info() {
    let mut peer = Scripted::up("");
    for (cseq, kind, body, status) in [
        (2, "application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", "SIP/2.0 200"),
        (3, "application/dtmf", "#", "SIP/2.0 200"),
        (4, "application/x-other", "5", "SIP/2.0 415"),
        (5, "application/dtmf-relay", "Signal=99\r\n", "SIP/2.0 200"),
    ] {
        let headers = format!("Content-Type: {kind}\r\n");
        peer.receive(&peer.in_dialog("INFO", cseq, &format!("z9hG4bKi{cseq}"), &headers, body));
        peer.sent(status);
    }
    let keys: Vec<u8> = peer
        .events()
        .iter()
        .map(|event| match event {
            Event::Key { key, .. } => *key.expose(),
            _ => panic!("no key"),
        })
        .collect();
    assert_eq!(keys, *b"5#");
    assert_eq!(peer.agent.counters().unread_infos, 1);
    // A key by INFO is one press, though the packet came twice.
    let info = peer.in_dialog("INFO", 6, "z9hG4bKi6", "Content-Type: application/dtmf\r\n", "7");
    peer.receive(&info);
    peer.receive(&info);
    assert_eq!(peer.events().len(), 1);
}

#[test]
fn problem_11_every_media_line_is_answered_in_order_and_multipart_is_read() {
    let several = format!("{OFFER}m=image 5000 udptl t38\r\nm=video 5002 RTP/AVP 96\r\n");
    let mut peer = Scripted::up("");
    let headers = format!("{SDP}{CONTACT}");
    peer.receive(&peer.in_dialog("INVITE", 2, "z9hG4bKm", &headers, &several));
    let Some(Event::Reoffered { leg, sdp: Some(offer) }) = peer.events().pop() else {
        panic!("no offer");
    };
    let (sdp, _) = offer::answer(&offer, &local()).unwrap();
    peer.command(Command::Answer { leg, sdp });
    let ok = peer.sent("SIP/2.0 200");
    let lines: Vec<&str> = ok.split("\r\n").filter(|line| line.starts_with("m=")).collect();
    assert_eq!(lines, ["m=audio 4000 RTP/AVP 0", "m=image 0 udptl t38", "m=video 0 RTP/AVP 96"]);
    peer.receive(&peer.in_dialog("ACK", 2, "z9hG4bKma", "", ""));
    peer.events();
    let body = format!(
        "--b\r\nContent-Type: application/isup\r\n\r\n\u{1}\u{2}\r\n--b\r\n\
         Content-Type: application/sdp\r\n\r\n{OFFER}\r\n--b--\r\n"
    );
    let headers = format!("Content-Type: multipart/mixed;boundary=b\r\n{CONTACT}");
    peer.receive(&peer.in_dialog("INVITE", 3, "z9hG4bKn", &headers, &body));
    let Some(Event::Reoffered { sdp: Some(sdp), .. }) = peer.events().pop() else {
        panic!("no offer");
    };
    assert!(sdp.starts_with(OFFER.as_bytes()));
}

#[test]
fn problem_13_notify_in_every_shape_and_no_bye_before_the_outcome() {
    let mut peer = Scripted::up("");
    let leg = peer.leg;
    let refer = Command::Refer {
        leg,
        target: "sip:agent@198.51.100.5".into(),
        replaces: None,
        headers: Vec::new(),
    };
    peer.command(refer);
    let refer = peer.sent("REFER ");
    // NOTIFY overtakes the 202, bears another id, and says nothing at first.
    peer.notify("Event: refer;id=99\r\nSubscription-State: active\r\n|10|");
    peer.sent("SIP/2.0 200");
    peer.respond(&refer, "202 Accepted");
    peer.notify("Event: refer\r\nSubscription-State: active\r\n|11|SIP/2.0 183 Session Progress");
    peer.sent("SIP/2.0 200");
    peer.pass(Duration::from_secs(60));
    assert!(peer.transmitted.is_empty(), "no BYE while the outcome is open");
    peer.notify("Event: refer\r\nSubscription-State: terminated\r\n|12|SIP/2.0 200 OK");
    assert_eq!(peer.referred(), [100, 183, 200]);
    peer.receive(&peer.in_dialog("BYE", 13, "z9hG4bKb", "", ""));
    peer.transmitted.clear();
    peer.notify("Event: refer\r\nSubscription-State: terminated\r\n|14|SIP/2.0 200 OK");
    peer.sent("SIP/2.0 200");
}

#[test]
fn problem_14_options_for_any_number_and_503_when_draining() {
    let mut peer = Scripted::trunk("");
    for (cseq, user) in [(1, "ping@"), (2, "+14155550100@"), (3, "")] {
        let options = peer.request("OPTIONS", cseq, &format!("z9hG4bKo{cseq}"), None, "", "");
        peer.receive(
            &options.replace("sip:1000@192.0.2.2 SIP", &format!("sip:{user}192.0.2.2 SIP")),
        );
        let ok = peer.sent("SIP/2.0 200");
        assert!(ok.contains("Supported: 100rel, timer, replaces\r\n"));
    }
    peer.command(Command::Drain);
    peer.receive(&peer.request("OPTIONS", 4, "z9hG4bKo4", None, "", ""));
    assert!(peer.sent("SIP/2.0 503").contains("Retry-After: "));
}

#[test]
fn problem_14_a_flapping_trunk_is_damped() {
    let mut peer = Scripted::trunk(
        "proxy = 'sip:carrier.example'\noptions_s = 60\ncontact_host = 'pay.example'",
    );
    let trunk = peer.agent.settings.trunks[0].clone();
    peer.command(Command::Watch { trunk, server: Peer::udp(address(PEER)) });
    // `a`nswered, `l`ost, or `r`efused by somebody on the way.
    for outcome in "aallalllaala".chars() {
        let options = peer.sent("OPTIONS sip:carrier.example ");
        assert_eq!(field(&options, "Contact"), "<sip:pay.example:5060>");
        match outcome {
            'a' => peer.respond(&options, "404 Not Found"),
            'r' => peer.respond(&options, "503 Service Unavailable"),
            _ => {}
        }
        peer.transmitted.clear();
        peer.pass(Duration::from_millis(60_100));
        // Before it stand repetitions of the one that was lost.
        peer.transmitted = peer.transmitted.pop().into_iter().collect();
    }
    assert_eq!(peer.reachable, [true, false, true]);
}

#[test]
fn problem_14_a_challenge_with_sha_256_only() {
    let mut peer = Scripted::trunk("[account]\nusername = 'us'\npassword = 'tomato'");
    let invite = peer.place("sip:x@192.0.2.1");
    let challenge = "WWW-Authenticate: Digest realm=\"x\", nonce=\"n\", algorithm=SHA-256, \
                     qop=\"auth,auth-int\"\r\n";
    peer.respond_with(&invite, "401 Unauthorized", "one", challenge, "");
    let again = peer.sent("INVITE ");
    let credentials = field(&again, "Authorization");
    assert!(credentials.contains("SHA-256") && credentials.contains("uri=\"sip:x@192.0.2.1\""));
}

#[test]
fn problem_15_required_extensions_identities_and_odd_messages() {
    let mut peer = Scripted::new();
    let odd = peer
        .invite()
        .replace("INVITE sip:1000@", "INVITE sip:1000;ext=7@")
        .replace("From: ", "Require: 100rel, timer\r\nf: J\u{fc}rgen ")
        .replace("Contact:", "Diversion: <sip:1@h>\r\nDiversion: <sip:2@h>, <sip:3@h>\r\nContact:");
    let bytes: Vec<u8> = odd.chars().map(|c| c as u8).collect();
    peer.agent.handle(peer.now, Input::datagram(address(PEER), bytes.into()));
    peer.collect();
    let (leg, invitation) = peer.offered();
    assert_eq!(invitation.dialled, "1000", "`;` in the user part, Latin-1 in a name");
    let diversions = invitation.headers.iter().filter(|(name, _)| name == "Diversion").count();
    assert_eq!(diversions, 2);
    // A large INVITE arrives whole.
    let large = format!("X-Large: {}\r\n", "x".repeat(8_000)).repeat(7);
    let large = peer.invite().replace("Contact:", &format!("{large}Contact:"));
    let large = large.replace("Call-ID: c1", "Call-ID: c2").replace("z9hG4bK1", "z9hG4bKlarge");
    assert!(large.len() > 50_000);
    peer.receive(&large);
    peer.offered();
    peer.command(Command::Answer { leg, sdp: OFFER.into() });
    // The ACK is lost: the 200 comes again; the INVITE over another path is no second call.
    peer.transmitted.clear();
    peer.pass(Duration::from_millis(600));
    peer.sent("SIP/2.0 200");
    peer.receive(&odd.replace('\u{fc}', "u").replace("z9hG4bK1", "z9hG4bKother"));
    peer.sent("SIP/2.0 482");
}
