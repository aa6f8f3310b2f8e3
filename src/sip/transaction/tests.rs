//! Transactions on a virtual clock.

use super::super::model::Message;
use super::super::transport::Transport;
use super::super::wire::{self, Framed, Limits};
use super::*;

fn peer() -> Peer {
    Peer::udp(([192, 0, 2, 1], 5060).into())
}

fn message(text: &str) -> Message {
    match wire::parse(text.as_bytes(), &Limits::default()) {
        Framed::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

fn request(method: &str, branch: &str, to_tag: &str) -> Request {
    let text = format!(
        "{method} sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch={branch}\r\n\
         From: <sip:x@y>;tag=f\r\nTo: <sip:a@b>{to_tag}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\r\n"
    );
    match message(&text) {
        Message::Request(request) => request,
        Message::Response(_) => unreachable!(),
    }
}

fn response(status: u16, method: &str, to_tag: &str) -> Response {
    let text = format!(
        "SIP/2.0 {status} X\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKc\r\n\
         From: <sip:x@y>;tag=f\r\nTo: <sip:a@b>;tag={to_tag}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\r\n"
    );
    match message(&text) {
        Message::Response(response) => response,
        Message::Request(_) => unreachable!(),
    }
}

#[allow(clippy::disallowed_methods)]
fn start() -> Instant {
    Instant::now()
}

/// Runs until nothing is due within `limit` and returns when messages were sent, in ms.
fn sent_at(all: &mut Transactions, start: Instant, limit: Duration) -> Vec<u128> {
    let mut times = Vec::new();
    let mut now = start;
    loop {
        while all.poll_transmit().is_some() {
            times.push((now - start).as_millis());
        }
        match all.deadline() {
            Some(at) if at <= start + limit => now = at,
            _ => return times,
        }
        all.expire(now);
    }
}

fn draft(method: &str) -> Draft {
    Draft::request(&Method::parse(method).unwrap(), "sip:a@b")
        .with("Via", "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKc")
        .with("From", "<sip:x@y>;tag=f")
        .with("To", "<sip:a@b>")
        .with("Call-ID", "c")
        .with("CSeq", format!("1 {method}"))
}

#[test]
fn invite_client_repeats_until_timer_b() {
    let (mut all, start) = (Transactions::new(10), start());
    let id = all.send(start, &Method::INVITE, "z9hG4bKc", draft("INVITE"), peer());
    let times = sent_at(&mut all, start, Duration::from_secs(60));
    assert_eq!(times, [0, 500, 1500, 3500, 7500, 15500, 31500]);
    assert_eq!(all.poll_timeout(), Some(id));
    assert!(all.is_empty());
}

#[test]
fn other_client_repeats_every_t2_at_most() {
    let (mut all, start) = (Transactions::new(10), start());
    all.send(start, &Method::BYE, "z9hG4bKc", draft("BYE"), peer());
    let times = sent_at(&mut all, start, Duration::from_secs(60));
    assert_eq!(times[..6], [0, 500, 1500, 3500, 7500, 11500]);
    assert_eq!(times.len(), 11);
    assert!(all.poll_timeout().is_some());
}

#[test]
fn a_refused_invite_is_acknowledged_each_time() {
    let (mut all, start) = (Transactions::new(10), start());
    let id = all.send(start, &Method::INVITE, "z9hG4bKc", draft("INVITE"), peer());
    all.poll_transmit();
    assert_eq!(all.receive_response(start, &response(180, "INVITE", "t")), Some(id));
    assert_eq!(all.deadline(), None, "no timer while it rings");
    assert_eq!(all.receive_response(start, &response(486, "INVITE", "t")), Some(id));
    assert_eq!(all.receive_response(start, &response(486, "INVITE", "t")), None);
    for _ in 0..2 {
        let ack = all.poll_transmit().unwrap().1;
        let Message::Request(ack) = message(std::str::from_utf8(&ack).unwrap()) else {
            panic!("no request");
        };
        assert_eq!((ack.method, ack.core.via.branch()), (Method::ACK, "z9hG4bKc"));
        assert_eq!(ack.core.to_tag(), Some("t"));
    }
    all.expire(start + PATIENCE);
    assert!(all.is_empty() && all.poll_timeout().is_none());
}

#[test]
fn every_2xx_reaches_the_dialog() {
    let (mut all, start) = (Transactions::new(10), start());
    let id = all.send(start, &Method::INVITE, "z9hG4bKc", draft("INVITE"), peer());
    for _ in 0..3 {
        assert_eq!(all.receive_response(start, &response(200, "INVITE", "t")), Some(id));
    }
    assert_eq!(all.receive_response(start, &response(486, "INVITE", "t")), None);
    assert_eq!(all.receive_response(start, &response(200, "BYE", "t")), None, "other method");
}

#[test]
fn a_refusal_is_repeated_until_ack() {
    let (mut all, start) = (Transactions::new(10), start());
    let invite = request("INVITE", "z9hG4bKs", "");
    let Received::New(id) = all.receive_request(start, &invite, peer()) else {
        panic!("not new");
    };
    all.respond(start, id, 100, Bytes::from_static(b"100"));
    assert_eq!(all.receive_request(start, &invite, peer()), Received::Absorbed);
    assert_eq!(all.transmits.len(), 2);
    all.respond(start, id, 486, Bytes::from_static(b"486"));
    let times = sent_at(&mut all, start, Duration::from_secs(5));
    assert_eq!(times, [0, 0, 0, 500, 1500, 3500]);
    let ack = request("ACK", "z9hG4bKs", ";tag=x");
    let now = start + Duration::from_secs(5);
    assert_eq!(all.receive_request(now, &ack, peer()), Received::Absorbed);
    assert_eq!(sent_at(&mut all, now, Duration::from_secs(60)), Vec::<u128>::new());
    assert!(all.is_empty());
}

#[test]
fn an_accepted_invite_answers_retransmissions_for_32_s() {
    let (mut all, start) = (Transactions::new(10), start());
    let invite = request("INVITE", "z9hG4bKs", "");
    let Received::New(id) = all.receive_request(start, &invite, peer()) else {
        panic!("not new");
    };
    all.respond(start, id, 200, Bytes::from_static(b"200"));
    all.poll_transmit();
    all.receive_request(start, &invite, peer());
    assert_eq!(all.poll_transmit(), Some((peer(), Bytes::from_static(b"200"))));
    let ack = request("ACK", "z9hG4bKother", ";tag=x");
    assert_eq!(all.receive_request(start, &ack, peer()), Received::Ack);
    all.expire(start + PATIENCE);
    assert!(all.is_empty());
}

#[test]
fn old_branches_merged_copies_and_a_full_table() {
    let (mut all, start) = (Transactions::new(3), start());
    let old = request("INVITE", "1", "");
    let Received::New(id) = all.receive_request(start, &old, peer()) else {
        panic!("not new");
    };
    all.respond(start, id, 486, Bytes::from_static(b"486"));
    assert_eq!(all.cancelled(&request("CANCEL", "1", "")), Some(id));
    assert_eq!(
        all.receive_request(start, &request("ACK", "1", ";tag=x"), peer()),
        Received::Absorbed
    );
    assert_eq!(all.servers[&id].state, State::Confirmed);
    let copy = request("INVITE", "z9hG4bKcopy", "");
    assert!(matches!(all.receive_request(start, &copy, peer()), Received::Merged(_)));
    let crowd = request("INVITE", "z9hG4bK3", "");
    assert_eq!(all.receive_request(start, &crowd, peer()), Received::Full);
    let bye = |branch| request("BYE", branch, ";tag=x");
    let ends = all.receive_request(start, &bye("z9hG4bK4"), peer());
    assert!(matches!(ends, Received::New(_)), "calls end however many begin");
    assert_eq!(all.receive_request(start, &bye("z9hG4bK5"), peer()), Received::Full);
    all.expire(start + PATIENCE);
    let later = all.receive_request(start + PATIENCE, &crowd, peer());
    assert!(matches!(later, Received::New(_)), "there is room again");
}

#[test]
fn a_stream_repeats_nothing_and_a_lost_one_is_told() {
    let (mut all, start) = (Transactions::new(10), start());
    let stream = Peer { transport: Transport::Tcp, connection: Some(3), ..peer() };
    let draft = |method: &Method| Draft::request(method, "sip:a@b").with("CSeq", "1 X");
    for method in [Method::INVITE, Method::BYE] {
        all.send(start, &method, "z9hG4bKc", draft(&method), stream);
        assert_eq!(sent_at(&mut all, start, Duration::from_secs(31)), [0]);
        let other = Peer { connection: Some(4), ..stream };
        all.unreachable(&other);
        assert_eq!(all.poll_timeout(), None, "another stream");
        all.unreachable(&stream);
        assert!(all.poll_timeout().is_some() && all.is_empty());
    }
    let invite = request("INVITE", "z9hG4bKs", "");
    let Received::New(id) = all.receive_request(start, &invite, stream) else {
        panic!("not new");
    };
    all.respond(start, id, 486, Bytes::from_static(b"486"));
    assert_eq!(sent_at(&mut all, start, Duration::from_secs(31)), [0]);
    let ack = request("ACK", "z9hG4bKs", ";tag=x");
    assert_eq!(all.receive_request(start, &ack, stream), Received::Absorbed);
    all.expire(start);
    assert!(all.is_empty(), "nothing more can come");
}

#[test]
fn what_only_repetitions_can_reach_costs_next_to_nothing() {
    let (mut all, start) = (Transactions::new(100), start());
    let invite = request("INVITE", "z9hG4bK1", "");
    let Received::New(id) = all.receive_request(start, &invite, peer()) else { panic!() };
    all.respond(start, id, 200, Bytes::from_static(b"ok"));
    assert!(all.cancelled(&request("CANCEL", "z9hG4bK1", "")).is_some());
    all.acknowledged(start, id);
    assert_eq!((all.servers.len(), all.timers.next()), (0, None));
    assert!(all.knows(&invite) && all.is_over(&request("CANCEL", "z9hG4bK1", "")));
    assert_eq!(all.receive_request(start, &invite, peer()), Received::Absorbed);
    let ack = request("ACK", "z9hG4bK1", ";tag=us");
    assert_eq!(all.receive_request(start, &ack, peer()), Received::Ack);
    let copy = request("INVITE", "z9hG4bK2", "");
    assert!(matches!(all.receive_request(start, &copy, peer()), Received::Merged(_)));

    let bye = request("BYE", "z9hG4bK3", ";tag=us");
    let Received::New(id) = all.receive_request(start, &bye, peer()) else { panic!() };
    all.respond_plainly(start, id, 200, Bytes::from_static(b"ok"));
    assert_eq!(all.receive_request(start, &bye, peer()), Received::Again(200));
    let just = start + PATIENCE;
    all.expire(just);
    assert_eq!(all.receive_request(just, &bye, peer()), Received::Again(200), "for all of 64*T1");
    let later = start + PATIENCE + Duration::from_secs(1);
    all.expire(later);
    assert!(matches!(all.receive_request(later, &bye, peer()), Received::New(_)), "forgotten");
}

#[test]
fn the_oldest_finished_transactions_give_way() {
    let (mut all, start) = (Transactions::new(50), start());
    let bye = |n: u64| request("BYE", &format!("z9hG4bK{n}"), ";tag=us");
    for n in 0..500 {
        let now = start + Duration::from_millis(100 * n);
        let Received::New(id) = all.receive_request(now, &bye(n), peer()) else { panic!("{n}") };
        all.respond_plainly(now, id, 200, Bytes::from_static(b"ok"));
        assert!(all.len() <= 50);
    }
    let now = start + Duration::from_secs(50);
    assert_eq!(all.receive_request(now, &bye(499), peer()), Received::Again(200));
    assert!(matches!(all.receive_request(now, &bye(0), peer()), Received::New(_)));
}

#[test]
fn a_stream_brings_no_request_twice() {
    let (mut all, start) = (Transactions::new(50), start());
    let stream = Peer { transport: Transport::Tcp, ..peer() };
    let bye = request("BYE", "z9hG4bK1", ";tag=us");
    let Received::New(id) = all.receive_request(start, &bye, stream) else { panic!() };
    all.respond_plainly(start, id, 200, Bytes::from_static(b"ok"));
    assert!(all.is_empty());
}
