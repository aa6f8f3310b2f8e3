//! Intents and their steps as rows of the database.

use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

use super::{StoreError, allocation};
use crate::gateway::Approval;
use crate::instrument::{AccountKind, Fingerprint, Last4, Means, Token};
use crate::ledger::journal::predecessors;
use crate::ledger::{FeeFailure, Intent, Origin, Split, State};
use crate::money::{Currency, Money};

/// Writes down a new intent; false if its id or number is taken, or one like it is open: what was
/// written is to be rolled back then.
pub(super) async fn insert_intent(
    tx: &mut Transaction<'_, Any>,
    intent: &Intent,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let (brand, account_kind) = columns(intent.means);
    let (fee_of, apart, failure, kind, end) = split_columns(&intent.split);
    let letters = |tag: Option<Fingerprint>| tag.map_or(String::new(), |tag| tag.to_string());
    let inserted = sqlx::query_scalar(AssertSqlSafe(insert_sql()))
        .bind(&intent.id)
        .bind(&intent.confirmation)
        .bind(&intent.biller)
        .bind(&intent.account_id)
        .bind(intent.amount.minor)
        .bind(intent.fee.minor)
        .bind(intent.amount.currency.code())
        .bind(brand)
        .bind(intent.last4.as_str())
        .bind(&intent.gateway)
        .bind(&intent.call_id)
        .bind(intent.created_ms)
        .bind(intent.means.method().name())
        .bind(account_kind)
        .bind(letters(intent.fingerprint))
        .bind(letters(intent.origin.caller))
        .bind(letters(intent.origin.issuer))
        .bind(&intent.origin.trunk)
        .bind(fee_of)
        .bind(apart)
        .bind(failure)
        .bind(kind)
        .bind(end)
        .bind(allocation::column(&intent.allocations))
        .bind(now_ms)
        .fetch_all(&mut **tx)
        .await;
    let others: Vec<i64> = match inserted {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Ok(false),
        other => other?,
    };
    if others.iter().any(|count| *count > 0) {
        return Ok(false);
    }
    allocation::insert(tx, intent).await?;
    Ok(!allocation::overlaps(tx, intent).await?)
}

/// In one: each statement by itself is a way to the connection's thread and back.
pub(super) fn insert_sql() -> String {
    format!("{INSERT}; {CONSENTED}; {}", allocation::OTHERS_OF_NEW)
}

/// Its first step, by the parameters of [`INSERT`].
const CONSENTED: &str = "\
insert into step (intent_id, position, state, detail, at_ms) values ($1, 1, 'consented', '', $25)";

const INSERT: &str = "\
insert into intent (id, confirmation, biller, account_id, amount_minor, fee_minor, currency, brand, \
    last4, gateway, call_id, created_ms, state, detail, gateway_reference, auth_code, avs, cvv, \
    unknown_ms, lookups, lookup_ms, file_sequence, method, account_kind, fingerprint, caller, \
    issuer, trunk, token, approved_minor, fee_of, fee_apart_minor, fee_failure, fee_kind, fee_end, \
    accounts) \
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'consented', '', '', '', '', '', \
    0, 0, 0, 0, $13, $14, $15, $16, $17, $18, '', 0, $19, $20, $21, $22, $23, $24)";

/// Moves an intent if it is in a state that `to` may follow; false if not.
pub(super) async fn move_to(
    tx: &mut Transaction<'_, Any>,
    id: &str,
    to: &State,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    move_noted(tx, id, to, detail(to), now_ms).await
}

/// The same with `note` beside the step, for who looks into it later.
pub(super) async fn move_noted(
    tx: &mut Transaction<'_, Any>,
    id: &str,
    to: &State,
    note: &str,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let Some(sql) = move_sql(to) else { return Ok(false) };
    let query = sqlx::query(AssertSqlSafe(sql)).bind(id).bind(to.name()).bind(detail(to));
    let query = query.bind(note).bind(now_ms);
    let query = match to {
        State::Approved(approval) | State::Posted(approval) | State::Held(_, Some(approval)) => {
            let query = query
                .bind(&approval.gateway_reference)
                .bind(&approval.auth_code)
                .bind(approval.avs.as_deref().unwrap_or_default())
                .bind(approval.cvv.as_deref().unwrap_or_default())
                .bind(approval.token.as_ref().map_or("", Token::expose));
            match to {
                State::Posted(_) => query,
                _ => query.bind(approval.partial.map_or(0, |part| part.minor)),
            }
        }
        State::Unknown(_) => query.bind(now_ms + lookup_wait_ms(0)),
        _ => query,
    };
    Ok(query.execute(&mut **tx).await?.rows_affected() > 0)
}

/// Moves an intent and adds the step; `None`: nothing leads to that state.
pub(super) fn move_sql(to: &State) -> Option<String> {
    let from: Vec<String> = predecessors(to).iter().map(|name| format!("'{name}'")).collect();
    if from.is_empty() {
        return None;
    }
    let extra = match to {
        State::Approved(_) | State::Held(_, Some(_)) => {
            ", gateway_reference = $6, auth_code = $7, avs = $8, cvv = $9, token = $10, \
             approved_minor = case when $11 = 0 then amount_minor + fee_minor else $11 end"
        }
        State::Unknown(_) => ", unknown_ms = $5, lookups = 0, lookup_ms = $6",
        _ => "",
    };
    // Posting repeats the approval it posts: another one is a mistake.
    let only = match to {
        State::Posted(_) => {
            "and gateway_reference = $6 and auth_code = $7 and avs = $8 and cvv = $9 \
             and token = $10 and fee_kind <> 'verification'"
        }
        State::Sending => FEE_MAY_BE_SENT,
        // As `Split::may_be` says.
        State::Declined(_) | State::NotCharged(_) | State::Consented => "",
        _ => "and fee_kind <> 'verification'",
    };
    let from = from.join(", ");
    Some(format!(
        "update intent set state = $2, detail = $3{extra} where id = $1 and state in ({from}) \
         {only}; {STEP} where changes() > 0"
    ))
}

/// The next step of intent $1: state $2, detail $4, at $5.
const STEP: &str = "\
insert into step (intent_id, position, state, detail, at_ms) \
select $1, (select coalesce(max(position), 0) + 1 from step where intent_id = $1), $2, $4, $5";

/// As [`crate::ledger::split::may_charge_fee`] says: none without its bill.
const FEE_MAY_BE_SENT: &str = "\
and (fee_of = '' or ( \
    exists (select 1 from intent as bill where bill.id = intent.fee_of \
        and bill.state in ('approved', 'posted') and bill.undone_minor = 0) \
    and not exists (select 1 from change where change.intent_id = intent.fee_of \
        and change.state in ('sending', 'unknown', 'manual'))))";

pub(super) async fn add_step(
    tx: &mut Transaction<'_, Any>,
    id: &str,
    state: &State,
    note: &str,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(STEP).bind(id).bind(state.name()).bind("").bind(note).bind(now_ms);
    query.execute(&mut **tx).await?;
    Ok(())
}

pub(super) fn detail(state: &State) -> &str {
    match state {
        State::Declined(why)
        | State::Held(why, _)
        | State::Unknown(why)
        | State::NotCharged(why) => why,
        _ => "",
    }
}

pub(super) fn read(row: &AnyRow) -> Result<(Intent, State), StoreError> {
    let id: String = row.try_get("id")?;
    let foreign = |what: &str| {
        StoreError::Database(format!("intent {id} has a {what} this version does not know"))
    };
    let text = |column: &str| row.try_get::<String, _>(column);
    let fingerprint = |column: &'static str| match text(column)? {
        empty if empty.is_empty() => Ok(None),
        letters => Fingerprint::parse(&letters).map(Some).ok_or_else(|| foreign(column)),
    };
    let currency = Currency::from_code(&text("currency")?).ok_or_else(|| foreign("currency"))?;
    let kind = match text("method")?.as_str() {
        "card" => text("brand")?,
        _ => text("account_kind")?,
    };
    let means = Means::parse(&text("method")?, &kind).ok_or_else(|| foreign("method or brand"))?;
    let accounts = allocation::read(&text("accounts")?, currency);
    let intent = Intent {
        id: id.clone(),
        confirmation: text("confirmation")?,
        biller: text("biller")?,
        account_id: text("account_id")?,
        amount: Money::new(row.try_get("amount_minor")?, currency),
        allocations: accounts.ok_or_else(|| foreign("list of accounts"))?,
        fee: Money::new(row.try_get("fee_minor")?, currency),
        split: split(row, currency)?.ok_or_else(|| foreign("fee"))?,
        means,
        last4: Last4::parse(&text("last4")?).ok_or_else(|| foreign("last4"))?,
        fingerprint: fingerprint("fingerprint")?,
        gateway: text("gateway")?,
        call_id: text("call_id")?,
        origin: Origin {
            caller: fingerprint("caller")?,
            issuer: fingerprint("issuer")?,
            trunk: text("trunk")?,
        },
        created_ms: row.try_get("created_ms")?,
    };
    let state = state(row, &intent)?.ok_or_else(|| foreign("state"))?;
    Ok((intent, state))
}

/// What part of a payment an intent is; `None` if it is not known.
fn split(row: &AnyRow, currency: Currency) -> Result<Option<Split>, sqlx::Error> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let (bill, failure, kind) = (text("fee_of")?, text("fee_failure")?, text("fee_kind")?);
    let fee = Money::new(row.try_get("fee_apart_minor")?, currency);
    Ok(match (bill.as_str(), failure.as_str(), kind.as_str()) {
        ("", "", "") => Some(Split::Total),
        ("", "", SURCHARGE) => Some(Split::Surcharge),
        ("", "", VERIFICATION) => Some(Split::Verification),
        ("", failure, "") => FeeFailure::parse(failure).map(|failure| Split::Bill { fee, failure }),
        (_, "", "") => Some(Split::FeeOf(bill)),
        _ => None,
    })
}

/// A split as it is kept: `fee_of`, `fee_apart_minor`, `fee_failure`, `fee_kind`, `fee_end`.
pub(super) fn split_columns(
    split: &Split,
) -> (&str, i64, &'static str, &'static str, &'static str) {
    match split {
        Split::Total => ("", 0, "", "", ""),
        Split::Surcharge => ("", 0, "", SURCHARGE, ""),
        Split::Verification => ("", 0, "", VERIFICATION, ""),
        Split::Bill { fee, failure } => ("", fee.minor, failure.name(), "", DUE),
        Split::FeeOf(bill) => (bill, 0, "", "", ""),
    }
}

const SURCHARGE: &str = "surcharge";
const VERIFICATION: &str = "verification";
/// A bill whose fee has no end yet.
pub(super) const DUE: &str = "due";

/// The state an intent is in; `None` if its name is not known.
fn state(row: &AnyRow, intent: &Intent) -> Result<Option<State>, sqlx::Error> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let some = |column: &str| text(column).map(|text| Some(text).filter(|text| !text.is_empty()));
    let approved = Money::new(row.try_get("approved_minor")?, intent.amount.currency);
    let approval = Approval {
        gateway_reference: text("gateway_reference")?,
        auth_code: text("auth_code")?,
        avs: some("avs")?,
        cvv: some("cvv")?,
        partial: Some(approved).filter(|part| intent.total() != Some(*part)),
        token: Token::parse(&text("token")?),
        network: None,
    };
    let detail = text("detail")?;
    Ok(Some(match text("state")?.as_str() {
        "consented" => State::Consented,
        "sending" => State::Sending,
        "approved" => State::Approved(approval),
        "declined" => State::Declined(detail),
        "held" => State::Held(detail, (approved.minor != 0).then_some(approval)),
        "unknown" => State::Unknown(detail),
        "not_charged" => State::NotCharged(detail),
        "manual" => State::Manual,
        "posted" => State::Posted(approval),
        _ => return Ok(None),
    }))
}

/// `brand` and `account_kind` as they are kept.
fn columns(means: Means) -> (&'static str, &'static str) {
    match means {
        Means::Card(brand) => (brand.name(), ""),
        Means::Bank(kind) => ("", AccountKind::name(kind)),
    }
}

/// Waits before each of the first lookups of an unknown outcome; then [`LOOKUP_EVERY_MS`].
const LOOKUP_MS: [i64; 4] = [2_000, 5_000, 15_000, 60_000];
pub(super) const LOOKUP_EVERY_MS: i64 = 5 * 60_000;

pub(super) fn lookup_wait_ms(lookups: i64) -> i64 {
    let nth = usize::try_from(lookups).unwrap_or_default();
    LOOKUP_MS.get(nth).copied().unwrap_or(LOOKUP_EVERY_MS)
}
