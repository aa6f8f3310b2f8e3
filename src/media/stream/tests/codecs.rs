//! Streams that speak something else than G.711.
#![cfg(feature = "g722")]

use super::*;

fn wide(remote: ([u8; 4], u16)) -> Negotiated {
    Negotiated { codec: Codec::G722, ..negotiated(remote) }
}

#[test]
fn keys_and_sound_pass_in_g722_with_loss_and_jitter() {
    for method in [Method::Events, Method::InBand] {
        let mut pair = Pair::with(wide(B), wide(A));
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
    for ptime_ms in [20, 60] {
        let mut pair = Pair::with(wide(B), Negotiated { ptime_ms, ..wide(A) });
        pair.turns(30);
        let clip = Clip::new(sound.clone().into(), sound.clone().into());
        let clips = vec![clip.clone(), clip];
        pair.b.stream.command(pair.now, Command::Play { id: PlayId(7), clips, barge_in: true });
        pair.turns(300);
        assert_eq!(pair.b.ended, [(PlayId(7), true)]);
        let heard = &pair.a.heard;
        let loud = heard.iter().position(|&code| power(&[code]) > 1e6).unwrap();
        // Neither a click at the beginning nor where the clips meet.
        for codes in heard[loud..loud + 32_000].chunks(400) {
            let ratio = power(codes) / power(&sound);
            assert!((0.9..1.1).contains(&ratio), "{ptime_ms} ms: {ratio}");
        }
        assert!(power(&heard[loud + 32_500..]) < 1_000.0, "silence behind it");
    }
}

#[test]
fn our_side_of_a_recording_is_what_the_peer_hears() {
    let mut pair = Pair::with(wide(B), wide(A));
    pair.play(1, &[0x90; 1600], false);
    pair.turns(60);
    pair.b.stream.close();
    pair.b.settle();
    let ours: Vec<u8> = pair.b.recorded.iter().flat_map(|both| both[SAMPLES..].to_vec()).collect();
    assert_eq!(ours.iter().filter(|&&code| code == 0x90).count(), 1600);
}

#[test]
fn a_re_invite_changes_the_codec_in_the_middle_of_a_prompt() {
    let mut pair = Pair::new();
    pair.press(CARD, Method::InBand, 80);
    for (turns, codec) in
        [(40, Codec::Pcmu), (40, Codec::G722), (40, Codec::Pcma), (150, Codec::G722)]
    {
        let with = |remote| Negotiated { codec, ..negotiated(remote) };
        pair.a.stream.command(pair.now, Command::Negotiated(with(B)));
        pair.b.stream.command(pair.now, Command::Negotiated(with(A)));
        pair.turns(turns);
    }
    // A key that the change falls into may be heard as none or two, its neighbours may not.
    let heard = pair.b.keys.len();
    assert!((CARD.len() - 2..=CARD.len() + 1).contains(&heard), "{}", pair.b.keys);
    assert_eq!(pair.b.stream.counters().unknown_type, 0);
}

#[test]
fn joined_calls_hear_each_other_across_codecs() {
    let now = Instant::now();
    let mut ends: Vec<End> = [(1, A), (2, B), (3, A), (4, B)]
        .into_iter()
        .map(|(seed, address)| End::new(now, seed, address))
        .collect();
    // Caller, ours to the caller, ours to the agent, agent.
    for (nth, agreed) in [(0, wide(B)), (1, wide(A)), (2, negotiated(B)), (3, negotiated(A))] {
        let tones_only = Negotiated { events_out: None, events_in: None, ..agreed };
        ends[nth].stream.command(now, Command::Negotiated(tones_only));
    }
    let key = |keys: &str| keys.chars().filter_map(Digit::from_key).collect();
    for (nth, keys) in [(0, "159#"), (3, "42")] {
        let method = Method::InBand;
        let press = Command::Press { keys: key(keys), method, on_ms: 80, off_ms: 80 };
        ends[nth].stream.command(now, press);
    }
    let [caller, ours, other, agent] = &mut ends[..] else { unreachable!() };
    ours.stream.join();
    other.stream.join();
    for turn in 0..80 {
        let now = now + TURN * turn;
        let mut packet = [0; PACKET_MAX];
        for (from, to, address) in [(&mut *caller, &mut *ours, A), (&mut *agent, &mut *other, B)] {
            if let Some(len) = from.stream.transmit(now, &mut packet) {
                to.stream.receive(now, address.into(), &packet[..len]);
            }
        }
        ours.stream.exchange(now, &mut other.stream);
        for (from, to, address) in [(&mut *ours, &mut *caller, B), (&mut *other, &mut *agent, A)] {
            let mut len = from.stream.transmit(now, &mut packet);
            while let Some(ready) = len {
                to.stream.receive(now, address.into(), &packet[..ready]);
                len = from.stream.transmit_more(&mut packet);
            }
        }
        caller.settle();
        agent.settle();
    }
    assert_eq!((agent.keys.as_str(), caller.keys.as_str()), ("159#", "42"));
}
