//! Recordings as the wire wants them: WAV or FLAC -> mono -> 8 kHz -> both laws, once at start.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io::Cursor;

use rubato::audioadapter_buffers::owned::InterleavedOwned;
use rubato::{Fft, FixedSync, Resampler};
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use crate::media::{Clip, codec};
use crate::sip::offer::Law;

/// Samples per second on the wire.
const RATE: u32 = 8_000;
const RATES: std::ops::RangeInclusive<u32> = RATE..=48_000;
/// Longer than any prompt a caller would listen to.
const SECONDS_MAX: usize = 60;
const CHANNELS_MAX: usize = 2;
/// Frames that a resampler takes at a time.
const CHUNK: usize = 1024;
/// Level is measured over windows of this length; those below the next are taken for silence.
const WINDOW_MS: usize = 20;
const SILENCE_DBM0: f32 = -45.0;
/// A sine that fills the range has this level (ITU-T G.711: +3.14 for A-law, +3.17 for mu-law).
const FULL_SCALE_DBM0: f32 = 3.17;
/// Where speech is brought to.
const SPEECH_DBM0: f32 = -16.0;
const PEAK_MAX: f32 = 29_000.0;
/// Silence left around speech that we cut ourselves.
const KEPT_BEFORE_MS: usize = 20;
const KEPT_AFTER_MS: usize = 60;

/// Why bytes are no usable recording.
#[derive(Debug, PartialEq, Eq)]
pub enum ClipError {
    /// Neither WAV nor FLAC, or damaged.
    Unreadable(String),
    Rate(u32),
    Channels(usize),
    /// Longer than so many seconds.
    TooLong(usize),
    Empty,
}

impl fmt::Display for ClipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClipError::Unreadable(why) => {
                write!(f, "not readable as WAV (PCM) or FLAC ({why}): export it again")
            }
            ClipError::Rate(rate) => write!(
                f,
                "has {rate} samples a second: export it with 16000 ({} to {} are taken)",
                RATES.start(),
                RATES.end()
            ),
            ClipError::Channels(n) => write!(f, "has {n} channels: export it in mono"),
            ClipError::TooLong(most) => write!(f, "is longer than {most} seconds: shorten it"),
            ClipError::Empty => write!(f, "holds no sound: record it again"),
        }
    }
}

impl std::error::Error for ClipError {}

/// How a recording measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Of the parts that are not silent; a full sine is +3.17.
    pub speech_dbm0: f32,
    /// Samples at the very limit, in runs of three or more: audible distortion.
    pub clipped: usize,
    pub leading_ms: usize,
    pub trailing_ms: usize,
}

/// Turns recordings into clips. Keeps one resampler per input rate: they are expensive to make.
#[derive(Default)]
pub struct Converter {
    /// By input and output rate.
    resamplers: HashMap<(u32, u32), Fft<f32>>,
}

impl Converter {
    /// Decodes a WAV or FLAC file held in memory.
    pub fn convert(&mut self, bytes: Cow<'static, [u8]>) -> Result<(Clip, Level), ClipError> {
        let recording = decode(bytes, SECONDS_MAX)?;
        let clipped = clipped(&recording.samples);
        let samples = self.resample(recording, RATE)?;
        let level = Level { clipped, ..measure(&samples, RATE).ok_or(ClipError::Empty)? };
        Ok((encode(&samples), level))
    }

    /// Decodes speech that no engineer has been over: brings it to the usual level and cuts the
    /// silence around it. Returns mono samples at `rate`.
    pub fn convert_raw(
        &mut self,
        bytes: Cow<'static, [u8]>,
        rate: u32,
    ) -> Result<Vec<i16>, ClipError> {
        let recording = decode(bytes, SECONDS_MAX)?;
        let samples = self.resample(recording, rate)?;
        let level = measure(&samples, rate).ok_or(ClipError::Empty)?;
        let per_ms = rate as usize / 1000;
        let start = level.leading_ms.saturating_sub(KEPT_BEFORE_MS) * per_ms;
        let end = samples.len() - level.trailing_ms.saturating_sub(KEPT_AFTER_MS) * per_ms;
        let peak = samples.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(1).max(1);
        let wanted = 10f32.powf((SPEECH_DBM0 - level.speech_dbm0) / 20.0);
        let gain = wanted.min(PEAK_MAX / f32::from(peak));
        Ok(samples[start..end].iter().map(|&s| (f32::from(s) * gain).round() as i16).collect())
    }

    /// Decodes sound of at most so many seconds as it is, silent or not; 8 kHz.
    pub fn sound(
        &mut self,
        bytes: Cow<'static, [u8]>,
        seconds_max: usize,
    ) -> Result<Vec<i16>, ClipError> {
        let recording = decode(bytes, seconds_max)?;
        self.resample(recording, RATE)
    }

    fn resample(&mut self, recording: Recording, to: u32) -> Result<Vec<i16>, ClipError> {
        let Recording { rate, samples } = recording;
        if rate == to {
            return Ok(quantised(&samples));
        }
        let failed = |why: String| ClipError::Unreadable(why);
        let resampler = match self.resamplers.entry((rate, to)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let made = Fft::new(rate as usize, to as usize, CHUNK, 1, FixedSync::Both);
                place.insert(made.map_err(|e| failed(e.to_string()))?)
            }
        };
        let frames = samples.len();
        let input = InterleavedOwned::new_from(samples, 1, frames);
        let input = input.map_err(|e| failed(e.to_string()))?;
        let output = resampler.process_all(&input, frames, None);
        Ok(quantised(&output.map_err(|e| failed(e.to_string()))?.take_data()))
    }
}

fn quantised(samples: &[f32]) -> Vec<i16> {
    samples.iter().map(|sample| (sample * 32_768.0).round() as i16).collect()
}

/// 8 kHz samples in both laws.
pub fn encode(samples: &[i16]) -> Clip {
    let law = |law| samples.iter().map(|&sample| codec::encode(law, sample)).collect();
    Clip::new(law(Law::Mu), law(Law::A))
}

/// Digital silence.
pub fn silence(ms: u16) -> Clip {
    encode(&vec![0; usize::from(ms) * RATE as usize / 1000])
}

struct Recording {
    rate: u32,
    /// Mono, -1 to 1.
    samples: Vec<f32>,
}

fn decode(bytes: Cow<'static, [u8]>, seconds_max: usize) -> Result<Recording, ClipError> {
    let unreadable = |error: SymphoniaError| ClipError::Unreadable(error.to_string());
    let none = |what: &str| ClipError::Unreadable(what.to_string());
    let stream = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
    let probe = symphonia::default::get_probe();
    let mut reader = probe.probe(&Hint::new(), stream, format, metadata).map_err(unreadable)?;
    let track = reader.default_track(TrackType::Audio).ok_or_else(|| none("no audio track"))?;
    let track_id = track.id;
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let parameters = parameters.ok_or_else(|| none("no codec"))?;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(unreadable)?;
    let mut recording = Recording { rate: parameters.sample_rate.unwrap_or(0), samples: vec![] };
    if !RATES.contains(&recording.rate) {
        return Err(ClipError::Rate(recording.rate));
    }
    let mut interleaved: Vec<f32> = Vec::new();
    while let Some(packet) = reader.next_packet().map_err(unreadable)? {
        if packet.track_id != track_id {
            continue;
        }
        let decoded = decoder.decode(&packet).map_err(unreadable)?;
        let channels = decoded.spec().channels().count();
        if !(1..=CHANNELS_MAX).contains(&channels) {
            return Err(ClipError::Channels(channels));
        }
        decoded.copy_to_vec_interleaved(&mut interleaved);
        let mono = interleaved.chunks_exact(channels);
        recording.samples.extend(mono.map(|frame| frame.iter().sum::<f32>() / channels as f32));
        if recording.samples.len() > seconds_max * recording.rate as usize {
            return Err(ClipError::TooLong(seconds_max));
        }
    }
    if recording.samples.is_empty() { Err(ClipError::Empty) } else { Ok(recording) }
}

fn clipped(samples: &[f32]) -> usize {
    let at_limit = |sample: &f32| sample.abs() >= 0.9999;
    let runs = samples.chunk_by(|a, b| at_limit(a) && at_limit(b) && a.signum() == b.signum());
    runs.filter(|run| run.len() >= 3).map(<[f32]>::len).sum()
}

/// `None` when all is silent.
fn measure(samples: &[i16], rate: u32) -> Option<Level> {
    let power = |window: &[i16]| {
        let sum: f32 = window.iter().map(|&sample| f32::from(sample).powi(2)).sum();
        sum / window.len() as f32
    };
    let dbm0 = |power: f32| 10.0 * (2.0 * power / 32_768f32.powi(2)).log10() + FULL_SCALE_DBM0;
    let powers: Vec<f32> = samples.chunks(WINDOW_MS * rate as usize / 1000).map(power).collect();
    let loud = |power: &f32| dbm0(*power) > SILENCE_DBM0;
    let first = powers.iter().position(loud)?;
    let last = powers.iter().rposition(loud)?;
    let speech: Vec<f32> = powers.iter().copied().filter(loud).collect();
    Some(Level {
        speech_dbm0: dbm0(speech.iter().sum::<f32>() / speech.len() as f32),
        clipped: 0,
        leading_ms: first * WINDOW_MS,
        trailing_ms: (powers.len() - 1 - last) * WINDOW_MS,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A WAV file of 16-bit PCM.
    pub(crate) fn wav(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
        let data: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        let mut file = Vec::new();
        file.extend(b"RIFF");
        file.extend((36 + data.len() as u32).to_le_bytes());
        file.extend(b"WAVEfmt ");
        file.extend(16u32.to_le_bytes());
        file.extend(1u16.to_le_bytes());
        file.extend(channels.to_le_bytes());
        file.extend(rate.to_le_bytes());
        file.extend((rate * u32::from(channels) * 2).to_le_bytes());
        file.extend((channels * 2).to_le_bytes());
        file.extend(16u16.to_le_bytes());
        file.extend(b"data");
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(data);
        file
    }

    /// `amplitude` of full scale, after `lead_ms` of silence.
    pub(crate) fn sine(rate: u32, hz: f32, amplitude: f32, lead_ms: u32, ms: u32) -> Vec<i16> {
        let lead = vec![0; (rate * lead_ms / 1000) as usize];
        let step = 2.0 * std::f32::consts::PI * hz / rate as f32;
        let tone = (0..rate * ms / 1000).map(|n| (n as f32 * step).sin() * amplitude * 32_767.0);
        lead.into_iter().chain(tone.map(|s| s as i16)).collect()
    }

    fn converted(rate: u32, samples: &[i16]) -> Result<(Clip, Level), ClipError> {
        Converter::default().convert(wav(rate, 1, samples).into())
    }

    #[test]
    fn every_rate_keeps_length_level_and_pitch() {
        for rate in [8_000, 16_000, 22_050, 44_100, 48_000] {
            let (clip, level) = converted(rate, &sine(rate, 1000.0, 0.25, 100, 500)).unwrap();
            assert!(clip.mu.len().abs_diff(4800) <= 1, "{rate}: {}", clip.mu.len());
            assert_eq!(clip.mu.len(), clip.a.len());
            assert!((level.speech_dbm0 - (3.17 - 12.04)).abs() < 0.3, "{rate}: {level:?}");
            assert_eq!((level.leading_ms, level.clipped), (100, 0), "{rate}");
            let decoded: Vec<i16> =
                clip.mu[1600..4000].iter().map(|&b| codec::decode(Law::Mu, b)).collect();
            let crossings = decoded.windows(2).filter(|w| (w[0] < 0) != (w[1] < 0)).count();
            assert!(crossings.abs_diff(600) <= 2, "{rate}: {crossings} crossings in 300 ms");
        }
    }

    #[test]
    fn what_the_telephone_cannot_carry_is_filtered_out() {
        let high = converted(16_000, &sine(16_000, 5_500.0, 0.5, 0, 500));
        match high {
            Err(ClipError::Empty) => {}
            Err(error) => panic!("{error}"),
            Ok((_, level)) => assert!(level.speech_dbm0 < -35.0, "{level:?}"),
        }
    }

    #[test]
    fn stereo_is_mixed_down() {
        let left = sine(8_000, 440.0, 0.5, 0, 200);
        let both: Vec<i16> = left.iter().flat_map(|&s| [s, 0]).collect();
        let (clip, level) = Converter::default().convert(wav(8_000, 2, &both).into()).unwrap();
        assert_eq!(clip.mu.len(), 1600);
        assert!((level.speech_dbm0 - (3.17 - 12.04)).abs() < 0.3, "{level:?}");
    }

    #[test]
    fn raw_speech_is_cut_and_brought_to_level() {
        let mut quiet = sine(22_050, 440.0, 0.03, 500, 300);
        quiet.extend(vec![0; 22_050]);
        let bytes = wav(22_050, 1, &quiet);
        let samples = Converter::default().convert_raw(bytes.into(), 16_000).unwrap();
        assert!(samples.len().abs_diff(16 * (20 + 300 + 60)) <= 2 * 16 * 20, "{}", samples.len());
        let level = measure(&samples, 16_000).unwrap();
        assert!((level.speech_dbm0 + 16.0).abs() < 1.0, "{level:?}");
    }

    #[test]
    fn clipping_is_counted() {
        let square: Vec<i16> =
            (0..800).map(|n| if n / 20 % 2 == 0 { 32_767 } else { -32_768 }).collect();
        assert_eq!(converted(8_000, &square).map(|(_, level)| level.clipped), Ok(800));
    }

    #[test]
    fn refuses_what_is_no_recording() {
        let error =
            |bytes: Vec<u8>| Converter::default().convert(bytes.into()).map(|_| ()).unwrap_err();
        assert!(matches!(error(b"<html>not found</html>".to_vec()), ClipError::Unreadable(_)));
        assert!(matches!(error(Vec::new()), ClipError::Unreadable(_)));
        assert_eq!(error(wav(4_000, 1, &[1; 400])), ClipError::Rate(4_000));
        assert_eq!(error(wav(96_000, 1, &[1; 400])), ClipError::Rate(96_000));
        assert_eq!(error(wav(8_000, 1, &[0; 400])), ClipError::Empty);
        assert_eq!(error(wav(8_000, 1, &vec![100; 8_000 * 61])), ClipError::TooLong(60));
        assert_eq!(error(wav(8_000, 4, &[100; 400])), ClipError::Channels(4));
        let cut = wav(16_000, 1, &sine(16_000, 440.0, 0.5, 0, 200));
        for len in 0..44 {
            error(cut[..len].to_vec());
        }
    }
}
