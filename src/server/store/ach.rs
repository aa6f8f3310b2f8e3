//! Debits on their way to the bank: written down sealed, put into one file each, wiped when that
//! file is in place.

use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};

use super::row::read;
use super::{Store, StoreError};
use crate::ach::Originator;
use crate::ach::file::{ENTRIES_MAX, File, SEQUENCE_MAX, TOTAL_MAX, modifier, trace};
use crate::ledger::{Intent, State};

pub mod news; // returns and notices of change

/// What came of writing a debit down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Debited {
    /// Our name for it; whether it is new.
    Stored(String, bool),
    /// The account or its holder's customer is blocked, and why.
    Blocked(String),
    /// The payment takes no debit any more.
    Refused(&'static str),
}

/// A debit, for who asks about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debit {
    pub id: String,
    pub intent_id: String,
    pub attempt: i64,
    pub state: String,
    /// Our name for the payment.
    pub name: String,
    pub trace: String,
    pub return_code: String,
}

/// A file that is not done, as it is fixed in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    pub id: i64,
    pub originator: Originator,
    pub created: String,
    pub effective: String,
    pub modifier: char,
    /// It is in place under its name.
    pub placed: bool,
    /// Empty once it is in place.
    pub debits: Vec<FixedDebit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedDebit {
    pub id: String,
    pub sealed: String,
    pub cents: u64,
    pub name: String,
    pub account_id: String,
    pub sequence: u64,
    pub again: bool,
}

/// Which file is to be fixed, if there is none to be finished.
pub struct Wanted<'a> {
    pub gateway: &'a str,
    pub originator: &'a Originator,
    /// Debits written down before this, Unix milliseconds.
    pub before_ms: i64,
    /// Civil times where the biller is, ISO 8601.
    pub created: String,
    pub effective: String,
}

impl Store {
    /// Writes a debit down for a payment that is being charged. `seal` is given what a notice of
    /// change has said of this account, sealed, and gives the receiver, sealed.
    pub async fn debit(
        &self,
        gateway: &str,
        intent_id: &str,
        seal: impl FnOnce(Option<(String, String)>) -> Result<String, String>,
        now_ms: i64,
    ) -> Result<Debited, StoreError> {
        let mut tx = self.pool.begin().await?;
        let query = sqlx::query("select * from intent where id = $1").bind(intent_id);
        let Some(row) = query.fetch_optional(&mut *tx).await? else {
            return Ok(Debited::Refused("there is no such payment"));
        };
        let (intent, state) = read(&row)?;
        let query = "select id from ach_entry where intent_id = $1 and attempt = 0";
        let there = sqlx::query(query).bind(intent_id).fetch_optional(&mut *tx).await?;
        if there.is_some() {
            return Ok(Debited::Stored(intent.confirmation, false));
        }
        if !matches!(state, State::Sending | State::Unknown(_)) || intent.gateway != gateway {
            return Ok(Debited::Refused("the payment is not being charged here"));
        }
        let fingerprint = intent.fingerprint.map_or(String::new(), |tag| tag.to_string());
        if let Some(why) = blocked(&mut tx, &intent, &fingerprint).await? {
            return Ok(Debited::Blocked(why));
        }
        // Another gateway's is sealed with that one's key.
        let query = "select fingerprint, sealed from ach_correction \
                     where fingerprint = $1 and gateway = $2";
        let query = sqlx::query(query).bind(&fingerprint).bind(gateway);
        let corrected = query.fetch_optional(&mut *tx).await?;
        let corrected = corrected
            .map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?)))
            .transpose()?;
        let sealed = seal(corrected).map_err(StoreError::File)?;
        let query = sqlx::query(INSERT).bind(intent_id).bind(intent_id).bind(0i64);
        let query = query.bind(gateway).bind(sealed).bind(now_ms);
        query.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Debited::Stored(intent.confirmation, true))
    }

    /// Takes a debit out that is in no file yet; why not, in words for who asked.
    pub async fn take_out(&self, name: &str) -> Result<Result<String, &'static str>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let query = "update ach_entry set state = 'void', sealed = '' where state = 'waiting' \
                     and intent_id in (select id from intent where confirmation = $1)";
        let taken = sqlx::query(query).bind(name).execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        if taken == 1 {
            return Ok(Ok(name.into()));
        }
        let query = "select id from intent where confirmation = $1";
        let id: Option<String> =
            sqlx::query_scalar(query).bind(name).fetch_optional(&self.pool).await?;
        let debits = match id {
            Some(id) => self.debits(&id).await?,
            None => Vec::new(),
        };
        Ok(match debits.last().map(|debit| debit.state.as_str()) {
            Some("void") => Ok(name.into()),
            Some("returned") => Err("its bank has returned it already"),
            Some(_) => Err("it is in a file for the bank: ask the bank to take it out"),
            None => Err("there is no such debit"),
        })
    }

    /// A payment's debits: the first, and those presented again.
    pub async fn debits(&self, intent_id: &str) -> Result<Vec<Debit>, StoreError> {
        let query = "select ach_entry.*, intent.confirmation from ach_entry \
                     join intent on intent.id = ach_entry.intent_id \
                     where intent_id = $1 order by attempt";
        let rows = sqlx::query(query).bind(intent_id).fetch_all(&self.pool).await?;
        rows.iter().map(debit).collect()
    }

    /// Whether there is a file to finish, or a debit that waits for one.
    pub async fn has_debits(&self, gateway: &str, before_ms: i64) -> Result<bool, StoreError> {
        let query = format!(
            "select (select count(*) from ach_entry join intent \
             on intent.id = ach_entry.intent_id where ach_entry.gateway = $1 \
             and ach_entry.state = 'waiting' and ach_entry.created_ms < $2 and {GOES}) \
             + (select count(*) from ach_file where gateway = $1 and done_ms = 0)"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(query)).bind(gateway).bind(before_ms);
        let count: i64 = query.fetch_one(&self.pool).await?;
        Ok(count > 0)
    }

    /// Since when a debit of this payment waits for a file, and the reason of the return that keeps
    /// it out of all.
    pub async fn waiting_debit(
        &self,
        intent: &Intent,
    ) -> Result<Option<(i64, Option<String>)>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let query = "select created_ms from ach_entry where intent_id = $1 and state = 'waiting'";
        let query = sqlx::query_scalar(query).bind(&intent.id);
        let Some(since_ms) = query.fetch_optional(&mut *tx).await? else { return Ok(None) };
        let fingerprint = intent.fingerprint.map_or(String::new(), |tag| tag.to_string());
        Ok(Some((since_ms, blocked(&mut tx, intent, &fingerprint).await?)))
    }

    /// Payments whose debit is in no file yet.
    pub async fn waiting_debits(&self) -> Result<Vec<Intent>, StoreError> {
        let query = "select * from intent where id in \
                     (select intent_id from ach_entry where state = 'waiting') order by id";
        let rows = sqlx::query(query).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(read(row)?.0)).collect()
    }

    /// Gateways with a debit that waits or a file that is not done.
    pub async fn gateways_with_debits(&self) -> Result<Vec<String>, StoreError> {
        let query = "select gateway from ach_entry where state = 'waiting' \
                     union select gateway from ach_file where done_ms = 0 order by 1";
        Ok(sqlx::query_scalar(query).fetch_all(&self.pool).await?)
    }

    /// The file that was begun and is not done, or a new one of all debits that wait; `None` if
    /// there is neither. From here on its debits are in this file and no other.
    pub async fn fix_debits(&self, wanted: &Wanted<'_>) -> Result<Option<Fixed>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let query = "select * from ach_file where gateway = $1 and done_ms = 0 order by id limit 1";
        let open = sqlx::query(query).bind(wanted.gateway).fetch_optional(&mut *tx).await?;
        let row = match open {
            Some(row) => row,
            None => {
                let Some(id) = begin_file(&mut tx, wanted).await? else { return Ok(None) };
                let query = sqlx::query("select * from ach_file where id = $1").bind(id);
                query.fetch_one(&mut *tx).await?
            }
        };
        let fixed = fixed(&mut tx, &row).await?;
        tx.commit().await?;
        Ok(Some(fixed))
    }

    /// The file is in place: what it holds is wiped here.
    pub async fn file_placed(&self, id: i64, now_ms: i64) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let query = "update ach_file set placed_ms = $2 where id = $1 and placed_ms = 0";
        sqlx::query(query).bind(id).bind(now_ms).execute(&mut *tx).await?;
        let query = "update ach_entry set sealed = '' where file_id = $1 and state = 'filed'";
        sqlx::query(query).bind(id).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whoever takes files to the bank may have it: nothing is left to do.
    pub async fn file_done(&self, id: i64, now_ms: i64) -> Result<(), StoreError> {
        let query = "update ach_file set done_ms = $2 where id = $1 and done_ms = 0";
        sqlx::query(query).bind(id).bind(now_ms).execute(&self.pool).await?;
        Ok(())
    }
}

/// A debit that goes into a file: of a payment that is approved, for of one whose outcome is open
/// nobody knows yet whether it is one; from an account that no return has blocked meanwhile.
const GOES: &str = "intent.state in ('approved', 'posted') and not exists ( \
    select 1 from ach_block where \
        (ach_block.fingerprint <> '' and ach_block.fingerprint = intent.fingerprint) \
        or (ach_block.fingerprint = '' and ach_block.biller = intent.biller \
            and ach_block.account_id = intent.account_id))";

pub(super) const INSERT: &str = "\
insert into ach_entry (id, intent_id, attempt, gateway, state, sealed, created_ms, file_id, \
    sequence, trace, return_code, returned_ms) \
values ($1, $2, $3, $4, 'waiting', $5, $6, 0, 0, '', '', 0)";

fn debit(row: &AnyRow) -> Result<Debit, StoreError> {
    Ok(Debit {
        id: row.try_get("id")?,
        intent_id: row.try_get("intent_id")?,
        attempt: row.try_get("attempt")?,
        state: row.try_get("state")?,
        name: row.try_get("confirmation")?,
        trace: row.try_get("trace")?,
        return_code: row.try_get("return_code")?,
    })
}

/// Why no account of this customer, or not this one, may be debited.
async fn blocked(
    tx: &mut Transaction<'_, Any>,
    intent: &Intent,
    fingerprint: &str,
) -> Result<Option<String>, sqlx::Error> {
    let query = "select code from ach_block where (fingerprint = $1 and $1 <> '') \
                 or (biller = $2 and account_id = $3 and fingerprint = '') limit 1";
    let query = sqlx::query_scalar(query).bind(fingerprint);
    query.bind(&intent.biller).bind(&intent.account_id).fetch_optional(&mut **tx).await
}

/// Puts what waits into a new file; its id, or `None` if nothing does.
async fn begin_file(
    tx: &mut Transaction<'_, Any>,
    wanted: &Wanted<'_>,
) -> Result<Option<i64>, StoreError> {
    let day = wanted.created.get(..10).unwrap_or_default();
    let query = format!(
        "select ach_entry.id, intent.amount_minor + intent.fee_minor from ach_entry \
         join intent on intent.id = ach_entry.intent_id \
         where ach_entry.gateway = $1 and ach_entry.state = 'waiting' \
         and ach_entry.created_ms < $2 and {GOES} \
         order by case when attempt = 0 then 0 else 1 end, ach_entry.created_ms, \
         ach_entry.id limit $3"
    );
    let most = i64::try_from(ENTRIES_MAX).unwrap_or(i64::MAX);
    let query = sqlx::query(AssertSqlSafe(query)).bind(wanted.gateway);
    let query = query.bind(wanted.before_ms).bind(most);
    let rows = query.fetch_all(&mut **tx).await?;
    let mut total = 0;
    let mut ids: Vec<String> = Vec::new();
    for row in &rows {
        let cents: i64 = row.try_get(1)?;
        total += cents.unsigned_abs();
        if total > TOTAL_MAX {
            break;
        }
        ids.push(row.try_get(0)?);
    }
    if ids.is_empty() {
        return Ok(None);
    }
    let query = "select count(*) from ach_file where day = $1";
    let query = sqlx::query_scalar(query).bind(day);
    let files: i64 = query.fetch_one(&mut **tx).await?;
    let modifier = modifier(usize::try_from(files).unwrap_or(usize::MAX)).ok_or_else(|| {
        StoreError::File(format!("{files} files were made on {day}, and a bank takes no more"))
    })?;
    let id: i64 = sqlx::query_scalar("select coalesce(max(id), 0) + 1 from ach_file")
        .fetch_one(&mut **tx)
        .await?;
    let originator = serde_json::to_string(wanted.originator)
        .map_err(|error| StoreError::File(error.to_string()))?;
    let query = "insert into ach_file (id, gateway, created, day, effective, modifier, \
                 originator, placed_ms, done_ms) values ($1, $2, $3, $4, $5, $6, $7, 0, 0)";
    sqlx::query(query)
        .bind(id)
        .bind(wanted.gateway)
        .bind(&wanted.created)
        .bind(day)
        .bind(&wanted.effective)
        .bind(modifier.to_string())
        .bind(originator)
        .execute(&mut **tx)
        .await?;
    let first = first_sequence(tx, ids.len() as u64).await?;
    for (sequence, entry) in (first..).zip(&ids) {
        let query = "update ach_entry set state = 'filed', file_id = $2, sequence = $3, \
                     trace = $4 where id = $1 and state = 'waiting'";
        sqlx::query(query)
            .bind(entry)
            .bind(id)
            .bind(i64::try_from(sequence).unwrap_or(i64::MAX))
            .bind(trace(wanted.originator, sequence))
            .execute(&mut **tx)
            .await?;
    }
    Ok(Some(id))
}

/// Trace numbers go on from file to file, so that one tells a debit for years, whatever its
/// gateway was called meanwhile.
async fn first_sequence(tx: &mut Transaction<'_, Any>, count: u64) -> Result<u64, StoreError> {
    let query = "select coalesce(max(sequence), 0) from ach_entry where file_id = \
                 (select coalesce(max(file_id), 0) from ach_entry) and file_id > 0";
    let last: i64 = sqlx::query_scalar(query).fetch_one(&mut **tx).await?;
    let last = last.unsigned_abs();
    Ok(if last + count > SEQUENCE_MAX { 1 } else { last + 1 })
}

async fn fixed(tx: &mut Transaction<'_, Any>, row: &AnyRow) -> Result<Fixed, StoreError> {
    let id: i64 = row.try_get("id")?;
    let foreign = |what: &str| {
        StoreError::Database(format!("file {id} has a {what} this version does not know"))
    };
    let originator: String = row.try_get("originator")?;
    let modifier: String = row.try_get("modifier")?;
    let placed_ms: i64 = row.try_get("placed_ms")?;
    let mut fixed = Fixed {
        id,
        originator: serde_json::from_str(&originator).map_err(|_| foreign("originator"))?,
        created: row.try_get("created")?,
        effective: row.try_get("effective")?,
        modifier: modifier.chars().next().ok_or_else(|| foreign("modifier"))?,
        placed: placed_ms > 0,
        debits: Vec::new(),
    };
    if fixed.placed {
        return Ok(fixed);
    }
    let query = "select ach_entry.id as entry, ach_entry.sealed, ach_entry.sequence, \
                 ach_entry.attempt, intent.confirmation, intent.account_id, \
                 intent.amount_minor + intent.fee_minor as total from ach_entry \
                 join intent on intent.id = ach_entry.intent_id \
                 where ach_entry.file_id = $1 order by ach_entry.sequence";
    for row in sqlx::query(query).bind(id).fetch_all(&mut **tx).await? {
        let (sequence, total): (i64, i64) = (row.try_get("sequence")?, row.try_get("total")?);
        let attempt: i64 = row.try_get("attempt")?;
        fixed.debits.push(FixedDebit {
            id: row.try_get("entry")?,
            sealed: row.try_get("sealed")?,
            cents: total.unsigned_abs(),
            name: row.try_get("confirmation")?,
            account_id: row.try_get("account_id")?,
            sequence: sequence.unsigned_abs(),
            again: attempt > 0,
        });
    }
    Ok(fixed)
}

impl Fixed {
    /// The name of the file.
    pub fn name(&self, gateway: &str) -> Option<String> {
        let day = self.created.get(..10)?.parse().ok()?;
        Some(File::name(gateway, day, self.modifier))
    }
}
