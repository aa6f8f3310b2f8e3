//! Streams that speak Opus: another clock, packets that remember what came before, numbers of
//! payload types that each side chooses.
#![cfg(feature = "opus")]

use super::*;
use crate::sip::offer::Opus;

/// A peer that wants 96 and 97 and gets 111 and 110.
fn ours(remote: ([u8; 4], u16)) -> Negotiated {
    Negotiated {
        codec: Codec::Opus,
        opus: Some(Opus { sent: 96, received: 111, ..Opus::default() }),
        events_out: Some((97, 48_000)),
        events_in: Some((110, 48_000)),
        ..negotiated(remote)
    }
}

fn theirs(remote: ([u8; 4], u16)) -> Negotiated {
    let agreed = ours(remote);
    Negotiated {
        opus: Some(Opus { sent: 111, received: 96, ..Opus::default() }),
        events_out: agreed.events_in,
        events_in: agreed.events_out,
        ..agreed
    }
}

fn pair() -> Pair {
    Pair::with(theirs(B), ours(A))
}

#[test]
fn keys_and_sound_pass_in_opus_with_loss_and_jitter() {
    for method in [Method::Events, Method::InBand] {
        let mut pair = pair();
        pair.lose = |nth| nth % 29 == 0;
        pair.jitter_ms = |nth| nth * 7919 % 45;
        pair.turns(10);
        pair.press(CARD, method, 100);
        pair.turns(200);
        assert_eq!((pair.b.keys.as_str(), pair.a.pressed), (CARD, 1), "{method:?}");
        let Counters { unknown_type, malformed, .. } = pair.b.stream.counters();
        assert_eq!((unknown_type, malformed), (0, 0));
    }
}

#[test]
fn jitter_and_reports_are_told_on_its_clock() {
    let mut pair = Pair::with(
        Negotiated { rtcp: Some(Rtcp::Muxed), ..theirs(B) },
        Negotiated { rtcp: Some(Rtcp::Muxed), ..ours(A) },
    );
    pair.jitter_ms = |nth| nth * 7919 % 10;
    let mut reported = None;
    for _ in 0..600 {
        pair.turn();
        let mut packet = [0; PACKET_MAX];
        if let Some((len, _)) = pair.a.stream.report(pair.now, &mut packet) {
            // RTP timestamp of the sender report, RFC 3550 §6.4.1.
            let sent: [u8; 4] = packet[16..20].try_into().unwrap();
            let clock = pair.a.stream.out.clock.at(pair.a.stream.out.timestamp);
            assert!(clock.wrapping_sub(u32::from_be_bytes(sent)) <= 2 * 960);
            reported = Some(len);
        }
    }
    assert!(reported.is_some());
    let quality = pair.b.stream.quality();
    assert!(quality.jitter < Duration::from_millis(10), "{:?}", quality.jitter);
    assert!(quality.jitter > Duration::from_millis(1), "{:?}", quality.jitter);
    assert_eq!(quality.lost, 0);
}

/// What one stream sends in some turns: headers and payloads.
fn sent(stream: &mut Stream, now: Instant, turns: u32) -> Vec<(Header, Vec<u8>)> {
    let mut all = vec![];
    for turn in 0..turns {
        let mut packet = [0; PACKET_MAX];
        let Some(len) = stream.transmit(now + TURN * turn, &mut packet) else { continue };
        let packet = Packet::parse(&packet[..len]).unwrap();
        all.push((packet.header, packet.payload.to_vec()));
    }
    all
}

#[test]
fn timestamps_and_durations_of_what_we_send_are_in_ticks_of_48_000() {
    let now = Instant::now();
    for (clock, step) in [(48_000, 960u32), (8_000, 160)] {
        let mut stream = Stream::new(setup(9), Latch::Strict, now);
        let agreed = Negotiated { events_out: Some((97, clock)), ..ours(B) };
        stream.command(now, Command::Negotiated(agreed));
        let keys = vec![Digit::from_key('5').unwrap()];
        let method = Method::Events;
        stream.command(now, Command::Press { keys, method, on_ms: 3_000, off_ms: 100 });
        let packets = sent(&mut stream, now, 200);
        let start = packets[0].0.timestamp;
        // Segments of at most 65,535 ticks (RFC 4733 §2.5.1.3), each with a duration of its own.
        let events = packets.iter().filter(|(header, _)| header.payload_type == 97);
        let (mut segment, mut count) = (0, 0);
        for (nth, (header, payload)) in events.enumerate() {
            let since = header.timestamp.wrapping_sub(start);
            let duration = u32::from(u16::from_be_bytes([payload[2], payload[3]]));
            assert!(since >= segment, "{nth}");
            segment = since;
            // Timestamps are the sound's, whatever the event's own clock.
            let whole = u64::from(since) * u64::from(clock) / 48_000 + u64::from(duration);
            assert_eq!(whole, u64::from(step * (nth as u32 + 1).min(150)), "{nth} at {clock}");
            count += 1;
        }
        assert_eq!(count, 152);
        assert_eq!(segment, if clock == 48_000 { 2 * 65_280 } else { 0 });
        let audio: Vec<_> =
            packets.iter().filter(|(header, _)| header.payload_type == 96).collect();
        assert!(audio.len() > 30);
        for pair in audio.windows(2) {
            assert_eq!(pair[1].0.timestamp.wrapping_sub(pair[0].0.timestamp), 960);
        }
        // The turns are 20 ms, those of the event too.
        assert_eq!(audio[0].0.timestamp.wrapping_sub(start), 152 * 960);
        assert!(audio.iter().all(|(_, payload)| payload.len() < 100));
    }
}

#[test]
fn a_long_key_is_one_and_the_same_key_twice_is_two_whatever_the_clock_of_events() {
    for clock in [48_000, 8_000, 16_000] {
        let with = |agreed: Negotiated| Negotiated {
            events_out: agreed.events_out.map(|(kind, _)| (kind, clock)),
            events_in: agreed.events_in.map(|(kind, _)| (kind, clock)),
            ..agreed
        };
        let mut pair = Pair::with(with(theirs(B)), with(ours(A)));
        pair.lose = |nth| nth % 7 == 3;
        pair.turns(5);
        pair.press("5", Method::Events, 4_000);
        pair.turns(420);
        assert_eq!(pair.b.keys, "5", "{clock}");
        pair.press("5599", Method::Events, 60);
        pair.turns(60);
        assert_eq!(pair.b.keys, "55599", "{clock}");
    }
}

#[test]
fn a_press_that_comes_as_tone_and_event_is_one() {
    let mut pair = pair();
    pair.turns(50);
    let start = pair.a.stream.out.timestamp;
    pair.press("5", Method::InBand, 60);
    pair.turns(10);
    assert_eq!(pair.b.keys, "5");
    let (sequence, ssrc) = (pair.a.stream.out.sequence, pair.a.stream.out.ssrc);
    let timestamp = pair.a.stream.out.clock.at(start);
    let header = Header { marker: true, payload_type: 110, sequence, timestamp, ssrc };
    let event = [&header.bytes()[..], &[5, 10, 0x0f, 0x00]].concat();
    pair.b.stream.receive(pair.now, A.into(), &event);
    pair.b.settle();
    assert_eq!(pair.b.keys, "5");
}

/// Loudness of heard mu-law in these samples.
fn power(codes: &[u8]) -> f32 {
    let squares = codes.iter().map(|&code| f32::from(codec::decode(Law::Mu, code)).powi(2));
    squares.sum::<f32>() / codes.len() as f32
}

#[test]
fn prompts_are_heard_as_they_are_and_end_in_silence() {
    let sound: Vec<u8> = (0..16_000)
        .map(|n| (n as f32 * 0.4).sin() * 6_000.0)
        .map(|sample| codec::encode(Law::Mu, sample as i16))
        .collect();
    for ptime_ms in [20, 40, 60] {
        let mut pair = Pair::with(theirs(B), Negotiated { ptime_ms, ..ours(A) });
        pair.turns(30);
        let clip = Clip::new(sound.clone().into(), sound.clone().into());
        let clips = vec![clip.clone(), clip];
        pair.b.stream.command(pair.now, Command::Play { id: PlayId(7), clips, barge_in: true });
        pair.turns(300);
        assert_eq!(pair.b.ended, [(PlayId(7), true)]);
        let sent = pair.b.stream.counters().sent;
        assert_eq!(sent, 330 * 20 / u64::from(ptime_ms));
        let heard = &pair.a.heard;
        let loud = heard.iter().position(|&code| power(&[code]) > 1e6).unwrap();
        // Nothing is missing at the beginning nor where the clips meet.
        for codes in heard[loud + 400..loud + 31_600].chunks(400) {
            let ratio = power(codes) / power(&sound);
            assert!((0.6..1.5).contains(&ratio), "{ptime_ms} ms: {ratio}");
        }
        assert!(power(&heard[loud + 33_500..]) < 1_000.0, "silence behind it");
    }
}

#[test]
fn a_re_invite_changes_the_codec_in_the_middle_of_a_key() {
    let mut pair = Pair::new();
    pair.press(CARD, Method::InBand, 80);
    let mut last: Option<u32> = None;
    for (turns, opus) in [(40, false), (40, true), (40, false), (150, true)] {
        let (a, b) = if opus { (theirs(B), ours(A)) } else { (negotiated(B), negotiated(A)) };
        pair.a.stream.command(pair.now, Command::Negotiated(a));
        pair.b.stream.command(pair.now, Command::Negotiated(b));
        let out = &pair.a.stream.out;
        let at = out.clock.at(out.timestamp);
        // What is on the wire goes on where it was (RFC 7160).
        assert!(last.is_none_or(|last| last == at));
        pair.turns(turns);
        let out = &pair.a.stream.out;
        last = Some(out.clock.at(out.timestamp));
    }
    let heard = pair.b.keys.len();
    assert!((CARD.len() - 3..=CARD.len() + 1).contains(&heard), "{}", pair.b.keys);
    assert_eq!(pair.b.stream.counters().unknown_type, 0);
}

#[test]
fn what_cannot_be_decoded_is_counted_and_long_packets_are_taken() {
    let mut pair = pair();
    pair.turns(5);
    let (sequence, ssrc) = (pair.a.stream.out.sequence, pair.a.stream.out.ssrc);
    let timestamp = pair.a.stream.out.clock.at(pair.a.stream.out.timestamp);
    let send = |pair: &mut Pair, nth: u16, payload: &[u8]| {
        let sequence = sequence.wrapping_add(nth);
        let timestamp = timestamp.wrapping_add(960 * u32::from(nth));
        let header = Header { marker: false, payload_type: 111, sequence, timestamp, ssrc };
        pair.b.stream.receive(pair.now, A.into(), &[&header.bytes()[..], payload].concat());
        pair.b.settle();
        pair.b.stream.counters().malformed
    };
    // A frame count of none, and 120 ms.
    assert_eq!(send(&mut pair, 0, &[0x0b, 0]), 1);
    assert_eq!(send(&mut pair, 1, &[0x1f, 2, 1, 2]), 2);
    let before = pair.b.heard.len();
    // One frame of 20 ms, and padding behind it (RFC 6716 §3.2.5).
    let mut padded = vec![0x0b, 0x41, 255, 255, 255, 200, 9, 9, 9];
    padded.resize(padded.len() + 3 * 254 + 200, 0);
    assert_eq!(send(&mut pair, 2, &padded), 2);
    assert!(pair.b.heard.len() >= before + SAMPLES);
    assert_eq!(send(&mut pair, 3, &[0x08; 1_277]), 3);
    assert_eq!(pair.b.stream.counters().lost, 0);
}

#[test]
fn joined_calls_hear_each_other_across_codecs_and_clocks() {
    for events in [true, false] {
        let now = Instant::now();
        let mut ends: Vec<End> = [(1, A), (2, B), (3, A), (4, B)]
            .into_iter()
            .map(|(seed, address)| End::new(now, seed, address))
            .collect();
        let narrow = |remote| Negotiated { ptime_ms: 60, ..negotiated(remote) };
        // Caller, ours to the caller, ours to the agent, agent.
        for (nth, agreed) in [(0, theirs(B)), (1, ours(A)), (2, negotiated(B)), (3, narrow(A))] {
            let agreed = match events {
                true => agreed,
                false => Negotiated { events_out: None, events_in: None, ..agreed },
            };
            ends[nth].stream.command(now, Command::Negotiated(agreed));
        }
        let key = |keys: &str| keys.chars().filter_map(Digit::from_key).collect();
        for (nth, keys) in [(0, "159#"), (3, "42")] {
            let method = if events { Method::Events } else { Method::InBand };
            let press = Command::Press { keys: key(keys), method, on_ms: 100, off_ms: 100 };
            ends[nth].stream.command(now, press);
        }
        let [caller, ours, other, agent] = &mut ends[..] else { unreachable!() };
        ours.stream.join();
        other.stream.join();
        for turn in 0..90 {
            let now = now + TURN * turn;
            let mut packet = [0; PACKET_MAX];
            let callers = [(&mut *caller, &mut *ours, A), (&mut *agent, &mut *other, B)];
            for (from, to, address) in callers {
                if let Some(len) = from.stream.transmit(now, &mut packet) {
                    to.stream.receive(now, address.into(), &packet[..len]);
                }
            }
            ours.stream.exchange(now, &mut other.stream);
            let ours = [(&mut *ours, &mut *caller, B), (&mut *other, &mut *agent, A)];
            for (from, to, address) in ours {
                let mut len = from.stream.transmit(now, &mut packet);
                while let Some(ready) = len {
                    to.stream.receive(now, address.into(), &packet[..ready]);
                    len = from.stream.transmit_more(&mut packet);
                }
            }
            caller.settle();
            agent.settle();
        }
        assert_eq!((agent.keys.as_str(), caller.keys.as_str()), ("159#", "42"), "{events}");
        assert_eq!(agent.stream.counters().malformed + caller.stream.counters().malformed, 0);
    }
}
