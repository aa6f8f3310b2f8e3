//! `ringtill payments`: what is in the ledger, voids and refunds of it, and outcomes a person found
//! out. Each says who asked and why; the ledger keeps it.

use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;

use super::store::change::Begun;
use super::store::pair::{PERSON, Pair};
use super::store::{Decision, Filter, Store};
use super::{clock, gateway, resolver};
use crate::config::Config;
use crate::gateway::{Exchange, Gateway, Operation, nacha};
use crate::instrument::looks_like_card;
use crate::ledger::split::VERIFIED;
use crate::ledger::{Change, Intent, Pairing, Progress, Split, State, Undo};
use crate::money::Money;

/// A void or refund, as it was asked for.
#[derive(Clone)]
pub struct Wish {
    pub act: Undo,
    /// Confirmation number or reference of the payment.
    pub payment: String,
    /// Decimal; unset: all that is left.
    pub amount: Option<String>,
    /// Although a person let it stand without its fee.
    pub waived: bool,
    pub who: String,
    pub why: String,
}

/// Tries while nothing has left us.
const TRIES: usize = 3;
const LIMIT: Duration = Duration::from_secs(45);

/// Prints payments, newest first, a line each.
pub async fn list(config: &Config, filter: &Filter, out: &mut impl Write) -> Result<bool, String> {
    let store = open(config).await?;
    let all = store.list(filter).await.map_err(|error| error.to_string())?;
    let print = |out: &mut dyn Write| -> io::Result<()> {
        for (intent, state, undone) in &all {
            writeln!(
                out,
                "{}  {}  {:<25}  {}  account {}  {} {}{}",
                time(intent.created_ms),
                intent.confirmation,
                became(intent, state),
                intent.gateway,
                accounts(intent),
                intent.means.name(),
                intent.last4.as_str(),
                given_back(*undone),
            )?;
        }
        Ok(())
    };
    written(print(out))?;
    Ok(true)
}

/// Prints one payment with all its steps; false if there is none.
pub async fn show(config: &Config, payment: &str, out: &mut impl Write) -> Result<bool, String> {
    let store = open(config).await?;
    let Some((intent, state, undone)) = find(&store, payment).await? else {
        return none(payment, out);
    };
    let history = store.history(&intent.id).await.map_err(|error| error.to_string())?;
    let changes = store.changes(&intent).await.map_err(|error| error.to_string())?;
    let debits = store.debits(&intent.id).await.map_err(|error| error.to_string())?;
    let pair = pair_of(&store, &intent).await?;
    let print = |out: &mut dyn Write| -> io::Result<()> {
        let mut tell = |name: &str, value: &str| writeln!(out, "{name:<13}{value}");
        tell("confirmation", &intent.confirmation)?;
        tell("reference", &intent.id)?;
        tell("account", &format!("{} of {}", accounts(&intent), intent.biller))?;
        let fee = if intent.split == Split::Surcharge { "surcharge" } else { "fee" };
        let sum = format!("{} + {} {fee} = {}", intent.amount, intent.fee, total(&intent));
        let verified = intent.split == Split::Verification;
        tell("amount", if verified { "none: a card was verified, or was to be" } else { &sum })?;
        for one in &intent.allocations {
            tell("  of this", &format!("{} for account {}", one.amount, one.account_id))?;
        }
        if let Some(pair) = &pair {
            let (name, other) = told_apart(pair, &intent);
            tell(name, &other)?;
        }
        let method = intent.means.method().name();
        let means = format!("{method}, {} ending {}", intent.means.name(), intent.last4.as_str());
        tell(if verified { "verified" } else { "paid with" }, &means)?;
        tell("gateway", &intent.gateway)?;
        tell("call", &intent.call_id)?;
        let approval = match &state {
            State::Held(_, approval) => approval.as_ref(),
            state => state.approval(),
        };
        if let Some(approval) = approval {
            let code = format!("{}, code {}", approval.gateway_reference, approval.auth_code);
            tell("approved as", &code)?;
        }
        for debit in &debits {
            let (trace, code) = (&debit.trace, &debit.return_code);
            tell("debit", format!("{} {trace} {code}", debit.state).trim_end())?;
        }
        let became = match verified {
            true => was_verified(&state).to_string(),
            false => format!("{}{}", state.name(), given_back(undone)),
        };
        tell("state", &became)?;
        for (state, why, at_ms) in &history {
            writeln!(out, "  {}  {state}{}", time(*at_ms), after(why))?;
        }
        for (change, progress, at_ms) in &changes {
            let Change { id, act, amount, who, why, created_ms, .. } = change;
            let act = act.name();
            writeln!(out, "  {}  {act} of {amount} by {who}: {why}", time(*created_ms))?;
            let (state, why) = (progress.name(), after(progress.detail()));
            writeln!(out, "  {}  {act} {state}{why}  [{id}]", time(*at_ms))?;
        }
        Ok(())
    };
    written(print(out))?;
    Ok(true)
}

/// State and total, as columns; no total of what is no payment.
fn became(intent: &Intent, state: &State) -> String {
    match intent.split {
        Split::Verification => was_verified(state).into(),
        _ => format!("{:<11}  {:>12}", state.name(), total(intent).to_string()),
    }
}

/// What came of verifying a card.
fn was_verified(state: &State) -> &'static str {
    match state {
        State::Consented | State::Sending => "card is being verified",
        State::NotCharged(why) if why == VERIFIED => "card verified",
        _ => "card not verified",
    }
}

/// The bill and the fee that a payment is one of, if they are two charges.
async fn pair_of(store: &Store, intent: &Intent) -> Result<Option<Pair>, String> {
    let bill = intent.split.bill().unwrap_or(&intent.id);
    store.pair(bill).await.map_err(|error| error.to_string())
}

/// The other one of a pair, and how they stand together.
fn told_apart(pair: &Pair, one: &Intent) -> (&'static str, String) {
    let (name, other, state) = match one.id == pair.bill.id {
        true => ("its fee", &pair.fee, &pair.fee_state),
        false => ("fee of", &pair.bill, &pair.bill_state),
    };
    let together = match pair.pairing() {
        Pairing::Both => "both charged",
        Pairing::Waived => "the fee is waived",
        Pairing::GivenBack => "the bill is given back, the fee was not charged",
        Pairing::Neither => "neither was charged",
        Pairing::ToVoid if pair.end == PERSON => {
            "the fee was not charged and the bill cannot be voided: refund it, or waive the fee"
        }
        Pairing::ToVoid => "the fee was not charged: the server voids the bill",
        Pairing::Open => "not decided",
    };
    let (number, gateway, total) = (&other.confirmation, &other.gateway, total(other));
    let state = state.name();
    (name, format!("{total}, {number} at {gateway}, {state}: {together}"))
}

/// Lets a bill stand whose fee was not charged, and says so.
pub async fn waive(
    config: &Config,
    payment: &str,
    (who, why): (&str, &str),
    out: &mut impl Write,
) -> Result<bool, String> {
    may_be_kept(&[why, who], why)?;
    let store = open(config).await?;
    let Some((intent, ..)) = find(&store, payment).await? else { return none(payment, out) };
    let note = format!("by {who}: fee waived: {why}");
    let waived = store.waive_fee(&intent, &note, clock::wall_ms()).await;
    waived.map_err(|error| error.to_string())??;
    store.close().await;
    written(writeln!(out, "{} stands without its fee", intent.confirmation))?;
    Ok(true)
}

/// Voids or refunds, and prints what became of it; true if the money goes back. Of a bill whose fee
/// is a charge of its own the fee goes back first: it is never left without its bill.
pub async fn undo(config: &Config, wish: Wish, out: &mut impl Write) -> Result<bool, String> {
    may_be_kept(&[&wish.why, &wish.who], &wish.why)?;
    let store = open(config).await?;
    let Some((intent, _, _)) = find(&store, &wish.payment).await? else {
        return none(&wish.payment, out);
    };
    if let Some(pair) = pair_of(&store, &intent).await?
        && pair.bill.id == intent.id
        && pair.pairing() == Pairing::Both
        && wish.amount.is_none()
    {
        let fee = Wish { payment: pair.fee.id.clone(), ..wish.clone() };
        let (_, _, undone) = find(&store, &fee.payment).await?.ok_or("its fee is gone")?;
        if undone.minor < total(&pair.fee).minor && !undo_one(config, &store, fee, out).await? {
            written(writeln!(out, "its fee did not go back, and so the bill was left alone"))?;
            return Ok(false);
        }
    }
    let done = undo_one(config, &store, wish, out).await;
    store.close().await;
    done
}

async fn undo_one(
    config: &Config,
    store: &Store,
    wish: Wish,
    out: &mut impl Write,
) -> Result<bool, String> {
    let Some((intent, state, _)) = find(store, &wish.payment).await? else {
        return none(&wish.payment, out);
    };
    let amount = wish.amount.as_deref().map(|text| {
        let amount = Money::parse(text, intent.amount.currency);
        amount.map_err(|_| format!("--amount {text} is no amount: write 12.50"))
    });
    let amount = amount.transpose()?;
    let (gateway, client) = gateway::of_payment(config, &intent.gateway, store)?;
    let operation = match wish.act {
        Undo::Void => Operation::Void,
        _ if gateway.name() == nacha::NAME => return Err(nacha::NO_REFUND.into()),
        _ => Operation::Refund,
    };
    let able = gateway.capabilities().allow_operation(operation);
    able.map_err(|cannot| cannot.0.to_string())?;
    let change = Change {
        id: uuid::Uuid::now_v7().to_string(),
        intent_id: intent.id.clone(),
        act: wish.act,
        amount: intent.amount,
        who: wish.who,
        why: wish.why,
        created_ms: clock::wall_ms(),
    };
    let change = match store.begin_change(change, amount, wish.waived).await {
        Ok(Begun::Stored(change)) => change,
        Ok(Begun::Refused(why)) => return Err(why),
        Err(error) => return Err(error.to_string()),
    };
    let progress = send(&*gateway, &client, &change, &intent, &state).await;
    let noted = store.progress(&change, &progress, clock::wall_ms()).await;
    let mut noted = noted.map_err(|error| error.to_string());
    if noted.is_err() {
        // Once more: else the server takes it for lost in a few minutes and asks the gateway again.
        noted = store
            .progress(&change, &progress, clock::wall_ms())
            .await
            .map_err(|error| error.to_string());
    }
    let act = change.act.name();
    let amount = change.amount;
    let told = match &progress {
        Progress::Done(reference) => format!("{act} of {amount} done, {reference}"),
        Progress::Accepted(reference) => {
            format!("{act} of {amount} taken in, {reference}: the gateway tells the result later")
        }
        Progress::Refused(why) => {
            format!("{act} refused by the gateway: {why}{}", advice(wish.act))
        }
        Progress::NotSent(why) => format!("{act} not made: {why}"),
        _ => format!(
            "no answer to the {act}: do not repeat it. The server asks again; `ringtill payments \
             show {}` tells",
            intent.confirmation
        ),
    };
    written(writeln!(out, "{told}"))?;
    noted?;
    Ok(progress.took_effect())
}

/// An outcome a person found out.
pub struct Found {
    /// Confirmation number or reference of the payment.
    pub payment: String,
    pub decision: Decision,
    pub who: String,
    pub why: String,
}

/// Settles what no lookup could, and prints what it is now; false if there is no such payment.
pub async fn settle(config: &Config, found: Found, out: &mut impl Write) -> Result<bool, String> {
    let Found { payment, decision, who, why } = found;
    let mut texts = vec![&*who, &*why];
    if let Decision::Approved { gateway_reference, auth_code } = &decision {
        texts.extend([gateway_reference, auth_code].into_iter().flatten().map(String::as_str));
    }
    may_be_kept(&texts, &why)?;
    let store = open(config).await?;
    let Some((intent, ..)) = find(&store, &payment).await? else { return none(&payment, out) };
    let note = format!("by {who}: {why}");
    let settled = store.settle(&intent.id, &decision, &note, clock::wall_ms()).await;
    let state = settled.map_err(|error| error.to_string())??;
    store.close().await;
    let (number, name) = (&intent.confirmation, state.name());
    let next = match state {
        State::Approved(_) => ": the next reconciliation file tells the biller",
        _ => "",
    };
    written(writeln!(out, "{number} is {name} now{next}"))?;
    Ok(true)
}

/// Whether texts may go into the ledger; `why` may not be empty.
pub(super) fn may_be_kept(texts: &[&str], why: &str) -> Result<(), String> {
    if why.trim().is_empty() {
        return Err("say why: --why \"...\" is kept with the payment".into());
    }
    if texts.iter().any(|text| looks_like_card(text)) {
        return Err("what you write is kept: leave the card number out".into());
    }
    Ok(())
}

fn advice(act: Undo) -> &'static str {
    match act {
        Undo::Void => ". A payment that has settled is refunded instead",
        _ => ". A payment that has not settled is voided instead",
    }
}

async fn send(
    dialect: &dyn Gateway,
    client: &gateway::Client,
    change: &Change,
    intent: &Intent,
    state: &State,
) -> Progress {
    let mut progress = Progress::NotSent("not tried".into());
    for _ in 0..TRIES {
        let modification = resolver::modification(change, intent, state, clock::wall_ms());
        let request = match dialect.modify(&modification) {
            Ok(request) => request,
            Err(cannot) => return Progress::NotSent(cannot.0.into()),
        };
        let exchange = client.send(request, LIMIT).await;
        progress = dialect.modified(&modification, &exchange).into();
        let unsent = matches!(exchange, Exchange::NotSent(_));
        if !(unsent && matches!(progress, Progress::NotSent(_))) {
            break;
        }
    }
    progress
}

pub(super) async fn open(config: &Config) -> Result<Store, String> {
    let file = &config.store.file;
    if !file.exists() {
        return Err(format!("[store] file {}: there is no ledger here yet", file.display()));
    }
    Store::open(&file.to_string_lossy()).await.map_err(|error| error.to_string())
}

pub(super) async fn find(
    store: &Store,
    payment: &str,
) -> Result<Option<(Intent, State, Money)>, String> {
    // As it is read aloud and written down: in groups.
    let payment: String = payment.chars().filter(|c| !c.is_whitespace()).collect();
    store.find(&payment).await.map_err(|error| error.to_string())
}

fn none(payment: &str, out: &mut impl Write) -> Result<bool, String> {
    written(writeln!(out, "no payment has the confirmation number or reference {payment}"))?;
    Ok(false)
}

fn total(intent: &Intent) -> Money {
    intent.total().unwrap_or(intent.amount)
}

/// Its account, or all of them.
fn accounts(intent: &Intent) -> String {
    let all: Vec<&str> = intent.parts().map(|(account, _)| account).collect();
    all.join(" + ")
}

fn given_back(undone: Money) -> String {
    if undone.is_positive() { format!(", {undone} given back") } else { String::new() }
}

fn after(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// RFC 3339 in UTC, to the second.
pub(super) fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map(|time| format!("{time:.0}")).unwrap_or_default()
}

/// A reader that has seen enough, such as `head`, is no failure.
pub(super) fn written(result: io::Result<()>) -> Result<(), String> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}
