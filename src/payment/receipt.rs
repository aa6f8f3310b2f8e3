//! What the caller is told of the outcome, and what may follow.

use super::charge::Settled;
use super::{Leave, Line, Note, Outcome, phrases};
use crate::dialogue::Field;
use crate::dialogue::grammar::Menu;
use crate::gateway::Fixable;
use crate::prompt::Prompt;

pub(super) enum Next {
    End(Outcome),
    /// Another card, or the wrong field again.
    TryAgain,
}

/// `may_retry`: another charge may be tried on this call.
pub(super) async fn tell(
    line: &mut Line,
    settled: Settled,
    may_retry: bool,
) -> Result<Next, Leave> {
    line.note(Note::Step("receipt"));
    match settled {
        Settled::Approved { confirmation } => {
            approved(line, &confirmation).await;
            Ok(Next::End(Outcome::Paid { confirmation }))
        }
        Settled::Pending { confirmation } => {
            reference(line, "result.pending", &confirmation).await;
            Ok(Next::End(Outcome::Pending { confirmation }))
        }
        Settled::Held { confirmation } => {
            reference(line, "result.held", &confirmation).await;
            Ok(Next::End(Outcome::Pending { confirmation }))
        }
        Settled::OpenPayment => {
            line.tell(phrases(["result.open_payment"])).await;
            Err(Leave::Failed)
        }
        Settled::PaidMeanwhile => {
            line.tell(phrases(["result.already_paid"])).await;
            Err(Leave::Failed)
        }
        Settled::NotCharged => {
            line.tell(phrases(["result.not_charged"])).await;
            Err(Leave::Failed)
        }
        Settled::Fixable(field) => {
            let phrase = match field {
                Fixable::Number => "card.invalid",
                Fixable::Expiry => "expiry.invalid",
                Fixable::Cvv => "cvv.invalid",
                Fixable::Zip => "zip.invalid",
                // Never asked for, so never told.
                Fixable::Routing | Fixable::Account => "result.declined",
            };
            line.tell(phrases([phrase])).await;
            if may_retry { Ok(Next::TryAgain) } else { Err(Leave::Failed) }
        }
        Settled::DeclinedSoft => another_card(line, "result.declined", may_retry).await,
        Settled::DeclinedHard => another_card(line, "result.declined_hard", may_retry).await,
    }
}

/// The confirmation number, as often as the caller wants to hear it.
async fn approved(line: &mut Line, confirmation: &str) {
    const REPEATS_MAX: usize = 5;
    line.tell(read_out("result.approved", "result.confirmation", confirmation)).await;
    let repeat = vec![Prompt::Phrase("result.repeat")];
    let field = Field::menu("repeat", repeat, Menu(vec![('9', ())])).once();
    for _ in 0..REPEATS_MAX {
        match line.ask(&field).await {
            Ok(()) => {
                let digits = confirmation.to_string();
                let slowly = Prompt::Groups { digits, slow: true };
                line.tell(vec![Prompt::Phrase("result.confirmation"), slowly]).await;
            }
            Err(Leave::HandedOver | Leave::Hangup) => return,
            Err(Leave::Back | Leave::Agent | Leave::Failed) => break,
        }
    }
    line.tell(phrases(["bye.thanks"])).await;
}

async fn reference(line: &mut Line, result: &'static str, confirmation: &str) {
    line.tell(read_out(result, "result.reference", confirmation)).await;
    let slowly = Prompt::Groups { digits: confirmation.to_string(), slow: true };
    let again = [Prompt::Phrase("result.reference"), slowly, Prompt::Phrase("bye.plain")];
    line.tell(again.to_vec()).await;
}

fn read_out(result: &'static str, number: &'static str, digits: &str) -> Vec<Prompt> {
    let groups = Prompt::Groups { digits: digits.to_string(), slow: false };
    vec![Prompt::Phrase(result), Prompt::Phrase(number), groups]
}

async fn another_card(
    line: &mut Line,
    result: &'static str,
    may_retry: bool,
) -> Result<Next, Leave> {
    if !may_retry {
        line.tell(phrases([result])).await;
        return Err(Leave::Failed);
    }
    let field = Field::menu("retry", phrases(["retry.other_card"]), Menu(vec![('1', ())]));
    line.ask(&field.notice(phrases([result]))).await?;
    Ok(Next::TryAgain)
}
