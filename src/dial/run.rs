//! A script being carried out: which step waits for what, and whether it has been heard.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use super::listen::{Heard, Index, SoundId};
use super::script::{Expected, Script, Step, masked};
use crate::secret::Keys;

/// Sounds kept in mind between two steps.
const REMEMBERED_MAX: usize = 64;

/// Why a call did not go as the script says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What a step waits for did not come in time. `last` is what was heard last.
    NotHeard { step: String, last: Option<String> },
    /// The other side should have hung up and did not.
    NotEnded,
    /// The other side hung up before this step was done.
    HungUp { step: String },
    /// Our INVITE was refused.
    Refused { status: u16, reason: String },
    /// No answer to our INVITE.
    NoAnswer,
    /// The answer's SDP cannot be used.
    NoMedia(String),
    /// The call went on for longer than it may.
    TooLong,
    /// [`Phone::hang_up_early`](super::Phone::hang_up_early).
    Interrupted,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotHeard { step, last: None } => write!(f, "`{step}`: heard nothing we know"),
            Failure::NotHeard { step, last: Some(last) } => {
                write!(f, "`{step}`: not heard; the last we recognised was {last}")
            }
            Failure::NotEnded => write!(f, "the other side did not hang up"),
            Failure::HungUp { step } => write!(f, "the other side hung up before `{step}`"),
            Failure::Refused { status, reason } => write!(f, "refused with {status} {reason}"),
            Failure::NoAnswer => write!(f, "nobody answered"),
            Failure::NoMedia(why) => write!(f, "no audio was agreed on: {why}"),
            Failure::TooLong => write!(f, "the call took longer than it may"),
            Failure::Interrupted => write!(f, "interrupted"),
        }
    }
}

impl std::error::Error for Failure {}

/// What the phone is to do.
#[derive(Debug)]
pub enum Action {
    Press(Keys),
    Hangup,
    Fail(Failure),
}

/// The script of one call under way.
pub struct Run {
    steps: VecDeque<Step>,
    /// Of the step at the front, once it has begun.
    begun: Option<Begun>,
    /// Not yet taken by a step, since the last keys.
    remembered: VecDeque<Heard>,
    /// Sounds that were on when keys were pressed: what is heard of them counts no more.
    stale: Option<SoundId>,
    playing: Option<SoundId>,
    speaking: bool,
    last: Option<SoundId>,
}

enum Begun {
    Until(Instant),
    Pressing,
}

impl Run {
    pub fn new(script: Script) -> Run {
        Run {
            steps: script.steps.into(),
            begun: None,
            remembered: VecDeque::new(),
            stale: None,
            playing: None,
            speaking: false,
            last: None,
        }
    }

    pub fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Started(sound) => {
                self.playing = Some(sound);
                self.stale = None;
            }
            Heard::Ended { sound, .. } => {
                self.playing = None;
                self.last = Some(sound);
                if self.stale.take() == Some(sound) {
                    return;
                }
            }
            Heard::Speech => self.speaking = true,
            Heard::Silence => self.speaking = false,
        }
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back(heard);
    }

    /// What was heard so far tells nothing any more: the codec changed.
    pub fn forget(&mut self) {
        self.remembered.clear();
        (self.stale, self.playing, self.last) = (None, None, None);
    }

    /// The keys of the last [`Action::Press`] are on the wire.
    pub fn pressed(&mut self) {
        if matches!(self.begun, Some(Begun::Pressing)) {
            self.done();
        }
    }

    /// What to do now; call until `None`.
    pub fn advance(&mut self, now: Instant, index: &Index) -> Option<Action> {
        loop {
            let Some(step) = self.steps.front_mut() else { return Some(Action::Hangup) };
            let until = match self.begun {
                Some(Begun::Pressing) => return None,
                Some(Begun::Until(until)) => Some(until),
                None => None,
            };
            let wait = match step {
                Step::Key(keys) => {
                    self.begun = Some(Begun::Pressing);
                    let keys = std::mem::take(keys);
                    self.remembered.clear();
                    self.stale = self.playing;
                    return Some(Action::Press(keys));
                }
                Step::Hangup => return Some(Action::Hangup),
                Step::Pause(pause) => *pause,
                Step::WaitEnd { patience } => *patience,
                Step::Hear { what, patience } => {
                    let speaking = self.speaking;
                    if take(&mut self.remembered, |heard| ends(index, what, heard, speaking)) {
                        self.done();
                        continue;
                    }
                    if *what == Expected::Silence && !speaking {
                        self.done();
                        continue;
                    }
                    *patience
                }
                Step::HearStart { what, patience } => {
                    if take(&mut self.remembered, |heard| starts(index, what, heard)) {
                        self.done();
                        continue;
                    }
                    *patience
                }
            };
            let until = until.unwrap_or_else(|| now + wait);
            self.begun = Some(Begun::Until(until));
            if now < until {
                return None;
            }
            match step {
                Step::Pause(_) => self.done(),
                Step::WaitEnd { .. } => return Some(Action::Fail(Failure::NotEnded)),
                step => {
                    let last = self.last.map(|sound| index.id(sound).to_string());
                    let step = step.to_string();
                    return Some(Action::Fail(Failure::NotHeard { step, last }));
                }
            }
        }
    }

    /// When to call [`Run::advance`] if nothing is heard before.
    pub fn deadline(&self) -> Option<Instant> {
        match self.begun {
            Some(Begun::Until(until)) => Some(until),
            _ => None,
        }
    }

    /// The other side has hung up: whether that is how the script ends.
    pub fn over(&mut self, now: Instant, index: &Index) -> Result<(), Failure> {
        match self.advance(now, index) {
            Some(Action::Hangup) => Ok(()),
            Some(Action::Fail(failure)) => Err(failure),
            Some(Action::Press(keys)) => {
                Err(Failure::HungUp { step: format!("key {}", masked(&keys)) })
            }
            None => match self.steps.front() {
                None | Some(Step::WaitEnd { .. }) => Ok(()),
                Some(step) => Err(Failure::HungUp { step: step.to_string() }),
            },
        }
    }

    fn done(&mut self) {
        self.begun = None;
        self.steps.pop_front();
    }
}

/// Takes the first that fits, and forgets what came before it.
fn take(remembered: &mut VecDeque<Heard>, fits: impl Fn(&Heard) -> bool) -> bool {
    let Some(place) = remembered.iter().position(fits) else { return false };
    remembered.drain(..=place);
    true
}

fn ends(index: &Index, what: &Expected, heard: &Heard, speaking: bool) -> bool {
    match (what, heard) {
        (Expected::Phrase(id), Heard::Ended { sound, complete: true }) => index.is(*sound, id),
        (Expected::Speech | Expected::Silence, Heard::Silence) => !speaking,
        _ => false,
    }
}

fn starts(index: &Index, what: &Expected, heard: &Heard) -> bool {
    match (what, heard) {
        (Expected::Phrase(id), Heard::Started(sound)) => index.is(*sound, id),
        (Expected::Speech, Heard::Speech) | (Expected::Silence, Heard::Silence) => true,
        _ => false,
    }
}
