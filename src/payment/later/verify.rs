//! A payment on a date by a card that was never charged: its gateway verifies the card and keeps
//! it, and no money moves. Without a definitive yes nothing is kept, and nothing arranged.

use std::time::Duration;

use super::Once;
use crate::gateway::{Charge, Initiator, Purpose, Route, Verdict};
use crate::ledger::split::VERIFIED;
use crate::ledger::{Recorded, Split, State};
use crate::money::Money;
use crate::payment::again::Told;
use crate::payment::charge::{self, Leg, Settled};
use crate::payment::order::Order;
use crate::payment::tender::Tender;
use crate::payment::{Desk, Line, Note, saved};

/// Whether a card that is to be kept may be verified instead of charged.
pub(super) fn may(desk: &Desk, order: &Order) -> bool {
    order.keep.is_some() && desk.routes.of(order.means).any(keeps)
}

fn keeps(route: &Route) -> bool {
    route.takes.save && route.gateway.capabilities().verify_keeps
}

/// Verifies the card, keeps it and arranges its charge. A card that is refused is one more refusal,
/// as if it had been charged: whoever tries cards does it here too.
pub(in crate::payment) async fn verify(
    line: &mut Line,
    desk: &Desk,
    told: &Told,
    (order, once): (&Order, &Once),
    tender: &Tender,
) -> Settled {
    let quiet = match charge::screened(line, desk, told, order, NOTHING).await {
        Ok(quiet) => quiet,
        Err(settled) => return settled,
    };
    let mut settled = NOTHING;
    for route in desk.routes.of(order.means).filter(|route| keeps(route)) {
        if !route.admits(line.wall_ms()) {
            line.note(Note::Resting { gateway: route.id.clone() });
            continue;
        }
        let next_may;
        (settled, next_may) = verify_at(line, desk, route, (order, once), tender).await;
        if !next_may {
            break;
        }
    }
    settled.told(quiet)
}

const NOTHING: Settled = Settled::NotArranged { kept: false };

/// At one gateway; whether another may be tried, for this one did not look at the card.
async fn verify_at(
    line: &mut Line,
    desk: &Desk,
    route: &Route,
    (order, once): (&Order, &Once),
    tender: &Tender,
) -> (Settled, bool) {
    let none = Money::new(0, order.total.currency);
    let leg = Leg { amount: none, fee: none, total: none, split: Split::Verification };
    let (id, _, recorded) = charge::journal(line, desk, route, (order, &leg)).await;
    match recorded {
        Recorded::Stored => {}
        Recorded::Conflict => return (Settled::OpenPayment, false),
        Recorded::Illegal => return (NOTHING, false),
        // It may have been stored all the same: then it must not stay open.
        Recorded::Failed(_) => {
            charge::not_charged(line, &id, "verification not journalled").await;
            return (NOTHING, false);
        }
    }
    line.note(Note::Verifying { reference: id.clone(), gateway: route.id.clone() });
    let asked = Charge {
        purpose: Purpose::Verify,
        reference: &id,
        total: none,
        fee: none,
        surcharge: false,
        instrument: tender.instrument(),
        account_id: &order.account_id,
        save: true,
        initiator: Initiator::Customer,
        at_ms: line.wall_ms(),
    };
    let verdict = charge::send(line, route, tender, &asked).await;
    line.note(Note::Verdict(charge::described(&verdict)));
    let recorded = conclude(line, &id, &verdict).await;
    let settled = match verdict {
        Verdict::Approved(approval) if recorded => {
            let token = saved::token(line, route, &asked, approval).await;
            kept(line, desk, (route, &id), (order, once), (tender, token)).await
        }
        Verdict::DeclinedHard => Settled::DeclinedHard,
        Verdict::DeclinedSoft => Settled::DeclinedSoft,
        Verdict::Fixable(field) => Settled::Fixable(field),
        Verdict::NotSent(_) => return (NOTHING, recorded),
        _ => NOTHING,
    };
    (settled, false)
}

/// Writes down what the gateway said: a refusal, or that nothing was charged. There is nothing to
/// look up of a verification without an answer. Whether the ledger has it.
async fn conclude(line: &mut Line, id: &str, verdict: &Verdict) -> bool {
    let state = match State::from(verdict) {
        State::Approved(_) => State::NotCharged(VERIFIED.into()),
        State::Held(why, _) | State::Unknown(why) => State::NotCharged(why),
        state => state,
    };
    const TRIES: usize = 3;
    for _ in 0..TRIES {
        match charge::move_to(line, id, state.clone()).await {
            Recorded::Failed(_) => line.wait(Duration::from_secs(1)).await,
            recorded => return recorded == Recorded::Stored,
        }
    }
    false
}

/// Keeps the card, and arranges its charge if the ledger has it.
async fn kept(
    line: &mut Line,
    desk: &Desk,
    verified: (&Route, &str),
    (order, once): (&Order, &Once),
    (tender, token): (&Tender, Option<saved::Kept>),
) -> Settled {
    let card = saved::keep(line, desk, verified, (order, tender), token).await;
    let Some(card) = card else { return NOTHING };
    match once.arrange(line, desk, &order.account_id, &card).await {
        Some(number) => Settled::Arranged { number },
        None => Settled::NotArranged { kept: true },
    }
}
