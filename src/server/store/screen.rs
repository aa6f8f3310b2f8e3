//! What is known against a payment: one question to the ledger, for a caller waits for it.

use sqlx::{AssertSqlSafe, Row};

use super::row::read;
use super::{Store, StoreError};
use crate::instrument::Fingerprint;
use crate::ledger::velocity::Counted;
use crate::ledger::{Screened, Screening};

/// The latest tries of one caller, account, issuer or trunk that are looked at.
const TRIES_MAX: u32 = 5_000;

impl Store {
    /// What is known against a payment: one question, for the caller waits. Whose tries are to be
    /// looked at one by one is asked beyond it: few enough can reach no limit.
    pub async fn screen(&self, screening: &Screening) -> Result<Screened, StoreError> {
        let letters = |tag: Option<Fingerprint>| tag.map_or(String::new(), |tag| tag.to_string());
        let rows = sqlx::query(AssertSqlSafe(sql()))
            .bind(&screening.biller)
            .bind(&screening.account_id)
            .bind(screening.since_ms)
            .bind(screening.amount.minor)
            .bind(screening.amount.currency.code())
            .bind(letters(screening.fingerprint))
            .bind(letters(screening.origin.caller))
            .bind(letters(screening.origin.issuer))
            .bind(&screening.origin.trunk)
            .bind(screening.limits.since_ms(screening.at_ms))
            .fetch_all(&self.reader)
            .await?;
        let (row, earlier) = rows.split_first().ok_or(sqlx::Error::RowNotFound)?;
        let earlier = match earlier.first() {
            Some(row) => {
                let (intent, state) = read(row)?;
                screening.earlier(&intent, &state)
            }
            None => None,
        };
        let mut found = Screened { earlier, ..Screened::default() };
        let at = |column: &str| row.try_get::<i64, _>(column);
        for (counted, attempts, declines) in [
            (Counted::Caller, at("c0")?, at("c1")?),
            (Counted::Account, at("c2")?, at("c3")?),
            (Counted::Issuer, 0, at("c4")?),
            (Counted::Trunk, 0, at("c5")?),
        ] {
            if screening.limits.may_tell(counted, attempts, declines) {
                let (attempts, declines) = self.tries(screening, counted).await?;
                screening.tried(counted, &attempts, &declines, &mut found);
            }
        }
        Ok(found)
    }

    /// Times of what one of them has tried, and what of it was refused.
    async fn tries(
        &self,
        screening: &Screening,
        counted: Counted,
    ) -> Result<(Vec<i64>, Vec<i64>), StoreError> {
        let letters = |tag: Option<Fingerprint>| tag.map_or(String::new(), |tag| tag.to_string());
        // In the words of the indexes of refusals, where only they have a limit.
        let only = if counted.attempts() { "" } else { "and state = 'declined'" };
        let of = |column: &str| format!("intent where {column} = $1 and created_ms >= $2 {only}");
        let (from, value) = match counted {
            Counted::Caller => (of("caller"), letters(screening.origin.caller)),
            Counted::Account => (TRIES_FOR.into(), screening.account_id.clone()),
            Counted::Issuer => (of("issuer"), letters(screening.origin.issuer)),
            Counted::Trunk => (of("trunk"), screening.origin.trunk.clone()),
        };
        if value.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let telling = screening.limits.telling(counted).unwrap_or(TRIES_MAX).min(TRIES_MAX);
        // In one row: each would be a way to the connection's thread and back.
        let sql = format!(
            "select json_group_array(json_array(created_ms, state)) from \
             (select created_ms, state from {from} order by created_ms desc limit {telling})"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(value)
            .bind(screening.limits.since_ms(screening.at_ms));
        let query = match counted {
            Counted::Account => query.bind(&screening.biller),
            _ => query,
        };
        let tries: String = query.fetch_one(&self.reader).await?;
        let tries: Vec<(i64, String)> = serde_json::from_str(&tries)
            .map_err(|error| StoreError::Database(format!("tries cannot be read: {error}")))?;
        let (mut attempts, mut declines) = (Vec::new(), Vec::new());
        for (at_ms, state) in tries {
            attempts.push(at_ms);
            if state == "declined" {
                declines.push(at_ms);
            }
        }
        // Oldest first, and in whatever order they were put together.
        attempts.sort_unstable();
        declines.sort_unstable();
        Ok((attempts, declines))
    }
}

/// Counts in one row, and then the earlier payment, if there is one, as another: two statements in
/// one question, for joining the two costs more than both.
pub(super) fn sql() -> String {
    format!(
        "select {} c0, {} c1, {} + {} c2, {} + {} c3, {} c4, {} c5; {EARLIER}",
        count("caller = $7", false),
        count("caller = $7", true),
        count("biller = $1 and account_id = $2 and fee_of = ''", false),
        count(BESIDE, false),
        count("biller = $1 and account_id = $2 and fee_of = ''", true),
        count(BESIDE, true),
        count("issuer = $8", true),
        count("trunk = $9", true),
    )
}

/// How many recent tries there are, as a column; of refusals in the words of their indexes. An
/// empty value stands for nobody.
fn count(whose: &str, refused: bool) -> String {
    let only = if refused { "and state = 'declined'" } else { "" };
    format!("(select count(*) from intent where {whose} and created_ms >= $10 {only})")
}

/// As [`Screening::earlier`] says.
const EARLIER: &str = "\
select * from ( \
    select intent.*, amount_minor part_minor from intent \
        where biller = $1 and account_id = $2 and accounts = '' and fee_of = '' \
        and fee_kind <> 'verification' \
    union all \
    select intent.*, allocation.amount_minor part_minor \
        from allocation join intent on intent.id = allocation.intent_id \
        where allocation.biller = $1 and allocation.account_id = $2 \
) where ($6 = '' or fingerprint = $6) \
    and (state in ('consented', 'sending', 'unknown') \
        or ((state in ('held', 'manual') \
                or (state in ('approved', 'posted') and undone_minor < approved_minor)) \
            and created_ms >= $3 and part_minor = $4 and currency = $5)) \
order by created_ms desc, id desc limit 1";

/// Intents that pay an account beside the one they stand for.
const BESIDE: &str = "\
id in (select intent_id from allocation \
    where allocation.biller = $1 and allocation.account_id = $2 and position > 1)";

/// What was tried for an account, by itself or beside another.
const TRIES_FOR: &str = "( \
    select created_ms, state from intent \
        where biller = $3 and account_id = $1 and fee_of = '' and created_ms >= $2 \
    union all \
    select created_ms, state from allocation join intent on intent.id = allocation.intent_id \
        where allocation.biller = $3 and allocation.account_id = $1 and position > 1 \
        and created_ms >= $2)";
