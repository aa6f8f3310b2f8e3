//! Debits from the request to the file and back from the bank, with disks that fail at every step.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::disk::{Disk, Machine};
use super::*;
use crate::ach::Returned;
use crate::ach::returned::tests::{Back, file as back_file};
use crate::ach::settings::EXAMPLE;
use crate::gateway::{Charge, Gateway, Initiator, Purpose as For, Verdict};
use crate::instrument::{
    AccountKind, BankAccount, Debit, HolderKind, Instrument, Means, RoutingNumber,
};
use crate::ledger::{Entry, Intent, Recorded, State, sample};
use crate::payment::Zone;

/// 2026-11-30T15:00:00Z, a Monday: ten in the morning where the biller is.
const NOW: i64 = 1_796_050_800_000;
const HOUR: i64 = 3_600_000;
const NUMBER: &str = "738491620583714";

struct Bench {
    folder: tempfile::TempDir,
    store: Store,
}

impl Bench {
    async fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("ledger.db");
        let store = Store::open(place.to_str().unwrap()).await.unwrap();
        Bench { folder, store }
    }

    /// As after kill -9: nothing is closed.
    async fn again(&mut self) {
        let place = self.folder.path().join("ledger.db");
        let store = Store::open(place.to_str().unwrap()).await.unwrap();
        std::mem::forget(std::mem::replace(&mut self.store, store));
    }

    fn account(&self) -> Account {
        let directory = self.directory();
        let settings = Settings::read(&EXAMPLE.parse().unwrap()).unwrap();
        let settings = Settings { directory, ..settings };
        Account {
            id: "nacha".into(),
            settings,
            key: Key::new(&[7; 32], Purpose::Accounts).unwrap(),
        }
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join("ach")
    }

    fn outbox(&self) -> Outbox {
        Outbox::new(self.account(), Zone::parse("eastern").unwrap(), self.store.clone())
    }

    fn desk(&self) -> Desk {
        Desk::new(self.account(), self.store.clone())
    }

    async fn go(&self, intent: &Intent, to: State) {
        let entry = Entry::Move { id: intent.id.clone(), to };
        assert_eq!(self.store.record(entry, NOW).await, Recorded::Stored);
    }

    /// A payment that is being charged.
    async fn sending(&self, n: u64, account: &str, letter: &str) -> Intent {
        let intent = Intent {
            gateway: "nacha".into(),
            means: Means::Bank(AccountKind::Checking),
            last4: crate::instrument::Last4::parse("3714").unwrap(),
            fingerprint: sample::fingerprint(letter),
            created_ms: NOW,
            ..sample::intent(n, account)
        };
        let consent = Entry::Consent(Box::new(intent.clone()));
        assert_eq!(self.store.record(consent, NOW).await, Recorded::Stored);
        self.go(&intent, State::Sending).await;
        intent
    }

    async fn charge(&self, intent: &Intent) -> Verdict {
        let routing = RoutingNumber::parse("021000021").unwrap();
        let account = BankAccount::parse(routing, NUMBER, AccountKind::Checking).unwrap();
        let holder = "James Walker".to_string().into();
        let debit = Debit { account, holder, holder_kind: HolderKind::Personal };
        let charge = Charge {
            purpose: For::Sale,
            reference: &intent.id,
            total: intent.total().unwrap(),
            fee: intent.fee,
            surcharge: false,
            instrument: Instrument::Bank(&debit),
            account_id: &intent.account_id,
            save: false,
            initiator: Initiator::Customer,
            at_ms: NOW,
        };
        let request = nacha::Nacha.charge(&charge).unwrap();
        nacha::Nacha.verdict(&charge, &self.desk().answer(request).await)
    }

    /// A payment that was debited.
    async fn debited(&self, n: u64) -> Intent {
        let intent = self.sending(n, &format!("A{n}"), "a").await;
        let Verdict::Approved(approval) = self.charge(&intent).await else { panic!("refused") };
        assert_eq!(approval.gateway_reference, intent.confirmation);
        self.go(&intent, State::Approved(approval)).await;
        intent
    }

    /// Writes what waits; names and contents of all files since the start.
    async fn write(&self, now_ms: i64) -> BTreeMap<String, String> {
        self.outbox().write(i64::MAX, None, now_ms).await.unwrap();
        self.files()
    }

    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.directory()).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            if name.ends_with(".ach") {
                files.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
        files
    }

    async fn import(&self, backs: &[Back<'_>]) -> news::Report {
        let bytes = back_file(backs);
        news::take(&self.store, &[self.account()], bytes.as_bytes(), NOW + 50 * HOUR).await.unwrap()
    }

    async fn trace(&self, intent: &Intent) -> String {
        self.store.debits(&intent.id).await.unwrap().last().unwrap().trace.clone()
    }

    async fn undone(&self, intent: &Intent) -> i64 {
        self.store.find(&intent.id).await.unwrap().unwrap().2.minor
    }
}

/// Confirmation numbers in the entries of a file.
fn ids(text: &str) -> Vec<String> {
    let read = Returned::read(text.as_bytes()).unwrap();
    read.items.iter().map(|item| item.id.clone()).collect()
}

fn back<'a>(intent: &'a Intent, trace: &'a str, code: &'a str) -> Back<'a> {
    Back { trace, id: &intent.confirmation, cents: 32_372, code, data: "" }
}

#[tokio::test]
async fn a_debit_is_sealed_until_a_file_holds_it() {
    let bench = Bench::new().await;
    let intent = bench.debited(1).await;
    // A request that is made again finds it there, and one that was not charged debits nothing.
    assert!(matches!(bench.charge(&intent).await, Verdict::Approved(_)));
    let settled = bench.sending(9, "A9", "b").await;
    bench.go(&settled, State::NotCharged("hung up".into())).await;
    assert!(matches!(bench.charge(&settled).await, Verdict::NotSent(_)));
    let everywhere = || -> Vec<u8> {
        let files = fs::read_dir(bench.folder.path()).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.is_file()).flat_map(|path| fs::read(path).unwrap()).collect()
    };
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds(&everywhere(), &intent.confirmation), "nothing was looked at");
    assert!(!holds(&everywhere(), NUMBER) && !holds(&everywhere(), "021000021"));

    let files = bench.write(NOW).await;
    let (name, text) = files.first_key_value().unwrap();
    assert_eq!((files.len(), &**name), (1, "ach-nacha-20261130-A.ach"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[2],
        format!(
            "627021000021{NUMBER}  0000032372{:<15}JAMES WALKER          S 0091000010000001",
            intent.confirmation
        )
    );
    // Written on the 30th, debited on the next banking day.
    assert_eq!(&lines[1][63..75], "261130261201");
    assert!(bench.directory().join("ach-nacha-20261130-A.ach.done").exists());
    let sealed: Vec<String> = sealed(&bench).await;
    assert_eq!(sealed, [String::new()]);
    assert_eq!(bench.write(NOW).await.len(), 1, "it was written twice");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&bench.directory()), 0o700);
        assert_eq!(mode(&bench.directory().join(name)), 0o600);
        fs::set_permissions(bench.directory(), fs::Permissions::from_mode(0o755)).unwrap();
        bench.debited(2).await;
        let why = bench.outbox().write(i64::MAX, None, NOW).await.unwrap_err();
        assert!(why.contains("chmod 700"), "{why}");
    }
}

async fn sealed(bench: &Bench) -> Vec<String> {
    let place = bench.folder.path().join("ledger.db");
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}", place.display());
    let mut other = <sqlx::AnyConnection as sqlx::Connection>::connect(&url).await.unwrap();
    let query = sqlx::query_scalar("select sealed from ach_entry order by created_ms, id");
    query.fetch_all(&mut other).await.unwrap()
}

#[tokio::test]
async fn a_void_takes_a_debit_out_until_a_file_holds_it() {
    let bench = Bench::new().await;
    let (first, second) = (bench.debited(1).await, bench.debited(2).await);
    assert_eq!(
        bench.store.take_out(&first.confirmation).await.unwrap(),
        Ok(first.confirmation.clone())
    );
    // Asked again after a lost answer.
    assert!(bench.store.take_out(&first.confirmation).await.unwrap().is_ok());
    let files = bench.write(NOW).await;
    let want = std::slice::from_ref(&second.confirmation);
    assert_eq!(ids(files.first_key_value().unwrap().1), want);
    let late = bench.store.take_out(&second.confirmation).await.unwrap().unwrap_err();
    assert!(late.contains("in a file for the bank"), "{late}");
    assert!(bench.store.take_out("123").await.unwrap().is_err());
}

#[tokio::test]
async fn files_are_written_at_the_cut_off_of_banking_days() {
    let bench = Bench::new().await;
    bench.debited(1).await;
    let due = async |now_ms| bench.outbox().write_due(now_ms).await.unwrap().len();
    // Recorded at the time of the test's clock, which is past any cut-off of NOW.
    let recorded = clock::wall_ms();
    assert_eq!(due(recorded).await, 0, "before its cut-off");
    assert_eq!(due(recorded + 5 * 24 * HOUR).await, 1);
    assert_eq!(due(recorded + 10 * 24 * HOUR).await, 0);
}

#[tokio::test]
async fn what_is_not_known_to_be_charged_waits() {
    let bench = Bench::new().await;
    let intent = bench.sending(1, "A1", "a").await;
    let Verdict::Approved(approval) = bench.charge(&intent).await else { panic!("refused") };
    bench.go(&intent, State::Unknown("lost".into())).await;
    assert_eq!(bench.write(NOW).await.len(), 0);
    bench.go(&intent, State::Approved(approval)).await;
    assert_eq!(bench.write(NOW).await.len(), 1);
}

#[tokio::test]
async fn a_return_gives_the_money_back_and_may_be_presented_again_twice() {
    let bench = Bench::new().await;
    let intent = bench.debited(1).await;
    bench.write(NOW).await;
    let represent = async |at_ms| {
        let account = bench.account();
        let seal =
            |old: &str, sealed: &str, new: &str| account.seal(new, &account.unseal(old, sealed)?);
        bench.store.represent(&intent, ("ann", "asked"), seal, at_ms).await.unwrap()
    };
    assert!(represent(NOW).await.unwrap_err().contains("only a returned one"));
    for attempt in 0..=2 {
        let trace = bench.trace(&intent).await;
        let report = bench.import(&[back(&intent, &trace, "R01")]).await;
        assert_eq!((report.returns, report.unmatched), (1, 0), "{:?}", report.lines);
        assert_eq!(bench.undone(&intent).await, 32_372);
        // The same file again, and the same news in another file.
        let report = bench.import(&[back(&intent, &trace, "R01")]).await;
        assert_eq!((report.returns, report.known, report.unmatched), (0, 1, 0));
        let other = bench.import(&[back(&intent, &trace, "R02")]).await;
        assert_eq!((other.returns, other.unmatched), (0, 1), "{:?}", other.lines);
        assert_eq!(bench.undone(&intent).await, 32_372);
        if attempt == 2 {
            break;
        }
        assert_eq!(represent(NOW + HOUR).await, Ok(attempt + 1));
        assert!(represent(NOW + HOUR).await.is_err(), "it waits");
        assert_eq!(bench.undone(&intent).await, 0);
        let files = bench.write(NOW + HOUR).await;
        let text = files.last_key_value().unwrap().1;
        assert_eq!(files.len() as i64, attempt + 2);
        assert!(text.lines().nth(1).unwrap()[53..].starts_with("RETRY PYMT"), "{text}");
        assert!(text.contains(NUMBER) && ids(text) == [intent.confirmation.clone()], "{text}");
    }
    assert!(represent(NOW + HOUR).await.unwrap_err().contains("twice"));
    assert!(sealed(&bench).await.iter().all(String::is_empty), "an account number was kept");
}

#[tokio::test]
async fn a_debit_presented_again_can_be_taken_out_too() {
    let bench = Bench::new().await;
    let intent = bench.debited(1).await;
    bench.write(NOW).await;
    let trace = bench.trace(&intent).await;
    bench.import(&[back(&intent, &trace, "R01")]).await;
    let account = bench.account();
    let seal =
        |old: &str, sealed: &str, new: &str| account.seal(new, &account.unseal(old, sealed)?);
    let again = bench.store.represent(&intent, ("ann", "asked"), seal, NOW).await.unwrap();
    assert_eq!(again, Ok(1));
    // Whatever the day of its payment, it is one that waits.
    let waiting = bench.store.waiting_debits().await.unwrap();
    assert_eq!(waiting.iter().map(|it| &it.id).collect::<Vec<_>>(), [&intent.id]);
    assert_eq!(bench.store.gateways_with_debits().await.unwrap(), [&*bench.account().id]);
    let taken = bench.store.take_out(&intent.confirmation).await.unwrap();
    assert_eq!(taken, Ok(intent.confirmation.clone()));
    assert_eq!(bench.write(NOW + HOUR).await.len(), 1, "what was taken out is in no file");
    assert!(sealed(&bench).await.iter().all(String::is_empty), "an account number was kept");
}

#[tokio::test]
async fn a_debit_is_not_presented_again_after_half_a_year() {
    let bench = Bench::new().await;
    let intent = bench.debited(1).await;
    bench.write(NOW).await;
    let trace = bench.trace(&intent).await;
    bench.import(&[back(&intent, &trace, "R09")]).await;
    let seal = |_: &str, sealed: &str, _: &str| Ok(sealed.to_string());
    let late = NOW + 181 * 24 * HOUR;
    let done = bench.store.represent(&intent, ("ann", "asked"), seal, late).await.unwrap();
    assert!(done.unwrap_err().contains("180 days"));
}

#[tokio::test]
async fn each_reason_blocks_what_it_must() {
    for (code, same_account, same_customer) in [
        ("R01", false, false),
        ("R08", false, false),
        ("R02", true, false),
        ("R03", true, false),
        ("R04", true, false),
        ("R05", true, true),
        ("R07", true, true),
        ("R10", true, true),
        ("R11", true, true),
        ("R29", true, true),
    ] {
        let bench = Bench::new().await;
        let intent = bench.debited(1).await;
        bench.write(NOW).await;
        let trace = bench.trace(&intent).await;
        bench.import(&[back(&intent, &trace, code)]).await;
        let refused = async |n, account: &str, letter| {
            let payment = bench.sending(n, account, letter).await;
            bench.charge(&payment).await == Verdict::DeclinedHard
        };
        assert_eq!(refused(2, "A2", "a").await, same_account, "{code}");
        assert_eq!(refused(3, "A1", "b").await, same_customer, "{code}");
        assert!(!refused(4, "A4", "b").await, "{code}");
        let blocks = bench.store.blocks().await.unwrap();
        assert_eq!(blocks.len(), usize::from(same_account) + usize::from(same_customer), "{code}");
        assert_eq!(bench.store.lift_blocks(&intent.id).await.unwrap(), blocks.len() as u64);
        assert!(!refused(5, "A1", "a").await, "{code}");
    }
}

#[tokio::test]
async fn a_debit_that_waits_is_held_while_its_account_is_blocked() {
    let bench = Bench::new().await;
    let first = bench.debited(1).await;
    bench.write(NOW).await;
    let second = bench.debited(2).await;
    let trace = bench.trace(&first).await;
    bench.import(&[back(&first, &trace, "R10")]).await;
    assert_eq!(bench.write(NOW + HOUR).await.len(), 1);
    let waits = bench.store.waiting_debit(&second).await.unwrap().unwrap();
    assert_eq!(waits.1.as_deref(), Some("R10"));
    bench.store.lift_blocks(&first.id).await.unwrap();
    let files = bench.write(NOW + HOUR).await;
    assert_eq!(ids(files.last_key_value().unwrap().1), [second.confirmation]);
}

#[tokio::test]
async fn a_notice_of_change_is_used_at_the_next_debit() {
    let bench = Bench::new().await;
    let first = bench.debited(1).await;
    bench.write(NOW).await;
    let trace = bench.trace(&first).await;
    let notice = |code, data| Back { data, ..back(&first, &trace, code) };
    let report = bench.import(&[notice("C01", "00999999")]).await;
    assert_eq!((report.notices, report.unmatched), (1, 0), "{:?}", report.lines);
    assert_eq!(bench.import(&[notice("C01", "00999999")]).await.known, 1);
    assert_eq!(bench.undone(&first).await, 0);
    let nonsense = bench.import(&[notice("C02", "123456789")]).await;
    assert_eq!((nonsense.notices, nonsense.unmatched), (0, 1), "{:?}", nonsense.lines);
    bench.debited(2).await;
    let files = bench.write(NOW + HOUR).await;
    let text = files.last_key_value().unwrap().1;
    assert!(text.contains("62702100002100999999         0000032372"), "{text}");
    assert!(!text.contains(NUMBER));
}

#[tokio::test]
async fn what_is_about_nothing_here_is_told_and_changes_nothing() {
    let bench = Bench::new().await;
    let ours = bench.debited(1).await;
    bench.write(NOW).await;
    let trace = bench.trace(&ours).await;
    let other = sample::intent(2, "A2");
    let wrong = bench
        .import(&[
            back(&ours, "091000019999999", "R01"),
            back(&other, &trace, "R01"),
            Back { cents: 5, ..back(&ours, &trace, "R01") },
            back(&ours, &trace, "R67"),
        ])
        .await;
    assert_eq!((wrong.returns, wrong.unmatched), (0, 4), "{:?}", wrong.lines);
    for (line, want) in
        wrong.lines.iter().zip(["no debit has", "its id of", "it is of $0.05", "by hand"])
    {
        assert!(line.contains(want), "{line}");
    }
    assert_eq!(bench.undone(&ours).await, 0);
    // A damaged file takes nothing in, though its first return is whole.
    let text = back_file(&[back(&ours, &trace, "R01")]).replace("9000001", "9000002");
    let why =
        news::take(&bench.store, &[bench.account()], text.as_bytes(), NOW).await.err().unwrap();
    assert!(why.contains("line 6, column 2: expected batch count 000001"), "{why}");
    assert_eq!(bench.undone(&ours).await, 0);
}

/// A processor passes our confirmation number on, and the operator's bank sends its returns.
#[tokio::test]
async fn a_return_of_another_gateways_debit_is_known_by_our_number() {
    let bench = Bench::new().await;
    let intent = bench.sending(1, "A1", "a").await;
    bench.go(&intent, State::Approved(sample::approval())).await;
    let report = bench.import(&[back(&intent, "021000029999999", "R10")]).await;
    assert_eq!((report.returns, report.unmatched), (1, 0), "{:?}", report.lines);
    assert_eq!(bench.undone(&intent).await, 32_372);
    assert_eq!(bench.import(&[back(&intent, "021000029999999", "R10")]).await.known, 1);
    let twice = bench.import(&[back(&intent, "021000029999998", "R10")]).await;
    assert!(twice.lines[0].contains("given back before"), "{:?}", twice.lines);
}

/// Fails the step of this number; with `after`, although it was done.
struct Failing {
    left: Mutex<usize>,
    after: bool,
}

impl Failing {
    fn step(&self, work: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut left = self.left.lock().unwrap();
        let failed = || io::Error::other("disk failed (injected)");
        match *left {
            0 => return Err(failed()),
            1 if self.after => work()?,
            1 => {}
            _ => work()?,
        }
        *left -= 1;
        if *left == 0 { Err(failed()) } else { Ok(()) }
    }
}

impl Disk for Failing {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let half = &bytes[..bytes.len() / 2];
        let last = *self.left.lock().unwrap() == 1;
        self.step(|| Machine.write(path, if last { half } else { bytes }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|| Machine.rename(from, to))
    }

    fn sync(&self, folder: &Path) -> io::Result<()> {
        self.step(|| Machine.sync(folder))
    }
}

/// Every step of the disk fails once, done or not done; then it is killed and starts again. All
/// debits are in one file each, and the file is the one that was begun.
#[tokio::test]
async fn a_failing_disk_puts_no_debit_into_two_files_nor_loses_one() {
    let mut seen = Vec::new();
    for after in [false, true] {
        for steps in 1.. {
            let mut bench = Bench::new().await;
            let mut want =
                vec![bench.debited(1).await.confirmation, bench.debited(2).await.confirmation];
            let disk = Failing { left: Mutex::new(steps), after };
            let failed = bench.outbox().on(Arc::new(disk)).write(i64::MAX, None, NOW).await;
            let through = failed.is_ok();
            want.push(bench.debited(3).await.confirmation);
            bench.again().await;
            // A day later, with another company in the configuration: the file stays what it was.
            let mut account = bench.account();
            account.settings.originator.company_name = "ANOTHER".into();
            let zone = Zone::parse("eastern").unwrap();
            let outbox = Outbox::new(account, zone, bench.store.clone());
            outbox.write(i64::MAX, None, NOW + 24 * HOUR).await.unwrap();
            assert_eq!(outbox.write(i64::MAX, None, NOW + 48 * HOUR).await.unwrap(), []);
            let files = bench.files();
            let all: Vec<String> = files.values().flat_map(|text| ids(text)).collect();
            assert_eq!(all, want, "step {steps} after {after}");
            let first = files.first_key_value().map(|(name, text)| (name.clone(), text.clone()));
            seen.extend(first);
            for name in files.keys() {
                assert!(bench.directory().join(format!("{name}.done")).exists(), "step {steps}");
            }
            let temporary =
                fs::read_dir(bench.directory()).unwrap().map(|file| file.unwrap().path());
            let left =
                temporary.filter(|path| path.extension().is_some_and(|e| e == "tmp")).count();
            assert_eq!(left, 0, "step {steps}");
            if through {
                assert!(steps > 5, "only {steps} steps");
                break;
            }
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "another file was written");
}

/// The ledger fails at each of its writes, one after the other, and recovers.
#[tokio::test]
async fn a_failing_ledger_puts_no_debit_into_two_files_nor_loses_one() {
    use sqlx::{Connection, Executor};
    let mut failures = 0;
    for writes in 0.. {
        let mut bench = Bench::new().await;
        let want = [bench.debited(1).await.confirmation, bench.debited(2).await.confirmation];
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}", bench.folder.path().join("ledger.db").display());
        let mut saboteur = sqlx::AnyConnection::connect(&url).await.unwrap();
        saboteur.execute("create table fault (writes_left bigint not null)").await.unwrap();
        let fill = format!("insert into fault values ({writes})");
        saboteur.execute(sqlx::AssertSqlSafe(fill)).await.unwrap();
        for (table, write) in
            [("ach_file", "insert"), ("ach_file", "update"), ("ach_entry", "update")]
        {
            let trigger = format!(
                "create trigger fail_{table}_{write} before {write} on {table} begin \
                 select raise(abort, 'disk I/O error (injected)') from fault where writes_left = 0; \
                 update fault set writes_left = writes_left - 1 where writes_left > 0; end"
            );
            saboteur.execute(sqlx::AssertSqlSafe(trigger)).await.unwrap();
        }
        let through = bench.outbox().write(i64::MAX, None, NOW).await.is_ok();
        failures += usize::from(!through);
        saboteur.execute("update fault set writes_left = -1").await.unwrap();
        saboteur.close().await.unwrap();
        // Whoever takes files to the bank takes what is told to be whole.
        let mut sent = Vec::new();
        let take = |bench: &Bench, sent: &mut Vec<String>| {
            for (name, text) in bench.files() {
                let done = bench.directory().join(format!("{name}.done"));
                if done.exists() {
                    sent.extend(ids(&text));
                    fs::remove_file(done).unwrap();
                    fs::remove_file(bench.directory().join(name)).unwrap();
                }
            }
        };
        take(&bench, &mut sent);
        bench.again().await;
        bench.write(NOW + HOUR).await;
        take(&bench, &mut sent);
        bench.write(NOW + 2 * HOUR).await;
        take(&bench, &mut sent);
        assert_eq!(sent, want, "write {writes}");
        if through {
            break;
        }
    }
    assert!(failures >= 5, "only {failures} failed");
}

/// Two processes write at once: a server at its cut-off and a person.
#[tokio::test(flavor = "multi_thread")]
async fn two_writers_make_one_file() {
    let bench = Bench::new().await;
    for n in 1..=5 {
        bench.debited(n).await;
    }
    let (one, two) = (bench.outbox(), bench.outbox());
    let (one, two) = tokio::join!(one.write(i64::MAX, None, NOW), two.write(i64::MAX, None, NOW));
    assert_eq!(one.unwrap().len() + two.unwrap().len(), 1);
    assert_eq!(bench.files().values().map(|text| ids(text).len()).sum::<usize>(), 5);
}
