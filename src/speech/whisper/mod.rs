//! The engine of a Whisper model that the operator supplies: the built-in network follows the
//! caller word by word, and when the answer is over both are asked what it was. Whisper takes a
//! second or more of a core for that, knows far more voices, and is only ever asked how likely
//! answers are that the field admits.

use std::fmt;
use std::sync::{Arc, Mutex};

use whisper_rs::{
    FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters, WhisperState,
};
use zeroize::{Zeroize, Zeroizing};

use super::decode::answer::Evidence;
use super::decode::beam::log_add;
use super::decode::confidence::Ear;
use super::decode::grammar::{self, Commands, Grammar};
use super::digits::{Digits, ModelError};
use super::{Answers, Engine, Field, Frame, Hypothesis, Progress, Recognizer};
use crate::media::frame::SAMPLES;
use crate::secret::Keys;

mod file; // whether bytes are a model
mod search; // the likeliest answers
mod upsample; // to the 16 kHz that Whisper hears
mod vocabulary; // tokens that answers are made of

pub use file::Fault;
use search::{Teller, Text, search};
use vocabulary::{Style, Vocabulary};

/// What Whisper hears at once.
const SOUND_MAX: usize = 30 * 8_000;
/// Silence after the answer, without which its last word may be cut off: half a second.
const SILENCE: usize = 4_000;
/// Samples of 16 kHz for one of the encoder's places.
const PLACE: usize = 320;
/// Places come in such steps.
const PLACES_STEP: usize = 16;
const PLACES_MAX: usize = 1_500;
/// Answers of the built-in network that Whisper is asked about in any case.
const FAVOURED: usize = 2;
/// How much what the built-in network told counts beside what Whisper told.
const BUILT_IN: f32 = 0.5;
/// What an answer that one of both did not think of is behind its least likely one.
const UNTOLD: f32 = 2.0;
/// How often a caller says a command instead of an answer, as a natural logarithm.
const COMMAND: f32 = -4.0;

/// Why an operator's file is no engine.
#[derive(Debug)]
pub enum OpenFault {
    File(Fault),
    /// It has no tokens for English digits.
    Vocabulary,
    /// The network that follows the caller is damaged.
    BuiltIn(ModelError),
}

pub struct Whisper {
    built_in: Digits,
    shared: Arc<Shared>,
}

struct Shared {
    context: WhisperContext,
    vocabulary: Vocabulary,
    /// What a text begins with; after an example of how answers are written, and without one.
    start: Vec<i32>,
    /// Of those threads that have asked it something. One is some 100 MB.
    states: Mutex<Vec<WhisperState>>,
}

impl Whisper {
    /// Loads a model; `bytes` are those of a ggml file.
    pub fn open(bytes: &[u8]) -> Result<Whisper, OpenFault> {
        Whisper::beside(Digits::new().map_err(OpenFault::BuiltIn)?, bytes)
    }

    /// The same beside another network than the one that is built in.
    pub fn beside(built_in: Digits, bytes: &[u8]) -> Result<Whisper, OpenFault> {
        file::check(bytes).map_err(OpenFault::File)?;
        // It would write to standard error, line by line, what a caller's answer cost.
        whisper_rs::install_logging_hooks();
        let mut parameters = WhisperContextParameters::new();
        parameters.use_gpu(false);
        let context = WhisperContext::new_from_buffer_with_params(bytes, parameters)
            .map_err(|_| OpenFault::File(Fault::Loader))?;
        let named = tokens(&context);
        let vocabulary = Vocabulary::find(|text| named.get(text.as_bytes()).copied())
            .ok_or(OpenFault::Vocabulary)?;
        let mut start = vec![context.token_sot()];
        if context.is_multilingual() {
            let english = whisper_rs::get_lang_id("en").ok_or(OpenFault::Vocabulary)?;
            start.extend([context.token_lang(english), context.token_transcribe()]);
        }
        start.push(context.token_not());
        let states = Mutex::default();
        let built_in = built_in.leading();
        Ok(Whisper { built_in, shared: Arc::new(Shared { context, vocabulary, start, states }) })
    }
}

/// Tokens by their text.
fn tokens(context: &WhisperContext) -> std::collections::HashMap<Vec<u8>, i32> {
    let text = |token: i32| context.token_to_bytes(token).ok().map(|bytes| (bytes.to_vec(), token));
    // The first of those with the same text; what comes after the end of text is no text.
    (0..context.token_eot()).rev().filter_map(text).collect()
}

impl Engine for Whisper {
    fn name(&self) -> &'static str {
        "whisper"
    }

    fn is_quick(&self) -> bool {
        false
    }

    fn recognizer(&self, field: Field, keyed: &Keys) -> Box<dyn Recognizer> {
        Box::new(Listening {
            field,
            grammar: grammar::of(field, keyed),
            follower: self.built_in.recognizer(field, keyed),
            sound: Zeroizing::new(Vec::with_capacity(SOUND_MAX)),
            shared: self.shared.clone(),
            used: None,
        })
    }
}

/// One answer being listened for.
struct Listening {
    field: Field,
    grammar: Box<dyn Grammar>,
    follower: Box<dyn Recognizer>,
    /// All of it, at 8 kHz.
    sound: Zeroizing<Vec<i16>>,
    shared: Arc<Shared>,
    /// What was asked; the caller need not wait until it is wiped.
    used: Option<Used>,
}

impl Recognizer for Listening {
    fn take(&mut self, frame: Frame<'_>) {
        self.follower.take(frame);
        if self.sound.len() + SAMPLES + SILENCE <= SOUND_MAX {
            match frame {
                Frame::Sound(sound) => self.sound.extend_from_slice(sound),
                Frame::Lost => self.sound.extend_from_slice(&[0; SAMPLES]),
            }
        }
    }

    fn progress(&self) -> Progress {
        self.follower.progress()
    }

    fn answers(&mut self) -> Answers {
        let built_in = self.follower.answers();
        let Vocabulary { digits, dates, yes_no, commands } = &self.shared.vocabulary;
        let styles: &[&Style] = match self.field {
            // How sums are written says too little about how they are said.
            Field::Amount => return built_in,
            Field::Expiry(_) => &[digits, dates],
            Field::YesNo => &[yes_no],
            _ => &[digits],
        };
        if built_in.list().is_empty() {
            return built_in;
        }
        // What fails here is memory or the model: what the network told is an answer too.
        let asked = self.shared.ask(&self.sound, |asking| {
            let favours = |meaning: &grammar::Meaning| favours(&built_in, meaning);
            let mut texts = vec![];
            for style in styles {
                texts.extend(asking.texts(style, &*self.grammar, favours)?);
            }
            if built_in.list().iter().any(is_command) {
                for mut command in asking.texts(commands, &Commands, favours)? {
                    command.score += COMMAND;
                    texts.push(command);
                }
            }
            Ok(texts)
        });
        match asked {
            Some((texts, used)) => {
                self.used = Some(used);
                together(&built_in, &texts)
            }
            None => built_in,
        }
    }
}

fn is_command(known: &Hypothesis) -> bool {
    matches!(known.word(), Some(super::Spoken::Command(_)))
}

/// Whether the built-in network holds an answer likely that begins so.
fn favours(built_in: &Answers, meaning: &grammar::Meaning) -> bool {
    let known = built_in.list().iter().take(FAVOURED).map(Hypothesis::meaning);
    meaning.word().is_none() && known.clone().any(|k| k.digits().starts_with(meaning.digits()))
}

/// Both opinions as one.
fn together(built_in: &Answers, texts: &[Text]) -> Answers {
    let untold = built_in.list().iter().map(Hypothesis::score).fold(0.0, f32::min) - UNTOLD;
    let mut likely: Vec<(Hypothesis, f32)> = Vec::with_capacity(texts.len());
    for text in texts {
        let known = built_in.list().iter().find(|known| *known.meaning() == text.meaning);
        let told = known.map_or(untold, Hypothesis::score);
        let score = text.score + BUILT_IN * told;
        let times = known.or(built_in.list().first()).map_or(&[][..], Hypothesis::times_ms);
        let times = times.iter().copied().take(text.words);
        likely.push((Hypothesis::new(text.meaning, score, text.words, times), text.behind));
    }
    let mut answers = Answers::heard_by(Ear::Whisper, built_in.field());
    let mut best = (f32::MIN, 0.0);
    for (hypothesis, behind) in likely {
        if hypothesis.score() > best.0 {
            best = (hypothesis.score(), behind);
        }
        answers.add(hypothesis);
    }
    // Whatever the model would rather have written: that much likelier than the best answer.
    let anything = best.0 + best.1;
    answers.finish(Evidence { anything: log_add(anything, best.0), ..Evidence::default() });
    answers
}

impl Shared {
    /// Lets an answer be asked about. What comes with the result is to be dropped once the caller
    /// has been told.
    fn ask<T>(
        self: &Arc<Shared>,
        sound: &[i16],
        about: impl FnOnce(&mut Asking<'_>) -> Result<T, whisper_rs::WhisperError>,
    ) -> Option<(T, Used)> {
        let kept = self.states.lock().ok().and_then(|mut states| states.pop());
        let state = kept.or_else(|| self.context.create_state().ok())?;
        let places = places(sound.len());
        let mut used = Used { state: Some(state), places, shared: self.clone() };
        let mut wide = Zeroizing::new(vec![0.0; places * PLACE]);
        upsample::double(sound, &mut wide);
        let state = used.state.as_mut()?;
        hear(state, &wide, places).ok()?;
        let told = about(&mut Asking::new(self, state)).ok()?;
        Some((told, used))
    }
}

/// A state that knows what somebody said, until it is dropped: then silence takes the place of it.
struct Used {
    state: Option<WhisperState>,
    places: usize,
    shared: Arc<Shared>,
}

impl Drop for Used {
    fn drop(&mut self) {
        let Used { state, places, shared } = self;
        let Some(mut state) = state.take() else { return };
        let silence = vec![0.0; *places * PLACE];
        let wiped = hear(&mut state, &silence, *places)
            .and_then(|()| state.decode(&[shared.context.token_sot(); TEXT_MAX], 0, THREADS));
        if wiped.is_ok()
            && let Ok(mut states) = shared.states.lock()
        {
            states.push(state);
        }
    }
}

/// A worker of the pool has one core.
const THREADS: usize = 1;
/// The most tokens that are asked about at once.
const TEXT_MAX: usize = 64;

/// The encoder's places for sound of 8 kHz and the silence after it.
fn places(samples: usize) -> usize {
    let places = (2 * (samples + SILENCE)).div_ceil(PLACE);
    places.next_multiple_of(PLACES_STEP).min(PLACES_MAX)
}

fn hear(
    state: &mut WhisperState,
    sound: &[f32],
    places: usize,
) -> Result<(), whisper_rs::WhisperError> {
    // A whole run, stopped at its first token, is the one way to bound what is encoded.
    let mut parameters = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
    parameters.set_n_threads(THREADS as i32);
    parameters.set_audio_ctx(places as i32);
    parameters.set_max_tokens(1);
    // It would look for a token that a vocabulary need not have, and end the process.
    parameters.set_suppress_blank(false);
    parameters.set_single_segment(true);
    parameters.set_no_context(true);
    parameters.set_no_timestamps(true);
    parameters.set_temperature_inc(0.0);
    parameters.set_language(Some("en"));
    parameters.set_print_progress(false);
    parameters.set_print_realtime(false);
    parameters.set_print_special(false);
    parameters.set_print_timestamps(false);
    state.full(parameters, sound)
}

/// The model while it knows one answer.
struct Asking<'a> {
    shared: &'a Shared,
    state: &'a mut WhisperState,
    /// What the text begins with.
    start: Vec<i32>,
    /// What the model has been told of, in order; it can go back to any place.
    told: Zeroizing<Vec<i32>>,
}

impl<'a> Asking<'a> {
    fn new(shared: &'a Shared, state: &'a mut WhisperState) -> Asking<'a> {
        let told = Zeroizing::new(Vec::with_capacity(TEXT_MAX));
        Asking { shared, state, start: vec![], told }
    }

    fn texts(
        &mut self,
        style: &Style,
        grammar: &dyn Grammar,
        favours: impl Fn(&grammar::Meaning) -> bool,
    ) -> Result<Vec<Text>, whisper_rs::WhisperError> {
        self.start.clear();
        if !style.example.is_empty() {
            self.start.push(self.shared.context.token_prev());
            self.start.extend_from_slice(&style.example);
        }
        self.start.extend_from_slice(&self.shared.start);
        self.told.zeroize();
        search(self, &style.choices, self.shared.context.token_eot(), grammar, favours)
    }
}

impl Teller for Asking<'_> {
    type Error = whisper_rs::WhisperError;

    fn after(&mut self, text: &[i32]) -> Result<&[f32], Self::Error> {
        let whole = Zeroizing::new([&self.start[..], text].concat());
        let same = self.told.iter().zip(&*whole).take_while(|(a, b)| a == b).count();
        // The last token is told again where nothing else is new, and by itself: of several told
        // at once, what is read afterwards belongs to the first.
        let last = whole.len() - 1;
        let same = same.min(last);
        if same < last {
            self.state.decode(&whole[same..last], same, THREADS)?;
        }
        self.state.decode(&whole[last..], last, THREADS)?;
        self.told.truncate(same);
        self.told.extend_from_slice(&whole[same..]);
        self.state.get_logits()
    }
}

impl fmt::Display for OpenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenFault::File(fault) => fault.fmt(f),
            OpenFault::Vocabulary => f.write_str("has no tokens for English digits"),
            OpenFault::BuiltIn(error) => write!(f, "needs the built-in model, which {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
