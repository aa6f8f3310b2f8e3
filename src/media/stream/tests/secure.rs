//! Streams that encrypt.

use super::*;
use crate::sip::offer::{SrtpKeys, SrtpSeed, Suite};

fn keys(ours: u8, theirs: u8, suite: Suite) -> Option<SrtpKeys> {
    let key = |seed| SrtpSeed::new([seed; 32]).key(suite);
    Some(SrtpKeys { ours: key(ours), theirs: key(theirs) })
}

fn secure(suite: Suite) -> Pair {
    let a = Negotiated { srtp: keys(1, 2, suite), ..negotiated(B) };
    let b = Negotiated { srtp: keys(2, 1, suite), ..negotiated(A) };
    Pair::with(a, b)
}

/// The numbers of the setup start at 0xfff0, which SRTP brings down to 0x7ff0: 660 s later they
/// wrap. The turns in between are left out on both clocks.
fn near_the_wrap(pair: &mut Pair) {
    pair.a.stream.out.sequence = 0xffe0;
    pair.b.stream.out.sequence = 0xffe0;
}

#[test]
fn a_call_under_each_suite_with_loss_reordering_and_the_wrap() {
    for suite in Suite::ALL {
        let mut pair = secure(suite);
        assert_eq!(pair.a.stream.out.sequence, 0x7ff0, "room for loss before the first wrap");
        near_the_wrap(&mut pair);
        pair.lose = |nth| nth % 7 == 3;
        pair.jitter_ms = |nth| nth * 7919 % 45;
        pair.press(CARD, Method::Events, 100);
        pair.play(1, &[0x90; 16_000], false);
        pair.turns(250);
        assert_eq!(pair.b.keys, CARD, "{suite:?}");
        let (a, b) = (pair.a.stream.counters(), pair.b.stream.counters());
        assert!(a.received > 240 && b.received > 200 && b.lost > 10, "{suite:?} {a:?} {b:?}");
        assert_eq!((a.unauthentic, b.unauthentic, b.malformed), (0, 0, 0), "{suite:?}");
        assert_eq!(pair.b.ended, [(PlayId(1), true)]);
        assert!(pair.a.heard.iter().filter(|code| **code == 0x90).count() >= 16_000);
    }
}

#[test]
fn nothing_on_the_wire_is_in_the_clear() {
    for suite in Suite::ALL {
        let mut pair = secure(suite);
        let mut packet = [0; PACKET_MAX];
        pair.press("5", Method::Events, 40);
        for _ in 0..20 {
            let len = pair.a.stream.transmit(pair.now, &mut packet).unwrap();
            pair.now += TURN;
            let wire = &packet[HEADER_LEN..len];
            assert!(wire.iter().filter(|code| **code == 0xff).count() < 8, "{suite:?}");
            assert!(!wire.starts_with(&[5, 10]) && !wire.starts_with(&[5, 0x8a]));
        }
    }
}

#[test]
fn replayed_and_tampered_packets_are_counted_and_dropped() {
    for suite in Suite::ALL {
        let mut pair = secure(suite);
        pair.press("159", Method::Events, 60);
        for _ in 0..60 {
            pair.turn();
            let copies: Vec<_> = pair.link.iter().filter(|packet| packet.1).cloned().collect();
            for (due, _, mut bytes) in copies {
                pair.link.push((due, true, bytes.clone()));
                *bytes.last_mut().unwrap() ^= 1;
                pair.link.push((due, true, bytes));
            }
            // What the link holds now was sent this turn and is delivered the next.
            pair.jitter_ms = |_| 20;
        }
        pair.turns(5);
        let counters = pair.b.stream.counters();
        assert_eq!(pair.b.keys, "159", "{suite:?}");
        assert!(counters.replayed >= 50, "{counters:?}");
        assert!(counters.unauthentic + counters.replayed >= 100, "{counters:?}");
        assert!(counters.received <= 65, "{counters:?}");
    }
}

#[test]
fn plain_rtp_is_not_heard_where_srtp_was_agreed_on() {
    let mut pair = secure(Suite::Cm80);
    let plain = Negotiated { srtp: None, ..negotiated(B) };
    pair.a.stream.command(pair.now, Command::Negotiated(plain));
    pair.press("1", Method::Events, 60);
    pair.turns(20);
    let counters = pair.b.stream.counters();
    assert_eq!((pair.b.keys.as_str(), counters.received), ("", 0));
    assert_eq!(counters.unauthentic, 20);
}

#[test]
fn a_re_invite_keeps_what_it_does_not_change() {
    for new_keys in [false, true] {
        for suite in Suite::ALL {
            let mut pair = secure(suite);
            near_the_wrap(&mut pair);
            pair.jitter_ms = |_| 15;
            pair.press(CARD, Method::Events, 60);
            pair.turns(50);
            let (ours, theirs) = if new_keys { (11, 12) } else { (1, 2) };
            // B answers first; until its answer is there A goes on with its old key.
            let b = Negotiated { srtp: keys(theirs, ours, suite), ..negotiated(A) };
            pair.b.stream.command(pair.now, Command::Negotiated(b));
            pair.turns(3);
            let a = Negotiated { srtp: keys(ours, theirs, suite), ..negotiated(B) };
            pair.a.stream.command(pair.now, Command::Negotiated(a));
            pair.turns(80);
            assert_eq!(pair.b.keys, CARD, "{suite:?} {new_keys}");
            let counters = pair.b.stream.counters();
            assert_eq!((counters.unauthentic, counters.lost), (0, 0), "{suite:?} {new_keys}");
        }
    }
}

#[test]
fn only_what_authenticates_proves_an_address() {
    let now = Instant::now();
    let mut stream = Stream::new(setup(3), Latch::Nat, now);
    let srtp = keys(2, 1, Suite::Cm80);
    let stranger = SocketAddr::from(([198, 51, 100, 9], 7777));
    stream.command(now, Command::Negotiated(Negotiated { srtp, ..negotiated(A) }));
    let mut sender = Stream::new(setup(4), Latch::Strict, now);
    let srtp = keys(1, 2, Suite::Cm80);
    sender.command(now, Command::Negotiated(Negotiated { srtp, ..negotiated(B) }));
    let mut packet = [0; PACKET_MAX];
    for turn in 0..20u32 {
        let now = now + TURN * turn;
        let header = Header {
            marker: false,
            payload_type: 0,
            sequence: turn as u16,
            timestamp: turn * 160,
            ssrc: 66,
        };
        let forged = [&header.bytes()[..], &[0xff; 170]].concat();
        stream.receive(now, stranger, &forged);
        assert_ne!(stream.remote(), Some(stranger));
        let len = sender.transmit(now, &mut packet).unwrap();
        stream.receive(now, SocketAddr::from(([203, 0, 113, 1], 9)), &packet[..len]);
    }
    assert_eq!(stream.counters().unauthentic, 8, "then the peer is known by its address");
    assert_eq!(stream.remote(), Some(SocketAddr::from(([203, 0, 113, 1], 9))));
}
