//! What the test phone does, step by step, as text: `hear card.ask, key 4111111111111111#`.

use std::fmt;
use std::time::Duration;

use crate::media::{Clip, Digit, Method};
use crate::secret::{KEYS_MAX, Keys};

/// How long a step waits for what it expects, unless it says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest wait a script may ask for.
const WAIT_MAX: Duration = Duration::from_secs(600);
const STEPS_MAX: usize = 1_000;
/// From this length on an entry is a card number, whose last four digits may be shown.
const CARD_DIGITS_MIN: usize = 12;
/// Entries of this length are choices of a menu, not data.
const CHOICE_DIGITS_MAX: usize = 1;

/// The steps of one call.
#[derive(Debug, Default)]
pub struct Script {
    pub steps: Vec<Step>,
}

#[derive(Debug)]
pub enum Step {
    /// Waits until `what` has been heard to its end.
    Hear {
        what: Expected,
        patience: Duration,
    },
    /// Waits until `what` begins, to key into it.
    HearStart {
        what: Expected,
        patience: Duration,
    },
    /// Presses keys one after the other.
    Key(Keys),
    /// Says something.
    Say(Utterance),
    Pause(Duration),
    /// Ends the call.
    Hangup,
    /// Waits for the other side to end the call.
    WaitEnd {
        patience: Duration,
    },
}

/// Sound that a caller makes: what it is called, and once it has been [loaded](Script::load), how
/// it sounds.
#[derive(Default)]
pub struct Utterance {
    pub name: String,
    pub sound: Option<Clip>,
}

impl fmt::Debug for Utterance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A phrase of the library by its id.
    Phrase(String),
    /// Any sound of some length.
    Speech,
    /// Quiet of some length.
    Silence,
}

/// How keys are pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keying {
    pub method: Method,
    pub on_ms: u16,
    pub off_ms: u16,
}

impl Default for Keying {
    /// RFC 4733 at the pace of a brisk hand.
    fn default() -> Keying {
        Keying { method: Method::Events, on_ms: 100, off_ms: 100 }
    }
}

/// Where a script is wrong and what to write instead. Never quotes keys.
#[derive(Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// Counted from one.
    pub line: usize,
    pub column: usize,
    pub what: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "script, line {}, column {}: {}", self.line, self.column, self.what)
    }
}

impl std::error::Error for ScriptError {}

const VERBS: &str = "hear PHRASE [SECONDS], hear-start PHRASE [SECONDS], key KEYS, \
                     say FILE, pause MILLISECONDS, hangup, or wait-end [SECONDS]";

impl Script {
    /// Reads steps separated by commas or line ends; a line that begins with `#` is a comment.
    /// `known` says whether a phrase id exists.
    pub fn parse(text: &str, known: &dyn Fn(&str) -> bool) -> Result<Script, ScriptError> {
        let mut script = Script::default();
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with('#') {
                continue;
            }
            let mut at = 0;
            for part in line.split(',') {
                let lead = part.chars().take_while(|c| c.is_whitespace()).count();
                let column = at + lead + 1;
                at += part.chars().count() + 1;
                if part.trim().is_empty() {
                    continue;
                }
                let fault = |what: String| ScriptError { line: index + 1, column, what };
                if script.steps.len() == STEPS_MAX {
                    return Err(fault(format!("more than {STEPS_MAX} steps")));
                }
                script.steps.push(step(part.trim(), known).map_err(fault)?);
            }
        }
        Ok(script)
    }

    /// Gives every `say` its sound.
    pub fn load<E>(&mut self, mut sound: impl FnMut(&str) -> Result<Clip, E>) -> Result<(), E> {
        for step in &mut self.steps {
            if let Step::Say(said) = step {
                said.sound = Some(sound(&said.name)?);
            }
        }
        Ok(())
    }
}

fn step(text: &str, known: &dyn Fn(&str) -> bool) -> Result<Step, String> {
    let (verb, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    match verb {
        "hear" => hear(rest, known).map(|(what, patience)| Step::Hear { what, patience }),
        "hear-start" => {
            hear(rest, known).map(|(what, patience)| Step::HearStart { what, patience })
        }
        "key" => keys(rest).map(Step::Key),
        "say" if rest.is_empty() => Err("what should be said? Write the name of a file".into()),
        "say" => Ok(Step::Say(Utterance { name: rest.to_string(), sound: None })),
        "pause" => pause(rest).map(Step::Pause),
        "hangup" if rest.is_empty() => Ok(Step::Hangup),
        "hangup" => Err("`hangup` takes nothing after it".into()),
        "wait-end" => patience(rest).map(|patience| Step::WaitEnd { patience }),
        // Keys without their verb are a likely slip, and must not be quoted.
        _ if !verb.starts_with(char::is_alphabetic) => {
            Err(format!("a step begins with a word: write {VERBS}"))
        }
        _ => Err(format!("`{verb}` is no step: write {VERBS}")),
    }
}

fn hear(text: &str, known: &dyn Fn(&str) -> bool) -> Result<(Expected, Duration), String> {
    let (what, wait) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let expected = match what {
        "" => return Err("what should be heard? Write a phrase id, `speech` or `silence`".into()),
        "speech" => Expected::Speech,
        "silence" => Expected::Silence,
        id if known(id) => Expected::Phrase(id.into()),
        id if id.starts_with(|c: char| c.is_ascii_lowercase()) => {
            return Err(format!(
                "no phrase has the id `{id}`: `ringtill prompts export` lists them; `speech` \
                 stands for any"
            ));
        }
        _ => return Err("that is no phrase id, `speech` or `silence`".into()),
    };
    Ok((expected, patience(wait.trim())?))
}

fn patience(text: &str) -> Result<Duration, String> {
    if text.is_empty() {
        return Ok(PATIENCE);
    }
    let seconds = text.strip_suffix('s').unwrap_or(text).parse().ok().map(Duration::from_secs);
    seconds
        .filter(|wait| !wait.is_zero() && *wait <= WAIT_MAX)
        .ok_or_else(|| format!("a wait is 1 to {} seconds, such as `20s`", WAIT_MAX.as_secs()))
}

fn pause(text: &str) -> Result<Duration, String> {
    let ms = text.strip_suffix("ms").unwrap_or(text).trim().parse().ok().map(Duration::from_millis);
    ms.filter(|pause| *pause <= WAIT_MAX)
        .ok_or_else(|| "a pause is a number of milliseconds, such as `500`".to_string())
}

fn keys(text: &str) -> Result<Keys, String> {
    let mut keys = Keys::new();
    for character in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let digit = Digit::from_key(character)
            .ok_or_else(|| "a key is 0 to 9, *, # or A to D".to_string())?;
        if !keys.push(digit.expose()) {
            return Err(format!("more than {KEYS_MAX} keys in one step: use two"));
        }
    }
    if keys.is_empty() {
        return Err("which keys? Write them after `key`, such as `key 1` or `key 2000#`".into());
    }
    Ok(keys)
}

/// Keys as they may be shown: one digit is a choice and stands as it is; of a card number the last
/// four; of anything else how many there are.
pub fn masked(keys: &Keys) -> String {
    let all = keys.expose();
    let count = all.bytes().filter(u8::is_ascii_digit).count();
    let ends_in_digits = all.trim_end_matches(['#', '*']);
    let digits = match count {
        0 => String::new(),
        n if n <= CHOICE_DIGITS_MAX => all.chars().filter(char::is_ascii_digit).collect(),
        n if n >= CARD_DIGITS_MIN && ends_in_digits.len() == n => {
            format!("{n} digits ending in {}", &ends_in_digits[n - 4..])
        }
        n => format!("{n} digits"),
    };
    let marks: Vec<String> =
        all.chars().filter(|c| !c.is_ascii_digit()).map(String::from).collect();
    let parts = std::iter::once(digits).chain(marks).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" + ")
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Phrase(id) => f.write_str(id),
            Expected::Speech => f.write_str("speech"),
            Expected::Silence => f.write_str("silence"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Hear { what, patience } => write!(f, "hear {what} {}s", patience.as_secs()),
            Step::HearStart { what, patience } => {
                write!(f, "hear-start {what} {}s", patience.as_secs())
            }
            Step::Key(keys) => write!(f, "key {}", masked(keys)),
            Step::Say(said) => write!(f, "say {}", said.name),
            Step::Pause(pause) => write!(f, "pause {}", pause.as_millis()),
            Step::Hangup => f.write_str("hangup"),
            Step::WaitEnd { patience } => write!(f, "wait-end {}s", patience.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: &str) -> bool {
        ["card.ask", "greet.welcome"].contains(&id)
    }

    fn shown(text: &str) -> Vec<String> {
        let script = Script::parse(text, &known).unwrap();
        script.steps.iter().map(Step::to_string).collect()
    }

    #[test]
    fn reads_steps_by_comma_and_by_line() {
        let text = "# a card payment\nhear greet.welcome, pause 300\n\nhear-start card.ask 5s,\
                    key 4111 1111-1111 1111 #\nhear speech, hear silence 9,hangup, wait-end 60s,";
        assert_eq!(
            shown(text),
            [
                "hear greet.welcome 30s",
                "pause 300",
                "hear-start card.ask 5s",
                "key 16 digits ending in 1111 + #",
                "hear speech 30s",
                "hear silence 9s",
                "hangup",
                "wait-end 60s",
            ]
        );
    }

    #[test]
    fn keys_are_shown_as_far_as_they_may_be() {
        for (keys, shown_as) in [
            ("1", "1"),
            ("#", "#"),
            ("**", "* + *"),
            ("0#", "0 + #"),
            ("123", "3 digits"),
            ("1230#", "4 digits + #"),
            ("48291503#", "8 digits + #"),
            ("378282246310005#", "15 digits ending in 0005 + #"),
            ("4111*4111111111111111#", "20 digits + * + #"),
        ] {
            assert_eq!(shown(&format!("key {keys}")), [format!("key {shown_as}")]);
        }
        let script = Script::parse("key 4111111111111111#", &known).unwrap();
        assert!(!format!("{script:?}").contains('4'), "{script:?}");
    }

    #[test]
    fn says_where_and_what_to_write() {
        for (text, line, column, what) in [
            ("hear card.ask, shout 3", 1, 16, "`shout` is no step"),
            ("hear card.ask\n  4111111111111111", 2, 3, "begins with a word"),
            ("hear card.aks", 1, 1, "no phrase has the id `card.aks`"),
            ("hear", 1, 1, "what should be heard"),
            ("hear 4111111111111111", 1, 1, "no phrase id"),
            ("hear card.ask soon", 1, 1, "such as `20s`"),
            ("wait-end 0", 1, 1, "1 to 600 seconds"),
            ("key", 1, 1, "which keys"),
            ("say", 1, 1, "the name of a file"),
            ("key 41x1", 1, 1, "0 to 9, *, # or A to D"),
            ("pause long", 1, 1, "milliseconds"),
            ("hangup now", 1, 1, "nothing after it"),
            (&format!("key {}", "1".repeat(41)), 1, 1, "more than 40 keys"),
            (&"hangup,".repeat(1_001), 1, 7_001, "more than 1000 steps"),
        ] {
            let error = Script::parse(text, &known).unwrap_err();
            assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
            assert!(error.what.contains(what), "{text}: {error}");
            assert!(!error.to_string().contains("4111"), "{error}");
        }
    }
}
