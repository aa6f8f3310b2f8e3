//! Consent and charge. The intent is durable before the request leaves; a request without a
//! definitive answer is looked up, never sent again.

use std::time::Duration;

use super::again::{self, Against, Told};
use super::authorisation::{self, Authorisation, Evidence};
use super::later::plan::Plan;
use super::tender::Tender;
use super::{Desk, Leave, Line, Note, later, phrases, saved};
use crate::account::Account;
use crate::dialogue::Field;
use crate::dialogue::grammar::Menu;
use crate::gateway::{
    Approval, Charge, Exchange, Fixable, Initiator, Lookup, Purpose, Route, Search, Verdict,
};
use crate::instrument::{Brand, Fingerprint, Last4, Means, Token};
use crate::ledger::journal::masked;
use crate::ledger::{Consent, Entry, Intent, Recorded, State, confirmation};
use crate::money::Money;
use crate::prompt::Prompt;

/// What is to be paid, and what with.
pub(super) struct Order {
    pub(super) account_id: String,
    pub(super) amount: Money,
    pub(super) fee: Money,
    pub(super) total: Money,
    pub(super) means: Means,
    pub(super) last4: Last4,
    pub(super) fingerprint: Fingerprint,
    pub(super) issuer: Option<Fingerprint>,
    /// Of a debit; without it none is made.
    pub(super) authorisation: Option<Authorisation>,
    /// The card is to be kept, as its holder agreed.
    pub(super) keep: Option<Consent>,
    /// It is the first payment of a plan.
    pub(super) plan: Option<Plan>,
}

impl Order {
    /// `None` when amount and fee cannot be added.
    pub(super) fn new(
        desk: &Desk,
        account: &Account,
        amount: Money,
        tender: &Tender,
    ) -> Option<Order> {
        Order::of(desk, &account.id, amount, tender)
    }

    pub(super) fn of(
        desk: &Desk,
        account_id: &str,
        amount: Money,
        tender: &Tender,
    ) -> Option<Order> {
        let fee = desk.settings.fee(tender.means(), amount)?;
        Some(Order {
            account_id: account_id.into(),
            amount,
            fee,
            total: amount.checked_add(fee)?,
            means: tender.means(),
            last4: tender.last4(),
            fingerprint: tender.fingerprint(desk),
            issuer: tender.issuer(desk),
            authorisation: None,
            keep: None,
            plan: None,
        })
    }

    /// Only the first payment of the plan is made now.
    pub(super) fn divided(&mut self, plan: Plan) -> Option<()> {
        (self.amount, self.fee) = (plan.first, plan.fee);
        self.total = plan.first.checked_add(plan.fee)?;
        self.plan = Some(plan);
        Some(())
    }
}

/// How a charge ended, as the caller is told.
pub(super) enum Settled {
    Approved { confirmation: String, with: With },
    DeclinedHard,
    DeclinedSoft,
    Fixable(Fixable),
    Held { confirmation: String },
    NotCharged,
    OpenPayment,
    PaidMeanwhile,
    Pending { confirmation: String },
}

/// What was wanted together with a payment, and what came of it.
#[derive(Default)]
pub(super) struct With {
    /// The id of the card, if it was to be kept and is.
    pub(super) kept: Option<Option<String>>,
    /// The number of the plan, if there was to be one and there is.
    pub(super) plan: Option<Option<String>>,
}

/// What is to be paid spoken in full, then accepted by a key that cannot be typed ahead.
pub(super) async fn consent(
    line: &mut Line,
    desk: &Desk,
    order: &mut Order,
    tender: &Tender,
) -> Result<bool, Leave> {
    match tender {
        Tender::Card(_) | Tender::Saved(_) => accept(line, order).await,
        Tender::Bank(debit) => {
            order.authorisation = authorisation::ask(line, desk, order, debit).await?;
            Ok(order.authorisation.is_some())
        }
    }
}

/// Fee and total of a charge to a card.
async fn accept(line: &mut Line, order: &Order) -> Result<bool, Leave> {
    let Order { amount, fee, total, means, last4, .. } = *order;
    let Means::Card(brand) = means else { return Err(Leave::Failed) };
    let mut notice = vec![Prompt::Phrase("consent.payment"), Prompt::Amount(amount)];
    if fee.is_positive() {
        notice.extend([
            Prompt::Phrase("consent.fee"),
            Prompt::Amount(fee),
            Prompt::Phrase("consent.fee_added"),
        ]);
    }
    notice.extend([
        Prompt::Phrase("consent.total"),
        Prompt::Phrase(brand_phrase(brand)),
        Prompt::Phrase("card.ending"),
        Prompt::Digits(last4.as_str().to_string()),
        Prompt::Phrase("consent.will_be"),
        Prompt::Amount(total),
    ]);
    let accept = vec![Prompt::Phrase("consent.accept")];
    let field = Field::menu("consent", accept, Menu(vec![('1', true), ('2', false)]));
    let accepted = line.ask(&field.notice(notice)).await?;
    if accepted {
        line.note(Note::Consent { amount, fee, total, means, last4 });
    }
    Ok(accepted)
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
    let payment = (order.account_id.as_str(), order.amount);
    let method_and_issuer = (order.fingerprint, order.issuer);
    let quiet = match again::meanwhile(line, desk, told, payment, method_and_issuer).await {
        Against::Nothing { quiet } => quiet,
        Against::Earlier(earlier) if earlier.open => return Settled::OpenPayment,
        Against::Earlier(_) => return Settled::PaidMeanwhile,
        Against::Locked | Against::Unknown => return Settled::NotCharged,
    };
    let mut settled = Settled::NotCharged;
    // A gateway charges what it keeps, whatever else it takes by now.
    let takes = |route: &&Route| match tender.gateway() {
        Some(id) => *route.id == *id,
        None => route.takes.takes(order.means),
    };
    for route in desk.routes.all().iter().filter(takes) {
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
    let settled = spent(line, desk, tender, settled).await;
    match settled {
        // Who has many cards is not told which of them is good, and what is wrong with the others.
        Settled::DeclinedHard | Settled::Fixable(_) if quiet => Settled::DeclinedSoft,
        settled => settled,
    }
}

/// A card that is kept and will never be charged again is dropped: nobody can correct it. One that
/// the gateway does not know may be known again once its keys or its merchant are the right ones.
async fn spent(line: &mut Line, desk: &Desk, tender: &Tender, settled: Settled) -> Settled {
    let Tender::Saved(kept) = tender else { return settled };
    match settled {
        Settled::Fixable(Fixable::Number) => {
            let gateway = kept.card.gateway.as_str().into();
            line.note(Note::NotKnown { last4: kept.card.last4, gateway });
        }
        Settled::DeclinedHard | Settled::Fixable(Fixable::Expiry) => {
            let arranged = later::standing::with_card(line, desk, &kept.card).await;
            saved::drop_card(line, &kept.card, "refused for good by the gateway").await;
            if arranged {
                line.tell(phrases(["later.stopped"])).await;
            }
        }
        settled => return settled,
    }
    Settled::DeclinedHard
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
    let (id, confirmation, recorded) = journal(line, desk, route, order).await;
    match recorded {
        Recorded::Stored => {}
        Recorded::Conflict => return (Settled::OpenPayment, false),
        Recorded::Illegal => return (Settled::NotCharged, false),
        // It may have been stored all the same: then it must not stay open.
        Recorded::Failed(_) => {
            return (not_charged(line, &id, "consent not journalled").await, false);
        }
    }
    if needs_evidence(order) {
        if !kept(line, desk, order, (&id, &confirmation)).await {
            return (not_charged(line, &id, "the authorisation was not kept").await, false);
        }
        if move_to(line, &id, State::Sending).await != Recorded::Stored {
            return (not_charged(line, &id, "sending not journalled").await, false);
        }
    }
    line.note(Note::Charging { reference: id.clone(), gateway: route.id.clone() });
    let started_ms = line.wall_ms();
    let sale = sale(route, order, tender, (&id, started_ms));
    let mut verdict = send(line, route, tender, &sale).await;
    if let Verdict::Unknown(why) = &verdict {
        move_to(line, &id, State::Unknown(why.clone())).await;
        if let Some(found) = look_up(line, route, order, &id, started_ms).await {
            verdict = found;
        }
    }
    line.note(Note::Verdict(described(&verdict)));
    let not_sent = matches!(verdict, Verdict::NotSent(_));
    let approval = match &verdict {
        Verdict::Approved(approval) => Some(approval.clone()),
        _ => None,
    };
    let (mut settled, recorded) = conclude(line, &id, confirmation, verdict).await;
    if let (Settled::Approved { with, .. }, Some(approval)) = (&mut settled, approval) {
        if order.keep.is_some() {
            let token = token(line, route, &sale, approval).await;
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
    (settled, not_sent && recorded)
}

/// What is kept of a card whose charge was approved, by one more request where the gateway wants
/// it.
async fn token(
    line: &mut Line,
    route: &Route,
    sale: &Charge<'_>,
    approval: Approval,
) -> Option<Token> {
    const LIMIT: Duration = Duration::from_secs(10);
    if !sale.save {
        return None;
    }
    match route.gateway.keep(sale, &approval) {
        Some(request) => {
            let exchange = line.send(&route.id, request, LIMIT).await;
            route.gateway.kept(&approval, &exchange)
        }
        None => approval.token,
    }
}

/// Whether something must be kept between consent and request: of a debit its authorisation.
fn needs_evidence(order: &Order) -> bool {
    matches!(order.means, Means::Bank(_))
}

/// Writes the intent down, as about to be sent if nothing comes before that; its reference, its
/// confirmation number and what the ledger said. A conflict may be a confirmation number drawn
/// before: another is drawn before it is believed.
async fn journal(
    line: &mut Line,
    desk: &Desk,
    route: &Route,
    order: &Order,
) -> (String, String, Recorded) {
    const TRIES: usize = 3;
    let mut last = (String::new(), String::new(), Recorded::Conflict);
    for _ in 0..TRIES {
        let intent = intent(line, desk, route, order);
        let (id, confirmation) = (intent.id.clone(), intent.confirmation.clone());
        let intent = Box::new(intent);
        let entry = if needs_evidence(order) { Entry::Consent } else { Entry::Sending };
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
    order: &'a Order,
    tender: &'a Tender,
    (id, at_ms): (&'a str, i64),
) -> Charge<'a> {
    Charge {
        purpose: Purpose::Sale,
        reference: id,
        total: order.total,
        fee: order.fee,
        instrument: tender.instrument(),
        account_id: &order.account_id,
        save: order.keep.is_some() && route.takes.save,
        initiator: Initiator::Customer,
        at_ms,
    }
}

/// Sends, and sends again only while nothing has left us: the reference stays the same.
async fn send(line: &mut Line, route: &Route, tender: &Tender, sale: &Charge<'_>) -> Verdict {
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
    order: &Order,
    id: &str,
    started_ms: i64,
) -> Option<Verdict> {
    let limit = Duration::from_secs(5);
    for wait_s in [2, 5] {
        line.wait(Duration::from_secs(wait_s)).await;
        let lookup = Lookup {
            purpose: Purpose::Sale,
            reference: id,
            total: order.total,
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
        Verdict::Approved(_) => {
            line.note(Note::Confirmation(confirmation.clone()));
            Settled::Approved { confirmation, with: With::default() }
        }
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
async fn not_charged(line: &mut Line, id: &str, why: &str) -> Settled {
    move_to(line, id, State::NotCharged(why.into())).await;
    Settled::NotCharged
}

async fn move_to(line: &mut Line, id: &str, to: State) -> Recorded {
    line.record(Entry::Move { id: id.to_string(), to }).await
}

fn intent(line: &mut Line, desk: &Desk, route: &Route, order: &Order) -> Intent {
    let created_ms = line.wall_ms();
    Intent {
        id: reference(line, created_ms),
        confirmation: confirmation::mint(&mut line.rng),
        biller: desk.settings.biller.clone(),
        account_id: order.account_id.clone(),
        amount: order.amount,
        fee: order.fee,
        means: order.means,
        last4: order.last4,
        fingerprint: Some(order.fingerprint),
        gateway: route.id.to_string(),
        call_id: desk.call_id.clone(),
        origin: again::origin(desk, order.issuer),
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
fn described(verdict: &Verdict) -> String {
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

pub(super) fn brand_phrase(brand: Brand) -> &'static str {
    match brand {
        Brand::Visa => "brand.visa",
        Brand::Mastercard => "brand.mastercard",
        Brand::Amex => "brand.amex",
        Brand::Discover => "brand.discover",
        Brand::Jcb => "brand.jcb",
        Brand::Diners => "brand.diners",
        Brand::UnionPay => "brand.unionpay",
    }
}
