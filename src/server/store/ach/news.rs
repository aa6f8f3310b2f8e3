//! What the bank says of debits: returned, presented again, accounts blocked or changed. A file of
//! news is taken in one transaction, and again without effect.

use sqlx::any::AnyRow;
use sqlx::{Any, Row as _, Transaction};

use super::super::row::read;
use super::super::{Store, StoreError};
use super::{Debit, INSERT, debit};
use crate::ach::code::{AGAIN_DAYS, AGAIN_MAX};
use crate::ach::{Action, Code};
use crate::ledger::change::{Change, Progress, Undo, may_change};
use crate::ledger::journal::masked;
use crate::ledger::{Intent, State, confirmation};
use crate::money::Money;

/// One entry of a file that came back, as far as the ledger is concerned.
pub struct Piece {
    pub trace: String,
    /// What the bank says we called the payment; may be empty.
    pub name: String,
    pub cents: u64,
    /// End of the account's number, if it is told.
    pub last4: Option<String>,
    pub code: Code,
}

/// What was made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Recorded now.
    New(Intent),
    /// It was recorded before.
    Known(Intent),
    /// Nothing was changed: why, in words for people.
    Unmatched(String),
}

/// Whom an account is refused to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub biller: String,
    pub account_id: String,
    /// Any bank account of this customer, not only the one.
    pub any: bool,
    pub code: String,
    /// The payment that was returned.
    pub name: String,
    pub at_ms: i64,
}

/// A file of news being taken: nothing of it stays unless [`Taking::end`] is reached.
pub struct Taking<'s> {
    tx: Transaction<'s, Any>,
    now_ms: i64,
}

impl Store {
    pub async fn take_news(&self, now_ms: i64) -> Result<Taking<'_>, StoreError> {
        Ok(Taking { tx: self.pool.begin().await?, now_ms })
    }

    /// Has a returned debit made again, in the next file; `seal` is given the receiver sealed under
    /// the old id, and seals it under the new one. Why not, in words for who asked.
    pub async fn represent(
        &self,
        intent: &Intent,
        (who, why): (&str, &str),
        seal: impl FnOnce(&str, &str, &str) -> Result<String, String>,
        now_ms: i64,
    ) -> Result<Result<i64, String>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let Some((last, sealed, returned_ms, gateway)) = latest(&mut tx, &intent.id).await? else {
            return Ok(Err("it was not debited by a file of ours".into()));
        };
        let code = Code::parse(&last.return_code).filter(|_| last.state == "returned");
        if code.map(Code::action) != Some(Action::Again) {
            return Ok(Err(match code {
                Some(code) => format!("it came back as {code}, {}: it stays so", code.reason()),
                None => format!("its debit is {}: only a returned one is made again", last.state),
            }));
        }
        if last.attempt >= AGAIN_MAX {
            return Ok(Err("it was presented again twice: the rules allow no more".into()));
        }
        if now_ms - intent.created_ms > AGAIN_DAYS * 86_400_000 || sealed.is_empty() {
            let (days, since) = (AGAIN_DAYS, super::super::super::payments::time(returned_ms));
            return Ok(Err(match sealed.is_empty() {
                true => {
                    format!("the return of {since} does not tell the account: call the customer")
                }
                false => format!("it is more than {days} days old: the rules allow it no more"),
            }));
        }
        let fingerprint = intent.fingerprint.map_or(String::new(), |tag| tag.to_string());
        if let Some(code) = super::blocked(&mut tx, intent, &fingerprint).await? {
            return Ok(Err(format!("the account is blocked since it came back as {code}")));
        }
        let attempt = last.attempt + 1;
        let id = format!("{}-{attempt}", intent.id);
        let sealed = match seal(&last.id, &sealed, &id) {
            Ok(sealed) => sealed,
            Err(why) => return Ok(Err(why)),
        };
        sqlx::query(INSERT)
            .bind(&id)
            .bind(&intent.id)
            .bind(attempt)
            .bind(gateway)
            .bind(sealed)
            .bind(now_ms)
            .execute(&mut *tx)
            .await?;
        let query = sqlx::query("update ach_entry set sealed = '' where id = $1").bind(&last.id);
        query.execute(&mut *tx).await?;
        let change = Change {
            id: format!("represent-{id}"),
            intent_id: intent.id.clone(),
            act: Undo::Represented,
            amount: intent.total().unwrap_or(intent.amount),
            who: masked(who),
            why: masked(why),
            created_ms: now_ms,
        };
        let done = Progress::Done(intent.confirmation.clone());
        match put(&mut tx, &change, &done, now_ms).await? {
            Ok(_) => {}
            Err(why) => return Ok(Err(why)),
        }
        tx.commit().await?;
        Ok(Ok(attempt))
    }

    /// What may not be debited, oldest first.
    pub async fn blocks(&self) -> Result<Vec<Block>, StoreError> {
        let query = "select ach_block.*, intent.confirmation from ach_block \
                     join intent on intent.id = ach_block.intent_id order by at_ms, intent_id";
        let rows = sqlx::query(query).fetch_all(&self.pool).await?;
        let read = |row: &AnyRow| {
            let fingerprint: String = row.try_get("fingerprint")?;
            Ok(Block {
                biller: row.try_get("biller")?,
                account_id: row.try_get("account_id")?,
                any: fingerprint.is_empty(),
                code: row.try_get("code")?,
                name: row.try_get("confirmation")?,
                at_ms: row.try_get("at_ms")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Lifts what a returned payment has blocked; how much that was.
    pub async fn lift_blocks(&self, intent_id: &str) -> Result<u64, StoreError> {
        let query = sqlx::query("delete from ach_block where intent_id = $1").bind(intent_id);
        Ok(query.execute(&self.pool).await?.rows_affected())
    }
}

impl Taking<'_> {
    /// A return. `seal` is given the debit's id and gives what is kept to present it again, if
    /// anything is.
    pub async fn returned(
        &mut self,
        piece: &Piece,
        seal: impl FnOnce(&str, &str) -> Option<String>,
    ) -> Result<Taken, StoreError> {
        let (intent, debit) = match self.of(piece).await? {
            Ok(found) => found,
            Err(why) => return Ok(Taken::Unmatched(why)),
        };
        if intent.total().map(|total| total.minor.unsigned_abs()) != Some(piece.cents) {
            let total = intent.total().unwrap_or(intent.amount);
            let cents = i64::try_from(piece.cents).unwrap_or(i64::MAX);
            let told = Money::new(cents, total.currency);
            return Ok(Taken::Unmatched(format!("it is of {told}, the payment of {total}")));
        }
        if let Some(debit) = &debit {
            match debit.state.as_str() {
                "filed" => {}
                "returned" if debit.return_code == piece.code.as_str() => {
                    return Ok(Taken::Known(intent));
                }
                "returned" => {
                    let before = &debit.return_code;
                    return Ok(Taken::Unmatched(format!("it was returned before as {before}")));
                }
                state => return Ok(Taken::Unmatched(format!("the debit is {state} here"))),
            }
        }
        let id = match &debit {
            Some(debit) => format!("return-{}", debit.id),
            None => format!("return-{}-{}", intent.id, piece.trace),
        };
        let change = Change {
            id,
            intent_id: intent.id.clone(),
            act: Undo::Returned,
            amount: intent.total().unwrap_or(intent.amount),
            who: "the holder's bank".into(),
            why: piece.code.reason().into(),
            created_ms: self.now_ms,
        };
        let done = Progress::Done(format!("{} {}", piece.code, piece.trace));
        match put(&mut self.tx, &change, &done, self.now_ms).await? {
            Ok(true) => {}
            Ok(false) => return Ok(Taken::Known(intent)),
            Err(why) => return Ok(Taken::Unmatched(why)),
        }
        if let Some(debit) = &debit {
            let gateway = &intent.gateway;
            let again = piece.code.action() == Action::Again && debit.attempt < AGAIN_MAX;
            let sealed = if again { seal(gateway, &debit.id) } else { None };
            let query = "update ach_entry set state = 'returned', return_code = $2, \
                         returned_ms = $3, sealed = $4 where id = $1";
            sqlx::query(query)
                .bind(&debit.id)
                .bind(piece.code.as_str())
                .bind(self.now_ms)
                .bind(sealed.unwrap_or_default())
                .execute(&mut *self.tx)
                .await?;
        }
        self.block(&intent, piece.code).await?;
        Ok(Taken::New(intent))
    }

    /// A notice of change: kept, sealed, for the next debit of this account. `seal` is given whose
    /// key seals it and its name.
    pub async fn changed(
        &mut self,
        piece: &Piece,
        seal: impl FnOnce(&str, &str) -> Option<String>,
    ) -> Result<Taken, StoreError> {
        let (intent, debit) = match self.of(piece).await? {
            Ok(found) => found,
            Err(why) => return Ok(Taken::Unmatched(why)),
        };
        if debit.is_none() {
            let why = "it is not of a file of ours: whoever made the debit has to note it";
            return Ok(Taken::Unmatched(why.into()));
        }
        let Some(fingerprint) = intent.fingerprint.map(|tag| tag.to_string()) else {
            return Ok(Taken::Unmatched("the payment is too old to be known again".into()));
        };
        let query = "select code from ach_correction where fingerprint = $1 and intent_id = $2 \
                     and code = $3";
        let query = sqlx::query(query).bind(&fingerprint).bind(&intent.id);
        let there = query.bind(piece.code.as_str()).fetch_optional(&mut *self.tx).await?;
        if there.is_some() {
            return Ok(Taken::Known(intent));
        }
        let Some(sealed) = seal(&intent.gateway, &fingerprint) else {
            let why = "what is to be corrected is no account: ask the bank";
            return Ok(Taken::Unmatched(why.into()));
        };
        let query = sqlx::query("delete from ach_correction where fingerprint = $1");
        query.bind(&fingerprint).execute(&mut *self.tx).await?;
        let query = "insert into ach_correction (fingerprint, code, gateway, sealed, intent_id, \
                     at_ms) values ($1, $2, $3, $4, $5, $6)";
        sqlx::query(query)
            .bind(&fingerprint)
            .bind(piece.code.as_str())
            .bind(&intent.gateway)
            .bind(sealed)
            .bind(&intent.id)
            .bind(self.now_ms)
            .execute(&mut *self.tx)
            .await?;
        Ok(Taken::New(intent))
    }

    /// Makes all of it durable.
    pub async fn end(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }

    /// The payment an entry is about: of a file of ours by its trace number, of another gateway by
    /// our confirmation number, where that gateway passes it on.
    async fn of(
        &mut self,
        piece: &Piece,
    ) -> Result<Result<(Intent, Option<Debit>), String>, StoreError> {
        let query = "select ach_entry.*, intent.confirmation from ach_entry \
                     join intent on intent.id = ach_entry.intent_id where trace = $1 \
                     order by ach_entry.created_ms desc limit 1";
        let row = sqlx::query(query).bind(&piece.trace).fetch_optional(&mut *self.tx).await?;
        if let Some(row) = row {
            let debit = debit(&row)?;
            if !piece.name.is_empty() && piece.name != debit.name {
                let (ours, theirs) = (&debit.name, masked(&piece.name));
                return Ok(Err(format!("its trace number is of {ours}, its id of `{theirs}`")));
            }
            let query = sqlx::query("select * from intent where id = $1").bind(&debit.intent_id);
            let (intent, _) = read(&query.fetch_one(&mut *self.tx).await?)?;
            return Ok(Ok((intent, Some(debit))));
        }
        let unknown = || Ok(Err("no debit has its trace number".to_string()));
        if !confirmation::is_valid(&piece.name) {
            return unknown();
        }
        let query = "select * from intent where confirmation = $1 and method = 'bank' \
                     and id not in (select intent_id from ach_entry)";
        let row = sqlx::query(query).bind(&piece.name).fetch_optional(&mut *self.tx).await?;
        let Some(row) = row else { return unknown() };
        let (intent, _) = read(&row)?;
        match piece.last4.as_deref() == Some(intent.last4.as_str()) {
            true => Ok(Ok((intent, None))),
            false => Ok(Err(format!("it is of another account than {}", piece.name))),
        }
    }

    async fn block(&mut self, intent: &Intent, code: Code) -> Result<(), sqlx::Error> {
        let fingerprint = intent.fingerprint.map_or(String::new(), |tag| tag.to_string());
        let mut blocks = Vec::new();
        match code.action() {
            Action::Block if !fingerprint.is_empty() => blocks.push(fingerprint),
            Action::Stop => {
                blocks.push(String::new());
                blocks.extend(Some(fingerprint).filter(|tag| !tag.is_empty()));
            }
            _ => {}
        }
        for fingerprint in blocks {
            let query = "insert into ach_block (biller, account_id, fingerprint, code, \
                         intent_id, at_ms) values ($1, $2, $3, $4, $5, $6) \
                         on conflict (biller, account_id, fingerprint) do nothing";
            sqlx::query(query)
                .bind(&intent.biller)
                .bind(&intent.account_id)
                .bind(fingerprint)
                .bind(code.as_str())
                .bind(&intent.id)
                .bind(self.now_ms)
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }
}

/// The last debit of a payment, with what is sealed of it, when it was returned and by whom made.
async fn latest(
    tx: &mut Transaction<'_, Any>,
    intent_id: &str,
) -> Result<Option<(Debit, String, i64, String)>, StoreError> {
    let query = "select ach_entry.*, intent.confirmation from ach_entry \
                 join intent on intent.id = ach_entry.intent_id where intent_id = $1 \
                 order by attempt desc limit 1";
    let row = sqlx::query(query).bind(intent_id).fetch_optional(&mut **tx).await?;
    let whole = |row: &AnyRow| {
        let (sealed, at_ms) = (row.try_get("sealed")?, row.try_get("returned_ms")?);
        Ok((debit(row)?, sealed, at_ms, row.try_get("gateway")?))
    };
    row.map(|row| whole(&row)).transpose()
}

/// Writes down what has happened already; false if it was written before. Why it cannot have
/// happened, in words for people.
pub(super) async fn put(
    tx: &mut Transaction<'_, Any>,
    change: &Change,
    progress: &Progress,
    now_ms: i64,
) -> Result<Result<bool, String>, StoreError> {
    let there = sqlx::query("select id from change where id = $1").bind(&change.id);
    if there.fetch_optional(&mut **tx).await?.is_some() {
        return Ok(Ok(false));
    }
    let query = sqlx::query("select * from intent where id = $1").bind(&change.intent_id);
    let row = query.fetch_one(&mut **tx).await?;
    let (intent, state): (Intent, State) = read(&row)?;
    let undone = Money::new(row.try_get("undone_minor")?, intent.amount.currency);
    let amount = Some(change.amount);
    if let Err(why) = may_change((&intent, &state), undone, change.act, amount) {
        return Ok(Err(why));
    }
    let query = "insert into change (id, intent_id, act, amount_minor, who, why, created_ms, \
                 state, detail, state_ms, lookups, lookup_ms, file_sequence) \
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 0, 0)";
    sqlx::query(query)
        .bind(&change.id)
        .bind(&change.intent_id)
        .bind(change.act.name())
        .bind(change.amount.minor)
        .bind(&change.who)
        .bind(&change.why)
        .bind(change.created_ms)
        .bind(progress.name())
        // A trace number is fifteen digits, and no card's: the ledger keeps it as it is.
        .bind(progress.detail())
        .bind(now_ms)
        .execute(&mut **tx)
        .await?;
    sqlx::query("update intent set undone_minor = undone_minor + $2 where id = $1")
        .bind(&change.intent_id)
        .bind(change.act.sign() * change.amount.minor)
        .execute(&mut **tx)
        .await?;
    Ok(Ok(true))
}
