//! What is to be charged now, and what becomes of it. Every step is conditional on the one before
//! it, so that no instalment is charged twice, whoever else ends its arrangement meanwhile.

use jiff::civil::Date;
use sqlx::any::AnyRow;
use sqlx::{Any, Row as _, Transaction};

use super::{add, currency, due_date, end, event, kind};
use crate::ledger::arrangement::Kind;
use crate::ledger::{Instalment, Intent, Recorded};
use crate::money::Money;
use crate::server::store::{Store, StoreError, insert_intent};

/// An instalment whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub arrangement: String,
    /// The number its caller knows.
    pub number: String,
    pub kind: Kind,
    pub biller: String,
    pub account_id: String,
    pub card: String,
    pub limit: Money,
    pub agreed_ms: i64,
    /// It was not ended meanwhile.
    pub active: bool,
    pub position: i64,
    pub due: Date,
    pub amount: Money,
    pub fee: Money,
    /// Attempts that have come to an end, and those that were declined.
    pub attempt: i64,
    pub declines: i64,
    /// When this attempt is due, Unix milliseconds.
    pub planned_ms: i64,
    /// The payment of this attempt, once it has begun.
    pub intent: Option<String>,
}

/// What becomes of an attempt that has come to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Paid,
    /// Nothing was charged, and nothing is to be: why.
    Skipped(String),
    /// It was declined and is tried again then; see [`Due::planned_ms`].
    Declined {
        again_ms: i64,
    },
    /// Nothing was processed; it is tried again then, still late for what it was planned for.
    NotCharged {
        again_ms: i64,
        why: String,
    },
    /// It was declined for the last time, or cannot be charged: the arrangement is stopped.
    Stopped(String),
}

/// AutoPay that has nothing to charge yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    pub arrangement: String,
    pub account_id: String,
    /// Its instalments so far, and the due date of the last.
    pub instalments: i64,
    pub last_due: Option<Date>,
    pub agreed_ms: i64,
}

/// For so long a payment that a person has to decide keeps others from being made.
const UNDECIDED_MS: i64 = 30 * 24 * 3_600_000;

impl Store {
    /// Instalments to be looked at by now, longest due first.
    pub async fn due(&self, biller: &str, now_ms: i64, max: i64) -> Result<Vec<Due>, StoreError> {
        let query = "select instalment.*, arrangement.number, arrangement.kind, \
                     arrangement.biller, arrangement.account_id, arrangement.card_id, \
                     arrangement.currency, arrangement.limit_minor, arrangement.agreed_ms, \
                     arrangement.state as standing \
                     from instalment join arrangement on arrangement.id = arrangement_id \
                     where instalment.state = 'waiting' and next_ms <= $2 and biller = $1 \
                     order by next_ms, arrangement_id, instalment.position limit $3";
        let query = sqlx::query(query).bind(biller).bind(now_ms).bind(max);
        query.fetch_all(&self.pool).await?.iter().map(due).collect()
    }

    /// Writes down that this attempt is charged as `intent`, if the arrangement is active and the
    /// attempt has not begun.
    pub async fn begin(&self, due: &Due, intent: &Intent, now_ms: i64) -> Recorded {
        let begun = self.try_begin(due, intent, now_ms).await;
        begun.unwrap_or_else(|error| Recorded::Failed(error.to_string()))
    }

    async fn try_begin(
        &self,
        due: &Due,
        intent: &Intent,
        now_ms: i64,
    ) -> Result<Recorded, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let query = "update instalment set intent_id = $4, amount_minor = $5, fee_minor = $6 \
                     where arrangement_id = $1 and position = $2 and attempt = $3 \
                     and state = 'waiting' and intent_id = '' and exists \
                     (select 1 from arrangement where id = $1 and state = 'active')";
        let begun = sqlx::query(query)
            .bind(&due.arrangement)
            .bind(due.position)
            .bind(due.attempt)
            .bind(&intent.id)
            .bind(intent.amount.minor)
            .bind(intent.fee.minor)
            .execute(&mut *tx)
            .await?;
        if begun.rows_affected() != 1 {
            tx.rollback().await?;
            return Ok(Recorded::Illegal);
        }
        // Whoever pays for the account by phone meanwhile comes first, and so does a person who
        // has to say what became of a payment.
        let query = "select count(*) from intent where biller = $1 and (account_id = $2 \
                         or id in (select intent_id from allocation \
                             where allocation.biller = $1 and allocation.account_id = $2)) \
                     and (state in ('consented', 'sending', 'unknown') \
                         or (state in ('held', 'manual') and created_ms > $3))";
        let open: i64 = sqlx::query_scalar(query)
            .bind(&intent.biller)
            .bind(&intent.account_id)
            .bind(now_ms - UNDECIDED_MS)
            .fetch_one(&mut *tx)
            .await?;
        if open > 0 || !insert_intent(&mut tx, intent, now_ms).await? {
            tx.rollback().await?;
            return Ok(Recorded::Conflict);
        }
        tx.commit().await?;
        Ok(Recorded::Stored)
    }

    /// Looks at it again then: its payment is open, or it could not begin.
    pub async fn postpone(&self, due: &Due, until_ms: i64) -> Result<(), StoreError> {
        let query = "update instalment set next_ms = $4 where arrangement_id = $1 \
                     and position = $2 and attempt = $3 and state = 'waiting'";
        sqlx::query(query)
            .bind(&due.arrangement)
            .bind(due.position)
            .bind(due.attempt)
            .bind(until_ms)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Ends the attempt; false if that was done before.
    pub async fn end_attempt(
        &self,
        due: &Due,
        next: &Next,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let mut tx = self.pool.begin().await?;
        if !attempted(&mut tx, due, next).await? {
            tx.rollback().await?;
            return Ok(false);
        }
        let of = format!("{} of {}", due.position, due.due);
        let (name, why) = match next {
            Next::Paid => ("paid", of),
            Next::Skipped(why) => ("skipped", format!("{of}: {why}")),
            Next::Declined { .. } => ("declined", of),
            Next::NotCharged { why, .. } => ("not_charged", format!("{of}: {why}")),
            Next::Stopped(why) => ("failed", format!("{of}: {why}")),
        };
        event(&mut tx, &due.arrangement, name, ("", &why), now_ms).await?;
        match next {
            Next::Stopped(why) => {
                end(&mut tx, &due.arrangement, "stopped", ("", why), now_ms).await?;
            }
            Next::Paid | Next::Skipped(_) if due.kind != Kind::AutoPay => {
                let query = "select count(*) from instalment \
                             where arrangement_id = $1 and state = 'waiting'";
                let query = sqlx::query_scalar(query).bind(&due.arrangement);
                let left: i64 = query.fetch_one(&mut *tx).await?;
                if left == 0 {
                    end(&mut tx, &due.arrangement, "done", ("", ""), now_ms).await?;
                }
            }
            _ => {}
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Active AutoPay without an instalment to come, by id after `after`.
    pub async fn idle_autopay(
        &self,
        biller: &str,
        after: &str,
        max: i64,
    ) -> Result<Vec<Idle>, StoreError> {
        let query = "select id, number, account_id, agreed_ms, \
                     (select count(*) from instalment where arrangement_id = id) as instalments, \
                     (select coalesce(max(due), '') from instalment \
                      where arrangement_id = id) as due \
                     from arrangement where biller = $1 and kind = 'autopay' \
                     and state = 'active' and id > $2 and not exists \
                     (select 1 from instalment where arrangement_id = id and state = 'waiting') \
                     order by id limit $3";
        let rows = sqlx::query(query).bind(biller).bind(after).bind(max);
        let idle = |row: &AnyRow| {
            let due: String = row.try_get("due")?;
            Ok(Idle {
                arrangement: row.try_get("id")?,
                account_id: row.try_get("account_id")?,
                instalments: row.try_get("instalments")?,
                last_due: (!due.is_empty()).then(|| due_date(row)).transpose()?,
                agreed_ms: row.try_get("agreed_ms")?,
            })
        };
        rows.fetch_all(&self.reader).await?.iter().map(idle).collect()
    }

    /// The next instalment of AutoPay.
    pub async fn plan(&self, idle: &Idle, new: &Instalment) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let query = "select count(*) from arrangement where id = $1 and state = 'active'";
        let active: i64 =
            sqlx::query_scalar(query).bind(&idle.arrangement).fetch_one(&mut *tx).await?;
        if active == 1 {
            add(&mut tx, &idle.arrangement, new).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Arrangements that nobody has ended.
    pub async fn active_arrangements(&self, biller: &str) -> Result<i64, StoreError> {
        let query = "select count(*) from arrangement where biller = $1 and state = 'active'";
        Ok(sqlx::query_scalar(query).bind(biller).fetch_one(&self.reader).await?)
    }
}

/// Moves the instalment on from this attempt; false if it is not in it.
async fn attempted(
    tx: &mut Transaction<'_, Any>,
    due: &Due,
    next: &Next,
) -> Result<bool, sqlx::Error> {
    let (state, declined, why) = match next {
        Next::Paid => ("paid", 0, ""),
        Next::Skipped(why) => ("skipped", 0, why.as_str()),
        Next::Stopped(why) => ("failed", 0, why.as_str()),
        // Of an arrangement that was ended meanwhile no other attempt is made.
        Next::Declined { .. } | Next::NotCharged { .. } if !due.active => ("void", 0, ""),
        Next::Declined { .. } => ("waiting", 1, "declined"),
        Next::NotCharged { why, .. } => ("waiting", 0, why.as_str()),
    };
    let (planned_ms, next_ms) = match next {
        Next::Declined { again_ms } => (*again_ms, *again_ms),
        Next::NotCharged { again_ms, .. } => (due.planned_ms, *again_ms),
        _ => (due.planned_ms, due.planned_ms),
    };
    let keeps = if state == "waiting" { "''" } else { "intent_id" };
    let query = format!(
        "update instalment set state = $4, detail = $5, declines = declines + $6, \
         planned_ms = $7, next_ms = $8, attempt = attempt + 1, intent_id = {keeps} \
         where arrangement_id = $1 and position = $2 and attempt = $3 and state = 'waiting' \
         and intent_id = $9"
    );
    let done = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(&due.arrangement)
        .bind(due.position)
        .bind(due.attempt)
        .bind(state)
        .bind(why)
        .bind(declined)
        .bind(planned_ms)
        .bind(next_ms)
        .bind(due.intent.as_deref().unwrap_or_default())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

fn due(row: &AnyRow) -> Result<Due, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let currency = currency(row)?;
    let money = |column: &str| Ok::<_, sqlx::Error>(Money::new(row.try_get(column)?, currency));
    Ok(Due {
        arrangement: text("arrangement_id")?,
        number: text("number")?,
        kind: kind(row)?,
        biller: text("biller")?,
        account_id: text("account_id")?,
        card: text("card_id")?,
        limit: money("limit_minor")?,
        agreed_ms: row.try_get("agreed_ms")?,
        active: text("standing")? == "active",
        position: row.try_get("position")?,
        due: due_date(row)?,
        amount: money("amount_minor")?,
        fee: money("fee_minor")?,
        attempt: row.try_get("attempt")?,
        declines: row.try_get("declines")?,
        planned_ms: row.try_get("planned_ms")?,
        intent: Some(text("intent_id")?).filter(|id| !id.is_empty()),
    })
}
