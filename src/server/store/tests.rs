//! The ledger on disk answers as the one in memory does, and keeps what it was told.

use super::row::detail;
use super::*;
use crate::gateway::Approval;
use crate::instrument::{AccountKind, Brand, Means, Token};
use crate::ledger::journal::Journal;
use crate::ledger::sample;
use crate::ledger::velocity::Limits;
use crate::ledger::{Allocation, Change, FeeFailure, Origin, Progress, Screening, Split, Undo};
use crate::money::Money;
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
        let failure = [FeeFailure::Void, FeeFailure::Waive][rng.random_range(0..2)];
        intent.split = match rng.random_range(0..7) {
            0 | 1 => Split::Bill { fee: Money::usd(200), failure },
            2 | 3 => Split::FeeOf(sample::intent(rng.random_range(1..24), "").id),
            4 => Split::Surcharge,
            5 => Split::Verification,
            _ => Split::Total,
        };
        if rng.random_bool(0.3) {
            let first = Money::usd(10_000);
            let more = i64::from(rng.random_ratio(1, 8));
            let rest = Money::usd(intent.amount.minor - first.minor + more);
            let other = format!("A{}", rng.random_range(1..9));
            let parts = [(intent.account_id.clone(), first), (other, rest)];
            let part = |(account_id, amount)| Allocation { account_id, amount };
            intent.allocations = parts.map(part).into();
        }
        return match rng.random_ratio(1, 4) {
            true => Entry::Sending(Box::new(intent)),
            false => Entry::Consent(Box::new(intent)),
        };
    }
    if rng.random_bool(0.15) {
        return undo(rng);
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

/// Something about giving a payment back.
fn undo(rng: &mut StdRng) -> Entry {
    let change = Box::new(Change {
        id: format!("change-{}", rng.random_range(1..9)),
        intent_id: sample::intent(rng.random_range(1..24), "").id,
        act: [Undo::Void, Undo::Refund][rng.random_range(0..2)],
        amount: Money::usd(0),
        who: "ann".into(),
        why: "asked".into(),
        created_ms: NOW,
    });
    let to = match rng.random_range(0..6) {
        0 | 1 => return Entry::Undo(change),
        2 => Progress::Done("v".into()),
        3 => Progress::Unknown("?".into()),
        4 => Progress::NotSent("no route".into()),
        _ => Progress::Refused("late".into()),
    };
    Entry::Undone { change, to }
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

/// Payments of two accounts, or of both at once, and two cards, at any time, in any state.
#[tokio::test]
async fn it_finds_the_payments_that_the_journal_finds() {
    let (mut found, mut locked) = (0, std::collections::BTreeSet::new());
    for seed in 0..6 {
        let directory = tempfile::tempdir().unwrap();
        let (store, mut journal) = (store(&directory).await, Journal::new());
        let mut rng = StdRng::seed_from_u64(seed);
        for n in 1..30 {
            let mut intent = sample::intent(n, ["A1", "A2"][rng.random_range(0..2)]);
            intent.created_ms = NOW + rng.random_range(0..100);
            intent.amount = Money::usd(rng.random_range(1..3));
            if rng.random_ratio(1, 3) {
                let first = intent.account_id.clone();
                let second = if first == "A1" { "A2".into() } else { "A1".into() };
                let amounts = [intent.amount, Money::usd(rng.random_range(1..3))];
                let accounts = [first, second].into_iter().zip(amounts);
                intent.allocations = accounts
                    .map(|(account_id, amount)| Allocation { account_id, amount })
                    .collect();
                intent.amount = amounts[0].checked_add(amounts[1]).unwrap();
            }
            intent.fingerprint = sample::fingerprint(["a", "b", "c"][rng.random_range(0..3)]);
            intent.origin.caller = sample::fingerprint(["b", "d"][rng.random_range(0..2)]);
            intent.origin.issuer = sample::fingerprint(["c", "e"][rng.random_range(0..2)]);
            let sending = rng.random_ratio(1, 2);
            let entry = if sending { Entry::Sending } else { Entry::Consent };
            let mut entries = vec![entry(Box::new(intent.clone()))];
            let states = sample::states();
            let to = states[rng.random_range(0..states.len())].clone();
            entries.extend(
                [State::Sending, State::Unknown("?".into()), to]
                    .map(|to| Entry::Move { id: intent.id.clone(), to }),
            );
            for entry in entries {
                assert_eq!(store.record(entry.clone(), NOW).await, journal.record(entry));
            }
        }
        for _ in 0..60 {
            let limits = Limits {
                caller_attempts: rng.random_range(0..20),
                caller_declines: rng.random_range(0..5),
                account_attempts: rng.random_range(0..20),
                account_declines: rng.random_range(0..5),
                issuer_declines: rng.random_range(0..5),
                trunk_declines: rng.random_range(0..9),
                ..Limits::default()
            };
            let screening = Screening {
                biller: "acme-water".into(),
                account_id: ["A1", "A2", "A3"][rng.random_range(0..3)].into(),
                amount: Money::usd(rng.random_range(1..4)),
                fingerprint: [None, sample::fingerprint("a")][rng.random_range(0..2)],
                since_ms: NOW + rng.random_range(0..100),
                origin: sample::intent(1, "").origin,
                limits,
                at_ms: NOW + 100,
            };
            let (told, want) = (store.screen(&screening).await, journal.screen(&screening));
            assert_eq!(told.ok(), want, "seed {seed}: {screening:?}");
            let want = want.unwrap();
            locked.extend(want.lock.map(|lock| lock.counted));
            found += usize::from(want.earlier.is_some());
        }
    }
    assert!(found > 50, "only {found} were found");
    assert_eq!(locked.len(), 4, "{locked:?}");
}

/// A ledger as an earlier version made it.
pub(super) async fn of_version(version: usize, place: &str) -> AnyConnection {
    let options: AnyConnectOptions = url(place).unwrap().parse().unwrap();
    sqlx::any::install_default_drivers();
    let mut old = options.connect().await.unwrap();
    prepare(&mut old).await.unwrap();
    let migrations = MIGRATIONS[..version].iter().map(|(nth, name, sql)| {
        let kind = MigrationType::Simple;
        Migration::new(*nth, (*name).into(), kind, (*sql).into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect()).run(&mut old).await.unwrap();
    old
}

/// A ledger as the first version wrote it is read, and everything in it is kept.
#[tokio::test]
async fn a_ledger_of_the_first_version_is_upgraded() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("ledger.db");
    let place = place.to_str().unwrap();
    let mut old = of_version(1, place).await;
    for (n, state) in ["sending", "approved", "posted", "unknown", "held"].iter().enumerate() {
        let (reference, code) = match *state {
            "approved" | "posted" => ("sale_000001", "A00001"),
            _ => ("", ""),
        };
        let sql = format!(
            "insert into intent values ('i{n}', '10000{n}', 'acme', 'A{n}', 32172, 200, 'USD', \
             'visa', '1111', 'bogus', 'call', {n}, '{state}', '', '{reference}', '{code}', 'Y', '', \
             0, 0, 0, 0)"
        );
        sqlx::query(AssertSqlSafe(sql)).execute(&mut old).await.unwrap();
        let sql = format!("insert into step values ('i{n}', 1, '{state}', '', 0)");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut old).await.unwrap();
    }
    old.close().await.unwrap();

    let store = Store::open(place).await.unwrap();
    let all = store.intents().await.unwrap();
    let states: Vec<_> = all.iter().map(|(_, state)| state.name()).collect();
    assert_eq!(states, ["sending", "approved", "posted", "unknown", "held"]);
    for (intent, _) in &all {
        assert_eq!((intent.means, intent.fingerprint), (Means::Card(Brand::Visa), None));
        assert_eq!(intent.origin, Origin::default());
    }
    // The whole was approved, not a part of it.
    assert_eq!(all[1].1, State::Approved(sample::approval()));
    assert_eq!(all[2].1, State::Posted(sample::approval()));
    let to = State::Posted(sample::approval());
    assert_eq!(store.record(moved("i1", to), NOW).await, Recorded::Stored);
    assert_eq!(store.recover(NOW).await.unwrap(), Recovered { not_charged: 0, unknown: 1 });
    store.close().await;
    // And once only.
    assert_eq!(Store::open(place).await.unwrap().intents().await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_ledger_of_a_later_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    store(&directory).await.close().await;
    let place = directory.path().join("ledger.db");
    let options: AnyConnectOptions = url(place.to_str().unwrap()).unwrap().parse().unwrap();
    let mut later = options.connect().await.unwrap();
    let sql = "insert into _sqlx_migrations values (99, 'later', 0, true, x'00', 0)";
    later.execute(sql).await.unwrap();
    later.close().await.unwrap();
    let error = Store::open(place.to_str().unwrap()).await.err().unwrap().to_string();
    assert!(error.contains("was it written by a newer version?"), "{error}");
}

/// What was approved, for how much, and the gateway's token, come back as they were told.
#[tokio::test]
async fn every_kind_of_payment_is_kept_whole() {
    let directory = tempfile::tempdir().unwrap();
    let first = store(&directory).await;
    let token = Token::parse("cus_1/card_2");
    let whole = Approval { token: token.clone(), ..sample::approval() };
    let part = Approval { partial: Some(Money::usd(5_000)), ..whole.clone() };
    let wanted = [
        (Means::Card(Brand::Amex), State::Approved(whole)),
        (Means::Bank(AccountKind::Checking), State::Held("part".into(), Some(part))),
        (Means::Bank(AccountKind::Savings), State::Held("review".into(), None)),
    ];
    let mut want = Vec::new();
    for (n, (means, state)) in (1..).zip(wanted) {
        let intent = Intent { means, ..sample::intent(n, "A1") };
        let consent = Entry::Consent(Box::new(intent.clone()));
        assert_eq!(first.record(consent, NOW).await, Recorded::Stored);
        for to in [State::Sending, state.clone()] {
            assert_eq!(first.record(moved(&intent.id, to), NOW).await, Recorded::Stored);
        }
        want.push((intent, state));
    }
    first.close().await;
    assert_eq!(store(&directory).await.intents().await.unwrap(), want);
}

/// The same card waits for its open payment; another card of the account does not.
#[tokio::test]
async fn one_open_payment_for_a_card_of_an_account() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    let intent = |n, account, letter| Intent {
        fingerprint: sample::fingerprint(letter),
        ..sample::intent(n, account)
    };
    let consent = async |intent| store.record(Entry::Consent(Box::new(intent)), NOW).await;
    assert_eq!(consent(intent(1, "A1", "a")).await, Recorded::Stored);
    assert_eq!(consent(intent(2, "A1", "a")).await, Recorded::Conflict);
    assert_eq!(consent(intent(3, "A1", "b")).await, Recorded::Stored);
    assert_eq!(consent(intent(4, "A2", "a")).await, Recorded::Stored);
    let to = State::NotCharged("hung up".into());
    assert_eq!(store.record(moved("intent-1", to), NOW).await, Recorded::Stored);
    assert_eq!(consent(intent(2, "A1", "a")).await, Recorded::Stored);
}

fn moved(id: &str, to: State) -> Entry {
    Entry::Move { id: id.into(), to }
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
    put(&store, 1, &[&unknown[..], &[State::Held(leak.clone(), None)]].concat()).await;
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
