//! Sound of made devices through both directions, and what is said of faults.

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
    for (rate, channels) in [(48_000, 2), (44_100, 1), (16_000, 1), (11_025, 1), (8_000, 1)] {
        let mut microphone = Microphone::new(rate, channels, Pace::Leisure).unwrap();
        let said = tone(1_000.0, rate, rate as usize / 2);
        let said: Vec<f32> = said.iter().flat_map(|&s| vec![s; channels.into()]).collect();
        // As devices do, in pieces that fit nothing.
        for piece in said.chunks(331 * usize::from(channels)) {
            microphone.line.heard(piece);
        }
        let frames: Vec<Box<Sound>> = std::iter::from_fn(|| microphone.hear()).collect();
        assert!((22..=25).contains(&frames.len()), "{rate}: {} frames", frames.len());
        let sound: Vec<f32> = frames[4..20].iter().flat_map(|frame| frame.map(f32::from)).collect();
        assert!(share(&sound, 1_000.0, 8_000.0) > 0.99, "{rate} Hz, {channels} channels");
        let peak = sound.iter().fold(0.0f32, |most, s| most.max(s.abs()));
        assert!((15_000.0..17_500.0).contains(&peak), "{rate}: {peak}");
    }
}

/// Of a tone at a microphone, what is left of its amplitude.
fn left(hz: f32, rate: u32) -> f32 {
    let mut microphone = Microphone::new(rate, 1, Pace::Leisure).unwrap();
    microphone.line.heard(&tone(hz, rate, rate as usize / 2));
    let frames: Vec<Box<Sound>> = std::iter::from_fn(|| microphone.hear()).collect();
    let sound = frames[4..20].iter().flat_map(|frame| frame.map(f32::from));
    sound.fold(0.0, |most, s| s.abs().max(most)) / 16_384.0
}

#[test]
fn what_a_phone_carries_is_kept_and_what_is_above_does_not_fold_into_it() {
    for rate in [48_000, 44_100] {
        assert!(left(3_200.0, rate) > 0.9, "{rate}: {}", left(3_200.0, rate));
        assert!(left(5_000.0, rate) < 0.01, "{rate}: {}", left(5_000.0, rate));
        assert!(left(7_000.0, rate) < 0.001, "{rate}: {}", left(7_000.0, rate));
    }
}

#[test]
fn the_loudspeaker_plays_frames_and_then_silence() {
    for (rate, channels) in [(48_000u32, 2u16), (44_100, 1), (11_025, 1)] {
        let mut loudspeaker = Loudspeaker::new(rate, channels).unwrap();
        let said = tone(1_000.0, 8_000, 8 * SAMPLES);
        for frame in said.chunks_exact(SAMPLES) {
            let mut sound = [0; SAMPLES];
            for (out, sample) in sound.iter_mut().zip(frame) {
                *out = (sample * 32_768.0) as i16;
            }
            loudspeaker.say(&sound);
        }
        // It begins with the level, the end of what was said.
        let period = rate as usize / 100;
        let take = || loudspeaker.line.side().buffer.take(period);
        let played: Vec<f32> = std::iter::from_fn(take).flatten().collect();
        assert!((4..=5).contains(&(played.len() / period)), "{rate}: {}", played.len());
        assert!(share(&played, 1_000.0, rate as f32) > 0.98, "{rate}");
        let mut out = vec![1i16; 6];
        let line = Line { channels: 2, ..loudspeaker.line.clone() };
        line.spread(Some(&mut out), &[0.0, 1.0, -2.0], |s| (s * 100.0) as i16);
        assert_eq!(out, [0, 0, 100, 100, -100, -100]);
    }
}

#[test]
fn a_speed_that_bends_makes_no_click() {
    let mut loudspeaker = Loudspeaker::new(48_000, 1).unwrap();
    let said = tone(440.0, 8_000, 500 * SAMPLES);
    let mut played = Vec::new();
    for (turn, frame) in said.chunks_exact(SAMPLES).enumerate() {
        let mut sound = [0; SAMPLES];
        for (out, sample) in sound.iter_mut().zip(frame) {
            *out = (sample * 32_768.0) as i16;
        }
        loudspeaker.say(&sound);
        // A device 1,000 ppm slow.
        if turn >= 2 {
            let count = 480 - usize::from(turn % 2 == 0);
            for _ in 0..2 {
                played.extend(loudspeaker.line.side().buffer.take(count).unwrap());
            }
        }
    }
    assert_eq!(loudspeaker.line.side().buffer.lost(), 0);
    // 440 Hz at half of full scale turns by 0.029 a sample at most.
    let steps = played.windows(2).skip(960).map(|pair| (pair[1] - pair[0]).abs());
    let steepest = steps.fold(0.0f32, f32::max);
    assert!((0.028..0.03).contains(&steepest), "{steepest}");
}

#[test]
fn a_device_that_cannot_be_opened_says_whose_fault_it_is() {
    for (kind, told) in [
        (ErrorKind::DeviceNotAvailable, "this machine has no microphone"),
        (ErrorKind::DeviceBusy, "another program uses the microphone"),
        (ErrorKind::PermissionDenied, "this user may not use the microphone"),
        (ErrorKind::BackendError, "is the sound server running"),
    ] {
        let error = unusable(What::Microphone, &kind.into()).to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_microphone_of_zeros_alone_is_mute() {
    let line = Line::new(8_000, 1, Pace::Clock);
    line.heard(&[0.0; 160]);
    let now = line.seen();
    assert!(!line.mute());
    line.side().mute = now.checked_sub(MUTE + Duration::from_secs(1));
    line.heard(&[0.0; 160]);
    assert!(line.mute());
    line.heard(&[0.0, 0.001]);
    assert!(!line.mute());
}

fn headset() -> (Headset, SyncSender<(What, cpal::Error)>) {
    let (tell, faults) = sync_channel(FAULTS_MAX);
    let microphone = Microphone::new(48_000, 1, Pace::Clock).unwrap();
    let loudspeaker = Loudspeaker::new(48_000, 1).unwrap();
    let (crackles, mute, streams) = ([false; 2], false, None);
    (Headset { microphone, loudspeaker, faults, crackles, mute, streams }, tell)
}

#[test]
fn a_device_that_is_gone_is_the_end_and_one_that_crackles_is_told_once() {
    let (mut headset, tell) = headset();
    (0..3).for_each(|_| tell.send((What::Microphone, ErrorKind::Xrun.into())).unwrap());
    assert!(matches!(headset.trouble(), Some(Trouble::Warning(told)) if told.contains("busy")));
    assert!(headset.trouble().is_none());
    tell.send((What::Loudspeaker, ErrorKind::BackendError.into())).unwrap();
    let Some(Trouble::Gone(error)) = headset.trouble() else { panic!() };
    assert!(error.to_string().starts_with("the loudspeaker of this machine is gone"), "{error}");
}

#[test]
fn a_device_without_a_sign_of_life_is_gone() {
    let (mut headset, _tell) = headset();
    assert!(headset.trouble().is_none());
    let mut side = headset.microphone.line.side();
    side.seen = side.seen.checked_sub(GONE + Duration::from_secs(1)).unwrap();
    drop(side);
    let Some(Trouble::Gone(error)) = headset.trouble() else { panic!() };
    assert!(error.to_string().starts_with("the microphone of this machine is gone"), "{error}");
}
