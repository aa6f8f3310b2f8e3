//! The durable ledger: SQL through one writer connection, each entry one synced transaction.
//! `ledger::journal` states its rules; the tests hold the two together.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection, Executor, Row, SqlSafeStr};

use crate::ledger::journal::{CALL_LOST, STOPPED_BEFORE_SENDING, STOPPED_WHILE_SENDING, kept};
use crate::ledger::{Entry, Intent, Recorded, State};

mod posting; // reconciliation files: fixed, written, marked
mod row; // intents and their steps as rows

use row::{add_step, lookup_wait_ms, move_to, read};

/// The ledger on disk.
pub struct Store {
    pool: AnyPool,
    /// One reconciliation file is written at a time.
    posting: tokio::sync::Mutex<()>,
}

/// Why the store cannot do what was asked.
#[derive(Debug)]
pub enum StoreError {
    /// The configured place cannot be used: what is wrong and what to do.
    Open(String),
    /// The database failed.
    Database(String),
    /// A reconciliation file cannot be written: what is wrong and what to do.
    File(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Open(why) => write!(f, "store: {why}"),
            StoreError::Database(why) => write!(f, "store: the database failed: {why}"),
            StoreError::File(why) => write!(f, "reconciliation file: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        StoreError::Database(error.to_string())
    }
}

/// A payment whose outcome is to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    pub intent: Intent,
    /// Since when the outcome is unknown, Unix milliseconds.
    pub since_ms: i64,
    /// Lookups made so far.
    pub lookups: i64,
}

/// What a start, or the search for lost calls, found and settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub not_charged: usize,
    pub unknown: usize,
}

/// After this long a person must decide.
const LOOKUP_FOR_MS: i64 = 72 * 3_600_000;
/// Lookups handed out at once.
const UNRESOLVED_MAX: i64 = 100;

impl Store {
    /// Opens, and creates or upgrades, the ledger at `place`: the path of an SQLite file, or a
    /// database URL.
    pub async fn open(place: &str) -> Result<Store, StoreError> {
        let url = url(place)?;
        sqlx::any::install_default_drivers();
        let wrong = |error: sqlx::Error| StoreError::Open(format!("cannot open {place}: {error}"));
        let options: AnyConnectOptions = url.parse().map_err(wrong)?;
        let options = options.disable_statement_logging();
        // The pool would try a file that is no database again and again: ask once ourselves.
        let mut first = options.connect().await.map_err(wrong)?;
        prepare(&mut first).await.map_err(wrong)?;
        first.close().await.map_err(wrong)?;
        let pool = AnyPoolOptions::new()
            .min_connections(1)
            .max_connections(1)
            .acquire_timeout(ACQUIRE)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(|connection, _| Box::pin(prepare(connection)))
            .connect_with(options)
            .await
            .map_err(wrong)?;
        let store = Store { pool, posting: tokio::sync::Mutex::new(()) };
        store.check_durable(place).await?;
        migrations().run(&store.pool).await.map_err(|error| {
            StoreError::Open(format!(
                "cannot upgrade {place}: {error}; was it written by a newer version?"
            ))
        })?;
        Ok(store)
    }

    async fn check_durable(&self, place: &str) -> Result<(), StoreError> {
        let mode: String = sqlx::query_scalar("pragma journal_mode").fetch_one(&self.pool).await?;
        let synchronous: i64 =
            sqlx::query_scalar("pragma synchronous").fetch_one(&self.pool).await?;
        if mode != "wal" || synchronous < 2 {
            return Err(StoreError::Open(format!(
                "{place} cannot be written safely here (journal {mode}); put it on a local disk"
            )));
        }
        Ok(())
    }

    /// Applies an entry; when this says `Stored` it is on disk.
    pub async fn record(&self, entry: Entry, now_ms: i64) -> Recorded {
        let result = match entry {
            Entry::Consent(intent) => self.consent(&intent, now_ms).await,
            Entry::Move { id, to } => self.step(&id, &kept(to), now_ms).await,
        };
        result.unwrap_or_else(|error| Recorded::Failed(error.to_string()))
    }

    async fn consent(&self, intent: &Intent, now_ms: i64) -> Result<Recorded, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let inserted = sqlx::query(INSERT)
            .bind(&intent.id)
            .bind(&intent.confirmation)
            .bind(&intent.biller)
            .bind(&intent.account_id)
            .bind(intent.amount.minor)
            .bind(intent.fee.minor)
            .bind(intent.amount.currency.code())
            .bind(intent.brand.name())
            .bind(intent.last4.as_str())
            .bind(&intent.gateway)
            .bind(&intent.call_id)
            .bind(intent.created_ms)
            .execute(&mut *tx)
            .await;
        match inserted {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                tx.rollback().await?;
                return Ok(Recorded::Conflict);
            }
            other => other?,
        };
        add_step(&mut tx, &intent.id, &State::Consented, now_ms).await?;
        tx.commit().await?;
        Ok(Recorded::Stored)
    }

    async fn step(&self, id: &str, to: &State, now_ms: i64) -> Result<Recorded, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        if !move_to(&mut tx, id, to, now_ms).await? {
            tx.rollback().await?;
            return Ok(Recorded::Illegal);
        }
        tx.commit().await?;
        Ok(Recorded::Stored)
    }

    pub async fn intent(&self, id: &str) -> Result<Option<(Intent, State)>, StoreError> {
        let query = sqlx::query("select * from intent where id = $1").bind(id);
        query.fetch_optional(&self.pool).await?.map(|row| read(&row)).transpose()
    }

    /// Every intent, oldest first. For tools and tests: it reads the whole table.
    pub async fn intents(&self) -> Result<Vec<(Intent, State)>, StoreError> {
        let query = sqlx::query("select * from intent order by created_ms, id");
        query.fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// The states an intent went through: name, text, Unix milliseconds.
    pub async fn history(&self, id: &str) -> Result<Vec<(String, String, i64)>, StoreError> {
        let query = "select state, detail, at_ms from step where intent_id = $1 order by position";
        let rows = sqlx::query(query).bind(id).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
    }

    /// At start, before any call: nothing was sent for what is `Consented`, anything may have
    /// happened to what is `Sending`.
    pub async fn recover(&self, now_ms: i64) -> Result<Recovered, StoreError> {
        let all = i64::MAX;
        self.settle_unfinished(all, [STOPPED_BEFORE_SENDING, STOPPED_WHILE_SENDING], now_ms).await
    }

    /// The same for what has been `Consented` or `Sending` since before `before_ms`: the call
    /// that would have recorded an outcome is gone, or its write failed.
    pub async fn recover_lost(&self, before_ms: i64, now_ms: i64) -> Result<Recovered, StoreError> {
        self.settle_unfinished(before_ms, [CALL_LOST, CALL_LOST], now_ms).await
    }

    async fn settle_unfinished(
        &self,
        before_ms: i64,
        [not_sent, maybe_sent]: [&str; 2],
        now_ms: i64,
    ) -> Result<Recovered, StoreError> {
        let mut tx = self.pool.begin().await?;
        // In the words of the index of open intents, so that no history is read.
        let query = "select id, state from intent \
                     where state in ('consented', 'sending', 'unknown') and state <> 'unknown' \
                     and (select max(at_ms) from step where intent_id = id) < $1";
        let mut recovered = Recovered::default();
        for row in sqlx::query(query).bind(before_ms).fetch_all(&mut *tx).await? {
            let (id, state): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let to = if state == "sending" {
                recovered.unknown += 1;
                State::Unknown(maybe_sent.into())
            } else {
                recovered.not_charged += 1;
                State::NotCharged(not_sent.into())
            };
            move_to(&mut tx, &id, &to, now_ms).await?;
        }
        tx.commit().await?;
        Ok(recovered)
    }

    /// Unknown outcomes whose next lookup is due, longest due first, at most a hundred.
    pub async fn unresolved(&self, now_ms: i64) -> Result<Vec<Unresolved>, StoreError> {
        let query = "select * from intent where state = 'unknown' and lookup_ms <= $1 \
                     order by lookup_ms, id limit $2";
        let rows =
            sqlx::query(query).bind(now_ms).bind(UNRESOLVED_MAX).fetch_all(&self.pool).await?;
        let unresolved = |row: &AnyRow| {
            let (intent, _) = read(row)?;
            let (since_ms, lookups) = (row.try_get("unknown_ms")?, row.try_get("lookups")?);
            Ok(Unresolved { intent, since_ms, lookups })
        };
        rows.iter().map(unresolved).collect()
    }

    /// Notes a lookup that found nothing definitive: the next one comes later, or, 72 hours after
    /// the outcome became unknown, a person must decide (`Manual`, true).
    pub async fn defer(&self, unresolved: &Unresolved, now_ms: i64) -> Result<bool, StoreError> {
        let id = &unresolved.intent.id;
        if now_ms - unresolved.since_ms >= LOOKUP_FOR_MS {
            let recorded = self.step(id, &State::Manual, now_ms).await?;
            return Ok(recorded == Recorded::Stored);
        }
        let lookups = unresolved.lookups + 1;
        sqlx::query("update intent set lookups = $2, lookup_ms = $3 where id = $1")
            .bind(id)
            .bind(lookups)
            .bind(now_ms + lookup_wait_ms(lookups))
            .execute(&self.pool)
            .await?;
        Ok(false)
    }

    /// Waits for what is being written and closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// `synchronous = full` syncs the log at every commit: a committed entry survives a power cut.
async fn prepare(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    for pragma in [
        "pragma busy_timeout = 5000",
        "pragma journal_mode = wal",
        "pragma synchronous = full",
        "pragma foreign_keys = on",
    ] {
        connection.execute(pragma).await?;
    }
    Ok(())
}

const ACQUIRE: Duration = Duration::from_secs(10);

const INSERT: &str = "\
insert into intent (id, confirmation, biller, account_id, amount_minor, fee_minor, currency, brand, \
    last4, gateway, call_id, created_ms, state, detail, gateway_reference, auth_code, avs, cvv, \
    unknown_ms, lookups, lookup_ms, file_sequence) \
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'consented', '', '', '', '', '', \
    0, 0, 0, 0)";

fn migrations() -> Migrator {
    let ledger = include_str!("../../migrations/0001_ledger.sql");
    let migration =
        Migration::new(1, "ledger".into(), MigrationType::Simple, ledger.into_sql_str(), false);
    Migrator::with_migrations(vec![migration])
}

/// The database URL of a path, or `place` itself if it is one.
fn url(place: &str) -> Result<String, StoreError> {
    if place.contains("://") {
        return match place.starts_with("sqlite://") {
            true => Ok(place.to_string()),
            false => Err(StoreError::Open(format!(
                "`{}` databases are not in this build; write the path of an SQLite file",
                place.split("://").next().unwrap_or_default()
            ))),
        };
    }
    let wrong = |error: std::io::Error| {
        StoreError::Open(format!("cannot write {place}: {error}; check the path and its owner"))
    };
    let path = std::path::absolute(Path::new(place)).map_err(wrong)?;
    let parent = path.parent().filter(|parent| parent.is_dir());
    if parent.is_none() {
        return Err(StoreError::Open(format!(
            "the directory of {place} does not exist; create it or correct the path"
        )));
    }
    // Created here so that from its first byte nobody else may read it.
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&path).map_err(wrong)?;
    let path = path.to_str().ok_or_else(|| {
        StoreError::Open(format!("{place} is not UTF-8; write a path in plain letters"))
    })?;
    let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Ok(format!("sqlite://{path}?mode=rw"))
}

#[cfg(test)]
mod tests {
    use super::row::detail;
    use super::*;
    use crate::ledger::journal::Journal;
    use crate::ledger::sample;
    use rand::RngExt;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use sqlx::AssertSqlSafe;

    const NOW: i64 = 1_780_272_000_000;

    pub(super) async fn store(directory: &tempfile::TempDir) -> Store {
        let place = directory.path().join("ledger.db");
        Store::open(place.to_str().unwrap()).await.unwrap()
    }

    pub(super) async fn put(store: &Store, n: u64, states: &[State]) -> Intent {
        let intent = sample::intent(n, &format!("A{n}"));
        let consent = Entry::Consent(Box::new(intent.clone()));
        assert_eq!(store.record(consent, NOW).await, Recorded::Stored);
        for state in states {
            let entry = Entry::Move { id: intent.id.clone(), to: state.clone() };
            assert_eq!(store.record(entry, NOW).await, Recorded::Stored, "{state:?}");
        }
        intent
    }

    fn entry(rng: &mut StdRng) -> Entry {
        let n = rng.random_range(1..24);
        if rng.random_bool(0.3) {
            let mut intent = sample::intent(n, &format!("A{}", rng.random_range(1..9)));
            if rng.random_bool(0.1) {
                intent.confirmation = sample::intent(n + 1, "").confirmation;
            }
            return Entry::Consent(Box::new(intent));
        }
        let mut states = sample::states();
        states.push(State::Declined("card 4111111111111111\n".into()));
        let mut other = sample::approval();
        other.auth_code = "B".into();
        other.avs = Some(String::new());
        states.extend([State::Approved(other.clone()), State::Posted(other)]);
        // Most of the time the likely steps, so that intents get somewhere.
        let to = match rng.random_range(0..4) {
            0 => State::Sending,
            1 => State::Approved(sample::approval()),
            _ => states.swap_remove(rng.random_range(0..states.len())),
        };
        Entry::Move { id: sample::intent(n, "").id, to }
    }

    #[tokio::test]
    async fn it_answers_as_the_journal_does() {
        for seed in 0..6 {
            let directory = tempfile::tempdir().unwrap();
            let (store, mut journal) = (store(&directory).await, Journal::new());
            let mut rng = StdRng::seed_from_u64(seed);
            for turn in 0..400 {
                if rng.random_ratio(1, 60) {
                    let recovered = store.recover(NOW).await.unwrap();
                    let total = recovered.not_charged + recovered.unknown;
                    assert_eq!(total, journal.recover(), "seed {seed} turn {turn}");
                    continue;
                }
                let entry = entry(&mut rng);
                let (told, want) =
                    (store.record(entry.clone(), NOW).await, journal.record(entry.clone()));
                assert_eq!(told, want, "seed {seed} turn {turn} {entry:?}");
            }
            assert_eq!(store.intents().await.unwrap(), journal.intents(), "seed {seed}");
            for (intent, _) in journal.intents() {
                let steps = journal.history().iter().filter(|(id, _)| *id == intent.id);
                let want: Vec<_> = steps.map(|(_, s)| (s.name(), detail(s))).collect();
                let steps = store.history(&intent.id).await.unwrap();
                let got: Vec<_> = steps.iter().map(|(s, d, _)| (s.as_str(), d.as_str())).collect();
                assert_eq!(got, want, "seed {seed} {}", intent.id);
            }
            assert!(journal.history().len() > 30, "seed {seed} went nowhere");
        }
    }

    #[tokio::test]
    async fn what_is_stored_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let first = store(&directory).await;
        let consented = put(&first, 1, &[]).await;
        let sending = put(&first, 2, &[State::Sending]).await;
        // No close: the process is gone.
        std::mem::forget(first);
        let second = store(&directory).await;
        let recovered = second.recover(NOW + 1).await.unwrap();
        assert_eq!(recovered, Recovered { not_charged: 1, unknown: 1 });
        let state = |intent: Option<(Intent, State)>| intent.unwrap().1;
        let consented = second.intent(&consented.id).await.unwrap();
        assert_eq!(state(consented), State::NotCharged(STOPPED_BEFORE_SENDING.into()));
        let sending = second.intent(&sending.id).await.unwrap();
        assert_eq!(state(sending), State::Unknown(STOPPED_WHILE_SENDING.into()));
        assert_eq!(second.intent("nobody").await.unwrap(), None);
    }

    #[tokio::test]
    async fn lookups_come_ever_later_and_end_with_a_person() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let intent = put(&store, 1, &[State::Sending, State::Unknown("t".into())]).await;
        let mut now_ms = NOW;
        let mut waits = Vec::new();
        loop {
            let due = loop {
                match store.unresolved(now_ms).await.unwrap().pop() {
                    Some(due) => break due,
                    None => now_ms += 1_000,
                }
            };
            assert_eq!((due.intent.clone(), due.since_ms), (intent.clone(), NOW));
            waits.push(now_ms - NOW);
            if waits.len() == 6 {
                // Three days on, one more lookup is the last.
                now_ms = NOW + LOOKUP_FOR_MS;
            }
            if store.defer(&due, now_ms).await.unwrap() {
                break;
            }
        }
        assert_eq!(waits, [2_000, 7_000, 22_000, 82_000, 382_000, 682_000]);
        assert_eq!(store.intent(&intent.id).await.unwrap().unwrap().1, State::Manual);
        assert_eq!(store.unresolved(i64::MAX).await.unwrap(), []);
    }

    #[tokio::test]
    async fn no_column_can_hold_a_card_number() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let leak = "4111 1111 1111 1111 and 378282246310005".to_string();
        let unknown = [State::Sending, State::Unknown(leak.clone())];
        put(&store, 1, &[&unknown[..], &[State::Held(leak.clone())]].concat()).await;
        put(&store, 2, &[&unknown[..], &[State::Declined(leak.clone())]].concat()).await;
        put(&store, 3, &[State::Sending, State::NotCharged(leak)]).await;
        put(&store, 4, &[State::Sending, State::Approved(sample::approval())]).await;
        store.post(directory.path(), "acme-water", NOW).await.unwrap();
        let mut cells = 0;
        for table in ["intent", "step", "posting"] {
            let query = AssertSqlSafe(format!("select * from {table}"));
            for row in sqlx::query(query).fetch_all(&store.pool).await.unwrap() {
                for column in row.columns() {
                    let name = sqlx::Column::name(column);
                    let text = row
                        .try_get::<String, _>(name)
                        .or_else(|_| row.try_get::<i64, _>(name).map(|number| number.to_string()));
                    let text = text.unwrap();
                    cells += 1;
                    let longest = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
                    // Unix milliseconds have thirteen digits by nature.
                    assert!(longest < Some(12) || name.ends_with("_ms"), "{name}: {text}");
                    assert!(!text.contains("4111"), "{name}: {text}");
                }
            }
        }
        assert!(cells > 100);
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_used_is_explained() {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("text.db");
        std::fs::write(&text, "this is no database, and long enough to be seen as none".repeat(99))
            .unwrap();
        for (place, wants) in [
            ("/nonexistent/ledger.db", "does not exist; create it or correct the path"),
            ("postgres://h/db", "`postgres` databases are not in this build"),
            (directory.path().to_str().unwrap(), "check the path and its owner"),
            (text.to_str().unwrap(), "file is not a database"),
        ] {
            let error = Store::open(place).await.err().unwrap().to_string();
            assert!(error.starts_with("store: ") && error.contains(wants), "{error}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_else_can_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let _store = store(&directory).await;
        for file in std::fs::read_dir(directory.path()).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
    }
}
