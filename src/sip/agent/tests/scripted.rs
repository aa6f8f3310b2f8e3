//! One agent, and a peer whose messages are written out.

use super::peer::Scripted;
use super::*;

#[test]
fn a_transfer_is_reported_to_its_end() {
    let mut peer = Scripted::up("");
    let leg = peer.leg;
    peer.command(Command::Refer {
        leg,
        target: "sip:agent@198.51.100.5".into(),
        replaces: None,
        headers: vec![("X-Reason".into(), "caller pressed 0".into())],
    });
    let refer = peer.sent("REFER ");
    assert!(refer.contains("Refer-To: <sip:agent@198.51.100.5>\r\n"));
    assert!(refer.contains("X-Reason: caller pressed 0\r\n") && refer.contains("Contact: "));
    peer.respond(&refer, "202 Accepted");
    let notify = |cseq, state: &str, fragment: &str| {
        format!(
            "Event: refer\r\nSubscription-State: {state}\r\nContent-Type: message/sipfrag\r\n|{cseq}|{fragment}"
        )
    };
    for (cseq, state, fragment) in [
        (10, "active;expires=60", "SIP/2.0 100 Trying"),
        (11, "active;expires=60", "SIP/2.0 180 Ringing"),
        (12, "terminated;reason=noresource", "SIP/2.0 200 OK"),
    ] {
        peer.notify(&notify(cseq, state, fragment));
        assert!(peer.sent("SIP/2.0 200").contains("NOTIFY"));
    }
    let statuses: Vec<u16> = peer.referred();
    assert_eq!(statuses, [100, 180, 200]);
    peer.command(hang_up(leg));
    let bye = peer.sent("BYE ");
    peer.respond(&bye, "200 OK");
    peer.notify(&notify(13, "terminated", "SIP/2.0 200 OK"));
    assert!(peer.sent("SIP/2.0 200").contains("NOTIFY"), "late NOTIFY still gets 200");
    peer.notify("Event: presence\r\n|14|");
    assert!(peer.sent("SIP/2.0 489").contains("Allow-Events: refer"));
}

#[test]
fn a_transfer_that_fails_or_falls_silent() {
    let refer = |leg| Command::Refer {
        leg,
        replaces: None,
        target: "tel:+14155550111".into(),
        headers: vec![],
    };
    let mut peer = Scripted::up("");
    peer.command(refer(peer.leg));
    let request = peer.sent("REFER ");
    peer.respond(&request, "603 Decline");
    peer.command(refer(peer.leg));
    let request = peer.sent("REFER ");
    peer.respond(&request, "202 Accepted");
    peer.command(refer(peer.leg));
    peer.notify("Event: refer\r\nSubscription-State: terminated\r\n|20|");
    peer.command(refer(peer.leg));
    let request = peer.sent("REFER ");
    peer.respond(&request, "202 Accepted");
    peer.pass(Duration::from_secs(181));
    peer.command(Command::Refer {
        leg: peer.leg,
        target: "no uri".into(),
        replaces: None,
        headers: vec![],
    });
    assert_eq!(peer.referred(), [603, 100, 491, 408, 100, 408, 400]);
    peer.notify("Event: refer\r\nSubscription-State: terminated\r\n|21|SIP/2.0 200 OK");
    assert_eq!(peer.referred(), Vec::<u16>::new(), "too late to matter");
}

#[test]
fn late_offer_and_a_repeated_ack() {
    let mut peer = Scripted::new();
    peer.receive(&peer.request("INVITE", 1, "z9hG4bK1", None, "", ""));
    let (leg, invitation) = peer.offered();
    assert_eq!(invitation.offer, None);
    peer.command(Command::Answer { leg, sdp: OFFER.into() });
    let ok = peer.sent("SIP/2.0 200");
    assert!(ok.ends_with(OFFER));
    let ack =
        peer.request("ACK", 1, "z9hG4bK2", Some(&ok), "Content-Type: application/sdp\r\n", OFFER);
    peer.receive(&ack);
    peer.receive(&ack);
    let answers: Vec<_> = peer
        .events()
        .into_iter()
        .map(|event| match event {
            Event::Established { sdp, .. } => sdp,
            _ => panic!("unexpected event"),
        })
        .collect();
    assert_eq!(answers, [Some(OFFER.as_bytes().to_vec())]);
    peer.pass(Duration::from_secs(60));
    assert_eq!(peer.agent.calls(), 1);
}

#[test]
fn no_ack_means_bye_after_32_s() {
    let mut peer = Scripted::new();
    peer.receive(&peer.invite());
    peer.sent("SIP/2.0 100");
    let (leg, _) = peer.offered();
    peer.command(Command::Answer { leg, sdp: OFFER.into() });
    let ok = peer.sent("SIP/2.0 200");
    peer.receive(&peer.invite());
    assert_eq!(peer.sent("SIP/2.0 200"), ok, "a repeated INVITE gets the same 200");
    peer.pass(Duration::from_secs(31));
    assert_eq!(peer.transmitted.len(), 9, "T1 doubling to T2");
    assert!(peer.transmitted.iter().all(|sent| *sent == ok));
    peer.transmitted.clear();
    peer.pass(Duration::from_secs(2));
    assert!(peer.sent("BYE ").contains("CSeq: 1 BYE"));
    assert!(matches!(peer.events()[..], [Event::Ended { cause: Cause::Timeout, .. }]));
}

#[test]
fn hanging_up_waits_for_the_ack() {
    let mut peer = Scripted::new();
    peer.receive(&peer.invite());
    peer.sent("SIP/2.0 100");
    let (leg, _) = peer.offered();
    peer.command(Command::Answer { leg, sdp: OFFER.into() });
    let ok = peer.sent("SIP/2.0 200");
    peer.command(Command::Hangup { leg, reason: Some("Q.850;cause=16".into()) });
    assert!(peer.transmitted.is_empty(), "no BYE before the ACK");
    assert!(matches!(peer.events()[..], [Event::Ended { cause: Cause::WeHungUp, .. }]));
    peer.receive(&peer.request("ACK", 1, "z9hG4bK2", Some(&ok), "", ""));
    let bye = peer.sent("BYE ");
    assert!(bye.contains("Reason: Q.850;cause=16\r\n"));
    assert!(peer.events().is_empty(), "nothing follows Ended");
    peer.respond(&bye, "200 OK");
    assert_eq!(peer.agent.calls(), 0);
}

#[test]
fn hold_and_resume() {
    let mut peer = Scripted::up("");
    let hold = OFFER.replace("192.0.2.1\r\nt=", "0.0.0.0\r\nt=");
    let sdp = "Content-Type: application/sdp\r\nContact: <sip:b@192.0.2.1:5090>\r\n";
    peer.receive(&peer.in_dialog("INVITE", 2, "z9hG4bKh1", sdp, &hold));
    let Some(Event::Reoffered { sdp: Some(offer), .. }) = peer.events().pop() else {
        panic!("no re-offer");
    };
    assert_eq!(offer, hold.as_bytes());
    peer.receive(&peer.in_dialog("INVITE", 3, "z9hG4bKh2", sdp, OFFER));
    assert!(peer.sent("SIP/2.0 500").contains("Retry-After: "), "one at a time");
    peer.command(Command::Answer { leg: peer.leg, sdp: OFFER.into() });
    peer.sent("SIP/2.0 200");
    peer.receive(&peer.in_dialog("INVITE", 4, "z9hG4bKh3", sdp, OFFER));
    peer.sent("SIP/2.0 491");
    peer.receive(&peer.in_dialog("ACK", 2, "z9hG4bKh4", "", ""));
    assert!(matches!(peer.events()[..], [Event::Established { sdp: None, .. }]));
    peer.receive(&peer.in_dialog("INVITE", 5, "z9hG4bKh5", sdp, OFFER));
    peer.events();
    peer.command(Command::Reject {
        leg: peer.leg,
        status: 488,
        reason: "no codec".into(),
        retry_after_s: None,
    });
    let refusal = peer.sent("SIP/2.0 488 no codec");
    assert!(refusal.contains("Warning: 305 192.0.2.2:5060 \"no codec\""));
    peer.receive(&peer.in_dialog("ACK", 5, "z9hG4bKh5", "", ""));
    assert!(peer.events().is_empty(), "the call goes on");
    peer.command(hang_up(peer.leg));
    assert!(peer.sent("BYE ").starts_with("BYE sip:b@192.0.2.1:5090 "), "target refreshed");
}

#[test]
fn options_and_draining() {
    let mut peer = Scripted::new();
    peer.receive(&peer.request("OPTIONS", 1, "z9hG4bK1", None, "", ""));
    let ok = peer.sent("SIP/2.0 200");
    assert!(ok.contains("Accept: application/sdp") && ok.contains("Allow: INVITE"));
    let mut peer = Scripted::up("");
    peer.command(Command::Drain);
    peer.receive(&peer.request("OPTIONS", 9, "z9hG4bKo", None, "", ""));
    assert!(peer.sent("SIP/2.0 503").contains("Retry-After: "));
    peer.receive(&peer.invite().replace("z9hG4bK1", "z9hG4bKnew").replace("CSeq: 1 ", "CSeq: 8 "));
    assert!(peer.sent("SIP/2.0 503").contains("Retry-After: "));
    peer.receive(&peer.in_dialog("BYE", 2, "z9hG4bKb", "", ""));
    peer.sent("SIP/2.0 200");
    assert!(matches!(peer.events()[..], [Event::Ended { cause: Cause::PeerHungUp, .. }]));
}

#[test]
fn refusals_by_the_book() {
    let mut peer = Scripted::new();
    let cases = [
        ("SUBSCRIBE", "", "", "SIP/2.0 405", "Allow: INVITE"),
        ("FROBNICATE", "", "", "SIP/2.0 501", "Allow: INVITE"),
        ("INVITE", "Require: 100rel, foo\r\n", "", "SIP/2.0 420", "Unsupported: foo\r\n"),
        ("INVITE", "Content-Type: text/plain\r\n", "hi", "SIP/2.0 415", "Accept: application/sdp"),
        ("INVITE", "Max-Forwards: 0\r\n", "", "SIP/2.0 483", ""),
        ("BYE", "", "", "SIP/2.0 481", ""),
        ("CANCEL", "", "", "SIP/2.0 481", ""),
        ("NOTIFY", "Event: refer\r\n", "", "SIP/2.0 481", ""),
        ("INFO", "", "", "SIP/2.0 481", ""),
        ("REFER", "Refer-To: <sip:x@h>\r\n", "", "SIP/2.0 403", ""),
    ];
    for (index, (method, headers, body, status, header)) in cases.into_iter().enumerate() {
        let branch = format!("z9hG4bKr{index}");
        let cseq = 20 + index as u32;
        peer.receive(&peer.request(method, cseq, &branch, None, headers, body));
        assert!(peer.sent(status).contains(header), "{method} {headers}");
    }
    let stranger = "SIP/2.0 200 X\r\nTo: <sip:u@h>;tag=unknown\r\n";
    for method in ["INVITE", "BYE", "OPTIONS"] {
        peer.receive(&peer.request(
            method,
            50,
            &format!("z9hG4bKd{method}"),
            Some(stranger),
            "",
            "",
        ));
        peer.sent("SIP/2.0 481");
    }
    let sips = peer.invite().replace("sip:1000@", "sips:1000@").replace("z9hG4bK1", "z9hG4bKs");
    peer.receive(&sips);
    peer.sent("SIP/2.0 416");
    assert!(peer.events().is_empty());
}

#[test]
fn a_merged_invite_is_refused() {
    let mut peer = Scripted::new();
    peer.receive(&peer.invite());
    peer.offered();
    peer.receive(&peer.invite().replace("z9hG4bK1", "z9hG4bKother"));
    peer.sent("SIP/2.0 482");
    assert_eq!(peer.agent.calls(), 1);
}

#[test]
fn a_flood_of_half_open_invites_is_bounded() {
    let mut peer = Scripted::new();
    let mut busy = 0;
    for index in 0..2000 {
        let invite = peer
            .invite()
            .replace("z9hG4bK1", &format!("z9hG4bKf{index}"))
            .replace("Call-ID: c1", &format!("Call-ID: flood{index}"));
        peer.receive(&invite);
        busy += peer.transmitted.drain(..).filter(|sent| sent.starts_with("SIP/2.0 503")).count();
    }
    assert_eq!((peer.agent.calls(), busy), (4, 1996));
    assert!(peer.agent.transactions.len() <= 1024);
    assert_eq!(peer.events().len(), 4);
    peer.pass(Duration::from_secs(240));
    assert_eq!(peer.agent.calls(), 0);
    assert!(peer.agent.transactions.is_empty() && peer.agent.sessions.is_empty());
}

#[test]
fn a_stranger_in_the_dialog_and_old_numbers() {
    let mut peer = Scripted::up("");
    let bye = peer.in_dialog("BYE", 2, "z9hG4bKx", "", "");
    peer.receive(&bye.replace(";tag=them", ";tag=other"));
    peer.sent("SIP/2.0 481");
    peer.receive(&peer.in_dialog("BYE", 1, "z9hG4bKy", "", ""));
    peer.sent("SIP/2.0 500");
    assert!(peer.events().is_empty());
}

#[test]
fn responses_find_a_peer_behind_nat() {
    let mut peer = Scripted::new();
    let invite = peer
        .invite()
        .replace("192.0.2.1:5060;branch", "10.0.0.7:5060;rport;branch")
        .replace("<sip:a@192.0.2.1:5060>", "<sip:a@10.0.0.7:5060>");
    peer.receive_from(&invite, "203.0.113.9:6001");
    assert_eq!(peer.destinations, [address("203.0.113.9:6001")]);
    assert!(peer.sent("SIP/2.0 100").contains(";received=203.0.113.9;rport=6001"));
    let (leg, _) = peer.offered();
    peer.command(Command::Answer { leg, sdp: OFFER.into() });
    let ok = peer.sent("SIP/2.0 200");
    peer.receive_from(&peer.request("ACK", 1, "z9hG4bK2", Some(&ok), "", ""), "203.0.113.9:6001");
    peer.command(hang_up(leg));
    assert!(peer.sent("BYE ").starts_with("BYE sip:a@10.0.0.7:5060 SIP/2.0"));
    assert_eq!(peer.destinations.last(), Some(&address("203.0.113.9:6001")));
}

#[test]
fn a_fork_that_answers_too_is_hung_up() {
    let mut peer = Scripted::new();
    let invite = peer.place("sip:x@192.0.2.1");
    let contact = "Contact: <sip:x@192.0.2.1>\r\nContent-Type: application/sdp\r\n";
    peer.respond_with(&invite, "200 OK", "one", contact, OFFER);
    let ack = peer.sent("ACK ");
    peer.respond_with(&invite, "200 OK", "one", contact, OFFER);
    assert_eq!(peer.sent("ACK "), ack, "each 200 is acknowledged");
    peer.respond_with(&invite, "200 OK", "two", contact, OFFER);
    assert!(peer.sent("ACK ").contains(";tag=two") && peer.sent("BYE ").contains(";tag=two"));
    assert!(matches!(peer.events()[..], [Event::Answered { .. }]));
}

#[test]
fn early_media_stands_in_for_a_missing_answer() {
    let mut peer = Scripted::new();
    let invite = peer.place("sip:x@192.0.2.1");
    let sdp = "Content-Type: application/sdp\r\n";
    peer.respond_with(&invite, "183 Session Progress", "one", sdp, OFFER);
    peer.respond_with(&invite, "200 OK", "one", "", "");
    let events = peer.events();
    assert!(matches!(&events[0], Event::Progress { status: 183, sdp: Some(_), .. }));
    assert!(matches!(&events[1], Event::Answered { sdp, .. } if sdp == OFFER.as_bytes()));
}

#[test]
fn a_refused_call_says_why_and_a_bad_one_is_not_placed() {
    let mut peer = Scripted::new();
    let invite = peer.place("sip:x@192.0.2.1");
    peer.respond_with(&invite, "486 Busy Here", "one", "", "");
    peer.sent("ACK ");
    let busy = Cause::Refused { status: 486, reason: "Busy Here".into() };
    assert!(matches!(&peer.events()[..], [Event::Ended { cause, .. }] if *cause == busy));
    let good = ("sip:x@192.0.2.1", "sip:us@192.0.2.2", ("X-A", "b"));
    for (target, from, header) in [
        ("mailto:x", good.1, good.2),
        (good.0, "nobody", good.2),
        (good.0, "<sip:us@h>;tag=1", good.2),
        (good.0, good.1, ("X-A", "b\r\nEvil: yes")),
        (good.0, good.1, ("Via", "x")),
        (good.0, good.1, ("X A", "x")),
    ] {
        let leg = peer.agent.next_leg();
        peer.command(Command::Invite {
            leg,
            call: Box::new(Placement {
                target: target.into(),
                destinations: vec![Peer::udp(address(PEER))],
                from: from.into(),
                headers: vec![(header.0.into(), header.1.into())],
                sdp: OFFER.into(),
                trunk: Arc::default(),
            }),
        });
        assert!(peer.transmitted.is_empty());
        let events = peer.events();
        assert!(
            matches!(&events[..], [Event::Ended { cause: Cause::Refused { status: 400, .. }, .. }]),
            "{target} {from} {header:?}"
        );
    }
}

#[test]
fn garbage_that_can_be_answered_is() {
    let mut peer = Scripted::new();
    peer.receive(&peer.invite().replace("CSeq: 1 INVITE", "CSeq: 1 BYE"));
    let refusal = peer.sent("SIP/2.0 400");
    assert!(refusal.contains("Warning: 399 ") && refusal.contains("Call-ID: c1\r\n"));
    peer.receive("\r\n\r\n");
    peer.receive("ACK sip:x@y SIP/2.0\r\n\r\n");
    peer.receive(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKq\r\nFrom: <sip:a@b>;tag=1\r\n\
                  To: <sip:a@b>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\r\n",
    );
    assert!(peer.transmitted.is_empty() && peer.events().is_empty());
    let counters = peer.agent.counters();
    assert_eq!((counters.keep_alives, counters.malformed, counters.stray), (1, 2, 1));
}
