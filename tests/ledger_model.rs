//! The ledger on disk against a plain model of it: random commands, the disk failing after some
//! writes, the file opened again in between. After every command both must hold the same.
//!
//! `RINGTILL_SEED` replays one sequence, `RINGTILL_RUNS` says how many are tried (24).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringtill::ach::{Action, Code, settings};
use ringtill::gateway::Approval;
use ringtill::instrument::{
    AccountKind, Brand, Fingerprint, Last4, Means, Method, luhn_check_digit,
};
use ringtill::ledger::reconcile::{self, Row};
use ringtill::ledger::velocity::Limits;
use ringtill::ledger::{
    Change, Entry, FeeFailure, Intent, Origin, Progress, Recorded, Screening, Split, State, Undo,
};
use ringtill::money::Money;
use ringtill::server::store::Store;
use ringtill::server::store::ach::news::{Piece, Taken};
use ringtill::server::store::ach::{Debited, Wanted};
use ringtill::server::store::change::Begun;
use sqlx::{AnyConnection, Connection, Executor};

#[path = "ledger_model/later.rs"]
mod later; // what is arranged with kept cards
#[path = "ledger_model/pair.rs"]
mod pair; // bills whose fee was not charged
#[path = "ledger_model/several.rs"]
mod several; // several accounts in one payment

const COMMANDS: usize = 500;
const BILLER: &str = "acme";

#[test]
fn the_ledger_is_what_the_model_says() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("RINGTILL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RINGTILL_RUNS").unwrap_or(24),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut sum = Tally::default();
    for seed in seeds {
        let run = AssertUnwindSafe(|| runtime.block_on(sequence(seed)));
        match catch_unwind(run) {
            Ok(tally) => sum.add(&tally),
            Err(panic) => {
                eprintln!("RINGTILL_SEED={seed} cargo test --test ledger_model");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{sum:?}");
    // Otherwise nothing was tried.
    if std::env::var_os("RINGTILL_SEED").is_none() {
        let Tally { applied, refused, failed, reopened, posted, undone, .. } = sum;
        let Tally { debited, returned, again, charged, fees, kept_back, several, .. } = sum;
        let ledger = [applied, refused, failed, reopened, posted, undone];
        let rest = [debited, returned, again, charged, fees, kept_back, several];
        let rest = rest.into_iter().chain([sum.contradicted, sum.moneyless]);
        let rest = rest.chain([sum.waived, sum.standing]);
        for count in ledger.into_iter().chain(rest) {
            assert!(count > 10, "{sum:?}");
        }
    }
}

/// What the sequences did.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    applied: usize,
    refused: usize,
    failed: usize,
    reopened: usize,
    posted: usize,
    undone: usize,
    /// Debits in files, those that came back, and those presented again.
    debited: usize,
    returned: usize,
    again: usize,
    /// Payments that were arranged before.
    charged: usize,
    /// Fees that were sent apart from their bills, and what was refused for there being two.
    fees: usize,
    kept_back: usize,
    /// Payments for several accounts, and those that were refused for what they say of them.
    several: usize,
    contradicted: usize,
    /// What was refused of verifications, for it is about money.
    moneyless: usize,
    /// Bills that stand without their fees, and those that were not given back for that.
    waived: usize,
    standing: usize,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.applied += other.applied;
        self.refused += other.refused;
        self.failed += other.failed;
        self.reopened += other.reopened;
        self.posted += other.posted;
        self.undone += other.undone;
        self.debited += other.debited;
        self.returned += other.returned;
        self.again += other.again;
        self.charged += other.charged;
        self.fees += other.fees;
        self.kept_back += other.kept_back;
        self.several += other.several;
        self.contradicted += other.contradicted;
        self.moneyless += other.moneyless;
        self.waived += other.waived;
        self.standing += other.standing;
    }
}

/// The ledger as it should be: no database, no transactions, nothing shared with the real one.
#[derive(Default)]
struct Model {
    payments: BTreeMap<String, Payment>,
    book: later::Book,
    files: u64,
    /// As in [`Tally`].
    fees: usize,
    kept_back: usize,
    several: usize,
    contradicted: usize,
    moneyless: usize,
    waived: usize,
    standing: usize,
}

struct Payment {
    intent: Intent,
    state: State,
    /// Names of the states it was in, and when it came into the last one.
    steps: Vec<&'static str>,
    last_ms: i64,
    /// It is in a reconciliation file.
    filed: bool,
    undone: i64,
    changes: Vec<Undoing>,
    debits: Vec<Debit>,
    /// Its account is not debited any more.
    blocks: bool,
    /// A person let it stand without its fee.
    stands: bool,
}

/// One presentment to the bank: its state, and the reason it came back with.
#[derive(Clone, Debug, PartialEq)]
struct Debit {
    state: &'static str,
    code: String,
}

struct Undoing {
    change: Change,
    progress: Progress,
    filed: bool,
}

impl Undoing {
    fn is_done(&self) -> bool {
        self.progress.name() == "done"
    }
}

impl Payment {
    fn go(&mut self, to: State, now_ms: i64) {
        self.steps.push(to.name());
        self.state = to;
        self.last_ms = now_ms;
    }

    fn taken(&self) -> Option<i64> {
        match &self.state {
            State::Approved(_) | State::Posted(_) => Some(self.intent.total()?.minor),
            State::Held(_, Some(approval)) => Some(approval.partial?.minor),
            _ => None,
        }
    }
}

impl Payment {
    fn waits(&self) -> bool {
        let received = ["approved", "posted"].contains(&self.state.name());
        received && self.debits.last().is_some_and(|debit| debit.state == "waiting")
    }

    /// A change that nobody was asked for: it has happened.
    fn happened(
        &mut self,
        (id, act): (String, Undo),
        (who, why): (&str, &str),
        detail: String,
        now_ms: i64,
    ) {
        let change = Change {
            id,
            intent_id: self.intent.id.clone(),
            act,
            amount: self.intent.total().unwrap(),
            who: who.into(),
            why: why.into(),
            created_ms: now_ms,
        };
        self.undone += back(&change);
        self.changes.push(Undoing { change, progress: Progress::Done(detail), filed: false });
    }
}

/// What a change gives back; less than nothing if it is received once more.
fn back(change: &Change) -> i64 {
    match change.act {
        Undo::Represented => -change.amount.minor,
        _ => change.amount.minor,
    }
}

/// A confirmation number of a test's own.
fn number(n: u64) -> String {
    let stem = (10_000_000 + n).to_string();
    format!("{stem}{}", luhn_check_digit(&stem))
}

fn kind(debited: &Debited) -> &'static str {
    match debited {
        Debited::Stored(_, true) => "new",
        Debited::Stored(_, false) => "there",
        Debited::Blocked(_) => "blocked",
        Debited::Refused(_) => "refused",
    }
}

/// Every way from one state to another there is.
const WAYS: [(&str, &str); 22] = [
    ("consented", "sending"),
    ("consented", "not_charged"),
    ("sending", "approved"),
    ("sending", "declined"),
    ("sending", "held"),
    ("sending", "unknown"),
    ("sending", "not_charged"),
    ("unknown", "approved"),
    ("unknown", "declined"),
    ("unknown", "held"),
    ("unknown", "not_charged"),
    ("unknown", "manual"),
    ("held", "approved"),
    ("held", "declined"),
    ("manual", "approved"),
    ("manual", "declined"),
    ("manual", "held"),
    ("manual", "not_charged"),
    ("approved", "posted"),
    // Of changes.
    ("sending", "done"),
    ("unknown", "done"),
    ("manual", "done"),
];

const OPEN: [&str; 3] = ["consented", "sending", "unknown"];

impl Model {
    fn consent(&mut self, intent: &Intent, now_ms: i64) -> Recorded {
        let same = |one: &Payment| {
            let ours = &one.intent;
            let alike = (&ours.biller, ours.fingerprint) == (&intent.biller, intent.fingerprint);
            ours.id == intent.id
                || ours.confirmation == intent.confirmation
                || (OPEN.contains(&one.state.name())
                    && [ours, intent].iter().all(|one| one.split.bill().is_none())
                    && alike
                    && several::meet(ours, intent))
                || (intent.split.bill().is_some() && ours.split == intent.split)
        };
        if !several::adds_up(intent) {
            self.contradicted += 1;
            return Recorded::Illegal;
        }
        if self.payments.values().any(same) {
            return Recorded::Conflict;
        }
        self.several += usize::from(!intent.allocations.is_empty());
        let payment = Payment {
            intent: intent.clone(),
            state: State::Consented,
            steps: vec!["consented"],
            last_ms: now_ms,
            filed: false,
            undone: 0,
            changes: Vec::new(),
            debits: Vec::new(),
            blocks: false,
            stands: false,
        };
        self.payments.insert(intent.id.clone(), payment);
        Recorded::Stored
    }

    fn step(&mut self, id: &str, to: &State, now_ms: i64) -> Recorded {
        let bill = self.payments.get(id).and_then(|one| one.intent.split.bill());
        if let (Some(bill), State::Sending) = (bill, to) {
            let bill = self.payments.get(bill).filter(|bill| {
                let open = ["sending", "unknown", "manual"];
                bill.state.approval().is_some()
                    && bill.undone == 0
                    && !bill.changes.iter().any(|one| open.contains(&one.progress.name()))
            });
            if bill.is_none() {
                self.kept_back += 1;
                return Recorded::Illegal;
            }
            self.fees += usize::from(self.payments[id].state == State::Consented);
        }
        let Some(payment) = self.payments.get_mut(id) else { return Recorded::Illegal };
        let verifies = payment.intent.split == Split::Verification;
        if verifies && !matches!(to, State::Sending | State::Declined(_) | State::NotCharged(_)) {
            self.moneyless += 1;
            return Recorded::Illegal;
        }
        let way = (payment.state.name(), to.name());
        let other = way == ("approved", "posted") && payment.state.approval() != to.approval();
        if !WAYS.contains(&way) || other {
            return Recorded::Illegal;
        }
        payment.go(to.clone(), now_ms);
        Recorded::Stored
    }

    /// How many were (not charged, made unknown).
    fn recover(&mut self, before_ms: i64, now_ms: i64) -> (usize, usize) {
        let (mut not_charged, mut unknown) = (0, 0);
        for payment in self.payments.values_mut().filter(|one| one.last_ms < before_ms) {
            match payment.state {
                State::Consented => {
                    not_charged += 1;
                    payment.go(State::NotCharged(String::new()), now_ms);
                }
                State::Sending if payment.intent.split == Split::Verification => {
                    not_charged += 1;
                    payment.go(State::NotCharged(String::new()), now_ms);
                }
                State::Sending => {
                    unknown += 1;
                    payment.go(State::Unknown(String::new()), now_ms);
                }
                _ => {}
            }
        }
        (not_charged, unknown)
    }

    /// Rows and their sum, if there is anything to write.
    fn post(&mut self, now_ms: i64) -> Option<(usize, i64)> {
        let (mut rows, mut sum) = (0, 0);
        for payment in self.payments.values_mut() {
            let name = payment.state.name();
            let last = ["approved", "posted", "declined", "not_charged"].contains(&name);
            let accounts = several::accounts(&payment.intent);
            let verifies = payment.intent.split == Split::Verification;
            if last && !payment.filed && !verifies {
                payment.filed = true;
                rows += accounts.len();
                // One that was posted by hand is money received as well.
                sum += payment.state.approval().map_or(0, |_| payment.taken().unwrap());
                if name == "approved" {
                    let approval = payment.state.approval().unwrap().clone();
                    payment.go(State::Posted(approval), now_ms);
                }
            }
            let received = payment.state.name() == "posted";
            let (mut before, taken) = (0, payment.taken());
            for undoing in payment.changes.iter_mut().filter(|one| received && one.is_done()) {
                let whole = undoing.change.act != Undo::Refund;
                let minor = undoing.change.amount.minor;
                // Of what went back or came whole the fee is told apart.
                let (before_this, told) = match whole {
                    true => (0, payment.intent.amount.minor),
                    false => (if Some(minor) == taken { 0 } else { before }, minor),
                };
                if !undoing.filed {
                    undoing.filed = true;
                    let off = several::taken_off(&accounts, before_this, told);
                    let one = accounts.len() == 1;
                    rows += if one { 1 } else { off.iter().filter(|off| **off > 0).count() };
                    sum -= back(&undoing.change);
                }
                before += back(&undoing.change);
            }
        }
        self.files += u64::from(rows > 0);
        (rows > 0).then_some((rows, sum))
    }

    /// The amount of a change that may begin.
    fn begin(&mut self, change: &Change, amount: Option<i64>, waived: bool) -> Option<i64> {
        let fee_stands = self.payments.values().any(|one| {
            let settled = ["consented", "declined", "not_charged"].contains(&one.state.name());
            let back = one.state.approval().is_some() && one.undone >= 200;
            one.intent.split.bill() == Some(&change.intent_id) && !settled && !back
        });
        let payment = self.payments.get_mut(&change.intent_id)?;
        let taken = payment.taken()?;
        let open = ["sending", "unknown", "manual"];
        if payment.changes.iter().any(|one| open.contains(&one.progress.name())) {
            return None;
        }
        let left = taken - payment.undone;
        let amount = amount.unwrap_or(left);
        let whole = amount == taken && payment.undone == 0;
        if amount < 1 || amount > left || (change.act == Undo::Void && !whole) {
            return None;
        }
        if fee_stands && amount == left {
            self.kept_back += 1;
            return None;
        }
        if payment.stands && amount == left && !waived {
            self.standing += 1;
            return None;
        }
        let change = Change { amount: Money::usd(amount), ..change.clone() };
        let progress = Progress::Sending;
        payment.changes.push(Undoing { change, progress, filed: false });
        Some(amount)
    }

    fn progress(&mut self, change: &Change, to: &Progress, now_ms: i64) -> bool {
        let Some(payment) = self.payments.get_mut(&change.intent_id) else { return false };
        let mut changes = payment.changes.iter_mut();
        let Some(undoing) = changes.find(|one| one.change.id == change.id) else { return false };
        let allowed = match (undoing.progress.name(), to.name()) {
            ("sending", "unknown" | "not_sent" | "refused") => true,
            ("unknown", "manual" | "refused") | ("manual", "refused") => true,
            way => WAYS.contains(&way) && to.name() == "done",
        };
        if !allowed {
            return false;
        }
        undoing.progress = to.clone();
        if to.name() == "done" {
            payment.undone += change.amount.minor;
            if payment.state.name() == "held" {
                payment.go(State::Declined("given back".into()), now_ms);
            }
        }
        true
    }

    /// What a debit of this payment is told: new, there, refused or blocked.
    fn debit(&mut self, id: &str) -> &'static str {
        let Some(payment) = self.payments.get(id) else { return "refused" };
        if !payment.debits.is_empty() {
            return "there";
        }
        if !["sending", "unknown"].contains(&payment.state.name()) {
            return "refused";
        }
        if self.is_blocked(&payment.intent) {
            return "blocked";
        }
        let debit = Debit { state: "waiting", code: String::new() };
        self.payments.get_mut(id).unwrap().debits.push(debit);
        "new"
    }

    /// Some account whose debit came back for good.
    fn is_blocked(&self, intent: &Intent) -> bool {
        let mut all =
            self.payments.values().filter(|one| one.intent.fingerprint == intent.fingerprint);
        all.any(|one| one.blocks)
    }

    fn waits(&self) -> bool {
        self.payments.values().any(|one| one.waits() && !self.is_blocked(&one.intent))
    }

    fn fix(&mut self) {
        let held = |one: &&Payment| one.waits() && self.is_blocked(&one.intent);
        let held: Vec<String> =
            self.payments.values().filter(held).map(|one| one.intent.id.clone()).collect();
        for payment in self.payments.values_mut().filter(|one| one.waits()) {
            if held.contains(&payment.intent.id) {
                continue;
            }
            payment.debits.last_mut().unwrap().state = "filed";
        }
    }

    fn returned(&mut self, id: &str, piece: &Piece, now_ms: i64) -> &'static str {
        let payment = self.payments.get_mut(id).unwrap();
        let total = payment.intent.total().unwrap();
        let debit = payment.debits.iter().rposition(|debit| debit.state != "waiting");
        let ours = match debit {
            None if payment.debits.is_empty() => matches!(payment.intent.means, Means::Bank(_)),
            None => false,
            Some(_) => true,
        };
        if !ours || total.minor.unsigned_abs() != piece.cents {
            return "unmatched";
        }
        let code = piece.code.to_string();
        if let Some(at) = debit {
            match &payment.debits[at] {
                one if one.state == "returned" && one.code == code => return "known",
                one if one.state != "filed" => return "unmatched",
                _ => {}
            }
        }
        let change_id = match debit {
            Some(0) => format!("return-{id}"),
            Some(at) => format!("return-{id}-{at}"),
            None => format!("return-{id}-{}", piece.trace),
        };
        if payment.changes.iter().any(|one| one.change.id == change_id) {
            return "known";
        }
        let left = payment.taken().map_or(0, |taken| taken - payment.undone);
        if left < 1 || total.minor > left {
            return "unmatched";
        }
        if let Some(at) = debit {
            payment.debits[at] = Debit { state: "returned", code };
        }
        payment.blocks |= piece.code.action() == Action::Block;
        let detail = format!("{} {}", piece.code, piece.trace);
        let who = ("the holder's bank", piece.code.reason());
        payment.happened((change_id, Undo::Returned), who, detail, now_ms);
        "new"
    }

    fn represent(&mut self, id: &str, now_ms: i64) -> bool {
        let payment = &self.payments[id];
        let last = payment.debits.last();
        let may = last.is_some_and(|last| {
            last.state == "returned" && ["R01", "R09"].contains(&last.code.as_str())
        });
        if !may
            || payment.debits.len() > 2
            || self.is_blocked(&payment.intent)
            || payment.undone < 1
        {
            return false;
        }
        let payment = self.payments.get_mut(id).unwrap();
        let attempt = payment.debits.len();
        payment.debits.push(Debit { state: "waiting", code: String::new() });
        let name = payment.intent.confirmation.clone();
        let change = (format!("represent-{id}-{attempt}"), Undo::Represented);
        payment.happened(change, ("ann", "asked"), name, now_ms);
        true
    }

    /// The latest payment that a caller must be told of.
    fn screen(&self, wanted: &Screening) -> Option<&str> {
        let asked = self.payments.values().filter(|one| {
            let intent = &one.intent;
            let alike = wanted.fingerprint.is_none() || wanted.fingerprint == intent.fingerprint;
            let accounts = several::accounts(intent);
            let part = accounts.iter().find(|(account, _)| *account == wanted.account_id);
            let same = part.is_some_and(|(_, minor)| *minor == wanted.amount.minor);
            let near = intent.created_ms >= wanted.since_ms && same;
            let kept = one.taken().is_none_or(|taken| one.undone < taken);
            alike
                && intent.split.bill().is_none()
                && intent.split != Split::Verification
                && part.is_some()
                && match one.state.name() {
                    "held" | "manual" => near,
                    "approved" | "posted" => near && kept,
                    name => OPEN.contains(&name),
                }
        });
        let key = |one: &&Payment| (one.intent.created_ms, one.intent.id.clone());
        asked.max_by_key(key).map(|one| one.intent.id.as_str())
    }
}

/// The ledger, its model, and a second connection through which its disk fails.
struct Bench {
    folder: tempfile::TempDir,
    store: Store,
    saboteur: AnyConnection,
    model: Model,
    tally: Tally,
    /// The last file for the bank that was begun.
    bank_files: i64,
    now_ms: i64,
    serial: u64,
}

async fn sequence(seed: u64) -> Tally {
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let saboteur = saboteur(folder.path()).await;
    let (model, tally) = (Model::default(), Tally::default());
    let mut bench = Bench {
        folder,
        store,
        saboteur,
        model,
        tally,
        now_ms: 1_780_272_000_000,
        serial: 0,
        bank_files: 0,
    };
    for turn in 0..COMMANDS {
        bench.now_ms += rng.random_range(1..60_000);
        match rng.random_range(0..67) {
            0 => bench.reopen().await,
            // The disk fails after so many more writes, or is well again.
            1 | 2 => bench.sabotage(rng.random_range(0..6)).await,
            3..=6 => bench.sabotage(-1).await,
            7 => bench.recover(&mut rng).await,
            8 | 9 => bench.post().await,
            10 | 11 => bench.debit(&mut rng).await,
            12 | 13 => bench.send_debits().await,
            14 | 15 => bench.returned(&mut rng).await,
            16 | 17 => bench.represent(&mut rng).await,
            45..=50 => bench.begin(&mut rng).await,
            65 | 66 => bench.waive(&mut rng).await,
            18..=22 => bench.progress(&mut rng).await,
            23..=29 => bench.consent(&mut rng).await,
            51..=64 => bench.later(&mut rng).await,
            _ => bench.step(&mut rng).await,
        }
        bench.compare(&mut rng, &format!("seed {seed} turn {turn}")).await;
        bench.compare_later(&format!("seed {seed} turn {turn}")).await;
    }
    bench.tally.fees = bench.model.fees;
    bench.tally.kept_back = bench.model.kept_back;
    bench.tally.several = bench.model.several;
    bench.tally.contradicted = bench.model.contradicted;
    bench.tally.moneyless = bench.model.moneyless;
    bench.tally.waived = bench.model.waived;
    bench.tally.standing = bench.model.standing;
    bench.tally
}

async fn open(folder: &Path) -> Store {
    Store::open(folder.join("ledger.db").to_str().unwrap()).await.unwrap()
}

/// Every write to a table counts; after the last one that is left each fails.
async fn saboteur(folder: &Path) -> AnyConnection {
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}?mode=rw", folder.join("ledger.db").display());
    let mut saboteur = AnyConnection::connect(&url).await.unwrap();
    saboteur.execute("pragma busy_timeout = 5000").await.unwrap();
    saboteur.execute("create table fault (writes_left bigint not null)").await.unwrap();
    saboteur.execute("insert into fault values (-1)").await.unwrap();
    const TABLES: [&str; 13] = [
        "intent",
        "allocation",
        "step",
        "posting",
        "change",
        "ach_entry",
        "ach_file",
        "ach_block",
        "card",
        "card_event",
        "arrangement",
        "arrangement_event",
        "instalment",
    ];
    for table in TABLES {
        for write in ["insert", "update"] {
            let sql = format!(
                "create trigger fail_{table}_{write} before {write} on {table} begin \
                 select raise(abort, 'disk I/O error (injected)') from fault \
                     where writes_left = 0; \
                 update fault set writes_left = writes_left - 1 where writes_left > 0; end"
            );
            saboteur.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        }
    }
    saboteur
}

impl Bench {
    async fn sabotage(&mut self, writes_left: i64) {
        let sql = sqlx::query("update fault set writes_left = $1").bind(writes_left);
        sql.execute(&mut self.saboteur).await.unwrap();
    }

    async fn reopen(&mut self) {
        self.tally.reopened += 1;
        // Not closed: the process is gone.
        let gone = std::mem::replace(&mut self.store, open(self.folder.path()).await);
        std::mem::forget(gone);
    }

    /// An intent of few accounts, cards and amounts, so that they meet.
    async fn consent(&mut self, rng: &mut StdRng) {
        self.serial += 1;
        let n = self.serial;
        let known = rng.random_range(1..=n);
        // Sometimes an id or a confirmation number of before.
        let id = if rng.random_ratio(1, 12) { known } else { n };
        let confirmation = if rng.random_ratio(1, 12) { known } else { n };
        let letter = ["a", "b"][rng.random_range(0..2)].repeat(32);
        let means = [Means::Card(Brand::Visa), Means::Bank(AccountKind::Savings)];
        let intent = Intent {
            id: format!("i{id:04}"),
            confirmation: number(confirmation),
            biller: BILLER.into(),
            account_id: format!("A{}", rng.random_range(0..4)),
            amount: Money::usd(rng.random_range(1..3) * 1_000),
            allocations: Vec::new(),
            fee: Money::usd(200),
            split: Split::Total,
            means: means[rng.random_range(0..2)],
            last4: Last4::parse("1111").unwrap(),
            fingerprint: Fingerprint::parse(&letter),
            gateway: "bogus".into(),
            call_id: "call".into(),
            origin: Origin::default(),
            created_ms: self.now_ms,
        };
        let (fee, failure) = (Money::usd(200), FeeFailure::Void);
        let intent = match (rng.random_range(0..3), intent.means) {
            (0, Means::Card(_)) => several::allocated(rng, intent),
            _ => intent,
        };
        let intent = match rng.random_range(0..5) {
            0 => Intent { split: Split::Bill { fee, failure }, ..intent },
            2 if intent.means.method() == Method::Card => Intent {
                amount: Money::usd(0),
                fee: Money::usd(0),
                allocations: Vec::new(),
                split: Split::Verification,
                ..intent
            },
            1 => {
                // Mostly of a bill that was charged: others have none.
                let all = self.model.payments.values();
                let charged = all.filter(|one| one.state.approval().is_some());
                let charged: Vec<&String> = charged.map(|one| &one.intent.id).collect();
                let bill = match charged.len() {
                    some if some > 0 && rng.random_bool(0.7) => {
                        charged[rng.random_range(0..some)].clone()
                    }
                    _ => self.some_payment(rng),
                };
                let split = Split::FeeOf(bill);
                let allocations = Vec::new();
                Intent { amount: Money::usd(0), allocations, split, ..intent }
            }
            _ => intent,
        };
        let sending = rng.random_ratio(1, 2);
        let entry = if sending { Entry::Sending } else { Entry::Consent };
        let told = self.store.record(entry(Box::new(intent.clone())), self.now_ms).await;
        self.told(told, |model, now_ms| match model.consent(&intent, now_ms) {
            Recorded::Stored if sending => {
                let told = model.step(&intent.id, &State::Sending, now_ms);
                if told != Recorded::Stored {
                    // Both or neither.
                    model.payments.remove(&intent.id);
                }
                told
            }
            told => told,
        });
    }

    async fn step(&mut self, rng: &mut StdRng) {
        let id = self.some_payment(rng);
        let total = self.model.payments.get(&id).and_then(|one| one.intent.total());
        let part = total.map(|total| Money::usd(total.minor / 2));
        let partly = Approval { partial: part, ..approval("r1") };
        let states = [
            State::Sending,
            State::Sending,
            State::Sending,
            State::Sending,
            State::Approved(approval("r1")),
            State::Approved(approval("r1")),
            State::Approved(approval("r1")),
            State::Approved(approval("r1")),
            State::Posted(approval("r1")),
            State::Posted(approval("r2")),
            State::Declined("no".into()),
            State::Held("review".into(), None),
            State::Held("part".into(), Some(partly)),
            State::Unknown("?".into()),
            State::NotCharged("absent".into()),
            State::Manual,
            State::Consented,
        ];
        let to = states[rng.random_range(0..states.len())].clone();
        let entry = Entry::Move { id: id.clone(), to: to.clone() };
        let told = self.store.record(entry, self.now_ms).await;
        self.told(told, |model, now_ms| model.step(&id, &to, now_ms));
    }

    /// What the store said is what the model says, unless its disk failed: then nothing happened.
    fn told(&mut self, told: Recorded, model: impl FnOnce(&mut Model, i64) -> Recorded) {
        if matches!(told, Recorded::Failed(_)) {
            self.tally.failed += 1;
            return;
        }
        let want = model(&mut self.model, self.now_ms);
        assert_eq!(told, want);
        match told {
            Recorded::Stored => self.tally.applied += 1,
            _ => self.tally.refused += 1,
        }
    }

    async fn recover(&mut self, rng: &mut StdRng) {
        let (before_ms, told) = match rng.random_range(0..2) {
            0 => (i64::MAX, self.store.recover(self.now_ms).await),
            _ => {
                let before_ms = self.now_ms - 300_000;
                (before_ms, self.store.recover_lost(before_ms, self.now_ms).await)
            }
        };
        let Ok(told) = told else {
            self.tally.failed += 1;
            return;
        };
        let want = self.model.recover(before_ms, self.now_ms);
        assert_eq!((told.not_charged, told.unknown), want);
    }

    async fn post(&mut self) {
        let out = self.folder.path().join("out");
        // A file that was begun is finished first, so the model's rows may come in two.
        let (mut rows, mut sum) = (0, 0);
        loop {
            match self.store.post(&out, BILLER, self.now_ms).await {
                Ok(Some(path)) => {
                    let posting = reconcile::read(&std::fs::read(path).unwrap()).unwrap();
                    rows += posting.rows.len();
                    let received = posting.rows.iter().filter_map(Row::received);
                    sum += received.map(|money| money.minor).sum::<i64>();
                }
                Ok(None) => break,
                Err(_) => {
                    // What is fixed in a file stays in it: finish it with the disk repaired.
                    self.tally.failed += 1;
                    self.sabotage(-1).await;
                }
            }
        }
        let want = self.model.post(self.now_ms).unwrap_or_default();
        assert_eq!((rows, sum), want);
        self.tally.posted += rows;
    }

    async fn begin(&mut self, rng: &mut StdRng) {
        self.serial += 1;
        let without = self.model.without_fee();
        let intent_id = match without.len() {
            some if some > 0 && rng.random_ratio(1, 4) => {
                without[rng.random_range(0..some)].clone()
            }
            _ => self.some_payment(rng),
        };
        let waived = rng.random_ratio(1, 3);
        let change = Change {
            id: format!("u{:04}", self.serial),
            intent_id,
            act: [Undo::Void, Undo::Refund, Undo::Refund][rng.random_range(0..3)],
            amount: Money::usd(0),
            who: "ann".into(),
            why: "asked".into(),
            created_ms: self.now_ms,
        };
        let amount = [None, Some(0), Some(500), Some(1_200)][rng.random_range(0..4)];
        match self.store.begin_change(change.clone(), amount.map(Money::usd), waived).await {
            Err(_) => self.tally.failed += 1,
            Ok(told) => {
                let told = match told {
                    Begun::Stored(change) => Some(change.amount.minor),
                    Begun::Refused(_) => None,
                };
                assert_eq!(told, self.model.begin(&change, amount, waived), "{change:?}");
                self.tally.refused += usize::from(told.is_none());
            }
        }
    }

    /// A debit is written down for a payment that is being charged from a bank account.
    async fn debit(&mut self, rng: &mut StdRng) {
        let all = self.model.payments.values();
        let charged = all.filter(|one| ["sending", "unknown"].contains(&one.state.name()));
        let mut wanted: Vec<String> = charged.map(|one| one.intent.id.clone()).collect();
        wanted.push(self.some_payment(rng));
        for id in wanted {
            let told = self.store.debit("bogus", &id, |_| Ok("sealed".into()), self.now_ms).await;
            match told {
                Err(_) => self.tally.failed += 1,
                Ok(told) => {
                    assert_eq!(kind(&told), self.model.debit(&id), "{id}");
                }
            }
        }
    }

    /// All that waits goes into a file, which is put in place as far as the disk lets it.
    async fn send_debits(&mut self) {
        let text: toml::Table = settings::EXAMPLE.parse().unwrap();
        let originator = ringtill::ach::Settings::read(&text).unwrap().originator;
        // Files of a day are few.
        let day = self.serial % 28 + 1;
        let wanted = Wanted {
            gateway: "bogus",
            originator: &originator,
            before_ms: i64::MAX,
            created: format!("2026-{:02}-{day:02}T16:30:00", self.tally.debited % 12 + 1),
            effective: "2027-01-04".into(),
        };
        let file = match self.store.fix_debits(&wanted).await {
            Err(_) => {
                self.tally.failed += 1;
                return;
            }
            Ok(None) => {
                assert!(!self.model.waits(), "something waits");
                return;
            }
            Ok(Some(file)) => file,
        };
        // One that was begun before holds what it held then.
        if file.id > self.bank_files {
            self.bank_files = file.id;
            self.model.fix();
        }
        let placed = self.store.file_placed(file.id, self.now_ms).await;
        let done = self.store.file_done(file.id, self.now_ms).await;
        self.tally.failed += usize::from(placed.is_err()) + usize::from(done.is_err());
        self.tally.debited += file.debits.len();
    }

    async fn returned(&mut self, rng: &mut StdRng) {
        let filed: Vec<String> = self
            .model
            .payments
            .values()
            .filter(|one| one.debits.iter().any(|debit| debit.state != "waiting"))
            .map(|one| one.intent.id.clone())
            .collect();
        let id = match filed.len() {
            some if some > 0 && rng.random_bool(0.8) => filed[rng.random_range(0..some)].clone(),
            _ => self.some_payment(rng),
        };
        let Some(payment) = self.model.payments.get(&id) else { return };
        let debits = self.store.debits(&id).await.unwrap();
        let trace = debits.iter().rev().find(|debit| !debit.trace.is_empty());
        let trace = trace.map_or("021000020000007".into(), |debit| debit.trace.clone());
        let code = ["R01", "R01", "R01", "R09", "R09", "R02"][rng.random_range(0..6)];
        let total = payment.intent.total().unwrap().minor.unsigned_abs();
        let piece = Piece {
            trace,
            name: payment.intent.confirmation.clone(),
            cents: if rng.random_ratio(1, 8) { total + 1 } else { total },
            last4: Some("1111".into()),
            code: Code::parse(code).unwrap(),
        };
        let Ok(mut taking) = self.store.take_news(self.now_ms).await else { return };
        let taken = taking.returned(&piece, |_, _| Some("sealed again".into())).await;
        let taken = match taken {
            Ok(taken) => taking.end().await.map(|()| taken),
            Err(error) => Err(error),
        };
        let Ok(taken) = taken else {
            self.tally.failed += 1;
            return;
        };
        let name = match taken {
            Taken::New(_) => "new",
            Taken::Known(_) => "known",
            Taken::Unmatched(_) => "unmatched",
        };
        assert_eq!(name, self.model.returned(&id, &piece, self.now_ms), "{id} {code}: {taken:?}");
        self.tally.returned += usize::from(name == "new");
    }

    async fn represent(&mut self, rng: &mut StdRng) {
        if rng.random_ratio(1, 4) {
            for payment in self.model.payments.values_mut().filter(|one| one.blocks) {
                self.store.lift_blocks(&payment.intent.id).await.unwrap();
                payment.blocks = false;
            }
        }
        let back: Vec<String> = self
            .model
            .payments
            .values()
            .filter(|one| one.debits.last().is_some_and(|debit| debit.state == "returned"))
            .map(|one| one.intent.id.clone())
            .collect();
        let id = match back.len() {
            0 => self.some_payment(rng),
            some => back[rng.random_range(0..some)].clone(),
        };
        let Some(payment) = self.model.payments.get(&id) else { return };
        let intent = payment.intent.clone();
        let seal = |_: &str, sealed: &str, _: &str| Ok(sealed.to_string());
        let told = self.store.represent(&intent, ("ann", "asked"), seal, self.now_ms).await;
        match told {
            Err(_) => self.tally.failed += 1,
            Ok(told) => {
                let want = self.model.represent(&id, self.now_ms);
                assert_eq!(told.is_ok(), want, "{id}: {told:?}");
                self.tally.again += usize::from(want);
            }
        }
    }

    async fn progress(&mut self, rng: &mut StdRng) {
        let all: Vec<Change> = self
            .model
            .payments
            .values()
            .flat_map(|one| one.changes.iter().map(|undoing| undoing.change.clone()))
            .collect();
        if all.is_empty() {
            return;
        }
        let undoings = self.model.payments.values().flat_map(|one| one.changes.iter());
        let open: Vec<&Change> =
            undoings.filter(|one| one.progress.is_open()).map(|one| &one.change).collect();
        let change = match open.len() {
            some if some > 0 && rng.random_bool(0.8) => open[rng.random_range(0..some)].clone(),
            _ => all[rng.random_range(0..all.len())].clone(),
        };
        let change = &change;
        let every = [
            Progress::Sending,
            Progress::Done("v1".into()),
            Progress::Done("v1".into()),
            Progress::Done("v1".into()),
            Progress::Done("v1".into()),
            Progress::Refused("late".into()),
            Progress::NotSent("refused".into()),
            Progress::Unknown("?".into()),
            Progress::Manual("?".into()),
        ];
        let to = &every[rng.random_range(0..every.len())];
        match self.store.progress(change, to, self.now_ms).await {
            Err(_) => self.tally.failed += 1,
            Ok(told) => {
                assert_eq!(told, self.model.progress(change, to, self.now_ms), "{change:?} {to:?}");
                self.tally.undone += usize::from(told && to.took_effect());
            }
        }
    }

    /// Mostly a young payment, so that they get somewhere; at times one that nobody knows.
    fn some_payment(&self, rng: &mut StdRng) -> String {
        let nobody = format!("i{:04}", self.serial + 1);
        let all: Vec<&String> = self.model.payments.keys().collect();
        let reach = if rng.random_bool(0.7) { 6 } else { all.len() + 1 };
        let back = rng.random_range(0..reach);
        all.iter().rev().nth(back).map_or(nobody, |id| id.to_string())
    }

    /// Everything both hold is the same.
    async fn compare(&mut self, rng: &mut StdRng, at: &str) {
        let told = self.store.intents().await.unwrap();
        assert_eq!(told.len(), self.model.payments.len(), "{at}");
        for (intent, state) in &told {
            let want = &self.model.payments[&intent.id];
            assert_eq!(intent, &want.intent, "{at}");
            let why = |state: &State| match state {
                // The words of a recovery are no concern here.
                State::NotCharged(_) | State::Unknown(_) => state.name().to_string(),
                state => format!("{state:?}"),
            };
            assert_eq!(why(state), why(&want.state), "{at} {}", intent.id);
        }
        let id = self.some_payment(rng);
        if let Some(want) = self.model.payments.get(&id) {
            let history = self.store.history(&id).await.unwrap();
            let steps: Vec<&str> = history.iter().map(|(name, ..)| name.as_str()).collect();
            assert_eq!(steps, want.steps, "{at} {id}");
            let changes = self.store.changes(&want.intent).await.unwrap();
            let told: Vec<_> = changes.iter().map(|(change, to, _)| (change, to)).collect();
            let kept: Vec<_> =
                want.changes.iter().map(|one| (&one.change, &one.progress)).collect();
            assert_eq!(told, kept, "{at} {id}");
            let (_, _, undone) = self.store.find(&id).await.unwrap().unwrap();
            assert_eq!(undone.minor, want.undone, "{at} {id}");
        }
        let letter = "a".repeat(32);
        let screening = Screening {
            biller: BILLER.into(),
            account_id: format!("A{}", rng.random_range(0..4)),
            amount: Money::usd(rng.random_range(1..3) * 1_000),
            fingerprint: [None, Fingerprint::parse(&letter)][rng.random_range(0..2)],
            since_ms: self.now_ms - rng.random_range(0..2_000_000),
            origin: Origin::default(),
            limits: Limits::default(),
            at_ms: self.now_ms,
        };
        let told = self.store.screen(&screening).await.unwrap().earlier.map(|earlier| earlier.id);
        assert_eq!(told.as_deref(), self.model.screen(&screening), "{at} {screening:?}");
        self.compare_received(rng, at).await;
    }
}

fn approval(reference: &str) -> Approval {
    Approval { gateway_reference: reference.into(), auth_code: "A1".into(), ..Approval::default() }
}
