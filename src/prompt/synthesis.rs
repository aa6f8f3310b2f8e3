//! Names nobody has recorded, said by an operator's command: what to run, and what comes back.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;

use super::clip::{ClipError, Converter, encode};
use crate::media::Clip;

/// The place in an argument where the text goes.
const TEXT: &str = "{text}";
/// More than this is no name.
const NAME_CHARS_MAX: usize = 40;
/// Sound that a command may return: a minute at 48 kHz, 16 bit.
pub const OUTPUT_BYTES_MAX: usize = 6 << 20;
const RATE: u32 = 8_000;

/// A command that turns text into sound. No shell sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Program and arguments; `{text}` in an argument is replaced by the text, which otherwise
    /// comes on standard input. A WAV file is expected on standard output.
    pub command: Vec<String>,
    /// The command is killed after this.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// Commands that may run at the same time; more wait, within the time limit.
    #[serde(default = "concurrent_max")]
    pub concurrent_max: usize,
    /// Names kept in memory once said.
    #[serde(default = "cached_max")]
    pub cached_max: usize,
}

fn timeout_ms() -> u64 {
    2_000
}

fn concurrent_max() -> usize {
    4
}

fn cached_max() -> usize {
    1_000
}

/// What to start for one text.
#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    pub program: String,
    pub arguments: Vec<String>,
    /// What goes to standard input; `None` when the text is in the arguments.
    pub input: Option<String>,
}

impl Settings {
    /// What is wrong with the settings, with the key it is about.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.command.first().is_none_or(|program| program.is_empty() || program.contains(TEXT)) {
            let example = r#"["espeak-ng", "--stdout", "{text}"]"#;
            problems.push(("command", format!("must begin with a program, as in {example}")));
        }
        if !(50..=10_000).contains(&self.timeout_ms) {
            problems.push(("timeout_ms", "must be 50 to 10000: a caller is waiting".into()));
        }
        if !(1..=64).contains(&self.concurrent_max) {
            problems.push(("concurrent_max", "must be 1 to 64".into()));
        }
        problems
    }

    /// The command for `text`; `None` when no command is set.
    pub fn invocation(&self, text: &str) -> Option<Invocation> {
        let (program, arguments) = self.command.split_first()?;
        let in_arguments = arguments.iter().any(|argument| argument.contains(TEXT));
        Some(Invocation {
            program: program.clone(),
            arguments: arguments.iter().map(|a| a.replace(TEXT, text)).collect(),
            input: (!in_arguments).then(|| format!("{text}\n")),
        })
    }
}

/// A name as a command may be given it: letters, marks between them, no option (`-x`), no markup;
/// all capitals are eased, since many voices would spell them. `None` when that is no name.
pub fn sayable(name: &str) -> Option<String> {
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let between = |c: char| matches!(c, ' ' | '-' | '\'' | '’' | '.');
    let fits = name.chars().count() <= NAME_CHARS_MAX
        && name.starts_with(char::is_alphabetic)
        && name.chars().all(|c| c.is_alphabetic() || between(c));
    if !fits {
        return None;
    }
    if name.chars().any(char::is_lowercase) {
        return Some(name);
    }
    let mut eased = String::new();
    for c in name.chars() {
        if eased.ends_with(char::is_alphabetic) {
            eased.extend(c.to_lowercase());
        } else {
            eased.push(c);
        }
    }
    Some(eased)
}

/// Sound from a command as a clip: levelled, trimmed, 8 kHz.
pub fn clip(output: Vec<u8>) -> Result<Clip, ClipError> {
    samples(output, RATE).map(|samples| encode(&samples))
}

/// Sound from a command as mono samples at `rate`, levelled and trimmed.
pub fn samples(output: Vec<u8>, rate: u32) -> Result<Vec<i16>, ClipError> {
    Converter::default().convert_raw(mended(output).into(), rate)
}

/// A program that writes WAV into a pipe cannot go back to fill in the lengths: they are zero or
/// huge. Puts in the true ones.
fn mended(mut wav: Vec<u8>) -> Vec<u8> {
    if wav.len() < 12 || !wav.starts_with(b"RIFF") {
        return wav;
    }
    let total = wav.len();
    let mut at = 12;
    while at + 8 <= total {
        let stated = [wav[at + 4], wav[at + 5], wav[at + 6], wav[at + 7]];
        let stated = u32::from_le_bytes(stated) as usize;
        let rest = total - at - 8;
        if &wav[at..at + 4] == b"data" {
            if stated == 0 || stated > rest {
                wav[at + 4..at + 8].copy_from_slice(&(rest as u32).to_le_bytes());
            }
            break;
        }
        at += 8 + stated.min(rest) + stated % 2;
    }
    wav[4..8].copy_from_slice(&(total as u32 - 8).to_le_bytes());
    wav
}

/// Names once said, the oldest forgotten first. In memory only: names are personal data.
pub struct Cache {
    clips: HashMap<String, Clip>,
    order: VecDeque<String>,
    max: usize,
}

impl Cache {
    pub fn new(max: usize) -> Cache {
        Cache { clips: HashMap::new(), order: VecDeque::new(), max }
    }

    pub fn clip(&self, name: &str) -> Option<Clip> {
        self.clips.get(name).cloned()
    }

    pub fn keep(&mut self, name: &str, clip: Clip) {
        if self.max == 0 {
            return;
        }
        if self.clips.insert(name.to_string(), clip).is_none() {
            self.order.push_back(name.to_string());
        }
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.clips.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::clip::silence;
    use crate::prompt::clip::tests::{sine, wav};

    fn settings(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn text_goes_into_an_argument_or_to_standard_input() {
        let by_argument = settings(r#"command = ["say", "-t", "<{text}>"]"#);
        let invocation = by_argument.invocation("Zoë").unwrap();
        assert_eq!(invocation.arguments, ["-t", "<Zoë>"]);
        assert_eq!(invocation.input, None);
        let by_input = settings(r#"command = ["say"]"#).invocation("Zoë").unwrap();
        assert_eq!(by_input.input.as_deref(), Some("Zoë\n"));
    }

    #[test]
    fn settings_are_checked() {
        assert!(toml::from_str::<Settings>("command = [\"x\"]\ntimeout = 3").is_err());
        assert_eq!(settings(r#"command = ["say"]"#).problems(), []);
        let wrong = settings("command = []\ntimeout_ms = 0\nconcurrent_max = 0");
        let keys: Vec<&str> = wrong.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["command", "timeout_ms", "concurrent_max"]);
    }

    #[test]
    fn only_names_reach_a_command() {
        for (name, said) in [
            ("James", Some("James")),
            ("  JAMES  O'NEILL ", Some("James O'Neill")),
            ("MARY-ANN", Some("Mary-Ann")),
            ("José", Some("José")),
            ("-o /etc/passwd", None),
            ("<speak>", None),
            ("R2D2", None),
            ("", None),
            ("x".repeat(41).as_str(), None),
        ] {
            assert_eq!(sayable(name).as_deref(), said, "{name}");
        }
    }

    #[test]
    fn wav_from_a_pipe_is_read_whatever_lengths_it_states() {
        let whole = wav(16_000, 1, &sine(16_000, 440.0, 0.2, 0, 300));
        let want = clip(whole.clone()).unwrap().mu.len();
        for (riff, data) in [(0u32, 0u32), (u32::MAX, u32::MAX), (0x7FFF_F024, 0x7FFF_F000)] {
            let mut streamed = whole.clone();
            streamed[4..8].copy_from_slice(&riff.to_le_bytes());
            streamed[40..44].copy_from_slice(&data.to_le_bytes());
            assert_eq!(clip(streamed).unwrap().mu.len(), want);
        }
        assert!(want >= 2400);
        for len in 0..44 {
            assert!(clip(whole[..len].to_vec()).is_err());
        }
    }

    #[test]
    fn the_cache_forgets_the_oldest() {
        let mut cache = Cache::new(2);
        for name in ["a", "b", "a", "c"] {
            cache.keep(name, silence(20));
        }
        assert!(cache.clip("a").is_none());
        assert!(cache.clip("b").is_some() && cache.clip("c").is_some());
        assert_eq!((cache.clips.len(), cache.order.len()), (2, 2));
    }
}
