//! What the ledger knows against a payment. A payment like this one was made or is still open: the
//! caller says whether they want another. Too much was tried: nobody pays.

use super::settings::DuplicateMatch;
use super::{Desk, Leave, Line, Note, phrases};
use crate::dialogue::Field;
use crate::dialogue::grammar::Menu;
use crate::instrument::Fingerprint;
use crate::ledger::velocity::Lock;
use crate::ledger::{Earlier, Origin, Screening};
use crate::money::Money;
use crate::prompt::Prompt;

/// What the caller was told on this call.
#[derive(Default)]
pub(super) struct Told {
    /// Earlier payments they want to pay besides.
    payments: Vec<String>,
    /// Kept cards that were refused: they are not offered again on this call.
    pub(super) refused: Vec<String>,
    /// Arrangements of theirs.
    pub(super) standing: Vec<String>,
}

/// Whether to go on. `parts`: each account and what is paid for it; `fingerprint` is of the card or
/// account once it is known.
pub(super) async fn wanted<'a>(
    line: &mut Line,
    desk: &Desk,
    told: &mut Told,
    parts: impl IntoIterator<Item = (&'a str, Money)>,
    fingerprint: Option<Fingerprint>,
) -> Result<bool, Leave> {
    let by_method = desk.settings.duplicate_match == DuplicateMatch::Method;
    for part in parts {
        let screening = screening(line, desk, part, (fingerprint, None));
        let found = line.screen(screening).await.ok_or(Leave::Failed)?;
        if let Some(lock) = found.lock {
            locked(line, lock);
            line.tell(phrases(["result.not_charged"])).await;
            return Err(Leave::Failed);
        }
        if by_method && fingerprint.is_none() {
            continue;
        }
        let earlier = found.earlier.filter(|earlier| !told.payments.contains(&earlier.id));
        if let Some(earlier) = earlier
            && !ask(line, told, earlier).await?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What stands against the charge of this card or account at the last moment.
pub(super) enum Against {
    /// Nothing; whether a refusal is to sound like any other.
    Nothing {
        quiet: bool,
    },
    /// A payment the caller was not told of: made, on another call, since they were asked.
    Earlier(Earlier),
    Locked,
    /// The ledger could not be read.
    Unknown,
}

pub(super) async fn meanwhile<'a>(
    line: &mut Line,
    desk: &Desk,
    told: &Told,
    parts: impl IntoIterator<Item = (&'a str, Money)>,
    (fingerprint, issuer): (Fingerprint, Option<Fingerprint>),
) -> Against {
    let mut quiet = false;
    for part in parts {
        let screening = screening(line, desk, part, (Some(fingerprint), issuer));
        let Some(found) = line.screen(screening).await else { return Against::Unknown };
        if let Some(lock) = found.lock {
            locked(line, lock);
            return Against::Locked;
        }
        match found.earlier.filter(|earlier| !told.payments.contains(&earlier.id)) {
            Some(earlier) => return Against::Earlier(earlier),
            None => quiet |= found.quiet,
        }
    }
    Against::Nothing { quiet }
}

/// For the operator; the caller is not told why.
fn locked(line: &mut Line, lock: Lock) {
    line.note(Note::Locked { counted: lock.counted.name(), until_ms: lock.until_ms });
}

/// Where a payment on this call comes from.
pub(super) fn origin(desk: &Desk, issuer: Option<Fingerprint>) -> Origin {
    Origin {
        caller: desk.caller.number.as_deref().map(|number| desk.fingerprints.caller(number)),
        issuer,
        trunk: desk.trunk.clone(),
    }
}

fn screening(
    line: &Line,
    desk: &Desk,
    (account_id, amount): (&str, Money),
    (fingerprint, issuer): (Option<Fingerprint>, Option<Fingerprint>),
) -> Screening {
    let settings = &desk.settings;
    let by_method = settings.duplicate_match == DuplicateMatch::Method;
    Screening {
        biller: settings.biller.clone(),
        account_id: account_id.into(),
        amount,
        fingerprint: fingerprint.filter(|_| by_method),
        since_ms: line.wall_ms() - i64::from(settings.duplicate_window_minutes) * 60_000,
        origin: origin(desk, issuer),
        limits: settings.velocity,
        at_ms: line.wall_ms(),
    }
}

/// Says which payment there is; its number is the account's, and so is the caller.
async fn ask(line: &mut Line, told: &mut Told, earlier: Earlier) -> Result<bool, Leave> {
    let Earlier { id, confirmation, amount, open } = earlier;
    let (was, number) = match open {
        false => ("again.approved", "again.confirmation"),
        true => ("again.open", "again.reference"),
    };
    let notice = vec![
        Prompt::Phrase("again.payment"),
        Prompt::Amount(amount),
        Prompt::Phrase(was),
        Prompt::Phrase(number),
        Prompt::Groups { digits: confirmation.clone(), slow: false },
    ];
    let question = vec![Prompt::Phrase("again.ask")];
    let field = Field::menu("again", question, Menu(vec![('1', true), ('2', false)]));
    let again = line.ask(&field.notice(notice)).await?;
    line.note(Note::Again { confirmation, again });
    if again {
        told.payments.push(id);
    }
    Ok(again)
}
