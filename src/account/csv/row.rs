//! One row of the account file: its cells checked, the account in it.

use csv::ByteRecord;
use jiff::civil::Date;

use super::super::directory::{ID_MAX, NAME_MAX};
use super::super::{Account, May};
use super::{FileError, Options, header_error};
use crate::instrument::looks_like_card;
use crate::money::{Currency, Money, MoneyError};
use crate::sip::number::e164;

/// A cell that cannot be taken.
pub(super) struct Wrong {
    pub column: String,
    pub reason: String,
}

impl Wrong {
    pub fn new(column: impl Into<String>, reason: impl Into<String>) -> Wrong {
        Wrong { column: column.into(), reason: reason.into() }
    }
}

pub(super) const ACCOUNT_ID: &str = "account_id";
/// The longest cell: beyond it a quote was not closed.
const CELL_MAX: usize = 256;
const RELATIONSHIP: &str = "existing_relationship";
const PHONES: [&str; 3] = ["phone1", "phone2", "phone3"];
/// Documented columns that are accepted and not used yet.
const UNUSED: [&str; 16] = [
    "email",
    "language",
    "verify_last4",
    "verify_dob",
    "biller_id",
    "invoice_id",
    "block_code",
    "message_code",
    "fee_profile",
    "saved_token",
    "saved_brand",
    "saved_last4",
    "consent_voice",
    "consent_sms",
    "consent_email",
    "tz",
];
const USED: [&str; 16] = [
    ACCOUNT_ID,
    "name_first",
    "name_last",
    "phone1",
    "phone2",
    "phone3",
    "verify_zip",
    "amount_due",
    "past_due",
    "min_payment",
    "max_payment",
    "due_date",
    "currency",
    "allow_card",
    "allow_ach",
    RELATIONSHIP,
];

/// The header row: which cell is which.
pub(super) struct Columns {
    names: Vec<String>,
    /// For each of [`USED`], its place in a row.
    places: [Option<usize>; USED.len()],
}

impl Columns {
    pub fn parse(record: &ByteRecord) -> Result<Columns, FileError> {
        let line = record.position().map_or(1, csv::Position::line);
        let mut columns = Columns { names: Vec::new(), places: [None; USED.len()] };
        for (at, cell) in record.iter().enumerate() {
            let name = String::from_utf8_lossy(cell).trim().to_ascii_lowercase();
            if columns.names.contains(&name) {
                let reason = format!("column {} `{}` stands twice", at + 1, shown(&name));
                return Err(header_error(line, reason));
            }
            if let Some(used) = USED.iter().position(|used| *used == name) {
                columns.places[used] = Some(at);
            } else if !UNUSED.contains(&name.as_str()) {
                return Err(header_error(line, unknown_column(at + 1, &name)));
            }
            columns.names.push(name);
        }
        for required in [ACCOUNT_ID, "amount_due"] {
            if columns.place(required).is_none() {
                let reason = format!("column `{required}` is missing; add it to the header row");
                return Err(header_error(line, reason));
            }
        }
        Ok(columns)
    }

    fn place(&self, name: &str) -> Option<usize> {
        USED.iter().position(|used| *used == name).and_then(|used| self.places[used])
    }

    /// The account of a row, and the cells of it that were ignored.
    pub fn account(
        &self,
        record: &ByteRecord,
        options: &Options,
    ) -> Result<(Account, Vec<Wrong>), Wrong> {
        if record.len() != self.names.len() {
            let (has, wants) = (record.len(), self.names.len());
            let reason = format!(
                "the row has {has} cells, the header {wants}; put quotes around cells that \
                 contain the delimiter"
            );
            return Err(Wrong::new("(row)", reason));
        }
        self.check_cells(record, &options.country)?;
        let text = |name: &str| self.text(record, name);
        let money = |name: &str| self.money(record, name, options.currency);
        let mut ignored = Vec::new();
        let mut phones: Vec<String> = Vec::new();
        for column in PHONES {
            let Some(cell) = text(column) else { continue };
            match e164(cell, &options.country) {
                Some(phone) if !phones.contains(&phone) => phones.push(phone),
                Some(_) => {}
                None => ignored.push(Wrong::new(column, PHONE_WRONG)),
            }
        }
        if text("currency").is_some_and(|code| !code.eq_ignore_ascii_case(options.currency.code()))
        {
            let code = options.currency.code();
            let reason =
                format!("this biller is set up for {code}; write {code} or leave it empty");
            return Err(Wrong::new("currency", reason));
        }
        let usual = May::default();
        let account = Account {
            id: account_id(text(ACCOUNT_ID).unwrap_or_default())?,
            name_first: name("name_first", text("name_first"))?,
            name_last: name("name_last", text("name_last"))?,
            phones,
            verify_zip: text("verify_zip").map(zip).transpose()?,
            amount_due: money("amount_due")?
                .ok_or_else(|| Wrong::new("amount_due", "it is empty; write 0.00 or an amount"))?,
            past_due: money("past_due")?,
            min_payment: money("min_payment")?,
            max_payment: money("max_payment")?,
            due_date: text("due_date").map(date).transpose()?,
            may: May {
                pay_by_card: yes("allow_card", text("allow_card"), usual.pay_by_card)?,
                pay_by_bank: yes("allow_ach", text("allow_ach"), usual.pay_by_bank)?,
                be_called: yes(RELATIONSHIP, text(RELATIONSHIP), usual.be_called)?,
            },
        };
        limits(&account)?;
        Ok((account, ignored))
    }

    /// What no cell may hold, used or not.
    fn check_cells(&self, record: &ByteRecord, country: &str) -> Result<(), Wrong> {
        for (cell, name) in record.iter().zip(&self.names) {
            let wrong = |reason: &str| Err(Wrong::new(name.as_str(), reason));
            if cell.len() > CELL_MAX {
                return wrong("the cell is longer than 256 bytes; close its quote or shorten it");
            }
            let Ok(text) = std::str::from_utf8(cell) else {
                return wrong("it is not UTF-8; save the file as \"CSV UTF-8\"");
            };
            if text.chars().any(char::is_control) {
                return wrong("it has a line break or control character; remove it");
            }
            let phone = || PHONES.contains(&name.as_str()) && e164(text, country).is_some();
            if looks_like_card(text) && !phone() {
                return wrong(
                    "it looks like a card number, which must not be sent here; leave it out",
                );
            }
        }
        Ok(())
    }

    /// The trimmed cell, `None` when empty or when the column is absent. Cells have been checked.
    fn text<'r>(&self, record: &'r ByteRecord, name: &str) -> Option<&'r str> {
        let cell = record.get(self.place(name)?)?;
        let text = std::str::from_utf8(cell).ok()?.trim();
        (!text.is_empty()).then_some(text)
    }

    fn money(
        &self,
        record: &ByteRecord,
        name: &str,
        in_: Currency,
    ) -> Result<Option<Money>, Wrong> {
        let Some(text) = self.text(record, name) else { return Ok(None) };
        let reason = match Money::parse(text, in_) {
            Ok(amount) => return Ok(Some(amount)),
            Err(MoneyError::NotANumber) => "it is no amount; write it as 321.72".to_string(),
            Err(MoneyError::TooManyDecimals) => {
                format!("it has too many decimals for {}; write it as 321.72", in_.code())
            }
            Err(MoneyError::TooLarge) => "it is too large; write it as 321.72".to_string(),
        };
        Err(Wrong::new(name, reason))
    }
}

const PHONE_WRONG: &str = "it is no phone number and was ignored; write it as +13175550142";

fn account_id(text: &str) -> Result<String, Wrong> {
    let wrong = |reason: &str| Err(Wrong::new(ACCOUNT_ID, reason));
    if text.is_empty() {
        return wrong("it is empty; write the account number");
    }
    if text.len() > ID_MAX {
        return wrong("it is longer than 32 characters; shorten it");
    }
    if text.contains("E+") && text.starts_with(|c: char| c.is_ascii_digit()) {
        return wrong("a spreadsheet turned it into a power of ten; format the column as text");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || " -./_".contains(c);
    if !text.chars().all(allowed) || !text.contains(|c: char| c.is_ascii_alphanumeric()) {
        return wrong("write letters, digits, blanks and - . / _ only");
    }
    Ok(text.to_string())
}

fn name(column: &str, text: Option<&str>) -> Result<Option<String>, Wrong> {
    if text.is_some_and(|text| text.len() > NAME_MAX) {
        return Err(Wrong::new(column, "it is longer than 64 bytes; shorten it"));
    }
    Ok(text.map(str::to_string))
}

/// `yes` or `no`, as spreadsheets and databases write it; an empty cell is as usual.
fn yes(column: &str, text: Option<&str>, usual: bool) -> Result<bool, Wrong> {
    let Some(text) = text else { return Ok(usual) };
    match text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "true" | "t" | "1" => Ok(true),
        "no" | "n" | "false" | "f" | "0" => Ok(false),
        _ => Err(Wrong::new(column, "it is neither yes nor no; write one of them")),
    }
}

/// Five digits, or nine of which the first five count.
fn zip(text: &str) -> Result<String, Wrong> {
    let five = text.get(..5).filter(|five| five.bytes().all(|b| b.is_ascii_digit()));
    let rest = text.get(5..).unwrap_or_default();
    let plus4 = rest.strip_prefix('-').unwrap_or(rest);
    let right = plus4.is_empty() || (plus4.len() == 4 && plus4.bytes().all(|b| b.is_ascii_digit()));
    five.filter(|_| right).map(str::to_string).ok_or_else(|| {
        let reason =
            "write five digits; a spreadsheet drops leading zeros unless the column is text";
        Wrong::new("verify_zip", reason)
    })
}

/// `2026-06-05` or `20260605`.
fn date(text: &str) -> Result<Date, Wrong> {
    let wrong = || Wrong::new("due_date", "it is no date; write it as 2026-06-05");
    let digits: String = match (text.len(), text.as_bytes().get(4), text.as_bytes().get(7)) {
        (10, Some(b'-'), Some(b'-')) => text.split('-').collect(),
        _ => text.to_string(),
    };
    if digits.len() != 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let part = |range: std::ops::Range<usize>| digits[range].parse::<i16>().unwrap_or(0);
    Date::new(part(0..4), part(4..6) as i8, part(6..8) as i8).map_err(|_| wrong())
}

/// Bounds that no payment could satisfy.
fn limits(account: &Account) -> Result<(), Wrong> {
    for (column, amount) in [
        ("past_due", account.past_due),
        ("min_payment", account.min_payment),
        ("max_payment", account.max_payment),
    ] {
        if amount.is_some_and(|amount| amount.minor < 0) {
            return Err(Wrong::new(column, "it is negative; write 0.00 or more"));
        }
    }
    if let (Some(min), Some(max)) = (account.min_payment, account.max_payment)
        && min.minor > max.minor
    {
        return Err(Wrong::new("min_payment", "it is above max_payment; swap them or correct one"));
    }
    Ok(())
}

fn unknown_column(at: usize, name: &str) -> String {
    let known = USED.iter().chain(&UNUSED).copied().collect::<Vec<_>>().join(", ");
    let name = shown(name);
    format!("column {at} `{name}` is not known; rename or remove it. Known columns: {known}")
}

/// A header as it may be repeated: a file without a header row has data in its place.
fn shown(name: &str) -> String {
    let digits = name.bytes().filter(u8::is_ascii_digit).count();
    let printable = name.chars().filter(|c| !c.is_control()).take(40).collect();
    if digits > 4 { "***".into() } else { printable }
}
