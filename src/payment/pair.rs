//! A bill and its fee as two charges, at two gateways. The fee is never charged without its bill;
//! if it cannot be charged the bill is given back or stands without it, as the biller wants.

use std::time::Duration;

use super::charge::{self, FeeEnd, Leg, Ran, Settled, With};
use super::order::Order;
use super::tender::Tender;
use super::{Desk, Leave, Line, Note, consent, several};
use crate::gateway::{Approval, Exchange, Modification, Operation, Purpose, Repeat, Route};
use crate::instrument::Brand;
use crate::ledger::{Change, Entry, FeeFailure, Progress, Recorded, Split, Undo};
use crate::money::Money;
use crate::prompt::Prompt;

/// Both charges and who is paid by each, then accepted by a key that cannot be typed ahead.
pub(super) async fn accept(
    line: &mut Line,
    desk: &Desk,
    order: &Order,
    brand: Brand,
) -> Result<bool, Leave> {
    let mut notice = several::read_out(&order.allocations);
    notice.extend([
        Prompt::Phrase("consent.two"),
        Prompt::Phrase(consent::brand_phrase(brand)),
        Prompt::Phrase("card.ending"),
        Prompt::Digits(order.last4.as_str().to_string()),
        Prompt::Phrase("consent.first"),
        Prompt::Amount(order.amount),
    ]);
    notice.extend(payee(line, desk.settings.payee.as_ref()).await);
    notice.extend([Prompt::Phrase("consent.second"), Prompt::Amount(order.fee)]);
    notice.extend(payee(line, desk.settings.fee_payee.as_ref()).await);
    notice.extend([Prompt::Phrase("consent.together"), Prompt::Amount(order.total)]);
    consent::ask(line, order, notice).await
}

/// Who is paid, where that is known and can be said.
async fn payee(line: &mut Line, name: Option<&String>) -> Vec<Prompt> {
    match name {
        Some(name) if line.name(name).await => {
            vec![Prompt::Phrase("consent.to"), Prompt::Name(name.clone())]
        }
        _ => Vec::new(),
    }
}

fn fee_route<'a>(desk: &'a Desk, order: &Order) -> Option<&'a Route> {
    order.apart?;
    desk.routes.by_id(desk.settings.fee_gateway.as_deref()?)
}

/// Whether nothing is to be charged because its fee could not be: a bill that would have to be
/// given back at once is not charged.
pub(super) fn must_wait(line: &mut Line, desk: &Desk, order: &Order) -> bool {
    if order.apart.is_none() {
        return false;
    }
    let Some(route) = fee_route(desk, order) else { return true };
    if order.apart == Some(FeeFailure::Waive) || route.admits(line.wall_ms()) {
        return false;
    }
    line.note(Note::Resting { gateway: route.id.clone() });
    true
}

/// The fee of a bill, in the ledger before its bill is sent.
pub(super) struct Fee<'a> {
    route: &'a Route,
    id: String,
    confirmation: String,
    leg: Leg,
}

/// Writes down what the fee of a bill is to be. `None`: the ledger has it not, or only it may.
pub(super) async fn journal_fee<'a>(
    line: &mut Line,
    desk: &'a Desk,
    order: &Order,
    bill: &str,
) -> Option<Fee<'a>> {
    let route = fee_route(desk, order)?;
    let leg = Leg {
        amount: Money::new(0, order.fee.currency),
        fee: order.fee,
        total: order.fee,
        split: Split::FeeOf(bill.to_string()),
    };
    let (id, confirmation, recorded) = charge::journal(line, desk, route, (order, &leg)).await;
    if recorded == Recorded::Stored {
        return Some(Fee { route, id, confirmation, leg });
    }
    charge::not_charged(line, &id, "consent not journalled").await;
    None
}

/// Charges the fee if its bill was charged, and does what the biller wants if that fails.
pub(super) async fn finish(
    line: &mut Line,
    (route, bill): (&Route, &str),
    (order, tender): (&Order, &Tender),
    fee: Fee<'_>,
    ran: Ran,
) -> Settled {
    let failure = order.apart.unwrap_or(FeeFailure::Waive);
    let Settled::Approved { confirmation, with } = ran.settled else {
        charge::not_charged(line, &fee.id, "its bill was not charged while the caller paid").await;
        return ran.settled;
    };
    let approved = |fee| Settled::Approved {
        confirmation: confirmation.clone(),
        with: With { fee, ..with.clone() },
    };
    let Some(approval) = ran.approval.filter(|_| ran.recorded) else {
        // The server finds the bill out, and then does what the biller wants.
        charge::not_charged(line, &fee.id, "the approval of its bill was not journalled").await;
        return match failure {
            FeeFailure::Waive => approved(FeeEnd::Waived),
            FeeFailure::Void => Settled::GivingBack { confirmation },
        };
    };
    let named = (fee.id.as_str(), fee.confirmation.as_str());
    let charged = charge::run(line, fee.route, (order, &fee.leg, tender), named).await;
    match (charged.settled, failure) {
        (Settled::Approved { .. }, _) => approved(FeeEnd::Apart),
        (Settled::Pending { .. } | Settled::Held { .. }, FeeFailure::Waive) => {
            approved(FeeEnd::Open)
        }
        (Settled::Pending { .. }, FeeFailure::Void) => Settled::Pending { confirmation },
        (Settled::Held { .. }, FeeFailure::Void) => Settled::Held { confirmation },
        (_, FeeFailure::Waive) => approved(FeeEnd::Waived),
        // The ledger thinks that the fee may have been charged: the server finds it out first.
        (_, FeeFailure::Void) if !charged.recorded => Settled::GivingBack { confirmation },
        (settled, FeeFailure::Void) => {
            let another = matches!(
                settled,
                Settled::DeclinedHard | Settled::DeclinedSoft | Settled::Fixable(_)
            );
            match void(line, route, bill, order, &approval).await {
                Voided::Recorded => Settled::GivenBack { another },
                Voided::Unrecorded => Settled::GivenBack { another: false },
                Voided::Open => Settled::GivingBack { confirmation },
            }
        }
    }
}

enum Voided {
    /// And the ledger has it.
    Recorded,
    Unrecorded,
    /// It may have gone back, or it may go back yet: the server sees to it.
    Open,
}

/// Gives a bill back.
async fn void(
    line: &mut Line,
    route: &Route,
    bill: &str,
    order: &Order,
    approval: &Approval,
) -> Voided {
    let created_ms = line.wall_ms();
    let change = Change {
        id: charge::reference(line, created_ms),
        intent_id: bill.to_string(),
        act: Undo::Void,
        amount: order.amount,
        who: WHO.into(),
        why: WHY.into(),
        created_ms,
    };
    // A write that failed may be there all the same: then the server asks the gateway.
    if line.record(Entry::Undo(Box::new(change.clone()))).await != Recorded::Stored {
        return Voided::Open;
    }
    let progress = send(line, route, order, approval, &change).await;
    let done = matches!(progress, Progress::Done(_));
    line.note(Note::Verdict(match done {
        true => "refused as a whole: without its fee, the bill was voided".into(),
        false => format!("the void of the bill is {}", progress.name()),
    }));
    const TRIES: usize = 3;
    for _ in 0..TRIES {
        let entry = Entry::Undone { change: Box::new(change.clone()), to: progress.clone() };
        match line.record(entry).await {
            Recorded::Failed(_) => line.wait(Duration::from_secs(1)).await,
            Recorded::Stored if done => return Voided::Recorded,
            _ => break,
        }
    }
    if done { Voided::Unrecorded } else { Voided::Open }
}

/// Who gives back, and why, as the ledger keeps it.
pub const WHO: &str = "ringtill";
pub const WHY: &str = "its fee was not charged";

/// Sends, again while nothing has left us; and, where the gateway answers a reference as it did
/// before, again when its answer was lost.
async fn send(
    line: &mut Line,
    route: &Route,
    order: &Order,
    approval: &Approval,
    change: &Change,
) -> Progress {
    const TRIES: usize = 3;
    let able = route.gateway.capabilities();
    if !able.can(Operation::Void) {
        return Progress::Refused("this gateway has no void".into());
    }
    let replays = able.repeat == Repeat::Replays;
    let mut progress = Progress::NotSent("not tried".into());
    // Once an answer was lost, no later one proves that nothing was done.
    let mut lost = None;
    for nth in 0..TRIES {
        if nth > 0 {
            line.wait(Duration::from_secs(2)).await;
        }
        let modification = Modification {
            act: crate::gateway::Act::Void,
            reference: &change.id,
            original: &approval.gateway_reference,
            purpose: Purpose::Sale,
            amount: change.amount,
            method: order.means.method(),
            last4: order.last4,
            at_ms: line.wall_ms(),
        };
        let request = match route.gateway.modify(&modification) {
            Ok(request) => request,
            Err(cannot) => return Progress::NotSent(cannot.0.into()),
        };
        let exchange = line.send(&route.id, request, route.limit).await;
        progress = route.gateway.modified(&modification, &exchange).into();
        match (&progress, &exchange) {
            (Progress::NotSent(_), Exchange::NotSent(_)) => {}
            (Progress::Unknown(why), _) if replays => lost = Some(why.clone()),
            _ => break,
        }
    }
    match (&progress, lost) {
        (Progress::NotSent(_) | Progress::Refused(_), Some(why)) => Progress::Unknown(why),
        _ => progress,
    }
}
