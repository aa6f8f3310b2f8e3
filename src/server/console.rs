//! Calls as a person may watch them in a terminal: time, who speaks, what is said or keyed.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::call::Telling;
use crate::payment::Note;

/// Formats one call after another.
pub struct Console {
    started: Instant,
    colour: bool,
}

enum Who {
    Ringtill,
    Caller,
    Gateway,
    Note,
}

impl Console {
    /// Times are shown since `started`.
    pub fn new(started: Instant, colour: bool) -> Console {
        Console { started, colour }
    }

    /// One line, or none for what a person need not see.
    pub fn line(&self, now: Instant, telling: &Telling) -> Option<String> {
        let (who, text) = match telling {
            Telling::Answered { caller, trunk, negotiated } => {
                let caller = caller.as_deref().unwrap_or("a hidden number");
                (Who::Note, format!("call from {caller} by trunk `{trunk}`, {negotiated}"))
            }
            Telling::Said(words) => (Who::Ringtill, words.clone()),
            Telling::Keyed { field, shown, rejected, spoken } => {
                let how = if *spoken { "says" } else { "keys" };
                let verdict = if *rejected { "  (not accepted)" } else { "" };
                (Who::Caller, format!("{how} {shown}  [{field}]{verdict}"))
            }
            Telling::Silence { field } => (Who::Caller, format!("says nothing  [{field}]")),
            Telling::NotUnderstood { field } => {
                (Who::Caller, format!("says something  [{field}]  (not understood)"))
            }
            Telling::Connected => (Who::Note, "caller and agent are connected".into()),
            Telling::CallerHungUp => (Who::Caller, "hangs up".into()),
            Telling::Dropped(why) => (Who::Ringtill, format!("hangs up: {why}")),
            Telling::Note(note) => note_line(note)?,
        };
        Some(self.format(now.saturating_duration_since(self.started), who, &text))
    }

    /// A heading between calls.
    pub fn heading(&self, text: &str) -> String {
        if self.colour { format!("\n\x1b[1m{text}\x1b[0m") } else { format!("\n{text}") }
    }

    fn format(&self, at: Duration, who: Who, text: &str) -> String {
        let (name, colour) = match who {
            Who::Ringtill => ("Ringtill", "\x1b[36m"),
            Who::Caller => ("Caller", "\x1b[33m"),
            Who::Gateway => ("Gateway", "\x1b[35m"),
            Who::Note => ("", "\x1b[2m"),
        };
        let mut line = format!("{:5.1}s  ", at.as_secs_f32());
        let _ = match self.colour {
            true => write!(line, "{colour}{name:<9}{text}\x1b[0m"),
            false => write!(line, "{name:<9}{text}"),
        };
        line
    }
}

fn note_line(note: &Note) -> Option<(Who, String)> {
    Some(match note {
        Note::Step(_) => return None,
        Note::Identified { account, by } => {
            (Who::Note, format!("account {account}, known by {by}"))
        }
        Note::Consent { amount, fee, total, means, last4 } => {
            let card = format!("{} ending {}", means.name(), last4.as_str());
            (Who::Note, format!("consent to {amount} + {fee} fee = {total} on {card}"))
        }
        Note::Keep { means, last4, agreed } => {
            let kept = if *agreed { "to be kept" } else { "not to be kept" };
            (Who::Note, format!("{} ending {}: {kept}", means.name(), last4.as_str()))
        }
        Note::Dropped { last4 } => {
            (Who::Note, format!("the kept card ending {} is dropped", last4.as_str()))
        }
        Note::NotKnown { last4, gateway } => {
            let ending = last4.as_str();
            (Who::Note, format!("{gateway} does not know the kept card ending {ending}"))
        }
        Note::Arranged { kind, number } => {
            (Who::Note, format!("arranged for later ({kind}): number {number}"))
        }
        Note::Disarranged { number } => (Who::Note, format!("{number} is cancelled")),
        Note::Again { confirmation, again } => {
            let again = if *again { "paid again" } else { "not paid again" };
            (Who::Note, format!("like payment {confirmation}: {again}"))
        }
        Note::Locked { counted, .. } => {
            (Who::Note, format!("too much was tried by or for this {counted}: no payment"))
        }
        Note::Charging { reference, gateway } => {
            (Who::Gateway, format!("{gateway}: sale {reference}"))
        }
        Note::Verifying { reference, gateway } => {
            (Who::Gateway, format!("{gateway}: verification {reference}"))
        }
        Note::Resting { gateway } => {
            (Who::Gateway, format!("{gateway}: not asked, it has failed too often of late"))
        }
        Note::Verdict(verdict) => (Who::Gateway, verdict.clone()),
        Note::Confirmation(confirmation) => {
            (Who::Note, format!("confirmation number {confirmation}"))
        }
    })
}
