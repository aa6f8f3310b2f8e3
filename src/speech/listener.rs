//! One answer from its first sound to the silence after it: voice activity and the recognizer
//! together say when it has begun, which stops a prompt, and when it is over.

use super::decode::answer::Answers;
use super::{Engine, Extent, Field, Frame, Progress, Recognizer};
use crate::media::frame::FRAME_MS;
use crate::media::voice::{Line, Voice};
use crate::secret::Keys;

/// Listens for the answer to one question.
pub struct Listener {
    field: Field,
    voice: Voice,
    recognizer: Box<dyn Recognizer>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    /// For so many milliseconds.
    Speaking(u32),
    Over,
}

/// What a listener tells.
pub enum Heard {
    /// The caller has begun to speak: what we say should stop.
    Begun,
    /// What began was no answer: a cough, a word to someone else. It goes on listening.
    Nothing,
    /// The answer is over.
    Answer(Answers),
}

/// An answer is over after so much, whatever goes on.
const ANSWER_MAX_MS: u32 = 30_000;
/// Speech without a word that means something ends after this pause.
const NOTHING_MS: u32 = 1_500;
/// A voice goes on, or a noise does: so long after the last word, that is as good as silence.
const NO_WORD_MS: u32 = 1_500;
/// A word is told at most so long after it.
const TOLD_AFTER_MS: u32 = 240;

impl Listener {
    /// Listens for what continues the digits that were keyed.
    pub fn new(engine: &dyn Engine, field: Field, keyed: &Keys) -> Listener {
        let recognizer = engine.recognizer(field, keyed);
        Listener { field, voice: Voice::new(), recognizer, state: State::Waiting }
    }

    /// Takes the next 20 ms.
    pub fn hear(&mut self, frame: Frame<'_>, line: Line) -> Option<Heard> {
        if self.state == State::Over {
            return None;
        }
        match frame {
            Frame::Sound(sound) => self.voice.hear(sound, line),
            Frame::Lost => self.voice.lose(),
        }
        self.recognizer.take(frame);
        let progress = self.recognizer.progress();
        match &mut self.state {
            State::Over => None,
            State::Waiting => {
                let begun = self.voice.has_begun() || progress.words > 0;
                begun.then(|| {
                    self.state = State::Speaking(0);
                    Heard::Begun
                })
            }
            State::Speaking(ms) => {
                *ms += FRAME_MS;
                let over = *ms >= ANSWER_MAX_MS;
                self.watch_end(progress, over)
            }
        }
    }

    /// The caller went over to keys, or is gone: what was said until now.
    pub fn end(&mut self) -> Answers {
        self.state = State::Over;
        self.recognizer.answers()
    }

    fn watch_end(&mut self, progress: Progress, over: bool) -> Option<Heard> {
        let quiet_ms = self.voice.quiet_ms();
        let Some(since_word_ms) = progress.quiet_ms else {
            let nothing = over || quiet_ms >= NOTHING_MS;
            return nothing.then(|| {
                self.state = State::Waiting;
                Heard::Nothing
            });
        };
        // A voice too low to be told from noise still says words.
        let quiet_ms = quiet_ms.min(since_word_ms + TOLD_AFTER_MS);
        let quiet_ms = quiet_ms.max(since_word_ms.saturating_sub(NO_WORD_MS));
        let ended = over || quiet_ms >= pause_ms(self.field, progress.extent);
        ended.then(|| Heard::Answer(self.end()))
    }
}

/// How long a silence ends an answer. Long numbers are read in groups, with pauses between them.
fn pause_ms(field: Field, extent: Extent) -> u32 {
    let long = matches!(field, Field::Card | Field::Routing | Field::Digits { .. });
    match (extent, field) {
        (Extent::Full, _) => 440,
        (Extent::Enough, Field::YesNo) => 440,
        // A Visa number may have 19 digits, and hardly any has.
        (Extent::Enough, Field::Card) => 600,
        (Extent::Enough, Field::Digits { .. }) => 1_400,
        (Extent::Enough, _) => 900,
        (Extent::Short, _) if long => 2_600,
        (Extent::Short, Field::YesNo | Field::Digit) => 1_200,
        (Extent::Short, _) => 2_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::frame::SAMPLES;

    /// Tells a word a second after it began, then this extent.
    struct Fake(Extent);
    struct Counting {
        frames: u32,
        extent: Extent,
    }

    impl Engine for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }

        fn is_quick(&self) -> bool {
            true
        }

        fn recognizer(&self, _: Field, _: &Keys) -> Box<dyn Recognizer> {
            Box::new(Counting { frames: 0, extent: self.0 })
        }
    }

    impl Recognizer for Counting {
        fn take(&mut self, _: Frame<'_>) {
            self.frames += 1;
        }

        fn progress(&self) -> Progress {
            let since = self.frames.checked_sub(50).map(|frames| frames * FRAME_MS);
            Progress { words: since.map_or(0, |_| 1), extent: self.extent, quiet_ms: since }
        }

        fn answers(&mut self) -> Answers {
            Answers::none(Field::Zip)
        }
    }

    /// Milliseconds at which it was over, on a line that is silent.
    fn over_ms(field: Field, extent: Extent) -> Option<u32> {
        let mut listener = Listener::new(&Fake(extent), field, &Keys::new());
        (1..600u32).find_map(|nth| {
            let heard = listener.hear(Frame::Sound(&[0; SAMPLES]), Line::default());
            matches!(heard, Some(Heard::Answer(_))).then_some(nth * FRAME_MS)
        })
    }

    #[test]
    fn a_whole_answer_ends_sooner_than_one_that_may_go_on() {
        let of = |extent| over_ms(Field::Digits { min: 4, max: 9 }, extent);
        let [full, enough, short] = [Extent::Full, Extent::Enough, Extent::Short].map(of);
        assert!(full < enough && enough < short, "{full:?} {enough:?} {short:?}");
        // Nobody speaks, so nothing but the word itself is waited for.
        assert!(full.is_some_and(|ms| (1000..=1500).contains(&ms)), "{full:?}");
        assert!(short.is_some_and(|ms| ms <= 6000), "{short:?}");
    }

    #[test]
    fn after_the_answer_nothing_is_told() {
        let mut listener = Listener::new(&Fake(Extent::Full), Field::Zip, &Keys::new());
        listener.end();
        for _ in 0..200 {
            assert!(listener.hear(Frame::Lost, Line::default()).is_none());
        }
    }
}
