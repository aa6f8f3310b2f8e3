//! Payments are looked at, voided, refunded and reconciled from the command line, and a caller who
//! has paid is asked before they pay again.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use ringtill::dial::script::Keying;
use ringtill::gateway::bogus::{Fault, Outcome, Simulator};
use ringtill::server::bogus::BogusHost;
use tokio::runtime::Runtime;

use crate::binary::{
    ACCOUNTS, Binary, RINGTILL, beside_others, config, deadline, expiry, in_days, now,
};
use crate::caller::{JAMES, Line};

const KEY: &str = "sk_bogus_payments";

pub struct Bench {
    _runtime: Runtime,
    host: BogusHost,
    binary: Binary,
}

impl Bench {
    /// A server with its gateway; `velocity` are the limits it has.
    fn new(velocity: &str) -> Bench {
        Bench::with(velocity, |settings| format!("[gateway]\nname = \"bogus\"\n{settings}"))
    }

    /// The same with `gateways` as the configuration has them, given what leads to the simulator.
    pub fn with(velocity: &str, gateways: impl FnOnce(&str) -> String) -> Bench {
        Bench::that("", velocity, gateways)
    }

    /// The same with more in `[payment]`.
    fn that(payment: &str, velocity: &str, gateways: impl FnOnce(&str) -> String) -> Bench {
        let runtime = Runtime::new().unwrap();
        let host = runtime.block_on(BogusHost::start(Simulator::new(KEY, 7))).unwrap();
        let binary = Binary::launch(ACCOUNTS, |folder, port| {
            fs::write(folder.join("ca.pem"), &host.certificate_pem).unwrap();
            let settings = format!(
                "ca_file = \"ca.pem\"\n\
                 [gateway.settings]\nbase_url = \"{}\"\napi_key = \"{KEY}\"\n",
                host.base_url()
            );
            config(folder, port, "info", &gateways(&settings))
                .replace(
                    "duplicate_window_minutes = 0\n",
                    &format!("cvv = false\nzip = false\n{payment}"),
                )
                .replace("caller_attempts = 0, account_attempts = 0", velocity)
        });
        Bench { _runtime: runtime, host, binary }
    }

    /// A command with its exit code and everything it printed.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let done = Command::new(RINGTILL)
            .args(arguments)
            .current_dir(self.binary.folder.path())
            .output()
            .unwrap();
        let text = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(text).unwrap())
    }

    /// James pays his balance; the script goes on with `rest` after the greeting's menu.
    pub fn call(&self, rest: &str) -> Line {
        let script = format!("hear-start greet.hello, key 1, {rest}");
        let mut line = Line::place(self.binary.port, JAMES, &script, Keying::default());
        let ended = line.run();
        assert!(ended.is_ok(), "{ended:?}\n{}", line.log());
        line
    }

    fn pays(&self) -> String {
        format!(
            "hear-start card.ask, key 4111111111111111#, hear-start expiry.ask, key {},
             hear-start consent.accept 60, key 1, hear result.approved 60, hangup",
            expiry()
        )
    }

    /// Waits until `ringtill payments show` says `part`.
    pub fn wait_for(&self, payment: &str, part: &str) -> String {
        let until = deadline(Duration::from_secs(60));
        loop {
            let (_, text) = self.run(&["payments", "show", payment]);
            if text.contains(part) {
                return text;
            }
            assert!(now() < until, "no `{part}` in\n{text}");
            thread::sleep(Duration::from_millis(300));
        }
    }

    /// Confirmation numbers, newest first.
    pub fn confirmations(&self) -> Vec<String> {
        let (code, text) = self.run(&["payments", "list"]);
        assert_eq!(code, Some(0), "{text}");
        text.lines().filter_map(|line| line.split_whitespace().nth(1)).map(String::from).collect()
    }

    /// What is arranged is due, and was looked at.
    fn day_has_come(&mut self) {
        let runtime = Runtime::new().unwrap();
        let ledger = format!("sqlite://{}?mode=rw", self.binary.path("ledger.db").display());
        let due = "update instalment set next_ms = 0, planned_ms = planned_ms - 4 * 86400000";
        runtime.block_on(async {
            sqlx::any::install_default_drivers();
            let ledger = <sqlx::AnyConnection as sqlx::Connection>::connect(&ledger).await;
            let mut ledger = ledger.unwrap();
            sqlx::query("pragma busy_timeout = 5000").execute(&mut ledger).await.unwrap();
            sqlx::query(due).execute(&mut ledger).await.unwrap();
        });
        self.binary.wait_for("arranged payments");
    }
}

#[test]
fn payments_are_undone_and_reconciled() {
    let _turn = beside_others();
    let mut bench = Bench::new("");
    let pays = bench.pays();
    bench.call(&pays);
    let [paid] = &bench.confirmations()[..] else { panic!("{:?}", bench.confirmations()) };
    let shown = bench.wait_for(paid, "posted");
    for part in ["$321.72 + $2.00 fee = $323.72", "card, visa ending 1111", "account 1001"] {
        assert!(shown.replace("account      ", "account ").contains(part), "{part}: {shown}");
    }
    let (code, text) = bench.run(&["reconcile"]);
    assert!(code == Some(0) && text.contains("1 payments, 0 differences"), "{code:?} {text}");

    // Not settled yet: the gateway refuses, and the ledger says who tried and why.
    let refund = ["payments", "refund", paid, "--amount", "20.00", "--why", "late", "--by", "ann"];
    let (code, text) = bench.run(&refund);
    assert!(code == Some(1) && text.contains("voided instead"), "{code:?} {text}");
    let shown = bench.run(&["payments", "show", paid]).1;
    assert!(shown.contains("refund of $20.00 by ann: late"), "{shown}");

    // What is kept may hold no card.
    let why = "card 4111-1111 1111-1111 stolen";
    let (code, text) = bench.run(&["payments", "void", paid, "--why", why]);
    assert!(code == Some(1) && text.contains("leave the card number out"), "{code:?} {text}");
    assert!(!text.contains("1111"), "{text}");

    // Voided, but the answer is lost: the server asks again, and it is voided once.
    bench.host.simulator.lock().unwrap().fail_next(Fault::CloseAfterProcessing);
    let void = ["payments", "void", paid, "--why", "paid twice", "--by", "bob"];
    let (code, text) = bench.run(&void);
    assert!(code == Some(1) && text.contains("do not repeat it"), "{code:?} {text}");
    let (code, text) = bench.run(&void);
    assert_eq!(code, Some(1), "{text}");
    let shown = bench.wait_for(paid, "void done");
    assert!(shown.contains("posted, $323.72 given back"), "{shown}");
    assert!(shown.contains("void of $323.72 by bob: paid twice"), "{shown}");
    assert_eq!(bench.host.sales()[0].outcome, Outcome::Voided);
    let (code, text) = bench.run(&void);
    assert!(code == Some(1) && text.contains("was given back before"), "{code:?} {text}");
    let (code, text) = bench.run(&["payments", "void", "999", "--why", "x"]);
    assert!(code == Some(1) && text.contains("no payment has"), "{code:?} {text}");

    let settle = ["payments", "settle", paid, "--as", "declined", "--why", "x"];
    let (code, text) = bench.run(&settle);
    assert!(code == Some(1) && text.contains("it is posted already"), "{code:?} {text}");

    // The biller is told of both, and everybody agrees.
    let posting = bench.binary.path("posting");
    let files = || {
        let all = fs::read_dir(&posting).unwrap().map(|file| file.unwrap().path());
        let mut all: Vec<_> = all.filter(|file| file.extension().unwrap() == "csv").collect();
        all.sort();
        all
    };
    let until = deadline(Duration::from_secs(30));
    while files().len() < 2 {
        assert!(now() < until, "the void is in no file");
        thread::sleep(Duration::from_millis(100));
    }
    assert!(fs::read_to_string(&files()[1]).unwrap().contains(",voided,"));
    let (code, text) = bench.run(&["reconcile"]);
    assert!(code == Some(0) && text.contains("0 differences"), "{code:?} {text}");

    // A file is gone, another was touched.
    let first = files()[0].clone();
    fs::rename(&first, posting.join("elsewhere")).unwrap();
    let (code, text) = bench.run(&["reconcile"]);
    assert!(code == Some(1) && text.contains("file 1 of `testco` is not in"), "{code:?} {text}");
    assert!(text.contains("it is in no file. Bring back the missing file"), "{text}");
    fs::rename(posting.join("elsewhere"), &first).unwrap();
    let touched = fs::read_to_string(&first).unwrap().replace("323.72", "323.73");
    fs::write(&first, touched).unwrap();
    let (code, text) = bench.run(&["reconcile"]);
    assert!(code == Some(1) && text.contains("Restore it from a copy"), "{code:?} {text}");
    let (code, text) = bench.run(&["reconcile", "2001-02-03"]);
    assert!(code == Some(1) && text.contains("2001-02-03: 0 payments"), "{code:?} {text}");
    assert_eq!(bench.binary.stop(), Some(0));
}

#[test]
fn a_gateway_that_cannot_be_reached_is_followed_by_the_next() {
    let _turn = beside_others();
    let mut bench = Bench::with("", |settings| {
        let down = "id = \"down\"\nname = \"bogus\"\nfailures_max = 1\nrest_s = 3600\n";
        let nowhere = "[gateway.settings]\nbase_url = \"https://127.0.0.1:1\"\napi_key = \"k\"\n";
        let up = format!("id = \"up\"\nname = \"bogus\"\ncards = [\"visa\"]\n{settings}");
        format!("[[gateway]]\n{down}{nowhere}[[gateway]]\n{up}")
    });
    let (code, text) = bench.run(&["gateway", "test", "up"]);
    assert!(code == Some(0) && text.contains("bogus up"), "{code:?} {text}");
    let (code, text) = bench.run(&["gateway", "test"]);
    assert!(code == Some(1) && text.contains("the network's"), "{code:?} {text}");
    let (code, text) = bench.run(&["gateway", "test", "dwon"]);
    assert!(code == Some(1) && text.contains("there are: down, up"), "{code:?} {text}");

    let pays = bench.pays();
    bench.call(&pays);
    // It has failed once: the second is not sent there at all.
    bench.call(&format!("hear again.approved, hear-start again.ask, key 1, {pays}"));
    bench.binary.wait_for("it has failed too often");
    let (_, text) = bench.run(&["payments", "list"]);
    let lines = |parts: [&str; 2]| {
        let has = |line: &&str| parts.iter().all(|part| line.contains(part));
        text.lines().filter(has).count()
    };
    assert_eq!(lines(["approved", " up "]) + lines(["posted", " up "]), 2, "{text}");
    assert_eq!(lines(["not_charged", " down "]), 1, "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    // Beside the test card, verified twice.
    assert_eq!(bench.host.sales().len(), 2 + 2);

    let mut up = text.lines().filter(|line| line.contains(" up "));
    let first = up.next_back().and_then(|line| line.split_whitespace().nth(1)).unwrap().to_string();

    // What was charged there is undone there, and compared with it.
    let latest = bench.confirmations()[0].clone();
    let (code, text) = bench.run(&["payments", "void", &latest, "--why", "asked for"]);
    assert!(code == Some(0) && text.contains("void of $323.72 done"), "{code:?} {text}");
    bench.wait_for(&first, "posted");
    assert_eq!(bench.binary.stop(), Some(0));
    let (code, text) = bench.run(&["reconcile"]);
    assert!(code == Some(0) && text.contains("3 payments, 0 differences"), "{code:?} {text}");
}

/// A card is kept at the first call and pays at the second with three keys; deleted, it is gone.
#[test]
fn a_card_that_is_kept_pays_the_next_time() {
    let _turn = beside_others();
    let mut bench = Bench::with("", |settings| {
        format!("[payment.saved]\n[gateway]\nname = \"bogus\"\n{settings}")
    });
    let expiry = expiry();
    bench.call(&format!(
        "hear-start card.ask, key 4111111111111111#, hear-start expiry.ask, key {expiry},
         hear-start saved.keep, key 1, hear-start saved.agree 60, key 1,
         hear-start consent.accept 60, key 1, hear result.approved 60, hear saved.kept 60, hangup"
    ));
    let (code, text) = bench.run(&["cards", "list"]);
    assert!(code == Some(0) && text.contains("account 1001  visa 1111"), "{code:?} {text}");
    assert!(!text.contains("tok_"), "{text}");

    // The same amount within a day is asked about: that one key is not the card's.
    bench.call(
        "hear again.approved, hear-start again.ask, key 1, hear-start saved.pay_with, key 1,
         hear-start consent.accept 60, key 1, hear result.approved 60, hangup",
    );
    let sales = bench.host.sales();
    let numbers: Vec<_> = sales.iter().map(|sale| (sale.total.minor, sale.outcome)).collect();
    assert_eq!(numbers, [(32_372, Outcome::Approved); 2]);
    let (_, text) = bench.run(&["payments", "list"]);
    assert_eq!(text.matches("visa 1111").count(), 2, "{text}");

    // Neither its number nor its token is in anything but the ledger, and there only the token.
    bench.binary.wait_for("call ended");
    let token = sales[0].token.clone().expect("kept");
    for (path, bytes) in bench.binary.files() {
        let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(!has("4111111111111111"), "the number is in {}", path.display());
        let ledger = path.to_string_lossy().contains(".db");
        assert!(!has(&token) || ledger, "the token is in {}", path.display());
    }
    let log = bench.binary.log.join("\n");
    assert!(!log.contains(&token) && !log.contains("4111111111111111"), "{log}");

    let why = ["--why", "asked for", "--by", "ann"];
    let delete = |more: &[&str]| bench.run(&[&["cards", "delete", "1001"], more, &why].concat());
    let (code, text) = delete(&["--ending", "2222"]);
    assert!(code == Some(1) && text.contains("no such card"), "{code:?} {text}");
    let (code, text) = delete(&[]);
    assert!(code == Some(0) && text.contains("visa ending 1111 is charged no more"), "{text}");
    let (code, text) = bench.run(&["cards", "list", "1001"]);
    assert!(code == Some(0) && text.is_empty(), "{code:?} {text}");
    bench.call("hear again.approved, hear-start again.ask, key 1, hear-start card.ask, hangup");
    assert_eq!(bench.host.sales().len(), 2);
    assert_eq!(bench.binary.stop(), Some(0));
}

#[test]
fn a_caller_who_has_paid_is_asked_before_paying_again() {
    let _turn = beside_others();
    let mut bench = Bench::new("");
    let pays = bench.pays();
    bench.call(&pays);
    bench.call("hear again.approved, hear-start again.ask, key 2, hear again.stopped, wait-end");
    assert_eq!(bench.host.sales().len(), 1);
    bench.call(&format!("hear again.approved, hear-start again.ask, key 1, {pays}"));
    assert_eq!(bench.host.sales().len(), 2);
    // The latest is undone: there is still the first.
    let latest = bench.confirmations()[0].clone();
    let (code, text) = bench.run(&["payments", "void", &latest, "--why", "asked for"]);
    assert!(code == Some(0) && text.contains("void of $323.72 done"), "{code:?} {text}");
    bench.call("hear again.approved, hear-start again.ask, key 2, hear again.stopped, wait-end");
    let first = bench.confirmations()[1].clone();
    let (code, text) = bench.run(&["payments", "void", &first, "--why", "asked for"]);
    assert!(code == Some(0), "{text}");
    bench.call("hear-start card.ask, hangup");
    assert_eq!(bench.binary.stop(), Some(0));
}

#[test]
fn who_tries_cards_is_told_nothing_and_then_locked_out() {
    let _turn = beside_others();
    let mut bench = Bench::new("caller_declines = 2, quiet_after = 1");
    let card = |number: &str| {
        let expiry = expiry();
        format!("hear-start card.ask, key {number}#, hear-start expiry.ask, key {expiry}, ")
    };
    let refused = "hear-start consent.accept 60, key 1, hear result.declined 60,
                   hear-start retry.other_card, key 1, ";
    // The second is stolen, which is told to nobody who has tried another before.
    let (first, second) = (card("4000000000000002"), card("4000000000009979"));
    let third = card("4111111111111111");
    bench.call(&format!(
        "{first}{refused}{second}{refused}{third}hear result.not_charged, wait-end"
    ));
    assert_eq!(bench.host.sales().len(), 2);
    bench.binary.wait_for("too much was tried");
    // A restart forgets nothing, and nobody is asked for a card in vain.
    bench.binary.kill();
    bench.binary.start_again();
    bench.call("hear result.not_charged, wait-end");
    assert_eq!(bench.host.sales().len(), 2);
    assert_eq!(bench.binary.stop(), Some(0));
}

/// A kept card is charged on a later date, without a call, and what is arranged can be cancelled.
#[test]
fn two_accounts_are_paid_at_once() {
    let _turn = beside_others();
    let mut bench = Bench::that("several_accounts = true\n", "", |settings| {
        format!("[gateway]\nname = \"bogus\"\n{settings}")
    });
    bench.call(&format!(
        "hear-start several.ask, key 1, hear-start account.ask, key 1002#,
         hear-start zip.verify_ask, key 46204, hear-start menu.amount, key 2,
         hear-start amount.ask, key 5000#, hear-start amount.confirm, key 1,
         hear several.together 60, hear-start several.ask, key 2, {}",
        bench.pays()
    ));
    assert_eq!(bench.host.sales().len(), 1);
    assert_eq!(bench.host.sales()[0].total.minor, 32_172 + 5_000 + 200);
    let [paid] = &bench.confirmations()[..] else { panic!("{:?}", bench.confirmations()) };
    let shown = bench.wait_for(paid, "posted");
    for part in ["1001 + 1002 of testco", "$321.72 for account 1001", "$50.00 for account 1002"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let by_account = bench.run(&["payments", "list", "--account", "1002"]).1;
    assert!(by_account.contains("account 1001 + 1002"), "{by_account}");

    // Each account has its row, and everybody agrees.
    let posting = bench.binary.path("posting");
    let rows = || {
        let files = fs::read_dir(&posting).unwrap().map(|file| file.unwrap().path());
        let files = files.filter(|file| file.extension().unwrap() == "csv");
        let text: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
        let rows = text.lines().filter(|row| row.starts_with("PMT"));
        let rows = rows.map(|row| row.split(',').map(String::from).collect::<Vec<_>>());
        let mut rows: Vec<_> =
            rows.map(|row| [3, 4, 5, 11, 22].map(|cell| row[cell].clone()).join(" ")).collect();
        rows.sort();
        rows
    };
    assert_eq!(rows(), ["1001 321.72 2.00 approved 1/2", "1002 50.00 0.00 approved 2/2"]);
    let (code, text) = bench.run(&["reconcile"]);
    assert!(code == Some(0) && text.contains("1 payments, 0 differences"), "{code:?} {text}");

    // It goes back as it came.
    let (code, text) = bench.run(&["payments", "void", paid, "--why", "asked", "--by", "ann"]);
    assert_eq!(code, Some(0), "{text}");
    let until = deadline(Duration::from_secs(30));
    while rows().len() < 4 {
        assert!(now() < until, "the void is in no file: {:?}", rows());
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(rows()[1], "1001 321.72 2.00 voided 1/2");
    assert_eq!(rows()[3], "1002 50.00 0.00 voided 2/2");
    let (code, text) = bench.run(&["reconcile"]);
    assert!(code == Some(0) && text.contains("0 differences"), "{code:?} {text}");
    assert_eq!(bench.binary.stop(), Some(0));
}

/// A card that is keyed is verified and kept, and charged on its day; one that is refused is not.
#[test]
fn a_card_that_was_never_charged_is_put_off() {
    let _turn = beside_others();
    let mut bench = Bench::with("", |settings| {
        let later = "[payment.saved]\n[payment.later]\ntime_zone = \"eastern\"\n";
        format!("{later}[gateway]\nname = \"bogus\"\n{settings}")
    });
    let date = in_days(3);
    let (expiry, dates) = (expiry(), put_off(date));
    let keyed = |number: &str| {
        format!(
            "hear-start card.ask, key {number}#, hear-start expiry.ask, key {expiry},
             hear-start saved.keep, key 1, hear-start saved.agree 60, key 1, {dates}"
        )
    };
    let refused = keyed("4000000000000002");
    bench.call(&format!("{refused}, hear result.declined 60, hangup"));
    assert_eq!(bench.run(&["later", "list"]).1, "");
    assert_eq!(bench.run(&["cards", "list"]).1, "");

    let good = keyed("4111111111111111");
    bench.call(&format!("{good}, hear later.number 60, hear saved.kept 60, hangup"));
    let listed = bench.run(&["later", "list", "1001"]).1;
    assert!(listed.contains(&format!("    {date}  $323.72  waiting")), "{listed}");
    let totals: Vec<i64> = bench.host.sales().iter().map(|sale| sale.total.minor).collect();
    assert_eq!(totals, [0, 0], "verified, and nothing charged");

    bench.day_has_come();
    let listed = bench.run(&["later", "list", "--all"]).1;
    assert!(listed.contains("done") && listed.contains("paid  confirmation"), "{listed}");
    assert_eq!(bench.host.sales()[2].total.minor, 32_372);
    // Of three requests one is a payment.
    let [paid] = &bench.confirmations()[..] else { panic!("not one payment") };
    bench.wait_for(paid, "posted");
    let all = bench.run(&["payments", "list", "--verifications"]).1;
    let ends: Vec<_> = all.lines().map(|line| line.get(33..50).unwrap_or(line).trim()).collect();
    assert_eq!(ends[1..], ["card verified", "card not verified"], "{all}");
    let number = all.lines().nth(1).and_then(|line| line.split_whitespace().nth(1)).unwrap();
    let shown = bench.run(&["payments", "show", number]).1;
    for part in ["amount       none: a card was verified", "state        card verified"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (code, text) = bench.run(&["reconcile"]);
    assert!(code == Some(0) && text.contains("1 payments, 0 differences"), "{code:?} {text}");
    assert_eq!(bench.binary.stop(), Some(0));
}

/// Keys at the question when to pay.
fn put_off(date: jiff::civil::Date) -> String {
    let keys = format!("{:02}{:02}", date.month(), date.day());
    format!(
        "hear-start later.today, key 2, hear-start later.ask_date, key {keys},
         hear-start later.chosen, key 1, hear-start later.agree 60, key 1"
    )
}

#[test]
fn a_payment_is_put_off_charged_and_cancelled() {
    let _turn = beside_others();
    let mut bench = Bench::with("", |settings| {
        let later = "[payment.saved]\n[payment.later]\ntime_zone = \"eastern\"\n";
        format!("{later}[gateway]\nname = \"bogus\"\n{settings}")
    });
    bench.call(&format!(
        "hear-start card.ask, key 4111111111111111#, hear-start expiry.ask, key {},
         hear-start saved.keep, key 1, hear-start saved.agree 60, key 1,
         hear-start later.today, key 1,
         hear-start consent.accept 60, key 1, hear saved.kept 60, hangup",
        expiry()
    ));
    let date = in_days(3);
    let dates = put_off(date);
    let put_off = format!(
        "hear-start again.ask 60, key 1, hear-start saved.pay_with, key 1, {dates},
         hear later.number 60, hangup"
    );
    bench.call(&put_off);
    let listed = bench.run(&["later", "list", "1001"]).1;
    assert!(listed.contains(&format!("    {date}  $323.72  waiting")), "{listed}");
    let number = listed.split_whitespace().next().unwrap().to_string();
    assert_eq!(bench.host.sales().len(), 1);
    bench.day_has_come();
    let listed = bench.run(&["later", "list", "--all"]).1;
    assert!(listed.contains("done") && listed.contains("paid  confirmation"), "{listed}");
    assert_eq!(bench.host.sales().len(), 2);
    assert_eq!(bench.host.sales()[1].total.minor, 32_372);
    let paid = bench.confirmations().remove(0);
    assert!(bench.wait_for(&paid, "posted").contains(&format!("later-{number}")), "{listed}");

    // Another one is cancelled by the biller; a third ends with its card.
    bench.call(&put_off);
    let listed = bench.run(&["later", "list"]).1;
    let number = listed.split_whitespace().next().unwrap();
    let cancel = ["later", "cancel", number, "--why", "asked for", "--by", "ann"];
    let (code, text) = bench.run(&cancel);
    assert!(code == Some(0) && text.contains("nothing more is charged"), "{code:?} {text}");
    let (code, text) = bench.run(&cancel);
    assert!(code == Some(1) && text.contains("is cancelled already"), "{code:?} {text}");
    assert_eq!(bench.run(&["later", "list"]).1, "");
    bench.call(&put_off);
    let (_, text) = bench.run(&["cards", "delete", "1001", "--why", "lost", "--by", "ann"]);
    assert!(text.contains("(once) is stopped"), "{text}");
    let listed = bench.run(&["later", "list", "--all"]).1;
    assert!(listed.contains("cancelled by ann: asked for"), "{listed}");
    assert!(listed.contains("stopped: its card was deleted"), "{listed}");
    assert_eq!(bench.binary.stop(), Some(0));
}
