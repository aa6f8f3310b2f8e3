//! American English: three hundred twenty-one dollars and seventy-two cents; March third.

use jiff::civil::Date;

use super::{Numerals, digit_inventory};
use crate::money::{Currency, Money};

pub struct English;

/// The largest number read as a number; above it the digits are read one by one.
const NUMBER_MAX: u64 = 999_999_999;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Numerals for English {
    fn inventory(&self) -> Vec<String> {
        let fixed = ["num.thousand", "num.million", "num.minus", "num.point"]
            .into_iter()
            .chain(["money.dollar", "money.dollars", "money.dollar_and", "money.dollars_and"])
            .chain(["money.cent", "money.cents"])
            .map(String::from);
        (0..100)
            .chain((1..10).map(|hundreds| hundreds * 100))
            .map(|n| format!("num.{n}"))
            .chain(fixed)
            .chain(digit_inventory())
            .chain((1..=12).map(|month| format!("month.{month}")))
            .chain((1..=31).map(|day| format!("day.{day}")))
            .collect()
    }

    /// Dollars and cents for USD, CAD and other dollars; of a currency that has no words here,
    /// the number alone: twelve point five zero.
    fn amount(&self, amount: Money) -> Vec<String> {
        let (dollars, cents) = amount.parts();
        let mut ids = Vec::new();
        if amount.minor < 0 {
            ids.push("num.minus".into());
        }
        if !has_dollars(amount.currency) {
            ids.extend(number(dollars));
            if let Some((_, fraction)) = amount.decimal().split_once('.') {
                ids.push("num.point".into());
                ids.extend(fraction.chars().map(|digit| format!("num.{digit}")));
            }
            return ids;
        }
        if dollars > 0 || cents == 0 {
            ids.extend(number(dollars));
            let unit = match (dollars, cents) {
                (1, 0) => "money.dollar",
                (1, _) => "money.dollar_and",
                (_, 0) => "money.dollars",
                (_, _) => "money.dollars_and",
            };
            ids.push(unit.into());
        }
        if cents > 0 {
            ids.extend(number(cents));
            ids.push(if cents == 1 { "money.cent" } else { "money.cents" }.into());
        }
        ids
    }

    fn number(&self, value: u32) -> Vec<String> {
        number(value.into())
    }

    fn date(&self, date: Date) -> Vec<String> {
        vec![format!("month.{}", date.month()), format!("day.{}", date.day())]
    }

    fn written_date(&self, date: Date) -> String {
        let month = MONTHS[usize::from(date.month().unsigned_abs()) - 1];
        format!("{month} {}", date.day())
    }
}

fn has_dollars(currency: Currency) -> bool {
    use Currency::{AUD, BBD, BMD, BSD, BZD, CAD, JMD, KYD, NZD, TTD, USD, XCD};
    matches!(currency, USD | CAD | AUD | NZD | BBD | BMD | BSD | BZD | JMD | KYD | TTD | XCD)
}

fn number(value: u64) -> Vec<String> {
    if value > NUMBER_MAX {
        return value.to_string().chars().map(|digit| format!("num.{digit}")).collect();
    }
    if value == 0 {
        return vec!["num.0".into()];
    }
    let mut ids = Vec::new();
    for (size, unit) in [(1_000_000, "num.million"), (1_000, "num.thousand")] {
        let count = value / size % 1000;
        if count > 0 {
            ids.extend(below_thousand(count));
            ids.push(unit.into());
        }
    }
    ids.extend(below_thousand(value % 1000));
    ids
}

fn below_thousand(value: u64) -> impl Iterator<Item = String> {
    let (hundreds, rest) = (value / 100 * 100, value % 100);
    [hundreds, rest].into_iter().filter(|&part| part > 0).map(|part| format!("num.{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::catalog::{Catalog, FILES};

    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        let numerals = include_str!("../../../prompts/en-US/numerals.toml");
        assert_eq!(catalog.add("en-US", FILES[1], numerals), []);
        catalog
    }

    fn spoken(ids: &[String]) -> String {
        let catalog = catalog();
        let text = |id: &String| catalog.entry(id).map_or("?", |e| e.text.as_str()).to_string();
        ids.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn catalogue_and_inventory_hold_the_same_ids() {
        let mut asked = English.inventory();
        let mut written: Vec<String> = catalog().entries().iter().map(|e| e.id.clone()).collect();
        asked.sort();
        written.sort();
        assert_eq!(asked, written);
    }

    #[test]
    fn amounts_are_spelled_out() {
        for (cents, want) in [
            (32172, "three hundred twenty-one dollars and seventy-two cents"),
            (100, "one dollar"),
            (101, "one dollar and one cent"),
            (1, "one cent"),
            (50, "fifty cents"),
            (0, "zero dollars"),
            (200_000, "two thousand dollars"),
            (-500, "minus five dollars"),
            (100_000_001, "one million dollars and one cent"),
            (
                123_456_789,
                "one million two hundred thirty-four thousand five hundred sixty-seven \
                            dollars and eighty-nine cents",
            ),
        ] {
            assert_eq!(spoken(&English.amount(Money::usd(cents))), want, "{cents}");
        }
        assert_eq!(spoken(&English.amount(Money::new(500, Currency::JPY))), "five hundred");
        let euros = Money::new(1250, Currency::EUR);
        assert_eq!(spoken(&English.amount(euros)), "twelve point five zero");
    }

    #[test]
    fn numbers_reach_the_inventory_only() {
        let inventory: std::collections::HashSet<String> =
            English.inventory().into_iter().collect();
        let edges = [0, 9, 10, 99, 100, 101, 999, 1_000, 1_001, 999_999, 1_000_000, 999_999_999];
        for value in edges.into_iter().chain((0..1_000_000).step_by(997)).chain([u32::MAX]) {
            let ids = English.number(value);
            assert!(ids.iter().all(|id| inventory.contains(id)), "{value}: {ids:?}");
        }
        for minor in [i64::MIN, i64::MAX, 99_999_999_999_999] {
            let ids = English.amount(Money::usd(minor));
            assert!(ids.iter().all(|id| inventory.contains(id)), "{minor}: {ids:?}");
        }
        let want = "nine hundred ninety-nine million nine hundred ninety-nine thousand nine \
                    hundred ninety-nine";
        assert_eq!(spoken(&English.number(999_999_999)), want);
    }

    #[test]
    fn dates_are_a_month_and_an_ordinal() {
        assert_eq!(spoken(&English.date(jiff::civil::date(2026, 3, 3))), "March third");
        assert_eq!(spoken(&English.date(jiff::civil::date(2026, 12, 31))), "December thirty-first");
        assert_eq!(English.written_date(jiff::civil::date(2026, 6, 5)), "June 5");
    }
}
