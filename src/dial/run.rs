//! A script being carried out: which step waits for what, and whether it has been heard.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use super::listen::{Heard, Index, SoundId};
use super::script::{Expected, Script, Step, Utterance, masked};
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
    /// Nobody waits for the end.
    Interrupted,
    /// Somebody live is not there any more; says why.
    Person(String),
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
            Failure::Person(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Failure {}

/// What the phone is to do.
#[derive(Debug)]
pub enum Action {
    Press(Keys),
    Say(Utterance),
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

    /// The keys of the last [`Action::Press`], or the sound of the last [`Action::Say`], are on the
    /// wire.
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
                Step::Say(said) => {
                    self.begun = Some(Begun::Pressing);
                    let said = std::mem::take(said);
                    self.remembered.clear();
                    self.stale = self.playing;
                    return Some(Action::Say(said));
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
            Some(Action::Say(said)) => Err(Failure::HungUp { step: format!("say {}", said.name) }),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dial::script::Script;
    use crate::media::Clip;
    use crate::prompt::clip::encode;
    use crate::sip::offer::Law;

    /// Two sounds of noise, `a` and `b`.
    fn index() -> (Index, SoundId, SoundId) {
        let noise = |seed: i32| -> Clip {
            let sample = |n: i32| (n.wrapping_mul(seed).wrapping_mul(n) % 9_000) as i16;
            encode(&(0..1_600).map(sample).collect::<Vec<_>>())
        };
        let (a, b) = (noise(7_919), noise(104_729));
        let clips = [("a", "A.", &a), ("b", "B.", &b)];
        let index = Index::new(Law::Mu, clips.into_iter());
        assert_eq!(index.unrecognisable().count(), 0);
        let [first, second] = ["a", "b"].map(|id| index.sound(id).unwrap());
        (index, first, second)
    }

    #[allow(clippy::disallowed_methods)]
    fn run(script: &str) -> (Run, Instant) {
        (Run::new(Script::parse(script, &|id| id.len() == 1).unwrap()), Instant::now())
    }

    fn ended(sound: SoundId) -> Heard {
        Heard::Ended { sound, complete: true }
    }

    fn presses(action: Option<Action>) -> bool {
        matches!(action, Some(Action::Press(_)))
    }

    #[test]
    fn a_prompt_heard_during_a_pause_counts() {
        let (index, a, b) = index();
        let (mut run, now) = run("hear a, pause 1000, hear b, key 1, hangup");
        assert!(run.advance(now, &index).is_none());
        run.heard(Heard::Started(a));
        run.heard(ended(a));
        assert!(run.advance(now, &index).is_none());
        run.heard(Heard::Started(b));
        run.heard(ended(b));
        assert!(run.advance(now, &index).is_none(), "the pause is not over");
        assert_eq!(run.deadline(), Some(now + Duration::from_secs(1)));
        assert!(presses(run.advance(now + Duration::from_secs(1), &index)));
        run.pressed();
        assert!(matches!(run.advance(now, &index), Some(Action::Hangup)));
    }

    #[test]
    fn what_keys_cut_off_is_not_heard_again() {
        let (index, a, _) = index();
        let (mut run, now) = run("hear-start a, key 1, hear a");
        run.heard(Heard::Started(a));
        assert!(presses(run.advance(now, &index)));
        run.pressed();
        run.heard(ended(a));
        assert!(run.advance(now, &index).is_none(), "that was the one we keyed into");
        run.heard(Heard::Started(a));
        run.heard(Heard::Ended { sound: a, complete: false });
        assert!(run.advance(now, &index).is_none(), "not heard to its end");
        run.heard(Heard::Started(a));
        run.heard(ended(a));
        assert!(matches!(run.advance(now, &index), Some(Action::Hangup)));
    }

    #[test]
    fn quiet_is_heard_at_once_when_nobody_speaks() {
        let (index, _, _) = index();
        let (mut quiet, now) = run("hear silence");
        assert!(matches!(quiet.advance(now, &index), Some(Action::Hangup)));
        let (mut talk, now) = run("hear speech, hear silence");
        assert!(talk.advance(now, &index).is_none());
        talk.heard(Heard::Speech);
        assert!(talk.advance(now, &index).is_none());
        talk.heard(Heard::Silence);
        assert!(matches!(talk.advance(now, &index), Some(Action::Hangup)));
    }

    #[test]
    fn a_hang_up_is_right_only_at_the_end() {
        let (index, a, _) = index();
        let (mut early, now) = run("hear a, key 4111111111111111#, wait-end");
        let told = early.over(now, &index).unwrap_err().to_string();
        assert_eq!(told, "the other side hung up before `hear a 30s`");
        early.heard(ended(a));
        let told = early.over(now, &index).unwrap_err().to_string();
        let want = "the other side hung up before `key 16 digits ending in 1111 + #`";
        assert_eq!(told, want);
        let (mut right, now) = run("hear a, wait-end");
        right.heard(ended(a));
        assert_eq!(right.over(now, &index), Ok(()));
    }

    #[test]
    fn patience_ends() {
        let (index, _, b) = index();
        let (mut run, now) = run("hear a 3s");
        assert!(run.advance(now, &index).is_none());
        run.heard(ended(b));
        assert!(run.advance(now + Duration::from_millis(2_999), &index).is_none());
        let Some(Action::Fail(failure)) = run.advance(now + Duration::from_secs(3), &index) else {
            panic!("should have given up");
        };
        let want = "`hear a 3s`: not heard; the last we recognised was b";
        assert_eq!(failure.to_string(), want);
    }
}
