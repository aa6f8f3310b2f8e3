//! Which of the model's tokens a caller's answer may be made of. A token is a word or a part of
//! one; digits are asked for one by one, which is how callers read a number out.

use crate::speech::word::{Word, english};

/// A token and what it says.
pub struct Choice {
    pub token: i32,
    pub words: Vec<Word>,
}

/// The tokens of one kind of answer, and the text that shows the model how they are written.
pub struct Style {
    pub choices: Vec<Choice>,
    pub example: Vec<i32>,
}

/// Every way of answering.
pub struct Vocabulary {
    pub digits: Style,
    pub dates: Style,
    pub yes_no: Style,
    pub commands: Style,
}

impl Vocabulary {
    /// Finds the tokens by their text; `None`: this model writes English otherwise.
    pub fn find(token: impl Fn(&str) -> Option<i32>) -> Option<Vocabulary> {
        let choice = |text: &str, words: &[Word]| {
            token(text).map(|token| Choice { token, words: words.to_vec() })
        };
        let digits: Vec<Choice> = (0..10)
            .filter_map(|digit| choice(&format!(" {digit}"), &[Word::Digit(digit)]))
            .collect();
        if digits.len() < 10 {
            return None;
        }
        // An even mixture: no digit shall seem likelier for having been shown.
        let example = [3, 8, 0, 5, 1, 9, 2, 7, 4, 6].map(|digit: usize| digits[digit].token);
        let digits = Style { choices: digits, example: example.to_vec() };

        let mut dates: Vec<Choice> = (0..100)
            .filter_map(|number: u8| choice(&format!(" {number:02}"), &two_digits(number)))
            .collect();
        let months = english::MONTHS.iter().filter_map(|month| {
            let (first, rest) = month.split_at(1);
            choice(&format!(" {}{rest}", first.to_uppercase()), &named(month))
        });
        dates.extend(months);
        // "Three, twenty-seven": a month without its zero.
        let single = digits.choices.iter().filter(|digit| digit.words != [Word::Digit(0)]);
        dates.extend(single.map(|Choice { token, words }| {
            let (token, words) = (*token, words.clone());
            Choice { token, words }
        }));
        let example = [" 11", " 26", " 04", " 29", " 08", " 31"].iter().filter_map(|n| token(n));
        let dates = Style { example: example.collect(), choices: dates };

        let words = |texts: &[&str]| {
            let forms = texts.iter().flat_map(|text| {
                let lower = text.to_lowercase();
                [format!(" {text}"), format!(" {lower}"), text.to_string()]
            });
            forms.filter_map(|form| choice(&form, &named(&form))).collect()
        };
        let yes_no = Style { choices: words(&["Yes", "No"]), example: vec![] };
        let commands = ["Repeat", "Agent", "Operator", "Cancel", "Stop", "Back", "Go"];
        let commands = Style { choices: words(&commands), example: vec![] };
        Some(Vocabulary { digits, dates, yes_no, commands })
    }
}

fn named(text: &str) -> Vec<Word> {
    english::word(text.trim().to_lowercase().as_str()).into_iter().collect()
}

fn two_digits(number: u8) -> Vec<Word> {
    match (number / 10, number % 10) {
        (0, ones) => vec![Word::Digit(0), Word::Digit(ones)],
        (1, ones) => vec![Word::Teen(10 + ones)],
        (tens, 0) => vec![Word::Tens(10 * tens)],
        (tens, ones) => vec![Word::Tens(10 * tens), Word::Digit(ones)],
    }
}
