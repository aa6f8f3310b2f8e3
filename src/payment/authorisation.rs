//! The authorisation of a debit by phone (Nacha, SEC code TEL, single entry): said in full, signed
//! with a key, and kept before anything is debited.

use jiff::civil::Date;

use super::order::Order;
use super::{BankSettings, Desk, Leave, Line, Note, phrases};
use crate::dialogue::Field;
use crate::dialogue::grammar::Menu;
use crate::instrument::{AccountKind, Debit, Last4};
use crate::money::Money;
use crate::prompt::Prompt;

/// What the holder of an account has agreed to.
#[derive(Clone, Debug, PartialEq)]
pub struct Authorisation {
    /// When it was signed, Unix milliseconds, and as it is written where the biller is.
    pub signed_ms: i64,
    pub signed: String,
    /// The day it was given, as it was said.
    pub given: Date,
    /// The debit is made on this day or later.
    pub debit_from: Date,
    pub company: String,
    /// For questions and to revoke, E.164.
    pub phone: String,
    /// The customer's account with the biller, and their name.
    pub account_id: String,
    pub holder: String,
    pub kind: AccountKind,
    pub last4: Last4,
    pub amount: Money,
    pub fee: Money,
    pub total: Money,
    /// All that was said before it was signed.
    pub said: Vec<Prompt>,
    /// The call was recorded meanwhile.
    pub recorded: bool,
}

/// An authorisation and the payment it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    pub reference: String,
    pub confirmation: String,
    pub call_id: String,
    pub authorisation: Authorisation,
}

/// The key that signs.
pub const SIGNATURE: char = '1';

/// Says what is authorised; what was signed, or `None` if the caller would not.
pub(super) async fn ask(
    line: &mut Line,
    desk: &Desk,
    order: &Order,
    debit: &Debit,
) -> Result<Option<Authorisation>, Leave> {
    let bank = desk.settings.bank.as_ref().ok_or(Leave::Failed)?;
    if !line.name(&bank.company).await {
        // A text with a gap in it authorises nothing.
        line.tell(phrases(["result.not_charged"])).await;
        return Err(Leave::Failed);
    }
    let recorded = desk.authorisations_recorded;
    if recorded {
        line.tell(phrases(["authorisation.recorded"])).await;
    }
    let given = bank.zone.date(line.wall_ms());
    let said = text(bank, order, debit, given);
    let sign = phrases(["authorisation.sign"]);
    let menu = Menu(vec![(SIGNATURE, true), ('2', false)]);
    let field = Field::menu("authorisation", sign, menu).notice(said.clone());
    if !line.ask(&field.recorded(recorded)).await? {
        return Ok(None);
    }
    let (means, last4) = (order.means, order.last4);
    let (amount, fee, total) = (order.amount, order.fee, order.total);
    line.note(Note::Consent { amount, fee, total, means, last4 });
    let signed_ms = line.wall_ms();
    Ok(Some(Authorisation {
        signed_ms,
        signed: bank.zone.written(signed_ms),
        given,
        debit_from: given,
        company: bank.company.clone(),
        phone: bank.phone.number(),
        account_id: order.account_id.clone(),
        holder: debit.holder.to_string(),
        kind: debit.account.kind,
        last4,
        amount,
        fee,
        total,
        said,
        recorded,
    }))
}

/// The day, who is authorised to what and by whom, from which account and when, where to ask, and
/// how to revoke: none of these may be left out.
fn text(bank: &BankSettings, order: &Order, debit: &Debit, today: Date) -> Vec<Prompt> {
    let mut text = vec![
        Prompt::Phrase("authorisation.today"),
        Prompt::Date(today),
        Prompt::Phrase("authorisation.you"),
        Prompt::Name(bank.company.clone()),
        Prompt::Phrase("authorisation.debit"),
        Prompt::Amount(order.total),
    ];
    if order.fee.is_positive() {
        text.extend([Prompt::Phrase("authorisation.fee"), Prompt::Amount(order.fee)]);
    }
    text.extend([
        Prompt::Phrase(match debit.account.kind {
            AccountKind::Checking => "authorisation.from_checking",
            AccountKind::Savings => "authorisation.from_savings",
        }),
        Prompt::Digits(order.last4.as_str().to_string()),
        Prompt::Phrase("authorisation.on_or_after"),
        Prompt::Date(today),
    ]);
    let named = ["authorisation.account", "authorisation.account_ending"];
    text.extend(identity(&order.account_id, named));
    text.push(Prompt::Phrase("authorisation.questions"));
    text.extend(bank.phone.prompts());
    text.push(Prompt::Phrase("authorisation.revoke"));
    text
}

/// An account with the biller, after the first of these phrases or, if it is told by its end, the
/// second.
pub(super) fn identity(account_id: &str, [whole, ending]: [&'static str; 2]) -> [Prompt; 2] {
    /// A longer number is told by its end.
    const SAID_MAX: usize = 8;
    let digits: String = account_id.chars().filter(char::is_ascii_digit).collect();
    match digits.len() {
        0..=SAID_MAX => [Prompt::Phrase(whole), Prompt::Digits(digits)],
        len => [Prompt::Phrase(ending), Prompt::Digits(digits[len - 4..].to_string())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::{BankAccount, HolderKind, Means, RoutingNumber};
    use crate::prompt::library::tests::library;

    fn bank() -> BankSettings {
        let text = "company = \"Acme Water\"\nphone = \"800 555 0100\"\ntime_zone = \"eastern\"\n";
        toml::from_str(text).unwrap()
    }

    fn said(account_id: &str, fee: i64) -> String {
        let routing = RoutingNumber::parse("021000021").unwrap();
        let account = BankAccount::parse(routing, "12345678901", AccountKind::Checking).unwrap();
        let order = Order {
            account_id: account_id.into(),
            allocations: Vec::new(),
            amount: Money::usd(32_172),
            fee: Money::usd(fee),
            total: Money::usd(32_172 + fee),
            apart: None,
            surcharge: false,
            means: Means::Bank(AccountKind::Checking),
            last4: account.last4(),
            fingerprint: crate::instrument::Fingerprint::parse(&"a".repeat(32)).unwrap(),
            issuer: None,
            authorisation: None,
            keep: None,
            plan: None,
            once: None,
        };
        let (holder, holder_kind) = ("James Walker".to_string().into(), HolderKind::Personal);
        let debit = Debit { account, holder, holder_kind };
        library().words(&text(&bank(), &order, &debit, jiff::civil::date(2026, 11, 28)))
    }

    #[test]
    fn it_holds_all_that_it_must() {
        assert_eq!(
            said("1001", 200),
            "Today, November 28, you authorize Acme Water to make a one-time electronic debit, \
             also called an ACH debit, of $323.72, which includes a convenience fee of $2.00, \
             from your checking account ending in 8901, on or after November 28, for your account \
             number 1001. If you have questions about this payment, call 800 555 0100 during \
             business hours. To revoke this authorization, call the same number before your bank \
             account is debited."
        );
        let without = said("1001", 0);
        assert!(!without.contains("fee") && without.contains("of $321.72, from"), "{without}");
    }

    #[test]
    fn neither_a_long_account_nor_one_with_letters_is_said_in_full() {
        let long = said("123456789012", 0);
        assert!(long.contains("for your account number ending in 9012."), "{long}");
        assert!(said("W-77", 0).contains("for your account number 77."));
    }
}
