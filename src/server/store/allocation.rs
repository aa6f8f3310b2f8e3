//! Payments for several accounts: what of them is for each, and which of them an account has.

use sqlx::{Any, Row as _, Transaction};

use super::row::read as read_intent;
use super::{Store, StoreError};
use crate::ledger::allocation::given_back;
use crate::ledger::{Allocation, Intent};
use crate::money::{Currency, Money};

/// Allocations as they stand beside their intent; none: empty.
pub(super) fn column(allocations: &[Allocation]) -> String {
    if allocations.is_empty() {
        return String::new();
    }
    let pairs: Vec<(&str, i64)> =
        allocations.iter().map(|one| (&*one.account_id, one.amount.minor)).collect();
    serde_json::json!(pairs).to_string()
}

/// The same read back; `None` if it is none of ours.
pub(super) fn read(column: &str, currency: Currency) -> Option<Vec<Allocation>> {
    if column.is_empty() {
        return Some(Vec::new());
    }
    let pairs: Vec<(String, i64)> = serde_json::from_str(column).ok()?;
    let allocation =
        |(account_id, minor)| Allocation { account_id, amount: Money::new(minor, currency) };
    Some(pairs.into_iter().map(allocation).collect())
}

/// Where an account's payments are found by.
pub(super) async fn insert(
    tx: &mut Transaction<'_, Any>,
    intent: &Intent,
) -> Result<(), sqlx::Error> {
    for (position, one) in (1_i64..).zip(&intent.allocations) {
        let query = "insert into allocation (intent_id, position, biller, account_id, \
                     amount_minor) values ($1, $2, $3, $4, $5)";
        sqlx::query(query)
            .bind(&intent.id)
            .bind(position)
            .bind(&intent.biller)
            .bind(&one.account_id)
            .bind(one.amount.minor)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Whether another payment with the same card or account is open for one of several accounts. To
/// be asked once the intent is written: nobody else can write one in between.
pub(super) async fn overlaps(
    tx: &mut Transaction<'_, Any>,
    intent: &Intent,
) -> Result<bool, sqlx::Error> {
    if intent.split.bill().is_some() || intent.allocations.is_empty() {
        return Ok(false);
    }
    let letters = intent.fingerprint.map_or(String::new(), |tag| tag.to_string());
    for (account_id, _) in intent.parts() {
        let others: i64 = sqlx::query_scalar(OTHERS)
            .bind(&intent.biller)
            .bind(account_id)
            .bind(&letters)
            .bind(&intent.id)
            .fetch_one(&mut **tx)
            .await?;
        if others > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

const OTHERS: &str = "\
select (select count(*) from intent where biller = $1 and account_id = $2 and fingerprint = $3 \
        and fee_of = '' and state in ('consented', 'sending', 'unknown') and id <> $4) \
    + (select count(*) from allocation join intent on intent.id = allocation.intent_id \
        where allocation.biller = $1 and allocation.account_id = $2 and fingerprint = $3 \
        and state in ('consented', 'sending', 'unknown') and intent.id <> $4)";

/// The same for the one account of an intent that is just inserted, by the parameters of that; one
/// that stands by itself is kept apart by an index.
pub(super) const OTHERS_OF_NEW: &str = "\
select count(*) from allocation join intent on intent.id = allocation.intent_id \
    where $19 = '' and allocation.biller = $3 and allocation.account_id = $4 \
    and fingerprint = $15 and state in ('consented', 'sending', 'unknown') and intent.id <> $1";

impl Store {
    /// What was paid for an account since then and has not gone back, in minor units; fees left
    /// out.
    pub async fn received(
        &self,
        (biller, account_id): (&str, &str),
        since_ms: i64,
    ) -> Result<i64, StoreError> {
        let query = "select coalesce(sum(max(amount_minor - undone_minor, 0)), 0) from intent \
                     where biller = $1 and account_id = $2 and created_ms >= $3 \
                     and accounts = '' and state in ('approved', 'posted')";
        let query = sqlx::query_scalar(query).bind(biller).bind(account_id).bind(since_ms);
        let mut received: i64 = query.fetch_one(&self.reader).await?;
        let query = "select intent.* from allocation \
                     join intent on intent.id = allocation.intent_id \
                     where allocation.biller = $1 and allocation.account_id = $2 \
                     and created_ms >= $3 and state in ('approved', 'posted')";
        let query = sqlx::query(query).bind(biller).bind(account_id).bind(since_ms);
        for row in query.fetch_all(&self.reader).await? {
            let (intent, _) = read_intent(&row)?;
            let undone = Money::new(row.try_get("undone_minor")?, intent.amount.currency);
            received += left(&intent, account_id, undone);
        }
        Ok(received)
    }
}

/// What is left of a payment for one of its accounts, in minor units.
fn left(intent: &Intent, account_id: &str, undone: Money) -> i64 {
    let parts: Vec<Money> = intent.parts().map(|(_, amount)| amount).collect();
    let back = given_back(&parts, Money::new(0, undone.currency), undone);
    let mut left = intent.parts().zip(back);
    let left = left.find(|((of, _), _)| *of == account_id);
    left.map_or(0, |((_, amount), back)| (amount.minor - back.minor).max(0))
}
