//! Whether bytes are a whole ggml model of Whisper, before C++ is let at them: its loader trusts
//! the counts and sizes that it reads. The format is that of whisper.cpp's `convert-pt-to-ggml`.

use std::fmt;

/// What every file begins with, read as a little-endian number.
const MAGIC: u32 = 0x6767_6d6c;
/// Numbers after it: sizes of the vocabulary, of both halves, mel bands, kind of weights.
const PARAMETERS: usize = 11;

/// Why bytes are no model.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// They begin otherwise.
    NotGgml,
    /// They end before this part of the model does.
    CutShort(&'static str),
    /// No Whisper has such a size.
    Size(&'static str, i64),
    /// A file that whisper.cpp is tested with: sizes, and nothing learned.
    NoWeights,
    /// Weights of a kind that is not known.
    Weights(i32),
    /// Convolutions that are not of 16 bits: whisper.cpp ends the process when it hears something.
    Convolutions,
    /// The loader refuses it all the same.
    Loader,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotGgml => f.write_str(
                "is not a ggml model of Whisper; write the path of one, such as ggml-base.bin",
            ),
            Fault::CutShort(part) => {
                write!(f, "ends within its {part}: fetch or copy it again")
            }
            Fault::Size(what, size) => write!(f, "has {size} {what}, which no Whisper has"),
            Fault::NoWeights => {
                f.write_str("has no weights: it is a file for tests, not a model that hears")
            }
            Fault::Weights(kind) => write!(f, "has weights of an unknown kind ({kind})"),
            Fault::Convolutions => {
                f.write_str("has convolutions of 32 bits: convert it anew, with 16 bits")
            }
            Fault::Loader => f.write_str("is refused by whisper.cpp: it is damaged or too new"),
        }
    }
}

/// Walks over the whole file.
pub fn check(bytes: &[u8]) -> Result<(), Fault> {
    let mut file = Reader { rest: bytes };
    if file.number("beginning").map_err(|_| Fault::NotGgml)? as u32 != MAGIC {
        return Err(Fault::NotGgml);
    }
    const NAMES: [(&str, i32, i32); PARAMETERS] = [
        ("tokens", 51_864, 52_000),
        ("places for sound", 1, 1_500),
        ("values a place of sound", 8, 4_096),
        ("heads for sound", 1, 64),
        ("layers for sound", 1, 64),
        ("places for text", 64, 1_024),
        ("values a place of text", 8, 4_096),
        ("heads for text", 1, 64),
        ("layers for text", 1, 64),
        ("mel bands", 80, 128),
        ("kinds of weights", 0, 100_000),
    ];
    for (name, least, most) in NAMES {
        let size = file.number("sizes")?;
        if !(least..=most).contains(&size) {
            return Err(Fault::Size(name, size.into()));
        }
    }
    let (bands, bins) = (file.number("mel bands")?, file.number("mel bands")?);
    file.skip(product(&[bands, bins, 4], "mel bands")?, "mel bands")?;
    for _ in 0..file.count("tokens")? {
        let length = file.count("tokens")?;
        file.skip(length, "tokens")?;
    }
    if file.rest.is_empty() {
        return Err(Fault::NoWeights);
    }
    while !file.rest.is_empty() {
        file.weights()?;
    }
    Ok(())
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn number(&mut self, part: &'static str) -> Result<i32, Fault> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Fault::CutShort(part))?;
        self.rest = rest;
        Ok(i32::from_le_bytes(*bytes))
    }

    fn count(&mut self, part: &'static str) -> Result<usize, Fault> {
        let number = self.number(part)?;
        usize::try_from(number).map_err(|_| Fault::Size(part, number.into()))
    }

    fn skip(&mut self, length: usize, part: &'static str) -> Result<(), Fault> {
        self.rest = self.rest.get(length..).ok_or(Fault::CutShort(part))?;
        Ok(())
    }

    /// One array of weights.
    fn weights(&mut self) -> Result<(), Fault> {
        const PART: &str = "weights";
        let (dimensions, name, kind) = (self.count(PART)?, self.count(PART)?, self.number(PART)?);
        if dimensions > 4 {
            return Err(Fault::Size("dimensions of weights", dimensions as i64));
        }
        let mut sizes = [1; 4];
        for size in &mut sizes[..dimensions] {
            *size = self.number(PART)?;
        }
        let values = product(&sizes, PART)?;
        let named = self.rest.get(..name).ok_or(Fault::CutShort(PART))?;
        self.skip(name, PART)?;
        let convolution = named.starts_with(b"encoder.conv") && named.ends_with(b"weight");
        if convolution && kind != 1 {
            return Err(Fault::Convolutions);
        }
        // Values in a block, and the bytes of one: ggml's kinds.
        let (block, bytes) = match kind {
            0 => (1, 4),
            1 => (1, 2),
            2 => (32, 18),
            3 => (32, 20),
            6 => (32, 22),
            7 => (32, 24),
            8 => (32, 34),
            10 => (256, 84),
            11 => (256, 110),
            12 => (256, 144),
            13 => (256, 176),
            14 => (256, 210),
            other => return Err(Fault::Weights(other)),
        };
        self.skip(values.div_ceil(block) * bytes, PART)
    }
}

fn product(sizes: &[i32], part: &'static str) -> Result<usize, Fault> {
    let sizes = sizes.iter().map(|size| usize::try_from(*size).ok());
    let whole = sizes.reduce(|product, size| product?.checked_mul(size?)).flatten();
    // More than any memory has, and no product of it overflows below.
    whole.filter(|whole| *whole < 1 << 40).ok_or(Fault::Size(part, -1))
}
