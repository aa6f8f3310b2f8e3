//! This machine's microphone and loudspeaker, as 8 kHz sound in frames of 20 ms.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{Data, ErrorKind, SampleFormat, Stream, StreamConfig};
use rubato::audioadapter_buffers::owned::InterleavedOwned;
use rubato::{
    Adjustable, Async, FixedAsync, Resampler, SincInterpolationParameters, WindowFunction,
};

use self::buffer::{BEND_MAX, Buffer};
use crate::media::frame::{RATE, SAMPLES};

mod buffer; // between a device's clock and ours

pub use self::buffer::Pace;

/// Sound of one frame.
pub type Sound = [i16; SAMPLES];

/// Sound servers that do not answer are not waited for any longer, nor are they when we go.
const OPEN_MAX: Duration = Duration::from_secs(10);
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// A device that neither gives nor takes sound for so long is gone: not every system says so.
const GONE: Duration = Duration::from_secs(3);
/// A microphone that is on never gives nothing but zeros for so long.
const MUTE: Duration = Duration::from_secs(5);
/// Faults that wait to be told.
const FAULTS_MAX: usize = 8;
/// Length of the filter at 8 kHz, in samples: what is above 4 kHz is gone, and it costs 4 ms.
const FILTER: usize = 64;

/// Both devices, open until dropped.
pub struct Headset {
    microphone: Microphone,
    loudspeaker: Loudspeaker,
    faults: Receiver<(What, cpal::Error)>,
    /// Of these devices nothing is told a second time.
    crackles: [bool; 2],
    mute: bool,
    streams: Option<[Stream; 2]>,
}

/// Why there is no sound; the machine's set-up is at fault.
#[derive(Debug)]
pub struct HeadsetError(String);

/// What is wrong with a device in use.
#[derive(Debug)]
pub enum Trouble {
    /// There is sound all the same.
    Warning(String),
    /// There is none any more.
    Gone(HeadsetError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Microphone,
    Loudspeaker,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Microphone => "microphone",
            What::Loudspeaker => "loudspeaker",
        })
    }
}

impl fmt::Display for HeadsetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HeadsetError {}

/// Whose fault it is that a device cannot be opened, and what to do.
fn unusable(what: What, error: &cpal::Error) -> HeadsetError {
    HeadsetError(match error.kind() {
        ErrorKind::DeviceNotAvailable | ErrorKind::HostUnavailable => format!(
            "this machine has no {what} that can be used, or its sound server is not running: \
             plug one in, choose it in the sound settings, and try again"
        ),
        ErrorKind::DeviceBusy => format!(
            "another program uses the {what}: end it, or choose another one in the sound settings"
        ),
        ErrorKind::PermissionDenied => format!(
            "this user may not use the {what}: on Linux join the group `audio`, elsewhere allow it \
             in the privacy settings"
        ),
        ErrorKind::UnsupportedConfig | ErrorKind::UnsupportedOperation => format!(
            "the {what} offers no sound that is known here; choose another one in the sound \
             settings ({error})"
        ),
        _ => format!(
            "the {what} cannot be used; is the sound server running, and is one chosen in the \
             sound settings? ({error})"
        ),
    })
}

impl Headset {
    /// Opens the devices that the system has as its default, and begins.
    pub fn open(pace: Pace) -> Result<Headset, HeadsetError> {
        let (tell, told) = sync_channel(1);
        // A sound server that hangs is left to it: the call cannot be taken back.
        thread::spawn(move || drop(tell.send(Headset::open_now(pace))));
        told.recv_timeout(OPEN_MAX).unwrap_or_else(|error| {
            Err(HeadsetError(match error {
                RecvTimeoutError::Timeout => format!(
                    "the sound server of this machine has not answered for {} s: start it anew",
                    OPEN_MAX.as_secs()
                ),
                RecvTimeoutError::Disconnected => "the sound system of this machine failed".into(),
            }))
        })
    }

    fn open_now(pace: Pace) -> Result<Headset, HeadsetError> {
        let host = cpal::default_host();
        let none = |what: What| move || unusable(what, &ErrorKind::DeviceNotAvailable.into());
        let of = |what: What| move |error: cpal::Error| unusable(what, &error);
        let (hear, say) = (What::Microphone, What::Loudspeaker);
        let input = host.default_input_device().ok_or_else(none(hear))?;
        let output = host.default_output_device().ok_or_else(none(say))?;
        let (in_config, out_config) = (
            input.default_input_config().map_err(of(hear))?,
            output.default_output_config().map_err(of(say))?,
        );
        let (in_format, out_format) = (in_config.sample_format(), out_config.sample_format());
        for (what, format) in [(hear, in_format), (say, out_format)] {
            if !FORMATS.contains(&format) {
                return Err(HeadsetError(format!(
                    "the {what} has sound as {format}, which is not known here; choose 16 or 32 \
                     bits in the sound settings"
                )));
            }
        }
        let (in_config, out_config): (StreamConfig, StreamConfig) =
            (in_config.into(), out_config.into());
        let (tell, faults) = sync_channel(FAULTS_MAX);
        let fault = |what: What| {
            let tell: SyncSender<(What, cpal::Error)> = tell.clone();
            // What there is no room for is like what waits.
            move |error: cpal::Error| drop(tell.try_send((what, error)))
        };
        let microphone = Microphone::new(in_config.sample_rate, in_config.channels, pace)?;
        let line = microphone.line.clone();
        let heard = move |data: &Data, _: &_| line.heard(&samples(data));
        let input = input
            .build_input_stream_raw(in_config, in_format, heard, fault(hear), None)
            .map_err(of(hear))?;
        let loudspeaker = Loudspeaker::new(out_config.sample_rate, out_config.channels)?;
        let line = loudspeaker.line.clone();
        let play = move |data: &mut Data, _: &_| line.fill(data);
        let output = output
            .build_output_stream_raw(out_config, out_format, play, fault(say), None)
            .map_err(of(say))?;
        input.play().map_err(of(hear))?;
        output.play().map_err(of(say))?;
        let (crackles, mute, streams) = ([false; 2], false, Some([input, output]));
        Ok(Headset { microphone, loudspeaker, faults, crackles, mute, streams })
    }

    /// The next frame from the microphone, if it is there.
    pub fn hear(&mut self) -> Option<Box<Sound>> {
        self.microphone.hear()
    }

    /// The next frame for the loudspeaker.
    pub fn play(&mut self, sound: &Sound) {
        self.loudspeaker.say(sound);
    }

    /// How often there was a gap in what was said and in what was heard, or a piece was left out.
    pub fn gaps(&self) -> (u32, u32) {
        let of = |line: &Line| line.side().buffer.lost();
        (of(&self.microphone.line), of(&self.loudspeaker.line))
    }

    /// What has gone wrong with a device since.
    #[allow(clippy::disallowed_methods)] // `server` owns the clock.
    pub fn trouble(&mut self) -> Option<Trouble> {
        while let Ok((what, error)) = self.faults.try_recv() {
            if let Some(trouble) = self.fault(what, &error) {
                return Some(trouble);
            }
        }
        let lines = [(What::Microphone, &self.microphone.line)];
        let lines = lines.into_iter().chain([(What::Loudspeaker, &self.loudspeaker.line)]);
        for (what, line) in lines {
            if line.seen().elapsed() > GONE {
                return Some(Trouble::Gone(gone(what, "it gives no sign any more")));
            }
        }
        if !self.mute && self.microphone.line.mute() {
            self.mute = true;
            let told = "the microphone gives silence and nothing else: it is muted, or another one \
                        is meant; look at this machine's sound settings";
            return Some(Trouble::Warning(told.into()));
        }
        None
    }

    fn fault(&mut self, what: What, error: &cpal::Error) -> Option<Trouble> {
        match error.kind() {
            ErrorKind::Xrun => {
                let told = std::mem::replace(&mut self.crackles[what as usize], true);
                (!told).then(|| {
                    Trouble::Warning(format!(
                        "sound of the {what} was lost: this machine is too busy, or its sound \
                         server is; it is not the call's fault"
                    ))
                })
            }
            ErrorKind::DeviceChanged => {
                Some(Trouble::Warning(format!("the {what} is another one from now on")))
            }
            // It may crackle then, and that is told when it does.
            ErrorKind::RealtimeDenied => None,
            _ => Some(Trouble::Gone(gone(what, &error.to_string()))),
        }
    }
}

fn gone(what: What, why: &str) -> HeadsetError {
    HeadsetError(format!(
        "the {what} of this machine is gone ({why}): was it unplugged, or has the sound server \
         ended?"
    ))
}

impl Drop for Headset {
    /// Closing waits for the sound server, and we do not wait for one that hangs.
    fn drop(&mut self) {
        let Some(streams) = self.streams.take() else { return };
        let (tell, told) = sync_channel::<()>(1);
        thread::spawn(move || {
            drop(streams);
            drop(tell);
        });
        // It says nothing, and ends when `tell` is dropped.
        let _ = told.recv_timeout(CLOSE_MAX);
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

fn resampler(from: u32, to: u32, chunk: FixedAsync) -> Result<Async<f32>, HeadsetError> {
    let wrong = || HeadsetError(format!("sound of {from} Hz cannot become {to} Hz"));
    let length = FILTER * from.div_ceil(to).max(1) as usize;
    let filter = SincInterpolationParameters::new(length, WindowFunction::BlackmanHarris2);
    let ratio = f64::from(to) / f64::from(from);
    Async::new_sinc(ratio, 1.0 + 2.0 * BEND_MAX, &filter, SAMPLES, 1, chunk).map_err(|_| wrong())
}

/// What a resampler makes of as many samples as it wants.
fn resampled(resampler: &mut Async<f32>, samples: Vec<f32>) -> Vec<f32> {
    let frames = samples.len();
    let Ok(input) = InterleavedOwned::new_from(samples, 1, frames) else { return Vec::new() };
    resampler.process(&input, None).map_or_else(|_| Vec::new(), InterleavedOwned::take_data)
}

/// What a device's thread and ours share.
#[derive(Clone)]
struct Line {
    side: Arc<Mutex<Side>>,
    channels: usize,
}

struct Side {
    buffer: Buffer,
    /// When the device last gave or took sound.
    seen: Instant,
    /// Since when it has given zeros alone.
    mute: Option<Instant>,
}

impl Line {
    #[allow(clippy::disallowed_methods)] // `server` owns the clock.
    fn new(rate: u32, channels: u16, pace: Pace) -> Line {
        let side = Side { buffer: Buffer::new(rate, pace), seen: Instant::now(), mute: None };
        Line { side: Arc::new(Mutex::new(side)), channels: usize::from(channels).max(1) }
    }

    fn side(&self) -> MutexGuard<'_, Side> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Instant {
        self.side().seen
    }

    fn mute(&self) -> bool {
        let side = self.side();
        side.mute.is_some_and(|since| side.seen.duration_since(since) > MUTE)
    }

    /// All channels of the microphone.
    #[allow(clippy::disallowed_methods)] // `server` owns the clock.
    fn heard(&self, samples: &[f32]) {
        let mono = |all: &[f32]| all.iter().sum::<f32>() / self.channels as f32;
        let now = Instant::now();
        let mut side = self.side();
        side.seen = now;
        side.mute = match side.mute {
            _ if samples.iter().any(|&sample| sample != 0.0) => None,
            since => since.or(Some(now)),
        };
        side.buffer.put(samples.chunks_exact(self.channels).map(mono));
    }

    /// The next for the loudspeaker: silence where nothing waits.
    #[allow(clippy::disallowed_methods)] // `server` owns the clock.
    fn fill(&self, data: &mut Data) {
        let frames = data.len() / self.channels;
        let next = {
            let mut side = self.side();
            side.seen = Instant::now();
            side.buffer.take(frames)
        };
        let next = next.unwrap_or_else(|| vec![0.0; frames]);
        match data.sample_format() {
            SampleFormat::F32 => self.spread(data.as_slice_mut::<f32>(), &next, |s| s),
            SampleFormat::I16 => {
                self.spread(data.as_slice_mut::<i16>(), &next, |s| (s * 32_767.0).round() as i16);
            }
            SampleFormat::I32 => self.spread(data.as_slice_mut::<i32>(), &next, |s| {
                (f64::from(s) * 2_147_483_647.0).round() as i32
            }),
            SampleFormat::U8 => {
                self.spread(data.as_slice_mut::<u8>(), &next, |s| (s * 127.0 + 128.0).round() as u8)
            }
            _ => {}
        }
    }

    /// Each sample in every channel.
    fn spread<T: Copy>(&self, out: Option<&mut [T]>, from: &[f32], as_: impl Fn(f32) -> T) {
        let Some(out) = out else { return };
        for (channels, sample) in out.chunks_mut(self.channels).zip(from) {
            channels.fill(as_(sample.clamp(-1.0, 1.0)));
        }
    }
}

/// From the device's rate and channels to frames.
struct Microphone {
    resampler: Async<f32>,
    line: Line,
}

impl Microphone {
    fn new(rate: u32, channels: u16, pace: Pace) -> Result<Microphone, HeadsetError> {
        let resampler = resampler(rate, RATE, FixedAsync::Output)?;
        Ok(Microphone { resampler, line: Line::new(rate, channels, pace) })
    }

    fn hear(&mut self) -> Option<Box<Sound>> {
        let input = {
            let mut side = self.line.side();
            // Within what it was made for, so it is never refused.
            let _ = self.resampler.set_resample_ratio_relative(side.buffer.bend(), true);
            side.buffer.take(self.resampler.input_frames_next())?
        };
        let mut frame = Box::new([0; SAMPLES]);
        for (out, sample) in frame.iter_mut().zip(resampled(&mut self.resampler, input)) {
            *out = (sample * 32_768.0).round() as i16;
        }
        Some(frame)
    }
}

/// From frames to the device's rate and channels.
struct Loudspeaker {
    resampler: Async<f32>,
    line: Line,
}

impl Loudspeaker {
    fn new(rate: u32, channels: u16) -> Result<Loudspeaker, HeadsetError> {
        let resampler = resampler(RATE, rate, FixedAsync::Input)?;
        Ok(Loudspeaker { resampler, line: Line::new(rate, channels, Pace::Clock) })
    }

    fn say(&mut self, sound: &Sound) {
        let input = sound.iter().map(|&sample| f32::from(sample) / 32_768.0).collect();
        let output = resampled(&mut self.resampler, input);
        let mut side = self.line.side();
        side.buffer.put(output);
        // Within what it was made for, so it is never refused.
        let _ = self.resampler.set_resample_ratio_relative(side.buffer.bend(), true);
    }
}

#[cfg(test)]
mod tests;
