//! What the caller is told of the outcome, and what may follow.

use super::charge::{FeeEnd, Settled, With};
use super::later::autopay::{self, Offer};
use super::{Desk, Leave, Line, Note, Outcome, phrases};
use crate::dialogue::Field;
use crate::dialogue::grammar::Menu;
use crate::gateway::Fixable;
use crate::instrument::Method;
use crate::prompt::Prompt;

pub(super) enum Next {
    End(Outcome),
    /// Another card or account, or the wrong field again.
    TryAgain,
    /// Card or account, as the caller likes.
    OtherWay,
}

/// What may follow a refusal.
pub(super) struct Retry {
    /// Another charge may be tried on this call.
    pub(super) may: bool,
    /// There is another way to pay.
    pub(super) other_way: bool,
    /// How it was tried.
    pub(super) method: Method,
    /// What is said of what was wanted besides, if the outcome is open.
    pub(super) unmade: Vec<&'static str>,
}

/// With what is offered after an approved payment.
pub(super) async fn tell(
    line: &mut Line,
    desk: &Desk,
    (settled, offer): (Settled, Option<Offer>),
    retry: Retry,
) -> Result<Next, Leave> {
    line.note(Note::Step("receipt"));
    let bank = retry.method == Method::Bank;
    match settled {
        Settled::Approved { confirmation, with } => {
            // A bank may return a debit days later: nobody is told that it was paid.
            let phrase = if bank { "result.submitted" } else { "result.approved" };
            approved(line, desk, (phrase, &confirmation), (with, offer)).await;
            Ok(Next::End(Outcome::Paid { confirmation }))
        }
        Settled::Pending { confirmation } => {
            reference(line, "result.pending", &confirmation, &retry.unmade).await;
            Ok(Next::End(Outcome::Pending { confirmation }))
        }
        Settled::Held { confirmation } => {
            reference(line, "result.held", &confirmation, &retry.unmade).await;
            Ok(Next::End(Outcome::Pending { confirmation }))
        }
        Settled::GivingBack { confirmation } => {
            reference(line, "result.giving_back", &confirmation, &[]).await;
            Ok(Next::End(Outcome::Pending { confirmation }))
        }
        Settled::GivenBack { another: true } => another(line, "result.given_back", &retry).await,
        Settled::GivenBack { another: false } => {
            line.tell(phrases(["result.given_back"])).await;
            Err(Leave::Failed)
        }
        Settled::Arranged { number } => {
            arranged(line, &number, &["saved.kept"]).await;
            Ok(Next::End(Outcome::Arranged { number }))
        }
        Settled::NotArranged { kept } => {
            let card = if kept { "saved.kept" } else { "saved.not_kept" };
            line.tell(phrases(["later.not_arranged", card])).await;
            Err(Leave::Failed)
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
                Fixable::Routing => "routing.invalid",
                Fixable::Account => "bank.account_invalid",
            };
            line.tell(phrases([phrase])).await;
            if retry.may { Ok(Next::TryAgain) } else { Err(Leave::Failed) }
        }
        Settled::DeclinedSoft if bank => another(line, "result.debit_declined", &retry).await,
        Settled::DeclinedHard if bank => another(line, "result.debit_refused", &retry).await,
        Settled::DeclinedSoft => another(line, "result.declined", &retry).await,
        Settled::DeclinedHard => another(line, "result.declined_hard", &retry).await,
    }
}

/// The confirmation number, what came with the payment, and what may follow it.
async fn approved(
    line: &mut Line,
    desk: &Desk,
    (result, confirmation): (&'static str, &str),
    (with, offer): (With, Option<Offer>),
) {
    let mut said = read_out(result, "result.confirmation", confirmation);
    said.extend(match with.fee {
        FeeEnd::Together => None,
        FeeEnd::Apart => Some(Prompt::Phrase("result.fee_apart")),
        FeeEnd::Waived => Some(Prompt::Phrase("result.fee_waived")),
        FeeEnd::Open => Some(Prompt::Phrase("result.fee_open")),
    });
    let told = |of: &Option<Option<String>>, [yes, no]: [&'static str; 2]| {
        of.as_ref().map(|of| Prompt::Phrase(if of.is_some() { yes } else { no }))
    };
    said.extend(told(&with.kept, ["saved.kept", "saved.not_kept"]));
    said.extend(told(&with.plan, ["later.plan_number", "later.no_plan"]));
    if let Some(number) = with.plan.flatten() {
        said.push(Prompt::Groups { digits: number, slow: false });
    }
    line.tell(said).await;
    let gone = |leave: &Leave| matches!(leave, Leave::HandedOver | Leave::Hangup);
    if let Some(offer) = offer
        && autopay::ask(line, desk, offer).await.is_err_and(|leave| gone(&leave))
    {
        return;
    }
    repeated(line, "result.confirmation", confirmation).await;
}

/// That a payment was arranged, its number, and what came of it besides.
pub(super) async fn arranged(line: &mut Line, number: &str, besides: &[&'static str]) {
    const NUMBER: &str = "later.number";
    let mut said = read_out("later.arranged", NUMBER, number);
    said.extend(besides.iter().map(|id| Prompt::Phrase(id)));
    line.tell(said).await;
    repeated(line, NUMBER, number).await;
}

/// The number, as often as the caller wants to hear it.
async fn repeated(line: &mut Line, name: &'static str, number: &str) {
    const REPEATS_MAX: usize = 5;
    let repeat = vec![Prompt::Phrase("result.repeat")];
    let field = Field::menu("repeat", repeat, Menu(vec![('9', ())])).once();
    for _ in 0..REPEATS_MAX {
        match line.ask(&field).await {
            Ok(()) => {
                let slowly = Prompt::Groups { digits: number.to_string(), slow: true };
                line.tell(vec![Prompt::Phrase(name), slowly]).await;
            }
            Err(Leave::HandedOver | Leave::Hangup) => return,
            Err(Leave::Back | Leave::Agent | Leave::Failed) => break,
        }
    }
    line.tell(phrases(["bye.thanks"])).await;
}

async fn reference(
    line: &mut Line,
    result: &'static str,
    confirmation: &str,
    unmade: &[&'static str],
) {
    let mut said = read_out(result, "result.reference", confirmation);
    said.extend(unmade.iter().map(|id| Prompt::Phrase(id)));
    line.tell(said).await;
    let slowly = Prompt::Groups { digits: confirmation.to_string(), slow: true };
    let again = [Prompt::Phrase("result.reference"), slowly, Prompt::Phrase("bye.plain")];
    line.tell(again.to_vec()).await;
}

pub(super) fn read_out(result: &'static str, number: &'static str, digits: &str) -> Vec<Prompt> {
    let groups = Prompt::Groups { digits: digits.to_string(), slow: false };
    vec![Prompt::Phrase(result), Prompt::Phrase(number), groups]
}

async fn another(line: &mut Line, result: &'static str, retry: &Retry) -> Result<Next, Leave> {
    if !retry.may {
        line.tell(phrases([result])).await;
        return Err(Leave::Failed);
    }
    let (ask, next) = match retry.other_way {
        true => ("retry.other_way", Next::OtherWay),
        false => ("retry.other_card", Next::TryAgain),
    };
    let field = Field::menu("retry", phrases([ask]), Menu(vec![('1', ())]));
    line.ask(&field.notice(phrases([result]))).await?;
    Ok(next)
}
