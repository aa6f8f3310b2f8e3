//! English words by their names in a model's list of tokens.

use super::{Command, Word};

/// `None` for what is no word: the blank.
pub fn word(name: &str) -> Option<Word> {
    if let Some(digit) = DIGITS.iter().position(|known| *known == name) {
        return Some(Word::Digit(digit as u8));
    }
    if let Some(month) = MONTHS.iter().position(|known| *known == name) {
        return Some(Word::Month(month as u8 + 1));
    }
    if let Some(teen) = TEENS.iter().position(|known| *known == name) {
        return Some(Word::Teen(teen as u8 + 10));
    }
    if let Some(tens) = TENS.iter().position(|known| *known == name) {
        return Some(Word::Tens((tens as u8 + 2) * 10));
    }
    Some(match name {
        "oh" => Word::Digit(0),
        "double" => Word::Times(2),
        "triple" => Word::Times(3),
        "hundred" => Word::Hundred,
        "thousand" => Word::Thousand,
        "dollar" | "dollars" => Word::Dollars,
        "cent" | "cents" => Word::Cents,
        "and" => Word::And,
        "point" => Word::Point,
        "yes" => Word::Yes,
        "no" => Word::No,
        "repeat" => Word::Command(Command::Repeat),
        "agent" | "operator" => Word::Command(Command::Agent),
        "cancel" | "stop" => Word::Command(Command::Cancel),
        "back" | "go" | "go back" | "goback" | "go_back" => Word::Command(Command::Back),
        "<blank>" | "blank" => return None,
        _ => Word::Other,
    })
}

const DIGITS: [&str; 10] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
const TEENS: [&str; 10] = [
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] =
    ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
pub const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_what_they_say() {
        for (name, means) in [
            ("zero", Word::Digit(0)),
            ("oh", Word::Digit(0)),
            ("nine", Word::Digit(9)),
            ("twelve", Word::Teen(12)),
            ("ninety", Word::Tens(90)),
            ("december", Word::Month(12)),
            ("operator", Word::Command(Command::Agent)),
            ("<unk>", Word::Other),
        ] {
            assert_eq!(word(name), Some(means), "{name}");
        }
        assert_eq!(word("<blank>"), None);
    }
}
