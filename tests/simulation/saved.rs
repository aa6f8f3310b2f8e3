//! A caller has a card kept, and pays with it on the next call: three keys, and sooner.

use std::time::Duration;

use ringtill::gateway::bogus::Outcome as Sold;
use ringtill::media::Method;
use ringtill::payment::{Outcome, SavedSettings};

use super::*;

const DAY_MS: i64 = 24 * 3_600_000;

/// James pays his balance with his card and has it kept.
const KEEPS: &str = "\
    hear greet.due, key 1, hear-start card.ask, key 4111111111111111#,
    hear-start expiry.ask, key 1230, hear-start cvv.ask_three, key 123,
    hear-start zip.ask, key 46201, hear-start saved.keep, key 1, hear-start saved.agree 60, key 1,
    hear-start consent.accept 60, key 1, hear result.approved 60, hear saved.kept 60, hangup";

/// The same a month later, with the card that is kept.
const THREE_KEYS: &str = "\
    hear-start greet.hello, key 1, hear-start saved.pay_with, key 1,
    hear-start consent.accept 60, key 1, hear result.confirmation 60, hangup";

/// A call on `server`; how long it took and what the phone reported.
fn call(server: Server, script: &str, seed: u64) -> (Server, Duration, String) {
    let scenario = Scenario {
        name: "kept card",
        from: JAMES,
        script: script.into(),
        fault: None,
        expected: Expected::NothingCharged,
    };
    let now = start();
    let mut network = Network::new(CLEAR, seed);
    let phone = phone(&scenario, &server, seed, Method::Events);
    let mut call = Simulation { now, server, network: &mut network, phone: Phone::new(phone, now) };
    let reports = call.run(now + CALL_MAX).join("\n");
    let took = call.now.duration_since(now);
    if let Some(Err(failure)) = call.phone.finished() {
        panic!("the phone: {failure}\n{reports}");
    }
    (call.server, took, reports)
}

/// A server that knows what the one before knew, so many days later.
fn later(before: Server, days: i64) -> Server {
    let mut server = fresh(before.started_ms + days * DAY_MS);
    server.journal = before.journal;
    server.simulator = before.simulator;
    server
}

fn fresh(started_ms: i64) -> Server {
    let mut server = Server::new(start(), library().clone(), 7);
    server.saved = Some(SavedSettings::default());
    server.started_ms = started_ms;
    server
}

#[test]
fn a_kept_card_pays_the_balance_with_three_keys() {
    let before = Server::new(start(), library().clone(), 7).started_ms;
    let (server, first, reports) = call(fresh(before), KEEPS, 1);
    assert!(matches!(server.outcome, Some(Outcome::Paid { .. })), "{reports}");
    let wallet = server.journal.wallet("biller", "1001").unwrap().cards;
    let [card] = &wallet[..] else { panic!("{wallet:?}\n{reports}") };
    assert_eq!((card.last4.as_str(), &*card.gateway), ("1111", "bogus"));

    // 30 days later the same balance is due: it is another payment.
    let (server, took, reports) = call(later(server, 30), THREE_KEYS, 2);
    assert!(matches!(server.outcome, Some(Outcome::Paid { .. })), "{reports}");
    assert_eq!(server.keys, "111", "{reports}");
    let sold: Vec<_> = server.simulator.sales().iter().map(|sale| sale.total.minor).collect();
    assert_eq!(sold, [32_372, 32_372]);
    println!("with the card keyed {first:.1?}, with the one that is kept {took:.1?}, three keys");
    assert!(took <= Duration::from_secs(35), "{took:?} to the confirmation number\n{reports}");
}

/// The issuer takes the card back: it is dropped, and the caller pays with another.
#[test]
fn a_kept_card_that_is_refused_for_good_is_offered_no_more() {
    let before = Server::new(start(), library().clone(), 7).started_ms;
    for gone in [false, true] {
        let (server, _, _) = call(fresh(before), KEEPS, 3);
        let mut server = later(server, 30);
        match gone {
            true => server.simulator.empty_vault(),
            false => server.simulator.judge_kept(Sold::Declined("stolen_card", "never", "")),
        }
        let script = "hear-start greet.hello, key 1, hear-start saved.pay_with, key 1,
            hear-start consent.accept 60, key 1, hear result.declined_hard 60,
            hear-start retry.other_way, key 1, hear-start card.ask, key 5555555555554444#,
            hear-start expiry.ask, key 1230, hear-start cvv.ask_three, key 123,
            hear-start zip.ask, key 46201, hear-start saved.keep, key 2,
            hear-start consent.accept 60, key 1, hear result.approved 60, wait-end 90";
        let (server, _, reports) = call(server, script, 4);
        assert!(matches!(server.outcome, Some(Outcome::Paid { .. })), "{reports}");
        assert_eq!(server.journal.wallet("biller", "1001").unwrap().cards, [], "{reports}");
        let (_, _, reports) = call(
            later(server, 30),
            "hear-start greet.hello, key 1, hear-start card.ask, hangup",
            5,
        );
        assert!(!reports.contains("saved"), "{reports}");
    }
}
