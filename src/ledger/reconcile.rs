//! The biller's reconciliation file: what became final since the last one, with a sequence number,
//! a count, a sum and a hash, so that nothing can be lost or read twice unnoticed.
//!
//! CSV (RFC 4180, LF), UTF-8, times RFC 3339 UTC, amounts decimal:
//!
//! ```text
//! HDR,5,<biller>,<created>,<sequence>
//! PMT,<confirmation>,<intent_id>,<account_id>,<amount>,<fee>,<total>,<currency>,<method>,<brand>,
//!     <last4>,<status>,<auth_code>,<gateway>,<gateway_ref>,<avs>,<cvv>,<call_id>,<channel>,<started>,
//!     <fee_kind>,<fee_of>,<part>
//! TRL,<number of PMT rows>,<sum of totals>,<SHA-256 of all rows above>
//! ```
//!
//! Rows with status `approved` are money received, rows `voided`, `refunded` and `returned` money
//! given back: the sum is of the one less the other. A `returned` row has the reason of the
//! holder's bank (`R01`) as its code; if that debit is made again, a row `represented` tells that
//! its money is received after all. A payment that was given back has rows of both, in this
//! or different files, with the same intent; a refund's amount is what was paid back, fee and all,
//! but of a surcharge its share is told apart.
//! `declined` and `not_charged` rows tell how an attempt ended. `<brand>` of method `bank` is
//! `checking` or `savings`. `<fee_kind>` is `surcharge` where `<fee>` is one, else empty. A fee
//! that is a charge of its own has a row with amount 0.00, and `<fee_of>` is the intent of its bill,
//! whose row has fee 0.00; if it is `declined` or `not_charged` the bill stands without it, or was
//! voided.
//! A payment for several accounts has a row of each, with one confirmation number, one intent and
//! one approval; `<part>` is `1/3` to `3/3`, else empty. Its fee stands in the first row. What is
//! paid back in part is taken off its accounts in that order; an account of which nothing is has
//! no row.
//! Version 1 knew no `voided` and `refunded`, version 2 no `returned` and `represented`, version 3
//! no `<fee_kind>` and `<fee_of>`, version 4 no `<part>`.

use std::fmt;

use aws_lc_rs::digest;
use csv::{ByteRecord, StringRecord};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::allocation::given_back;
use super::{Change, Intent, Origin, Progress, Split, State, Undo};
use crate::gateway::Approval;
use crate::instrument::{Last4, Means};
use crate::money::{Currency, Money};

/// One file: `sequence` counts a biller's files from 1 without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    pub biller: String,
    pub sequence: u64,
    /// Unix milliseconds, UTC.
    pub created_ms: i64,
    pub rows: Vec<Row>,
}

/// One payment that became final, or what of it is for one account; fingerprints and origin stay
/// in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub intent: Intent,
    /// Of a payment for several accounts.
    pub part: Option<Part>,
    pub status: Status,
    /// Present if, and only if, money moved; of a void or refund only the gateway's reference.
    pub approval: Option<Approval>,
}

/// Which of how many accounts a row is of, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub nth: usize,
    pub of: usize,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.nth, self.of)
    }
}

impl Part {
    fn parse(text: &str) -> Option<Part> {
        let (nth, of) = text.split_once('/')?;
        let (nth, of) = (nth.parse().ok()?, of.parse().ok()?);
        (1 <= nth && nth <= of).then_some(Part { nth, of })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Approved,
    Declined,
    NotCharged,
    Voided,
    Refunded,
    Returned,
    Represented,
}

impl Status {
    const ALL: [Status; 7] = [
        Status::Approved,
        Status::Declined,
        Status::NotCharged,
        Status::Voided,
        Status::Refunded,
        Status::Returned,
        Status::Represented,
    ];
    /// Those of money that went back after it was received, or came once more.
    pub const UNDOING: [Status; 4] =
        [Status::Voided, Status::Refunded, Status::Returned, Status::Represented];

    fn moves_money(self) -> bool {
        !matches!(self, Status::Declined | Status::NotCharged)
    }

    pub fn name(self) -> &'static str {
        match self {
            Status::Approved => "approved",
            Status::Declined => "declined",
            Status::NotCharged => "not_charged",
            Status::Voided => "voided",
            Status::Refunded => "refunded",
            Status::Returned => "returned",
            Status::Represented => "represented",
        }
    }
}

impl Row {
    /// The rows of an intent, one of each account; none while its outcome is not final, and none of
    /// a verification.
    pub fn of(intent: &Intent, state: &State) -> Vec<Row> {
        let status = match state {
            _ if intent.split == Split::Verification => return Vec::new(),
            State::Approved(_) | State::Posted(_) => Status::Approved,
            State::Declined(_) => Status::Declined,
            State::NotCharged(_) => Status::NotCharged,
            _ => return Vec::new(),
        };
        let approval = state.approval().map(Approval::bare);
        let parts: Vec<Money> = intent.parts().map(|(_, amount)| amount).collect();
        Row { intent: told(intent), part: None, status, approval }.by_account(&parts)
    }

    /// The rows of a change that took effect. What a bank says of a return is its reason and then
    /// the trace number of the debit.
    pub fn of_change(
        intent: &Intent,
        change: &Change,
        progress: &Progress,
        before: Money,
    ) -> Vec<Row> {
        let (Progress::Done(reference) | Progress::Accepted(reference)) = progress else {
            return Vec::new();
        };
        let none = Money::new(0, before.currency);
        let (Some(part), Some((earlier, _))) =
            (refunded(intent, change.amount, before), refunded(intent, before, none))
        else {
            return Vec::new();
        };
        // Of what went back or came whole, fee and all, each part is told.
        let (whole, earlier) = match intent.total() == Some(change.amount) {
            true => ((intent.amount, intent.fee), none),
            false => (part, earlier),
        };
        let (status, (amount, fee)) = match change.act {
            Undo::Void => (Status::Voided, whole),
            Undo::Refund => (Status::Refunded, part),
            Undo::Returned => (Status::Returned, whole),
            Undo::Represented => (Status::Represented, whole),
        };
        let (auth_code, reference) = match change.act {
            Undo::Returned => reference.split_once(' ').unwrap_or((reference, "")),
            _ => ("", reference.as_str()),
        };
        let parts: Vec<Money> = intent.parts().map(|(_, amount)| amount).collect();
        let parts = given_back(&parts, earlier, amount);
        let intent = Intent { amount, fee, created_ms: change.created_ms, ..told(intent) };
        let (auth_code, gateway_reference) = (auth_code.to_string(), reference.to_string());
        let approval = Approval { gateway_reference, auth_code, ..Approval::default() };
        Row { intent, part: None, status, approval: Some(approval) }.by_account(&parts)
    }

    /// A row of each account with what of it is theirs, `amounts`; the fee is the first one's.
    fn by_account(mut self, amounts: &[Money]) -> Vec<Row> {
        let accounts = std::mem::take(&mut self.intent.allocations);
        if accounts.is_empty() {
            return vec![self];
        }
        let none = Money::new(0, self.intent.fee.currency);
        let mut fee = Some((self.intent.fee, self.intent.split.clone()));
        let of = accounts.len();
        let parts = (1..).zip(accounts).zip(amounts).filter(|(_, amount)| amount.is_positive());
        let row = |((nth, account), amount): ((usize, super::Allocation), &Money)| {
            let (fee, split) = fee.take().unwrap_or((none, Split::Total));
            let account_id = account.account_id;
            let intent = Intent { account_id, amount: *amount, fee, split, ..self.intent.clone() };
            let (part, approval) = (Some(Part { nth, of }), self.approval.clone());
            Row { intent, part, status: self.status, approval }
        };
        parts.map(row).collect()
    }

    /// The money received by this row; less than nothing if it went back.
    pub fn received(&self) -> Option<Money> {
        let total = self.intent.total()?;
        match self.status {
            Status::Approved | Status::Represented => Some(total),
            Status::Voided | Status::Refunded | Status::Returned => {
                Some(Money::new(-total.minor, total.currency))
            }
            Status::Declined | Status::NotCharged => None,
        }
    }
}

/// Amount and fee of what is refunded after `before` was: of a surcharge its share goes back, so
/// that all of it has once all of the payment has; of a fee nothing is told apart.
fn refunded(intent: &Intent, back: Money, before: Money) -> Option<(Money, Money)> {
    let none = Money::new(0, back.currency);
    let total = i128::from(intent.total()?.minor);
    if intent.split != Split::Surcharge || total <= 0 {
        return Some((back, none));
    }
    let share = |of: i128| (of * i128::from(intent.fee.minor) * 2 + total).div_euclid(total * 2);
    let before = i128::from(before.minor);
    let fee = share(before + i128::from(back.minor)) - share(before);
    let fee = i64::try_from(fee).ok()?;
    Some((Money::new(back.minor - fee, back.currency), Money::new(fee, back.currency)))
}

/// What the biller is told of an intent.
fn told(intent: &Intent) -> Intent {
    let split = match &intent.split {
        // The row of its fee says so.
        Split::Bill { .. } => Split::Total,
        split => split.clone(),
    };
    Intent { split, fingerprint: None, origin: Origin::default(), ..intent.clone() }
}

/// `payments-<biller>-<YYYYMMDD>-<sequence>.csv`; `None` unless the biller's name has only letters,
/// digits, `-` and `_`.
pub fn file_name(biller: &str, sequence: u64, created_ms: i64) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if biller.is_empty() || biller.len() > 64 || !biller.bytes().all(plain) {
        return None;
    }
    let created = Timestamp::from_millisecond(created_ms).ok()?;
    let day = created.to_zoned(TimeZone::UTC).date().strftime("%Y%m%d").to_string();
    Some(format!("payments-{biller}-{day}-{sequence:06}.csv"))
}

/// The whole file. The same posting always gives the same bytes.
pub fn write(posting: &Posting) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    let mut put = |cells: &[&str]| {
        writer.write_record(cells).expect("a Vec takes every row");
    };
    let sequence = posting.sequence.to_string();
    put(&["HDR", VERSION, &posting.biller, &time(posting.created_ms), &sequence]);
    for row in &posting.rows {
        let Row { intent, part, status, approval } = row;
        let text = |field: fn(&Approval) -> Option<&str>| {
            approval.as_ref().and_then(field).unwrap_or_default()
        };
        put(&[
            "PMT",
            &intent.confirmation,
            &intent.id,
            &intent.account_id,
            &intent.amount.decimal(),
            &intent.fee.decimal(),
            &intent.total().map(Money::decimal).unwrap_or_default(),
            intent.amount.currency.code(),
            intent.means.method().name(),
            intent.means.name(),
            intent.last4.as_str(),
            status.name(),
            text(|approval| Some(&approval.auth_code)),
            &intent.gateway,
            text(|approval| Some(&approval.gateway_reference)),
            text(|approval| approval.avs.as_deref()),
            text(|approval| approval.cvv.as_deref()),
            &intent.call_id,
            "phone",
            &time(intent.created_ms),
            if intent.split == Split::Surcharge { SURCHARGE } else { "" },
            intent.split.bill().unwrap_or_default(),
            &part.map(|part| part.to_string()).unwrap_or_default(),
        ]);
    }
    let mut file = writer.into_inner().expect("a Vec takes every row");
    let (count, sum) = (posting.rows.len(), sum(&posting.rows));
    let hash = sha256(&file);
    file.extend(format!("TRL,{count},{sum},{hash}\n").bytes());
    file
}

const VERSION: &str = "5";
/// Versions that are read, with how many cells a row of each has.
const VERSIONS: [(&str, usize); 5] = [("1", 20), ("2", 20), ("3", 20), ("4", 22), (VERSION, 23)];
const SURCHARGE: &str = "surcharge";

/// What is wrong with a file; it must not be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// From 1; 0 if the file as a whole is at fault.
    pub line: u64,
    pub reason: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for ReadError {}

/// Reads a file back and checks its count, sum and hash.
pub fn read(bytes: &[u8]) -> Result<Posting, ReadError> {
    let body = bytes.strip_suffix(b"\n").ok_or_else(|| cut_off(0))?;
    let trailer_at = body.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let (rows, trailer) = bytes.split_at(trailer_at);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(rows);
    let mut record = ByteRecord::new();
    let mut posting: Option<Posting> = None;
    let mut cells = 0;
    while reader.read_byte_record(&mut record).unwrap_or(false) {
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |reason: &str| ReadError { line, reason: reason.into() };
        let record =
            StringRecord::from_byte_record(record.clone()).map_err(|_| wrong("it is not UTF-8"))?;
        match (&mut posting, record.get(0)) {
            (None, Some("HDR")) => {
                let header = header(&record).map_err(|why| wrong(&why))?;
                (posting, cells) = (Some(header.0), header.1);
            }
            (None, _) => return Err(wrong("the first row must be HDR")),
            (Some(posting), Some("PMT")) => {
                let row = payment(&posting.biller, &record, cells).map_err(|why| wrong(&why))?;
                posting.rows.push(row);
            }
            (Some(_), _) => return Err(wrong("only PMT rows may stand between HDR and TRL")),
        }
    }
    let posting = posting.ok_or_else(|| cut_off(1))?;
    let line = posting.rows.len() as u64 + 2;
    let (count, sum) = (posting.rows.len(), sum(&posting.rows));
    let expected = format!("TRL,{count},{sum},{}\n", sha256(rows));
    if trailer != expected.as_bytes() {
        if !trailer.starts_with(b"TRL,") {
            return Err(cut_off(line));
        }
        let reason = format!("count, sum or hash differ: the rows give {}", expected.trim_end());
        return Err(ReadError { line, reason });
    }
    Ok(posting)
}

fn cut_off(line: u64) -> ReadError {
    ReadError { line, reason: "the file is cut off: it must end with a TRL row".into() }
}

/// With how many cells a row has.
fn header(record: &StringRecord) -> Result<(Posting, usize), String> {
    let [Some(version), Some(biller), Some(created), Some(sequence), None] =
        [1, 2, 3, 4, 5].map(|at| record.get(at))
    else {
        return Err("HDR must have five cells".into());
    };
    let known = VERSIONS.into_iter().find(|(known, _)| *known == version);
    let (_, cells) = known.ok_or_else(|| {
        format!("version {version} is not known, only {}", VERSIONS.map(|(of, _)| of).join(", "))
    })?;
    let posting = Posting {
        biller: biller.into(),
        sequence: sequence.parse().map_err(|_| "the sequence is no number")?,
        created_ms: millis(created).ok_or("the creation time is no RFC 3339 time")?,
        rows: Vec::new(),
    };
    Ok((posting, cells))
}

fn payment(biller: &str, record: &StringRecord, cells: usize) -> Result<Row, String> {
    if record.len() != cells {
        return Err(format!("PMT must have {cells} cells, not {}", record.len()));
    }
    let currency = Currency::from_code(&record[7]).ok_or("unknown currency")?;
    let money = |at: usize| Money::parse(&record[at], currency).map_err(|_| "no amount");
    let means = Means::parse(&record[8], &record[9]);
    let status = Status::ALL.into_iter().find(|status| status.name() == &record[11]);
    let status = status.ok_or("unknown status")?;
    let some = |at: usize| {
        let cell = record.get(at).filter(|text| !text.is_empty());
        cell.map(str::to_string)
    };
    let intent = Intent {
        id: record[2].into(),
        confirmation: record[1].into(),
        biller: biller.into(),
        account_id: record[3].into(),
        amount: money(4)?,
        allocations: Vec::new(),
        fee: money(5)?,
        split: split(some(20), some(21))?,
        means: means.ok_or("unknown method or brand")?,
        last4: Last4::parse(&record[10]).ok_or("last4 must be four digits")?,
        fingerprint: None,
        gateway: record[13].into(),
        call_id: record[17].into(),
        origin: Origin::default(),
        created_ms: millis(&record[19]).ok_or("the start is no RFC 3339 time")?,
    };
    if intent.total() != Some(money(6)?) {
        return Err("total is not amount plus fee".into());
    }
    let approval = status.moves_money().then(|| Approval {
        gateway_reference: record[14].into(),
        auth_code: record[12].into(),
        avs: some(15),
        cvv: some(16),
        ..Approval::default()
    });
    let part = some(22).map(|text| Part::parse(&text).ok_or("the part is no such as 1/2"));
    Ok(Row { intent, part: part.transpose()?, status, approval })
}

fn split(kind: Option<String>, fee_of: Option<String>) -> Result<Split, String> {
    match (kind.as_deref(), fee_of) {
        (None, None) => Ok(Split::Total),
        (None, Some(bill)) => Ok(Split::FeeOf(bill)),
        (Some(SURCHARGE), None) => Ok(Split::Surcharge),
        (Some(kind), _) => Err(format!("`{kind}` is no kind of fee here")),
    }
}

/// The decimal sum of what was received; a file holds one currency.
fn sum(rows: &[Row]) -> String {
    let mut all = rows.iter().filter_map(Row::received);
    let zero = rows.first().map_or(Money::usd(0), |row| Money { minor: 0, ..row.intent.amount });
    let sum = all.try_fold(zero, |sum, received| sum.checked_add(received));
    sum.map_or("overflow".into(), Money::decimal)
}

fn sha256(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 3339 in UTC with milliseconds; empty outside the years it can write.
fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map(|time| format!("{time:.3}")).unwrap_or_default()
}

fn millis(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(|time| time.as_millisecond())
}

#[cfg(test)]
mod tests;
