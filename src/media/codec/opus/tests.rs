//! Sound through the codec and back, packets of the reference implementation, packets of nobody.

use super::*;
use crate::media::Digit;
use crate::media::digit::{HIGH_HZ, LOW_HZ};
use crate::media::tone::Detector;

/// Packets that libopus 1.3.1 made of our English prompts in eight ways (SILK, CELT and both, 8 to
/// 48 kHz, one channel and two, 10 to 60 ms, constant and variable rate, with and without
/// recovery), each time followed by what libopus 1.6.1 decodes from them at 8 kHz on one channel,
/// as mu-law. Counts and lengths have 16 bits, low byte first.
const LIBOPUS: &[u8] = include_bytes!("../../../../tests/vectors/opus/libopus.bin");

fn transcoder() -> Transcoder {
    Transcoder::new(Opus::default())
}

fn sine(hz: f32, n: usize) -> f32 {
    (n as f32 * hz * std::f32::consts::TAU / 8000.0).sin()
}

fn tone(hz: f32, count: usize) -> Vec<u8> {
    (0..count).map(|n| encode(Law::Mu, (sine(hz, n) * 8000.0) as i16)).collect()
}

/// Of a tone: how loud it is in dB, and how much less there is of anything else.
fn measure(codes: &[u8], hz: f32) -> (f32, f32) {
    let (mut a, mut b, mut all) = (0.0, 0.0, 0.0);
    for (n, code) in codes.iter().enumerate() {
        let sample = f32::from(decode(Law::Mu, *code));
        let angle = n as f32 * hz * std::f32::consts::TAU / 8000.0;
        a += sample * angle.sin();
        b += sample * angle.cos();
        all += sample * sample;
    }
    let tone = 2.0 * (a * a + b * b) / codes.len() as f32;
    (10.0 * (tone / codes.len() as f32).log10(), 10.0 * (tone / (all - tone)).log10())
}

fn number(bytes: &mut &[u8]) -> usize {
    let (number, rest) = bytes.split_first_chunk::<2>().unwrap();
    *bytes = rest;
    u16::from_le_bytes(*number).into()
}

fn part<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (part, rest) = bytes.split_at(len);
    *bytes = rest;
    part
}

/// Packets of one stream, and what they sound like.
fn streams() -> Vec<(Vec<Vec<u8>>, Vec<u8>)> {
    let (mut bytes, mut streams) = (LIBOPUS, vec![]);
    while !bytes.is_empty() {
        let count = number(&mut bytes);
        let packet = |bytes: &mut &[u8]| {
            let len = number(bytes);
            part(bytes, len).to_vec()
        };
        let packets = (0..count).map(|_| packet(&mut bytes)).collect();
        streams.push((packets, packet(&mut bytes)));
    }
    streams
}

#[test]
fn packets_of_libopus_sound_as_libopus_decodes_them() {
    let streams = streams();
    assert_eq!(streams.len(), 8);
    for (nth, (packets, expected)) in streams.into_iter().enumerate() {
        let mut transcoder = transcoder();
        let mut heard = vec![];
        for packet in &packets {
            let codes = transcoder.decode(packet).unwrap();
            assert_eq!(codes.len(), expected.len() / packets.len(), "stream {nth}");
            heard.extend_from_slice(codes);
        }
        // One part of Opus is exact by definition; the other may differ in a last bit.
        let other = heard.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert!(other * 50 <= heard.len(), "stream {nth}: {other} of {} differ", heard.len());
    }
}

#[test]
fn sound_comes_back_as_long_as_it_was_whatever_the_length() {
    for hz in [300.0, 697.0, 1_477.0, 2_500.0] {
        let sent = tone(hz, 9_600);
        for len in [80, 160, 240, 320, 400, 480] {
            let (mut ours, mut theirs) = (transcoder(), transcoder());
            let mut back = vec![];
            for chunk in sent.chunks(len) {
                let payload = ours.encode(chunk).to_vec();
                assert_eq!(samples(&payload), Some(len));
                assert!((3..len).contains(&payload.len()), "{} bytes", payload.len());
                back.extend_from_slice(theirs.decode(&payload).unwrap());
            }
            assert_eq!(back.len(), sent.len());
            let (before, _) = measure(&sent[1_600..], hz);
            let (after, clear) = measure(&back[1_600..], hz);
            let lost = before - after;
            assert!(lost.abs() < 2.0 && clear > 9.0, "{hz} Hz, {len}: {lost} dB, {clear} dB");
        }
    }
}

#[test]
fn what_the_peer_wants_is_done() {
    let bytes = |wishes: Opus| {
        let mut ours = Transcoder::new(wishes);
        let sound: Vec<u8> = (0..16_000u32)
            .map(|n| encode(Law::Mu, (sine(200.0, n as usize) * (n % 1_600) as f32 * 8.0) as i16))
            .collect();
        sound.chunks(160).map(|chunk| ours.encode(chunk).len()).collect::<Vec<_>>()
    };
    let plain = bytes(Opus::default());
    let total = |bytes: &[usize]| bytes.iter().sum::<usize>();
    // 100 packets in two seconds.
    assert!(total(&plain) * 4 <= BITRATE as usize * 12 / 10);
    let constant = bytes(Opus { constant: true, ..Opus::default() });
    assert!(constant[1..].iter().all(|len| *len == constant[1]), "{constant:?}");
    assert!(plain[1..].iter().any(|len| *len != plain[1]));
    let scarce = bytes(Opus { bitrate_max: Some(8_000), ..Opus::default() });
    assert!(total(&scarce) * 4 <= 8_000 * 12 / 10, "{}", total(&scarce));
    let unbound = bytes(Opus { bitrate_max: Some(510_000), ..Opus::default() });
    assert_eq!(total(&unbound), total(&plain));
    // Bit 6 behind the first byte: the packet holds the last one once more (RFC 6716 §4.2.4).
    let (_, speech) = streams().swap_remove(0);
    let repeats = |recovers: bool| {
        let mut ours = Transcoder::new(Opus { recovers, ..Opus::default() });
        let sound = speech.repeat(5);
        let repeats = sound.chunks(160).filter(|chunk| ours.encode(chunk)[1] & 0x40 != 0);
        repeats.count()
    };
    assert_eq!(repeats(false), 0);
    assert!(repeats(true) > 20, "{}", repeats(true));
}

#[test]
fn keys_are_told_after_it() {
    for (on, off) in [(480, 480), (800, 800)] {
        for keys in ["0123456789*#", "4111111111111111", "ABCD"] {
            let mut sound = vec![0xff; 800];
            for key in keys.chars() {
                let (row, column) = Digit::from_key(key).unwrap().place();
                sound.extend((0..on).map(|n| {
                    let both = sine(LOW_HZ[row], n) * 0.8 + sine(HIGH_HZ[column], n);
                    encode(Law::Mu, (both * 6_000.0) as i16)
                }));
                sound.extend(std::iter::repeat_n(0xff, off));
            }
            for len in [80, 160, 320, 480] {
                let (mut ours, mut theirs, mut detector) =
                    (transcoder(), transcoder(), Detector::new());
                let mut heard = String::new();
                for chunk in sound.chunks_exact(len) {
                    let codes = theirs.decode(ours.encode(chunk)).unwrap();
                    for codes in codes.chunks(160) {
                        let hit = detector.push(Law::Mu, codes);
                        heard.extend(hit.map(|hit| char::from(hit.digit.expose())));
                    }
                }
                assert_eq!(heard, keys, "{} ms, packets of {} ms", on / 8, len / 8);
            }
        }
    }
}

#[test]
fn what_is_no_packet_is_told_and_what_comes_next_is_heard() {
    let (packets, expected) = streams().swap_remove(0);
    // Nothing, a frame count of 0, a count without its byte, 120 ms, a frame longer than there is.
    for bad in [&[][..], &[0x0b, 0x00], &[0x0b], &[0x1f, 0x02, 1, 2], &[0x0a, 0xf0, 1]] {
        let mut transcoder = transcoder();
        let mut heard = vec![];
        for packet in &packets {
            assert_eq!(transcoder.decode(bad), None, "{bad:x?}");
            heard.extend_from_slice(transcoder.decode(packet).unwrap());
        }
        assert_eq!(transcoder.broken, 0);
        assert_eq!(heard, expected, "{bad:x?}");
    }
}

#[test]
fn any_bytes_between_packets_that_are_lost_or_bent_do_no_harm() {
    let streams = streams();
    for seed in 1..=60u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut chance = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let mut transcoder = transcoder();
        for _ in 0..400 {
            let (packets, _) = &streams[chance(streams.len())];
            let mut packet = packets[chance(packets.len())].clone();
            match chance(8) {
                0 => packet.truncate(chance(packet.len() + 1)),
                1 => packet = (0..chance(500)).map(|_| chance(256) as u8).collect(),
                2 => packet[0] = chance(256) as u8,
                3 => {
                    let at = chance(packet.len());
                    packet[at] = chance(256) as u8;
                }
                4 => transcoder.lose(chance(5) as u16),
                5 => {
                    let at = chance(packet.len());
                    packet.rotate_left(at);
                }
                _ => {}
            }
            let said = samples(&packet);
            if let Some(codes) = transcoder.decode(&packet) {
                assert_eq!(Some(codes.len()), said, "seed {seed}");
                assert!(codes.len() <= PAYLOAD_MAX, "seed {seed}");
            }
        }
        assert_eq!(transcoder.broken, 0, "seed {seed}");
        // It still hears.
        let sent = tone(697.0, 8_000);
        let (mut ours, mut heard) = (self::transcoder(), vec![]);
        for chunk in sent.chunks(160) {
            heard.extend_from_slice(transcoder.decode(ours.encode(chunk)).unwrap());
        }
        let (_, clear) = measure(&heard[4_000..], 697.0);
        assert!(clear > 9.0, "seed {seed}: {clear} dB");
    }
}

#[test]
fn a_lost_packet_fades_out_of_what_follows() {
    let sent = tone(500.0, 16_000);
    for told in [true, false] {
        let (mut ours, mut theirs) = (transcoder(), transcoder());
        let mut tail = vec![];
        for (nth, chunk) in sent.chunks(160).enumerate() {
            let payload = ours.encode(chunk).to_vec();
            if nth % 10 == 3 {
                if told {
                    theirs.lose(1);
                }
                continue;
            }
            let codes = theirs.decode(&payload).unwrap();
            // The three packets before the next is lost.
            if nth > 20 && matches!(nth % 10, 0..=2) {
                tail.push(measure(codes, 500.0).1);
            }
        }
        let clear = tail.iter().sum::<f32>() / tail.len() as f32;
        assert!(clear > 10.0, "told {told}: {clear} dB");
    }
}

mod recovery;
