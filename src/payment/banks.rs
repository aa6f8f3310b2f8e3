//! Routing numbers and the names of their banks, from a file the operator supplies.

use std::collections::HashMap;
use std::fmt;

use crate::instrument::RoutingNumber;

/// Banks that take debits, by routing number.
#[derive(Debug, Default)]
pub struct Banks(HashMap<u32, Box<str>>);

/// A line that cannot be taken.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from one.
    pub line: usize,
    pub what: &'static str,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Every bank of the United States twenty times over.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// Problems told at once.
const BAD_LINES_MAX: usize = 20;

impl Banks {
    /// Reads lines of `routing number,name`, a header line allowed, or of the FedACH directory
    /// (fixed columns: 1-9 the routing number, 36-71 the name).
    pub fn parse(text: &str) -> Result<Banks, Vec<BadLine>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut banks = HashMap::new();
        let mut bad = Vec::new();
        let mut first = true;
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let header = first && !line.bytes().any(|b| b.is_ascii_digit());
            first = false;
            if header {
                continue;
            }
            match entry(line) {
                Ok((number, name)) => {
                    banks.insert(number, name.into());
                }
                Err(what) => bad.push(BadLine { line: index + 1, what }),
            }
            if bad.len() == BAD_LINES_MAX {
                break;
            }
        }
        if banks.is_empty() && bad.is_empty() {
            bad.push(BadLine { line: 1, what: "no bank is in this file: write 021000021,Bank" });
        }
        if bad.is_empty() { Ok(Banks(banks)) } else { Err(bad) }
    }

    /// The bank's name; `None` when no bank has this number.
    pub fn name(&self, routing: &RoutingNumber) -> Option<&str> {
        self.0.get(&routing.as_str().parse().ok()?).map(|name| &**name)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn entry(line: &str) -> Result<(u32, &str), &'static str> {
    let (digits, name) = match line.split_once(',') {
        Some((digits, name)) if digits.len() <= 20 => (digits.trim().trim_matches('"'), name),
        _ => fixed(line).ok_or("neither `routing number,name` nor a line of the FedACH file")?,
    };
    let routing = RoutingNumber::parse(digits)
        .ok_or("no routing number: nine digits with a right checksum, leading zeros kept")?;
    let name = name.trim().trim_matches('"').trim();
    if name.is_empty() {
        return Err("the bank has no name");
    }
    let number = routing.as_str().parse().map_err(|_| "no routing number")?;
    Ok((number, name))
}

/// Columns of the FedACH participant directory.
fn fixed(line: &str) -> Option<(&str, &str)> {
    const NAME: std::ops::Range<usize> = 35..71;
    Some((line.get(..9)?, line.get(NAME)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(banks: &Banks, digits: &str) -> Option<String> {
        banks.name(&RoutingNumber::parse(digits).unwrap()).map(String::from)
    }

    #[test]
    fn both_kinds_of_lines_are_read() {
        let csv = "\u{feff}routing_number,name\r\n021000021,\"First Bank, N.A.\"\r\n\r\n\
                   \"011401533\",Second Bank\r\n";
        let banks = Banks::parse(csv).unwrap();
        assert_eq!(banks.len(), 2);
        assert_eq!(name(&banks, "021000021").as_deref(), Some("First Bank, N.A."));
        assert_eq!(name(&banks, "011401533").as_deref(), Some("Second Bank"));
        assert_eq!(name(&banks, "091000019"), None);
        let fixed = format!(
            "{}O{}1{}{}{:<36}{}\n",
            "021000021", "021001208", "040198", "000000000", "FIRST BANK, NA", "10 MAIN STREET"
        );
        let banks = Banks::parse(&fixed).unwrap();
        assert_eq!(name(&banks, "021000021").as_deref(), Some("FIRST BANK, NA"));
    }

    #[test]
    fn a_bad_line_is_told_with_its_number() {
        for (text, line, want) in [
            ("021000021,A\n021000022,B\n", 2, "no routing number"),
            ("21000021,A\n", 1, "leading zeros kept"),
            ("name,routing\n021000021,A\nsomething else\n", 3, "nor a line of the FedACH file"),
            ("021000021, \n", 1, "has no name"),
            ("routing,name\n", 1, "no bank is in this file"),
            ("", 1, "no bank is in this file"),
        ] {
            let bad = Banks::parse(text).unwrap_err();
            assert_eq!((bad.len(), bad[0].line), (1, line), "{text}: {bad:?}");
            assert!(bad[0].to_string().contains(want), "{bad:?}");
        }
        let many = "x\n".repeat(1000);
        assert_eq!(Banks::parse(&format!("021000021,A\n{many}")).unwrap_err().len(), 20);
    }
}
