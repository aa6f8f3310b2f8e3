//! Files that come back from the bank: returns (addenda 99) and notices of change (addenda 98). A
//! file is believed whole or not at all: every count, hash and total is checked.

use std::fmt;

use jiff::civil::Date;
use zeroize::Zeroizing;

use super::correction::{Correction, kind, number};
use super::record::{BLOCK, Fields, LEN, Wrong};
use super::{Code, Receiver};
use crate::instrument::{BankAccount, RoutingNumber};

/// A file, read.
#[derive(Debug)]
pub struct Returned {
    /// The day it was made.
    pub created: Date,
    pub items: Vec<Item>,
}

/// One entry that came back. Sensitive.
pub struct Item {
    /// Of the entry in the file, from 1.
    pub line: usize,
    pub cents: u64,
    /// What we called the payment.
    pub id: String,
    pub news: News,
    /// Of the debit it is about.
    pub trace: String,
    /// Whose account was to be debited, if the entry tells it as an account can be.
    pub receiver: Option<Receiver>,
}

pub enum News {
    Returned(Code),
    /// `None`: what is to be corrected concerns no debit, or cannot be an account.
    Changed(Code, Option<Correction>),
    /// Neither: an entry without such an addendum.
    Other,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let news = match self.news {
            News::Returned(code) | News::Changed(code, _) => code.to_string(),
            News::Other => "no news".into(),
        };
        write!(f, "line {}: {news} of {}", self.line, self.trace)
    }
}

/// What is wrong with a file, and where; nothing of it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage(Wrong);

impl Damage {
    pub fn line(&self) -> usize {
        self.0.line
    }

    pub fn column(&self) -> usize {
        self.0.column
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wrong { line, column, expected } = &self.0;
        write!(f, "line {line}, column {column}: expected {expected}")
    }
}

impl From<Wrong> for Damage {
    fn from(wrong: Wrong) -> Damage {
        Damage(wrong)
    }
}

/// Every bank's day of returns ten times over.
pub const BYTES_MAX: u64 = 64 << 20;

impl Returned {
    pub fn read(bytes: &[u8]) -> Result<Returned, Damage> {
        let records = records(bytes)?;
        let mut reader = Reader { records: records.into_iter(), last: 0 };
        let header = reader.one_of("1", "the file header, a record that begins with 1")?;
        header.expect(35, 37, LEN as u64, "record size")?;
        header.expect(38, 39, BLOCK as u64, "blocking factor")?;
        let created = date(&header, 24)?;
        let mut items = Vec::new();
        let mut sum = Sum::default();
        let mut batches = 0;
        let control = loop {
            let expected = "a batch header (5) or the file control (9)";
            let record = reader.one_of("59", expected)?;
            if record.kind() == "9" {
                break record;
            }
            sum.all(&reader.batch(record, &mut items)?);
            batches += 1;
        };
        control.expect(2, 7, batches, "batch count")?;
        let blocks = control.line.div_ceil(BLOCK) as u64;
        control.expect(8, 13, blocks, "block count")?;
        control.expect(14, 21, sum.records, "entry and addenda count")?;
        control.expect(22, 31, sum.hash, "entry hash")?;
        control.expect(32, 43, sum.debits, "debits of")?;
        control.expect(44, 55, sum.credits, "credits of")?;
        for filler in reader.records {
            let filler = filler?;
            if filler.at(1, LEN).bytes().any(|b| b != b'9') {
                let expected = "nothing but filler records (all nines) after the file control";
                return Err(filler.wrong(1, expected).into());
            }
        }
        Ok(Returned { created, items })
    }
}

/// Fuzz body: whatever a bank sends, it is read or refused with its place, and never shown.
pub fn fuzz(bytes: &[u8]) {
    match Returned::read(bytes) {
        Ok(read) => drop(format!("{read:?}")),
        Err(damage) => {
            assert!(damage.line() > 0 && (1..=LEN + 1).contains(&damage.column()), "{damage}");
        }
    }
}

/// The records of a file, as they are asked for: a line each, or one after the other without line
/// ends.
fn records(bytes: &[u8]) -> Result<impl Iterator<Item = Result<Fields<'_>, Wrong>>, Damage> {
    let Some(last) = bytes.iter().rposition(|byte| !byte.is_ascii_whitespace()) else {
        let expected = "the file header, a record that begins with 1".into();
        return Err(Wrong { line: 1, column: 1, expected }.into());
    };
    let in_lines = bytes.contains(&b'\n');
    // Blank lines are nothing at the end of a file alone; a record may end in spaces.
    let end = match in_lines {
        true => {
            bytes[last..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |n| last + n)
        }
        false => bytes.len().min((last + 1).next_multiple_of(LEN)),
    };
    let mut rest = Some(&bytes[..end]);
    let lines = std::iter::from_fn(move || {
        let bytes = rest?;
        let (at, skip) = match in_lines {
            true => (bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()), 1),
            false => (bytes.len().min(LEN), 0),
        };
        let (line, next) = bytes.split_at(at);
        let next = next.get(skip..).filter(|next| in_lines || !next.is_empty());
        rest = next;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    });
    Ok(lines.enumerate().map(|(index, line)| Fields::new(index + 1, line)))
}

struct Reader<I> {
    records: I,
    /// Line of the record that was read last.
    last: usize,
}

impl<'a, I: Iterator<Item = Result<Fields<'a>, Wrong>>> Reader<I> {
    fn one_of(&mut self, kinds: &str, expected: &str) -> Result<Fields<'a>, Wrong> {
        let Some(record) = self.records.next() else {
            let expected = format!("{expected}; the file is cut off");
            return Err(Wrong { line: self.last + 1, column: 1, expected });
        };
        let record = record?;
        self.last = record.line;
        match kinds.contains(record.kind()) {
            true => Ok(record),
            false => Err(record.wrong(1, expected)),
        }
    }

    /// The rest of a batch up to its control record.
    fn batch(&mut self, header: Fields<'a>, items: &mut Vec<Item>) -> Result<Sum, Wrong> {
        let mut sum = Sum::default();
        let mut entry: Option<Entry<'a>> = None;
        let control = loop {
            let record =
                self.one_of("678", "an entry (6), an addendum (7) or a batch control (8)")?;
            match record.kind() {
                "6" => {
                    finish(entry.take(), items)?;
                    sum.entry(&record)?;
                    entry = Some(Entry { record, addendum: None });
                }
                "7" => {
                    sum.records += 1;
                    let Some(entry) = &mut entry else {
                        return Err(record.wrong(1, "an entry (6) before its addendum"));
                    };
                    entry.add(record)?;
                }
                _ => break record,
            }
        };
        finish(entry.take(), items)?;
        control.expect(5, 10, sum.records, "entry and addenda count")?;
        control.expect(11, 20, sum.hash, "entry hash")?;
        control.expect(21, 32, sum.debits, "debits of")?;
        control.expect(33, 44, sum.credits, "credits of")?;
        if control.at(88, 94) != header.at(88, 94) {
            let number = header.at(88, 94);
            return Err(control.wrong(88, format!("batch number {number}, as its header has")));
        }
        Ok(sum)
    }
}

struct Entry<'a> {
    record: Fields<'a>,
    /// The one that says why it came back.
    addendum: Option<Fields<'a>>,
}

impl<'a> Entry<'a> {
    fn add(&mut self, addendum: Fields<'a>) -> Result<(), Wrong> {
        if self.record.at(79, 79) != "1" {
            return Err(self.record.wrong(79, "1, for an addendum follows"));
        }
        if matches!(addendum.at(2, 3), "98" | "99") {
            if self.addendum.is_some() {
                return Err(addendum.wrong(2, "one return or notice of change for an entry"));
            }
            self.addendum = Some(addendum);
        }
        Ok(())
    }

    fn item(&self) -> Result<Item, Wrong> {
        let record = &self.record;
        let (news, trace) = match &self.addendum {
            None => (News::Other, record.text(80, 94)),
            Some(addendum) => {
                let letter = if addendum.at(2, 3) == "99" { "R" } else { "C" };
                let code = Code::parse(addendum.at(4, 6));
                let code = code.filter(|code| code.as_str().starts_with(letter));
                let code =
                    code.ok_or_else(|| addendum.wrong(4, format!("a reason such as {letter}01")))?;
                addendum.number(7, 21)?;
                let news = match code.is_return() {
                    true => News::Returned(code),
                    false => News::Changed(code, Correction::read(code, addendum.at(36, 64))),
                };
                (news, addendum.at(7, 21))
            }
        };
        Ok(Item {
            line: record.line,
            cents: record.number(30, 39)?,
            id: record.text(40, 54).to_string(),
            news,
            trace: trace.to_string(),
            receiver: self.receiver(),
        })
    }

    /// Eight digits of the bank that was asked are in the addendum; the ninth checks them.
    fn receiver(&self) -> Option<Receiver> {
        let eight = self.addendum.as_ref()?.at(28, 35);
        let mut all = (0..10).map(|check| format!("{eight}{check}"));
        let routing = all.find_map(|digits| RoutingNumber::parse(&digits))?;
        let kind = kind(self.record.at(2, 3))?;
        let number = number(self.record.at(13, 29))?;
        let account = BankAccount::parse(routing, number.expose(), kind)?;
        let name = Zeroizing::new(self.record.text(55, 76).to_string());
        Some(Receiver { account, name })
    }
}

fn finish(entry: Option<Entry<'_>>, items: &mut Vec<Item>) -> Result<(), Wrong> {
    let Some(entry) = entry else { return Ok(()) };
    if entry.record.at(79, 79) == "1" && entry.addendum.is_none() {
        let expected = "a return (99) or notice of change (98) after this entry";
        return Err(entry.record.wrong(79, expected));
    }
    items.push(entry.item()?);
    Ok(())
}

/// What control records must say.
#[derive(Default)]
struct Sum {
    records: u64,
    hash: u64,
    debits: u64,
    credits: u64,
}

impl Sum {
    fn entry(&mut self, record: &Fields<'_>) -> Result<(), Wrong> {
        self.records += 1;
        self.hash += record.number(4, 11)?;
        let cents = record.number(30, 39)?;
        record.number(2, 3)?;
        // 21 to 24 and 31 to 34 are credits, 26 to 29 and 36 to 39 debits.
        match record.at(3, 3) {
            "0" | "1" | "2" | "3" | "4" => self.credits += cents,
            _ => self.debits += cents,
        }
        Ok(())
    }

    fn all(&mut self, other: &Sum) {
        self.records += other.records;
        self.hash += other.hash;
        self.debits += other.debits;
        self.credits += other.credits;
    }
}

/// A day as `YYMMDD`.
fn date(record: &Fields<'_>, column: usize) -> Result<Date, Wrong> {
    let read = Date::strptime("%y%m%d", record.at(column, column + 5));
    read.map_err(|_| record.wrong(column, "a day as YYMMDD"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::instrument::AccountKind;

    /// Entry, addendum type, reason and the rest of it.
    pub struct Back<'a> {
        pub trace: &'a str,
        pub id: &'a str,
        pub cents: u64,
        pub code: &'a str,
        /// Corrected data of a notice.
        pub data: &'a str,
    }

    /// A file as a bank sends it back.
    pub fn file(backs: &[Back<'_>]) -> String {
        let mut lines = vec![format!(
            "101{:>10}{:>10}2612020900A094101{:<23}{:<23}{:8}",
            "1800432100", "091000019", "ACME WATER", "FIRST BANK", ""
        )];
        let mut debits = 0;
        for (nth, back) in backs.iter().enumerate() {
            let notice = back.code.starts_with('C');
            let cents = if notice { 0 } else { back.cents };
            let class = if notice { "COR" } else { "TEL" };
            let number = nth + 1;
            lines.push(format!(
                "5225{:<16}{:20}{}{class}{:<10}261127261202336102100002{number:07}",
                "ACME WATER", "", "1800432100", "WATER BILL"
            ));
            lines.push(format!(
                "626091000019{:<17}{cents:010}{:<15}{:<22}S 1{:015}",
                "738491620583714",
                back.id,
                "JAMES WALKER",
                21_000_020_000_000 + nth
            ));
            let kind = if notice { "98" } else { "99" };
            lines.push(format!(
                "7{kind}{}{}{:6}02100002{:<44}{:015}",
                back.code,
                back.trace,
                "",
                back.data,
                21_000_020_000_000 + nth
            ));
            lines.push(format!(
                "8225000002{:010}{cents:012}{:012}{}{:25}02100002{number:07}",
                9_100_001, 0, "1800432100", ""
            ));
            debits += cents;
        }
        let (count, records) = (backs.len(), backs.len() * 4 + 2);
        lines.push(format!(
            "9{count:06}{:06}{:08}{:010}{debits:012}{:012}{:39}",
            records.div_ceil(BLOCK),
            count * 2,
            9_100_001 * count,
            0,
            ""
        ));
        while lines.len() % BLOCK != 0 {
            lines.push("9".repeat(LEN));
        }
        lines.join("\n") + "\n"
    }

    fn two() -> String {
        let one = Back {
            trace: "091000010000001",
            id: "482915031",
            cents: 32_372,
            code: "R01",
            data: "",
        };
        let data = "00999";
        file(&[
            one,
            Back { trace: "091000010000002", id: "482915032", cents: 5, code: "C01", data },
        ])
    }

    #[test]
    fn returns_and_notices_are_read() {
        let text = two();
        for text in [text.clone(), text.replace('\n', "\r\n"), text.replace('\n', "")] {
            let read = Returned::read(text.as_bytes()).unwrap();
            assert_eq!(read.created, jiff::civil::date(2026, 12, 2));
            let [back, notice] = &read.items[..] else { panic!("{:?}", read.items) };
            assert!(matches!(back.news, News::Returned(code) if code.as_str() == "R01"));
            assert_eq!(
                (&*back.trace, &*back.id, back.cents),
                ("091000010000001", "482915031", 32_372)
            );
            let receiver = back.receiver.as_ref().unwrap();
            assert_eq!(receiver.account.routing.as_str(), "021000021");
            assert_eq!(receiver.account.expose(), "738491620583714");
            assert_eq!(receiver.account.kind, AccountKind::Checking);
            assert_eq!(&**receiver.name, "JAMES WALKER");
            let News::Changed(code, Some(_)) = &notice.news else { panic!("{notice:?}") };
            assert_eq!(code.as_str(), "C01");
            assert!(!format!("{read:?}").contains("73849"), "{read:?}");
        }
    }

    #[test]
    fn damage_is_told_with_line_and_column() {
        let text = two();
        let lines: Vec<&str> = text.lines().collect();
        let with = |line: usize, column: usize, new: &str| {
            let mut lines: Vec<String> = lines.iter().map(|line| line.to_string()).collect();
            lines[line - 1].replace_range(column - 1..column - 1 + new.len(), new);
            lines.join("\n")
        };
        let without = |line: usize| {
            let kept = lines.iter().enumerate().filter(|(at, _)| at + 1 != line);
            kept.map(|(_, line)| *line).collect::<Vec<_>>().join("\n")
        };
        for (text, line, column, expected) in [
            (String::new(), 1, 1, "the file header"),
            ("<html>".into(), 1, 7, "94 characters in the record, not 6"),
            (with(1, 24, "261332"), 1, 24, "a day as YYMMDD"),
            (with(1, 35, "095"), 1, 35, "record size 094"),
            (with(3, 30, "000003237X"), 3, 30, "10 digits"),
            (with(3, 30, "0000032373"), 5, 21, "debits of 000000032373"),
            (with(3, 4, "09100002"), 5, 11, "entry hash 0009100002"),
            (with(4, 4, "C01"), 4, 4, "a reason such as R01"),
            (with(4, 7, "x"), 4, 7, "15 digits"),
            (with(3, 79, "0"), 3, 79, "an addendum follows"),
            (with(5, 88, "0000009"), 5, 88, "batch number 0000001"),
            (with(10, 2, "000003"), 10, 2, "batch count 000002"),
            (with(10, 8, "000002"), 10, 8, "block count 000001"),
            (with(5, 5, "000003"), 5, 5, "entry and addenda count 000002"),
            (with(3, 60, "\x07"), 3, 60, "a printable ASCII character"),
            (without(4), 3, 79, "a return (99) or notice of change (98)"),
            (without(3), 3, 1, "an entry (6) before its addendum"),
            (without(5), 5, 1, "an entry (6), an addendum (7) or a batch control (8)"),
            (without(1), 1, 1, "the file header"),
            (without(10), 10, 1, "cut off"),
            (format!("{text}x"), 11, 2, "94 characters"),
        ] {
            let damage = Returned::read(text.as_bytes()).unwrap_err();
            assert_eq!((damage.line(), damage.column()), (line, column), "{damage}");
            assert!(damage.to_string().contains(expected), "{expected}: {damage}");
        }
    }

    /// Whatever is sent back as a file, it is read or refused.
    #[test]
    fn every_cut_and_every_changed_byte_is_read_or_refused() {
        let text = two();
        for at in 0..text.len() {
            let _ = Returned::read(&text.as_bytes()[..at]);
            let mut changed = text.clone().into_bytes();
            for bit in [1, 0x10, 0x80] {
                changed[at] ^= bit;
                let _ = Returned::read(&changed);
                changed[at] ^= bit;
            }
        }
        let whole = text.lines().take(10).collect::<Vec<_>>().join("\n");
        for cut in 0..whole.len() {
            assert!(Returned::read(&whole.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
    }
}
