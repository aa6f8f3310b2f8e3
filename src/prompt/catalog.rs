//! The phrases of one language: ids, what is said, and notes for the voice talent.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Deserialize;
use toml::Spanned;

/// The files a catalogue is made of, within a language's folder.
pub const FILES: [&str; 2] = ["phrases.toml", "numerals.toml"];

/// Phrases in the order of their files: the script a voice talent reads.
#[derive(Default)]
pub struct Catalog {
    entries: Vec<Entry>,
    by_id: HashMap<String, usize>,
}

/// One phrase, or one piece of a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: String,
    /// What is said.
    pub text: String,
    /// How to read it.
    pub note: String,
    /// How it stands in running text on a screen; mostly the same as `text`.
    pub written: String,
}

/// Something wrong with a language's files, for the operator who keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub file: String,
    /// Counted from one, where a line can be named.
    pub line: Option<usize>,
    /// What is wrong and what to do about it.
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Callers would notice, but calls can be taken.
    Warning,
    /// The library cannot be used.
    Error,
}

impl Problem {
    pub fn error(file: &str, line: Option<usize>, what: impl Into<String>) -> Problem {
        Problem { severity: Severity::Error, file: file.into(), line, what: what.into() }
    }

    pub fn warning(file: &str, line: Option<usize>, what: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(file, line, what) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        match self.line {
            Some(line) => write!(f, "{severity}: {}:{line}: {}", self.file, self.what),
            None => write!(f, "{severity}: {}: {}", self.file, self.what),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    language: Spanned<String>,
    #[serde(default)]
    phrases: Vec<Phrase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Phrase {
    id: Spanned<String>,
    text: Spanned<String>,
    #[serde(default)]
    note: String,
    written: Option<String>,
}

impl Catalog {
    /// Adds one catalogue file; entries of an earlier file with the same id are replaced.
    /// `file` names it in problems.
    pub fn add(&mut self, language: &str, file: &str, text: &str) -> Vec<Problem> {
        let document: Document = match toml::from_str(text) {
            Ok(document) => document,
            Err(error) => {
                let line = error.span().map(|span| line_of(text, span.start));
                return vec![Problem::error(file, line, error.message())];
            }
        };
        let mut problems = Vec::new();
        if document.language.get_ref() != language {
            let line = Some(line_of(text, document.language.span().start));
            let what = format!("this is the folder of {language}: write language = \"{language}\"");
            problems.push(Problem::error(file, line, what));
        }
        let mut seen = HashSet::new();
        for phrase in document.phrases {
            let (id, line) = (phrase.id.get_ref(), line_of(text, phrase.id.span().start));
            if !is_id(id) {
                let what = format!("`{id}` is no id: use small letters, digits, `.` and `_`");
                problems.push(Problem::error(file, Some(line), what));
            } else if !seen.insert(id.clone()) {
                let what = format!("`{id}` is here twice: remove one");
                problems.push(Problem::error(file, Some(line), what));
            } else if phrase.text.get_ref().trim().is_empty() {
                let line = line_of(text, phrase.text.span().start);
                problems.push(Problem::error(file, Some(line), format!("`{id}` has no text")));
            } else {
                self.put(phrase);
            }
        }
        problems
    }

    pub fn entry(&self, id: &str) -> Option<&Entry> {
        self.by_id.get(id).map(|&index| &self.entries[index])
    }

    /// Every entry, in the order of the files.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn put(&mut self, phrase: Phrase) {
        let text = phrase.text.into_inner();
        let entry = Entry {
            id: phrase.id.into_inner(),
            written: phrase.written.unwrap_or_else(|| text.clone()),
            text,
            note: phrase.note,
        };
        match self.by_id.get(&entry.id) {
            Some(&index) => self.entries[index] = entry,
            None => {
                self.by_id.insert(entry.id.clone(), self.entries.len());
                self.entries.push(entry);
            }
        }
    }
}

fn is_id(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'_';
    !id.is_empty() && id.len() <= 64 && !id.starts_with('.') && id.bytes().all(allowed)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|&&b| b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"language = "en-US"
[[phrases]]
id = "greet.due"
text = "due"
written = ", due"
note = "A date follows."
[[phrases]]
id = "bye.plain"
text = "Goodbye."
"#;

    #[test]
    fn later_files_replace_texts_but_not_the_order() {
        let mut catalog = Catalog::default();
        assert_eq!(catalog.add("en-US", "a.toml", GOOD), []);
        let own = GOOD.replace("Goodbye.", "So long.").replace("greet.due", "greet.until");
        assert_eq!(catalog.add("en-US", "b.toml", &own), []);
        let ids: Vec<&str> = catalog.entries().iter().map(|e| e.id.as_str()).collect();
        assert_eq!(ids, ["greet.due", "bye.plain", "greet.until"]);
        assert_eq!(catalog.entry("bye.plain").map(|e| e.written.as_str()), Some("So long."));
        assert_eq!(catalog.entry("greet.due").map(|e| e.written.as_str()), Some(", due"));
    }

    #[test]
    fn says_where_a_file_is_wrong() {
        for (from, to, line, said) in [
            ("language = \"en-US\"", "language = \"es-US\"", 1, "write language = \"en-US\""),
            ("note =", "nota =", 6, "unknown field `nota`"),
            ("bye.plain", "greet.due", 8, "twice"),
            ("bye.plain", "Bye Plain", 8, "is no id"),
            ("Goodbye.", " ", 9, "no text"),
        ] {
            let problems = Catalog::default().add("en-US", "p.toml", &GOOD.replace(from, to));
            let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(&format!("error: p.toml:{line}: ")), "{told:?}");
            assert!(told[0].contains(said), "{told:?}");
        }
    }
}
