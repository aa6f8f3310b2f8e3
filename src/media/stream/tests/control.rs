//! Streams that report to each other.

use super::*;
use crate::rtp::packet::is_rtcp;
use crate::sip::offer::{SrtpKeys, SrtpSeed, Suite};

/// Whether it is A's, its way, and its bytes.
type Report = (bool, Rtcp, Vec<u8>);

/// A pair of which each end sends reports, which take 30 ms.
struct Reporting {
    pair: Pair,
    due: Vec<(Instant, Report)>,
    wire: Vec<Report>,
}

fn beside(address: ([u8; 4], u16)) -> SocketAddr {
    (address.0, address.1 + 1).into()
}

fn apart(remote: ([u8; 4], u16)) -> Negotiated {
    Negotiated { rtcp: Some(Rtcp::Apart(beside(remote))), ..negotiated(remote) }
}

impl Reporting {
    fn new(a: Negotiated, b: Negotiated) -> Reporting {
        Reporting { pair: Pair::with(a, b), due: vec![], wire: vec![] }
    }

    fn turns(&mut self, turns: u32) {
        for _ in 0..turns {
            self.pair.turn();
            for from_a in [true, false] {
                let mut packet = [0; PACKET_MAX];
                let Pair { now, a, b, .. } = &mut self.pair;
                let from = if from_a { a } else { b };
                let Some((len, way)) = from.stream.report(*now, &mut packet) else { continue };
                let report = (from_a, way, packet[..len].to_vec());
                self.due.push((*now + Duration::from_millis(30), report.clone()));
                self.wire.push(report);
            }
            let now = self.pair.now;
            for (due, report) in self.due.extract_if(.., |(due, _)| *due <= now) {
                deliver(&mut self.pair, due, &report);
            }
        }
    }
}

fn deliver(pair: &mut Pair, due: Instant, (from_a, way, bytes): &Report) {
    let (from, to) = if *from_a { (A, &mut pair.b) } else { (B, &mut pair.a) };
    match *way {
        Rtcp::Muxed => to.stream.receive(due, from.into(), bytes),
        Rtcp::Apart(to_whom) => {
            assert_eq!(to_whom, beside(if *from_a { B } else { A }));
            to.stream.receive_control(due, beside(from), bytes);
        }
    }
}

#[test]
fn reports_tell_both_sides_of_loss_jitter_and_round_trip() {
    let muxed = |remote| Negotiated { rtcp: Some(Rtcp::Muxed), ..negotiated(remote) };
    for (a, b) in [(apart(B), apart(A)), (muxed(B), muxed(A))] {
        let way = a.rtcp;
        let mut both = Reporting::new(a, b);
        both.pair.lose = |nth| nth % 10 == 3;
        both.pair.jitter_ms = |nth| nth % 2 * 8;
        both.turns(3_000);
        assert!(both.wire.iter().all(|(from_a, to, _)| !from_a || Some(*to) == way));
        assert!((16..34).contains(&both.wire.len()), "{} reports in a minute", both.wire.len());
        let (a, b) = (both.pair.a.stream.quality(), both.pair.b.stream.quality());
        assert!((298..=300).contains(&b.lost) && b.expected >= 2_998, "{b}");
        assert!((6..10).contains(&b.jitter.as_millis()), "{b}");
        assert_eq!(a.lost, 0, "{a}");
        // What A is told of itself is what B has seen, as of the last report.
        let told = a.peer.unwrap();
        assert!((200..=300).contains(&told.lost), "{a}");
        assert!((5..11).contains(&told.jitter.as_millis()), "{a}");
        for quality in [a, b] {
            let trip = quality.round_trip.unwrap().as_millis();
            assert!((59..=61).contains(&trip), "{quality}");
        }
        let (bad, good) = (b.mos.unwrap(), a.mos.unwrap());
        assert!(good.listening > 4.4 && (3.3..3.5).contains(&bad.listening), "{a} {b}");
        assert!(good.conversational < good.listening);
        let counters = both.pair.b.stream.counters();
        assert!(counters.rtcp >= 8 && counters.reports >= 8, "{counters:?}");
        assert_eq!((counters.malformed, counters.foreign), (0, 0));
    }
}

#[test]
fn reports_are_encrypted_where_rtp_is_and_believed_only_if_they_authenticate() {
    let keys = |ours: u8, theirs: u8, suite| {
        let key = |seed| SrtpSeed::new([seed; 32]).key(suite);
        Some(SrtpKeys { ours: key(ours), theirs: key(theirs) })
    };
    for suite in Suite::ALL {
        let a = Negotiated { srtp: keys(1, 2, suite), ..apart(B) };
        let b = Negotiated { srtp: keys(2, 1, suite), ..apart(A) };
        let mut both = Reporting::new(a, b);
        both.turns(1_000);
        let b = &mut both.pair.b.stream;
        assert!(b.quality().round_trip.is_some(), "{suite:?}");
        assert!(both.wire.iter().all(|(_, _, bytes)| is_rtcp(bytes)));
        // The name of A is on the wire nowhere.
        let name = format!("{:024x}", 1u128 >> 32);
        let shows = |bytes: &[u8]| bytes.windows(24).any(|part| part == name.as_bytes());
        assert!(!both.wire.iter().any(|(_, _, bytes)| shows(bytes)), "{suite:?}");
        // Once more, changed, and in the clear.
        let (_, _, report) = both.wire.iter().rfind(|(from_a, ..)| *from_a).unwrap();
        let mut changed = report.clone();
        *changed.last_mut().unwrap() ^= 1;
        let before = b.counters();
        let now = both.pair.now;
        b.receive_control(now, beside(A), report);
        b.receive_control(now, beside(A), &changed);
        b.receive_control(now, beside(A), &[0x80, 201, 0, 1, 0, 0, 0, 1]);
        let after = b.counters();
        assert_eq!(after.rtcp, before.rtcp, "{suite:?}");
        let refused = after.replayed + after.unauthentic + after.malformed;
        assert_eq!(refused - before.replayed - before.unauthentic - before.malformed, 3);
    }
}

#[test]
fn reports_of_strangers_are_counted_and_say_nothing() {
    let mut both = Reporting::new(apart(B), apart(A));
    both.turns(10);
    let now = both.pair.now;
    let stream = &mut both.pair.b.stream;
    let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
    stream.receive_control(now, A.into(), &report);
    stream.receive_control(now, ([192, 0, 2, 66], 4001).into(), &report);
    stream.receive(now, ([192, 0, 2, 66], 4000).into(), &report);
    stream.receive_control(now, beside(A), b"\x80\x00garbage");
    stream.receive_control(now, beside(A), &[0x80, 200, 0, 0]);
    let counters = stream.counters();
    assert_eq!((counters.foreign, counters.malformed, counters.rtcp), (3, 2, 0));
    stream.receive_control(now, beside(A), &report);
    // Some send it to the RTP port without having agreed on it.
    stream.receive(now, A.into(), &report);
    assert_eq!(stream.counters().rtcp, 2);
}

#[test]
fn a_peer_that_only_reports_is_not_silent() {
    let mut both = Reporting::new(apart(B), apart(A));
    both.pair.lose = |_| true;
    both.turns(2_000);
    assert_eq!(both.pair.b.silent, 0);
    let none = Negotiated { rtcp: None, ..apart(B) };
    both.pair.a.stream.command(both.pair.now, Command::Negotiated(none));
    both.turns(2_000);
    assert_eq!(both.pair.b.silent, 1);
}

#[test]
fn nothing_is_reported_on_hold_or_where_the_peer_wants_none_and_goodbye_ends_it() {
    let mut packet = [0; PACKET_MAX];
    let mut both = Reporting::new(negotiated(B), apart(A));
    both.turns(1_000);
    assert!(both.wire.iter().all(|(from_a, ..)| !from_a));
    let now = both.pair.now;
    assert_eq!(both.pair.a.stream.goodbye(now, &mut packet), None);
    let (len, way) = both.pair.b.stream.goodbye(now, &mut packet).unwrap();
    assert_eq!(way, Rtcp::Apart(beside(A)));
    assert_eq!(packet[len - 8..len - 4], [0x81, 203, 0, 1], "a BYE of one source at the end");
}

#[test]
fn behind_nat_reports_go_where_the_peers_came_from() {
    let mut both = Reporting::new(apart(B), apart(A));
    let now = both.pair.now;
    both.pair.b.stream = Stream::new(setup(2), Latch::Nat, now);
    let told = ([10, 0, 0, 9], 9);
    both.pair.b.stream.command(now, Command::Negotiated(apart(told)));
    // Nobody knows where to until the peer has reported, too.
    let mut packet = [0; PACKET_MAX];
    for _ in 0..1_000 {
        both.pair.turn();
        assert_eq!(both.pair.b.stream.report(both.pair.now, &mut packet), None);
    }
    assert_eq!(both.pair.b.stream.remote(), Some(A.into()));
    let reported = (A.0, 61_000).into();
    let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
    both.pair.b.stream.receive_control(both.pair.now, reported, &report);
    let (_, way) = both.pair.b.stream.report(both.pair.now, &mut packet).unwrap();
    assert_eq!(way, Rtcp::Apart(reported));
}
