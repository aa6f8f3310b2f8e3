//! This machine's microphone and loudspeaker, as 8 kHz sound in frames of 20 ms.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{Data, SampleFormat, Stream, StreamConfig};
use rubato::audioadapter_buffers::owned::InterleavedOwned;
use rubato::{Fft, FixedSync, Resampler};

use crate::media::frame::{RATE, SAMPLES};

/// Sound of one frame.
pub type Sound = [i16; SAMPLES];

/// Frames from the microphone that wait for us, and from us that wait for the loudspeaker: what
/// comes beyond is lost, for it would only be late.
const WAITING_MAX: usize = 10;

/// Both devices, open until dropped.
pub struct Headset {
    heard: Receiver<Box<Sound>>,
    loudspeaker: Loudspeaker,
    faults: Receiver<String>,
    _streams: [Stream; 2],
}

/// Why there is no sound; the machine's set-up is at fault.
#[derive(Debug)]
pub struct HeadsetError(String);

impl fmt::Display for HeadsetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HeadsetError {}

impl Headset {
    /// Opens the devices that the system has as its default, and begins.
    pub fn open() -> Result<Headset, HeadsetError> {
        let host = cpal::default_host();
        let none = |what: &str| {
            HeadsetError(format!("this machine has no {what}; choose one in its sound settings"))
        };
        let input = host.default_input_device().ok_or_else(|| none("microphone"))?;
        let output = host.default_output_device().ok_or_else(|| none("loudspeaker"))?;
        let of = |what: &'static str| {
            move |error: cpal::Error| HeadsetError(format!("the {what} cannot be used: {error}"))
        };
        let (in_config, out_config) = (
            input.default_input_config().map_err(of("microphone"))?,
            output.default_output_config().map_err(of("loudspeaker"))?,
        );
        let (in_format, out_format) = (in_config.sample_format(), out_config.sample_format());
        for format in [in_format, out_format] {
            if !FORMATS.contains(&format) {
                return Err(HeadsetError(format!(
                    "sound comes as {format}, which is not known here; choose 16 or 32 bits"
                )));
            }
        }
        let (in_config, out_config): (StreamConfig, StreamConfig) =
            (in_config.into(), out_config.into());
        let (told, faults) = sync_channel(4);
        let fault = |what: &'static str| {
            let told = told.clone();
            move |error: cpal::Error| drop(told.try_send(format!("the {what}: {error}")))
        };
        let (tell, heard) = sync_channel(WAITING_MAX);
        let mut microphone = Microphone::new(in_config.sample_rate, in_config.channels, tell)?;
        let hear = move |data: &Data, _: &_| microphone.hear(&samples(data));
        let input = input
            .build_input_stream_raw(in_config, in_format, hear, fault("microphone"), None)
            .map_err(of("microphone"))?;
        let loudspeaker = Loudspeaker::new(out_config.sample_rate, out_config.channels)?;
        let playing = loudspeaker.playing.clone();
        let play = move |data: &mut Data, _: &_| playing.fill(data);
        let output = output
            .build_output_stream_raw(out_config, out_format, play, fault("loudspeaker"), None)
            .map_err(of("loudspeaker"))?;
        input.play().map_err(of("microphone"))?;
        output.play().map_err(of("loudspeaker"))?;
        Ok(Headset { heard, loudspeaker, faults, _streams: [input, output] })
    }

    /// The next frame from the microphone, if it is there.
    pub fn hear(&mut self) -> Option<Box<Sound>> {
        self.heard.try_recv().ok()
    }

    /// The next frame for the loudspeaker.
    pub fn play(&mut self, sound: &Sound) {
        self.loudspeaker.say(sound);
    }

    /// What has gone wrong with a device since.
    pub fn fault(&mut self) -> Option<String> {
        self.faults.try_recv().ok()
    }
}

const FORMATS: [SampleFormat; 4] =
    [SampleFormat::F32, SampleFormat::I16, SampleFormat::I32, SampleFormat::U8];

/// -1 to 1; nothing of a format that is not in [`FORMATS`].
fn samples(data: &Data) -> Vec<f32> {
    match data.sample_format() {
        SampleFormat::F32 => data.as_slice::<f32>().unwrap_or_default().to_vec(),
        SampleFormat::I16 => {
            let samples = data.as_slice::<i16>().unwrap_or_default();
            samples.iter().map(|&sample| f32::from(sample) / 32_768.0).collect()
        }
        SampleFormat::I32 => {
            let samples = data.as_slice::<i32>().unwrap_or_default();
            samples.iter().map(|&sample| sample as f32 / 2_147_483_648.0).collect()
        }
        SampleFormat::U8 => {
            let samples = data.as_slice::<u8>().unwrap_or_default();
            samples.iter().map(|&sample| f32::from(sample) / 128.0 - 1.0).collect()
        }
        _ => Vec::new(),
    }
}

fn resampler(from: u32, to: u32, fixed: FixedSync) -> Result<Fft<f32>, HeadsetError> {
    Fft::new(from as usize, to as usize, SAMPLES, 1, fixed)
        .map_err(|error| HeadsetError(format!("sound of {from} Hz cannot become {to} Hz: {error}")))
}

/// What a resampler makes of as many samples as it wants.
fn resampled(resampler: &mut Fft<f32>, samples: Vec<f32>) -> Vec<f32> {
    let frames = samples.len();
    let Ok(input) = InterleavedOwned::new_from(samples, 1, frames) else { return Vec::new() };
    resampler.process(&input, None).map_or_else(|_| Vec::new(), InterleavedOwned::take_data)
}

/// From the device's rate and channels to frames.
struct Microphone {
    resampler: Fft<f32>,
    channels: usize,
    waiting: Vec<f32>,
    tell: SyncSender<Box<Sound>>,
}

impl Microphone {
    fn new(
        rate: u32,
        channels: u16,
        tell: SyncSender<Box<Sound>>,
    ) -> Result<Microphone, HeadsetError> {
        let resampler = resampler(rate, RATE, FixedSync::Output)?;
        let channels = usize::from(channels).max(1);
        Ok(Microphone { resampler, channels, waiting: Vec::new(), tell })
    }

    fn hear(&mut self, samples: &[f32]) {
        let mono = |all: &[f32]| all.iter().sum::<f32>() / self.channels as f32;
        self.waiting.extend(samples.chunks_exact(self.channels).map(mono));
        loop {
            let wanted = self.resampler.input_frames_next();
            if self.waiting.len() < wanted {
                return;
            }
            let input = self.waiting.drain(..wanted).collect();
            let mut frame = Box::new([0; SAMPLES]);
            for (out, sample) in frame.iter_mut().zip(resampled(&mut self.resampler, input)) {
                *out = (sample * 32_768.0).round() as i16;
            }
            // Nobody listens so late any more.
            if let Err(TrySendError::Disconnected(_)) = self.tell.try_send(frame) {
                return;
            }
        }
    }
}

/// From frames to the device's rate and channels.
struct Loudspeaker {
    resampler: Fft<f32>,
    playing: Playing,
}

/// What waits to be played: mono, at the device's rate.
#[derive(Clone)]
struct Playing {
    waiting: Arc<Mutex<VecDeque<f32>>>,
    channels: usize,
    most: usize,
}

impl Loudspeaker {
    fn new(rate: u32, channels: u16) -> Result<Loudspeaker, HeadsetError> {
        let resampler = resampler(RATE, rate, FixedSync::Input)?;
        let most = WAITING_MAX * SAMPLES * rate.div_ceil(RATE) as usize;
        let channels = usize::from(channels).max(1);
        Ok(Loudspeaker { resampler, playing: Playing { waiting: Arc::default(), channels, most } })
    }

    fn say(&mut self, sound: &Sound) {
        let input = sound.iter().map(|&sample| f32::from(sample) / 32_768.0).collect();
        let output = resampled(&mut self.resampler, input);
        let mut waiting = self.playing.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(output);
        let late = waiting.len().saturating_sub(self.playing.most);
        waiting.drain(..late);
    }
}

impl Playing {
    /// Silence where nothing waits.
    fn fill(&self, data: &mut Data) {
        let frames = data.len() / self.channels;
        let mut next = self.next(frames);
        match data.sample_format() {
            SampleFormat::F32 => self.spread(data.as_slice_mut::<f32>(), &mut next, |s| s),
            SampleFormat::I16 => self
                .spread(data.as_slice_mut::<i16>(), &mut next, |s| (s * 32_767.0).round() as i16),
            SampleFormat::I32 => self.spread(data.as_slice_mut::<i32>(), &mut next, |s| {
                (f64::from(s) * 2_147_483_647.0).round() as i32
            }),
            SampleFormat::U8 => self.spread(data.as_slice_mut::<u8>(), &mut next, |s| {
                (s * 127.0 + 128.0).round() as u8
            }),
            _ => {}
        }
    }

    fn next(&self, frames: usize) -> Vec<f32> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let len = waiting.len().min(frames);
        let mut next: Vec<f32> = waiting.drain(..len).collect();
        next.resize(frames, 0.0);
        next
    }

    /// Each sample in every channel.
    fn spread<T: Copy>(&self, out: Option<&mut [T]>, from: &mut [f32], as_: impl Fn(f32) -> T) {
        let Some(out) = out else { return };
        for (channels, sample) in out.chunks_mut(self.channels).zip(from) {
            channels.fill(as_(sample.clamp(-1.0, 1.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Power of the samples at `hz`, against all of it.
    fn share(samples: &[f32], hz: f32, rate: f32) -> f32 {
        let turn = std::f32::consts::TAU * hz / rate;
        let part = |wave: fn(f32) -> f32| -> f32 {
            samples.iter().zip(0u16..).map(|(s, n)| s * wave(turn * f32::from(n))).sum()
        };
        let all: f32 = samples.iter().map(|s| s * s).sum();
        2.0 * (part(f32::sin).powi(2) + part(f32::cos).powi(2)) / (all * samples.len() as f32)
    }

    fn tone(hz: f32, rate: u32, len: usize) -> Vec<f32> {
        let turn = std::f32::consts::TAU * hz / rate as f32;
        (0..len).map(|n| 0.5 * (turn * n as f32).sin()).collect()
    }

    #[test]
    fn the_microphone_gives_frames_whatever_its_rate_and_channels() {
        for (rate, channels) in [(48_000, 2), (44_100, 1), (16_000, 1), (8_000, 1)] {
            let (tell, heard) = sync_channel(100);
            let mut microphone = Microphone::new(rate, channels, tell).unwrap();
            let said = tone(1_000.0, rate, rate as usize / 2);
            let said: Vec<f32> = said.iter().flat_map(|&s| vec![s; channels.into()]).collect();
            // As devices do, in pieces that fit nothing.
            said.chunks(331 * usize::from(channels)).for_each(|piece| microphone.hear(piece));
            let frames: Vec<Box<Sound>> = heard.try_iter().collect();
            assert!((22..=25).contains(&frames.len()), "{rate}: {} frames", frames.len());
            let sound: Vec<f32> =
                frames[4..20].iter().flat_map(|frame| frame.map(f32::from)).collect();
            assert!(share(&sound, 1_000.0, 8_000.0) > 0.99, "{rate} Hz, {channels} channels");
            let peak = sound.iter().fold(0.0f32, |most, s| most.max(s.abs()));
            assert!((15_000.0..17_500.0).contains(&peak), "{rate}: {peak}");
        }
    }

    #[test]
    fn a_microphone_that_nobody_listens_to_loses_sound_and_no_memory() {
        let (tell, heard) = sync_channel(WAITING_MAX);
        let mut microphone = Microphone::new(8_000, 1, tell).unwrap();
        (0..100).for_each(|_| microphone.hear(&[0.1; 160]));
        assert_eq!(heard.try_iter().count(), WAITING_MAX);
        assert!(microphone.waiting.len() < 1_000);
    }

    #[test]
    fn the_loudspeaker_plays_frames_and_then_silence() {
        for (rate, channels) in [(48_000u32, 2u16), (44_100, 1)] {
            let mut loudspeaker = Loudspeaker::new(rate, channels).unwrap();
            let said = tone(1_000.0, 8_000, 8 * SAMPLES);
            for frame in said.chunks_exact(SAMPLES) {
                let mut sound = [0; SAMPLES];
                for (out, sample) in sound.iter_mut().zip(frame) {
                    *out = (sample * 32_768.0) as i16;
                }
                loudspeaker.say(&sound);
            }
            let played = loudspeaker.playing.next(rate as usize / 4);
            let end = rate as usize / 1000 * 120;
            assert!(share(&played[end / 2..end], 1_000.0, rate as f32) > 0.98, "{rate}");
            assert!(played[rate as usize / 5..].iter().all(|&sample| sample == 0.0), "{rate}");
            let mut out = vec![1i16; 6];
            let playing = Playing { channels: 2, ..loudspeaker.playing.clone() };
            playing.spread(Some(&mut out), &mut [0.0, 1.0, -2.0], |s| (s * 100.0) as i16);
            assert_eq!(out, [0, 0, 100, 100, -100, -100]);
        }
    }

    #[test]
    fn what_is_said_faster_than_it_is_played_does_not_pile_up() {
        let mut loudspeaker = Loudspeaker::new(48_000, 1).unwrap();
        (0..1_000).for_each(|_| loudspeaker.say(&[1; SAMPLES]));
        let waiting = loudspeaker.playing.waiting.lock().unwrap().len();
        assert!(waiting <= loudspeaker.playing.most, "{waiting}");
    }
}
