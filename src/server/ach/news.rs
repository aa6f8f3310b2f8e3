//! Files that the bank sends back, taken into the ledger: whole or, when damaged, not at all.

use std::collections::HashMap;
use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::Account;
use crate::ach::{Action, Code, Correction, Item, News, Receiver, Returned};
use crate::ledger::Intent;
use crate::money::Money;
use crate::server::store::ach::news::{Piece, Taken, Taking};
use crate::server::store::{Store, StoreError};

/// What was made of a file.
#[derive(Default)]
pub struct Report {
    /// A line each, for people; never an account number.
    pub lines: Vec<String>,
    pub returns: usize,
    pub notices: usize,
    /// Taken in before.
    pub known: usize,
    /// About nothing in the ledger, or to be settled by a person.
    pub unmatched: usize,
}

impl Report {
    /// Counts of each.
    pub fn summary(&self) -> String {
        let Report { returns, notices, known, unmatched, .. } = self;
        format!(
            "{returns} returns, {notices} notices of change, {known} known before, {unmatched} unmatched"
        )
    }
}

/// Takes a file in. `Err`: it is damaged or the ledger failed, and nothing of it was taken.
pub async fn take(
    store: &Store,
    accounts: &[Account],
    bytes: &[u8],
    now_ms: i64,
) -> Result<Report, String> {
    let file = Returned::read(bytes).map_err(|damage| damage.to_string())?;
    let accounts: HashMap<&str, &Account> = accounts.iter().map(|one| (&*one.id, one)).collect();
    let failed = |error: StoreError| error.to_string();
    let mut taking = store.take_news(now_ms).await.map_err(failed)?;
    let mut report = Report::default();
    for item in file.items {
        one(&mut taking, &accounts, item, &mut report).await.map_err(failed)?;
    }
    taking.end().await.map_err(failed)?;
    Ok(report)
}

async fn one(
    taking: &mut Taking<'_>,
    accounts: &HashMap<&str, &Account>,
    item: Item,
    report: &mut Report,
) -> Result<(), StoreError> {
    let Item { line, cents, id, news, trace, receiver } = item;
    let (code, correction) = match news {
        News::Returned(code) => (code, None),
        News::Changed(code, correction) => (code, correction),
        News::Other => {
            report.unmatched += 1;
            let what = "is neither a return nor a notice of change";
            report.lines.push(format!("line {line}: trace {trace}: {what}"));
            return Ok(());
        }
    };
    let last4 = receiver.as_ref().map(|one| one.account.last4().as_str().to_string());
    let piece = Piece { trace, name: id, cents, last4, code };
    let taken = if code.is_return() && code.action() == Action::Dispute {
        Taken::Unmatched("settle it with the bank by hand; nothing was changed".into())
    } else if code.is_return() {
        let seal = |gateway: &str, name: &str| seal(accounts.get(gateway)?, name, &receiver?);
        taking.returned(&piece, seal).await?
    } else {
        let corrected = corrected(receiver, correction);
        let seal = |gateway: &str, name: &str| seal(accounts.get(gateway)?, name, &corrected?);
        taking.changed(&piece, seal).await?
    };
    let reason = code.reason();
    match taken {
        Taken::New(intent) if code.is_return() => {
            report.returns += 1;
            report.lines.push(told(&intent, code));
        }
        Taken::New(intent) => {
            report.notices += 1;
            let name = &intent.confirmation;
            report.lines.push(format!(
                "{name}, account {}: {code}, {reason}. Its next debit uses what the bank says",
                intent.account_id
            ));
        }
        Taken::Known(intent) => {
            report.known += 1;
            report.lines.push(format!("{}: {code}, known before", intent.confirmation));
        }
        Taken::Unmatched(why) => {
            report.unmatched += 1;
            let trace = &piece.trace;
            report.lines.push(format!("line {line}: trace {trace}: {code}, {reason}: {why}"));
        }
    }
    Ok(())
}

/// The account as it is now, with what was corrected before.
fn corrected(receiver: Option<Receiver>, correction: Option<Correction>) -> Option<Receiver> {
    let Receiver { account, .. } = receiver?;
    let account = correction?.apply(account)?;
    Some(Receiver { account, name: Zeroizing::new(String::new()) })
}

fn seal(account: &Account, name: &str, receiver: &Receiver) -> Option<String> {
    account.seal(name, receiver).ok()
}

/// A return, with what follows of it.
fn told(intent: &Intent, code: Code) -> String {
    let total = intent.total().unwrap_or(Money::new(0, intent.amount.currency));
    let (name, account, reason) = (&intent.confirmation, &intent.account_id, code.reason());
    let mut line = format!("{name}, account {account}, {total}: {code}, {reason}");
    let _ = match code.action() {
        Action::Again => {
            write!(line, ". It may be presented again: `ringtill ach represent {name}`")
        }
        Action::Block => write!(line, ". `nacha` refuses this bank account from now on"),
        Action::Stop => write!(
            line,
            ". `nacha` debits no bank account of this customer until you have spoken to them and \
             said `ringtill ach allow {name}`"
        ),
        Action::Nothing | Action::Dispute => Ok(()),
    };
    line
}
