//! Fields of a record of 94 characters: digits right-aligned with zeros, texts left-aligned with
//! blanks. Positions are counted from 1, as Nacha's tables do.

use zeroize::Zeroizing;

/// Characters of a record.
pub const LEN: usize = 94;
/// Records of a block: a file is filled up with nines to whole blocks.
pub const BLOCK: usize = 10;

/// A record being written. It may hold an account number: zeroed when dropped.
pub struct Record(Zeroizing<String>);

impl Record {
    pub fn new(kind: char) -> Record {
        let mut text = String::with_capacity(LEN);
        text.push(kind);
        Record(Zeroizing::new(text))
    }

    /// A number that is known to fit: one that does not loses its highest digits, as Nacha wants
    /// of hashes.
    pub fn digits(mut self, value: u64, width: usize) -> Record {
        let text = format!("{value:0width$}");
        self.0.push_str(&text[text.len() - width..]);
        self
    }

    /// ASCII, cut to its field.
    pub fn text(mut self, text: &str, width: usize) -> Record {
        let kept = text.chars().filter(char::is_ascii).take(width);
        let before = self.0.len();
        self.0.extend(kept);
        let blanks = width - (self.0.len() - before);
        self.0.extend(std::iter::repeat_n(' ', blanks));
        self
    }

    /// The record with its line end.
    pub fn end(mut self) -> Zeroizing<String> {
        debug_assert_eq!(self.0.len(), LEN, "{} characters", self.0.len());
        self.0.push('\n');
        self.0
    }
}

/// A record being read.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    /// From 1.
    pub line: usize,
    /// ASCII, 94 characters.
    text: &'a str,
}

/// A field that does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub line: usize,
    pub column: usize,
    pub expected: String,
}

impl<'a> Fields<'a> {
    /// `Err`: the column at fault and what is expected.
    pub fn new(line: usize, bytes: &'a [u8]) -> Result<Fields<'a>, Wrong> {
        let wrong = |column, expected: String| Wrong { line, column, expected };
        if let Some(at) = bytes.iter().take(LEN).position(|b| !(b' '..=b'~').contains(b)) {
            return Err(wrong(at + 1, "a printable ASCII character".into()));
        }
        if bytes.len() != LEN {
            let column = bytes.len().min(LEN) + 1;
            let len = bytes.len();
            return Err(wrong(column, format!("{LEN} characters in the record, not {len}")));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong(1, "ASCII".into()))?;
        Ok(Fields { line, text })
    }

    pub fn kind(&self) -> &'a str {
        &self.text[..1]
    }

    /// The columns `first` to `last`.
    pub fn at(&self, first: usize, last: usize) -> &'a str {
        &self.text[first - 1..last]
    }

    /// The same without blanks around it.
    pub fn text(&self, first: usize, last: usize) -> &'a str {
        self.at(first, last).trim()
    }

    pub fn number(&self, first: usize, last: usize) -> Result<u64, Wrong> {
        let text = self.at(first, last);
        let right = text.bytes().all(|b| b.is_ascii_digit());
        let read = right.then(|| text.parse().ok()).flatten();
        read.ok_or_else(|| self.wrong(first, format!("{} digits", last + 1 - first)))
    }

    /// Refuses a field that holds anything but this number.
    pub fn expect(&self, first: usize, last: usize, want: u64, what: &str) -> Result<(), Wrong> {
        let width = last + 1 - first;
        let text = format!("{want:0width$}");
        let want = &text[text.len() - width..];
        if self.at(first, last) == want {
            return Ok(());
        }
        Err(self.wrong(first, format!("{what} {want}, as the records above give")))
    }

    pub fn wrong(&self, column: usize, expected: impl Into<String>) -> Wrong {
        Wrong { line: self.line, column, expected: expected.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_width() {
        let record = Record::new('5').digits(225, 3).text("ACME WATER WORKS AND MORE", 16);
        let record = record.text("Ü", 2).digits(12_345_678_901, 10).text("", 62).end();
        assert_eq!(&record[..32], "5225ACME WATER WORKS  2345678901");
        assert_eq!(record.len(), LEN + 1);
        let fields = Fields::new(3, &record.as_bytes()[..LEN]).unwrap();
        assert_eq!(
            (fields.kind(), fields.text(5, 20), fields.number(2, 4)),
            ("5", "ACME WATER WORKS", Ok(225))
        );
        let wrong = fields.number(5, 8).unwrap_err();
        assert_eq!((wrong.line, wrong.column, &*wrong.expected), (3, 5, "4 digits"));
        assert!(fields.expect(2, 4, 225, "class").is_ok());
        assert!(fields.expect(2, 4, 220, "class").unwrap_err().expected.contains("class 220"));
    }

    #[test]
    fn what_is_no_record_is_told_with_its_column() {
        let short = Fields::new(7, &[b' '; 93]).err().unwrap();
        assert_eq!((short.line, short.column), (7, 94));
        let long = Fields::new(7, &[b' '; 95]).err().unwrap();
        assert_eq!(long.column, 95);
        let mut odd = [b' '; 94];
        odd[9] = 0xc3;
        assert_eq!(Fields::new(1, &odd).err().unwrap().column, 10);
    }
}
