//! Who is calling and what they owe.

use jiff::civil::Date;

use crate::money::Money;

pub mod caller; // what the SIP headers tell of the caller, by trunk profile
pub mod csv; // the account file: rows in, directory or row errors out
pub mod directory; // accounts by number and by phone

pub use caller::Caller;
pub use directory::Directory;

/// What a biller told us of one account. Times and amounts are as of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    pub id: String,
    pub name_first: Option<String>,
    pub name_last: Option<String>,
    /// E.164 with `+`.
    pub phones: Vec<String>,
    /// The second factor: five digits.
    pub verify_zip: Option<String>,
    pub amount_due: Money,
    pub past_due: Option<Money>,
    pub min_payment: Option<Money>,
    pub max_payment: Option<Money>,
    pub due_date: Option<Date>,
    pub may: May,
}

/// What the biller lets the holder of an account do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct May {
    pub pay_by_card: bool,
    pub pay_by_bank: bool,
    /// There is a written agreement with them, or they bought something within two years: they may
    /// be called and pay from a bank account (Nacha's rules for TEL).
    pub be_called: bool,
}

impl Default for May {
    fn default() -> May {
        May { pay_by_card: true, pay_by_bank: true, be_called: false }
    }
}

/// A question to the biller's records. A wrong account and a wrong factor get the same answer.
#[derive(Clone, PartialEq)]
pub enum Query {
    /// By caller id, E.164 with `+`. Several people may share a phone.
    Phone(String),
    Verified {
        account: String,
        zip: String,
    },
}
