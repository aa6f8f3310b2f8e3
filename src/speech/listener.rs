//! One answer from its first sound to the silence after it: what is said goes to the recognizer,
//! and how far that has come says how long a silence ends it.

use super::decode::answer::Answers;
use super::{Engine, Extent, Field, Frame, Progress, Recognizer};
use crate::media::frame::FRAME_MS;
use crate::secret::Keys;

/// Listens to an answer that has begun.
pub struct Listener {
    field: Field,
    recognizer: Box<dyn Recognizer>,
    /// Milliseconds of it; `None` once it is over.
    lasts_ms: Option<u32>,
}

/// How an answer ended.
pub enum Heard {
    /// What began was no answer: a cough, a word to someone else.
    Nothing,
    /// It is over: [`Listener::answers`] has what it was.
    Answer,
}

/// An answer is over after so much, whatever goes on.
pub const ANSWER_MAX_MS: u32 = 30_000;
/// Speech without a word that means something ends after this pause.
const NOTHING_MS: u32 = 1_500;
/// A voice goes on, or a noise does: so long after the last word, that is as good as silence.
const NO_WORD_MS: u32 = 1_500;
/// The same before the first word: music, a television.
const NO_FIRST_WORD_MS: u32 = 6_000;
/// A word is told at most so long after it.
const TOLD_AFTER_MS: u32 = 240;

impl Listener {
    /// Listens for what continues the digits that were keyed.
    pub fn new(engine: &dyn Engine, field: Field, keyed: &Keys) -> Listener {
        Listener { field, recognizer: engine.recognizer(field, keyed), lasts_ms: Some(0) }
    }

    /// Takes the next 20 ms; `quiet_ms`: how long nobody has spoken.
    pub fn hear(&mut self, frame: Frame<'_>, quiet_ms: u32) -> Option<Heard> {
        let lasts_ms = self.lasts_ms.as_mut()?;
        *lasts_ms += FRAME_MS;
        let lasts_ms = *lasts_ms;
        self.recognizer.take(frame);
        let heard = self.watch_end(lasts_ms, quiet_ms)?;
        self.lasts_ms = None;
        Some(heard)
    }

    /// What was said, until now if it goes on still: the caller went over to keys, or is gone.
    /// Takes as long as [`Recognizer::answers`].
    pub fn answers(&mut self) -> Answers {
        self.lasts_ms = None;
        self.recognizer.answers()
    }

    fn watch_end(&self, lasts_ms: u32, quiet_ms: u32) -> Option<Heard> {
        let Progress { extent, quiet_ms: since_word_ms, .. } = self.recognizer.progress();
        let over = lasts_ms >= ANSWER_MAX_MS;
        let Some(since_word_ms) = since_word_ms else {
            // What is kept from before speech began is no pause.
            let paused = quiet_ms >= NOTHING_MS && lasts_ms >= NOTHING_MS;
            return (over || paused || lasts_ms >= NO_FIRST_WORD_MS).then_some(Heard::Nothing);
        };
        // A voice too low to be told from noise still says words.
        let quiet_ms = quiet_ms.min(since_word_ms + TOLD_AFTER_MS);
        let quiet_ms = quiet_ms.max(since_word_ms.saturating_sub(NO_WORD_MS));
        let ended = over || quiet_ms >= pause_ms(self.field, extent);
        ended.then_some(Heard::Answer)
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
            let heard = listener.hear(Frame::Sound(&[0; SAMPLES]), u32::MAX);
            matches!(heard, Some(Heard::Answer)).then_some(nth * FRAME_MS)
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
        listener.answers();
        for _ in 0..200 {
            assert!(listener.hear(Frame::Lost, 0).is_none());
        }
    }
}
