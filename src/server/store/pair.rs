//! Bills and their fees that are charges of their own: which of them have no common end yet.

use sqlx::{Any, Row as _, Transaction};

use super::change::{Begun, change};
use super::row::{add_step, read};
use super::{LOOKUP_FOR_MS, Store, StoreError};
use crate::ledger::journal::masked;
use crate::ledger::split::{Undone, may_give_back, pairing};
use crate::ledger::{Change, Intent, Pairing, Progress, Recorded, Split, State};
use crate::money::{Currency, Money};

/// A bill that was charged, and its fee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub bill: Intent,
    pub bill_state: State,
    pub fee: Intent,
    pub fee_state: State,
    /// Changes to the bill, oldest first, and since when each is what it is.
    pub changes: Vec<(Change, Progress, i64)>,
    /// What the ledger says of them: due, charged, waived, stands, given_back or person.
    pub end: String,
}

/// What is to be done about a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    /// Its end is known: its name in the ledger.
    Note(&'static str),
    /// The bill is to be voided.
    Void,
}

/// Pairs handed out at once.
const PAIRS_MAX: i64 = 500;
/// A pair that has changed less long ago than this has a call that sees to it.
pub const LEFT_AFTER_MS: i64 = 60_000;
/// The first wait after a void that reached nobody; each is twice as long, an hour at most.
const AGAIN_MS: i64 = 60_000;
const AGAIN_MAX_MS: i64 = 3_600_000;

impl Pair {
    pub fn pairing(&self) -> Pairing {
        let Split::Bill { failure, .. } = self.bill.split else { return Pairing::Neither };
        pairing(&self.bill_state, failure, &self.fee_state, self.undone())
    }

    fn undone(&self) -> Undone {
        let effective = self.changes.iter().filter(|(_, progress, _)| progress.took_effect());
        Undone {
            minor: effective.map(|(change, ..)| change.act.sign() * change.amount.minor).sum(),
            open: self.changes.iter().any(|(_, progress, _)| progress.is_open()),
        }
    }

    /// What is to be done now that no call sees to it.
    pub fn due(&self, now_ms: i64) -> Due {
        match self.pairing() {
            Pairing::Both => Due::Note("charged"),
            Pairing::Waived => Due::Note("waived"),
            Pairing::GivenBack if !self.undone().open => Due::Note("given_back"),
            Pairing::ToVoid => self.void_due(now_ms),
            Pairing::Neither | Pairing::Open | Pairing::GivenBack => Due::Nothing,
        }
    }

    fn void_due(&self, now_ms: i64) -> Due {
        match self.changes.last() {
            None => Due::Void,
            Some((_, Progress::NotSent(_), at_ms)) => {
                let tries = self.changes.len().min(10);
                let wait = (AGAIN_MS << (tries - 1)).min(AGAIN_MAX_MS);
                match now_ms - self.bill.created_ms {
                    age if age >= LOOKUP_FOR_MS => Due::Note(PERSON),
                    _ if now_ms - at_ms >= wait => Due::Void,
                    _ => Due::Nothing,
                }
            }
            Some(_) => Due::Note(PERSON),
        }
    }
}

/// A person must decide what becomes of the bill.
pub const PERSON: &str = "person";
/// A person let the bill stand without its fee.
pub(super) const STANDS: &str = "stands";

impl Store {
    /// Bills that were charged, whose fee has an outcome that nobody has acted upon.
    pub async fn pairs_due(&self, now_ms: i64) -> Result<Vec<Pair>, StoreError> {
        // In the words of its index.
        let query = "select bill.id from intent as bill join intent as fee on fee.fee_of = bill.id \
                     where bill.fee_end = 'due' and bill.state in ('approved', 'posted') \
                     and fee.fee_of <> '' \
                     and fee.state in ('approved', 'posted', 'declined', 'not_charged') \
                     and (select max(at_ms) from step where intent_id in (bill.id, fee.id)) <= $1 \
                     order by bill.created_ms limit $2";
        let query = sqlx::query_scalar(query).bind(now_ms - LEFT_AFTER_MS).bind(PAIRS_MAX);
        let ids: Vec<String> = query.fetch_all(&self.pool).await?;
        let mut pairs = Vec::new();
        for id in ids {
            pairs.extend(self.pair(&id).await?);
        }
        Ok(pairs)
    }

    /// A bill and its fee; `None` if the fee of this intent is no charge of its own.
    pub async fn pair(&self, bill: &str) -> Result<Option<Pair>, StoreError> {
        let query = sqlx::query("select * from intent where id = $1").bind(bill);
        let Some(row) = query.fetch_optional(&self.pool).await? else { return Ok(None) };
        let end = row.try_get("fee_end")?;
        let (bill, bill_state) = read(&row)?;
        let query = sqlx::query("select * from intent where fee_of = $1 and fee_of <> ''");
        let row = query.bind(&bill.id).fetch_optional(&self.pool).await?;
        let Some((fee, fee_state)) = row.map(|row| read(&row)).transpose()? else {
            return Ok(None);
        };
        let changes = self.changes(&bill).await?;
        Ok(Some(Pair { bill, bill_state, fee, fee_state, changes, end }))
    }

    /// Notes how a pair has ended.
    pub async fn end_pair(&self, bill: &Intent, end: &str) -> Result<(), StoreError> {
        let query = "update intent set fee_end = $2 where id = $1 and fee_end = 'due'";
        sqlx::query(query).bind(&bill.id).bind(end).execute(&self.pool).await?;
        Ok(())
    }

    /// A person lets a bill stand without its fee: from here on it is not voided for that, unless
    /// somebody says that they know. `Err` inside: why not, in words for who asked.
    pub async fn waive_fee(
        &self,
        bill: &Intent,
        note: &str,
        now_ms: i64,
    ) -> Result<Result<(), String>, StoreError> {
        let Some(pair) = self.pair(&bill.id).await? else {
            return Ok(Err("its fee is no charge of its own".into()));
        };
        match pair.pairing() {
            Pairing::ToVoid => {}
            Pairing::Waived => return Ok(Err("its fee is waived already".into())),
            Pairing::Both => return Ok(Err("its fee was charged: void or refund that".into())),
            Pairing::GivenBack => return Ok(Err("it was given back, or is being".into())),
            Pairing::Neither => return Ok(Err("it was not charged".into())),
            Pairing::Open => return Ok(Err("it or its fee has no outcome yet".into())),
        }
        let mut tx = self.pool.begin().await?;
        let query = "update intent set fee_failure = 'waive', fee_end = $2 \
                     where id = $1 and fee_failure = 'void' and undone_minor = 0 \
                     and not exists (select 1 from change where intent_id = $1 \
                         and state in ('sending', 'unknown', 'manual'))";
        let query = sqlx::query(query).bind(&bill.id).bind(STANDS);
        if query.execute(&mut *tx).await?.rows_affected() != 1 {
            let why = "somebody voids it, or has waived its fee, meanwhile: see `payments show`";
            return Ok(Err(why.into()));
        }
        let query = sqlx::query("select * from intent where id = $1").bind(&bill.id);
        let (_, state) = read(&query.fetch_one(&mut *tx).await?)?;
        add_step(&mut tx, &bill.id, &state, &masked(note), now_ms).await?;
        tx.commit().await?;
        Ok(Ok(()))
    }

    /// [`crate::ledger::Entry::Undo`].
    pub(super) async fn record_undo(&self, change: Change) -> Recorded {
        match self.begin_change(change, None, false).await {
            Ok(Begun::Stored(_)) => Recorded::Stored,
            Ok(Begun::Refused(_)) => Recorded::Illegal,
            Err(error) => Recorded::Failed(error.to_string()),
        }
    }

    async fn stored_change(&self, id: &str) -> Result<Option<Change>, StoreError> {
        let query = "select change.*, intent.currency from change \
                     join intent on intent.id = change.intent_id where change.id = $1";
        let row = sqlx::query(query).bind(id).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(None) };
        let currency: String = row.try_get("currency")?;
        let currency = Currency::from_code(&currency)
            .ok_or_else(|| StoreError::Database(format!("change {id} has an unknown currency")))?;
        Ok(Some(change(&row, Money::new(0, currency))?.0))
    }

    /// [`crate::ledger::Entry::Undone`].
    pub(super) async fn record_undone(
        &self,
        undone: &Change,
        to: &Progress,
        now_ms: i64,
    ) -> Recorded {
        let done = match self.stored_change(&undone.id).await {
            Ok(Some(change)) => self.progress(&change, to, now_ms).await,
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        };
        match done {
            Ok(true) => Recorded::Stored,
            Ok(false) => Recorded::Illegal,
            Err(error) => Recorded::Failed(error.to_string()),
        }
    }
}

/// Why a bill may not be given back whole: its fee stands, or is on its way.
pub(super) async fn against(
    tx: &mut Transaction<'_, Any>,
    bill: &Intent,
    whole: bool,
) -> Result<Option<String>, StoreError> {
    if !whole {
        return Ok(None);
    }
    let query = sqlx::query("select * from intent where fee_of = $1 and fee_of <> ''");
    let Some(row) = query.bind(&bill.id).fetch_optional(&mut **tx).await? else { return Ok(None) };
    let fee = read(&row)?;
    let undone = Undone { minor: row.try_get("undone_minor")?, open: false };
    Ok(may_give_back((&fee.0, &fee.1), undone).err())
}

#[cfg(test)]
mod tests {
    use super::super::tests::store;
    use super::*;
    use crate::ledger::{Entry, FeeFailure, Undo, sample};

    const NOW: i64 = 1_780_272_000_000;

    /// A bill that was charged, and its fee that was not.
    async fn to_void(store: &Store) -> Intent {
        let split = Split::Bill { fee: Money::usd(200), failure: FeeFailure::Void };
        let none = Money::usd(0);
        let bill = Intent { fee: none, split, ..sample::intent(1, "A1") };
        let split = Split::FeeOf(bill.id.clone());
        let fee = Intent { amount: none, split, ..sample::intent(2, "A1") };
        let go = |intent: &Intent, to| Entry::Move { id: intent.id.clone(), to };
        for entry in [
            Entry::Consent(Box::new(bill.clone())),
            Entry::Consent(Box::new(fee.clone())),
            go(&bill, State::Sending),
            go(&bill, State::Approved(sample::approval())),
            go(&fee, State::Sending),
            go(&fee, State::Declined("no".into())),
        ] {
            assert_eq!(store.record(entry.clone(), NOW).await, Recorded::Stored, "{entry:?}");
        }
        bill
    }

    fn wish(bill: &Intent, n: u64, act: Undo) -> Change {
        Change {
            id: format!("change-{n}"),
            intent_id: bill.id.clone(),
            act,
            amount: bill.amount,
            who: "bob".into(),
            why: "asked".into(),
            created_ms: NOW,
        }
    }

    /// What two operators do, one step at a time.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Act {
        Waive,
        Begin(Undo),
        Goes(&'static str),
    }

    #[tokio::test]
    async fn a_bill_is_voided_or_its_fee_is_waived() {
        use Act::{Begin, Goes, Waive};
        let (void, refund) = (Undo::Void, Undo::Refund);
        for (steps, want) in [
            (vec![Waive, Begin(void)], "waived, it stands"),
            (vec![Waive, Begin(refund)], "waived, it stands"),
            (vec![Waive, Waive], "waived, waived already"),
            (vec![Begin(void), Waive, Goes("done")], "begun, given back, gone"),
            (
                vec![Begin(void), Goes("unknown"), Waive, Goes("done")],
                "begun, gone, given back, gone",
            ),
            (vec![Begin(void), Goes("done"), Waive], "begun, gone, given back"),
            (vec![Begin(refund), Waive, Goes("done")], "begun, given back, gone"),
            // What came to nothing leaves it open.
            (
                vec![Begin(void), Goes("refused"), Waive, Begin(refund)],
                "begun, gone, waived, it stands",
            ),
            (vec![Begin(void), Waive, Goes("not_sent"), Waive], "begun, given back, gone, waived"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let store = store(&directory).await;
            let bill = to_void(&store).await;
            let mut told = Vec::new();
            let mut changes = Vec::new();
            for step in &steps {
                told.push(match step {
                    Waive => match store.waive_fee(&bill, "by ann: kind", NOW).await.unwrap() {
                        Ok(()) => "waived",
                        Err(why) if why.contains("given back, or is being") => "given back",
                        Err(why) if why.contains("waived already") => "waived already",
                        Err(why) => panic!("{why}"),
                    },
                    Begin(act) => {
                        let n = changes.len() as u64;
                        match store.begin_change(wish(&bill, n, *act), None, false).await.unwrap() {
                            Begun::Stored(change) => {
                                changes.push(change);
                                "begun"
                            }
                            Begun::Refused(why) if why.contains("so that it stands") => "it stands",
                            Begun::Refused(why) => panic!("{why}"),
                        }
                    }
                    Goes(name) => {
                        let to = Progress::parse(name, "r").unwrap();
                        let change = changes.last().unwrap();
                        assert!(store.progress(change, &to, NOW).await.unwrap(), "{steps:?}");
                        "gone"
                    }
                });
            }
            assert_eq!(told.join(", "), want, "{steps:?}");
        }
    }

    #[tokio::test]
    async fn the_server_voids_nothing_whose_fee_was_waived_and_a_person_may() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let bill = to_void(&store).await;
        store.waive_fee(&bill, "by ann: kind", NOW).await.unwrap().unwrap();
        assert_eq!(store.pairs_due(NOW + LEFT_AFTER_MS).await.unwrap(), []);
        // As a call does that had seen the fee refused before.
        let undo = Entry::Undo(Box::new(wish(&bill, 1, Undo::Void)));
        assert_eq!(store.record(undo, NOW).await, Recorded::Illegal);
        let part = Some(Money::usd(100));
        let begun = store.begin_change(wish(&bill, 2, Undo::Refund), part, false).await.unwrap();
        let Begun::Stored(part) = begun else { panic!("a part is no void: {begun:?}") };
        assert!(store.progress(&part, &Progress::Refused("no".into()), NOW).await.unwrap());
        let begun = store.begin_change(wish(&bill, 3, Undo::Void), None, true).await.unwrap();
        assert!(matches!(begun, Begun::Stored(_)), "{begun:?}");
    }

    /// At once, on connections of their own.
    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn of_two_operators_at_once_one_wins() {
        let mut waived = 0;
        for round in 0..24 {
            let directory = tempfile::tempdir().unwrap();
            let (mine, yours) = (store(&directory).await, store(&directory).await);
            let bill = to_void(&mine).await;
            let (theirs, other) = (bill.clone(), yours.clone());
            let waive = tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_micros(round * 50)).await;
                other.waive_fee(&theirs, "by ann: kind", NOW).await
            });
            let begun = mine.begin_change(wish(&bill, 1, Undo::Void), None, false).await;
            // Whoever finds the ledger busy is told so, and has done nothing.
            let voids = matches!(begun, Ok(Begun::Stored(_)));
            let waives = matches!(waive.await.unwrap(), Ok(Ok(())));
            assert!(!(voids && waives), "round {round}: {begun:?}");
            let pair = yours.pair(&bill.id).await.unwrap().unwrap();
            assert_eq!(pair.pairing() == Pairing::Waived, waives, "round {round}");
            assert_eq!(pair.undone().open, voids, "round {round}");
            waived += u32::from(waives);
        }
        println!("{waived} of 24 were waived");
    }
}
