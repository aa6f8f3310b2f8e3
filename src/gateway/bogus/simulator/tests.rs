//! The simulated processor keeps its books, and goes wrong when told to.

use super::super::charge::TRIGGER_CARDS;
use super::*;
use crate::gateway::bogus::{Bogus, Settings};
use crate::gateway::{Act, Charge as Asked, Dialect, Fixable, Found, Gateway, Initiator, Lookup};
use crate::gateway::{Modification, Modified, Purpose, Verdict};
use crate::instrument::{Card, Cvv, Expiry, Instrument, Last4, Method as Paid};

/// 2026-06-01T00:00:00Z
const NOW: i64 = 1_780_272_000_000;
const GOOD: &str = "4111111111111111";

fn gateway(api_key: &str) -> Bogus {
    let base_url = "https://gateway.example".into();
    Bogus::open(Settings { base_url, api_key: Secret::new(api_key.into()) }).unwrap()
}

fn simulator() -> Simulator {
    Simulator::new("key", 1)
}

fn card(number: &str) -> Card {
    let pan = Pan::parse(number).unwrap();
    let cvv = Cvv::parse("123", pan.brand());
    let expiry = Expiry::parse("0930", jiff::civil::date(2026, 6, 1)).unwrap();
    Card { pan, expiry, cvv, zip: Some("46201".to_string().into()) }
}

fn asked<'a>(reference: &'a str, card: &'a Card, total: i64) -> Asked<'a> {
    Asked {
        purpose: Purpose::Sale,
        reference,
        total: Money::usd(total),
        fee: Money::usd(200),
        surcharge: false,
        instrument: Instrument::Card(card),
        account_id: "A1",
        save: false,
        initiator: Initiator::Customer,
        at_ms: NOW,
    }
}

fn request(reference: &str, number: &str, total: i64) -> Request {
    gateway("key").charge(&asked(reference, &card(number), total)).unwrap()
}

fn verdict(exchange: Exchange) -> Verdict {
    gateway("key").verdict(&asked("r", &card(GOOD), 20_200), &exchange)
}

fn charge(sim: &mut Simulator, reference: &str, number: &str, total: i64) -> Verdict {
    verdict(sim.exchange(NOW, request(reference, number, total)))
}

fn look_up(reference: &str) -> Lookup<'_> {
    let total = Money::usd(20_200);
    let (purpose, method, step) = (Purpose::Sale, Paid::Card, String::new());
    Lookup { purpose, reference, total, method, started_ms: NOW, at_ms: NOW, step }
}

fn lookup(sim: &mut Simulator, now_ms: i64, reference: &str) -> Found {
    let lookup = look_up(reference);
    let request = gateway("key").lookup(&lookup).unwrap();
    gateway("key").found(&lookup, &sim.exchange(now_ms, request))
}

fn change(act: Act, original: &str, minor: i64) -> Modification<'_> {
    let (amount, last4) = (Money::usd(minor), Last4::parse("1111").unwrap());
    let (method, purpose, at_ms) = (Paid::Card, Purpose::Sale, NOW);
    // One for each amount: the same change again is the same change.
    let reference = format!("{act:?}-{minor}").leak();
    Modification { act, reference, original, purpose, amount, method, last4, at_ms }
}

fn modify(sim: &mut Simulator, now_ms: i64, change: &Modification<'_>) -> Modified {
    let request = gateway("key").modify(change).unwrap();
    gateway("key").modified(change, &sim.exchange(now_ms, request))
}

fn approved(verdict: Verdict) -> crate::gateway::Approval {
    let Verdict::Approved(approval) = verdict else { panic!("{verdict:?}") };
    approval
}

#[test]
fn a_good_card_is_charged_once_per_reference() {
    let mut sim = simulator();
    let first = approved(charge(&mut sim, "r1", GOOD, 20_200));
    let again = approved(charge(&mut sim, "r1", GOOD, 20_200));
    assert_eq!(first, again);
    assert_eq!((first.avs.as_deref(), first.auth_code.len()), (Some("Y"), 6));
    assert_eq!(sim.sales().len(), 1);
    let other_total = charge(&mut sim, "r1", GOOD, 20_300);
    assert!(matches!(other_total, Verdict::Unknown(_)), "{other_total:?}");
    approved(charge(&mut sim, "r2", GOOD, 20_200));
    let sale = &sim.sales()[0];
    assert_eq!((sale.reference.as_str(), sale.total), ("r1", Money::usd(20_200)));
    assert_eq!(sim.sales().len(), 2);
}

#[test]
fn each_trigger_card_has_its_outcome() {
    let wanted = [
        Verdict::DeclinedSoft,
        Verdict::DeclinedSoft,
        Verdict::DeclinedHard,
        Verdict::Fixable(Fixable::Expiry),
        Verdict::Fixable(Fixable::Cvv),
        Verdict::Fixable(Fixable::Zip),
        Verdict::Fixable(Fixable::Number),
        Verdict::Held("manual_review".into()),
    ];
    let mut sim = simulator();
    for ((number, _), want) in TRIGGER_CARDS.iter().zip(wanted) {
        assert_eq!(charge(&mut sim, number, number, 20_200), want, "{number}");
        assert_eq!(lookup(&mut sim, NOW, number), Found::Settled(want), "{number}");
    }
    let later = NOW + 10 * 365 * 24 * 3_600_000;
    let late = verdict(sim.exchange(later, request("old", GOOD, 20_200)));
    assert_eq!(late, Verdict::Fixable(Fixable::Expiry));
}

#[test]
fn each_trigger_total_loses_its_answer_its_own_way() {
    for (fault, total) in Fault::ALL.into_iter().zip(TRIGGER_TOTAL..) {
        let mut sim = simulator();
        let verdict = charge(&mut sim, "r", GOOD, total);
        match fault {
            Fault::Slow => drop(approved(verdict)),
            Fault::TooManyRequests => assert!(matches!(verdict, Verdict::NotSent(_))),
            _ => assert!(matches!(verdict, Verdict::Unknown(_)), "{fault:?} {verdict:?}"),
        }
        let early = lookup(&mut sim, NOW + 1, "r");
        let later = lookup(&mut sim, NOW + 60_000, "r");
        match fault {
            Fault::Late => assert_eq!(early, Found::Absent),
            Fault::Pending => assert_eq!(early, Found::NotYet),
            _ => assert_eq!(early, later, "{fault:?}"),
        }
        let settled = matches!(later, Found::Settled(Verdict::Approved(_)));
        assert_eq!(settled, fault.processes(), "{fault:?} {later:?}");
        assert_eq!(sim.sales().len(), usize::from(fault.processes()), "{fault:?}");
    }
}

#[test]
fn faults_on_demand_hit_the_next_request_alone() {
    for fault in Fault::ALL {
        let mut sim = simulator();
        sim.fail_next(fault);
        let lost = charge(&mut sim, "r", GOOD, 20_200);
        assert_eq!(fault == Fault::Slow, matches!(lost, Verdict::Approved(_)), "{fault:?}");
        approved(charge(&mut sim, "r2", GOOD, 20_200));
    }
    let mut sim = simulator();
    sim.fail_randomly(5, 50);
    let count = (0..200).filter(|n| {
        let verdict = charge(&mut sim, &format!("r{n}"), GOOD, 20_200);
        matches!(verdict, Verdict::Approved(_))
    });
    assert!((80..140).contains(&count.count()));
}

#[test]
fn voids_before_settlement_and_refunds_after() {
    let mut sim = simulator();
    let id = approved(charge(&mut sim, "r", GOOD, 20_200)).gateway_reference;
    let next_day = NOW + SETTLE_MS;
    let refused = |modified| matches!(modified, Modified::Refused(_));
    let refund = |minor| change(Act::Refund, &id, minor);
    let done = Modified::Done(id.clone());
    assert!(refused(modify(&mut sim, NOW, &refund(200))));
    assert!(refused(modify(&mut sim, next_day, &change(Act::Void, &id, 20_200))));
    assert_eq!(modify(&mut sim, next_day, &refund(200)), done);
    // The same again is answered as it was, and done once.
    assert_eq!(modify(&mut sim, next_day, &refund(200)), done);
    assert_eq!(sim.sales()[0].refunded, 200);
    assert!(refused(modify(&mut sim, next_day, &refund(20_001))));
    assert_eq!(modify(&mut sim, next_day, &refund(20_000)), done);
    assert!(refused(modify(&mut sim, NOW, &change(Act::Void, "sale_999999", 1))));
    assert_eq!(sim.sales()[0].refunded, 20_200);

    let id = approved(charge(&mut sim, "r2", GOOD, 20_200)).gateway_reference;
    let done = Modified::Done(id.clone());
    let void = change(Act::Void, &id, 20_200);
    assert_eq!(modify(&mut sim, NOW, &void), done);
    assert_eq!(modify(&mut sim, NOW, &void), done);
    assert!(refused(modify(&mut sim, next_day, &change(Act::Refund, &id, 1))));
}

#[test]
fn strangers_and_nonsense_are_refused() {
    let mut sim = simulator();
    let request_of_a_stranger = gateway("wrong").lookup(&look_up("r")).unwrap();
    let stranger = verdict(sim.exchange(NOW, request_of_a_stranger));
    assert!(matches!(stranger, Verdict::Config(_)));
    for body in ["", "{", "[]", "{\"reference\":\"r\"}"] {
        let mut bad = request("r", GOOD, 20_200);
        *bad.body = body.as_bytes().to_vec();
        assert!(matches!(verdict(sim.exchange(NOW, bad)), Verdict::Config(_)), "{body}");
    }
    let mut keyless = request("r", GOOD, 20_200);
    keyless.head.headers.remove("idempotency-key");
    assert!(matches!(verdict(sim.exchange(NOW, keyless)), Verdict::Config(_)));
    assert!(sim.sales().is_empty());
}

#[test]
fn books_hold_no_card_number() {
    let mut sim = simulator();
    charge(&mut sim, "r", GOOD, 20_200);
    let books = format!("{:?}", sim.sales());
    assert!(!books.contains("411111") && books.contains("1111"), "{books}");
}
