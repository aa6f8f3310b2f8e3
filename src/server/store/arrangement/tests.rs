//! Arrangements in the ledger: as the journal has them, and all or nothing.

use sqlx::{AssertSqlSafe, Executor};

use crate::ledger::arrangement::Kind;
use crate::ledger::journal::Journal;
use crate::ledger::{Entry, Recorded, sample};
use crate::server::store::tests::store;

const NOW: i64 = 1_780_272_000_000;

fn keep(n: u64, letter: &str) -> Entry {
    Entry::Keep(Box::new(sample::card(n, letter)))
}

fn arrange(n: u64, kind: Kind, card: u64) -> Entry {
    Entry::Arrange(Box::new(sample::arrangement(n, kind, card)))
}

fn cancel(n: u64) -> Entry {
    let (who, why) = ("ann".into(), "asked".into());
    Entry::Cancel { arrangement: format!("arrangement-{n}"), who, why }
}

fn forget(n: u64) -> Entry {
    Entry::Drop { card: format!("card-{n}"), who: "ann".into(), why: "lost".into() }
}

#[tokio::test]
async fn arrangements_are_made_and_ended_as_the_journal_does() {
    let directory = tempfile::tempdir().unwrap();
    let (store, mut journal) = (store(&directory).await, Journal::new());
    let mut other = sample::arrangement(3, Kind::Plan, 1);
    other.account_id = "A2".into();
    let entries = [
        // No such card.
        arrange(1, Kind::Once, 1),
        keep(1, "a"),
        // The card is another account's.
        Entry::Arrange(Box::new(other)),
        arrange(1, Kind::Once, 1),
        // Its number is taken; and one of a kind is enough.
        arrange(1, Kind::Plan, 1),
        arrange(2, Kind::Once, 1),
        arrange(3, Kind::AutoPay, 1),
        cancel(9),
        cancel(1),
        cancel(1),
        arrange(4, Kind::Once, 1),
        // The card is kept anew: they go on with the new one.
        keep(2, "a"),
        forget(1),
        arrange(5, Kind::Plan, 1),
        arrange(6, Kind::Plan, 2),
        // And without it they end.
        forget(2),
        cancel(4),
    ];
    let mut told = Vec::new();
    for entry in entries {
        let recorded = store.record(entry.clone(), NOW).await;
        assert_eq!(recorded, journal.record(entry.clone()), "{entry:?}");
        told.push(match recorded {
            Recorded::Stored => 's',
            Recorded::Conflict => 'c',
            _ => 'i',
        });
        let wallet = store.wallet("acme-water", "A1").await.unwrap();
        assert_eq!(Some(wallet), journal.wallet("acme-water", "A1"), "{entry:?}");
    }
    assert_eq!(told.into_iter().collect::<String>(), "isisccsisissiissi");
}

#[tokio::test]
async fn a_disk_that_fails_keeps_all_of_an_arrangement_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory).await;
    assert_eq!(store.record(keep(1, "a"), NOW).await, Recorded::Stored);
    assert_eq!(store.record(arrange(1, Kind::Once, 1), NOW).await, Recorded::Stored);
    let before = store.wallet("acme-water", "A1").await.unwrap();
    for (table, write, entry) in [
        ("arrangement", "insert", arrange(2, Kind::Plan, 1)),
        ("instalment", "insert", arrange(2, Kind::Plan, 1)),
        ("arrangement_event", "insert", arrange(2, Kind::Plan, 1)),
        ("arrangement", "update", cancel(1)),
        ("instalment", "update", cancel(1)),
        ("arrangement_event", "insert", cancel(1)),
        ("arrangement", "update", forget(1)),
        ("arrangement", "update", keep(2, "a")),
    ] {
        let trigger = format!(
            "create trigger fault before {write} on {table} begin \
             select raise(abort, 'disk I/O error (injected)'); end"
        );
        store.pool.execute(AssertSqlSafe(trigger)).await.unwrap();
        let told = store.record(entry, NOW).await;
        assert!(matches!(told, Recorded::Failed(_)), "{table} {write}: {told:?}");
        store.pool.execute("drop trigger fault").await.unwrap();
        assert_eq!(store.wallet("acme-water", "A1").await.unwrap(), before, "{table} {write}");
    }
}
