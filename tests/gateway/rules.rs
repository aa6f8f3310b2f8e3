//! Conversations with the simulators: every case, the life of a charge, repeats, tokens, and what
//! becomes of a charge whose answer is lost.

use ringtill::gateway::simulator::{Case, Fault, LATE_MS, SETTLE_MS};
use ringtill::gateway::{
    self, Act, Charge, First, Fixable, Found, Initiator, Modified, Operation, Purpose, Repeat,
    Series, Verdict,
};
use ringtill::instrument::{Brand, Cvv, Method, Saved};

use super::Tally;
use super::bench::*;

type Checked = Result<(), String>;

pub fn check(name: &str, tally: &mut Tally) {
    for (variant, line) in gateway::variants(name) {
        let mut case = |what: &str, checked: Checked| {
            tally.case(&format!("{variant} rule {what}"), checked);
        };
        let pair = || Pair::new(name, line);
        let capabilities = pair().gateway.capabilities();
        let can = |operation| capabilities.can(operation);
        for wanted in Case::ALL {
            let mut pair = pair();
            let Some(trigger) = pair.simulator.trigger(wanted) else { continue };
            if !trigger.bank || capabilities.bank {
                case(&format!("{wanted:?}"), judged(&mut pair, wanted));
            }
        }
        case("repeat", repeated(pair(), capabilities.repeat));
        case("second payment", second(pair()));
        case("foreign credentials", foreign(name, line));
        for fault in Fault::ALL {
            case(&format!("{fault:?}"), lost(pair(), fault));
        }
        if can(Operation::Verify) {
            case("verify", verified(pair()));
        }
        if can(Operation::Lookup) {
            case("never charged", absent(pair()));
        }
        if can(Operation::Capture) {
            case("capture", captured(pair()));
            case("authorise and void", authorised_and_voided(pair()));
        }
        if can(Operation::Void) {
            case("void", voided(pair()));
        }
        if can(Operation::Refund) {
            case("refund", refunded(pair()));
        }
        if can(Operation::Refund) && capabilities.bank {
            case("refund of an account", refunded_account(pair()));
        }
        if capabilities.verify_keeps {
            case("verified and kept", by_merchant(pair(), Purpose::Verify));
            case("refused and not kept", refused_and_not_kept(pair()));
        }
        if capabilities.surcharge {
            case("surcharge", surcharged(pair()));
        }
        if capabilities.tokens {
            case("token", kept(pair()));
            case("merchant", by_merchant(pair(), Purpose::Sale));
        }
    }
}

/// The case comes up, and a lookup finds the same.
fn judged(pair: &mut Pair, wanted: Case) -> Checked {
    let asked = asked(pair.simulator.trigger(wanted).unwrap());
    let charge = Charge { total: asked.total, ..charge(Purpose::Sale, REFERENCE, &asked.paid) };
    let verdict = pair.charge(&charge);
    let right = match (&verdict, wanted) {
        (Verdict::Approved(approval), Case::Approved) => approval.partial.is_none(),
        (Verdict::Approved(approval), Case::Partial) => {
            approval.partial.is_some_and(|part| part.minor == asked.total.minor / 2)
        }
        (Verdict::DeclinedSoft, Case::DeclinedSoft) => true,
        (Verdict::DeclinedHard, Case::DeclinedHard) => true,
        (Verdict::Fixable(Fixable::Number), Case::Number) => true,
        (Verdict::Fixable(Fixable::Expiry), Case::Expiry) => true,
        (Verdict::Fixable(Fixable::Cvv), Case::Cvv) => true,
        (Verdict::Fixable(Fixable::Zip), Case::Zip) => true,
        (Verdict::Fixable(Fixable::Routing), Case::Routing) => true,
        (Verdict::Fixable(Fixable::Account), Case::Account) => true,
        (Verdict::Held(_), Case::Held) => true,
        _ => false,
    };
    ensure(right, || format!("{verdict:?}"))?;
    if !pair.gateway.capabilities().can(Operation::Lookup) {
        return Ok(());
    }
    let asked = lookup(Purpose::Sale, REFERENCE, asked.paid.instrument().method());
    let asked = gateway::Lookup { total: charge.total, ..asked };
    match (pair.find(asked), verdict) {
        (Found::Settled(Verdict::Approved(found)), Verdict::Approved(told)) => {
            let same =
                found.gateway_reference == told.gateway_reference && found.partial == told.partial;
            ensure(same, || format!("found {found:?}, told {told:?}"))
        }
        // A lookup may know less than the answer did, but never the opposite.
        (Found::Settled(Verdict::Approved(found)), told) => {
            Err(format!("{told:?}, found {found:?}"))
        }
        (found, Verdict::Approved(told)) => Err(format!("{told:?}, found {found:?}")),
        _ => Ok(()),
    }
}

/// The same charge again is never a second one, as far as the gateway promises it.
fn repeated(mut pair: Pair, repeat: Repeat) -> Checked {
    let paid = visa();
    let charge = charge(Purpose::Sale, REFERENCE, &paid);
    let first = pair.charge(&charge);
    let first = approved(&first)?;
    pair.now_ms += 5_000;
    let again = pair.charge(&charge);
    match (repeat, &again) {
        (Repeat::Replays, Verdict::Approved(again)) => {
            let same = again.gateway_reference == first.gateway_reference;
            ensure(same && pair.standing() == 1, || format!("{first:?}, then {again:?}"))
        }
        (Repeat::Refuses { window_s }, Verdict::Duplicate { original }) => {
            let told = original.as_ref().is_none_or(|id| *id == first.gateway_reference);
            ensure(told && pair.standing() == 1, || format!("{original:?}"))?;
            pair.now_ms += i64::from(window_s) * 1_000;
            approved(&pair.charge(&charge))?;
            ensure(pair.standing() == 2, || "the window never ends".into())
        }
        (Repeat::Charges, Verdict::Approved(_)) => Ok(()),
        (_, again) => Err(format!("{repeat:?}: {again:?}")),
    }
}

/// A second payment of the same caller is charged, or is told apart by a lookup.
fn second(mut pair: Pair) -> Checked {
    let paid = visa();
    approved(&pair.charge(&charge(Purpose::Sale, REFERENCE, &paid)))?;
    let other = "0197284f-2c00-7a41-8d53-6f0f2f6f3f77";
    match pair.charge(&charge(Purpose::Sale, other, &paid)) {
        Verdict::Approved(_) => ensure(pair.standing() == 2, || "not charged".into()),
        Verdict::Duplicate { .. } => {
            let found = pair.find(lookup(Purpose::Sale, other, Method::Card));
            ensure(found == Found::Absent && pair.standing() == 1, || format!("{found:?}"))
        }
        other => Err(format!("{other:?}")),
    }
}

fn foreign(name: &str, line: &str) -> Checked {
    if gateway::secrets(name).is_empty() {
        return Ok(());
    }
    let mut pair = Pair::new(name, line);
    let wrong = "d3JvbmctLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0=";
    pair.gateway = open(name, line, Some("https://gateway.example"), wrong);
    let verdict = pair.charge(&charge(Purpose::Sale, REFERENCE, &visa()));
    let refused = matches!(verdict, Verdict::Config(_));
    ensure(refused && pair.simulator.entries().is_empty(), || format!("{verdict:?}"))
}

/// Whatever goes wrong: charged at most once, and found if it was.
fn lost(mut pair: Pair, fault: Fault) -> Checked {
    pair.simulator.fail_next(fault);
    let paid = visa();
    let charge = charge(Purpose::Sale, REFERENCE, &paid);
    let verdict = pair.charge(&charge);
    match (fault, &verdict) {
        (Fault::Slow, Verdict::Approved(_)) => {}
        (Fault::TooManyRequests, Verdict::NotSent(_)) => {}
        (_, Verdict::Unknown(_)) => {}
        (fault, verdict) => return Err(format!("{fault:?}: {verdict:?}")),
    }
    pair.now_ms += LATE_MS + 1_000;
    let entries = pair.standing();
    recovered(&mut pair, &charge, fault.processes())?;
    ensure(entries <= 1 && pair.standing() <= 1, || "charged twice".into())
}

/// A lookup, or where there is none a repeat that is replayed, tells the truth.
fn recovered(pair: &mut Pair, charge: &Charge<'_>, processed: bool) -> Checked {
    let capabilities = pair.gateway.capabilities();
    if capabilities.can(Operation::Lookup) {
        return match pair.find(lookup(Purpose::Sale, charge.reference, Method::Card)) {
            Found::Settled(Verdict::Approved(approval)) if processed => {
                let entries = pair.simulator.entries();
                ensure(entries[0].id == approval.gateway_reference, || format!("{approval:?}"))
            }
            Found::Absent | Found::NotYet if !processed => Ok(()),
            found => Err(format!("found {found:?}, processed: {processed}")),
        };
    }
    if capabilities.repeat == Repeat::Replays {
        approved(&pair.charge(charge))?;
    }
    Ok(())
}

fn verified(mut pair: Pair) -> Checked {
    approved(&pair.charge(&charge(Purpose::Verify, REFERENCE, &visa())))?;
    let taken: i64 = pair.simulator.entries().iter().map(|entry| entry.captured).sum();
    ensure(taken == 0, || format!("{taken} taken"))?;
    if let Some(trigger) = pair.simulator.trigger(Case::DeclinedHard) {
        let paid = asked(trigger).paid;
        let verdict = pair.charge(&charge(Purpose::Verify, "v2", &paid));
        ensure(!matches!(verdict, Verdict::Approved(_)), || format!("{verdict:?}"))?;
    }
    Ok(())
}

/// Gateways whose "nothing found" is documented nowhere as proof that nothing was charged.
const NEVER_ABSENT: [&str; 1] = ["worldpay_cnp"];

/// Those whose searches do not show at once what was charged.
const SEARCHED_LATE: [&str; 1] = ["cybersource"];

fn absent(mut pair: Pair) -> Checked {
    approved(&pair.charge(&charge(Purpose::Sale, "another", &visa())))?;
    // Where searches show a charge late, not finding it proves nothing at first.
    let early = pair.find(lookup(Purpose::Sale, REFERENCE, Method::Card));
    let late = SEARCHED_LATE.contains(&pair.gateway.name());
    ensure(!late || early == Found::NotYet, || format!("{early:?} at once"))?;
    pair.now_ms += 2 * 3_600_000;
    let found = pair.find(lookup(Purpose::Sale, REFERENCE, Method::Card));
    let want = match NEVER_ABSENT.contains(&pair.gateway.name()) {
        true => Found::NotYet,
        false => Found::Absent,
    };
    ensure(found == want, || format!("{found:?}"))
}

fn done(modified: &Modified) -> Checked {
    let right = matches!(modified, Modified::Done(_) | Modified::Accepted(_));
    ensure(right, || format!("{modified:?} instead of done"))
}

fn refused(modified: &Modified) -> Checked {
    ensure(matches!(modified, Modified::Refused(_)), || format!("{modified:?} instead of refused"))
}

fn sold(pair: &mut Pair, purpose: Purpose) -> Result<String, String> {
    let verdict = pair.charge(&charge(purpose, REFERENCE, &visa()));
    Ok(approved(&verdict)?.gateway_reference.clone())
}

fn captured(mut pair: Pair) -> Checked {
    let id = sold(&mut pair, Purpose::Authorize)?;
    let taken = |pair: &Pair| pair.simulator.entries()[0].captured;
    ensure(taken(&pair) == 0, || "captured at once".into())?;
    done(&pair.modify(&modification(Act::Capture, &id, 15_000, &visa())))?;
    ensure(taken(&pair) == 15_000, || format!("{} taken", taken(&pair)))?;
    let again = gateway::Modification {
        reference: "0197284f-2c00-7a41-8d53-6f0f2f6f3f09",
        ..modification(Act::Capture, &id, 5_000, &visa())
    };
    refused(&pair.modify(&again))?;
    ensure(taken(&pair) == 15_000, || "captured twice".into())
}

fn authorised_and_voided(mut pair: Pair) -> Checked {
    let id = sold(&mut pair, Purpose::Authorize)?;
    let void = modification(Act::Void, &id, 20_200, &visa());
    done(&pair.modify(&gateway::Modification { purpose: Purpose::Authorize, ..void }))?;
    ensure(pair.standing() == 0, || "still there".into())?;
    let capture = gateway::Modification {
        reference: "0197284f-2c00-7a41-8d53-6f0f2f6f3f09",
        ..modification(Act::Capture, &id, 15_000, &visa())
    };
    refused(&pair.modify(&capture))
}

fn voided(mut pair: Pair) -> Checked {
    let id = sold(&mut pair, Purpose::Sale)?;
    done(&pair.modify(&modification(Act::Void, &id, 20_200, &visa())))?;
    ensure(pair.standing() == 0, || "still there".into())?;
    let nobody = gateway::Modification {
        reference: "0197284f-2c00-7a41-8d53-6f0f2f6f3f09",
        ..modification(Act::Void, "60990099009", 20_200, &visa())
    };
    refused(&pair.modify(&nobody))?;
    let found = match pair.gateway.capabilities().can(Operation::Lookup) {
        true => pair.find(lookup(Purpose::Sale, REFERENCE, Method::Card)),
        false => Found::NotYet,
    };
    let standing = matches!(found, Found::Settled(Verdict::Approved(_)) | Found::Absent);
    ensure(!standing, || format!("a voided charge is found as {found:?}"))
}

fn refunded(mut pair: Pair) -> Checked {
    let id = sold(&mut pair, Purpose::Sale)?;
    pair.now_ms += SETTLE_MS + 1_000;
    let refund = |minor, reference| gateway::Modification {
        reference,
        ..modification(Act::Refund, &id, minor, &visa())
    };
    done(&pair.modify(&refund(15_000, "refund-1")))?;
    refused(&pair.modify(&refund(15_000, "refund-2")))?;
    let back = pair.simulator.entries()[0].refunded;
    ensure(back == 15_000, || format!("{back} paid back"))
}

fn refunded_account(mut pair: Pair) -> Checked {
    let paid = checking();
    let verdict = pair.charge(&charge(Purpose::Sale, REFERENCE, &paid));
    let id = approved(&verdict)?.gateway_reference.clone();
    pair.now_ms += SETTLE_MS + 1_000;
    done(&pair.modify(&modification(Act::Refund, &id, 20_200, &paid)))?;
    let back = pair.simulator.entries()[0].refunded;
    ensure(back == 20_200, || format!("{back} paid back"))
}

/// The merchant charges a card that is kept and names the charge it was kept with: another one is
/// refused, and none is as it was before anybody asked for it. Nothing else was charged, if the
/// card was only verified.
fn by_merchant(mut pair: Pair, with: Purpose) -> Checked {
    let paid = visa();
    let save = Charge { save: true, ..charge(with, REFERENCE, &paid) };
    let verdict = pair.charge(&save);
    let approval = approved(&verdict)?.clone();
    let token = pair.keep(&save, &approval).ok_or("no token")?;
    let expiry = Some(crate::bench::expiry());
    let saved = Paid::Token(Saved { token, method: Method::Card, expiry, cvv: None });
    let network = approval.network.clone().unwrap_or_default();
    let told = !network.is_empty();
    let tells = NETWORK.contains(&pair.gateway.name());
    ensure(told == tells, || format!("the network's id: {network:?}"))?;
    let first =
        First { reference: &approval.gateway_reference, network: &network, total: save.total };
    let wrong = First { reference: "60990099009", network: "60990099009", ..first };
    let none = First { reference: "", network: "", ..first };
    let names = tells || pair.gateway.name() == "nmi";
    let mut at = 0;
    for series in [Series::Once, Series::Recurring, Series::Instalment] {
        for (first, right) in [(first, true), (none, true), (wrong, !names)] {
            at += 1;
            let reference = format!("0197284f-2c00-7a41-8d53-6f0f2f6f7f{at:02}");
            let later = Charge {
                total: ringtill::money::Money::usd(7_000 + at),
                initiator: Initiator::Merchant { series, first },
                ..charge(Purpose::Sale, &reference, &saved)
            };
            let verdict = pair.charge(&later);
            let is = matches!(verdict, Verdict::Approved(_));
            ensure(is == right, || format!("{series:?} {first:?}: {verdict:?}"))?;
        }
    }
    let taken = pair.simulator.entries()[0].captured;
    ensure(taken == save.total.minor, || format!("{taken} taken"))
}

/// The surcharge is a part of what is charged, told with it.
fn surcharged(mut pair: Pair) -> Checked {
    let paid = visa();
    let sale = Charge { surcharge: true, ..charge(Purpose::Sale, REFERENCE, &paid) };
    approved(&pair.charge(&sale))?;
    let taken = pair.simulator.entries()[0].captured;
    ensure(taken == sale.total.minor, || format!("{taken} taken"))?;
    let all = ringtill::money::Money::usd(20_300);
    let more = Charge { reference: "more", fee: all, ..sale };
    let verdict = pair.charge(&more);
    ensure(!matches!(verdict, Verdict::Approved(_)), || "a surcharge of more than all of it".into())
}

/// A card that is not good is not kept.
fn refused_and_not_kept(mut pair: Pair) -> Checked {
    let Some(trigger) = pair.simulator.trigger(Case::DeclinedHard) else { return Ok(()) };
    let paid = asked(trigger).paid;
    let verdict = pair.charge(&Charge { save: true, ..charge(Purpose::Verify, REFERENCE, &paid) });
    ensure(verdict == Verdict::DeclinedHard, || format!("{verdict:?}"))
}

/// Those that tell the card network's transaction id, and want it again; one more wants its own.
const NETWORK: [&str; 4] = ["bogus", "authorize_net", "worldpay_cnp", "cybersource"];

fn kept(mut pair: Pair) -> Checked {
    let paid = visa();
    let save = Charge { save: true, ..charge(Purpose::Sale, REFERENCE, &paid) };
    let verdict = pair.charge(&save);
    let approval = approved(&verdict)?;
    let kept = pair.keep(&save, approval).ok_or("no token")?;
    let (method, expiry) = (Method::Card, Some(crate::bench::expiry()));
    let saved = Paid::Token(Saved { token: kept.clone(), method, expiry, cvv: None });
    let other = Charge {
        total: ringtill::money::Money::usd(7_700),
        ..charge(Purpose::Sale, "0197284f-2c00-7a41-8d53-6f0f2f6f3f55", &saved)
    };
    approved(&pair.charge(&other))?;
    let last = pair.simulator.entries().pop().unwrap();
    let right = (last.captured, last.order.last4.as_str()) == (7_700, "1111");
    ensure(right, || format!("{last:?}"))?;
    let standing = pair.standing();
    ensure(standing == 2, || format!("{standing} charges"))?;
    // With its security code again, where the gateway takes one.
    let cvv = Cvv::parse("987", Brand::Visa);
    let coded =
        Paid::Token(Saved { token: kept, method, expiry: Some(crate::bench::expiry()), cvv });
    let coded = Charge {
        total: ringtill::money::Money::usd(8_800),
        ..charge(Purpose::Sale, "0197284f-2c00-7a41-8d53-6f0f2f6f3f57", &coded)
    };
    match (pair.charge(&coded), pair.gateway.capabilities().token_cvv) {
        (Verdict::Approved(_), true) | (Verdict::Config(_), false) => {}
        (verdict, able) => return Err(format!("with a code, {able}: {verdict:?}")),
    }
    // Without being asked to, nobody keeps a card.
    let plain = charge(Purpose::Sale, "0197284f-2c00-7a41-8d53-6f0f2f6f3f58", &paid);
    let plain = Charge { total: ringtill::money::Money::usd(9_900), ..plain };
    let verdict = pair.charge(&plain);
    let approval = approved(&verdict)?;
    let unasked = pair.keep(&plain, approval);
    ensure(unasked.is_none(), || "kept unasked".into())?;
    let nobody = token("1/1", Method::Card);
    let stranger = Charge {
        reference: "0197284f-2c00-7a41-8d53-6f0f2f6f3f56",
        ..charge(Purpose::Sale, "", &nobody)
    };
    let verdict = pair.charge(&stranger);
    // The card is gone there, and is dropped here.
    let gone = matches!(verdict, Verdict::DeclinedHard | Verdict::Fixable(Fixable::Number));
    ensure(gone, || format!("{verdict:?}"))
}
