//! Whose cards are credit cards, by their first digits, from a file the operator supplies.

use std::collections::HashMap;

use crate::instrument::Pan;
use crate::payment::banks::BadLine;

/// First digits of cards: how many, and which.
#[derive(Debug, Default)]
pub struct Bins(HashMap<(u8, u32), bool>);

/// Every issuer of the world several times over.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
const BAD_LINES_MAX: usize = 20;
const LENGTHS: std::ops::RangeInclusive<usize> = 6..=8;

impl Bins {
    /// Reads lines of `first six to eight digits,funding`, and whatever follows; the funding is
    /// `credit`, `debit`, `prepaid` or `unknown`. A header line is allowed.
    pub fn parse(text: &str) -> Result<Bins, Vec<BadLine>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (mut bins, mut bad, mut first) = (HashMap::new(), Vec::new(), true);
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let header = first && !line.starts_with(|c: char| c.is_ascii_digit() || c == '"');
            first = false;
            if header {
                continue;
            }
            match entry(line) {
                Ok((digits, credit)) => {
                    bins.insert(digits, credit);
                }
                Err(what) => bad.push(BadLine { line: index + 1, what }),
            }
            if bad.len() == BAD_LINES_MAX {
                break;
            }
        }
        if bins.is_empty() && bad.is_empty() {
            bad.push(BadLine { line: 1, what: "no card is in this file: write 411111,credit" });
        }
        if bad.is_empty() { Ok(Bins(bins)) } else { Err(bad) }
    }

    /// Whether the longest digits that fit are of a credit card; of what is not known they are not.
    pub fn is_credit(&self, pan: &Pan) -> bool {
        let known = LENGTHS.rev().find_map(|length| {
            let digits = pan.expose().get(..length)?.parse().ok()?;
            self.0.get(&(u8::try_from(length).ok()?, digits))
        });
        known.copied().unwrap_or(false)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn entry(line: &str) -> Result<((u8, u32), bool), &'static str> {
    let mut cells = line.split(',').map(|cell| cell.trim().trim_matches('"'));
    let (digits, funding) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
    let plain = LENGTHS.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| plain);
    let number = number.ok_or("write the first six to eight digits of the cards: 411111,credit")?;
    let credit = match funding.to_ascii_lowercase().as_str() {
        "credit" => true,
        "debit" | "prepaid" | "unknown" => false,
        _ => return Err("the funding is one of credit, debit, prepaid and unknown: 411111,credit"),
    };
    Ok(((u8::try_from(digits.len()).unwrap_or_default(), number), credit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_digits_that_fit_decide() {
        let text = "\u{feff}bin,funding,brand\n411111,credit,visa\n\n\"4111112\",DEBIT\n\
                    41111123,credit\n510000,Prepaid\n520000,unknown\n";
        let bins = Bins::parse(text).unwrap();
        assert_eq!(bins.len(), 5);
        let is_credit = |start: &str| {
            let stem = format!("{start:0<15}");
            let number = format!("{stem}{}", crate::instrument::luhn_check_digit(&stem));
            bins.is_credit(&Pan::parse(&number).unwrap())
        };
        assert!(is_credit("411111") && is_credit("4111113"));
        assert!(!is_credit("4111112") && is_credit("41111123"));
        assert!(!is_credit("510000") && !is_credit("520000") && !is_credit("400000"));
    }

    #[test]
    fn what_is_wrong_is_told_by_line() {
        let wrong = |text: &str| Bins::parse(text).unwrap_err()[0].to_string();
        assert!(wrong("411111,credit\n41111,credit\n").starts_with("line 2: write the first six"));
        assert!(wrong("411111111,credit\n").starts_with("line 1: write the first six"));
        assert!(wrong("411111,charge\n").starts_with("line 1: the funding is one of"));
        assert!(wrong("411111\n").contains("the funding is one of"));
        assert!(wrong("\n").contains("no card is in this file"));
        assert_eq!(Bins::parse(&"x1\n".repeat(90)).unwrap_err().len(), 20);
    }
}
