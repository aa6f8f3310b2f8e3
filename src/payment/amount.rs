//! How much: the full balance, or another amount within the biller's bounds.

use super::{Desk, Leave, Line, phrases};
use crate::account::Account;
use crate::dialogue::Field;
use crate::dialogue::grammar::{Amount, Menu};
use crate::money::Money;
use crate::prompt::Prompt;

#[derive(Clone, Copy)]
pub(super) enum Choice {
    Amount(Money),
    OtherAccount,
}

#[derive(Clone, Copy)]
enum Wish {
    Full,
    Other,
    OtherAccount,
}

pub(super) async fn choose(
    line: &mut Line,
    desk: &Desk,
    account: &Account,
) -> Result<Choice, Leave> {
    if !account.amount_due.is_positive() {
        line.say(phrases(["greet.nothing_due"])).await;
        return other(line, desk, account).await.map(Choice::Amount);
    }
    let mut prompt = vec![Prompt::Phrase("greet.balance"), Prompt::Amount(account.amount_due)];
    if let Some(due) = account.due_date {
        prompt.extend([Prompt::Phrase("greet.due"), Prompt::Date(due)]);
    }
    prompt.push(Prompt::Phrase("menu.amount"));
    let wishes = [('1', Wish::Full), ('2', Wish::Other), ('3', Wish::OtherAccount)];
    let menu = Field::menu("choice", prompt, Menu(wishes.to_vec())).help("menu.amount");
    loop {
        match line.ask(&menu).await? {
            Wish::Full => return Ok(Choice::Amount(account.amount_due)),
            Wish::OtherAccount => return Ok(Choice::OtherAccount),
            Wish::Other => match other(line, desk, account).await {
                Err(Leave::Back) => {}
                amount => return amount.map(Choice::Amount),
            },
        }
    }
}

async fn other(line: &mut Line, desk: &Desk, account: &Account) -> Result<Money, Leave> {
    let grammar = Amount {
        min: account.min_payment.unwrap_or(desk.settings.min_payment),
        max: account.max_payment.unwrap_or(desk.settings.max_payment),
    };
    let ask = Field::number("amount", "amount.ask", grammar);
    loop {
        let amount = line.ask(&ask).await?;
        let read_back = vec![
            Prompt::Phrase("amount.confirm"),
            Prompt::Amount(amount),
            Prompt::Phrase("confirm.yes_no"),
        ];
        let right = Field::menu("confirm", read_back, Menu(vec![('1', true), ('2', false)]));
        match line.ask(&right).await {
            Ok(true) => return Ok(amount),
            Ok(false) | Err(Leave::Back) => {}
            Err(leave) => return Err(leave),
        }
    }
}
