//! Streams that speak Opus hear lost packets from the copies that the next ones hold.
#![cfg(feature = "opus")]

use super::*;
use crate::rtp::quality::Mos;
use crate::sip::offer::Opus;

fn agreed(remote: ([u8; 4], u16), recovers: bool) -> Negotiated {
    Negotiated {
        codec: Codec::Opus,
        opus: Some(Opus { sent: 111, received: 111, recovers, ..Opus::default() }),
        events_out: Some((110, 48_000)),
        events_in: Some((110, 48_000)),
        ..negotiated(remote)
    }
}

/// A speaks to B, with copies or without.
fn pair(copies: bool) -> Pair {
    Pair::with(agreed(B, copies), agreed(A, true))
}

/// Something like voice: harmonics that swell and fade, never quite to nothing.
fn voice(samples: usize) -> Vec<u8> {
    let sample = |n: usize| {
        let t = n as f32 / 8_000.0;
        let sum: f32 =
            (1..16u8).map(|h| (t * 754.0 * f32::from(h)).sin() / f32::from(h).sqrt()).sum();
        sum * (1.1 + (t * 20.0).sin()) * 1_000.0
    };
    (0..samples).map(|n| codec::encode(Law::Mu, sample(n) as i16)).collect()
}

fn speak(pair: &mut Pair) {
    let sound = voice(80_000);
    let clip = Clip::new(sound.clone().into(), sound.into());
    let play = Command::Play { id: PlayId(1), clips: vec![clip], barge_in: false };
    pair.a.stream.command(pair.now, play);
}

/// What B hears of a voice.
fn heard(lose: fn(u64) -> bool, copies: bool) -> (Vec<u8>, Counters) {
    let mut pair = pair(copies);
    pair.lose = lose;
    speak(&mut pair);
    pair.turns(200);
    pair.lose = |_| false;
    pair.turns(5);
    (pair.b.heard, pair.b.stream.counters())
}

fn correlation(a: &[u8], b: &[u8]) -> f32 {
    let sample = |code: &u8| f32::from(codec::decode(Law::Mu, *code));
    let dot = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| sample(a) * sample(b)).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1.0)
}

#[test]
fn a_lost_packet_is_heard_where_it_belongs() {
    let (whole, _) = heard(|_| false, true);
    let (holed, counters) = heard(|nth| nth % 7 == 3, true);
    assert_eq!((holed.len(), counters.lost), (whole.len(), 29), "{counters:?}");
    assert!(counters.recovered >= 20, "{counters:?}");
    let mut like = vec![];
    for (nth, (heard, said)) in holed.chunks(160).zip(whole.chunks(160)).enumerate().skip(7) {
        // The first number is 1.
        let is_lost = (nth + 1) % 7 == 3 && nth < 200;
        let silent = heard.iter().all(|&code| code == 0xff);
        assert!(is_lost || !silent, "frame {nth}");
        if is_lost && !silent {
            like.push(correlation(heard, said));
        }
    }
    assert!(like.len() as u64 >= counters.recovered - 1, "{} of {counters:?}", like.len());
    let like = like.iter().sum::<f32>() / like.len() as f32;
    println!("like what was said: {like:.3}");
    assert!(like > 0.8, "{like}");
    let (holed, counters) = heard(|nth| nth % 7 == 3, false);
    assert_eq!((holed.len(), counters.lost, counters.recovered), (whole.len(), 29, 0));
}

#[test]
fn without_loss_nothing_comes_later_or_otherwise_for_it() {
    let mut pair = pair(true);
    speak(&mut pair);
    for turn in 1..100 {
        pair.turn();
        assert_eq!(pair.b.heard.len(), turn * SAMPLES);
    }
    assert_eq!(pair.b.stream.counters().recovered, 0);
}

#[test]
fn of_two_in_a_row_the_second_is_heard() {
    let (whole, _) = heard(|_| false, true);
    let (holed, counters) = heard(|nth| nth >= 40 && matches!(nth % 10, 4 | 5), true);
    assert_eq!((holed.len(), counters.lost), (whole.len(), 32), "{counters:?}");
    assert!((9..=16).contains(&counters.recovered), "{counters:?}");
    let frame = |sound: &[u8], nth: usize| sound[(nth - 1) * SAMPLES..nth * SAMPLES].to_vec();
    let (mut silent, mut alike) = (0, vec![]);
    for nth in (44..200).step_by(10) {
        silent += usize::from(frame(&holed, nth).iter().all(|&code| code == 0xff));
        alike.push(correlation(&frame(&holed, nth + 1), &frame(&whole, nth + 1)));
    }
    let good = alike.iter().filter(|&&alike| alike > 0.6).count();
    assert!(silent == 16 && good >= 9, "{silent} silent, {alike:?}");
}

#[test]
fn what_is_lost_at_the_end_stays_lost_whoever_speaks_next() {
    let mut pair = pair(true);
    pair.lose = |nth| nth >= 50;
    speak(&mut pair);
    pair.turns(60);
    assert_eq!(pair.b.heard.len(), 49 * SAMPLES);
    // Another stream of the same peer.
    pair.lose = |_| false;
    pair.a.stream.out.ssrc += 1;
    pair.turns(10);
    let Counters { recovered, malformed, ssrc_changes, .. } = pair.b.stream.counters();
    assert_eq!((recovered, malformed, ssrc_changes), (0, 0, 1));
    assert_eq!(pair.b.heard.len(), 59 * SAMPLES);
}

#[test]
fn keys_as_tones_are_told_once_across_lost_packets() {
    let keys = |copies: bool, ms: u16, lose: fn(u64) -> bool| {
        let mut pair = pair(copies);
        pair.lose = lose;
        pair.turns(10);
        pair.press(CARD, Method::InBand, ms);
        pair.turns(240);
        (pair.b.keys, pair.b.stream.counters().recovered)
    };
    let loss: [fn(u64) -> bool; 7] = [
        |nth| nth % 7 == 0,
        |nth| nth % 7 == 1,
        |nth| nth % 7 == 2,
        |nth| nth % 7 == 3,
        |nth| nth % 7 == 4,
        |nth| nth % 7 == 5,
        |nth| nth % 7 == 6,
    ];
    for ms in [60, 100] {
        let (mut with, mut without) = (0, 0);
        for lose in loss {
            let (heard, recovered) = keys(true, ms, lose);
            let (holed, _) = keys(false, ms, lose);
            println!("{ms} ms, with copies {heard}, {recovered} recovered; without {holed}");
            assert!(recovered > 3, "{recovered}");
            // As they were pressed, though some may be missing.
            assert!(heard.chars().all(|key| CARD.contains(key)) && heard.len() <= CARD.len());
            with += heard.len();
            without += holed.len();
        }
        println!("{ms} ms: {with} and {without} of {}", 7 * CARD.len());
        assert!(with > without || with == 7 * CARD.len(), "{ms} ms: {with}, {without}");
    }
}

#[test]
fn events_are_heard_as_ever_and_what_came_before_them_is_not_heard_again() {
    // A speaks until it presses a key, and goes on after it.
    for (lost, name) in [(10, "sound"), (11, "the beginning"), (17, "the end"), (18, "sound")] {
        let mut pair = pair(true);
        pair.turns(1);
        pair.lose = match lost {
            10 => |nth| nth == 10,
            11 => |nth| nth == 11,
            17 => |nth| nth == 17,
            _ => |nth| nth == 18,
        };
        speak(&mut pair);
        pair.turns(9);
        pair.press("5", Method::Events, 100);
        pair.turns(30);
        let counters = pair.b.stream.counters();
        assert_eq!((pair.b.keys.as_str(), counters.lost), ("5", 1), "{name}");
        assert_eq!(counters.recovered, 0, "{name}: {lost}");
    }
}

#[test]
fn sound_that_was_not_sent_is_not_made_up_of_a_copy() {
    for (pause, recovered) in [(0, 1), (1, 0), (5, 0), (1 << 20, 0)] {
        let mut sender = pair(true);
        speak(&mut sender);
        let mut pair = pair(true);
        let mut packet = [0; PACKET_MAX];
        for nth in 0..60 {
            let now = pair.now + TURN * nth;
            let len = sender.a.stream.transmit(now, &mut packet).unwrap();
            if nth == 40 {
                // Lost, and then nothing was sent for a while.
                continue;
            }
            let Packet { mut header, payload, .. } = Packet::parse(&packet[..len]).unwrap();
            if nth > 40 {
                header.timestamp = header.timestamp.wrapping_add(pause * 960);
            }
            let packet = [&header.bytes()[..], payload].concat();
            pair.b.stream.receive(now, A.into(), &packet);
            pair.b.settle();
        }
        let counters = pair.b.stream.counters();
        assert_eq!((counters.lost, counters.recovered), (1, recovered), "{pause} not sent");
    }
}

#[test]
fn a_peer_that_reports_loss_gets_copies() {
    let scarce = |agreed: Negotiated| Negotiated {
        opus: agreed.opus.map(|opus| Opus { bitrate_max: Some(18_000), ..opus }),
        rtcp: Some(Rtcp::Muxed),
        ..agreed
    };
    let mut pair = Pair::with(scarce(agreed(B, true)), scarce(agreed(A, true)));
    speak(&mut pair);
    pair.lose = |nth| nth % 4 == 0;
    let mut packet = [0; PACKET_MAX];
    while pair.a.stream.counters().rtcp == 0 {
        pair.turn();
        if let Some((len, _)) = pair.b.stream.report(pair.now, &mut packet) {
            pair.a.stream.receive(pair.now, B.into(), &packet[..len]);
        }
    }
    // Until then it had no bits for them.
    assert_eq!(pair.b.stream.counters().recovered, 0);
    pair.turns(100);
    let quality = pair.b.stream.quality();
    assert!(quality.recovered > 15, "{quality}");
    assert!(quality.to_string().contains(" of them recovered"), "{quality}");
    let unheard = quality.lost - quality.recovered;
    assert_eq!(quality.mos, Some(Mos::of(unheard, quality.expected, TURN)));
}

#[test]
fn joined_calls_hear_them_too() {
    let now = Instant::now();
    let mut ends: Vec<End> = [(1, A), (2, B), (3, A), (4, B)]
        .into_iter()
        .map(|(seed, address)| End::new(now, seed, address))
        .collect();
    // Caller, ours to the caller, ours to the agent, agent.
    for (nth, agreed) in
        [(0, agreed(B, true)), (1, agreed(A, true)), (2, negotiated(B)), (3, negotiated(A))]
    {
        ends[nth].stream.command(now, Command::Negotiated(agreed));
    }
    let sound = voice(80_000);
    let clip = Clip::new(sound.clone().into(), sound.into());
    let play = Command::Play { id: PlayId(1), clips: vec![clip], barge_in: false };
    ends[0].stream.command(now, play);
    let [caller, ours, other, agent] = &mut ends[..] else { unreachable!() };
    ours.stream.join();
    other.stream.join();
    let mut packet = [0; PACKET_MAX];
    for turn in 0..100 {
        let now = now + TURN * turn;
        let len = caller.stream.transmit(now, &mut packet).unwrap();
        if turn % 7 != 3 {
            ours.stream.receive(now, A.into(), &packet[..len]);
        }
        ours.stream.exchange(now, &mut other.stream);
        let mut len = other.stream.transmit(now, &mut packet);
        while let Some(ready) = len {
            agent.stream.receive(now, A.into(), &packet[..ready]);
            len = other.stream.transmit_more(&mut packet);
        }
        agent.settle();
    }
    let counters = ours.stream.counters();
    assert!(counters.lost >= 13 && counters.recovered >= 10, "{counters:?}");
    let silent = agent.heard.chunks(160).skip(10).filter(|frame| power(frame) < 1e4).count();
    assert!(silent <= 4, "{silent} of {}", agent.heard.len() / 160);
}

fn power(codes: &[u8]) -> f32 {
    let squares = codes.iter().map(|&code| f32::from(codec::decode(Law::Mu, code)).powi(2));
    squares.sum::<f32>() / codes.len() as f32
}
