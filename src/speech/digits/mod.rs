//! The built-in engine: a small causal network on mel features, all of it on this machine's CPU.
//! A recognizer costs a few thousandths of a core while it listens.

use std::sync::Arc;

use zeroize::Zeroize;

use super::decode::{Decoder, Tokens};
use super::{Answers, Engine, Field, Frame, Progress, Recognizer};
use crate::media::frame::SAMPLES;
use crate::secret::Keys;

pub mod mel; // sound to features
pub mod model; // layers and weights as training wrote them
pub mod network; // the layers on a stream

use mel::Mel;
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
    digits: usize,
    words: usize,
}

impl Digits {
    pub fn new() -> Result<Digits, ModelError> {
        Digits::with(MODEL)
    }

    fn with(bytes: &[u8]) -> Result<Digits, ModelError> {
        let model = Model::read(bytes)?;
        let head = |name| model.head(name).ok_or(ModelError::Format);
        let (digits, words) = (head("digits")?, head("words")?);
        if model.bands != mel::BANDS {
            return Err(ModelError::Format);
        }
        Ok(Digits { model: Arc::new(model), digits, words })
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
        Box::new(Listening {
            mel: Mel::new(),
            network: Network::new(self.model.clone()),
            decoder: Decoder::new(field, keyed, &tokens),
            last: [0; SAMPLES],
            lost: 0,
        })
    }
}

/// One answer being listened for.
struct Listening {
    mel: Mel,
    network: Network,
    decoder: Decoder,
    /// What came last, to go on with where packets are lost.
    last: [i16; SAMPLES],
    /// Frames lost in a row.
    lost: i32,
}

impl Listening {
    fn hear(&mut self, sound: &[i16]) {
        let Listening { mel, network, decoder, .. } = self;
        mel.push(sound, |features| {
            if network.push(features) {
                decoder.step(|head| network.row(head));
            }
        });
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

impl Drop for Listening {
    fn drop(&mut self) {
        self.last.zeroize();
    }
}
