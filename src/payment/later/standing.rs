//! What a caller arranged before: they hear of it, and may cancel it.

use super::{settings, yes_no};
use crate::account::Account;
use crate::dialogue::Field;
use crate::dialogue::grammar::Menu;
use crate::ledger::arrangement::Kind;
use crate::ledger::{Arrangement, Entry, Recorded, SavedCard};
use crate::payment::{Desk, Leave, Line, Note, phrases};
use crate::prompt::Prompt;

/// Tells of each once on a call. [`Leave::Back`] never: there is nothing to go back to.
pub(in crate::payment) async fn tell(
    line: &mut Line,
    desk: &Desk,
    account: &Account,
    told: &mut Vec<String>,
) -> Result<(), Leave> {
    if settings(desk).is_none() {
        return Ok(());
    }
    // A ledger that cannot be read tells of nothing, and loses nothing.
    let wallet = line.wallet(&desk.settings.biller, &account.id).await.unwrap_or_default();
    for arrangement in wallet.arrangements {
        if told.contains(&arrangement.id) {
            continue;
        }
        told.push(arrangement.id.clone());
        let Some(mut prompt) = spoken(&arrangement) else { continue };
        prompt.push(Prompt::Phrase("later.keep_or_cancel"));
        let keep = Field::menu("standing", prompt, Menu(vec![('1', true), ('2', false)]));
        match line.ask(&keep).await {
            Ok(true) | Err(Leave::Back) => {}
            Ok(false) => cancel(line, arrangement).await?,
            Err(leave) => return Err(leave),
        }
    }
    Ok(())
}

/// Whether something is arranged with this card: it ends with the card.
pub(in crate::payment) async fn with_card(line: &mut Line, desk: &Desk, card: &SavedCard) -> bool {
    if settings(desk).is_none() {
        return false;
    }
    let wallet = line.wallet(&card.biller, &card.account_id).await.unwrap_or_default();
    wallet.arrangements.iter().any(|one| one.card == card.id)
}

fn spoken(arrangement: &Arrangement) -> Option<Vec<Prompt>> {
    if arrangement.kind == Kind::AutoPay {
        return Some(phrases(["later.autopay_stands"]));
    }
    // What is being charged at this moment cannot be cancelled any more.
    let next = arrangement.instalments.first()?;
    let total = next.amount.checked_add(next.fee)?;
    let plan = arrangement.kind == Kind::Plan;
    Some(vec![
        Prompt::Phrase(if plan { "later.plan_stands" } else { "later.stands" }),
        Prompt::Amount(total),
        Prompt::Phrase("later.stands_for"),
        Prompt::Date(next.due),
    ])
}

async fn cancel(line: &mut Line, arrangement: Arrangement) -> Result<(), Leave> {
    let sure = Field::menu("standing_cancel", phrases(["later.cancel_sure"]), yes_no());
    match line.ask(&sure).await {
        Ok(true) => {}
        Ok(false) | Err(Leave::Back) => return Ok(()),
        Err(leave) => return Err(leave),
    }
    let number = arrangement.number;
    let (who, why) = (String::new(), "by the caller".into());
    let entry = Entry::Cancel { arrangement: arrangement.id, who, why };
    if line.record(entry).await == Recorded::Stored {
        line.note(Note::Disarranged { number });
        line.tell(phrases(["later.cancelled"])).await;
        return Ok(());
    }
    line.tell(phrases(["later.not_cancelled"])).await;
    // Somebody must look into it.
    Err(Leave::Failed)
}
