//! Several accounts in one payment: each found and given an amount as the first was, then all
//! charged together. The ledger and the biller's file keep what is for each.

use super::again::{self, Told};
use super::amount::{self, Choice};
use super::authorisation::identity;
use super::{Desk, Leave, Line, authenticate, phrases};
use crate::account::Account;
use crate::dialogue::grammar::Menu;
use crate::dialogue::{Field, ReadBack, Voice};
use crate::ledger::{Allocation, allocation};
use crate::money::Money;
use crate::prompt::Prompt;
use crate::speech;

/// Accounts in one payment: more are hard to keep in mind.
pub const ACCOUNTS_MAX: usize = 5;

/// What is to be paid: for one account, or for several at once.
pub(super) struct Bill {
    /// The first one. What it may, all of them may.
    pub(super) account: Account,
    /// In all, fees left out.
    pub(super) amount: Money,
    /// Of several accounts what is for each; else empty.
    pub(super) allocations: Vec<Allocation>,
    /// All but the first, in the order they were added.
    others: Vec<Account>,
    /// The first may be paid from a bank account by itself.
    by_bank: bool,
}

impl Bill {
    pub(super) fn of(account: Account, amount: Money) -> Bill {
        let by_bank = account.may.pay_by_bank;
        Bill { account, amount, allocations: Vec::new(), others: Vec::new(), by_bank }
    }

    /// Each account and what is paid for it.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, Money)> {
        allocation::parts(&self.account.id, self.amount, &self.allocations)
    }

    fn has(&self, account: &Account) -> bool {
        self.parts().any(|(of, _)| of == account.id)
    }

    /// `None` if they cannot be added. All of them may be paid by card; bank accounts pay one
    /// account at a time, for that is what is authorised.
    fn with(mut self, account: Account, amount: Money) -> Option<Bill> {
        let total = self.amount.checked_add(amount)?;
        let allocation = |(of, amount): (&str, Money)| Allocation { account_id: of.into(), amount };
        let mut allocations: Vec<Allocation> = self.parts().map(allocation).collect();
        allocations.push(allocation((&account.id, amount)));
        self.account.may.pay_by_bank = false;
        self.others.push(account);
        Some(Bill { amount: total, allocations, ..self })
    }

    /// Takes the account out that was added last; `None`: there is but the first.
    fn without_last(&mut self) -> Option<Account> {
        let account = self.others.pop()?;
        let amount = self.allocations.pop()?.amount;
        self.amount = Money::new(self.amount.minor - amount.minor, self.amount.currency);
        if self.others.is_empty() {
            self.allocations.clear();
            self.account.may.pay_by_bank = self.by_bank;
        }
        Some(account)
    }

    /// The most that can be added: one payment is never more than the biller takes at once.
    /// `None`: nothing can.
    fn room(&self, desk: &Desk) -> Option<Money> {
        let settings = &desk.settings;
        let cards = !settings.cards.is_empty() && self.account.may.pay_by_card;
        // An account is told from another by its digits.
        let named = self.account.id.bytes().any(|b| b.is_ascii_digit());
        let left = settings.max_payment.minor.checked_sub(self.amount.minor)?;
        (settings.several_accounts
            && cards
            && named
            && self.parts().count() < ACCOUNTS_MAX
            && left >= settings.min_payment.minor.max(1))
        .then(|| Money::new(left, self.amount.currency))
    }
}

/// Whether other accounts are to be paid together with this one, where the biller lets callers,
/// and which. `back`: whoever has not paid yet comes back to what is paid. What was added stays
/// until they go back over it: its amount is asked for again, then its number, then it is left out.
/// [`Leave::Back`]: before the question.
pub(super) async fn gather(
    line: &mut Line,
    desk: &Desk,
    told: &mut Told,
    mut bill: Bill,
    mut back: bool,
) -> Result<Bill, Leave> {
    loop {
        let wanted = match bill.room(desk) {
            None if std::mem::take(&mut back) => Err(Leave::Back),
            None => return Ok(bill),
            Some(_) => another(line).await,
        };
        back = false;
        let account = match wanted {
            Ok(true) => match other(line, desk, &bill).await {
                Ok(Some(account)) => account,
                Ok(None) | Err(Leave::Back) => continue,
                Err(leave) => return Err(leave),
            },
            Ok(false) => return Ok(bill),
            Err(Leave::Back) => bill.without_last().ok_or(Leave::Back)?,
            Err(leave) => return Err(leave),
        };
        let amount = match wished(line, desk, told, &bill, &account).await {
            Ok(Some(amount)) => amount,
            Ok(None) | Err(Leave::Back) => {
                if !bill.others.is_empty() {
                    together(line, &bill).await;
                }
                continue;
            }
            Err(leave) => return Err(leave),
        };
        bill = bill.with(account, amount).ok_or(Leave::Failed)?;
        together(line, &bill).await;
    }
}

/// Another account; `None`: it cannot be added, and the caller was told why.
async fn other(line: &mut Line, desk: &Desk, bill: &Bill) -> Result<Option<Account>, Leave> {
    let account = authenticate::other_account(line, desk).await?;
    if bill.has(&account) {
        line.say(phrases(["several.already"])).await;
        return Ok(None);
    }
    if !account.may.pay_by_card {
        line.say(phrases(["several.no_card"])).await;
        return Ok(None);
    }
    Ok(Some(account))
}

/// What is to be paid for it; `None`: nothing together with the others.
async fn wished(
    line: &mut Line,
    desk: &Desk,
    told: &mut Told,
    bill: &Bill,
    account: &Account,
) -> Result<Option<Money>, Leave> {
    let Some(most) = bill.room(desk) else { return Ok(None) };
    let Choice::Amount(amount) = amount::choose(line, desk, account, Some(most)).await? else {
        return Ok(None);
    };
    let wanted = again::wanted(line, desk, told, [(&*account.id, amount)], None).await?;
    Ok(Some(amount).filter(|_| wanted))
}

async fn together(line: &mut Line, bill: &Bill) {
    line.say(vec![Prompt::Phrase("several.together"), Prompt::Amount(bill.amount)]).await;
}

async fn another(line: &mut Line) -> Result<bool, Leave> {
    let menu = Menu(vec![('1', true), ('2', false)]);
    let field = Field::menu("several", phrases(["several.ask"]), menu).spoken(Voice {
        field: speech::Field::Digit,
        read_back: ReadBack::Never,
        prompt: "several.say",
    });
    line.ask(&field).await
}

/// What is paid for each account, for who has to agree to their sum.
pub(super) fn read_out(allocations: &[Allocation]) -> Vec<Prompt> {
    let mut said = Vec::new();
    for Allocation { account_id, amount } in allocations {
        said.extend(identity(account_id, ["several.account", "several.account_ending"]));
        said.push(Prompt::Amount(*amount));
    }
    said
}
