//! The durable ledger: SQL through one writer connection, each entry one synced transaction.
//! `ledger::journal` states its rules; the tests hold the two together.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{
    AnyConnection, AnyPool, AssertSqlSafe, ConnectOptions, Connection, Executor, Row, SqlSafeStr,
};

use crate::gateway::Approval;
use crate::ledger::journal::{CALL_LOST, STOPPED_BEFORE_SENDING, STOPPED_WHILE_SENDING, kept};
use crate::ledger::{Entry, Intent, Recorded, State};

pub mod ach; // debits on their way to the bank, and what it says of them
pub mod arrangement; // what is to be charged later
pub mod card; // cards that callers have kept
pub mod change; // voids and refunds
pub mod pair; // bills and their fees, charged apart
mod allocation; // one payment for several accounts
mod list; // payments as people search them
mod posting; // reconciliation files: fixed, written, marked
mod row; // intents and their steps as rows
mod screen; // what is known against a payment
mod settle; // outcomes a person knows

pub use list::Filter;
use row::{LOOKUP_EVERY_MS, insert_intent, lookup_wait_ms, move_to, read};
pub use settle::Decision;

/// The ledger on disk. Clones share its connections.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    /// For what a caller waits for: it is read while something else is written.
    reader: AnyPool,
    /// For checkpoints.
    keeper: AnyPool,
    /// One reconciliation file is written at a time.
    posting: Arc<tokio::sync::Mutex<()>>,
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
        check_durable(&mut first, place).await?;
        migrations().run(&mut first).await.map_err(|error| {
            StoreError::Open(format!(
                "cannot upgrade {place}: {error}; was it written by a newer version?"
            ))
        })?;
        first.close().await.map_err(wrong)?;
        // Who was connected before would not know of what was added. The first caller waits for
        // no statement that all of them need.
        let approved = State::Approved(Approval::default());
        let moves = [State::Sending, approved].iter().filter_map(row::move_sql).collect();
        let writes: Vec<String> = [vec![row::insert_sql()], moves].concat();
        let pool = connections(1, &options, writes).await.map_err(wrong)?;
        let reads = vec![screen::sql()];
        let reader = connections(READERS, &options, reads).await.map_err(wrong)?;
        let keeper = connections(1, &options, Vec::new()).await.map_err(wrong)?;
        Ok(Store { pool, reader, keeper, posting: Arc::default() })
    }

    /// Applies an entry; when this says `Stored` it is on disk.
    pub async fn record(&self, entry: Entry, now_ms: i64) -> Recorded {
        let result = match entry {
            Entry::Consent(intent) => self.consent(&intent, false, now_ms).await,
            Entry::Sending(intent) => self.consent(&intent, true, now_ms).await,
            Entry::Move { id, to } => self.step(&id, &kept(to), now_ms).await,
            Entry::Undo(change) => return self.record_undo(*change).await,
            Entry::Undone { change, to } => return self.record_undone(&change, &to, now_ms).await,
            Entry::Keep(card) => self.keep_card(&card, now_ms).await,
            Entry::Drop { card, who, why } => self.drop_card(&card, (&who, &why), now_ms).await,
            Entry::Arrange(new) => self.arrange(&new, now_ms).await,
            Entry::Cancel { arrangement, who, why } => {
                self.cancel(&arrangement, (&who, &why), now_ms).await
            }
        };
        result.unwrap_or_else(|error| Recorded::Failed(error.to_string()))
    }

    async fn consent(
        &self,
        intent: &Intent,
        sending: bool,
        now_ms: i64,
    ) -> Result<Recorded, sqlx::Error> {
        if !intent.is_allocated() {
            return Ok(Recorded::Illegal);
        }
        let mut tx = self.pool.begin().await?;
        if !insert_intent(&mut tx, intent, now_ms).await? {
            tx.rollback().await?;
            return Ok(Recorded::Conflict);
        }
        if sending && !move_to(&mut tx, &intent.id, &State::Sending, now_ms).await? {
            tx.rollback().await?;
            return Ok(Recorded::Illegal);
        }
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
        // In the words of the index of unsettled intents, so that no history is read.
        let query = "select id, state, fee_kind from intent \
                     where state in ('consented', 'sending', 'unknown') and state <> 'unknown' \
                     and (select max(at_ms) from step where intent_id = id) < $1";
        let mut recovered = Recovered::default();
        for row in sqlx::query(query).bind(before_ms).fetch_all(&mut *tx).await? {
            let (id, state): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let verified = row.try_get::<String, _>(2)? == "verification";
            let to = if state == "sending" && verified {
                recovered.not_charged += 1;
                State::NotCharged(maybe_sent.into())
            } else if state == "sending" {
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
        // One that is further away than any wait was planned by a clock that has been put back.
        let query = "select * from intent where state = 'unknown' \
                     and (lookup_ms <= $1 or lookup_ms > $3) order by lookup_ms, id limit $2";
        let query = sqlx::query(query).bind(now_ms).bind(UNRESOLVED_MAX);
        let rows = query.bind(now_ms.saturating_add(LOOKUP_EVERY_MS)).fetch_all(&self.pool).await?;
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

    /// Brings what the write-ahead log holds into the file, beside those who read and write: done
    /// often enough, none of them has to do it, and a caller to wait for that.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        sqlx::query("pragma wal_checkpoint(passive)").execute(&self.keeper).await?;
        Ok(())
    }

    /// Waits for what is being written and closes the file.
    pub async fn close(&self) {
        self.keeper.close().await;
        self.reader.close().await;
        self.pool.close().await;
    }
}

async fn check_durable(connection: &mut AnyConnection, place: &str) -> Result<(), StoreError> {
    let mode: String =
        sqlx::query_scalar("pragma journal_mode").fetch_one(&mut *connection).await?;
    let synchronous: i64 =
        sqlx::query_scalar("pragma synchronous").fetch_one(&mut *connection).await?;
    if mode != "wal" || synchronous < 2 {
        return Err(StoreError::Open(format!(
            "{place} cannot be written safely here (journal {mode}); put it on a local disk"
        )));
    }
    Ok(())
}

/// Connections that stay open, each with these statements prepared.
async fn connections(
    count: u32,
    options: &AnyConnectOptions,
    statements: Vec<String>,
) -> Result<AnyPool, sqlx::Error> {
    let statements: Arc<[String]> = statements.into();
    AnyPoolOptions::new()
        .min_connections(count)
        .max_connections(count)
        // They are threads of ours: nobody else closes them, and a caller need not wait for that.
        .test_before_acquire(false)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(move |connection, _| {
            let statements = statements.clone();
            Box::pin(async move {
                prepare(connection).await?;
                for sql in &*statements {
                    connection.prepare(AssertSqlSafe(sql.clone()).into_sql_str()).await?;
                }
                Ok(())
            })
        })
        .connect_with(options.clone())
        .await
}

/// `synchronous = full` syncs the log at every commit: a committed entry survives a power cut.
async fn prepare(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    for pragma in [
        "pragma busy_timeout = 5000",
        "pragma journal_mode = wal",
        "pragma synchronous = full",
        "pragma foreign_keys = on",
        // Who writes brings no more than this into the file: see `Store::checkpoint`.
        "pragma wal_autocheckpoint = 10000",
        // What is wiped leaves no copy in a free page.
        "pragma secure_delete = on",
    ] {
        connection.execute(pragma).await?;
    }
    Ok(())
}

/// Connections for what callers wait for.
const READERS: u32 = 2;
const ACQUIRE: Duration = Duration::from_secs(10);

/// Versions of the schema, each from the one before. The ledger itself knows which it has.
const MIGRATIONS: [(i64, &str, &str); 9] = [
    (1, "ledger", include_str!("../../migrations/0001_ledger.sql")),
    (2, "means", include_str!("../../migrations/0002_means.sql")),
    (3, "changes", include_str!("../../migrations/0003_changes.sql")),
    (4, "cards", include_str!("../../migrations/0004_cards.sql")),
    (5, "ach", include_str!("../../migrations/0005_ach.sql")),
    (6, "arrangements", include_str!("../../migrations/0006_arrangements.sql")),
    (7, "fees", include_str!("../../migrations/0007_fees.sql")),
    (8, "allocations", include_str!("../../migrations/0008_allocations.sql")),
    (9, "first charges", include_str!("../../migrations/0009_first_charges.sql")),
];

fn migrations() -> Migrator {
    let all = MIGRATIONS.into_iter().map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(all.collect())
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
mod tests;
