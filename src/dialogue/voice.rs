//! The answer said instead of keyed: when speech is listened for, what is taken of it, what is
//! read back first, and when the keypad is offered instead.

use std::time::{Duration, Instant};

use super::{Dialogue, Heard, Output, Phase, State, Style};
use crate::media::ListenId;
use crate::prompt::{Private, Prompt};
use crate::secret::Keys;
use crate::speech::{self, Answers, Command, Outcome, Spoken};

/// How a question may be answered by voice.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// What may be said.
    pub field: speech::Field,
    pub read_back: ReadBack,
    /// The question as it is put to callers who may say the answer.
    pub prompt: &'static str,
}

/// What a caller is asked to confirm before it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// Nothing: a secret, or a choice. Only what is sure is taken.
    Never,
    /// Nothing here: the script reads it back itself.
    Later,
    /// The last four digits of a number whose checksum vouches for the rest: unless it is sure.
    LastFour,
    /// The last four digits, always: nothing vouches for it, and it is not read aloud.
    Ending,
    /// All of it, always: nothing else says that it is right.
    Always,
}

/// What a recognizer told.
pub enum Told {
    /// The answer is over and is thought about: more follows.
    Thinking,
    Answer(Answers),
    /// What began was no answer.
    Nothing,
    /// The recognizer does not keep up: what was said is lost.
    Late,
}

/// How far the answer to one question has come by voice.
#[derive(Default)]
pub(super) struct Hearing {
    /// What is listened for now.
    id: Option<ListenId>,
    /// Answers that were not understood or not right.
    failures: u8,
    /// Times the prompt was cut short by what was no answer.
    false_starts: u8,
    /// What the answer before was heard as.
    earlier: Option<Answers>,
    /// Is being read back.
    candidate: Option<Keys>,
    /// Questions about it that got no answer.
    unconfirmed: u8,
    /// What was heard last instead of an answer.
    command: Option<Command>,
    /// When a caller whose answer is thought about is asked to wait.
    wait_at: Option<Instant>,
}

impl Hearing {
    pub(super) fn is_confirming(&self) -> bool {
        self.candidate.is_some()
    }

    /// When there is something to be said about what is thought about.
    pub(super) fn wait_at(&self) -> Option<Instant> {
        self.wait_at
    }
}

/// Callers wonder about silence after so long, and again.
const WAIT_FIRST: Duration = Duration::from_millis(1_500);
const WAIT_AGAIN: Duration = Duration::from_secs(6);

/// After so many answers by voice that came to nothing the keypad is offered.
const FAILURES_MAX: u8 = 2;
/// Questions whose answer by voice came to nothing; then nothing more is listened for.
const LOST_MAX: u8 = 2;
/// Then speech cuts this prompt no more: the caller has a loud place, not an answer.
const FALSE_STARTS_MAX: u8 = 2;
/// A recognizer ends an answer by itself and some think about it then: later than this it has
/// failed.
const ANSWER_MAX: Duration = Duration::from_millis(speech::listener::ANSWER_MAX_MS as u64 + 10_000);
/// Longer numbers may be a card's, whatever was asked: they are never read aloud.
const READ_MAX: usize = 10;

impl Dialogue {
    /// Callers may answer questions for these by voice.
    pub fn offer_voice(&mut self, fields: speech::Fields) {
        self.voice = fields;
    }

    /// The caller has begun to speak; a prompt that lets itself be interrupted has been.
    pub fn speech_begun(&mut self, now: Instant, id: ListenId) {
        let State::Asking(asking) = &mut self.state else { return };
        if asking.hearing.id != Some(id) {
            return;
        }
        let over = match asking.phase {
            Phase::Notice(_) | Phase::Speaking { .. } => return,
            Phase::Prompt(_) => None,
            Phase::Waiting(until) => Some(until),
        };
        asking.phase = Phase::Speaking { until: now + ANSWER_MAX, over };
    }

    /// What a recognizer made of it.
    pub fn told(&mut self, now: Instant, id: ListenId, told: Told) {
        let State::Asking(asking) = &mut self.state else { return };
        if asking.hearing.id != Some(id) {
            return;
        }
        // Who thinks has not told yet.
        asking.hearing.id.take_if(|_| !matches!(told, Told::Thinking));
        asking.hearing.wait_at = None;
        match told {
            Told::Thinking if matches!(asking.phase, Phase::Speaking { .. }) => {
                asking.hearing.wait_at = Some(now + WAIT_FIRST);
            }
            Told::Thinking => {}
            Told::Nothing => self.false_start(now),
            // Not the caller's fault: the same again, and no attempt less.
            Told::Late => self.lost(now),
            Told::Answer(answers) if asking.hearing.candidate.is_some() => {
                self.confirmed(now, &answers);
            }
            Told::Answer(answers) => self.answered(now, answers),
        }
    }

    /// The answer is still thought about.
    pub(super) fn ask_to_wait(&mut self, now: Instant) {
        let State::Asking(asking) = &mut self.state else { return };
        asking.hearing.wait_at = Some(now + WAIT_AGAIN);
        self.play(vec![Prompt::Phrase("speech.one_moment")], true);
    }

    /// The speech that had begun has no end.
    pub(super) fn give_up_speech(&mut self, now: Instant) {
        self.deafen();
        self.lost(now);
    }

    /// The question as it is put now.
    pub(super) fn wording(&self) -> Vec<Prompt> {
        let State::Asking(asking) = &self.state else { return Vec::new() };
        let question = &asking.question;
        match question.voice.filter(|_| self.may_listen()) {
            // What comes before it stays: balance and date.
            Some(voice) => {
                let mut prompts = question.prompt.clone();
                prompts.pop();
                prompts.push(Prompt::Phrase(voice.prompt));
                prompts
            }
            None if asking.attempt > 1 && !question.help.is_empty() => question.help.clone(),
            None => question.prompt.clone(),
        }
    }

    /// Whether this question may be answered by voice, now.
    pub(super) fn may_listen(&self) -> bool {
        let State::Asking(asking) = &self.state else { return false };
        self.voice_lost < LOST_MAX
            && asking.question.voice.is_some_and(|voice| self.voice.has(voice.field))
            && asking.hearing.failures < FAILURES_MAX
    }

    /// Listens for what continues the entry, from here on.
    pub(super) fn listen(&mut self) {
        self.deafen();
        if !self.may_listen() {
            return;
        }
        let State::Asking(asking) = &mut self.state else { return };
        let Some(voice) = asking.question.voice else { return };
        let field = match asking.hearing.candidate {
            Some(_) => speech::Field::YesNo,
            None => voice.field,
        };
        let whole =
            matches!(field, speech::Field::Amount | speech::Field::YesNo | speech::Field::Digit);
        if whole && !asking.entry.is_empty() {
            return;
        }
        let id = ListenId(self.listens);
        self.listens += 1;
        asking.hearing.id = Some(id);
        let stops = asking.hearing.false_starts < FALSE_STARTS_MAX;
        let keyed = asking.entry.expose().bytes().collect();
        self.outputs.push_back(Output::Listen { id, field, keyed, stops });
    }

    pub(super) fn deafen(&mut self) {
        if let State::Asking(asking) = &mut self.state {
            asking.hearing.wait_at = None;
            if asking.hearing.id.take().is_some() {
                self.outputs.push_back(Output::Deaf);
            }
        }
    }

    /// A key while a value is read back.
    pub(super) fn confirm_key(&mut self, now: Instant, key: u8) {
        match key {
            b'1' => self.take_candidate(now),
            b'2' | b'*' => self.denied(now),
            b'0' => self.end(Heard::Agent),
            _ => self.read_back(),
        }
    }

    /// Nobody said or keyed whether it is right.
    pub(super) fn unconfirmed(&mut self, now: Instant) {
        let State::Asking(asking) = &mut self.state else { return };
        asking.hearing.unconfirmed += 1;
        match asking.hearing.unconfirmed {
            1 => self.read_back(),
            _ => self.not_understood(now),
        }
    }

    pub(super) fn is_confirming(&self) -> bool {
        matches!(&self.state, State::Asking(asking) if asking.hearing.is_confirming())
    }

    fn answered(&mut self, now: Instant, answers: Answers) {
        let State::Asking(asking) = &mut self.state else { return };
        let Some(voice) = asking.question.voice else { return };
        let alone = answers.judge();
        let both = asking.hearing.earlier.take().map(|earlier| speech::fuse(&earlier, &answers));
        // Two tries together are worth a question, never more.
        let (outcome, best) = match (alone.outcome, &both) {
            (Outcome::Again, Some(both)) => match both.judge() {
                answer if answer.outcome == Outcome::Again => (Outcome::Again, None),
                answer => (Outcome::Confirm, answer.best),
            },
            _ => (alone.outcome, alone.best),
        };
        asking.hearing.earlier = Some(answers);
        let sure = outcome == Outcome::Accept;
        let Some(best) = best.filter(|_| outcome != Outcome::Again) else {
            return self.not_understood(now);
        };
        if let Some(Spoken::Command(command)) = best.word() {
            return self.command(now, command, sure);
        }
        let keys = match best.word() {
            Some(Spoken::Yes) => [b'1'].into_iter().collect(),
            Some(Spoken::No) => [b'2'].into_iter().collect(),
            _ => best.keys(),
        };
        match voice.read_back {
            ReadBack::Never if sure => self.take_spoken(now, keys),
            ReadBack::Never => self.not_understood(now),
            ReadBack::Later => self.take_spoken(now, keys),
            ReadBack::LastFour if sure => self.take_spoken(now, keys),
            ReadBack::LastFour | ReadBack::Ending | ReadBack::Always => self.propose(now, keys),
        }
    }

    /// Other people's talk sounds like a command once a minute: only one said twice leads away.
    fn command(&mut self, now: Instant, command: Command, sure: bool) {
        let State::Asking(asking) = &mut self.state else { return };
        let again = asking.hearing.command.replace(command) == Some(command);
        match command {
            _ if !sure => self.not_understood(now),
            Command::Repeat => self.repeat(),
            _ if !again => self.not_understood(now),
            Command::Agent => self.end(Heard::Agent),
            Command::Back | Command::Cancel => self.end(Heard::Back),
        }
    }

    /// Reads it back, unless it is wrong already.
    fn propose(&mut self, now: Instant, keys: Keys) {
        let State::Asking(asking) = &mut self.state else { return };
        if asking.question.grammar.check(keys.expose()).is_err() {
            return self.take_spoken(now, keys);
        }
        asking.entry.clear();
        asking.hearing.candidate = Some(keys);
        asking.hearing.unconfirmed = 0;
        self.read_back();
    }

    fn read_back(&mut self) {
        let State::Asking(asking) = &self.state else { return };
        let Some(candidate) = &asking.hearing.candidate else { return };
        let keys = candidate.expose();
        let voice = asking.question.voice;
        let card = voice.is_some_and(|voice| voice.field == speech::Field::Card);
        let whole = voice.is_some_and(|voice| voice.read_back == ReadBack::Always);
        let last_four = &keys[keys.len().saturating_sub(4)..];
        let (heard, digits) = match card {
            true => ("speech.heard_card", last_four),
            false if !whole || keys.len() > READ_MAX => ("speech.heard_ending", last_four),
            false => ("speech.heard", keys),
        };
        // A card's last four may be seen; what else identifies somebody is for his ears only.
        let digits = match card {
            true => Prompt::Digits(digits.to_string()),
            false => Prompt::Private(Private::new(digits)),
        };
        let prompts = vec![Prompt::Phrase(heard), digits, Prompt::Phrase("speech.yes_no")];
        let id = self.play(prompts, true);
        self.set_phase(Phase::Prompt(id));
        self.listen();
    }

    fn confirmed(&mut self, now: Instant, answers: &Answers) {
        let answer = answers.judge();
        let sure = answer.outcome == Outcome::Accept;
        match answer.best.filter(|_| sure).and_then(|best| best.word()) {
            Some(Spoken::Yes) => self.take_candidate(now),
            Some(Spoken::No) => self.denied(now),
            Some(Spoken::Command(_)) | None => self.unconfirmed(now),
        }
    }

    fn take_candidate(&mut self, now: Instant) {
        let State::Asking(asking) = &mut self.state else { return };
        if let Some(keys) = asking.hearing.candidate.take() {
            self.take_spoken(now, keys);
        }
    }

    /// It was something else: what was heard so far speaks for that alone.
    fn denied(&mut self, now: Instant) {
        let State::Asking(asking) = &mut self.state else { return };
        if let (Some(wrong), Some(earlier)) =
            (asking.hearing.candidate.take(), &mut asking.hearing.earlier)
        {
            earlier.exclude(&wrong);
        }
        self.not_understood(now);
    }

    /// As if it had been keyed.
    fn take_spoken(&mut self, now: Instant, keys: Keys) {
        self.deafen();
        let State::Asking(asking) = &mut self.state else { return };
        asking.entry = keys;
        asking.spoken = true;
        self.finish(now);
    }

    /// Asked for again, once; then the keypad is offered. Where nobody takes callers over no
    /// attempt is lost by it.
    fn not_understood(&mut self, now: Instant) {
        self.deafen();
        let State::Asking(asking) = &mut self.state else { return };
        let field = asking.question.name;
        asking.entry.clear();
        asking.hearing.candidate = None;
        asking.hearing.failures += 1;
        let offers_keys = asking.hearing.failures >= FAILURES_MAX;
        if offers_keys {
            asking.hearing.earlier = None;
            self.voice_lost += 1;
        }
        self.outputs.push_back(Output::NoMatch { field });
        let why = if offers_keys { "speech.use_keypad" } else { "speech.again" };
        match self.agent {
            true => self.again(now, vec![Prompt::Phrase(why)]),
            false => self.present(now, vec![Prompt::Phrase(why)]),
        }
    }

    /// It goes on as before speech seemed to begin.
    fn false_start(&mut self, now: Instant) {
        let State::Asking(asking) = &mut self.state else { return };
        let Phase::Speaking { over, .. } = asking.phase else { return self.listen() };
        match over {
            // The timer has gone on meanwhile.
            Some(until) => {
                asking.phase = Phase::Waiting(until.max(now));
                self.listen();
            }
            None => self.said_nothing(now),
        }
    }

    /// The prompt that it cut short is said again, a few times.
    fn said_nothing(&mut self, now: Instant) {
        let State::Asking(asking) = &mut self.state else { return };
        let stopped = asking.hearing.false_starts < FALSE_STARTS_MAX;
        asking.hearing.false_starts = asking.hearing.false_starts.saturating_add(1);
        if !stopped {
            // It has played on, to its end or nearly so.
            self.wait_ms(now, self.settings.first_key_ms);
            return self.listen();
        }
        self.present_again(now);
    }

    fn lost(&mut self, now: Instant) {
        let State::Asking(asking) = &mut self.state else { return };
        // A recognizer that is late again will be late once more.
        asking.hearing.failures += 1;
        self.present_again(now);
    }

    fn present_again(&mut self, now: Instant) {
        match self.is_confirming() {
            true => self.read_back(),
            false => self.present(now, Vec::new()),
        }
    }

    /// A key of an answer that goes on: what is being said gives way to it.
    pub(super) fn listen_after_key(&mut self) {
        let State::Asking(asking) = &self.state else { return };
        match asking.question.style {
            Style::Number => self.listen(),
            Style::Menu => self.deafen(),
        }
    }
}

#[cfg(test)]
mod tests;
