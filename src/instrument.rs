//! What a caller pays with. A `Pan`, `Expiry`, `Cvv`, `RoutingNumber`, `BankAccount` or `Token`
//! exists only if it is valid: parse, don't validate.

use std::fmt;

use zeroize::Zeroizing;

use crate::secret::Secret;

mod fingerprint; // the same card or account again, without its number
mod token; // a card or account that a gateway keeps

pub use fingerprint::{Fingerprint, FingerprintKey};
pub use token::{Saved, TOKEN_MAX, Token};

/// Card brands with the lengths and security-code rules of their issuers (ISO/IEC 7812 ranges).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Brand {
    Visa,
    Mastercard,
    Amex,
    Discover,
    Jcb,
    Diners,
    UnionPay,
}

impl Brand {
    pub const ALL: [Brand; 7] = [
        Brand::Visa,
        Brand::Mastercard,
        Brand::Amex,
        Brand::Discover,
        Brand::Jcb,
        Brand::Diners,
        Brand::UnionPay,
    ];

    /// The brand a number of at least its deciding digits belongs to; `None` when too short to
    /// tell or issued by nobody we know.
    pub fn of(digits: &str) -> Option<Brand> {
        let first = |n: usize| digits.get(..n).and_then(|d| d.parse::<u32>().ok());
        let one = first(1)?;
        if one == 4 {
            return Some(Brand::Visa);
        }
        let two = first(2)?;
        match two {
            34 | 37 => return Some(Brand::Amex),
            36 | 38 | 39 => return Some(Brand::Diners),
            51..=55 => return Some(Brand::Mastercard),
            65 => return Some(Brand::Discover),
            _ => {}
        }
        let three = first(3)?;
        match three {
            300..=305 => return Some(Brand::Diners),
            644..=649 => return Some(Brand::Discover),
            _ => {}
        }
        let four = first(4)?;
        match four {
            2221..=2720 => return Some(Brand::Mastercard),
            3528..=3589 => return Some(Brand::Jcb),
            6011 => return Some(Brand::Discover),
            _ => {}
        }
        // China UnionPay numbers between 622126 and 622925 are co-branded with Discover, which
        // routes them to UnionPay: one brand is enough here.
        matches!(two, 62 | 81).then_some(Brand::UnionPay)
    }

    /// Number lengths the brand issues, shortest first.
    pub fn lengths(self) -> &'static [usize] {
        match self {
            Brand::Visa => &[13, 16, 19],
            Brand::Mastercard => &[16],
            Brand::Amex => &[15],
            Brand::Discover => &[16, 19],
            Brand::Jcb => &[16, 17, 18, 19],
            Brand::Diners => &[14, 16, 19],
            Brand::UnionPay => &[16, 17, 18, 19],
        }
    }

    /// Digits of the security code: four on the front for Amex, three on the back otherwise.
    pub fn cvv_len(self) -> usize {
        if self == Brand::Amex { 4 } else { 3 }
    }

    /// The name used in files, gateways and prompt ids.
    pub fn name(self) -> &'static str {
        match self {
            Brand::Visa => "visa",
            Brand::Mastercard => "mastercard",
            Brand::Amex => "amex",
            Brand::Discover => "discover",
            Brand::Jcb => "jcb",
            Brand::Diners => "diners",
            Brand::UnionPay => "unionpay",
        }
    }
}

/// A primary account number: brand known, length issued by that brand, Luhn sum right.
pub struct Pan {
    digits: Secret<String>,
    brand: Brand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanError {
    NotDigits,
    UnknownBrand,
    Length,
    Checksum,
}

impl Pan {
    pub fn parse(digits: &str) -> Result<Pan, PanError> {
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(PanError::NotDigits);
        }
        let brand = Brand::of(digits).ok_or(PanError::UnknownBrand)?;
        if !brand.lengths().contains(&digits.len()) {
            return Err(PanError::Length);
        }
        if !luhn(digits) {
            return Err(PanError::Checksum);
        }
        Ok(Pan { digits: Secret::new(digits.to_string()), brand })
    }

    pub fn brand(&self) -> Brand {
        self.brand
    }

    pub fn last4(&self) -> Last4 {
        Last4::of(self.digits.expose())
    }

    /// The whole number, for the gateway request alone.
    pub fn expose(&self) -> &str {
        self.digits.expose()
    }
}

/// The last four digits, which may be shown and kept (PCI DSS 3.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Last4([u8; 4]);

impl Last4 {
    /// The last four characters of `digits`, which must hold at least four ASCII digits.
    fn of(digits: &str) -> Last4 {
        let bytes = digits.as_bytes();
        let mut last = [b'0'; 4];
        last.copy_from_slice(&bytes[bytes.len() - 4..]);
        Last4(last)
    }

    pub fn parse(text: &str) -> Option<Last4> {
        let four = text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit());
        four.then(|| Last4::of(text))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("0000")
    }
}

impl fmt::Debug for Last4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The last month a card is good for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    year: u16,
    month: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryError {
    NotADate,
    Expired,
    TooFar,
}

/// Cards are not issued for longer than this.
const EXPIRY_YEARS_MAX: u16 = 20;

impl Expiry {
    /// Reads `MMYY`, or `MYY` as callers key September 2030: `930`. Good through the last day of
    /// the month; at most 20 years ahead of `today`.
    pub fn parse(digits: &str, today: jiff::civil::Date) -> Result<Expiry, ExpiryError> {
        if !(3..=4).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ExpiryError::NotADate);
        }
        let (month, year) = digits.split_at(digits.len() - 2);
        let month: u8 = month.parse().map_err(|_| ExpiryError::NotADate)?;
        let year: u16 = year.parse().map_err(|_| ExpiryError::NotADate)?;
        if !(1..=12).contains(&month) {
            return Err(ExpiryError::NotADate);
        }
        let this_year = today.year().unsigned_abs();
        let year = this_year - this_year % 100 + year;
        if (Expiry { year, month }).is_over(today) {
            return Err(ExpiryError::Expired);
        }
        if year > this_year + EXPIRY_YEARS_MAX {
            return Err(ExpiryError::TooFar);
        }
        Ok(Expiry { year, month })
    }

    /// What [`Expiry::expose_year`] and [`Expiry::expose_month`] gave of a card that was kept.
    pub fn kept(year: u16, month: u8) -> Option<Expiry> {
        ((1..=12).contains(&month) && year < 10_000).then_some(Expiry { year, month })
    }

    /// Whether the last day of the month is before `today`.
    pub fn is_over(&self, today: jiff::civil::Date) -> bool {
        (self.year, self.month) < (today.year().unsigned_abs(), today.month().unsigned_abs())
    }

    /// Four digits, for the gateway request alone.
    pub fn expose_year(&self) -> u16 {
        self.year
    }

    /// 1 to 12, for the gateway request alone.
    pub fn expose_month(&self) -> u8 {
        self.month
    }
}

/// The security code printed on a card; never stored, not even by us for a second try.
pub struct Cvv(Secret<String>);

impl Cvv {
    /// `None` unless `digits` has exactly the brand's number of digits.
    pub fn parse(digits: &str, brand: Brand) -> Option<Cvv> {
        let right = digits.len() == brand.cvv_len() && digits.bytes().all(|b| b.is_ascii_digit());
        right.then(|| Cvv(Secret::new(digits.to_string())))
    }

    /// The code, for the gateway request alone.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// An ABA routing number: nine digits, weights 3-7-1, sum divisible by ten.
#[derive(Clone, PartialEq, Eq)]
pub struct RoutingNumber(String);

impl RoutingNumber {
    pub fn parse(digits: &str) -> Option<RoutingNumber> {
        if digits.len() != 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let weighted = digits.bytes().zip([3, 7, 1].into_iter().cycle());
        let sum: u32 = weighted.map(|(d, w)| u32::from(d - b'0') * w).sum();
        (sum > 0 && sum.is_multiple_of(10)).then(|| RoutingNumber(digits.to_string()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountKind {
    Checking,
    Savings,
}

impl AccountKind {
    pub const ALL: [AccountKind; 2] = [AccountKind::Checking, AccountKind::Savings];

    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            AccountKind::Checking => "checking",
            AccountKind::Savings => "savings",
        }
    }
}

/// A bank account a debit can be drawn on (ACH).
pub struct BankAccount {
    pub routing: RoutingNumber,
    pub kind: AccountKind,
    number: Secret<String>,
}

impl BankAccount {
    /// `None` unless the account number has 4 to 17 digits.
    pub fn parse(routing: RoutingNumber, digits: &str, kind: AccountKind) -> Option<BankAccount> {
        let right = (4..=17).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        right.then(|| BankAccount { routing, kind, number: Secret::new(digits.to_string()) })
    }

    pub fn last4(&self) -> Last4 {
        Last4::of(self.number.expose())
    }

    /// The account number, for the gateway request alone.
    pub fn expose(&self) -> &str {
        self.number.expose()
    }
}

/// Everything the gateway needs to charge a card that is not present.
pub struct Card {
    pub pan: Pan,
    pub expiry: Expiry,
    pub cvv: Option<Cvv>,
    pub zip: Option<Zeroizing<String>>,
}

/// Whose account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderKind {
    Personal,
    Business,
}

/// Everything the gateway needs to debit a bank account that its holder authorised by phone (ACH,
/// SEC code TEL).
pub struct Debit {
    pub account: BankAccount,
    /// The name on the account.
    pub holder: Zeroizing<String>,
    pub holder_kind: HolderKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Card,
    Bank,
}

/// What a payment was made with, as far as it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Means {
    Card(Brand),
    Bank(AccountKind),
}

impl Means {
    pub fn method(self) -> Method {
        match self {
            Means::Card(_) => Method::Card,
            Means::Bank(_) => Method::Bank,
        }
    }

    /// The card's brand, or the kind of account, as in files.
    pub fn name(self) -> &'static str {
        match self {
            Means::Card(brand) => brand.name(),
            Means::Bank(kind) => kind.name(),
        }
    }

    /// Reads what [`Means::method`] and [`Means::name`] gave.
    pub fn parse(method: &str, name: &str) -> Option<Means> {
        let card = || Brand::ALL.into_iter().find(|brand| brand.name() == name).map(Means::Card);
        let bank = || AccountKind::ALL.into_iter().find(|kind| kind.name() == name);
        match method {
            "card" => card(),
            "bank" => bank().map(Means::Bank),
            _ => None,
        }
    }
}

impl Method {
    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Method::Card => "card",
            Method::Bank => "bank",
        }
    }
}

/// What is to be charged.
#[derive(Clone, Copy)]
pub enum Instrument<'a> {
    Card(&'a Card),
    Bank(&'a Debit),
    Token(&'a Saved),
}

impl Instrument<'_> {
    pub fn method(&self) -> Method {
        match self {
            Instrument::Card(_) => Method::Card,
            Instrument::Bank(_) => Method::Bank,
            Instrument::Token(saved) => saved.method,
        }
    }
}

/// The Luhn sum of ISO/IEC 7812-1 annex B; false for an empty or non-digit string.
pub fn luhn(digits: &str) -> bool {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let sum: u32 = digits.bytes().rev().enumerate().map(|(i, d)| luhn_term(i, d)).sum();
    sum.is_multiple_of(10)
}

/// Digits of a card number (ISO/IEC 7812-1).
const CARD_MIN: usize = 13;
const CARD_MAX: usize = 19;

/// Whether a run of digits, blanks and dashes between them allowed, is 13 to 19 digits long
/// without leading zeros and passes the Luhn check.
pub fn looks_like_card(text: &str) -> bool {
    if text.len() < CARD_MIN {
        return false;
    }
    let mut run = String::new();
    let mut after_separator = false;
    for c in text.chars().chain(['\0']) {
        let separator = matches!(c, ' ' | '-') && !run.is_empty() && !after_separator;
        if c.is_ascii_digit() {
            if c != '0' || !run.is_empty() {
                run.push(c);
            }
        } else if !separator {
            if (CARD_MIN..=CARD_MAX).contains(&run.len()) && luhn(&run) {
                return true;
            }
            run.clear();
        }
        after_separator = separator;
    }
    false
}

/// The digit that makes `digits` followed by it pass [`luhn`]. Non-digits count as zero.
pub fn luhn_check_digit(digits: &str) -> u8 {
    let sum: u32 = digits.bytes().rev().enumerate().map(|(i, d)| luhn_term(i + 1, d)).sum();
    ((10 - sum % 10) % 10) as u8
}

fn luhn_term(from_right: usize, digit: u8) -> u32 {
    let value = u32::from(digit.wrapping_sub(b'0').min(9));
    match (from_right % 2, value * 2) {
        (0, _) => value,
        (_, doubled) if doubled > 9 => doubled - 9,
        (_, doubled) => doubled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_each_brand_and_knows_it() {
        for (digits, brand) in [
            ("4111111111111111", Brand::Visa),
            ("4222222222222", Brand::Visa),
            ("5555555555554444", Brand::Mastercard),
            ("2223000048400011", Brand::Mastercard),
            ("378282246310005", Brand::Amex),
            ("6011111111111117", Brand::Discover),
            ("3530111333300000", Brand::Jcb),
            ("30569309025904", Brand::Diners),
            ("6200000000000005", Brand::UnionPay),
        ] {
            let pan = Pan::parse(digits).ok();
            assert_eq!(pan.as_ref().map(Pan::brand), Some(brand), "{brand:?}");
            assert_eq!(pan.map(|p| p.last4()), Last4::parse(&digits[digits.len() - 4..]));
        }
    }

    #[test]
    fn refuses_every_single_wrong_digit() {
        let right = "4111111111111111";
        for place in 1..right.len() {
            for digit in b'0'..=b'9' {
                let mut wrong = right.as_bytes().to_vec();
                if wrong[place] == digit {
                    continue;
                }
                wrong[place] = digit;
                let wrong = String::from_utf8(wrong).unwrap_or_default();
                assert_eq!(Pan::parse(&wrong).err(), Some(PanError::Checksum));
            }
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_number() {
        for (digits, why) in [
            ("", PanError::NotDigits),
            ("4111 1111", PanError::NotDigits),
            ("9999999999999995", PanError::UnknownBrand),
            ("411111111111111", PanError::Length),
        ] {
            assert_eq!(Pan::parse(digits).err(), Some(why));
        }
    }

    #[test]
    fn expiry_is_good_through_its_month() {
        let today = jiff::civil::date(2026, 11, 23);
        assert!(Expiry::parse("1126", today).is_ok());
        assert_eq!(Expiry::parse("1026", today).err(), Some(ExpiryError::Expired));
        assert_eq!(Expiry::parse("1330", today).err(), Some(ExpiryError::NotADate));
        assert_eq!(Expiry::parse("0147", today).err(), Some(ExpiryError::TooFar));
        let keyed_short = Expiry::parse("930", today).map(|e| (e.expose_month(), e.expose_year()));
        assert_eq!(keyed_short, Ok((9, 2030)));
    }

    #[test]
    fn routing_numbers_carry_their_checksum() {
        assert!(RoutingNumber::parse("021000021").is_some());
        assert!(RoutingNumber::parse("021000022").is_none());
        assert!(RoutingNumber::parse("000000000").is_none());
        let chase = RoutingNumber::parse("021000021")
            .and_then(|routing| BankAccount::parse(routing, "000123456789", AccountKind::Checking));
        assert_eq!(chase.map(|a| a.last4()), Last4::parse("6789"));
    }

    #[test]
    fn check_digit_completes_any_number() {
        for stem in ["1", "48291503", "411111111111111"] {
            assert!(luhn(&format!("{stem}{}", luhn_check_digit(stem))), "{stem}");
        }
    }

    #[test]
    fn cvv_length_follows_the_brand() {
        assert!(Cvv::parse("123", Brand::Visa).is_some());
        assert!(Cvv::parse("123", Brand::Amex).is_none());
        assert!(Cvv::parse("1234", Brand::Amex).is_some());
    }
}
