//! What callers have arranged for later, in the ledger.

use jiff::civil::Date;
use sqlx::any::AnyRow;
use sqlx::{Any, Row as _, Transaction};

use super::{Store, StoreError};
use crate::ledger::arrangement::{Agreement, CARD_DROPPED, Kind};
use crate::ledger::journal::masked;
use crate::ledger::{Arrangement, Instalment, Recorded};
use crate::money::{Currency, Money};

pub mod due; // what is to be charged now, and what becomes of it
pub mod list; // arrangements as people look at them

impl Store {
    pub(super) async fn arrange(
        &self,
        new: &Arrangement,
        now_ms: i64,
    ) -> Result<Recorded, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let query = "select count(*) from card where id = $1 and biller = $2 and account_id = $3 \
                     and dropped_ms = 0";
        let kept: i64 = sqlx::query_scalar(query)
            .bind(&new.card)
            .bind(&new.biller)
            .bind(&new.account_id)
            .fetch_one(&mut *tx)
            .await?;
        if kept != 1 {
            tx.rollback().await?;
            return Ok(Recorded::Illegal);
        }
        let inserted = sqlx::query(INSERT)
            .bind(&new.id)
            .bind(&new.number)
            .bind(&new.biller)
            .bind(&new.account_id)
            .bind(&new.card)
            .bind(new.kind.name())
            .bind(new.limit.currency.code())
            .bind(new.limit.minor)
            .bind(&new.agreement.call_id)
            .bind(new.agreement.at_ms)
            .bind(new.created_ms)
            .execute(&mut *tx)
            .await;
        match inserted {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                tx.rollback().await?;
                return Ok(Recorded::Conflict);
            }
            other => other?,
        };
        for instalment in &new.instalments {
            add(&mut tx, &new.id, instalment).await?;
        }
        event(&mut tx, &new.id, "agreed", ("", &new.agreement.said), now_ms).await?;
        tx.commit().await?;
        Ok(Recorded::Stored)
    }

    /// Illegal: it is not active, or a payment of it is being charged.
    pub(super) async fn cancel(
        &self,
        id: &str,
        (who, why): (&str, &str),
        now_ms: i64,
    ) -> Result<Recorded, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let query = "select count(*) from instalment join intent on intent.id = intent_id \
                     where arrangement_id = $1 and instalment.state = 'waiting' \
                     and intent.state in ('consented', 'sending', 'unknown', 'held', 'manual')";
        let charging: i64 = sqlx::query_scalar(query).bind(id).fetch_one(&mut *tx).await?;
        let who_why = (&*masked(who), &*masked(why));
        if charging > 0 || !end(&mut tx, id, "cancelled", who_why, now_ms).await? {
            tx.rollback().await?;
            return Ok(Recorded::Illegal);
        }
        tx.commit().await?;
        Ok(Recorded::Stored)
    }

    /// Whether a payment of it may be charged yet, whatever has ended since: one is on its way, or
    /// a person has to say what became of it.
    pub async fn is_charging(&self, id: &str) -> Result<bool, StoreError> {
        let query = "select count(*) from instalment join intent on intent.id = intent_id \
                     where arrangement_id = $1 and instalment.state = 'waiting' \
                     and intent.state in ('consented', 'sending', 'unknown', 'held', 'manual')";
        let charging: i64 = sqlx::query_scalar(query).bind(id).fetch_one(&self.reader).await?;
        Ok(charging > 0)
    }

    /// The active ones of an account, as they were made.
    pub(super) async fn arrangements(
        &self,
        biller: &str,
        account_id: &str,
    ) -> Result<Vec<Arrangement>, StoreError> {
        let query = "select arrangement.*, arrangement_event.detail as said from arrangement \
                     join arrangement_event on arrangement_id = id and event = 'agreed' \
                     where biller = $1 and account_id = $2 and state = 'active' \
                     order by created_ms, id limit 10";
        let rows = sqlx::query(query).bind(biller).bind(account_id).fetch_all(&self.reader).await?;
        let mut all = Vec::new();
        for row in &rows {
            let mut one = read(row)?;
            let query = "select * from instalment where arrangement_id = $1 and state = 'waiting' \
                         order by position limit 100";
            let rows = sqlx::query(query).bind(&one.id).fetch_all(&self.reader).await?;
            let currency = one.limit.currency;
            one.instalments =
                rows.iter().map(|row| instalment(row, currency)).collect::<Result<_, _>>()?;
            all.push(one);
        }
        Ok(all)
    }
}

/// Ends an active one; false if it was not.
pub(super) async fn end(
    tx: &mut Transaction<'_, Any>,
    id: &str,
    state: &str,
    who_why: (&str, &str),
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let query = "update arrangement set state = $2 where id = $1 and state = 'active'";
    let done = sqlx::query(query).bind(id).bind(state).execute(&mut **tx).await?;
    if done.rows_affected() != 1 {
        return Ok(false);
    }
    event(tx, id, state, who_why, now_ms).await?;
    // What was never begun will not be; what was is settled by its payment.
    let query = "update instalment set state = 'void' \
                 where arrangement_id = $1 and state = 'waiting' and intent_id = ''";
    sqlx::query(query).bind(id).execute(&mut **tx).await?;
    Ok(true)
}

/// Ends what would have been charged to a card that is dropped.
pub(super) async fn without_card(
    tx: &mut Transaction<'_, Any>,
    card: &str,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    let query = "select id from arrangement where card_id = $1 and state = 'active'";
    for row in sqlx::query(query).bind(card).fetch_all(&mut **tx).await? {
        let id: String = row.try_get(0)?;
        end(tx, &id, "stopped", ("", CARD_DROPPED), now_ms).await?;
    }
    Ok(())
}

/// The same card has been kept anew.
pub(super) async fn change_card(
    tx: &mut Transaction<'_, Any>,
    [old, new]: [&str; 2],
) -> Result<(), sqlx::Error> {
    let query = "update arrangement set card_id = $2 where card_id = $1 and state = 'active'";
    sqlx::query(query).bind(old).bind(new).execute(&mut **tx).await?;
    Ok(())
}

pub(super) async fn event(
    tx: &mut Transaction<'_, Any>,
    id: &str,
    name: &str,
    (who, why): (&str, &str),
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    let query = "insert into arrangement_event \
                 (arrangement_id, position, event, at_ms, who, detail) \
                 select $1, coalesce(max(position), 0) + 1, $2, $3, $4, $5 \
                 from arrangement_event where arrangement_id = $1";
    let query = sqlx::query(query).bind(id).bind(name).bind(now_ms).bind(who).bind(why);
    query.execute(&mut **tx).await?;
    Ok(())
}

async fn add(tx: &mut Transaction<'_, Any>, id: &str, new: &Instalment) -> Result<(), sqlx::Error> {
    let query = "insert into instalment (arrangement_id, position, due, amount_minor, fee_minor, \
                 state, attempt, declines, planned_ms, next_ms, intent_id, detail) \
                 values ($1, $2, $3, $4, $5, 'waiting', 0, 0, $6, $6, '', '')";
    sqlx::query(query)
        .bind(id)
        .bind(new.position)
        .bind(new.due.to_string())
        .bind(new.amount.minor)
        .bind(new.fee.minor)
        .bind(new.at_ms)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

const INSERT: &str = "\
insert into arrangement (id, number, biller, account_id, card_id, kind, currency, limit_minor, \
    call_id, agreed_ms, created_ms, state) \
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'active')";

/// Without its instalments.
fn read(row: &AnyRow) -> Result<Arrangement, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let currency = currency(row)?;
    Ok(Arrangement {
        id: text("id")?,
        number: text("number")?,
        biller: text("biller")?,
        account_id: text("account_id")?,
        card: text("card_id")?,
        kind: kind(row)?,
        limit: Money::new(row.try_get("limit_minor")?, currency),
        agreement: Agreement {
            said: text("said")?,
            at_ms: row.try_get("agreed_ms")?,
            call_id: text("call_id")?,
        },
        instalments: Vec::new(),
        created_ms: row.try_get("created_ms")?,
    })
}

fn instalment(row: &AnyRow, currency: Currency) -> Result<Instalment, StoreError> {
    Ok(Instalment {
        position: row.try_get("position")?,
        due: due_date(row)?,
        at_ms: row.try_get("planned_ms")?,
        amount: Money::new(row.try_get("amount_minor")?, currency),
        fee: Money::new(row.try_get("fee_minor")?, currency),
    })
}

fn foreign(what: &str, row: &AnyRow) -> StoreError {
    let number = row.try_get::<String, _>("number").unwrap_or_default();
    StoreError::Database(format!("arrangement {number} has a {what} this version does not know"))
}

fn kind(row: &AnyRow) -> Result<Kind, StoreError> {
    let kind = Kind::parse(&row.try_get::<String, _>("kind")?);
    kind.ok_or_else(|| foreign("kind", row))
}

fn currency(row: &AnyRow) -> Result<Currency, StoreError> {
    let currency = Currency::from_code(&row.try_get::<String, _>("currency")?);
    currency.ok_or_else(|| foreign("currency", row))
}

fn due_date(row: &AnyRow) -> Result<Date, StoreError> {
    let due: String = row.try_get("due")?;
    due.parse().map_err(|_| foreign("due date", row))
}

#[cfg(test)]
mod tests;
