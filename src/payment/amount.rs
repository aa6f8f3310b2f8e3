//! How much: the full balance, or another amount within the biller's bounds.

use super::{Desk, Leave, Line, phrases};
use crate::account::Account;
use crate::dialogue::grammar::{self, Amount, Grammar, Menu};
use crate::dialogue::{Field, ReadBack, Voice};
use crate::money::Money;
use crate::prompt::Prompt;
use crate::speech;

#[derive(Clone, Copy)]
pub(super) enum Choice {
    Amount(Money),
    OtherAccount,
    /// Nothing is due, nothing can be paid, and the caller asks about no other account.
    Nothing,
}

#[derive(Clone, Copy)]
enum Wish {
    Full,
    Other,
    OtherAccount,
}

/// At most `room`, where other accounts have a part in the payment: one that needs more than that
/// is paid by itself.
pub(super) async fn choose(
    line: &mut Line,
    desk: &Desk,
    account: &Account,
    room: Option<Money>,
) -> Result<Choice, Leave> {
    let mut bounds = bounds(desk, account);
    if let Some(room) = room {
        let due = account.amount_due;
        let whole = due.is_positive() && due.minor <= room.minor;
        if bounds.min.minor > room.minor && !whole {
            line.say(phrases(["several.no_room"])).await;
            return Ok(Choice::OtherAccount);
        }
        let max = Money::new(room.minor.min(bounds.max.minor), room.currency);
        let min = Money::new(bounds.min.minor.min(max.minor), room.currency);
        bounds = Amount { min, max, ..bounds };
    }
    if !account.amount_due.is_positive() {
        if !desk.settings.partial.takes_in_advance() {
            let notice = phrases(["greet.nothing_due", "amount.not_in_advance"]);
            if room.is_none() {
                return nothing(line, notice).await;
            }
            line.say(notice).await;
            return Ok(Choice::OtherAccount);
        }
        line.say(phrases(["greet.nothing_due"])).await;
        return other(line, bounds).await.map(Choice::Amount);
    }
    let mut prompt = vec![Prompt::Phrase("greet.balance"), Prompt::Amount(account.amount_due)];
    if let Some(due) = account.due_date {
        prompt.extend([Prompt::Phrase("greet.due"), Prompt::Date(due)]);
    }
    prompt.push(Prompt::Phrase("menu.amount"));
    let wishes = [('1', Wish::Full), ('2', Wish::Other), ('3', Wish::OtherAccount)];
    let menu = Field::menu("choice", prompt, Menu(wishes.to_vec())).help("menu.amount");
    let menu = menu.spoken(Voice {
        field: speech::Field::Digit,
        read_back: ReadBack::Never,
        prompt: "menu.amount_say",
    });
    loop {
        match line.ask(&menu).await? {
            Wish::OtherAccount => return Ok(Choice::OtherAccount),
            Wish::Full if account.amount_due.minor <= bounds.max.minor => {
                return Ok(Choice::Amount(account.amount_due));
            }
            Wish::Full => line.tell(bounds.explain(grammar::TOO_HIGH)).await,
            // There is no other amount: why not, and what can be paid.
            Wish::Other if bounds.min == bounds.max => {
                line.tell(bounds.explain(bounds.low)).await;
                continue;
            }
            Wish::Other => {}
        }
        match other(line, bounds.clone()).await {
            Err(Leave::Back) => {}
            amount => return amount.map(Choice::Amount),
        }
    }
}

/// Another account, or goodbye: who says nothing has heard what they wanted to know.
async fn nothing(line: &mut Line, notice: Vec<Prompt>) -> Result<Choice, Leave> {
    let menu = Menu(vec![('1', Choice::OtherAccount), ('2', Choice::Nothing)]);
    let field = Field::menu("nothing_due", phrases(["menu.nothing_due"]), menu);
    let field = field.notice(notice).spoken(Voice {
        field: speech::Field::Digit,
        read_back: ReadBack::Never,
        prompt: "menu.nothing_due_say",
    });
    match line.ask(&field).await {
        Err(Leave::Failed) => Ok(Choice::Nothing),
        choice => choice,
    }
}

/// What may be paid at once; the balance may be less than the least that is keyed.
fn bounds(desk: &Desk, account: &Account) -> Amount {
    let settings = &desk.settings;
    let least = account.min_payment.unwrap_or(settings.min_payment);
    let most = account.max_payment.unwrap_or(settings.max_payment);
    settings.partial.bounds(account, [least, most])
}

async fn other(line: &mut Line, bounds: Amount) -> Result<Money, Leave> {
    let ask = Field::number("amount", "amount.ask", bounds).spoken(Voice {
        field: speech::Field::Amount,
        read_back: ReadBack::Later,
        prompt: "amount.say",
    });
    loop {
        let amount = line.ask(&ask).await?;
        let read_back = vec![
            Prompt::Phrase("amount.confirm"),
            Prompt::Amount(amount),
            Prompt::Phrase("confirm.yes_no"),
        ];
        let right = Field::menu("confirm", read_back, Menu(vec![('1', true), ('2', false)]));
        let right = right.spoken(Voice {
            field: speech::Field::YesNo,
            read_back: ReadBack::Never,
            prompt: "speech.yes_no",
        });
        match line.ask(&right).await {
            Ok(true) => return Ok(amount),
            Ok(false) | Err(Leave::Back) => {}
            Err(leave) => return Err(leave),
        }
    }
}
