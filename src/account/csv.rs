//! The account file: RFC 4180 rows in; a directory, or errors that name line, column and cure, out.

use std::fmt;

use csv::ByteRecord;

use super::directory::Builder;
use super::{Directory, Query};
use crate::money::Currency;

mod row; // one row: cells in, account out

use row::{ACCOUNT_ID, Columns, Wrong};

/// How a biller's file is read.
#[derive(Clone, Debug)]
pub struct Options {
    /// ISO 3166 country that national phone numbers belong to.
    pub country: String,
    pub currency: Currency,
    /// Accounts in the directory this file replaces; a file with a fifth fewer is held.
    pub previous: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options { country: "US".into(), currency: Currency::USD, previous: None }
    }
}

/// A file that was taken, perhaps without some of its rows.
pub struct Import {
    pub directory: Directory,
    /// Rows that were left out: the first [`REPORTED_MAX`].
    pub rejected: Vec<Rejected>,
    /// Cells that were ignored in rows that were taken: phones that are no phones.
    pub notes: Vec<Rejected>,
    /// Data rows in the file, taken or not.
    pub rows: usize,
    pub rejected_rows: usize,
}

/// Why a row, or a cell, was not taken. Cell values are never repeated: they may hold card data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Line of the file on which the row begins, from 1.
    pub line: u64,
    pub column: String,
    /// What is wrong and what to write instead.
    pub reason: String,
}

/// Why a whole file was not taken; the directory in use stays.
#[derive(Debug)]
pub enum FileError {
    /// The header row cannot be used.
    Header { line: u64, reason: String },
    /// Held for a person to look at.
    Held { reason: String, rejected: Vec<Rejected> },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Header { line, reason } => write!(f, "line {line}: {reason}"),
            FileError::Held { reason, rejected } => {
                write!(f, "file held: {reason}")?;
                for first in rejected.iter().take(3) {
                    write!(f, "\n  {first}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for FileError {}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, {}: {}", self.line, self.column, self.reason)
    }
}

/// Row errors kept for the report; the rest are only counted.
pub const REPORTED_MAX: usize = 10_000;

/// Reads a whole file.
pub fn parse(bytes: &[u8], options: &Options) -> Result<Import, FileError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter(bytes))
        .from_reader(bytes);
    let mut record = ByteRecord::new();
    let columns = match reader.read_byte_record(&mut record) {
        Ok(true) => Columns::parse(&record)?,
        _ => return Err(header_error(1, "the file is empty; write a header row first")),
    };
    let mut rows = Rows::new(options);
    while reader.read_byte_record(&mut record).is_ok_and(|more| more) {
        rows.push(&columns, &record);
    }
    rows.finish()
}

/// The `*.rej.csv` file: line, column, reason.
pub fn report(rejected: &[Rejected]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = |cells: [&str; 3]| writer.write_record(cells).is_ok();
    let mut fine = write(["line", "column", "reason"]);
    for row in rejected {
        fine &= write([&row.line.to_string(), &row.column, &row.reason]);
    }
    debug_assert!(fine, "a Vec takes every row");
    writer.into_inner().unwrap_or_default()
}

/// Fuzz body: no file may make the reader panic or leak a cell into its report.
pub fn fuzz(bytes: &[u8]) {
    match parse(bytes, &Options::default()) {
        Ok(import) => {
            let text = report(&import.rejected);
            assert!(text.starts_with(b"line,column,reason"));
            assert!(import.directory.len() + import.rejected_rows == import.rows);
            import.directory.answer(&Query::Phone("+13175550142".into()));
            let (account, zip) = ("1".into(), "46201".into());
            import.directory.answer(&Query::Verified { account, zip });
        }
        Err(error) => drop(error.to_string()),
    }
}

/// Rows read so far.
struct Rows<'a> {
    options: &'a Options,
    builder: Builder,
    /// Line of each account given to the builder.
    lines: Vec<u64>,
    rejected: Vec<Rejected>,
    notes: Vec<Rejected>,
    rows: usize,
    rejected_rows: usize,
}

impl Rows<'_> {
    fn new(options: &Options) -> Rows<'_> {
        Rows {
            options,
            builder: Builder::new(options.currency),
            lines: Vec::new(),
            rejected: Vec::new(),
            notes: Vec::new(),
            rows: 0,
            rejected_rows: 0,
        }
    }

    fn push(&mut self, columns: &Columns, record: &ByteRecord) {
        let line = record.position().map_or(0, csv::Position::line);
        self.rows += 1;
        match columns.account(record, self.options) {
            Ok((account, ignored)) => {
                for wrong in ignored {
                    note(&mut self.notes, line, wrong);
                }
                if self.builder.push(&account) {
                    self.lines.push(line);
                    return;
                }
                self.reject(line, Wrong::new(ACCOUNT_ID, "the directory is full; split the file"));
            }
            Err(wrong) => self.reject(line, wrong),
        }
    }

    fn reject(&mut self, line: u64, wrong: Wrong) {
        self.rejected_rows += 1;
        note(&mut self.rejected, line, wrong);
    }

    fn finish(mut self) -> Result<Import, FileError> {
        let builder = std::mem::replace(&mut self.builder, Builder::new(self.options.currency));
        let (directory, duplicates) = builder.finish();
        for duplicate in duplicates {
            let (kept, line) = (self.lines[duplicate.kept], self.lines[duplicate.dropped]);
            let reason = format!("the account stands on line {kept} already; keep one row for it");
            self.reject(line, Wrong::new(ACCOUNT_ID, reason));
        }
        self.rejected.sort_by_key(|row| row.line);
        let held = |reason: String, rejected| Err(FileError::Held { reason, rejected });
        if directory.is_empty() {
            let reason = format!("none of its {} rows can be used", self.rows);
            return held(reason, self.rejected);
        }
        if let Some(previous) = self.options.previous
            && directory.len() * 5 < previous * 4
        {
            let now = directory.len();
            let reason = format!(
                "it has {now} accounts where the last file had {previous}; send the whole file, \
                 or import this one by hand if so many accounts are really gone"
            );
            return held(reason, self.rejected);
        }
        Ok(Import {
            directory,
            rejected: self.rejected,
            notes: self.notes,
            rows: self.rows,
            rejected_rows: self.rejected_rows,
        })
    }
}

fn note(list: &mut Vec<Rejected>, line: u64, wrong: Wrong) {
    if list.len() < REPORTED_MAX {
        list.push(Rejected { line, column: wrong.column, reason: wrong.reason });
    }
}

fn header_error(line: u64, reason: impl Into<String>) -> FileError {
    FileError::Header { line, reason: reason.into() }
}

/// The character that separates the cells of the first line.
fn delimiter(bytes: &[u8]) -> u8 {
    let header = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let count = |wanted: u8| header.iter().filter(|b| **b == wanted).count();
    let other = [b';', b'\t', b'|'].into_iter().max_by_key(|d| count(*d)).unwrap_or(b',');
    if count(other) > count(b',') { other } else { b',' }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::May;
    use crate::money::Money;

    const HEADER: &str = "account_id,name_first,phone1,phone2,verify_zip,amount_due,past_due,\
                          min_payment,max_payment,due_date";

    fn read(text: &str) -> Result<Import, FileError> {
        parse(text.as_bytes(), &Options::default())
    }

    /// The errors of a row behind a good one, as `line column reason`.
    fn refused(row: &str) -> String {
        let good = "1,James,,,46201,1.00,,,,";
        let import = read(&format!("{HEADER}\n{good}\n{row}\n")).expect(row);
        assert_eq!((import.rows, import.directory.len()), (2, 1), "{row}");
        assert_eq!(import.rejected_rows, 1);
        import.rejected[0].to_string()
    }

    #[test]
    fn reads_a_file_as_spreadsheets_write_it() {
        let row = "\"00-12\",\"O\"\"Hara, Ann\",(317) 555-0142,317.555.0142,46201-1234,\
                   \"$1,321.72\",0,,500.00,2026-06-05";
        let text = format!("\u{feff}{}\r\n{row}\r\n", HEADER.to_uppercase());
        let import = read(&text).unwrap();
        assert!(import.rejected.is_empty() && import.notes.is_empty());
        let found = import.directory.answer(&Query::Phone("+13175550142".into()));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id, "00-12");
        assert_eq!(found[0].name_first.as_deref(), Some("O\"Hara, Ann"));
        assert_eq!(found[0].verify_zip.as_deref(), Some("46201"));
        assert_eq!(found[0].amount_due, Money::usd(132_172));
        assert_eq!((found[0].past_due, found[0].min_payment), (Some(Money::usd(0)), None));
        assert_eq!(found[0].due_date, Some(jiff::civil::date(2026, 6, 5)));
        assert_eq!(found[0].phones, ["+13175550142"]);
    }

    #[test]
    fn other_delimiters_and_unused_columns_are_accepted() {
        for delimiter in [";", "\t", "|"] {
            let text = "amount_due,account_id,email,tz\n1.50,7,a@b.example,UTC\n";
            let import = read(&text.replace(',', delimiter)).unwrap();
            assert_eq!((import.directory.len(), import.rejected_rows), (1, 0));
        }
    }

    #[test]
    fn what_a_biller_allows_is_read() {
        let text = "account_id,amount_due,phone1,allow_card,allow_ach,existing_relationship\n\
                    1,1.00,+13175550141,,,\n2,1.00,+13175550142,no,Yes,1\n\
                    3,1.00,+13175550143,TRUE,f,no\n4,1.00,+13175550144,perhaps,,\n";
        let import = read(text).unwrap();
        let may = |phone: &str| import.directory.answer(&Query::Phone(phone.into()))[0].may;
        assert_eq!(may("+13175550141"), May::default());
        assert_eq!(
            may("+13175550142"),
            May { pay_by_card: false, pay_by_bank: true, be_called: true }
        );
        assert_eq!(
            may("+13175550143"),
            May { pay_by_card: true, pay_by_bank: false, be_called: false }
        );
        let rejected: Vec<String> = import.rejected.iter().map(ToString::to_string).collect();
        assert_eq!(rejected.len(), 1, "{rejected:?}");
        assert!(rejected[0].contains("allow_card: it is neither yes nor no"), "{rejected:?}");
    }

    #[test]
    fn a_bad_header_is_named() {
        for (header, wants) in [
            ("", "the file is empty"),
            (
                "account_id,amount",
                "column 2 `amount` is not known; rename or remove it. Known \
              columns: account_id, name_first",
            ),
            ("account_id", "column `amount_due` is missing"),
            ("amount_due", "column `account_id` is missing"),
            ("account_id,amount_due,Account_ID", "column 3 `account_id` stands twice"),
            ("4111111111111111,amount_due", "column 1 `***` is not known"),
        ] {
            let error = read(header).err().unwrap().to_string();
            assert!(error.starts_with("line 1: ") && error.contains(wants), "{error}");
        }
    }

    #[test]
    fn a_bad_row_is_left_out_with_line_column_and_cure() {
        for (row, wants) in [
            (",,,,,1.00,,,,", "line 3, account_id: it is empty"),
            ("1.23E+11,,,,,1.00,,,,", "account_id: a spreadsheet turned it"),
            ("a;b,,,,,1.00,,,,", "account_id: write letters, digits"),
            ("--,,,,,1.00,,,,", "account_id: write letters, digits"),
            ("123456789012345678901234567890123,,,,,1,,,,", "account_id: it is longer"),
            ("2,,,,,,,,,", "amount_due: it is empty; write 0.00"),
            ("2,,,,,12.345,,,,", "amount_due: it has too many decimals for USD"),
            ("2,,,,,twelve,,,,", "amount_due: it is no amount; write it as 321.72"),
            ("2,,,,,1,-1,,,", "past_due: it is negative"),
            ("2,,,,,1,,5,4,", "min_payment: it is above max_payment"),
            ("2,,,,,1,,,,06/05/2026", "due_date: it is no date; write it as 2026-06-05"),
            ("2,,,,,1,,,,2026-02-30", "due_date: it is no date"),
            ("2,,,,4620,1,,,,", "verify_zip: write five digits"),
            ("2,,,,1,,,,", "(row): the row has 9 cells, the header 10"),
            ("1,,,,,1,,,,", "line 3, account_id: the account stands on line 2 already"),
            ("\"2\n\",,,,,1,,,,", "account_id: it has a line break"),
        ] {
            let error = refused(row);
            assert!(error.contains(wants), "{row}: {error}");
        }
        let long = format!("2,\"{},,,,1,,,,", "x".repeat(300));
        assert!(refused(&long).contains("(row)"));
        let long = format!("2,{},,,,1,,,,", "x".repeat(300));
        assert!(refused(&long).contains("name_first: the cell is longer"));
    }

    #[test]
    fn a_card_number_rejects_the_row_and_is_not_repeated() {
        for cell in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "x 4111-1111-1111-1111 y",
            "000378282246310005",
        ] {
            for row in [format!("2,{cell},,,,1,,,,"), format!("2,,{cell},,,1,,,,")] {
                let error = refused(&row);
                assert!(error.contains("looks like a card number"), "{error}");
                let digits = error.bytes().filter(u8::is_ascii_digit).count();
                assert!(digits < 5, "{error}");
            }
        }
        // Not Luhn-valid, too short, or a phone.
        let text = format!("{HEADER}\n4111111111111112,,+4915112345674,,,1,,,,\n");
        assert_eq!(read(&text).unwrap().rejected, []);
    }

    #[test]
    fn a_bad_phone_costs_only_the_phone() {
        let import = read(&format!("{HEADER}\n2,,n/a,3175550142,,1,,,,\n")).unwrap();
        assert_eq!((import.directory.len(), import.rejected_rows), (1, 0));
        assert!(import.notes[0].to_string().contains("line 2, phone1: it is no phone number"));
    }

    #[test]
    fn a_file_without_good_rows_or_with_a_fifth_fewer_is_held() {
        let error = read(&format!("{HEADER}\n,,,,,,,,,\n")).err().unwrap();
        let text = error.to_string();
        assert!(matches!(&error, FileError::Held { rejected, .. } if rejected.len() == 1));
        assert!(text.contains("none of its 1 rows") && text.contains("line 2"), "{text}");
        let rows = |n: usize| {
            let rows: String = (0..n).map(|n| format!("{n},1\n")).collect();
            format!("account_id,amount_due\n{rows}")
        };
        let options = Options { previous: Some(100), ..Options::default() };
        assert!(parse(rows(80).as_bytes(), &options).is_ok());
        let held = parse(rows(79).as_bytes(), &options).err().unwrap().to_string();
        assert!(held.contains("79 accounts where the last file had 100"), "{held}");
    }

    #[test]
    fn currency_must_be_the_billers() {
        let text = "account_id,amount_due,currency\n1,1,usd\n2,1,\n3,1,EUR\n";
        let import = read(text).unwrap();
        assert_eq!(import.directory.len(), 2);
        assert!(import.rejected[0].to_string().contains("line 4, currency"));
    }

    #[test]
    fn the_report_is_a_csv_file() {
        let import = read("account_id,amount_due\n1,x\n2,1\n3,\"a,b\"\n").unwrap();
        let text = String::from_utf8(report(&import.rejected)).unwrap();
        let reason = "it is no amount; write it as 321.72";
        let want = format!("line,column,reason\n2,amount_due,{reason}\n4,amount_due,{reason}\n");
        assert_eq!(text, want);
    }

    #[test]
    fn latin_1_is_refused_by_row() {
        let import =
            parse(b"account_id,amount_due,name_first\n1,1,J\xf6rg\n2,1,Ann\n", &Options::default())
                .ok()
                .unwrap();
        assert!(import.rejected[0].to_string().contains("line 2, name_first: it is not UTF-8"));
    }

    #[test]
    fn seeds_and_their_mutations_do_not_panic() {
        use rand::{RngExt, SeedableRng};
        let seeds = [
            &include_bytes!("../../fuzz/seeds/csv/good.csv")[..],
            include_bytes!("../../fuzz/seeds/csv/broken.csv"),
            include_bytes!("../../fuzz/seeds/csv/quotes.csv"),
        ];
        let mut rng = rand::rngs::StdRng::seed_from_u64(3);
        for seed in seeds {
            fuzz(seed);
            for _ in 0..2_000 {
                let mut bytes = seed.to_vec();
                for _ in 0..rng.random_range(1..8) {
                    let at = rng.random_range(0..bytes.len());
                    match rng.random_range(0..3) {
                        0 => bytes[at] = rng.random(),
                        1 => bytes.insert(at, *b"\",\n;0".get(rng.random_range(0..5)).unwrap()),
                        _ => bytes.truncate(at.max(1)),
                    }
                }
                fuzz(&bytes);
            }
        }
    }
}
