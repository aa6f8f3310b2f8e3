//! Numbers, amounts, digits and dates as pieces, each a recorded clip. One file per language.

mod english;

use jiff::civil::Date;

use super::Prompt;
use crate::money::Money;

/// The pause between groups of a reference number, and when it is repeated slowly.
const GROUP_PAUSE_MS: u16 = 350;
const GROUP_PAUSE_SLOW_MS: u16 = 800;
/// The pause between digits when a reference number is repeated slowly.
const DIGIT_PAUSE_SLOW_MS: u16 = 250;

/// One thing to play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The clip of this catalogue id.
    Clip(String),
    Pause {
        ms: u16,
    },
    /// A person's name, from wherever names come.
    Name(String),
}

/// How one language puts numbers into words.
pub trait Numerals: Sync {
    /// Every catalogue id that the methods below can ask for.
    fn inventory(&self) -> Vec<String>;

    fn amount(&self, amount: Money) -> Vec<String>;

    fn number(&self, number: u32) -> Vec<String>;

    fn date(&self, date: Date) -> Vec<String>;

    /// A date on a screen: `June 5`.
    fn written_date(&self, date: Date) -> String;
}

/// The numerals of a language tag such as `en-US`; `None` when nobody has written them yet.
pub fn numerals(language: &str) -> Option<&'static dyn Numerals> {
    match language.split('-').next() {
        Some("en") => Some(&english::English),
        _ => None,
    }
}

/// What to play for a prompt, in order.
pub fn pieces(numerals: &dyn Numerals, prompt: &Prompt) -> Vec<Piece> {
    let clips = |ids: Vec<String>| ids.into_iter().map(Piece::Clip).collect();
    match prompt {
        Prompt::Phrase(id) => vec![Piece::Clip((*id).to_string())],
        Prompt::Amount(amount) => clips(numerals.amount(*amount)),
        Prompt::Number(number) => clips(numerals.number(*number)),
        Prompt::Digits(digits) => clips(digit_ids(digits)),
        Prompt::Private(digits) => clips(digit_ids(digits.expose())),
        Prompt::Groups { digits, slow } => grouped(digits, *slow),
        Prompt::Date(date) => clips(numerals.date(*date)),
        Prompt::Name(name) => vec![Piece::Name(name.clone())],
        Prompt::Pause { ms } => vec![Piece::Pause { ms: *ms }],
    }
}

/// The prompt as it stands in running text, for everything that is not a phrase.
pub fn written(numerals: &dyn Numerals, prompt: &Prompt) -> String {
    match prompt {
        Prompt::Phrase(_) | Prompt::Pause { .. } => String::new(),
        Prompt::Amount(amount) => amount.to_string(),
        Prompt::Number(number) => number.to_string(),
        Prompt::Digits(digits) => digits.clone(),
        Prompt::Private(digits) => "•".repeat(digits.expose().len()),
        Prompt::Groups { digits, .. } => groups(digits).join(" "),
        Prompt::Date(date) => numerals.written_date(*date),
        Prompt::Name(name) => name.clone(),
    }
}

/// Splits a reference into threes, with two twos or one two at the end instead of a lone digit:
/// `482 915 037`, `482 91 50`, `482 91`.
pub fn groups(digits: &str) -> Vec<String> {
    let digits: Vec<char> = digits.chars().filter(char::is_ascii_digit).collect();
    let mut rest = digits.as_slice();
    let mut all = Vec::new();
    while !rest.is_empty() {
        let take = if rest.len() == 4 { 2 } else { rest.len().min(3) };
        let (group, left) = rest.split_at(take);
        all.push(group.iter().collect());
        rest = left;
    }
    all
}

fn grouped(digits: &str, slow: bool) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let between_groups = if slow { GROUP_PAUSE_SLOW_MS } else { GROUP_PAUSE_MS };
    for (index, group) in groups(digits).iter().enumerate() {
        if index > 0 {
            pieces.push(Piece::Pause { ms: between_groups });
        }
        for (place, id) in digit_ids(group).into_iter().enumerate() {
            if slow && place > 0 {
                pieces.push(Piece::Pause { ms: DIGIT_PAUSE_SLOW_MS });
            }
            pieces.push(Piece::Clip(id));
        }
    }
    pieces
}

/// `digit.4 digit.2.final`: the last one falls. Anything but a digit is left out.
fn digit_ids(digits: &str) -> Vec<String> {
    let digits: Vec<char> = digits.chars().filter(char::is_ascii_digit).collect();
    let last = digits.len().saturating_sub(1);
    let id = |(place, digit): (usize, &char)| {
        if place == last { format!("digit.{digit}.final") } else { format!("digit.{digit}") }
    };
    digits.iter().enumerate().map(id).collect()
}

/// The ids of all digits: every language has them.
fn digit_inventory() -> impl Iterator<Item = String> {
    (0..10).flat_map(|digit| [format!("digit.{digit}"), format!("digit.{digit}.final")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_never_end_in_a_lone_digit() {
        for (digits, want) in [
            ("482915037", "482 915 037"),
            ("4829150", "482 91 50"),
            ("48291", "482 91"),
            ("4829", "48 29"),
            ("4", "4"),
            ("", ""),
        ] {
            assert_eq!(groups(digits).join(" "), want);
        }
    }

    #[test]
    fn repeating_a_reference_is_slower() {
        let prompt = |slow| Prompt::Groups { digits: "4829".into(), slow };
        let clip = |id: &str| Piece::Clip(id.into());
        let pause = |ms| Piece::Pause { ms };
        let (four, eight) = (clip("digit.4"), clip("digit.8.final"));
        let (two, nine) = (clip("digit.2"), clip("digit.9.final"));
        let first = [four, eight, pause(350), two, nine];
        let played = pieces(&english::English, &prompt(false));
        assert_eq!(played, first);
        let [four, eight, _, two, nine] = first;
        let again = [four, pause(250), eight, pause(800), two, pause(250), nine];
        assert_eq!(pieces(&english::English, &prompt(true)), again);
    }
}
