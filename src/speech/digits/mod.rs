//! The built-in engine: a small causal network on mel features, all of it on this machine's CPU.
//! A recognizer costs a few thousandths of a core while it listens.

use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

use super::decode::{Decoder, Tokens};
use super::{Answers, Engine, Field, Frame, Progress, Recognizer};
use crate::media::frame::SAMPLES;
use crate::secret::Keys;

mod matrix; // weights times what comes in
pub mod mel; // sound to features
pub mod model; // layers and weights as training wrote them
pub mod network; // the layers on a stream

use mel::{Mel, Tract};
use model::Model;
pub use model::ModelError;
use network::Network;

/// What is committed: see MODEL.md beside it.
const MODEL: &[u8] = include_bytes!("model.bin");
/// Milliseconds of sound that a row of log-posteriors stands for.
const STEP_MS: u32 = 40;
/// Sound that is fed after the caller's, so that the last word is told: 600 ms.
const TAIL: usize = 30;

pub struct Digits {
    model: Arc<Model>,
    ways: &'static [(Tract, usize)],
    digits: usize,
    words: usize,
}

impl Digits {
    pub fn new() -> Result<Digits, ModelError> {
        Digits::with(MODEL)
    }

    /// The engine with another model, of another language or another training.
    pub fn with(bytes: &[u8]) -> Result<Digits, ModelError> {
        let model = Model::read(bytes)?;
        let head = |name| model.head(name).ok_or(ModelError::Format);
        let (digits, words) = (head("digits")?, head("words")?);
        if model.bands != mel::BANDS {
            return Err(ModelError::Format);
        }
        Ok(Digits { model: Arc::new(model), ways: &WAYS, digits, words })
    }

    /// The same for an engine that only wants to be led by it.
    pub fn leading(self) -> Digits {
        Digits { ways: &LEADING, ..self }
    }
}

impl Engine for Digits {
    fn name(&self) -> &'static str {
        "digits"
    }

    fn is_quick(&self) -> bool {
        true
    }

    fn recognizer(&self, field: Field, keyed: &Keys) -> Box<dyn Recognizer> {
        let heads = &self.model.heads;
        let tokens = Tokens {
            digits: (self.digits, &heads[self.digits].words),
            words: (self.words, &heads[self.words].words),
            step_ms: STEP_MS,
        };
        let rows = heads.iter().map(|head| vec![0.0; head.words.len()]).collect();
        Box::new(Listening {
            ways: self.ways.iter().map(|(tract, silence)| Way::new(*tract, *silence)).collect(),
            network: Network::new(self.model.clone(), self.ways.len()),
            rows: Zeroizing::new(rows),
            decoder: Decoder::new(field, keyed, &tokens),
            last: [0; SAMPLES],
            lost: 0,
        })
    }
}

/// How well the network tells a word depends on where in the 40 ms of a step the word lies, and on
/// how long the speaker's vocal tract is: everything is heard in some ways, each after so many
/// samples of silence, and what they tell is averaged.
const WAYS: [(Tract, usize); 5] = [
    (Tract::Usual, STAGGER),
    (Tract::Longer, 0),
    (Tract::Shorter, 0),
    (Tract::Longest, STAGGER),
    (Tract::Shortest, STAGGER),
];
/// Fewer, in what another engine was measured beside.
const LEADING: [(Tract, usize); 3] = [(Tract::Usual, STAGGER), (Tract::Long, 0), (Tract::Short, 0)];
/// Half a step.
const STAGGER: usize = SAMPLES;
/// Vectors that the ways after silence are ahead of the others, at most.
const AHEAD: usize = STAGGER / mel::HOP + 1;

/// A front-end, and the vectors of it that the others have no counterpart of yet.
struct Way {
    mel: Mel,
    vectors: Zeroizing<Vec<[f32; mel::BANDS]>>,
}

impl Way {
    fn new(tract: Tract, silence: usize) -> Way {
        let vectors = Zeroizing::new(Vec::with_capacity(AHEAD + SAMPLES / mel::HOP + 1));
        let mut way = Way { mel: Mel::new(tract), vectors };
        way.hear(&[0; STAGGER][..silence]);
        way
    }

    fn hear(&mut self, sound: &[i16]) {
        let Way { mel, vectors } = self;
        mel.push(sound, |features| vectors.push(*features));
    }
}

/// One answer being listened for.
struct Listening {
    ways: Vec<Way>,
    network: Network,
    /// What all tell, by head.
    rows: Zeroizing<Vec<Vec<f32>>>,
    decoder: Decoder,
    /// What came last, to go on with where packets are lost.
    last: [i16; SAMPLES],
    /// Frames lost in a row.
    lost: i32,
}

impl Listening {
    /// At most 20 ms at once.
    fn hear(&mut self, sound: &[i16; SAMPLES]) {
        let Listening { ways, network, rows, decoder, .. } = self;
        ways.iter_mut().for_each(|way| way.hear(sound));
        while ways.iter().all(|way| !way.vectors.is_empty()) {
            let vectors = ways.iter().filter_map(|way| way.vectors.first());
            let told = network.push(vectors.map(|vector| &vector[..]));
            ways.iter_mut().for_each(|way| way.vectors.remove(0).zeroize());
            if !told {
                continue;
            }
            for (head, row) in rows.iter_mut().enumerate() {
                average((0..ways.len()).map(|way| network.row(way, head)), row);
            }
            decoder.step(|head| &rows[head]);
        }
    }
}

impl Recognizer for Listening {
    fn take(&mut self, frame: Frame<'_>) {
        match frame {
            Frame::Sound(sound) => {
                self.last = *sound;
                self.lost = 0;
                self.hear(sound);
            }
            Frame::Lost => {
                // The last frame again, half as loud each time.
                self.lost += 1;
                let fading = self.last.map(|sample| sample >> self.lost.min(15));
                self.hear(&fading);
            }
        }
    }

    fn progress(&self) -> Progress {
        self.decoder.progress()
    }

    fn answers(&mut self) -> Answers {
        // The network tells a word only after it; what comes after it is silence.
        for _ in 0..TAIL {
            self.hear(&[0; SAMPLES]);
        }
        self.decoder.answers()
    }
}

/// The geometric mean of distributions, as logarithms.
fn average<'a>(told: impl ExactSizeIterator<Item = &'a [f32]>, mean: &mut [f32]) {
    let ways = told.len() as f32;
    mean.fill(0.0);
    for row in told {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / ways);
    }
    let whole = mean.iter().map(|value| value.exp()).sum::<f32>().ln();
    mean.iter_mut().for_each(|value| *value -= whole);
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.last.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `training/FEATURES.md` states it: absolute, log-posteriors below -20 left out.
    const TOLERANCE: f32 = 1e-3;
    const WAVE: &[u8] = include_bytes!("../../../tests/vectors/speech/wave.i16");
    const FEATURES: &[u8] = include_bytes!("../../../tests/vectors/speech/features.f32");
    const DIGITS: &[u8] = include_bytes!("../../../tests/vectors/speech/digits.f32");
    const WORDS: &[u8] = include_bytes!("../../../tests/vectors/speech/words.f32");
    const LONG: &[u8] = include_bytes!("../../../tests/vectors/speech/long.f32");
    const SHORT: &[u8] = include_bytes!("../../../tests/vectors/speech/short.f32");

    fn wave() -> Vec<i16> {
        WAVE.as_chunks::<2>().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect()
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn assert_alike(ours: &[f32], theirs: &[f32], what: &str) {
        assert_eq!(ours.len(), theirs.len(), "{what}");
        for (nth, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            let told = *theirs > -20.0;
            assert!(
                !told || (ours - theirs).abs() < TOLERANCE,
                "{what} {nth}: {ours}, not {theirs}"
            );
        }
    }

    #[test]
    fn features_and_posteriors_are_those_of_training() {
        let digits = Digits::new().unwrap();
        // The second of two streams, the first of which hears something else.
        let mut network = Network::new(digits.model.clone(), 2);
        let mut mel = Mel::new(Tract::Usual);
        let (mut features, mut told, mut words) = (vec![], vec![], vec![]);
        // In packets, as they come.
        for sound in wave().chunks(SAMPLES) {
            mel.push(sound, |vector| {
                features.extend_from_slice(vector);
                if network.push([&[1.0; mel::BANDS][..], vector]) {
                    told.extend_from_slice(network.row(1, digits.digits));
                    words.extend_from_slice(network.row(1, digits.words));
                }
            });
        }
        assert_alike(&features, &floats(FEATURES), "feature");
        assert_alike(&told, &floats(DIGITS), "digit");
        assert_alike(&words, &floats(WORDS), "word");
    }

    #[test]
    fn other_tracts_have_the_bands_of_training() {
        for (tract, expected) in [(Tract::Long, LONG), (Tract::Short, SHORT)] {
            let (mut mel, mut features) = (Mel::new(tract), vec![]);
            mel.push(&wave(), |vector| features.extend_from_slice(vector));
            assert_alike(&features, &floats(expected), "feature");
        }
    }

    #[test]
    fn the_mean_of_distributions_is_one() {
        let (a, b) = ([0.8f32.ln(), 0.2f32.ln()], [0.2f32.ln(), 0.8f32.ln()]);
        let mut mean = [0.0; 2];
        average([&a[..], &b].into_iter(), &mut mean);
        assert_alike(&mean, &[0.5f32.ln(); 2], "mean");
        average([&a[..], &a, &a].into_iter(), &mut mean);
        assert_alike(&mean, &a, "mean");
    }

    #[test]
    fn what_is_lost_fades_and_silence_is_no_answer() {
        let digits = Digits::new().unwrap();
        let mut listening = digits.recognizer(Field::Zip, &Keys::new());
        for _ in 0..50 {
            listening.take(Frame::Sound(&[0; SAMPLES]));
            listening.take(Frame::Lost);
        }
        assert_eq!(listening.progress().words, 0);
        assert_eq!(listening.answers().judge().outcome, super::super::Outcome::Again);
    }
}
