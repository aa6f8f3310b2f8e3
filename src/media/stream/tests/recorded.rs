//! What is kept of a call, and what is not.
#![allow(clippy::disallowed_methods)]

use super::*;
use crate::media::recording::SegmentId;

/// The keys a listener makes out in one channel of a recording.
fn keys_in(recorded: &[Stereo], channel: usize) -> String {
    let mut detector = crate::media::tone::Detector::new();
    let frames = recorded.iter().map(|stereo| &stereo[channel * SAMPLES..][..SAMPLES]);
    let hits = frames.filter_map(|frame| detector.push(Law::Mu, frame));
    hits.map(|hit| char::from(hit.digit.expose())).collect()
}

#[test]
fn keys_cannot_be_heard_in_the_recording_of_a_sensitive_window() {
    for law in [Law::Mu, Law::A] {
        let negotiated = |remote| Negotiated { codec: law.into(), ..negotiated(remote) };
        let mut pair = Pair::with(negotiated(B), negotiated(A));
        pair.play(1, &[0x90; 1600], false);
        pair.press("123", Method::InBand, 60);
        pair.turns(30);
        // The window opens 100 ms after the first key has begun, and closes right after the last.
        pair.press(CARD, Method::InBand, 60);
        pair.turns(5);
        pair.b.stream.command(pair.now, Command::Sensitive(true));
        while pair.b.keys.len() < 3 + CARD.len() {
            pair.turn();
        }
        pair.b.stream.command(pair.now, Command::Sensitive(false));
        pair.turns(60);
        pair.press("456", Method::InBand, 60);
        pair.turns(40);
        pair.b.stream.close();
        pair.b.settle();
        assert_eq!(pair.b.keys, format!("123{CARD}456"));
        assert_eq!(keys_in(&pair.b.recorded, 0), "", "{law:?}");
        // One frame per turn: the timeline is kept.
        assert_eq!(pair.b.recorded.len() as u64, pair.b.stream.counters().sent);
        // Our own keys do not stay in our recording either.
        pair.a.stream.close();
        pair.a.settle();
        assert_eq!(keys_in(&pair.a.recorded, 1), "");
    }
}

#[test]
fn keys_outside_any_window_are_not_recorded_either() {
    for (method, ms) in [(Method::InBand, 60), (Method::InBand, 1_500), (Method::Events, 60)] {
        let mut pair = Pair::new();
        pair.turns(5);
        pair.press("41#", method, ms);
        pair.turns(500);
        pair.b.stream.close();
        pair.b.settle();
        assert_eq!(pair.b.keys, "41#");
        let (heard, recorded) = (&pair.b.heard, &pair.b.recorded);
        let tones = |bytes: &[u8]| bytes.iter().filter(|&&code| code != 0xff).count();
        assert_eq!(tones(heard) > 0, method == Method::InBand, "the tones were on the line");
        let left: usize = recorded.iter().map(|stereo| tones(&stereo[..SAMPLES])).sum();
        assert_eq!(left, 0, "{method:?} of {ms} ms");
    }
}

/// Loud and unlike any key: a chirp that begins anew every 100 ms.
fn babble(seconds: usize) -> Vec<u8> {
    let sample = |n: usize| {
        let t = (n % 800) as f32 / 8000.0;
        let sound = (std::f32::consts::TAU * (200.0 + 1500.0 * t) * t).sin();
        codec::encode(Law::Mu, (8000.0 * sound) as i16)
    };
    (0..8000 * seconds).map(sample).collect()
}

/// Frames of one side that are silence.
fn silent(recorded: &[Stereo], channel: usize) -> Vec<bool> {
    let frames = recorded.iter().map(|stereo| &stereo[channel * SAMPLES..][..SAMPLES]);
    frames.map(|frame| frame.iter().all(|&code| code == 0xff)).collect()
}

/// A caller who speaks all the time and keys a card, into the prompt that asks for it, while that
/// goes on or is stopped by the first key.
#[test]
fn a_window_is_silent_both_ways_while_both_sides_speak() {
    for method in [Method::InBand, Method::Events] {
        for barge_in in [true, false] {
            let case = format!("{method:?}, barge-in {barge_in}");
            let mut pair = Pair::new();
            let babble = babble(60);
            let clip = Clip::new(babble[..].into(), babble[..].into());
            let play = Command::Play { id: PlayId(1), clips: vec![clip], barge_in: false };
            pair.a.stream.command(pair.now, play);
            pair.play(1, &babble, false);
            pair.turns(50);
            let opened = pair.b.stream.counters().sent as usize;
            pair.b.stream.command(pair.now, Command::Sensitive(true));
            pair.play(2, &babble, barge_in);
            pair.turns(50);
            pair.press(CARD, method, 70);
            while pair.b.keys.len() < CARD.len() {
                pair.turn();
            }
            let closed = pair.b.stream.counters().sent as usize;
            pair.b.stream.command(pair.now, Command::Sensitive(false));
            pair.play(3, &babble, false);
            pair.turns(150);
            pair.b.stream.close();
            pair.b.settle();
            assert_eq!(pair.b.keys, CARD, "{case}");
            assert!(pair.b.ended.contains(&(PlayId(2), false)), "{case}");
            for channel in [0, 1] {
                assert_eq!(keys_in(&pair.b.recorded, channel), "", "{case}");
                let silent = silent(&pair.b.recorded, channel);
                let sounds = |range: std::ops::Range<usize>| {
                    silent[range].iter().filter(|silent| !**silent).count()
                };
                assert_eq!(sounds(opened - 10..closed + 25), 0, "{case}: the window");
                let [before, after] = [sounds(0..opened - 10), sounds(closed + 40..closed + 140)];
                assert!(before >= 30 && after >= 90, "{case}: {before} and {after} frames");
            }
        }
    }
}

/// After the first telephone-event nobody listens for tones: a gateway that lets them through, or
/// goes over to them, must not fill the recording with keys.
#[test]
fn tones_that_nobody_listens_for_are_not_recorded() {
    let mut pair = Pair::new();
    pair.turns(5);
    pair.press("1", Method::Events, 60);
    pair.turns(100);
    pair.press(CARD, Method::InBand, 60);
    pair.turns(200);
    pair.b.stream.close();
    pair.b.settle();
    assert_eq!(pair.b.keys, "1");
    let heard: Vec<Stereo> = pair.b.heard.as_chunks().0.iter().map(both).collect();
    assert_eq!(keys_in(&heard, 0), CARD, "the tones were on the line");
    assert_eq!(keys_in(&pair.b.recorded, 0), "");
}

/// A key that is reported only when it is released had sounded for a second.
#[test]
fn tones_reported_late_by_signalling_are_not_recorded() {
    let mut pair = Pair::new();
    pair.turns(5);
    pair.b.stream.command(pair.now, Command::Signalled(Digit::from_key('1').unwrap()));
    pair.turns(100);
    pair.press("5", Method::InBand, 1000);
    pair.turns(60);
    pair.b.stream.command(pair.now, Command::Signalled(Digit::from_key('5').unwrap()));
    pair.turns(100);
    pair.b.stream.close();
    pair.b.settle();
    assert_eq!(pair.b.keys, "15");
    assert!(pair.b.heard.iter().any(|&code| code != 0xff), "the tone was on the line");
    assert_eq!(keys_in(&pair.b.recorded, 0), "");
    assert!(silent(&pair.b.recorded, 0).iter().all(|silent| *silent));
}

fn both(frame: &Frame) -> Stereo {
    let mut stereo = [0xff; 2 * SAMPLES];
    stereo[..SAMPLES].copy_from_slice(frame);
    stereo
}

/// Segments in order: number, and how many frames; `None` where one ended.
fn segments(end: &End) -> Vec<(Option<u16>, usize)> {
    let ids = end.segments.iter().map(|recorded| recorded.segment.map(|id| id.0));
    let mut all: Vec<(Option<u16>, usize)> = vec![];
    for id in ids {
        match all.last_mut().filter(|last| last.0 == id) {
            Some(last) => last.1 += 1,
            None => all.push((id, 1)),
        }
    }
    all
}

/// A pair whose B is recorded in segments alone; both sides speak.
fn unrecorded() -> Pair {
    let mut pair = Pair::new();
    let setup = Setup { record: false, ..setup(2) };
    pair.b.stream = Stream::new(setup, Latch::Strict, pair.now);
    pair.b.stream.command(pair.now, Command::Negotiated(negotiated(A)));
    let babble = babble(60);
    let clip = Clip::new(babble[..].into(), babble[..].into());
    let play = Command::Play { id: PlayId(1), clips: vec![clip], barge_in: false };
    pair.a.stream.command(pair.now, play);
    pair.play(1, &babble, false);
    pair
}

fn mark(pair: &mut Pair, segment: Option<u16>) {
    pair.b.stream.command(pair.now, Command::Segment(segment.map(SegmentId)));
}

#[test]
fn a_segment_is_kept_of_a_call_that_is_not() {
    let mut pair = unrecorded();
    pair.turns(50);
    assert!(pair.b.stream.recorder.is_none() && pair.b.recorded.is_empty());
    mark(&mut pair, Some(1));
    pair.turns(100);
    mark(&mut pair, None);
    pair.turns(50);
    assert!(pair.b.stream.recorder.is_none(), "no memory is kept for it");
    assert_eq!(segments(&pair.b), [(Some(1), 100), (None, 1)]);
    // The end of a key before it may reach into the caller's side.
    let silent = [0, 1].map(|channel| silent(&pair.b.recorded, channel));
    assert!(silent[0][..25].iter().all(|silent| *silent));
    assert!(silent[0][26..].iter().chain(&silent[1]).all(|silent| !silent));
    // One follows another, and the call ends in the last.
    mark(&mut pair, Some(2));
    pair.turns(20);
    mark(&mut pair, Some(3));
    pair.turns(20);
    pair.b.stream.close();
    pair.b.settle();
    assert_eq!(segments(&pair.b)[2..], [(Some(2), 20), (Some(3), 20)]);
}

#[test]
fn segments_of_a_recorded_call_are_marked_in_its_frames() {
    let mut pair = Pair::new();
    pair.turns(50);
    mark(&mut pair, Some(7));
    pair.turns(30);
    mark(&mut pair, None);
    pair.turns(20);
    pair.b.stream.close();
    pair.b.settle();
    assert_eq!(segments(&pair.b), [(None, 50), (Some(7), 30), (None, 20)]);
}

#[test]
fn a_segment_never_holds_what_a_window_covers() {
    // The window closes this many turns before the segment begins; 0: it is open still.
    for before in [0, 5, 20, 40] {
        let mut pair = unrecorded();
        pair.b.stream.command(pair.now, Command::Sensitive(true));
        pair.press("4111", Method::InBand, 60);
        pair.turns(20);
        if before > 0 {
            pair.b.stream.command(pair.now, Command::Sensitive(false));
        }
        pair.turns(before);
        mark(&mut pair, Some(1));
        pair.turns(30);
        pair.b.stream.command(pair.now, Command::Sensitive(false));
        pair.turns(100);
        pair.b.stream.command(pair.now, Command::Sensitive(true));
        pair.turns(30);
        mark(&mut pair, None);
        pair.turns(20);
        assert_eq!(segments(&pair.b), [(Some(1), 160), (None, 1)]);
        let ours = silent(&pair.b.recorded, 1);
        let from = ours.iter().position(|silent| !silent).unwrap();
        let until = match before {
            0 => 30 + 25,
            // The 500 ms are counted anew.
            1..25 => 25,
            _ => 0,
        };
        // It opens again after 130 turns, and reaches 200 ms back.
        assert_eq!(
            (from, ours[from..].iter().position(|silent| *silent)),
            (until, Some(120 - until))
        );
        assert!(ours[120..].iter().all(|silent| *silent));
        assert_eq!([0, 1].map(|channel| keys_in(&pair.b.recorded, channel)), ["", ""]);
    }
}

#[test]
fn keys_in_a_segment_are_not_kept() {
    let mut pair = unrecorded();
    pair.turns(10);
    mark(&mut pair, Some(1));
    pair.turns(50);
    pair.press("1", Method::InBand, 100);
    pair.turns(50);
    pair.b.stream.close();
    pair.b.settle();
    assert_eq!((pair.b.keys.as_str(), keys_in(&pair.b.recorded, 0)), ("1", String::new()));
    assert_eq!(pair.b.recorded.len(), 100);
}
