//! One call in the place of another: Replaces in, REFER in, attended transfer out.

use super::peer::{Scripted, field};
use super::*;

const SDP: &str = "Content-Type: application/sdp\r\n";

/// An INVITE of another phone that wants the place of the call that is up.
fn successor(peer: &Scripted, extra: &str) -> String {
    let ours = peer.to.rsplit_once("tag=").unwrap().1;
    let replaces = format!("Replaces: c1;to-tag={ours};from-tag=them{extra}\r\n");
    let headers = format!("{replaces}{SDP}Contact: <sip:c@192.0.2.3:5060>\r\n");
    let invite = peer.request("INVITE", 1, "z9hG4bKrep", None, &headers, OFFER);
    invite.replace("Call-ID: c1\r\n", "Call-ID: c2\r\n").replace("1>;tag=them", "1>;tag=third")
}

#[test]
fn a_call_takes_the_place_of_another() {
    let mut peer = Scripted::trunk("").called("");
    let leg = peer.leg;
    let invite = successor(&peer, "");
    peer.receive_from(&invite, "192.0.2.3:5060");
    peer.sent("SIP/2.0 100");
    let events = peer.events();
    assert!(matches!(&events[0], Event::Replaced { leg: l, invitation } if *l == leg
        && invitation.call_id == "c2"));
    assert!(matches!(&events[1], Event::Reoffered { leg: l, sdp: Some(_) } if *l == leg));
    peer.command(Command::Answer { leg, sdp: OFFER.into() });
    let ok = peer.sent("SIP/2.0 200");
    assert_eq!(field(&ok, "Call-ID"), "c2");
    let bye = peer.sent("BYE sip:a@192.0.2.1:5060");
    assert_eq!(field(&bye, "Call-ID"), "c1", "the old peer is hung up");
    peer.respond(&bye, "200 OK");
    assert!(peer.events().is_empty(), "the leg goes on");
    let ack = peer.request("ACK", 1, "z9hG4bKra", Some(&ok), "", "");
    let ack = ack.replace("Call-ID: c1", "Call-ID: c2").replace("tag=them", "tag=third");
    peer.receive_from(&ack, "192.0.2.3:5060");
    assert!(matches!(peer.events()[..], [Event::Established { .. }]));
    peer.command(hang_up(leg));
    let bye = peer.sent("BYE sip:c@192.0.2.3:5060");
    assert_eq!(field(&bye, "Call-ID"), "c2");
    peer.respond_with(&bye, "200 OK", "third", "", "");
    peer.pass(Duration::from_secs(100));
    assert!(peer.agent.sessions.is_empty() && peer.agent.dialogs.is_empty());
    assert_eq!(peer.agent.calls(), 0);
}

#[test]
fn what_cannot_be_replaced() {
    let case = |peer: &mut Scripted, invite: String, status: &str| {
        peer.receive_from(&invite, "192.0.2.3:5060");
        peer.sent(status);
        assert!(peer.events().is_empty(), "{status}");
    };
    let mut peer = Scripted::trunk("").called("");
    let invite = successor(&peer, "");
    case(&mut peer, invite.replace("from-tag=them", "from-tag=other"), "SIP/2.0 481");
    let fresh = |branch: &str, extra: &str| {
        successor(&peer, extra).replace("z9hG4bKrep", branch).replace("c2", branch)
    };
    let (early, broken) = (fresh("z9hG4bKr2", ";early-only"), fresh("z9hG4bKr3", ""));
    case(&mut peer, early, "SIP/2.0 486");
    case(&mut peer, broken.replace("Replaces: c1;", "Replaces: ;"), "SIP/2.0 400");
    peer.command(hang_up(peer.leg));
    peer.sent("BYE ");
    peer.events();
    let over = successor(&peer, "").replace("z9hG4bKrep", "z9hG4bKr4").replace("c2", "c4");
    case(&mut peer, over, "SIP/2.0 603");
    let mut peer = Scripted::trunk("accept_replaces = false").called("");
    let invite = successor(&peer, "");
    case(&mut peer, invite, "SIP/2.0 403");
}

#[test]
fn a_replacement_that_is_refused_changes_nothing() {
    let mut peer = Scripted::trunk("").called("");
    let leg = peer.leg;
    let invite = successor(&peer, "");
    peer.receive_from(&invite, "192.0.2.3:5060");
    peer.events();
    let reason = "no codec".into();
    peer.command(Command::Reject { leg, status: 488, reason, retry_after_s: None });
    assert_eq!(field(&peer.sent("SIP/2.0 488"), "Call-ID"), "c2");
    assert!(peer.events().is_empty());
    peer.receive(&peer.in_dialog("BYE", 2, "z9hG4bKb", "", ""));
    assert!(matches!(peer.events()[..], [Event::Ended { cause: Cause::PeerHungUp, .. }]));
}

/// The peer refers us to somebody; our INVITE to them.
fn redirected(peer: &mut Scripted) -> String {
    let leg = peer.leg;
    let headers = "Refer-To: <sip:bob@192.0.2.9?Replaces=q%40h%3Bto-tag%3D1%3Bfrom-tag%3D2>\r\n\
                   Referred-By: <sip:a@192.0.2.1>\r\n";
    peer.receive(&peer.in_dialog("REFER", 2, "z9hG4bKref", headers, ""));
    peer.sent("SIP/2.0 202");
    let notify = peer.sent("NOTIFY ");
    assert!(notify.ends_with("SIP/2.0 100 Trying\r\n") && field(&notify, "Event") == "refer;id=2");
    peer.respond(&notify, "200 OK");
    let events = peer.events();
    assert!(
        matches!(&events[..], [Event::Redirected { target, .. }] if target == "sip:bob@192.0.2.9")
    );
    peer.command(Command::Follow { leg, sdp: OFFER.into() });
    let invite = peer.sent("INVITE sip:bob@192.0.2.9 ");
    assert_eq!(field(&invite, "Replaces"), "q@h;to-tag=1;from-tag=2");
    assert_eq!(field(&invite, "Referred-By"), "<sip:a@192.0.2.1>");
    invite
}

#[test]
fn the_peer_sends_us_elsewhere() {
    let mut peer = Scripted::trunk("accept_refer = true").called("");
    let leg = peer.leg;
    let invite = redirected(&mut peer);
    peer.respond_with(&invite, "180 Ringing", "bob", "", "");
    assert!(peer.sent("NOTIFY ").ends_with("SIP/2.0 180 Ringing\r\n"));
    let headers = format!("{SDP}Contact: <sip:bob@192.0.2.1:5070>\r\n");
    peer.respond_with(&invite, "200 OK", "bob", &headers, OFFER);
    peer.sent("ACK sip:bob@192.0.2.1:5070");
    let notify = peer.sent("NOTIFY ");
    assert!(field(&notify, "Subscription-State").starts_with("terminated"));
    assert!(notify.ends_with("SIP/2.0 200 OK\r\n"));
    let bye = peer.sent("BYE ");
    assert_eq!(field(&bye, "Call-ID"), "c1");
    peer.respond(&bye, "200 OK");
    let events = peer.events();
    assert!(matches!(&events[..], [Event::Reanswered { leg: l, .. }] if *l == leg));
    peer.respond_with(&invite, "200 OK", "bob", &headers, OFFER);
    peer.sent("ACK sip:bob@192.0.2.1:5070");
    peer.command(hang_up(leg));
    assert!(peer.sent("BYE ").starts_with("BYE sip:bob@192.0.2.1:5070"));
}

#[test]
fn a_redirection_that_fails_leaves_the_call_as_it_was() {
    let mut peer = Scripted::trunk("accept_refer = true").called("");
    let invite = redirected(&mut peer);
    peer.respond_with(&invite, "486 Busy Here", "bob", "", "");
    peer.sent("ACK ");
    let notify = peer.sent("NOTIFY ");
    assert!(field(&notify, "Subscription-State").starts_with("terminated"));
    assert!(notify.ends_with("SIP/2.0 486 Busy Here\r\n"));
    assert!(peer.events().is_empty());
    // Not allowed at all, and what is no target.
    let mut peer = Scripted::trunk("").called("");
    let refer = |cseq, to: &str| (cseq, format!("Refer-To: {to}\r\n"), format!("z9hG4bKr{cseq}"));
    let (cseq, header, branch) = refer(2, "<sip:bob@192.0.2.9>");
    peer.receive(&peer.in_dialog("REFER", cseq, &branch, &header, ""));
    peer.sent("SIP/2.0 603");
    let mut peer = Scripted::trunk("accept_refer = true").called("");
    for (cseq, to, status) in
        [(2, "nonsense", "SIP/2.0 400"), (3, "<tel:+14155550100>", "SIP/2.0 416")]
    {
        let (cseq, header, branch) = refer(cseq, to);
        peer.receive(&peer.in_dialog("REFER", cseq, &branch, &header, ""));
        peer.sent(status);
    }
}

#[test]
fn the_peer_hangs_up_while_we_obey_its_refer() {
    let mut peer = Scripted::trunk("accept_refer = true").called("");
    let invite = redirected(&mut peer);
    peer.respond_with(&invite, "180 Ringing", "bob", "", "");
    peer.receive(&peer.in_dialog("BYE", 3, "z9hG4bKbye", "", ""));
    peer.sent("CANCEL sip:bob@192.0.2.9");
    let headers = format!("{SDP}Contact: <sip:bob@192.0.2.1:5070>\r\n");
    peer.respond_with(&invite, "200 OK", "bob", &headers, OFFER);
    peer.sent("ACK sip:bob@192.0.2.1:5070");
    peer.sent("BYE sip:bob@192.0.2.1:5070");
    assert!(matches!(peer.events()[..], [Event::Ended { cause: Cause::PeerHungUp, .. }]));
}

#[test]
fn a_redirection_given_up_leaves_nothing_behind() {
    let mut peer = Scripted::trunk("accept_refer = true").called("");
    let invite = redirected(&mut peer);
    peer.command(hang_up(peer.leg));
    let bye = peer.sent("BYE ");
    peer.respond(&bye, "200 OK");
    // Too early for CANCEL; then somebody rings for ever.
    peer.respond_with(&invite, "180 Ringing", "bob", "", "");
    peer.respond_with(&invite, "180 Ringing", "bob", "", "");
    let cancel = peer.sent("CANCEL sip:bob@192.0.2.9");
    assert_eq!(field(&cancel, "CSeq"), "1 CANCEL");
    peer.respond(&cancel, "200 OK");
    peer.pass(Duration::from_secs(120));
    assert!(peer.agent.transactions.is_empty() && peer.agent.clients.is_empty());
    assert!(peer.agent.sessions.is_empty() && peer.agent.deadline().is_none());
}

#[test]
fn an_attended_transfer_names_the_other_call() {
    let mut peer = Scripted::up("");
    let leg = peer.leg;
    let invite = peer.place("sip:agent@192.0.2.1");
    peer.respond_with(&invite, "200 OK", "agent", SDP, OFFER);
    peer.sent("ACK ");
    let Some(Event::Answered { leg: consulted, .. }) = peer.events().pop() else {
        panic!("not answered");
    };
    let target = "sip:agent@192.0.2.1".to_string();
    let (replaces, headers) = (Some(consulted), Vec::new());
    peer.command(Command::Refer { leg, target, replaces, headers });
    let refer = peer.sent("REFER ");
    let ours = field(&invite, "From").rsplit_once("tag=").unwrap().1.to_string();
    let want = format!(
        "<sip:agent@192.0.2.1?Replaces={}%3Bto-tag%3Dagent%3Bfrom-tag%3D{ours}>",
        field(&invite, "Call-ID")
    );
    assert_eq!(field(&refer, "Refer-To"), want);
    let nobody = Some(Leg(999));
    peer.respond(&refer, "603 Decline");
    peer.command(Command::Refer {
        leg,
        target: "sip:x@h".into(),
        replaces: nobody,
        headers: Vec::new(),
    });
    assert_eq!(peer.referred(), [603, 400]);
}
