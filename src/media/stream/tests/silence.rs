//! What is sent while there is nothing to say.

use super::*;

fn quiet(silence: Silence) -> Negotiated {
    Negotiated { silence, ..negotiated(B) }
}

/// What a stream sends in these turns: payload type, marker, timestamp since the first turn.
fn sent(stream: &mut Stream, start: Instant, turns: std::ops::Range<u32>) -> Vec<(u8, bool, u32)> {
    let mut sent = vec![];
    for turn in turns {
        let mut packet = [0; PACKET_MAX];
        let Some(len) = stream.transmit(start + TURN * turn, &mut packet) else { continue };
        let Packet { header, payload } = Packet::parse(&packet[..len]).unwrap();
        assert!(header.payload_type != COMFORT_NOISE || payload == [70]);
        let since = header.timestamp.wrapping_sub(setup(9).timestamp);
        sent.push((header.payload_type, header.marker, since / 160));
    }
    sent
}

#[test]
fn silence_is_packets_or_comfort_noise_or_nothing() {
    for (silence, expected) in [
        (Silence::Packets, vec![(0, true, 0)]),
        (Silence::ComfortNoise, vec![(13, false, 9), (13, false, 19), (13, false, 29)]),
        (Silence::Nothing, vec![]),
    ] {
        let start = Instant::now();
        let mut stream = Stream::new(setup(9), Latch::Strict, start);
        stream.command(start, Command::Negotiated(quiet(silence)));
        let first = sent(&mut stream, start, 0..30);
        match silence {
            Silence::Packets => assert_eq!((first.len(), first[0]), (30, expected[0])),
            _ => assert_eq!(first, expected),
        }
        // Sound in between: on the clock, marked where a pause ends, silence right behind it.
        let clips = vec![Clip::new([1; 480].into(), [1; 480].into())];
        let play = Command::Play { id: PlayId(1), clips, barge_in: true };
        stream.command(start + TURN * 30, play);
        let then = sent(&mut stream, start, 30..36);
        let said = [(0, silence != Silence::Packets, 30), (0, false, 31), (0, false, 32)];
        assert_eq!(then[..3], said, "{silence:?}");
        match silence {
            Silence::Packets => assert_eq!(then.len(), 6),
            Silence::ComfortNoise => assert_eq!(then[3..], [(13, false, 33)]),
            Silence::Nothing => assert_eq!(then.len(), 3),
        }
    }
}

#[test]
fn keys_are_pressed_out_of_silence_and_heard() {
    for silence in [Silence::ComfortNoise, Silence::Nothing] {
        for method in [Method::Events, Method::InBand] {
            let mut pair = Pair::with(quiet(silence), negotiated(A));
            pair.turns(50);
            pair.press(CARD, method, 80);
            pair.turns(200);
            assert_eq!(pair.b.keys, CARD, "{silence:?} {method:?}");
            let Counters { lost, unknown_type, malformed, .. } = pair.b.stream.counters();
            assert_eq!((lost, unknown_type, malformed), (0, 0, 0));
        }
    }
}

#[test]
fn silence_goes_on_as_packets_until_the_peer_is_certain() {
    let start = Instant::now();
    let mut stream = Stream::new(setup(9), Latch::Nat, start);
    stream.command(start, Command::Negotiated(quiet(Silence::Nothing)));
    assert_eq!(sent(&mut stream, start, 0..10).len(), 10, "they open the way through its NAT");
}

#[test]
fn longer_packets_are_filled_before_silence_falls() {
    let start = Instant::now();
    let mut stream = Stream::new(setup(9), Latch::Strict, start);
    let agreed = Negotiated { ptime_ms: 60, ..quiet(Silence::Nothing) };
    stream.command(start, Command::Negotiated(agreed));
    let clips = vec![Clip::new([1; 160].into(), [1; 160].into())];
    stream.command(start, Command::Play { id: PlayId(1), clips, barge_in: true });
    assert_eq!(sent(&mut stream, start, 0..20), [(0, true, 0)]);
}
