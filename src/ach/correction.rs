//! What a notice of change says of an account: another number, another bank, another kind.

use super::Code;
use crate::instrument::{AccountKind, BankAccount, RoutingNumber};
use crate::secret::Secret;

/// The account as it is now, as far as it has changed.
#[derive(Default)]
pub struct Correction {
    pub routing: Option<RoutingNumber>,
    number: Option<Secret<String>>,
    pub kind: Option<AccountKind>,
}

impl Correction {
    /// Reads the 29 columns of corrected data. `None`: the code changes nothing that a debit
    /// needs, or what is said cannot be an account.
    pub fn read(code: Code, data: &str) -> Option<Correction> {
        let at = |first: usize, last: usize| data.get(first - 1..last).map(str::trim);
        let routing = |text: &str| RoutingNumber::parse(text).map(Some);
        let none = Correction::default();
        Some(match code.as_str() {
            "C01" => Correction { number: Some(number(at(1, 17)?)?), ..none },
            "C02" => Correction { routing: routing(at(1, 9)?)?, ..none },
            "C03" => Correction {
                routing: routing(at(1, 9)?)?,
                number: Some(number(at(13, 29)?)?),
                ..none
            },
            "C05" => Correction { kind: Some(kind(at(1, 2)?)?), ..none },
            "C06" => Correction {
                number: Some(number(at(1, 17)?)?),
                kind: Some(kind(at(21, 22)?)?),
                ..none
            },
            "C07" => Correction {
                routing: routing(at(1, 9)?)?,
                number: Some(number(at(10, 26)?)?),
                kind: Some(kind(at(27, 28)?)?),
            },
            _ => return None,
        })
    }

    /// The account as it is to be debited now.
    pub fn apply(&self, account: BankAccount) -> Option<BankAccount> {
        let routing = match &self.routing {
            Some(routing) => RoutingNumber::parse(routing.as_str())?,
            None => RoutingNumber::parse(account.routing.as_str())?,
        };
        let number = self.number.as_ref().map_or(account.expose(), |number| number.expose());
        BankAccount::parse(routing, number, self.kind.unwrap_or(account.kind))
    }
}

/// An account number as a file holds it: blanks and dashes are not part of it.
pub(super) fn number(text: &str) -> Option<Secret<String>> {
    let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let digits = Secret::new(digits);
    let text = digits.expose();
    let right = (4..=17).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    right.then_some(digits)
}

/// Of transaction codes only the first digit tells the kind of account.
pub(super) fn kind(code: &str) -> Option<AccountKind> {
    match code.as_bytes() {
        [b'2', b'0'..=b'9'] => Some(AccountKind::Checking),
        [b'3', b'0'..=b'9'] => Some(AccountKind::Savings),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(code: &str, data: &str) -> Option<(String, String, AccountKind)> {
        let routing = RoutingNumber::parse("021000021").unwrap();
        let account = BankAccount::parse(routing, "11111", AccountKind::Checking).unwrap();
        let correction = Correction::read(Code::parse(code).unwrap(), &format!("{data:<29}"))?;
        let now = correction.apply(account)?;
        Some((now.routing.as_str().into(), now.expose().into(), now.kind))
    }

    #[test]
    fn each_code_has_its_own_columns() {
        let (old, new) = ("021000021", "091000019");
        use AccountKind::{Checking, Savings};
        for (code, data, want) in [
            ("C01", "00-22 222", (old, "0022222", Checking)),
            ("C02", new, (new, "11111", Checking)),
            ("C03", "091000019   22222", (new, "22222", Checking)),
            ("C03", "091000019   12345678901234567", (new, "12345678901234567", Checking)),
            ("C05", "37", (old, "11111", Savings)),
            ("C06", "22222               37", (old, "22222", Savings)),
            ("C07", "09100001922222            37", (new, "22222", Savings)),
        ] {
            let got = changed(code, data).unwrap_or_else(|| panic!("{code}"));
            assert_eq!((&*got.0, &*got.1, got.2), want, "{code}");
        }
        for (code, data) in [
            ("C01", ""),
            ("C01", "12A45"),
            ("C02", "091000018"),
            ("C05", "52"),
            ("C04", "JAMES"),
            ("C03", "091000019"),
            ("C07", "09100001922222"),
        ] {
            assert!(changed(code, data).is_none(), "{code} {data}");
        }
    }
}
