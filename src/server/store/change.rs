//! Voids and refunds in the ledger. One at a time for a payment, never more than was taken.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::row::{LOOKUP_EVERY_MS, lookup_wait_ms, move_to, read};
use super::{LOOKUP_FOR_MS, Store, StoreError, pair};
use crate::ledger::change::{Change, Progress, Undo, may_change};
use crate::ledger::journal::{GIVEN_BACK, masked};
use crate::ledger::{Intent, State};
use crate::money::Money;

/// A change that has no definitive answer, and the payment it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenChange {
    pub change: Change,
    pub intent: Intent,
    pub state: State,
    /// Since when its outcome is unknown.
    pub since_ms: i64,
    pub lookups: i64,
}

/// What came of asking for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Durable: the request may leave.
    Stored(Change),
    /// Why not, in words for who asked.
    Refused(String),
}

/// Open changes handed out at once.
const OPEN_MAX: i64 = 100;
/// A change that is `sending` for longer than this has nobody any more who waits for its answer.
const LOST_MS: i64 = 5 * 60_000;

impl Store {
    /// Writes a void or refund down before its request leaves. `amount`: all that is left, unless
    /// given. `waived`: a bill that a person let stand without its fee may go back all the same.
    pub async fn begin_change(
        &self,
        change: Change,
        amount: Option<Money>,
        waived: bool,
    ) -> Result<Begun, StoreError> {
        let mut tx = self.pool.begin().await?;
        let query = sqlx::query("select * from intent where id = $1").bind(&change.intent_id);
        let Some(row) = query.fetch_optional(&mut *tx).await? else {
            return Ok(Begun::Refused("there is no such payment".into()));
        };
        let (intent, state) = read(&row)?;
        let undone = Money::new(row.try_get("undone_minor")?, intent.amount.currency);
        let amount = match may_change((&intent, &state), undone, change.act, amount) {
            Ok(amount) => amount,
            Err(why) => return Ok(Begun::Refused(why)),
        };
        let whole = amount.minor + undone.minor == approved(&row)?;
        if let Some(why) =
            pair::against(&mut tx, &intent, whole && change.act.act().is_some()).await?
        {
            return Ok(Begun::Refused(why));
        }
        if whole && !waived && row.try_get::<String, _>("fee_end")? == pair::STANDS {
            let why = "its fee was waived, so that it stands: see `payments show`; with --waived \
                       it goes back all the same";
            return Ok(Begun::Refused(why.into()));
        }
        let change = Change { amount, ..change };
        let inserted = sqlx::query(INSERT)
            .bind(&change.id)
            .bind(&change.intent_id)
            .bind(change.act.name())
            .bind(amount.minor)
            .bind(masked(&change.who))
            .bind(masked(&change.why))
            .bind(change.created_ms)
            .execute(&mut *tx)
            .await;
        match inserted {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                let why = "another void or refund of it has no answer yet: see `payments show`";
                return Ok(Begun::Refused(why.into()));
            }
            other => other?,
        };
        tx.commit().await?;
        Ok(Begun::Stored(change))
    }

    /// Notes how a change goes on; false if it may not. What took effect counts from here on.
    pub async fn progress(
        &self,
        change: &Change,
        to: &Progress,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let from: Vec<String> = to.predecessors().iter().map(|s| format!("'{s}'")).collect();
        if from.is_empty() {
            return Ok(false);
        }
        let mut tx = self.pool.begin().await?;
        let sql = format!(
            "update change set state = $2, detail = $3, state_ms = $4, lookups = 0, lookup_ms = $5 \
             where id = $1 and state in ({})",
            from.join(", ")
        );
        let moved = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(&change.id)
            .bind(to.name())
            .bind(masked(to.detail()))
            .bind(now_ms)
            .bind(now_ms + lookup_wait_ms(0))
            .execute(&mut *tx)
            .await?;
        if moved.rows_affected() != 1 {
            tx.rollback().await?;
            return Ok(false);
        }
        if to.took_effect() {
            sqlx::query("update intent set undone_minor = undone_minor + $2 where id = $1")
                .bind(&change.intent_id)
                .bind(change.amount.minor)
                .execute(&mut *tx)
                .await?;
            // A payment held for a person is decided by that; another stays what it was.
            let query = "select * from intent where id = $1 and state = 'held'";
            let held = sqlx::query(query).bind(&change.intent_id).fetch_optional(&mut *tx).await?;
            if held.is_some() {
                let to = State::Declined(GIVEN_BACK.into());
                move_to(&mut tx, &change.intent_id, &to, now_ms).await?;
            }
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Voids and refunds of a payment, oldest first, each with its state and since when it is so.
    pub async fn changes(
        &self,
        intent: &Intent,
    ) -> Result<Vec<(Change, Progress, i64)>, StoreError> {
        let query = "select * from change where intent_id = $1 order by created_ms, id";
        let rows = sqlx::query(query).bind(&intent.id).fetch_all(&self.pool).await?;
        let all = rows.iter().map(|row| {
            let (change, progress) = change(row, intent.amount)?;
            Ok((change, progress, row.try_get("state_ms")?))
        });
        all.collect()
    }

    /// Changes whose outcome is to be found out now; those whose process died become unknown.
    pub async fn open_changes(&self, now_ms: i64) -> Result<Vec<OpenChange>, StoreError> {
        let query = "update change set state = 'unknown', state_ms = $2, lookup_ms = $2, \
                     detail = 'nobody waited for the answer' where state = 'sending' and state_ms < $1";
        sqlx::query(query).bind(now_ms - LOST_MS).bind(now_ms).execute(&self.pool).await?;
        let query = "select * from change where state = 'unknown' \
                     and (lookup_ms <= $1 or lookup_ms > $3) order by lookup_ms, id limit $2";
        let query = sqlx::query(query).bind(now_ms).bind(OPEN_MAX);
        let rows = query.bind(now_ms.saturating_add(LOOKUP_EVERY_MS)).fetch_all(&self.pool).await?;
        let mut open = Vec::new();
        for row in &rows {
            let id: String = row.try_get("intent_id")?;
            let Some((intent, state)) = self.intent(&id).await? else { continue };
            let (change, _) = change(row, intent.amount)?;
            let (since_ms, lookups) = (row.try_get("state_ms")?, row.try_get("lookups")?);
            open.push(OpenChange { change, intent, state, since_ms, lookups });
        }
        Ok(open)
    }

    /// Notes that nothing definitive was found out; true when a person must decide now.
    pub async fn defer_change(&self, open: &OpenChange, now_ms: i64) -> Result<bool, StoreError> {
        if now_ms - open.since_ms >= LOOKUP_FOR_MS {
            let manual = Progress::Manual("no answer in 72 hours".into());
            return self.progress(&open.change, &manual, now_ms).await;
        }
        let lookups = open.lookups + 1;
        sqlx::query("update change set lookups = $2, lookup_ms = $3 where id = $1")
            .bind(&open.change.id)
            .bind(lookups)
            .bind(now_ms + lookup_wait_ms(lookups))
            .execute(&self.pool)
            .await?;
        Ok(false)
    }
}

const INSERT: &str = "\
insert into change (id, intent_id, act, amount_minor, who, why, created_ms, state, detail, \
    state_ms, lookups, lookup_ms, file_sequence) \
values ($1, $2, $3, $4, $5, $6, $7, 'sending', '', $7, 0, 0, 0)";

/// What was taken of a payment, minor units.
fn approved(row: &AnyRow) -> Result<i64, sqlx::Error> {
    row.try_get("approved_minor")
}

/// A row of `change`; amounts are in the currency of `like`.
pub(super) fn change(row: &AnyRow, like: Money) -> Result<(Change, Progress), StoreError> {
    let id: String = row.try_get("id")?;
    let foreign = |what: &str| {
        StoreError::Database(format!("change {id} has a {what} this version does not know"))
    };
    let text = |column: &str| row.try_get::<String, _>(column);
    let act = Undo::parse(&text("act")?).ok_or_else(|| foreign("kind"))?;
    let progress = Progress::parse(&text("state")?, &text("detail")?);
    let change = Change {
        id: id.clone(),
        intent_id: text("intent_id")?,
        act,
        amount: Money::new(row.try_get("amount_minor")?, like.currency),
        who: text("who")?,
        why: text("why")?,
        created_ms: row.try_get("created_ms")?,
    };
    Ok((change, progress.ok_or_else(|| foreign("state"))?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{put, store};
    use super::*;
    use crate::ledger::sample;

    const NOW: i64 = 1_780_272_000_000;

    fn asked(n: u64, intent: &Intent, act: Undo) -> Change {
        Change {
            id: format!("change-{n}"),
            intent_id: intent.id.clone(),
            act,
            amount: Money::usd(0),
            who: "ann".into(),
            why: "paid twice".into(),
            created_ms: NOW,
        }
    }

    fn stored(begun: Begun) -> Change {
        let Begun::Stored(change) = begun else { panic!("{begun:?}") };
        change
    }

    #[tokio::test]
    async fn one_change_at_a_time_and_never_more_than_was_taken() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let approved = State::Approved(sample::approval());
        let intent = put(&store, 1, &[State::Sending, approved]).await;
        let begin = async |n, act, amount: Option<i64>| {
            let amount = amount.map(Money::usd);
            store.begin_change(asked(n, &intent, act), amount, false).await.unwrap()
        };
        let first = stored(begin(1, Undo::Refund, Some(20_000)).await);
        let Begun::Refused(why) = begin(2, Undo::Refund, None).await else { panic!("two") };
        assert!(why.contains("no answer yet"), "{why}");
        let progress = async |change: &Change, to: Progress| {
            store.progress(change, &to, NOW + 1).await.unwrap()
        };
        assert!(progress(&first, Progress::Unknown("?".into())).await);
        assert!(matches!(begin(2, Undo::Void, None).await, Begun::Refused(_)));
        assert!(progress(&first, Progress::Done("r1".into())).await);
        // The same news twice counts once.
        assert!(!progress(&first, Progress::Done("r1".into())).await);
        assert!(!progress(&first, Progress::Refused("no".into())).await);
        let rest = stored(begin(2, Undo::Refund, None).await);
        assert_eq!(rest.amount, Money::usd(12_372));
        assert!(progress(&rest, Progress::Refused("too early".into())).await);
        let rest = stored(begin(3, Undo::Refund, None).await);
        assert!(progress(&rest, Progress::Accepted("r3".into())).await);
        assert!(matches!(begin(4, Undo::Refund, None).await, Begun::Refused(_)));
        let all = store.changes(&intent).await.unwrap();
        let names: Vec<_> = all.iter().map(|(change, to, _)| (&*change.id, to.name())).collect();
        assert_eq!(
            names,
            [("change-1", "done"), ("change-2", "refused"), ("change-3", "accepted")]
        );
        assert_eq!((&*all[0].0.who, &*all[0].0.why), ("ann", "paid twice"));
        assert_eq!(store.intent(&intent.id).await.unwrap().unwrap().1.name(), "approved");
    }

    #[tokio::test]
    async fn what_was_given_back_is_no_payment_to_ask_about() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let intent = put(&store, 1, &[State::Sending, State::Approved(sample::approval())]).await;
        let screening = crate::ledger::Screening {
            biller: intent.biller.clone(),
            account_id: intent.account_id.clone(),
            amount: intent.amount,
            fingerprint: None,
            since_ms: 0,
            origin: crate::ledger::Origin::default(),
            limits: crate::ledger::velocity::Limits::default(),
            at_ms: NOW,
        };
        assert!(store.screen(&screening).await.unwrap().earlier.is_some());
        let change =
            stored(store.begin_change(asked(1, &intent, Undo::Void), None, false).await.unwrap());
        assert!(store.screen(&screening).await.unwrap().earlier.is_some());
        store.progress(&change, &Progress::Done("v".into()), NOW).await.unwrap();
        assert_eq!(store.screen(&screening).await.unwrap().earlier, None);
    }

    #[tokio::test]
    async fn a_void_decides_a_payment_that_was_held() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let part =
            crate::gateway::Approval { partial: Some(Money::usd(5_000)), ..sample::approval() };
        let held = State::Held("part".into(), Some(part));
        let intent = put(&store, 1, &[State::Sending, held]).await;
        let change =
            stored(store.begin_change(asked(1, &intent, Undo::Void), None, false).await.unwrap());
        assert_eq!(change.amount, Money::usd(5_000));
        store.progress(&change, &Progress::Done("v".into()), NOW).await.unwrap();
        let state = store.intent(&intent.id).await.unwrap().unwrap().1;
        assert_eq!(state, State::Declined("given back".into()));
    }

    #[tokio::test]
    async fn a_change_nobody_waits_for_is_found_out() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let intent = put(&store, 1, &[State::Sending, State::Approved(sample::approval())]).await;
        stored(store.begin_change(asked(1, &intent, Undo::Void), None, false).await.unwrap());
        assert_eq!(store.open_changes(NOW + LOST_MS).await.unwrap(), []);
        let later = NOW + LOST_MS + 1;
        let open = store.open_changes(later).await.unwrap();
        assert_eq!(open.len(), 1);
        assert!(!store.defer_change(&open[0], later).await.unwrap());
        assert_eq!(store.open_changes(later).await.unwrap(), []);
        assert!(store.defer_change(&open[0], later + LOOKUP_FOR_MS).await.unwrap());
        assert_eq!(store.changes(&intent).await.unwrap()[0].1.name(), "manual");
    }
}
