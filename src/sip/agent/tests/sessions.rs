//! 100rel, session timers, re-INVITE and UPDATE, in both roles.

use super::peer::{Scripted, field};
use super::*;

const SDP: &str = "Content-Type: application/sdp\r\n";

/// An INVITE with these headers, offered.
fn offered(mut peer: Scripted, headers: &str) -> (Scripted, Leg) {
    let invite = peer.invite().replace("Contact:", &format!("{headers}Contact:"));
    peer.receive(&invite);
    let leg = peer.offered().0;
    peer.leg = leg;
    peer.transmitted.clear();
    (peer, leg)
}

/// PRACK of a reliable response.
fn prack(peer: &Scripted, response: &str, cseq: u32) -> String {
    let rack = format!("RAck: {} 1 INVITE\r\n", field(response, "RSeq"));
    peer.request("PRACK", cseq, &format!("z9hG4bKp{cseq}"), Some(response), &rack, "")
}

#[test]
fn a_reliable_response_is_repeated_until_its_prack() {
    let (mut peer, leg) = offered(Scripted::new(), "Require: 100rel\r\n");
    peer.command(Command::Ring { leg });
    let ringing = peer.sent("SIP/2.0 180");
    assert!(ringing.contains("Require: 100rel\r\n") && ringing.contains("Contact: "));
    peer.pass(Duration::from_millis(1_600));
    assert_eq!(peer.transmitted, [ringing.clone(), ringing.clone()], "after 0.5 and 1.5 s");
    peer.transmitted.clear();
    peer.command(Command::Answer { leg, sdp: OFFER.into() });
    assert!(peer.transmitted.is_empty(), "the 200 waits for the PRACK");
    let wrong = prack(&peer, &ringing, 2).replace(" 1 INVITE", " 7 INVITE");
    peer.receive(&wrong);
    peer.sent("SIP/2.0 481");
    peer.receive(&prack(&peer, &ringing, 3));
    peer.sent("SIP/2.0 200");
    assert!(peer.sent("SIP/2.0 200").ends_with(OFFER));
}

#[test]
fn a_reliable_response_that_nobody_acknowledges_ends_the_call() {
    let (mut peer, leg) = offered(Scripted::new(), "Require: 100rel\r\n");
    peer.command(Command::Ring { leg });
    peer.pass(Duration::from_secs(33));
    assert!(peer.transmitted.iter().any(|sent| sent.starts_with("SIP/2.0 504")));
    assert!(matches!(peer.events()[..], [Event::Ended { cause: Cause::Timeout, .. }]));
    peer.pass(Duration::from_secs(60));
    assert!(peer.agent.sessions.is_empty() && peer.agent.transactions.is_empty());
}

#[test]
fn sound_before_the_answer() {
    let trunk = Scripted::trunk("reliable = 'supported'\nearly_media = true");
    let (mut peer, leg) = offered(trunk, "Supported: 100rel\r\n");
    peer.command(Command::Early { leg, sdp: OFFER.into() });
    let early = peer.sent("SIP/2.0 183");
    assert!(early.ends_with(OFFER) && early.contains("Require: 100rel"));
    peer.receive(&prack(&peer, &early, 2));
    peer.sent("SIP/2.0 200");
    let other = OFFER.replace("4000", "5000");
    peer.command(Command::Answer { leg, sdp: other.into() });
    assert!(peer.sent("SIP/2.0 200").ends_with(OFFER), "what was agreed early stands");
}

#[test]
fn a_trunk_may_insist_on_reliable_responses() {
    let mut peer = Scripted::trunk("reliable = 'required'");
    peer.receive(&peer.invite());
    assert!(peer.sent("SIP/2.0 421").contains("Require: 100rel\r\n"));
    let (mut peer, leg) = offered(Scripted::trunk("reliable = 'off'"), "Supported: 100rel\r\n");
    peer.command(Command::Ring { leg });
    assert!(!peer.sent("SIP/2.0 180").contains("100rel\r\n"), "it may, but need not");
}

#[test]
fn reliable_responses_of_a_peer_are_acknowledged_once_and_in_order() {
    let mut peer = Scripted::new();
    let invite = peer.place("sip:x@192.0.2.1");
    assert!(field(&invite, "Supported").contains("100rel"));
    let reliable = |rseq: u32| {
        format!("Contact: <sip:x@192.0.2.1:5099>\r\nRequire: 100rel\r\nRSeq: {rseq}\r\n")
    };
    peer.respond_with(&invite, "180 Ringing", "one", &reliable(7), "");
    let prack = peer.sent("PRACK sip:x@192.0.2.1:5099");
    assert_eq!((field(&prack, "RAck"), field(&prack, "CSeq")), ("7 1 INVITE", "2 PRACK"));
    assert!(field(&prack, "To").contains("tag=one"));
    peer.respond_with(&invite, "180 Ringing", "one", &reliable(7), "");
    peer.respond_with(&invite, "180 Ringing", "one", &reliable(9), "");
    assert!(peer.transmitted.is_empty(), "seen before, and too early");
    let progress = peer.events();
    assert_eq!(progress.len(), 1);
    let headers = format!("{}{SDP}", reliable(8));
    peer.respond_with(&invite, "183 Session Progress", "one", &headers, OFFER);
    assert_eq!(field(&peer.sent("PRACK "), "CSeq"), "3 PRACK");
    peer.respond_with(&invite, "200 OK", "one", "Contact: <sip:x@192.0.2.1:5099>\r\n", "");
    assert_eq!(field(&peer.sent("ACK "), "CSeq"), "1 ACK");
    let Some(Event::Answered { leg, sdp }) = peer.events().pop() else { panic!("not answered") };
    assert_eq!(sdp, OFFER.as_bytes(), "the early description is the answer");
    peer.command(hang_up(leg));
    assert_eq!(field(&peer.sent("BYE "), "CSeq"), "4 BYE", "numbers go on after the PRACKs");
}

#[test]
fn a_session_timer_that_is_too_short_gets_422() {
    let mut peer = Scripted::trunk("session_min_s = 300");
    let headers = "Supported: timer\r\nSession-Expires: 120\r\n";
    peer.receive(&peer.invite().replace("Contact:", &format!("{headers}Contact:")));
    assert!(peer.sent("SIP/2.0 422").contains("Min-SE: 300\r\n"));
    let headers = "Supported: timer\r\nSession-Expires: 300;refresher=uac\r\nMin-SE: 300\r\n";
    let again = peer.invite().replace("Contact:", &format!("{headers}Contact:"));
    peer.receive(&again.replace("CSeq: 1", "CSeq: 2").replace("z9hG4bK1", "z9hG4bK2"));
    let leg = peer.offered().0;
    peer.command(Command::Answer { leg, sdp: OFFER.into() });
    let ok = peer.sent("SIP/2.0 200");
    assert!(ok.contains("Session-Expires: 300;refresher=uac\r\n"));
    assert!(ok.contains("Require: timer\r\n"));
}

#[test]
fn a_peer_that_stops_refreshing_is_hung_up() {
    let headers = "Supported: timer\r\nSession-Expires: 120;refresher=uac\r\nAllow: UPDATE\r\n";
    let mut peer = Scripted::new().called(headers);
    peer.pass(Duration::from_secs(80));
    let again = "Supported: timer\r\nSession-Expires: 120;refresher=uac\r\n";
    peer.receive(&peer.in_dialog("UPDATE", 2, "z9hG4bKu", again, ""));
    let ok = peer.sent("SIP/2.0 200");
    assert!(ok.contains("Session-Expires: 120;refresher=uac\r\n") && ok.contains("Contact: "));
    peer.pass(Duration::from_secs(85));
    assert!(peer.transmitted.is_empty() && peer.events().is_empty(), "refreshed");
    peer.pass(Duration::from_secs(6));
    assert!(peer.sent("BYE ").contains("Reason: SIP;cause=408;text=\"session expired\""));
    assert!(matches!(peer.events()[..], [Event::Ended { cause: Cause::Timeout, .. }]));
}

#[test]
fn we_refresh_when_it_is_our_turn() {
    let headers = "Supported: timer\r\nSession-Expires: 120;refresher=uas\r\nAllow: UPDATE\r\n";
    let mut peer = Scripted::new().called(headers);
    peer.pass(Duration::from_secs(61));
    let update = peer.sent("UPDATE ");
    assert!(update.contains("Session-Expires: 120;refresher=uac\r\n"));
    assert!(update.contains("Content-Length: 0\r\n"));
    peer.respond_with(&update, "200 OK", "them", "Session-Expires: 120;refresher=uac\r\n", "");
    peer.pass(Duration::from_secs(61));
    // The next one is not answered: RFC 4028 §10.
    peer.sent("UPDATE ");
    peer.pass(Duration::from_secs(33));
    assert!(peer.sent("BYE ").contains("Reason: SIP;cause=408"));
    assert!(matches!(peer.events()[..], [Event::Ended { cause: Cause::Timeout, .. }]));
}

#[test]
fn without_update_we_refresh_by_the_same_offer() {
    let headers = "Supported: timer\r\nSession-Expires: 120;refresher=uas\r\n";
    let mut peer = Scripted::new().called(headers);
    peer.pass(Duration::from_secs(61));
    let reinvite = peer.sent("INVITE ");
    assert!(reinvite.ends_with(OFFER), "nothing changes");
    let granted = format!("Session-Expires: 120;refresher=uac\r\n{SDP}");
    peer.respond_with(&reinvite, "200 OK", "them", &granted, OFFER);
    let ack = peer.sent("ACK ");
    peer.respond_with(&reinvite, "200 OK", "them", &granted, OFFER);
    assert_eq!(peer.sent("ACK "), ack, "each 200 gets its ACK");
    assert!(peer.events().is_empty(), "a refresh is no news");
    peer.pass(Duration::from_secs(40));
    assert_eq!(peer.agent.calls(), 1);
}

#[test]
fn our_own_calls_negotiate_a_session_timer() {
    let mut peer = Scripted::new();
    let invite = peer.place("sip:x@192.0.2.1");
    assert_eq!((field(&invite, "Session-Expires"), field(&invite, "Min-SE")), ("1800", "90"));
    peer.respond_with(&invite, "422 Session Interval Too Small", "x", "Min-SE: 3600\r\n", "");
    peer.sent("ACK ");
    let again = peer.sent("INVITE ");
    assert_eq!((field(&again, "Session-Expires"), field(&again, "Min-SE")), ("3600", "3600"));
    assert_eq!(field(&again, "CSeq"), "2 INVITE");
    assert_eq!(field(&again, "Call-ID"), field(&invite, "Call-ID"));
    let granted = format!("Session-Expires: 3600;refresher=uac\r\nAllow: UPDATE\r\n{SDP}");
    peer.respond_with(&again, "200 OK", "x", &granted, OFFER);
    assert_eq!(field(&peer.sent("ACK "), "CSeq"), "2 ACK");
    peer.pass(Duration::from_secs(1_801));
    assert_eq!(field(&peer.sent("UPDATE "), "CSeq"), "3 UPDATE");
}

#[test]
fn both_offer_at_once() {
    let mut peer = Scripted::up("");
    let leg = peer.leg;
    let other = OFFER.replace("4000", "4002");
    peer.command(Command::Reoffer { leg, sdp: other.clone().into() });
    let reinvite = peer.sent("INVITE ");
    let contact = "Contact: <sip:a@192.0.2.1:5060>\r\n";
    let theirs = format!("{SDP}{contact}");
    peer.receive(&peer.in_dialog("INVITE", 2, "z9hG4bKg", &theirs, OFFER));
    peer.sent("SIP/2.0 491");
    peer.respond(&reinvite, "491 Request Pending");
    peer.sent("ACK ");
    assert!(peer.events().is_empty());
    peer.pass(Duration::from_millis(2_001));
    let again = peer.sent("INVITE ");
    assert_eq!(field(&again, "CSeq"), "2 INVITE");
    peer.transmitted.clear();
    peer.respond_with(&again, "200 OK", "them", &theirs, OFFER);
    peer.sent("ACK ");
    assert!(
        matches!(&peer.events()[..], [Event::Reanswered { sdp, .. }] if sdp == OFFER.as_bytes())
    );
    // Refused: the call goes on as it was.
    peer.command(Command::Reoffer { leg, sdp: other.into() });
    let reinvite = peer.sent("INVITE ");
    peer.respond(&reinvite, "488 Not Acceptable Here");
    assert!(matches!(peer.events()[..], [Event::ReofferRefused { status: 488, .. }]));
    // Gone: so is the call.
    peer.command(Command::Reoffer { leg, sdp: OFFER.into() });
    peer.transmitted.retain(|sent| !sent.starts_with("ACK"));
    let reinvite = peer.sent("INVITE ");
    peer.respond(&reinvite, "481 Call/Transaction Does Not Exist");
    assert!(matches!(peer.events()[..], [Event::Ended { cause: Cause::Timeout, .. }]));
}

#[test]
fn our_offer_waits_until_theirs_is_settled() {
    let mut peer = Scripted::up("");
    let leg = peer.leg;
    peer.receive(&peer.in_dialog("INVITE", 2, "z9hG4bKw", SDP, OFFER));
    assert!(matches!(peer.events()[..], [Event::Reoffered { .. }]));
    peer.command(Command::Reoffer { leg, sdp: OFFER.into() });
    peer.command(Command::Answer { leg, sdp: OFFER.into() });
    peer.pass(Duration::from_millis(600));
    assert!(peer.transmitted.iter().all(|sent| !sent.starts_with("INVITE")), "no ACK yet");
    peer.receive(&peer.in_dialog("ACK", 2, "z9hG4bKwa", "", ""));
    peer.pass(Duration::from_millis(600));
    peer.sent("INVITE ");
}

#[test]
fn update_changes_the_call_without_an_ack() {
    let mut peer = Scripted::up("");
    let leg = peer.leg;
    let headers = format!("{SDP}Contact: <sip:b@192.0.2.1:5091>\r\n");
    let hold = OFFER.replace("RTP/AVP 0\r\n", "RTP/AVP 0\r\na=sendonly\r\n");
    peer.receive(&peer.in_dialog("UPDATE", 2, "z9hG4bKu1", &headers, &hold));
    assert!(peer.transmitted.is_empty(), "no 100 to UPDATE");
    let Some(Event::Reoffered { sdp: Some(sdp), .. }) = peer.events().pop() else {
        panic!("no offer");
    };
    assert_eq!(sdp, hold.as_bytes());
    peer.receive(&peer.in_dialog("UPDATE", 3, "z9hG4bKu2", &headers, OFFER));
    assert!(peer.sent("SIP/2.0 500").contains("Retry-After: "), "one at a time");
    peer.command(Command::Answer { leg, sdp: OFFER.into() });
    let ok = peer.sent("SIP/2.0 200");
    assert!(field(&ok, "CSeq") == "2 UPDATE" && ok.ends_with(OFFER));
    peer.pass(Duration::from_secs(60));
    assert!(peer.transmitted.is_empty() && peer.agent.calls() == 1, "it waits for no ACK");
    peer.command(hang_up(leg));
    assert!(peer.sent("BYE ").starts_with("BYE sip:b@192.0.2.1:5091 "), "target refreshed");
}

#[test]
fn a_session_timer_begins_with_the_answer() {
    let headers = "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n";
    let (mut peer, leg) = offered(Scripted::new(), headers);
    peer.command(Command::Ring { leg });
    peer.pass(Duration::from_secs(170));
    peer.transmitted.clear();
    peer.command(Command::Answer { leg, sdp: OFFER.into() });
    let ok = peer.sent("SIP/2.0 200");
    assert!(ok.contains("Session-Expires: 90;refresher=uac\r\n"));
    peer.receive(&peer.request("ACK", 1, "z9hG4bKa", Some(&ok), "", ""));
    peer.events();
    peer.pass(Duration::from_secs(59));
    assert!(peer.transmitted.is_empty(), "it rang longer than that");
    peer.pass(Duration::from_secs(2));
    peer.sent("BYE ");
}
