//! One question and its answer: prompt, barge-in, type-ahead, noinput, nomatch, three attempts,
//! and the keys `#` ends, `*` clears or goes back, `0` agent, `9` repeat (ISO/IEC 13714).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::media::{Digit, ListenId, PlayId};
use crate::prompt::Prompt;
use crate::secret::Keys;
use crate::speech;

pub mod field; // a question with its prompts and grammar
pub mod grammar; // what counts as an answer
pub mod hold; // what is said while the gateway thinks
pub mod voice; // the answer said instead of keyed

pub use field::{Field, Question, Secrecy, Style};
pub use grammar::{Check, Extent, Grammar, Reject};
pub use hold::Hold;
pub use voice::{ReadBack, Told, Voice};

/// Timers and attempts, `[dialogue]` in the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// From the end of the prompt to the first key.
    pub first_key_ms: u64,
    /// From one key to the next.
    pub inter_key_ms: u64,
    /// After an entry that may be complete, when more keys are possible.
    pub complete_ms: u64,
    /// Tries a caller has at one question, silent ones included.
    pub attempts: u8,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { first_key_ms: 8_000, inter_key_ms: 5_000, complete_ms: 1_500, attempts: 3 }
    }
}

/// How a question ended.
#[derive(Debug)]
pub enum Heard {
    /// Digits the grammar accepted.
    Keyed(Keys),
    /// `*` with nothing keyed.
    Back,
    /// `0` at a menu, `0#` at a number.
    Agent,
    /// All attempts used up.
    Failed,
    /// The caller is gone. Never from the dialogue itself: its owner knows.
    Hangup,
}

pub enum Output {
    Play {
        id: PlayId,
        prompts: Vec<Prompt>,
        barge_in: bool,
    },
    /// Listen for an answer by voice that continues what was keyed; with `stops`, speech ends the
    /// prompt. [`Dialogue::speech_begun`] and [`Dialogue::told`] follow.
    Listen {
        id: ListenId,
        field: speech::Field,
        keyed: Keys,
        stops: bool,
    },
    /// Nothing is listened for any more.
    Deaf,
    /// The recording must be silent from here on, or may go on.
    Sensitive(bool),
    /// What follows is to be recorded by itself, or no longer.
    Segment(bool),
    /// The caller keyed an entry, or said it; `rejected` says it was not taken. `shown` is what may
    /// be shown of it: the keys of a menu or an amount that was taken, otherwise one `•` a key.
    Entered {
        field: &'static str,
        shown: String,
        rejected: bool,
        spoken: bool,
    },
    /// The caller said something that was not understood, or that was not so.
    NoMatch {
        field: &'static str,
    },
    NoInput {
        field: &'static str,
    },
    /// The question that was asked has ended.
    Heard(Heard),
    /// What was to be said has been said (or was cut short by a key).
    Said,
}

/// The conversation on one call. It keeps keys pressed ahead from one question to the next.
pub struct Dialogue {
    settings: Settings,
    state: State,
    /// Keys pressed before their question was asked.
    ahead: Keys,
    plays: u64,
    /// What callers may answer by voice.
    voice: speech::Fields,
    /// Questions whose answer by voice came to nothing.
    voice_lost: u8,
    /// Somebody takes callers over.
    agent: bool,
    listens: u64,
    outputs: VecDeque<Output>,
}

enum State {
    Idle,
    Saying { id: PlayId, barge_in: bool },
    Asking(Box<Asking>),
}

struct Asking {
    question: Question,
    phase: Phase,
    entry: Keys,
    attempt: u8,
    /// The entry was said.
    spoken: bool,
    hearing: voice::Hearing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The notice plays: keys are thrown away.
    Notice(PlayId),
    Prompt(PlayId),
    /// Nothing plays; the timer runs to this instant.
    Waiting(Instant),
    /// The caller speaks, until this instant at most; `over`: when the timer that ran would end.
    Speaking {
        until: Instant,
        over: Option<Instant>,
    },
}

impl Dialogue {
    pub fn new(settings: Settings) -> Dialogue {
        let outputs = VecDeque::new();
        Dialogue {
            settings,
            state: State::Idle,
            ahead: Keys::new(),
            plays: 0,
            voice: speech::Fields::NONE,
            voice_lost: 0,
            agent: false,
            listens: 0,
            outputs,
        }
    }

    /// Somebody takes callers over whose attempts are used up.
    pub fn has_agent(&mut self, agent: bool) {
        self.agent = agent;
    }

    /// Asks; ends with [`Output::Heard`]. Whatever ran before is dropped.
    pub fn ask(&mut self, now: Instant, question: Question) {
        if question.secrecy == Secrecy::Sensitive {
            self.outputs.push_back(Output::Sensitive(true));
        }
        if question.recorded {
            self.outputs.push_back(Output::Segment(true));
        }
        let asking = Asking {
            question,
            phase: Phase::Waiting(now),
            entry: Keys::new(),
            attempt: 1,
            spoken: false,
            hearing: voice::Hearing::default(),
        };
        self.state = State::Asking(Box::new(asking));
        self.present(now, Vec::new());
    }

    /// Says; ends with [`Output::Said`]. Keys pressed meanwhile count for the next question if
    /// `barge_in`, and are thrown away otherwise.
    pub fn say(&mut self, prompts: Vec<Prompt>, barge_in: bool) {
        if barge_in && !self.ahead.is_empty() {
            self.state = State::Idle;
            self.outputs.push_back(Output::Said);
            return;
        }
        if !barge_in {
            self.ahead.clear();
        }
        let id = self.play(prompts, barge_in);
        self.state = State::Saying { id, barge_in };
    }

    /// Drops the question or announcement that runs, without an output: the caller is gone.
    pub fn cancel(&mut self) {
        self.deafen();
        self.state = State::Idle;
        self.ahead.clear();
    }

    pub fn key(&mut self, now: Instant, digit: Digit) {
        match &mut self.state {
            // No answer begins with a pound: it belongs to an entry that ended by itself.
            State::Idle | State::Saying { .. }
                if digit.expose() == b'#' && self.ahead.is_empty() => {}
            State::Idle => {
                self.ahead.push(digit.expose());
            }
            State::Saying { barge_in: false, .. } => {}
            State::Saying { .. } => {
                self.ahead.push(digit.expose());
                self.state = State::Idle;
                self.outputs.push_back(Output::Said);
            }
            State::Asking(asking) => match asking.phase {
                Phase::Notice(_) => {}
                _ if asking.hearing.is_confirming() => self.confirm_key(now, digit.expose()),
                _ => self.take(now, digit.expose()),
            },
        }
    }

    pub fn play_ended(&mut self, now: Instant, id: PlayId) {
        match &mut self.state {
            State::Saying { id: current, .. } if *current == id => {
                self.state = State::Idle;
                self.outputs.push_back(Output::Said);
            }
            State::Asking(asking) if asking.phase == Phase::Notice(id) => {
                self.ahead.clear();
                let id = self.play(self.wording(), true);
                self.set_phase(Phase::Prompt(id));
                self.listen();
            }
            State::Asking(asking) if asking.phase == Phase::Prompt(id) => {
                // A key that stopped the prompt has its own timer running already.
                let first_key = Duration::from_millis(self.settings.first_key_ms);
                asking.phase = Phase::Waiting(now + first_key);
            }
            _ => {}
        }
    }

    pub fn timeout(&mut self, now: Instant) {
        let State::Asking(asking) = &mut self.state else { return };
        if asking.hearing.wait_at().is_some_and(|at| now >= at) {
            return self.ask_to_wait(now);
        }
        let until = match asking.phase {
            Phase::Waiting(until) | Phase::Speaking { until, .. } => until,
            Phase::Notice(_) | Phase::Prompt(_) => return,
        };
        if now < until {
            return;
        }
        if matches!(asking.phase, Phase::Speaking { .. }) {
            self.give_up_speech(now);
        } else if asking.hearing.is_confirming() {
            self.unconfirmed(now);
        } else if asking.entry.is_empty() {
            let field = asking.question.name;
            self.outputs.push_back(Output::NoInput { field });
            const NOINPUT: [&str; 3] = ["error.noinput1", "error.noinput2", "error.noinput3"];
            let step = usize::from(asking.attempt - 1).min(NOINPUT.len() - 1);
            self.again(now, vec![Prompt::Phrase(NOINPUT[step])]);
        } else {
            self.finish(now);
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Asking(asking) => match asking.phase {
                Phase::Speaking { until, .. } => {
                    Some(asking.hearing.wait_at().map_or(until, |at| at.min(until)))
                }
                Phase::Waiting(until) => Some(until),
                Phase::Notice(_) | Phase::Prompt(_) => None,
            },
            _ => None,
        }
    }

    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Plays `before` and the question, or goes straight to keys that were pressed ahead.
    fn present(&mut self, now: Instant, before: Vec<Prompt>) {
        let State::Asking(asking) = &mut self.state else { return };
        let question = &asking.question;
        let first = asking.attempt == 1;
        if first && !question.notice.is_empty() {
            self.ahead.clear();
            let notice = question.notice.clone();
            let id = self.play(notice, false);
            self.set_phase(Phase::Notice(id));
            return;
        }
        if !self.ahead.is_empty() {
            let first_key = Duration::from_millis(self.settings.first_key_ms);
            self.set_phase(Phase::Waiting(now + first_key));
            self.listen();
            self.drain_ahead(now);
            return;
        }
        let mut prompts = before;
        prompts.extend(self.wording());
        let id = self.play(prompts, true);
        self.set_phase(Phase::Prompt(id));
        self.listen();
    }

    fn drain_ahead(&mut self, now: Instant) {
        while matches!(self.state, State::Asking(_)) {
            let Some(key) = self.ahead.take_first() else { break };
            self.take(now, key);
        }
    }

    /// One key of the answer.
    fn take(&mut self, now: Instant, key: u8) {
        let State::Asking(asking) = &mut self.state else { return };
        let menu = asking.question.style == Style::Menu;
        let own = |digit: &str| asking.question.grammar.check(digit).is_ok();
        match key {
            b'*' if asking.entry.is_empty() => return self.end(Heard::Back),
            b'*' => {
                asking.entry.clear();
                let id = self.play(vec![Prompt::Phrase("error.star_cleared")], true);
                self.set_phase(Phase::Prompt(id));
                return self.listen();
            }
            // The pound of an entry that had ended by itself has cut this prompt short.
            b'#' if asking.entry.is_empty() => return self.repeat(),
            b'#' if !menu && asking.entry.expose() == "0" => return self.end(Heard::Agent),
            b'#' => return self.finish(now),
            b'0' if menu && asking.entry.is_empty() && !own("0") => return self.end(Heard::Agent),
            b'9' if menu && asking.entry.is_empty() && !own("9") => return self.repeat(),
            b'0'..=b'9' => {
                asking.entry.push(key);
                asking.spoken = false;
            }
            // A-D exist on few phones and mean nothing to us.
            _ => return,
        }
        match asking.question.grammar.extent(asking.entry.expose()) {
            Extent::Full => return self.finish(now),
            Extent::Enough if asking.question.grammar.check(asking.entry.expose()).is_ok() => {
                let soon = asking.question.secrecy == Secrecy::Sensitive;
                let Settings { complete_ms, inter_key_ms, .. } = self.settings;
                self.wait_ms(now, if soon { complete_ms } else { inter_key_ms });
            }
            _ => self.wait_ms(now, self.settings.inter_key_ms),
        }
        self.listen_after_key();
    }

    /// The entry is over: taken, or one attempt less.
    fn finish(&mut self, now: Instant) {
        let State::Asking(asking) = &mut self.state else { return };
        let checked = asking.question.grammar.check(asking.entry.expose());
        let (field, rejected) = (asking.question.name, checked.is_err());
        let shown = shown(asking, rejected);
        let spoken = asking.spoken;
        self.outputs.push_back(Output::Entered { field, shown, rejected, spoken });
        match checked {
            Ok(()) => {
                let entry = std::mem::take(&mut asking.entry);
                // An entry that ended by itself is often followed by a pound out of habit.
                if self.ahead.expose().starts_with('#') {
                    self.ahead.take_first();
                }
                self.end(Heard::Keyed(entry));
            }
            Err(reject) => {
                let why = asking.question.grammar.explain(reject);
                asking.entry.clear();
                asking.spoken = false;
                // Keys after a wrong entry were meant for questions that will not come now.
                self.ahead.clear();
                self.again(now, why);
            }
        }
    }

    fn again(&mut self, now: Instant, why: Vec<Prompt>) {
        let State::Asking(asking) = &mut self.state else { return };
        if asking.attempt >= asking.question.attempts.unwrap_or(self.settings.attempts) {
            return self.end(Heard::Failed);
        }
        asking.attempt += 1;
        self.present(now, why);
    }

    /// Notice and question from the start, without counting an attempt.
    fn repeat(&mut self) {
        let State::Asking(asking) = &mut self.state else { return };
        asking.entry.clear();
        let mut prompts = asking.question.notice.clone();
        prompts.extend(self.wording());
        self.ahead.clear();
        let id = self.play(prompts, true);
        self.set_phase(Phase::Prompt(id));
        self.listen();
    }

    fn end(&mut self, heard: Heard) {
        self.deafen();
        if let State::Asking(asking) = &self.state {
            if asking.question.secrecy == Secrecy::Sensitive {
                self.outputs.push_back(Output::Sensitive(false));
            }
            if asking.question.recorded {
                self.outputs.push_back(Output::Segment(false));
            }
        }
        self.state = State::Idle;
        self.outputs.push_back(Output::Heard(heard));
    }

    fn play(&mut self, prompts: Vec<Prompt>, barge_in: bool) -> PlayId {
        self.plays += 1;
        let id = PlayId(self.plays);
        self.outputs.push_back(Output::Play { id, prompts, barge_in });
        id
    }

    fn wait_ms(&mut self, now: Instant, wait_ms: u64) {
        self.set_phase(Phase::Waiting(now + Duration::from_millis(wait_ms)));
    }

    fn set_phase(&mut self, phase: Phase) {
        if let State::Asking(asking) = &mut self.state {
            asking.phase = phase;
        }
    }
}

/// An entry that was refused may be a card number keyed at the wrong question: it is not shown.
fn shown(asking: &Asking, rejected: bool) -> String {
    const OPEN_KEYS_MAX: usize = 8;
    let open = asking.question.secrecy == Secrecy::Open;
    if open && !rejected && asking.entry.len() <= OPEN_KEYS_MAX {
        return asking.entry.expose().to_string();
    }
    "•".repeat(asking.entry.len())
}

#[cfg(test)]
mod tests;
