//! The duplicate guard: a payment like this one was made or is still open, and the caller says
//! whether they want another.

use super::settings::DuplicateMatch;
use super::{Desk, Leave, Line, Note};
use crate::account::Account;
use crate::dialogue::Field;
use crate::dialogue::grammar::Menu;
use crate::instrument::Fingerprint;
use crate::ledger::{Earlier, Screening};
use crate::money::Money;
use crate::prompt::Prompt;

/// Earlier payments the caller was told of and wants to pay besides.
#[derive(Default)]
pub(super) struct Told(Vec<String>);

/// Whether to go on. `fingerprint` is of the card or account once it is known.
pub(super) async fn wanted(
    line: &mut Line,
    desk: &Desk,
    told: &mut Told,
    (account, amount): (&Account, Money),
    fingerprint: Option<Fingerprint>,
) -> Result<bool, Leave> {
    let by_method = desk.settings.duplicate_match == DuplicateMatch::Method;
    if by_method && fingerprint.is_none() {
        return Ok(true);
    }
    let screening = screening(line, desk, &account.id, amount, fingerprint);
    let found = line.screen(screening).await.ok_or(Leave::Failed)?;
    match found.earlier {
        Some(earlier) if !told.0.contains(&earlier.id) => ask(line, told, earlier).await,
        _ => Ok(true),
    }
}

/// A payment the caller was not told of: made, on another call, since they were asked. `None`: the
/// ledger could not be read.
pub(super) async fn meanwhile(
    line: &mut Line,
    desk: &Desk,
    told: &Told,
    (account_id, amount): (&str, Money),
    fingerprint: Fingerprint,
) -> Option<Option<Earlier>> {
    let screening = screening(line, desk, account_id, amount, Some(fingerprint));
    let found = line.screen(screening).await?;
    Some(found.earlier.filter(|earlier| !told.0.contains(&earlier.id)))
}

fn screening(
    line: &Line,
    desk: &Desk,
    account_id: &str,
    amount: Money,
    fingerprint: Option<Fingerprint>,
) -> Screening {
    let settings = &desk.settings;
    let by_method = settings.duplicate_match == DuplicateMatch::Method;
    Screening {
        biller: settings.biller.clone(),
        account_id: account_id.into(),
        amount,
        fingerprint: fingerprint.filter(|_| by_method),
        since_ms: line.wall_ms() - i64::from(settings.duplicate_window_minutes) * 60_000,
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
        told.0.push(id);
    }
    Ok(again)
}
