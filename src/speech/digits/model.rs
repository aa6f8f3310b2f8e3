//! The model as `training/` writes it: a list of layers with their weights, and what the tokens of
//! its heads are called. The format is described in `training/FEATURES.md`.

use std::fmt;

use aws_lc_rs::digest;

use super::super::word::{Word, english};

/// A model, read and checked.
pub struct Model {
    pub bands: usize,
    pub layers: Vec<Layer>,
    pub heads: Vec<Head>,
    /// The most values between two layers.
    pub widest: usize,
}

pub enum Layer {
    Conv(Conv),
    Depthwise(Depthwise),
    /// Saves the current values.
    Push,
    /// Adds what was saved.
    Add,
    /// Each value becomes its mean over time; the newest weighs this much.
    Ema {
        channels: usize,
        rate: f32,
    },
    /// Leaves the values as they are: the head of this number reads them.
    Head {
        head: usize,
        matrix: Matrix,
    },
}

/// Looks at `kernel` inputs that are `dilation` apart, the newest last.
pub struct Conv {
    /// Inputs in order of time, their channels side by side.
    pub matrix: Matrix,
    pub channels: usize,
    pub kernel: usize,
    pub dilation: usize,
    /// Gives an output after so many inputs.
    pub stride: usize,
    pub relu: bool,
}

/// The same for each channel by itself.
pub struct Depthwise {
    pub channels: usize,
    pub kernel: usize,
    pub dilation: usize,
    /// By time, then by channel.
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
    pub relu: bool,
}

pub struct Matrix {
    /// Row by row, one row an output.
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
}

/// What one part of the network can tell. Token 0 is the blank.
pub struct Head {
    pub name: String,
    /// What each token means; `None`: the blank.
    pub words: Vec<Option<Word>>,
}

/// Why bytes are no model. Ours is committed: it is us who are at fault.
#[derive(Debug, PartialEq, Eq)]
pub enum ModelError {
    /// Not a model, or of another version.
    Format,
    /// Ends too early, or too late.
    Length,
    /// Its bytes have changed since it was written.
    Checksum,
    /// A layer that does not fit the one before, or is beyond the limits.
    Layer(usize),
}

const MAGIC: &[u8; 8] = b"RTDIGIT1";
const VERSION: u32 = 1;
const SUM: usize = 32;
const LAYERS_MAX: usize = 64;
const CHANNELS_MAX: usize = 1024;
const KERNEL_MAX: usize = 16;
const DILATION_MAX: usize = 64;
const STRIDE_MAX: usize = 4;
const HEADS_MAX: usize = 4;
const TOKENS_MAX: usize = 128;
const WEIGHTS_MAX: usize = 1 << 20;

impl Model {
    pub fn read(bytes: &[u8]) -> Result<Model, ModelError> {
        let (body, sum) = bytes
            .len()
            .checked_sub(SUM)
            .map(|len| bytes.split_at(len))
            .ok_or(ModelError::Length)?;
        if body.get(..MAGIC.len()) != Some(MAGIC) {
            return Err(ModelError::Format);
        }
        if digest::digest(&digest::SHA256, body).as_ref() != sum {
            return Err(ModelError::Checksum);
        }
        let mut reader = Reader { rest: &body[MAGIC.len()..], weights: 0 };
        if u32::from_le_bytes(reader.array()?) != VERSION {
            return Err(ModelError::Format);
        }
        reader.take(SUM)?;
        let bands = reader.word()?;
        let count = reader.word()?;
        if count > LAYERS_MAX || !(1..=CHANNELS_MAX).contains(&bands) {
            return Err(ModelError::Format);
        }
        let mut model = Model { bands, layers: Vec::new(), heads: Vec::new(), widest: bands };
        let mut shape = Shape { channels: bands, saved: None };
        for nth in 0..count {
            let layer = reader.layer(&mut shape, &mut model.heads);
            model.layers.push(layer.map_err(|error| error.at(nth))?);
            model.widest = model.widest.max(shape.channels);
        }
        if !reader.rest.is_empty() || model.heads.is_empty() {
            return Err(ModelError::Length);
        }
        Ok(model)
    }

    /// The number of the head of this name.
    pub fn head(&self, name: &str) -> Option<usize> {
        self.heads.iter().position(|head| head.name == name)
    }
}

/// What the values between two layers look like.
struct Shape {
    channels: usize,
    saved: Option<usize>,
}

/// Why a layer cannot be read.
enum Wrong {
    Ends,
    Unfit,
}

impl Wrong {
    fn at(self, nth: usize) -> ModelError {
        match self {
            Wrong::Ends => ModelError::Length,
            Wrong::Unfit => ModelError::Layer(nth),
        }
    }
}

impl From<ModelError> for Wrong {
    fn from(_: ModelError) -> Wrong {
        Wrong::Ends
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Weights read so far.
    weights: usize,
}

impl Reader<'_> {
    fn layer(&mut self, shape: &mut Shape, heads: &mut Vec<Head>) -> Result<Layer, Wrong> {
        let [op, activation] = self.array()?;
        let relu = match activation {
            0 => false,
            1 => true,
            _ => return Err(Wrong::Unfit),
        };
        Ok(match op {
            1 => Layer::Conv(self.conv(shape, relu)?),
            2 => Layer::Depthwise(self.depthwise(shape, relu)?),
            3 if shape.saved.is_none() => {
                shape.saved = Some(shape.channels);
                Layer::Push
            }
            4 if shape.saved.take() == Some(shape.channels) => Layer::Add,
            5 => {
                let channels = self.word()?;
                let rate = f32::from_le_bytes(self.array()?);
                let fits = channels == shape.channels && (0.0..=1.0).contains(&rate);
                fits.then_some(Layer::Ema { channels, rate }).ok_or(Wrong::Unfit)?
            }
            6 => self.head(shape, heads)?,
            _ => return Err(Wrong::Unfit),
        })
    }

    fn conv(&mut self, shape: &mut Shape, relu: bool) -> Result<Conv, Wrong> {
        let (channels, out) = (self.word()?, self.word()?);
        let (kernel, dilation, stride) = (self.word()?, self.word()?, self.word()?);
        let fits = channels == shape.channels
            && (1..=CHANNELS_MAX).contains(&out)
            && (1..=KERNEL_MAX).contains(&kernel)
            && (1..=DILATION_MAX).contains(&dilation)
            && (1..=STRIDE_MAX).contains(&stride);
        // What is saved has another rhythm after a stride.
        if !fits || stride > 1 && shape.saved.is_some() {
            return Err(Wrong::Unfit);
        }
        let mut matrix = self.matrix(out, channels * kernel)?;
        for row in matrix.weights.chunks_mut(channels * kernel) {
            by_time(row, channels, kernel);
        }
        shape.channels = out;
        Ok(Conv { matrix, channels, kernel, dilation, stride, relu })
    }

    fn depthwise(&mut self, shape: &Shape, relu: bool) -> Result<Depthwise, Wrong> {
        let (channels, kernel, dilation) = (self.word()?, self.word()?, self.word()?);
        let fits = channels == shape.channels
            && (1..=KERNEL_MAX).contains(&kernel)
            && (1..=DILATION_MAX).contains(&dilation);
        if !fits {
            return Err(Wrong::Unfit);
        }
        let Matrix { mut weights, bias } = self.matrix(channels, kernel)?;
        by_time(&mut weights, channels, kernel);
        Ok(Depthwise { channels, kernel, dilation, weights, bias, relu })
    }

    fn head(&mut self, shape: &Shape, heads: &mut Vec<Head>) -> Result<Layer, Wrong> {
        let (channels, tokens) = (self.word()?, self.word()?);
        let fits = channels == shape.channels && (2..=TOKENS_MAX).contains(&tokens);
        if !fits || heads.len() == HEADS_MAX {
            return Err(Wrong::Unfit);
        }
        let name = self.text()?;
        let names: Vec<String> = (0..tokens).map(|_| self.text()).collect::<Result<_, _>>()?;
        let word =
            |(nth, name): (usize, &String)| if nth == 0 { None } else { english::word(name) };
        let words = names.iter().enumerate().map(word).collect();
        heads.push(Head { name, words });
        let matrix = self.matrix(tokens, channels)?;
        Ok(Layer::Head { head: heads.len() - 1, matrix })
    }

    /// Scales, weights of a byte each, biases.
    fn matrix(&mut self, rows: usize, columns: usize) -> Result<Matrix, Wrong> {
        self.weights += rows * columns;
        if self.weights > WEIGHTS_MAX {
            return Err(Wrong::Unfit);
        }
        let scales = self.floats(rows)?;
        let bytes = self.take(rows * columns)?;
        let rows_of = bytes.chunks(columns).zip(&scales);
        let weights = rows_of
            .flat_map(|(row, scale)| row.iter().map(move |&byte| f32::from(byte as i8) * scale))
            .collect();
        let bias = self.floats(rows)?;
        Ok(Matrix { weights, bias })
    }

    fn floats(&mut self, count: usize) -> Result<Vec<f32>, ModelError> {
        let (floats, _) = self.take(count * 4)?.as_chunks::<4>();
        let floats: Vec<f32> = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        floats.iter().all(|float| float.is_finite()).then_some(floats).ok_or(ModelError::Format)
    }

    fn text(&mut self) -> Result<String, ModelError> {
        let [len] = self.array()?;
        let text = self.take(usize::from(len))?;
        String::from_utf8(text.to_vec()).map_err(|_| ModelError::Format)
    }

    fn word(&mut self) -> Result<usize, ModelError> {
        Ok(usize::from(u16::from_le_bytes(self.array()?)))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        self.take(N)?.try_into().map_err(|_| ModelError::Length)
    }
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ModelError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ModelError::Length)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Turns what is ordered by channel, then time, into the order in which inputs are kept.
fn by_time(values: &mut [f32], channels: usize, kernel: usize) {
    let before = values.to_vec();
    for channel in 0..channels {
        for time in 0..kernel {
            values[time * channels + channel] = before[channel * kernel + time];
        }
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelError::Format => f.write_str("is no model of this version"),
            ModelError::Length => f.write_str("is not as long as it says"),
            ModelError::Checksum => f.write_str("has changed since it was written"),
            ModelError::Layer(nth) => write!(f, "has a layer that does not fit: number {nth}"),
        }
    }
}

impl std::error::Error for ModelError {}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes a model as `training/` does.
    pub struct Writer(pub Vec<u8>);

    impl Writer {
        pub fn new(bands: u16, layers: u16) -> Writer {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(VERSION.to_le_bytes());
            bytes.extend([7; SUM]);
            bytes.extend(bands.to_le_bytes());
            bytes.extend(layers.to_le_bytes());
            Writer(bytes)
        }

        pub fn layer(mut self, op: u8, relu: bool, shape: &[u16]) -> Writer {
            self.0.extend([op, u8::from(relu)]);
            shape.iter().for_each(|number| self.0.extend(number.to_le_bytes()));
            self
        }

        pub fn rate(mut self, rate: f32) -> Writer {
            self.0.extend(rate.to_le_bytes());
            self
        }

        pub fn text(mut self, text: &str) -> Writer {
            self.0.push(text.len() as u8);
            self.0.extend(text.bytes());
            self
        }

        /// Rows of weights, each scaled by a half, and their biases.
        pub fn matrix(mut self, rows: &[&[i8]], bias: &[f32]) -> Writer {
            rows.iter().for_each(|_| self.0.extend(0.5f32.to_le_bytes()));
            rows.iter().for_each(|row| self.0.extend(row.iter().map(|weight| *weight as u8)));
            bias.iter().for_each(|bias| self.0.extend(bias.to_le_bytes()));
            self
        }

        pub fn done(mut self) -> Vec<u8> {
            let sum = digest::digest(&digest::SHA256, &self.0);
            self.0.extend(sum.as_ref());
            self.0
        }
    }

    fn small() -> Vec<u8> {
        Writer::new(2, 1)
            .layer(6, false, &[2, 2])
            .text("digits")
            .text("-")
            .text("five")
            .matrix(&[&[1, 2], &[3, 4]], &[0.0, 1.0])
            .done()
    }

    #[test]
    fn reads_what_was_written() {
        let model = Model::read(&small()).ok().unwrap();
        assert_eq!((model.bands, model.layers.len()), (2, 1));
        assert_eq!(model.heads[0].words, [None, Some(Word::Digit(5))]);
        let Layer::Head { matrix, .. } = &model.layers[0] else { panic!("no head") };
        assert_eq!(
            (&matrix.weights[..], &matrix.bias[..]),
            (&[0.5, 1.0, 1.5, 2.0][..], &[0.0, 1.0][..])
        );
    }

    #[test]
    fn damaged_models_are_refused() {
        let whole = small();
        for len in 0..whole.len() {
            assert!(Model::read(&whole[..len]).is_err(), "{len} bytes");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(Model::read(&changed).is_err(), "byte {at}");
        }
        let unfit =
            Writer::new(3, 1).layer(6, false, &[2, 2]).text("digits").text("-").text("five");
        let unfit = unfit.matrix(&[&[1, 2], &[3, 4]], &[0.0, 1.0]).done();
        assert_eq!(Model::read(&unfit).err(), Some(ModelError::Layer(0)));
        let unpaired = Writer::new(3, 1).layer(4, false, &[]).done();
        assert_eq!(Model::read(&unpaired).err(), Some(ModelError::Layer(0)));
    }
}
