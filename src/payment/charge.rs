//! The charge. The intent is durable before the request leaves; a request without a
//! definitive answer is looked up, never sent again.

use std::time::Duration;

use super::again::{self, Against, Told};
use super::authorisation::Evidence;
use super::order::Order;
use super::tender::Tender;
use super::{Desk, Line, Note, pair, saved};
use crate::gateway::{
    Approval, Charge, Exchange, Fixable, Initiator, Lookup, Purpose, Route, Search, Verdict,
};
use crate::instrument::Means;
use crate::ledger::journal::masked;
use crate::ledger::{Entry, Intent, Origin, Recorded, Split, State, allocation, confirmation};
use crate::money::Money;

/// How a charge ended, as the caller is told.
pub(super) enum Settled {
    Approved {
        confirmation: String,
        with: With,
    },
    DeclinedHard,
    DeclinedSoft,
    Fixable(Fixable),
    Held {
        confirmation: String,
    },
    NotCharged,
    /// It was charged and given back, for its fee was not charged; whether another card may do.
    GivenBack {
        another: bool,
    },
    /// The same, and it is not known yet whether it went back.
    GivingBack {
        confirmation: String,
    },
    /// Nothing is charged today: the number of what was arranged, and the card is kept.
    Arranged {
        number: String,
    },
    /// Neither today nor later; whether the card is kept all the same.
    NotArranged {
        kept: bool,
    },
    OpenPayment,
    PaidMeanwhile,
    Pending {
        confirmation: String,
    },
}

/// What was wanted together with a payment, and what came of it.
#[derive(Clone, Default)]
pub(super) struct With {
    pub(super) fee: FeeEnd,
    /// The id of the card, if it was to be kept and is.
    pub(super) kept: Option<Option<String>>,
    /// The number of the plan, if there was to be one and there is.
    pub(super) plan: Option<Option<String>>,
}

/// What became of the fee of a payment that was approved.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum FeeEnd {
    /// In the same charge, or there was none.
    #[default]
    Together,
    /// In a charge of its own.
    Apart,
    /// Not charged, and it will not be.
    Waived,
    /// Nobody knows yet.
    Open,
}

/// Charges once. Hang-up does not interrupt it. A gateway that certainly did not process the charge
/// is followed by the next that takes it, with an intent of its own: an intent belongs to one
/// gateway for ever, and so does a card that is kept.
pub(super) async fn charge(
    line: &mut Line,
    desk: &Desk,
    told: &Told,
    order: &Order,
    tender: &Tender,
) -> Settled {
    let quiet = match screened(line, desk, told, order, Settled::NotCharged).await {
        Ok(quiet) => quiet,
        Err(settled) => return settled,
    };
    if pair::must_wait(line, desk, order) {
        return Settled::NotCharged;
    }
    let mut settled = Settled::NotCharged;
    // A gateway charges what it keeps, whatever else it takes by now.
    let takes = |route: &&Route| match tender.gateway() {
        Some(id) => *route.id == *id,
        None => route.takes.takes(order.means),
    };
    let mut routes: Vec<&Route> = desk.routes.all().iter().filter(takes).collect();
    if order.keep.is_some() {
        // A card is kept where it is charged, and a plan is charged to a card that is kept.
        routes.retain(|route| route.takes.save || order.plan.is_none());
        routes.sort_by_key(|route| !route.takes.save);
    }
    for route in routes {
        if !route.admits(line.wall_ms()) {
            line.note(Note::Resting { gateway: route.id.clone() });
            continue;
        }
        let next_may;
        (settled, next_may) = charge_at(line, desk, route, order, tender).await;
        if !next_may {
            break;
        }
    }
    saved::spent(line, desk, tender, settled).await.told(quiet)
}

/// Once more, now that all is agreed to: whether refusals must say little. `Err`: how it ends
/// instead; `nothing`, if there is no more to be said of it.
pub(super) async fn screened(
    line: &mut Line,
    desk: &Desk,
    told: &Told,
    order: &Order,
    nothing: Settled,
) -> Result<bool, Settled> {
    let parts = allocation::parts(&order.account_id, order.amount, &order.allocations);
    let method_and_issuer = (order.fingerprint, order.issuer);
    match again::meanwhile(line, desk, told, parts, method_and_issuer).await {
        Against::Nothing { quiet } => Ok(quiet),
        Against::Earlier(earlier) if earlier.open => Err(Settled::OpenPayment),
        Against::Earlier(_) => Err(Settled::PaidMeanwhile),
        Against::Locked | Against::Unknown => Err(nothing),
    }
}

impl Settled {
    /// Who has many cards is not told which of them is good, and what is wrong with the others.
    pub(super) fn told(self, quiet: bool) -> Settled {
        match self {
            Settled::DeclinedHard | Settled::Fixable(_) if quiet => Settled::DeclinedSoft,
            settled => settled,
        }
    }
}

/// One charge of an order: all of it, or its bill or its fee.
pub(super) struct Leg {
    pub(super) amount: Money,
    pub(super) fee: Money,
    pub(super) total: Money,
    pub(super) split: Split,
}

impl Leg {
    /// What is charged first.
    fn first(order: &Order) -> Leg {
        let Order { amount, fee, total, apart, surcharge, .. } = *order;
        match apart {
            None if surcharge => Leg { amount, fee, total, split: Split::Surcharge },
            None => Leg { amount, fee, total, split: Split::Total },
            Some(failure) => {
                let none = Money::new(0, fee.currency);
                Leg { amount, fee: none, total: amount, split: Split::Bill { fee, failure } }
            }
        }
    }
}

/// What came of one charge.
pub(super) struct Ran {
    pub(super) settled: Settled,
    /// The ledger has it.
    pub(super) recorded: bool,
    /// The gateway certainly did not process it.
    pub(super) not_sent: bool,
    pub(super) approval: Option<Approval>,
}

impl Ran {
    /// Nothing has left us.
    fn not_charged() -> Ran {
        Ran { settled: Settled::NotCharged, recorded: true, not_sent: false, approval: None }
    }
}

/// Charges at one gateway; whether another may be tried, for this one did not process it and the
/// ledger has that.
async fn charge_at(
    line: &mut Line,
    desk: &Desk,
    route: &Route,
    order: &Order,
    tender: &Tender,
) -> (Settled, bool) {
    let leg = Leg::first(order);
    let (id, confirmation, recorded) = journal(line, desk, route, (order, &leg)).await;
    match recorded {
        Recorded::Stored => {}
        Recorded::Conflict => return (Settled::OpenPayment, false),
        Recorded::Illegal => return (Settled::NotCharged, false),
        // It may have been stored all the same: then it must not stay open.
        Recorded::Failed(_) => {
            not_charged(line, &id, "consent not journalled").await;
            return (Settled::NotCharged, false);
        }
    }
    if needs_evidence(order) && !kept(line, desk, order, (&id, &confirmation)).await {
        not_charged(line, &id, "the authorisation was not kept").await;
        return (Settled::NotCharged, false);
    }
    let fee = match order.apart {
        None => None,
        Some(_) => match pair::journal_fee(line, desk, order, &id).await {
            Some(fee) => Some(fee),
            None => {
                not_charged(line, &id, "its fee was not journalled").await;
                return (Settled::NotCharged, false);
            }
        },
    };
    let named = (id.as_str(), confirmation.as_str());
    let mut ran = run(line, route, (order, &leg, tender), named).await;
    let not_sent = ran.not_sent && ran.recorded;
    if let (Settled::Approved { with, .. }, Some(approval)) =
        (&mut ran.settled, ran.approval.clone())
    {
        if order.keep.is_some() {
            let sale = sale(route, (order, &leg), tender, (&id, line.wall_ms()));
            let token = saved::token(line, route, &sale, approval).await;
            with.kept = Some(saved::keep(line, desk, (route, &id), (order, tender), token).await);
        }
        if let Some(plan) = &order.plan {
            let card = tender.kept().or(with.kept.as_ref().and_then(|kept| kept.as_deref()));
            with.plan = Some(match card {
                Some(card) => plan.begin(line, desk, &order.account_id, card).await,
                None => None,
            });
        }
    }
    let settled = match fee {
        None => ran.settled,
        Some(fee) => pair::finish(line, (route, &id), (order, tender), fee, ran).await,
    };
    if let Settled::Approved { confirmation, .. } = &settled {
        line.note(Note::Confirmation(confirmation.clone()));
    }
    (settled, not_sent)
}

/// Makes one charge whose intent is in the ledger.
pub(super) async fn run(
    line: &mut Line,
    route: &Route,
    (order, leg, tender): (&Order, &Leg, &Tender),
    (id, confirmation): (&str, &str),
) -> Ran {
    if !at_once(order) && move_to(line, id, State::Sending).await != Recorded::Stored {
        not_charged(line, id, "sending not journalled").await;
        return Ran::not_charged();
    }
    line.note(Note::Charging { reference: id.into(), gateway: route.id.clone() });
    let started_ms = line.wall_ms();
    let sale = sale(route, (order, leg), tender, (id, started_ms));
    let mut verdict = send(line, route, tender, &sale).await;
    if let Verdict::Unknown(why) = &verdict {
        move_to(line, id, State::Unknown(why.clone())).await;
        if let Some(found) = look_up(line, route, (order, leg), id, started_ms).await {
            verdict = found;
        }
    }
    line.note(Note::Verdict(described(&verdict)));
    let not_sent = matches!(verdict, Verdict::NotSent(_));
    let approval = match &verdict {
        Verdict::Approved(approval) => Some(approval.clone()),
        _ => None,
    };
    let (settled, recorded) = conclude(line, id, confirmation.into(), verdict).await;
    Ran { settled, recorded, not_sent, approval }
}

/// Whether something must be kept between consent and request: of a debit its authorisation.
fn needs_evidence(order: &Order) -> bool {
    matches!(order.means, Means::Bank(_))
}

/// Whether a charge is sent as soon as it is in the ledger: a bill waits for its fee to be there
/// too, and the fee for the bill.
fn at_once(order: &Order) -> bool {
    !needs_evidence(order) && order.apart.is_none()
}

/// Writes the intent down, as about to be sent if nothing comes before that; its reference, its
/// confirmation number and what the ledger said. A conflict may be a confirmation number drawn
/// before: another is drawn before it is believed.
pub(super) async fn journal(
    line: &mut Line,
    desk: &Desk,
    route: &Route,
    (order, leg): (&Order, &Leg),
) -> (String, String, Recorded) {
    const TRIES: usize = 3;
    let mut last = (String::new(), String::new(), Recorded::Conflict);
    for _ in 0..TRIES {
        let intent = intent(line, desk, route, (order, leg));
        let (id, confirmation) = (intent.id.clone(), intent.confirmation.clone());
        let intent = Box::new(intent);
        let entry = if at_once(order) { Entry::Sending } else { Entry::Consent };
        let recorded = line.record(entry(intent)).await;
        last = (id, confirmation, recorded);
        if last.2 != Recorded::Conflict {
            break;
        }
    }
    last
}

/// Whether the holder's authorisation of a debit is kept; there is none without.
async fn kept(line: &mut Line, desk: &Desk, order: &Order, (id, number): (&str, &str)) -> bool {
    let Some(authorisation) = &order.authorisation else { return false };
    let evidence = Evidence {
        reference: id.into(),
        confirmation: number.into(),
        call_id: desk.call_id.clone(),
        authorisation: authorisation.clone(),
    };
    line.keep(evidence).await
}

fn sale<'a>(
    route: &Route,
    (order, leg): (&'a Order, &Leg),
    tender: &'a Tender,
    (id, at_ms): (&'a str, i64),
) -> Charge<'a> {
    Charge {
        purpose: Purpose::Sale,
        reference: id,
        total: leg.total,
        // Of a fee that is charged by itself nothing is split off.
        fee: if leg.split.bill().is_some() { Money::new(0, leg.fee.currency) } else { leg.fee },
        surcharge: leg.split == Split::Surcharge,
        instrument: tender.instrument(),
        account_id: &order.account_id,
        save: order.keep.is_some() && route.takes.save && leg.split.bill().is_none(),
        initiator: Initiator::Customer,
        at_ms,
    }
}

/// Sends, and sends again only while nothing has left us: the reference stays the same.
pub(super) async fn send(
    line: &mut Line,
    route: &Route,
    tender: &Tender,
    sale: &Charge<'_>,
) -> Verdict {
    const TRIES: usize = 3;
    let mut verdict = Verdict::NotSent("not tried".into());
    let mut last = None;
    for _ in 0..TRIES {
        let request = match route.gateway.charge(sale) {
            Ok(request) => request,
            Err(cannot) => return cannot.into(),
        };
        let exchange = line.send(&route.id, request, route.limit).await;
        verdict = route.gateway.verdict(sale, &exchange);
        // What left us is never sent again, whatever the dialect makes of the answer.
        let may_repeat = matches!(exchange, Exchange::NotSent(_));
        last = Some(exchange);
        if !(may_repeat && matches!(verdict, Verdict::NotSent(_))) {
            break;
        }
    }
    if let Some(exchange) = last {
        route.report(&exchange, line.wall_ms());
    }
    match verdict {
        // Of this payment or of one like it: only a lookup tells.
        Verdict::Duplicate { .. } => Verdict::Unknown("the gateway has had the same".into()),
        Verdict::Held(why) => Verdict::Held(tender.hide(&why)),
        Verdict::NotSent(why) => Verdict::NotSent(tender.hide(&why)),
        Verdict::Unknown(why) => Verdict::Unknown(tender.hide(&why)),
        Verdict::Config(why) => Verdict::Config(tender.hide(&why)),
        verdict => verdict,
    }
}

/// Two look-ups while the caller waits. "Absent" is not believed so early: the request may still
/// be on its way. The server goes on looking after the call.
async fn look_up(
    line: &mut Line,
    route: &Route,
    (order, leg): (&Order, &Leg),
    id: &str,
    started_ms: i64,
) -> Option<Verdict> {
    let limit = Duration::from_secs(5);
    for wait_s in [2, 5] {
        line.wait(Duration::from_secs(wait_s)).await;
        let lookup = Lookup {
            purpose: Purpose::Sale,
            reference: id,
            total: leg.total,
            method: order.means.method(),
            started_ms,
            at_ms: line.wall_ms(),
            step: String::new(),
        };
        let mut search = Search::new(&*route.gateway, lookup);
        while let Some(request) = search.request() {
            search.answered(&line.send(&route.id, request, limit).await);
        }
        let found = search.found().verdict();
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Writes the outcome down; how the caller is told, and whether the ledger has it. If the ledger
/// cannot take it, the intent stays open there and is looked up again: what is spoken remains true.
async fn conclude(
    line: &mut Line,
    id: &str,
    confirmation: String,
    verdict: Verdict,
) -> (Settled, bool) {
    let state = State::from(&verdict);
    let settled = match verdict {
        Verdict::Approved(approval) if approval.partial.is_some() => Settled::Held { confirmation },
        Verdict::Approved(_) => Settled::Approved { confirmation, with: With::default() },
        Verdict::DeclinedHard => Settled::DeclinedHard,
        Verdict::DeclinedSoft => Settled::DeclinedSoft,
        Verdict::Fixable(field) => Settled::Fixable(field),
        Verdict::Held(_) => Settled::Held { confirmation },
        Verdict::NotSent(_) | Verdict::Config(_) => Settled::NotCharged,
        // Already journalled as unknown.
        Verdict::Unknown(_) | Verdict::Duplicate { .. } => {
            return (Settled::Pending { confirmation }, true);
        }
    };
    const TRIES: usize = 3;
    for _ in 0..TRIES {
        match move_to(line, id, state.clone()).await {
            Recorded::Failed(_) => line.wait(Duration::from_secs(1)).await,
            recorded => return (settled, recorded == Recorded::Stored),
        }
    }
    (settled, false)
}

/// Nothing has left us.
pub(super) async fn not_charged(line: &mut Line, id: &str, why: &str) {
    move_to(line, id, State::NotCharged(why.into())).await;
}

pub(super) async fn move_to(line: &mut Line, id: &str, to: State) -> Recorded {
    line.record(Entry::Move { id: id.to_string(), to }).await
}

fn intent(line: &mut Line, desk: &Desk, route: &Route, (order, leg): (&Order, &Leg)) -> Intent {
    let created_ms = line.wall_ms();
    // A try is counted once: with its bill.
    let origin = match leg.split.bill() {
        None => again::origin(desk, order.issuer),
        Some(_) => Origin::default(),
    };
    let at_bill = leg.split.bill().is_none();
    Intent {
        id: reference(line, created_ms),
        confirmation: confirmation::mint(&mut line.rng),
        biller: desk.settings.biller.clone(),
        account_id: order.account_id.clone(),
        allocations: if at_bill { order.allocations.clone() } else { Vec::new() },
        amount: leg.amount,
        fee: leg.fee,
        split: leg.split.clone(),
        means: order.means,
        last4: order.last4,
        fingerprint: Some(order.fingerprint),
        gateway: route.id.to_string(),
        call_id: desk.call_id.clone(),
        origin,
        created_ms,
    }
}

/// A UUID version 7: sorts by time, unique without asking anyone.
pub(super) fn reference(line: &mut Line, wall_ms: i64) -> String {
    use rand::Rng;
    let mut random = [0; 10];
    line.rng.fill_bytes(&mut random);
    let millis = u64::try_from(wall_ms).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string()
}

/// A verdict for people; what the gateway wrote itself is masked, for it may quote a card.
pub(super) fn described(verdict: &Verdict) -> String {
    masked(&match verdict {
        Verdict::Approved(Approval { partial: Some(part), .. }) => {
            format!("approved for {part} only: held")
        }
        Verdict::Approved(approval) => format!("approved, code {}", approval.auth_code),
        Verdict::DeclinedHard => "declined, card or account cannot be used".into(),
        Verdict::DeclinedSoft => "declined".into(),
        Verdict::Fixable(field) => {
            format!("refused: wrong {}", format!("{field:?}").to_lowercase())
        }
        Verdict::Held(_) => "held for review".into(),
        Verdict::Duplicate { .. } => "taken for one the gateway has had".into(),
        Verdict::NotSent(_) => "not sent".into(),
        Verdict::Unknown(_) => "no definitive answer".into(),
        Verdict::Config(why) => format!("gateway set-up: {why}"),
    })
}
