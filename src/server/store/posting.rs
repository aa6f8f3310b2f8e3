//! Reconciliation files out of the ledger. Sequence and rows are fixed before a byte is written, so
//! that a crash at any point leads to the same file again; callers who pay wait for none of it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sqlx::{Any, Row as _, Transaction};

use super::change::change;
use super::row::read;
use super::{Store, StoreError};
use crate::ledger::reconcile::{self, Posting, Row, Status};
use crate::money::Money;

/// More rows than this go into the next file.
const ROWS_MAX: i64 = 50_000;
/// Rows that are written at a time: who pays meanwhile waits for no more than these.
const CHUNK: i64 = 50;

impl Store {
    /// Writes the biller's next reconciliation file into `directory`, of one currency, and marks
    /// what it holds as posted; `None` if nothing became final since the last one. An unfinished
    /// file is finished first. Beside the file a `<name>.done` says that it is whole.
    pub async fn post(
        &self,
        directory: &Path,
        biller: &str,
        now_ms: i64,
    ) -> Result<Option<PathBuf>, StoreError> {
        let _one_at_a_time = self.posting.lock().await;
        let Some(posting) = self.fix(biller, now_ms).await? else { return Ok(None) };
        let path = {
            let (directory, posting) = (directory.to_path_buf(), posting.clone());
            tokio::task::spawn_blocking(move || deliver(&directory, &posting))
                .await
                .map_err(|error| StoreError::File(format!("writing panicked: {error}")))??
        };
        self.finish(&posting, now_ms).await?;
        Ok(Some(path))
    }

    /// The file that was begun and not finished, or a new one of everything final and in no file.
    pub(super) async fn fix(
        &self,
        biller: &str,
        now_ms: i64,
    ) -> Result<Option<Posting>, StoreError> {
        let query = "select sequence, created_ms from posting \
                     where biller = $1 and written_ms = 0 order by sequence";
        let begun = sqlx::query(query).bind(biller).fetch_optional(&self.keeper).await?;
        let (sequence, created_ms) = match begun {
            Some(row) => (row.try_get(0)?, row.try_get(1)?),
            None => match self.take(biller, now_ms).await? {
                Some(sequence) => (sequence, now_ms),
                None => return Ok(None),
            },
        };
        // Nothing comes into it and nothing leaves it from here on.
        let rows = self.rows(biller, sequence).await?;
        let sequence = sequence.unsigned_abs();
        Ok(Some(Posting { biller: biller.into(), sequence, created_ms, rows }))
    }

    /// Puts what is final and in no file into a new one, some at a time: of the oldest one's
    /// currency. Its number; `None`: there is nothing.
    ///
    /// After a crash on the way the file is what was put into it by then, and the rest is for the
    /// next one.
    async fn take(&self, biller: &str, now_ms: i64) -> Result<Option<i64>, StoreError> {
        let currency = sqlx::query_scalar(OLDEST).bind(biller).fetch_optional(&self.keeper).await?;
        let Some(currency): Option<String> = currency else { return Ok(None) };
        let mut file = None;
        let mut left = ROWS_MAX;
        for query in [TAKE, TAKE_CHANGES] {
            loop {
                let most = left.min(CHUNK);
                let mut tx = self.pool.begin().await?;
                let sequence = match file {
                    Some(sequence) => sequence,
                    None => begin(&mut tx, biller, now_ms).await?,
                };
                let query = sqlx::query(query).bind(biller).bind(sequence).bind(&currency);
                let taken = query.bind(most).execute(&mut *tx).await?.rows_affected();
                if taken == 0 {
                    tx.rollback().await?;
                    break;
                }
                tx.commit().await?;
                file = Some(sequence);
                let taken = i64::try_from(taken).unwrap_or(most);
                left -= taken;
                if taken < most || left == 0 {
                    break;
                }
            }
        }
        Ok(file)
    }

    /// What file `sequence` holds.
    async fn rows(&self, biller: &str, sequence: i64) -> Result<Vec<Row>, StoreError> {
        let query = "select * from intent where biller = $1 and file_sequence = $2 \
                     order by created_ms, id";
        let query = sqlx::query(query).bind(biller).bind(sequence);
        let mut rows = Vec::new();
        for row in query.fetch_all(&self.keeper).await? {
            let (intent, state) = read(&row)?;
            rows.extend(Row::of(&intent, &state));
        }
        let query = "select change.* from change join intent on intent.id = change.intent_id \
                     where intent.biller = $1 and change.file_sequence = $2 \
                     order by change.created_ms, change.id";
        let query = sqlx::query(query).bind(biller).bind(sequence);
        for row in query.fetch_all(&self.keeper).await? {
            let id: String = row.try_get("intent_id")?;
            let query = sqlx::query("select * from intent where id = $1").bind(id);
            let (intent, _) = read(&query.fetch_one(&self.keeper).await?)?;
            let (change, progress) = change(&row, intent.amount)?;
            let query = "select coalesce(sum(case when act = 'represent' \
                             then -amount_minor else amount_minor end), 0) from change \
                         where intent_id = $1 and state in ('done', 'accepted') \
                         and (created_ms < $2 or (created_ms = $2 and id < $3))";
            let query = sqlx::query_scalar(query).bind(&intent.id).bind(change.created_ms);
            let before: i64 = query.bind(&change.id).fetch_one(&self.keeper).await?;
            let before = Money::new(before, intent.amount.currency);
            rows.extend(Row::of_change(&intent, &change, &progress, before));
        }
        Ok(rows)
    }

    /// Marks what a delivered file holds, some at a time.
    pub(super) async fn finish(&self, posting: &Posting, now_ms: i64) -> Result<(), StoreError> {
        let sequence = i64::try_from(posting.sequence).unwrap_or(i64::MAX);
        let approved = posting.rows.iter().filter(|row| row.status == Status::Approved);
        let approved: Vec<&str> = approved.map(|row| row.intent.id.as_str()).collect();
        let mut chunks = approved.chunks(CHUNK as usize).peekable();
        loop {
            let ids = serde_json::json!(chunks.next().unwrap_or_default()).to_string();
            let mut tx = self.pool.begin().await?;
            sqlx::query(POSTED_STEPS).bind(&ids).bind(now_ms).execute(&mut *tx).await?;
            sqlx::query(POSTED).bind(&ids).execute(&mut *tx).await?;
            let last = chunks.peek().is_none();
            if last {
                let query = "update posting set written_ms = $3 \
                             where biller = $1 and sequence = $2";
                let query = sqlx::query(query).bind(&posting.biller).bind(sequence).bind(now_ms);
                query.execute(&mut *tx).await?;
            }
            tx.commit().await?;
            if last {
                return Ok(());
            }
        }
    }
}

/// Begins the biller's next file.
async fn begin(
    tx: &mut Transaction<'_, Any>,
    biller: &str,
    now_ms: i64,
) -> Result<i64, sqlx::Error> {
    let query = "select coalesce(max(sequence), 0) + 1 from posting where biller = $1";
    let sequence = sqlx::query_scalar(query).bind(biller).fetch_one(&mut **tx).await?;
    let query = "insert into posting (biller, sequence, created_ms, written_ms) \
                 values ($1, $2, $3, 0)";
    let query = sqlx::query(query).bind(biller).bind(sequence).bind(now_ms);
    query.execute(&mut **tx).await?;
    Ok(sequence)
}

/// What is not posted yet of a list of ids.
const POSTED_STEPS: &str = "\
insert into step (intent_id, position, state, detail, at_ms) \
select id, (select coalesce(max(position), 0) + 1 from step where intent_id = intent.id), \
    'posted', '', $2 from intent \
where id in (select value from json_each($1)) and state = 'approved'";

const POSTED: &str = "\
update intent set state = 'posted' \
where id in (select value from json_each($1)) and state = 'approved'";

/// Currency of the oldest payment, or change to one that is in a file, that is in none. The biller
/// is told of no verification.
const OLDEST: &str = "\
select currency from ( \
    select currency, created_ms from intent where biller = $1 and file_sequence = 0 \
        and state in ('approved', 'posted', 'declined', 'not_charged') \
        and fee_kind <> 'verification' \
    union all \
    select intent.currency, change.created_ms from change \
        join intent on intent.id = change.intent_id \
        where intent.biller = $1 and change.file_sequence = 0 \
        and change.state in ('done', 'accepted') and intent.state = 'posted' \
) as open order by created_ms limit 1";

const TAKE: &str = "\
update intent set file_sequence = $2 where id in ( \
    select id from intent where biller = $1 and file_sequence = 0 \
        and state in ('approved', 'posted', 'declined', 'not_charged') and currency = $3 \
        and fee_kind <> 'verification' \
    order by created_ms, id limit $4)";

/// Changes to payments that are in a file, this one or an earlier one.
const TAKE_CHANGES: &str = "\
update change set file_sequence = $2 where id in ( \
    select change.id from change join intent on intent.id = change.intent_id \
    where intent.biller = $1 and change.file_sequence = 0 \
        and change.state in ('done', 'accepted') and intent.currency = $3 \
        and intent.file_sequence > 0 and intent.state in ('approved', 'posted') \
    order by change.created_ms, change.id limit $4)";

/// Writes the file so that it is there whole or not at all. What stands there already with the
/// same bytes is left alone; anything else under its name is never overwritten.
pub(super) fn deliver(directory: &Path, posting: &Posting) -> Result<PathBuf, StoreError> {
    let name = reconcile::file_name(&posting.biller, posting.sequence, posting.created_ms);
    let name = name.ok_or_else(|| {
        let biller = &posting.biller;
        StoreError::File(format!("the biller `{biller}` needs a name of letters, digits, - and _"))
    })?;
    let path = directory.join(&name);
    let bytes = reconcile::write(posting);
    if fs::read(&path).is_ok_and(|present| present != bytes) {
        let path = path.display();
        return Err(StoreError::File(format!("{path} exists with other content; move it away")));
    }
    write_whole(directory, &name, &bytes).map_err(|error| {
        let directory = directory.display();
        StoreError::File(format!("cannot write to {directory}: {error}; make it writable for us"))
    })?;
    Ok(path)
}

fn write_whole(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let temporary = directory.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    sync_directory(directory)?;
    File::create(directory.join(format!("{name}.done")))?.sync_all()?;
    sync_directory(directory)
}

/// Makes a rename in it survive a power cut.
fn sync_directory(directory: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(directory)?.sync_all(),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::super::change::Begun;
    use super::super::tests::{put, store};
    use super::*;
    use crate::ledger::State;
    use crate::ledger::sample;
    use crate::ledger::{Change, Progress, Undo};

    /// 2026-06-01T00:00:00Z
    const NOW: i64 = 1_780_272_000_000;
    const BILLER: &str = "acme-water";

    async fn filled(directory: &tempfile::TempDir) -> Store {
        let store = store(directory).await;
        let approved = State::Approved(sample::approval());
        put(&store, 1, &[State::Sending, approved.clone()]).await;
        put(&store, 2, &[State::Sending, State::Declined("no".into())]).await;
        put(&store, 3, &[State::Sending, State::Unknown("?".into())]).await;
        put(&store, 4, &[State::NotCharged("hung up".into())]).await;
        put(&store, 5, &[State::Sending, approved]).await;
        store
    }

    fn files(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_became_final_is_posted_once() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let store = filled(&directory).await;
        let path = store.post(&out, BILLER, NOW).await.unwrap().unwrap();
        let name = "payments-acme-water-20260601-000001.csv";
        assert_eq!(path, out.join(name));
        assert_eq!(files(&out), [name.to_string(), format!("{name}.done")]);
        let posting = reconcile::read(&fs::read(&path).unwrap()).unwrap();
        let rows: Vec<_> =
            posting.rows.iter().map(|row| (row.intent.id.as_str(), row.status)).collect();
        assert_eq!(
            rows,
            [
                ("intent-1", Status::Approved),
                ("intent-2", Status::Declined),
                ("intent-4", Status::NotCharged),
                ("intent-5", Status::Approved)
            ]
        );
        let received: i64 = posting.rows.iter().filter_map(Row::received).map(|m| m.minor).sum();
        assert_eq!(Money::usd(received), Money::usd(2 * 32_372));
        let states: Vec<_> =
            store.intents().await.unwrap().iter().map(|(_, state)| state.name()).collect();
        assert_eq!(states, ["posted", "declined", "unknown", "not_charged", "posted"]);
        assert_eq!(store.post(&out, BILLER, NOW + 1).await.unwrap(), None);
        assert_eq!(store.post(&out, "other", NOW + 1).await.unwrap(), None);

        // The unknown one is settled later: a second file, next number, that one row.
        let to = State::Approved(sample::approval());
        store.record(crate::ledger::Entry::Move { id: "intent-3".into(), to }, NOW).await;
        let path = store.post(&out, BILLER, NOW + 86_400_000).await.unwrap().unwrap();
        assert!(path.ends_with("payments-acme-water-20260602-000002.csv"), "{path:?}");
        let posting = reconcile::read(&fs::read(&path).unwrap()).unwrap();
        assert_eq!((posting.sequence, posting.rows.len()), (2, 1));
    }

    #[tokio::test]
    async fn what_was_given_back_is_posted_after_what_was_received() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let store = filled(&directory).await;
        let undo = async |n: u64, act, minor, at_ms| {
            let change = Change {
                id: format!("change-{n}"),
                intent_id: format!("intent-{n}"),
                act,
                amount: Money::usd(0),
                who: "ann".into(),
                why: "asked".into(),
                created_ms: at_ms,
            };
            let begun = store.begin_change(change, Some(Money::usd(minor)), false).await.unwrap();
            let Begun::Stored(change) = begun else { panic!("{begun:?}") };
            let done = Progress::Done(format!("undo_{n}"));
            assert!(store.progress(&change, &done, at_ms).await.unwrap());
        };
        let posted = async |at_ms| {
            let path = store.post(&out, BILLER, at_ms).await.unwrap()?;
            let posting = reconcile::read(&fs::read(&path).unwrap()).unwrap();
            let row = |row: &Row| format!("{} {}", row.intent.id, row.status.name());
            Some(posting.rows.iter().map(row).collect::<Vec<_>>())
        };
        // Voided before it was in any file: both rows, in this order.
        undo(1, Undo::Void, 32_372, NOW).await;
        let first = posted(NOW).await.unwrap();
        assert_eq!((&*first[0], &*first[4]), ("intent-1 approved", "intent-1 voided"));
        assert_eq!(posted(NOW + 1).await, None);
        undo(5, Undo::Refund, 100, NOW + 2).await;
        assert_eq!(posted(NOW + 3).await, Some(vec!["intent-5 refunded".to_string()]));
        assert_eq!(posted(NOW + 4).await, None);
    }

    #[tokio::test]
    async fn a_crash_at_any_point_leads_to_the_same_bytes() {
        let mut seen = Vec::new();
        for crash_after in ["nothing", "fix", "tmp", "rename", "deliver"] {
            let directory = tempfile::tempdir().unwrap();
            let out = directory.path().join("out");
            let first = filled(&directory).await;
            fs::create_dir_all(&out).unwrap();
            if crash_after != "nothing" {
                let posting = first.fix(BILLER, NOW).await.unwrap().unwrap();
                let bytes = reconcile::write(&posting);
                let name = reconcile::file_name(BILLER, 1, NOW).unwrap();
                match crash_after {
                    "tmp" => fs::write(out.join(format!("{name}.tmp")), &bytes[..10]).unwrap(),
                    "rename" => fs::write(out.join(&name), &bytes).unwrap(),
                    "deliver" => drop(deliver(&out, &posting).unwrap()),
                    _ => {}
                }
                // Became final after the rows were fixed: must wait for the next file.
                let to = State::Approved(sample::approval());
                first.record(crate::ledger::Entry::Move { id: "intent-3".into(), to }, NOW).await;
            }
            std::mem::forget(first);
            let second = store(&directory).await;
            // A day later, but the file keeps the day it was begun on.
            let later = if crash_after == "nothing" { NOW } else { NOW + 86_400_000 };
            let path = second.post(&out, BILLER, later).await.unwrap().unwrap();
            seen.push((path.file_name().unwrap().to_owned(), fs::read(&path).unwrap()));
            assert_eq!(files(&out).len(), 2, "{crash_after}: {:?}", files(&out));
            let posted = second.intents().await.unwrap();
            let posted = posted.iter().filter(|(_, state)| state.name() == "posted").count();
            assert_eq!(posted, 2, "{crash_after}");
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    }

    /// Drops the work after so many steps of it, as a crash does; whether it was done by then.
    async fn done_in<T>(steps: usize, work: impl Future<Output = T>) -> bool {
        let mut work = std::pin::pin!(work);
        let mut left = steps;
        let step = move |context: &mut std::task::Context<'_>| {
            let Some(less) = left.checked_sub(1) else { return Poll::Ready(false) };
            left = less;
            work.as_mut().poll(context).map(|_| true)
        };
        std::future::poll_fn(step).await
    }

    #[tokio::test]
    async fn a_crash_among_many_rows_leaves_none_out_and_none_twice() {
        const COUNT: u64 = 2 * CHUNK as u64 + 7;
        let filled = tempfile::tempdir().unwrap();
        let whole = store(&filled).await;
        for n in 1..=COUNT {
            put(&whole, n, &[State::Sending, State::Approved(sample::approval())]).await;
        }
        whole.checkpoint().await.unwrap();
        whole.close().await;
        for in_finish in [false, true] {
            for steps in 0.. {
                let directory = tempfile::tempdir().unwrap();
                for file in fs::read_dir(filled.path()).unwrap() {
                    let file = file.unwrap();
                    fs::copy(file.path(), directory.path().join(file.file_name())).unwrap();
                }
                let out = directory.path().join("out");
                let first = store(&directory).await;
                let done = if in_finish {
                    let posting = first.fix(BILLER, NOW).await.unwrap().unwrap();
                    deliver(&out, &posting).unwrap();
                    done_in(steps, first.finish(&posting, NOW)).await
                } else {
                    done_in(steps, first.fix(BILLER, NOW)).await
                };
                std::mem::forget(first);
                let second = store(&directory).await;
                let mut posted = Vec::new();
                while second.post(&out, BILLER, NOW + 1).await.unwrap().is_some() {}
                for name in files(&out).iter().filter(|name| name.ends_with(".csv")) {
                    let posting = reconcile::read(&fs::read(out.join(name)).unwrap()).unwrap();
                    posted.extend(posting.rows.into_iter().map(|row| row.intent.id));
                }
                posted.sort();
                let mut all: Vec<String> = (1..=COUNT).map(|n| format!("intent-{n}")).collect();
                all.sort();
                assert_eq!(posted, all, "in finish: {in_finish}, after {steps} steps");
                for id in &all {
                    let steps_of = second.history(id).await.unwrap();
                    let posted = steps_of.iter().filter(|(state, ..)| state == "posted").count();
                    assert_eq!(posted, 1, "{id}, in finish: {in_finish}, after {steps} steps");
                }
                if done {
                    assert!(steps > 4, "{steps} steps are no test");
                    break;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_foreign_file_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(&directory).await;
        let name = reconcile::file_name(BILLER, 1, NOW).unwrap();
        fs::write(directory.path().join(&name), "someone's").unwrap();
        let error = store.post(directory.path(), BILLER, NOW).await.err().unwrap().to_string();
        assert!(error.contains("exists with other content; move it away"), "{error}");
        assert_eq!(fs::read(directory.path().join(&name)).unwrap(), b"someone's");
        fs::remove_file(directory.path().join(&name)).unwrap();
        assert!(store.post(directory.path(), BILLER, NOW + 1).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_is_explained() {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(&directory).await;
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = store.post(&file, BILLER, NOW).await.err().unwrap().to_string();
        assert!(error.contains("cannot write to") && error.contains("make it writable"), "{error}");
    }
}
