//! Decoding of posteriors as a network may tell them, without one.

use super::super::Outcome;
use super::*;
use crate::speech::word::english;

const NAMES: [&str; 14] = [
    "-", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "oh",
    "double", "triple",
];

fn words(names: &[&str]) -> Vec<Option<Word>> {
    let word = |(nth, name): (usize, &&str)| if nth == 0 { None } else { english::word(name) };
    names.iter().enumerate().map(word).collect()
}

fn decoder(field: Field, keyed: &str, names: &[&str]) -> Decoder {
    let words = words(names);
    let tokens = Tokens { digits: (0, &words), words: (0, &words), step_ms: 40 };
    Decoder::new(field, &keyed.bytes().collect(), &tokens)
}

/// Makes rows: names of tokens with their share, the blank gets most of the rest.
struct Line {
    names: Vec<&'static str>,
    rows: Vec<Vec<f32>>,
}

impl Line {
    fn new(names: &[&'static str]) -> Line {
        Line { names: names.to_vec(), rows: vec![] }
    }

    fn row(&mut self, told: &[(&str, f32)]) {
        let mut row = vec![1e-4; self.names.len()];
        for (name, share) in told {
            row[self.names.iter().position(|known| known == name).unwrap()] = *share;
        }
        row[0] = (1.0 - row[1..].iter().sum::<f32>()).max(1e-4);
        let sum: f32 = row.iter().sum();
        self.rows.push(row.iter().map(|share| (share / sum).ln()).collect());
    }

    /// A word over two steps between blanks.
    fn word(&mut self, told: &[(&str, f32)]) {
        (0..4).for_each(|_| self.row(&[]));
        (0..2).for_each(|_| self.row(told));
        self.row(&[]);
    }

    fn heard(&self, mut decoder: Decoder) -> Decoder {
        for row in &self.rows {
            decoder.step(|_| row);
        }
        decoder
    }
}

/// Digits heard well but for some places at which another digit is likelier: place, digit, share.
pub fn answers(field: Field, digits: &[u8], mistaken: &[(usize, u8, f32)]) -> Answers {
    let mut line = Line::new(&NAMES);
    for (place, digit) in digits.iter().enumerate() {
        let name = NAMES[usize::from(*digit) + 1];
        match mistaken.iter().find(|(at, ..)| *at == place) {
            Some((_, other, share)) => {
                line.word(&[(NAMES[usize::from(*other) + 1], *share), (name, 0.95 - share)]);
            }
            None => line.word(&[(name, 0.98)]),
        }
    }
    line.heard(decoder(field, "", &NAMES)).answers()
}

fn digits(text: &str) -> Vec<u8> {
    text.bytes().map(|byte| byte - b'0').collect()
}

fn best(answers: &Answers) -> Option<String> {
    answers.list().first().map(|first| first.keys().expose().to_string())
}

#[test]
fn a_number_heard_well_is_accepted() {
    for (field, number) in [
        (Field::Card, "4111111111111111"),
        (Field::Card, "378282246310005"),
        (Field::Routing, "021000021"),
        (Field::Zip, "46201"),
        (Field::Expiry((24, 49)), "0928"),
        (Field::Cvv((3, 3)), "987"),
        (Field::Digit, "7"),
    ] {
        let answers = answers(field, &digits(number), &[]);
        assert_eq!(best(&answers).as_deref(), Some(number));
        assert_eq!(answers.judge().outcome, Outcome::Accept, "{number}: {:?}", answers.evidence());
    }
}

#[test]
fn a_checksum_mends_a_digit_but_never_by_itself_decides() {
    // The seventh digit sounds more like a nine. Greedily it is one; the sum says otherwise.
    let number = "4539578763621486";
    let slightly = answers(Field::Card, &digits(number), &[(6, 9, 0.6)]);
    assert_eq!(best(&slightly).as_deref(), Some(number));
    // It hardly sounds like what the sum wants: valid, and not to be believed.
    let hardly = answers(Field::Card, &digits(number), &[(6, 9, 0.9499)]);
    assert_ne!(hardly.judge().outcome, Outcome::Accept, "{:?}", hardly.evidence());
    let behind = hardly.evidence().anything - hardly.evidence().best;
    assert!(behind > 4.0, "{behind}");
}

#[test]
fn what_was_keyed_stays() {
    let mut line = Line::new(&NAMES);
    for name in ["one", "one", "double", "one"] {
        line.word(&[(name, 0.9)]);
    }
    let heard = line.heard(decoder(Field::Card, "41111111111 1".replace(' ', "").as_str(), &NAMES));
    assert_eq!(best(&heard.answers()).as_deref(), Some("4111111111111111"));
    assert_eq!(heard.progress().extent, Extent::Enough);
}

#[test]
fn progress_says_how_far_an_answer_is_and_since_when() {
    let mut line = Line::new(&NAMES);
    let told = |line: &Line| line.heard(decoder(Field::Zip, "", &NAMES)).progress();
    assert_eq!(told(&line), Progress { words: 0, extent: Extent::Short, quiet_ms: None });
    for (nth, name) in ["four", "six", "two", "oh", "one"].iter().enumerate() {
        line.word(&[(name, 0.9)]);
        let extent = if nth == 4 { Extent::Full } else { Extent::Short };
        let progress = told(&line);
        assert_eq!((progress.words, progress.extent), (nth + 1, extent));
        assert!(progress.quiet_ms.is_some_and(|ms| ms <= 120), "{progress:?}");
    }
    (0..10).for_each(|_| line.row(&[]));
    assert!(told(&line).quiet_ms.is_some_and(|ms| (400..600).contains(&ms)));
}

#[test]
fn a_blank_line_is_no_answer() {
    let mut line = Line::new(&NAMES);
    (0..200).for_each(|_| line.row(&[]));
    for field in [Field::Card, Field::Zip, Field::Digit, Field::Digits { min: 1, max: 20 }] {
        let answer = line.heard(decoder(field, "", &NAMES)).answers().judge();
        assert_eq!(answer.outcome, Outcome::Again, "{field:?} {}", answer.confidence);
    }
}

#[test]
fn a_command_is_heard_at_any_question() {
    let names = ["-", "yes", "no", "four", "six", "agent", "go", "back", "<other>"];
    for (said, command) in [
        (&["agent"][..], super::super::Command::Agent),
        (&["go", "back"], super::super::Command::Back),
    ] {
        for field in [Field::Zip, Field::YesNo] {
            let mut line = Line::new(&names);
            said.iter().for_each(|name| line.word(&[(name, 0.9)]));
            let answers = line.heard(decoder(field, "", &names)).answers();
            let word = answers.list().first().and_then(Hypothesis::word);
            assert_eq!(word, Some(grammar::Spoken::Command(command)));
        }
    }
}

/// Numbers under noise: whatever is right more often than not must not be worse with a grammar.
#[test]
fn noise_is_survived_better_with_a_grammar() {
    let mut state = 7u64;
    let mut chance = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f32 / (1u64 << 31) as f32
    };
    let (mut with, mut without, mut wrong) = (0, 0, 0);
    const TRIES: usize = 40;
    for _ in 0..TRIES {
        let number = digits("4539578763621486");
        let mut mistaken = vec![];
        for (place, digit) in number.iter().enumerate().skip(1) {
            if chance() < 0.12 {
                let other = (digit + 1 + (chance() * 8.0) as u8) % 10;
                mistaken.push((place, other, 0.3 + 0.4 * chance()));
            }
        }
        let greedy = mistaken.iter().all(|(_, _, share)| *share < 0.475);
        without += usize::from(greedy);
        let answers = answers(Field::Card, &number, &mistaken);
        let right = best(&answers).as_deref() == Some("4539578763621486");
        with += usize::from(right);
        wrong += usize::from(!right && answers.judge().outcome == Outcome::Accept);
    }
    assert!(with > without + 5, "{with} of {TRIES} right with, {without} without");
    assert_eq!(wrong, 0, "accepted and wrong");
}
