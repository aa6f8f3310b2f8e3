//! One question as the script writes it, and the same question as the dialogue runs it.

use super::grammar::{Check, Grammar};
use super::voice::Voice;
use crate::prompt::Prompt;

/// A question with a typed answer.
pub struct Field<G> {
    /// For events and metrics: `card`, `expiry`.
    pub name: &'static str,
    /// Spoken in full before the question: no barge-in, and keys pressed before its end are
    /// thrown away, so that consent cannot be typed ahead.
    pub notice: Vec<Prompt>,
    /// The question itself; a key stops it.
    pub prompt: Vec<Prompt>,
    /// Said instead of `prompt` from the second try on; empty means say `prompt` again.
    pub help: Vec<Prompt>,
    pub grammar: G,
    pub secrecy: Secrecy,
    pub style: Style,
    /// Tries at this question; `None`: as the settings say.
    pub attempts: Option<u8>,
    /// May be said instead of keyed, where callers may do so at all.
    pub voice: Option<Voice>,
    /// Question and answer are recorded by themselves: they authorise something.
    pub recorded: bool,
}

/// What `0` and `9` mean, which differs between menus and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `0` reaches an agent, `9` repeats, unless the menu gives them a meaning of its own.
    Menu,
    /// `0` and `9` are digits; `0#` reaches an agent.
    Number,
}

/// Who may see the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// A choice or an amount: may be shown once it is taken.
    Open,
    /// Identifies or authenticates the caller: shown as dots.
    Masked,
    /// Card data: shown as dots, and the recording is silent meanwhile.
    Sensitive,
}

impl<G: Grammar + Clone + Send + 'static> Field<G> {
    pub fn menu(name: &'static str, prompt: Vec<Prompt>, grammar: G) -> Field<G> {
        let (notice, help) = (Vec::new(), Vec::new());
        Field {
            name,
            notice,
            prompt,
            help,
            grammar,
            secrecy: Secrecy::Open,
            style: Style::Menu,
            attempts: None,
            voice: None,
            recorded: false,
        }
    }

    pub fn number(name: &'static str, prompt: &'static str, grammar: G) -> Field<G> {
        Field { style: Style::Number, ..Field::menu(name, vec![Prompt::Phrase(prompt)], grammar) }
    }

    pub fn notice(self, notice: Vec<Prompt>) -> Field<G> {
        Field { notice, ..self }
    }

    pub fn help(self, help: &'static str) -> Field<G> {
        Field { help: vec![Prompt::Phrase(help)], ..self }
    }

    /// Silence or a wrong key is an answer too: nobody is asked twice.
    pub fn once(self) -> Field<G> {
        Field { attempts: Some(1), ..self }
    }

    pub fn spoken(self, voice: Voice) -> Field<G> {
        Field { voice: Some(voice), ..self }
    }

    pub fn masked(self) -> Field<G> {
        Field { secrecy: Secrecy::Masked, ..self }
    }

    pub fn sensitive(self) -> Field<G> {
        Field { secrecy: Secrecy::Sensitive, ..self }
    }

    pub fn recorded(self, recorded: bool) -> Field<G> {
        Field { recorded, ..self }
    }

    /// The question without its type.
    pub fn question(&self) -> Question {
        Question {
            name: self.name,
            notice: self.notice.clone(),
            prompt: self.prompt.clone(),
            help: self.help.clone(),
            grammar: Box::new(self.grammar.clone()),
            secrecy: self.secrecy,
            style: self.style,
            attempts: self.attempts,
            voice: self.voice,
            recorded: self.recorded,
        }
    }
}

/// A [`Field`] whose grammar only checks.
pub struct Question {
    pub name: &'static str,
    pub notice: Vec<Prompt>,
    pub prompt: Vec<Prompt>,
    pub help: Vec<Prompt>,
    pub grammar: Box<dyn Check>,
    pub secrecy: Secrecy,
    pub style: Style,
    /// Tries at this question; `None`: as the settings say.
    pub attempts: Option<u8>,
    /// May be said instead of keyed.
    pub voice: Option<Voice>,
    /// Question and answer are recorded by themselves.
    pub recorded: bool,
}
