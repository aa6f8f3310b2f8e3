//! `ringtill reconcile`: the payments of a day as the ledger, the gateway and the biller's files
//! have them. Each difference is told with what to do about it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::payments::{open, written};
use super::store::pair::PERSON;
use super::store::{Filter, Store};
use super::{clock, gateway};
use crate::config::Config;
use crate::gateway::{Found, Gateway, Lookup, Operation, Purpose, Search, Verdict};
use crate::ledger::reconcile::{self, Row, Status};
use crate::ledger::{Intent, Pairing, Progress, State};
use crate::money::Money;

const LIMIT: Duration = Duration::from_secs(20);
/// What is final for longer than this and in no file is late.
const LATE_MS: i64 = 10 * 60_000;

/// So long a debit may wait for a file: no banking day is that far off.
const UNFILED_MS: i64 = 5 * 24 * 3_600_000;

/// What was found, a line each.
#[derive(Default)]
struct Report {
    differences: Vec<String>,
    /// What could not be compared, and is no difference.
    notes: BTreeSet<String>,
}

impl Report {
    fn differs(&mut self, intent: &Intent, what: &str, remedy: &str) {
        let Intent { confirmation, account_id, .. } = intent;
        let total = intent.total().unwrap_or(intent.amount);
        self.differences
            .push(format!("{confirmation}, account {account_id}, {total}: {what}. {remedy}"));
    }
}

/// Compares the payments begun on `date` (UTC; unset: today) and prints the differences; true if
/// there is none.
pub async fn run(
    config: &Config,
    date: Option<Date>,
    out: &mut impl Write,
) -> Result<bool, String> {
    let now_ms = clock::wall_ms();
    let (day, filter) = of_day(date, now_ms)?;
    let store = open(config).await?;
    let payments = store.list(&filter).await.map_err(|error| error.to_string())?;
    let mut report = Report::default();
    let files = Files::read(&config.posting.directory, &config.payment.biller, &mut report);
    let mut gateways = HashMap::new();
    for (intent, state, undone) in &payments {
        let id = &intent.gateway;
        let opened = gateways.entry(id).or_insert_with(|| gateway::of_payment(config, id, &store));
        match opened {
            Ok((gateway, client)) => {
                at_gateway(&**gateway, client, (intent, state, *undone), &mut report).await;
            }
            Err(why) => {
                let note = format!("payments by `{id}` were not compared with it: {why}");
                report.notes.insert(note);
            }
        }
        files.compare(intent, state, last_step(&store, intent, now_ms).await, &mut report);
        changes(&store, &files, intent, &mut report).await?;
        pairs(&store, intent, now_ms, &mut report).await?;
        debits(&store, intent, now_ms, &mut report).await?;
    }
    // Debits wait whatever the day of their payment, and those presented again are of old ones.
    let waiting = store.waiting_debits().await.map_err(|error| error.to_string())?;
    for intent in waiting.iter().filter(|it| payments.iter().all(|(of, ..)| of.id != it.id)) {
        debits(&store, intent, now_ms, &mut report).await?;
    }
    files.unknown_to(&store, &filter, &mut report).await?;
    store.close().await;
    written(print(&day, payments.len(), &report, out))?;
    Ok(report.differences.is_empty())
}

fn print(day: &str, payments: usize, report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    for difference in &report.differences {
        writeln!(out, "{difference}")?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(out, "{day}: {payments} payments, {} differences", report.differences.len())
}

fn of_day(date: Option<Date>, now_ms: i64) -> Result<(String, Filter), String> {
    let wrong = |error: jiff::Error| error.to_string();
    let today = || {
        let now = jiff::Timestamp::from_millisecond(now_ms).map_err(wrong)?;
        Ok::<Date, String>(now.to_zoned(TimeZone::UTC).date())
    };
    let date = date.map_or_else(today, Ok)?;
    let start = |date: Date| {
        let midnight = date.to_zoned(TimeZone::UTC).map_err(wrong)?;
        Ok::<i64, String>(midnight.timestamp().as_millisecond())
    };
    let next = date.tomorrow().map_err(wrong)?;
    let (from_ms, until_ms) = (Some(start(date)?), Some(start(next)?));
    Ok((date.to_string(), Filter { from_ms, until_ms, ..Filter::default() }))
}

/// How long ago an intent came into its state.
async fn last_step(store: &Store, intent: &Intent, now_ms: i64) -> i64 {
    let history = store.history(&intent.id).await.unwrap_or_default();
    history.last().map_or(0, |(_, _, at_ms)| now_ms - at_ms)
}

/// What the gateway has under our reference, against what the ledger has.
async fn at_gateway(
    dialect: &dyn Gateway,
    client: &gateway::Client,
    (intent, state, undone): (&Intent, &State, Money),
    report: &mut Report,
) {
    if !dialect.capabilities().can(Operation::Lookup) {
        report.notes.insert(format!(
            "`{}` cannot be asked: compare with its settlement report",
            dialect.name()
        ));
        return;
    }
    let lookup = Lookup {
        purpose: Purpose::Sale,
        reference: &intent.id,
        total: intent.total().unwrap_or(intent.amount),
        method: intent.means.method(),
        started_ms: intent.created_ms,
        at_ms: clock::wall_ms(),
        step: String::new(),
    };
    let mut search = Search::new(dialect, lookup);
    while let Some(request) = search.request() {
        search.answered(&client.send(request, LIMIT).await);
    }
    if let Some((what, remedy)) = judged(state, undone, &search.found()) {
        report.differs(intent, &what, remedy);
    }
}

/// The difference between the ledger's state and the gateway's answer, and what to do about it.
fn judged(state: &State, undone: Money, found: &Found) -> Option<(String, &'static str)> {
    let ledger = state.name();
    let approved = matches!(found, Found::Settled(Verdict::Approved(_)));
    let refused = matches!(
        found,
        Found::Absent
            | Found::Settled(Verdict::DeclinedHard | Verdict::DeclinedSoft | Verdict::Fixable(_))
    );
    match state {
        State::Approved(approval) | State::Posted(approval) => match found {
            Found::Settled(Verdict::Approved(theirs))
                if theirs.gateway_reference != approval.gateway_reference =>
            {
                let (ours, theirs) = (&approval.gateway_reference, &theirs.gateway_reference);
                let what = format!("the ledger has it as {ours}, the gateway as {theirs}");
                Some((what, "Look for a second charge at the gateway"))
            }
            _ if approved => None,
            _ if refused => {
                let what = format!("the ledger has it {ledger}, the gateway did not charge it");
                Some((what, "Do not credit the account; ask the gateway what became of it"))
            }
            // One that was voided is found by nobody.
            _ if undone.is_positive() => None,
            _ => Some((
                format!("the ledger has it {ledger}, the gateway gives no definitive answer"),
                "Run this again later; else look it up at the gateway",
            )),
        },
        State::Declined(_) | State::NotCharged(_) if approved && !undone.is_positive() => Some((
            format!("the gateway charged it, the ledger has it {ledger}"),
            "Void it at the gateway, or credit the account by hand",
        )),
        State::Declined(_) | State::NotCharged(_) => None,
        State::Held(..) => Some((
            "it is held for a person".into(),
            "Decide it at the gateway; what was approved in part can be voided here",
        )),
        State::Manual => Some((
            "its outcome is unknown, and lookups have ended".into(),
            "Look it up at the gateway and credit or do not credit the account",
        )),
        State::Consented | State::Sending | State::Unknown(_) => Some((
            format!("its outcome is open: {ledger}"),
            "The server looks it up; see that it runs",
        )),
    }
}

/// The biller's files: rows by the reference of their payment.
struct Files {
    rows: BTreeMap<String, Vec<Row>>,
}

impl Files {
    /// Reads them all; what is wrong with them is a difference.
    fn read(directory: &Path, biller: &str, report: &mut Report) -> Files {
        let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        let mut sequences = BTreeSet::new();
        let start = format!("payments-{biller}-");
        let names = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut paths: Vec<_> = names.map(|entry| entry.path()).collect();
        paths.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&start) && name.ends_with(".csv")
        });
        paths.sort();
        for path in paths {
            let read = fs::read(&path).map_err(|error| error.to_string());
            let read = read.and_then(|file| reconcile::read(&file).map_err(|e| e.to_string()));
            match read {
                Ok(posting) if posting.biller == biller => {
                    sequences.insert(posting.sequence);
                    for row in posting.rows {
                        rows.entry(row.intent.id.clone()).or_default().push(row);
                    }
                }
                // A biller whose name begins with ours.
                Ok(_) => {}
                Err(why) => report
                    .differences
                    .push(format!("{}: {why}. Restore it from a copy", path.display())),
            }
        }
        for missing in
            (1..=sequences.last().copied().unwrap_or(0)).filter(|n| !sequences.contains(n))
        {
            report.differences.push(format!(
                "file {missing} of `{biller}` is not in {}. Bring it back from where it went",
                directory.display()
            ));
        }
        Files { rows }
    }

    fn with(&self, intent: &Intent, status: Status) -> impl Iterator<Item = &Row> {
        let rows = self.rows.get(&intent.id).into_iter().flatten();
        rows.filter(move |row| row.status == status)
    }

    /// The rows of an intent against its state; `age_ms`: for how long it has been in it.
    fn compare(&self, intent: &Intent, state: &State, age_ms: i64, report: &mut Report) {
        let received: Vec<&Row> = self.with(intent, Status::Approved).collect();
        let parts = intent.parts().count();
        if received.len() > parts {
            let what = match parts {
                1 => format!("it is in the files {} times as approved", received.len()),
                _ => format!("of its {parts} accounts the files have {} approved", received.len()),
            };
            report.differs(intent, &what, "Credit each account once");
        }
        let other = received
            .iter()
            .find(|row| intent.part_of(&row.intent.account_id) != Some(row.intent.amount));
        let zero = Money::new(0, intent.amount.currency);
        let told = received.iter().take(parts).filter_map(|row| row.intent.total());
        let told = told.fold(zero, |all, one| all.checked_add(one).unwrap_or(all));
        match (state, other.or(received.first())) {
            (State::Posted(_) | State::Approved(_), Some(_)) if Some(told) != intent.total() => {
                let what = format!("the file says {told}");
                report.differs(intent, &what, "Trust the ledger, and find out who wrote the file");
            }
            (State::Posted(_) | State::Approved(_), Some(row)) if other.is_some() => {
                let Intent { account_id, amount, .. } = &row.intent;
                let what = format!("the file says {amount} for account {account_id}");
                report.differs(intent, &what, "Trust the ledger, and find out who wrote the file");
            }
            (State::Posted(_), None) => report.differs(
                intent,
                "the ledger has it posted, and it is in no file",
                "Bring back the missing file",
            ),
            (State::Approved(_), None) if age_ms > LATE_MS => report.differs(
                intent,
                "it is approved and in no file yet",
                "See that the server runs and can write to [posting] directory",
            ),
            (State::Posted(_) | State::Approved(_), _) | (_, None) => {}
            (other, Some(_)) => {
                let what = format!("the file says approved, the ledger {}", other.name());
                report.differs(intent, &what, "Ask the gateway which is right before crediting");
            }
        }
    }

    /// Rows of the day that the ledger does not know.
    async fn unknown_to(
        &self,
        store: &Store,
        filter: &Filter,
        report: &mut Report,
    ) -> Result<(), String> {
        let day = filter.from_ms.unwrap_or(i64::MIN)..filter.until_ms.unwrap_or(i64::MAX);
        for rows in self.rows.values() {
            let Some(row) = rows.iter().find(|row| day.contains(&row.intent.created_ms)) else {
                continue;
            };
            let known = store.intent(&row.intent.id).await.map_err(|error| error.to_string())?;
            if known.is_none() {
                let what = "a file has it, the ledger does not";
                report.differs(&row.intent, what, "See that this is the ledger of these files");
            }
        }
        Ok(())
    }
}

/// A debit that is in no file for the bank although it should be.
async fn debits(
    store: &Store,
    intent: &Intent,
    now_ms: i64,
    report: &mut Report,
) -> Result<(), String> {
    let waits = store.waiting_debit(intent).await.map_err(|error| error.to_string())?;
    match waits {
        Some((_, Some(code))) => report.differs(
            intent,
            &format!("its debit is held: the account is blocked since a return, {code}"),
            "Void it, or lift the block: `ringtill ach blocked`, `ringtill ach allow`",
        ),
        Some((since_ms, None)) if now_ms - since_ms > UNFILED_MS => report.differs(
            intent,
            "its debit is in no file for the bank yet",
            "See that the server runs and can write to the folder of `nacha`",
        ),
        _ => {}
    }
    Ok(())
}

/// A bill whose fee is a charge of its own, and was not charged, although it should be voided.
async fn pairs(
    store: &Store,
    intent: &Intent,
    now_ms: i64,
    report: &mut Report,
) -> Result<(), String> {
    let pair = store.pair(&intent.id).await.map_err(|error| error.to_string())?;
    let Some(pair) = pair.filter(|pair| pair.pairing() == Pairing::ToVoid) else { return Ok(()) };
    if pair.end == PERSON {
        let remedy = "Refund it, or let it stand: `ringtill payments refund`, `waive`";
        report.differs(intent, "its fee was not charged, and it cannot be voided", remedy);
    } else if last_step(store, &pair.fee, now_ms).await > LATE_MS {
        let what = "its fee was not charged, and it is not voided yet";
        report.differs(intent, what, "The server voids it; see that it runs");
    }
    Ok(())
}

/// Voids and refunds against the files, and those without an end.
async fn changes(
    store: &Store,
    files: &Files,
    intent: &Intent,
    report: &mut Report,
) -> Result<(), String> {
    let (mut back, mut late) = (0, false);
    // Received once more, and not in a file yet.
    let mut coming = 0;
    for (change, progress, at_ms) in store.changes(intent).await.map_err(|e| e.to_string())? {
        if progress.is_open() {
            let act = change.act.name();
            let what = format!("the {act} of {} has no definitive answer", change.amount);
            let remedy = match progress {
                Progress::Manual(_) => "Look it up at the gateway",
                _ => "The server asks again; see that it runs",
            };
            report.differs(intent, &what, remedy);
        } else if progress.took_effect() {
            back += change.act.sign() * change.amount.minor;
            let in_time = clock::wall_ms() - at_ms <= LATE_MS;
            late |= !in_time;
            coming += if in_time && change.act.sign() < 0 { change.amount.minor } else { 0 };
        }
    }
    let given = Status::UNDOING.map(|status| {
        files.with(intent, status).filter_map(Row::received).map(|money| -money.minor).sum::<i64>()
    });
    let told: i64 = given.iter().sum();
    // What was held was never received: there is nothing to take back from the biller.
    let received = files.with(intent, Status::Approved).next().is_some();
    if told > back + coming || (told < back && late && received) {
        let [told, back] = [told, back].map(|minor| Money::new(minor, intent.amount.currency));
        let what = format!("{back} was given back, the files say {told}");
        report.differs(intent, &what, "See that the server runs; compare with the gateway");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Approval;
    use crate::ledger::sample;

    #[test]
    fn each_disagreement_with_the_gateway_is_told() {
        let approval = sample::approval();
        let other = Approval { gateway_reference: "sale_000002".into(), ..approval.clone() };
        let yes = |approval: &Approval| Found::Settled(Verdict::Approved(approval.clone()));
        let no = Found::Settled(Verdict::DeclinedSoft);
        let posted = State::Posted(approval.clone());
        let (none, some) = (Money::usd(0), Money::usd(100));
        for (state, undone, found, want) in [
            (&posted, none, yes(&approval), None),
            (&posted, none, yes(&other), Some("sale_000001, the gateway as sale_000002")),
            (&posted, none, no.clone(), Some("the gateway did not charge it")),
            (&posted, none, Found::Absent, Some("the gateway did not charge it")),
            (&posted, none, Found::NotYet, Some("no definitive answer")),
            (&posted, some, Found::NotYet, None),
            (&State::Declined("n".into()), none, no, None),
            (&State::Declined("n".into()), none, yes(&approval), Some("the gateway charged it")),
            (&State::Declined("n".into()), some, yes(&approval), None),
            (&State::NotCharged("n".into()), none, Found::Absent, None),
            (&State::Held("r".into(), None), none, Found::NotYet, Some("held for a person")),
            (&State::Unknown("?".into()), none, Found::NotYet, Some("open: unknown")),
            (&State::Manual, none, Found::NotYet, Some("lookups have ended")),
        ] {
            let told = judged(state, undone, &found).map(|(what, _)| what);
            match (&told, want) {
                (None, None) => {}
                (Some(told), Some(want)) => assert!(told.contains(want), "{told}"),
                _ => panic!("{state:?} {found:?}: {told:?} instead of {want:?}"),
            }
        }
    }
}
