//! What comes in, packet by packet as peers send it, and what is heard of it.

use super::*;

/// A stream that listens, and one peer that is played by hand.
struct Peer {
    start: Instant,
    end: End,
    header: Header,
}

impl Peer {
    fn new() -> Peer {
        let start = Instant::now();
        let mut end = End::new(start, 2, B);
        end.stream.command(start, Command::Negotiated(negotiated(A)));
        let header =
            Header { marker: true, payload_type: 0, sequence: 0xfffe, timestamp: 0, ssrc: 9 };
        Peer { start, end, header }
    }

    fn arrive(&mut self, ms: u64, bytes: &[u8]) {
        self.end.stream.receive(self.start + Duration::from_millis(ms), A.into(), bytes);
        self.end.settle();
    }

    /// A packet with this sound; number and timestamp go on behind it.
    fn say(&mut self, ms: u64, sound: &[u8]) {
        let packet = [&self.header.bytes()[..], sound].concat();
        self.arrive(ms, &packet);
        self.header.sequence = self.header.sequence.wrapping_add(1);
        self.header.timestamp = self.header.timestamp.wrapping_add(sound.len() as u32);
    }

    fn heard(&self) -> Vec<u8> {
        self.end.heard.clone()
    }

    fn counters(&self) -> Counters {
        self.end.stream.counters()
    }
}

/// `bytes` of sound that tells every sample from the next.
fn sound(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 100) as u8).collect()
}

#[test]
fn packets_of_10_to_60_ms_are_heard_alike() {
    let whole = sound(4_800);
    for ms in [10, 20, 30, 40, 50, 60] {
        let mut peer = Peer::new();
        for (nth, payload) in whole.chunks(ms * 8).enumerate() {
            peer.say((nth * ms) as u64, payload);
        }
        assert_eq!(peer.heard(), whole, "{ms} ms");
    }
    // And one that cannot decide.
    let mut peer = Peer::new();
    let mut rest = &whole[..];
    for (nth, ms) in [10usize, 60, 20, 40, 30, 10, 50].into_iter().cycle().enumerate() {
        let (now, later) = rest.split_at((ms * 8).min(rest.len()));
        peer.say(nth as u64 * 20, now);
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(peer.heard(), whole);
}

#[test]
fn csrcs_header_extensions_and_padding_are_not_heard() {
    let mut peer = Peer::new();
    let sound = sound(1_600);
    for (nth, payload) in sound.chunks(160).enumerate() {
        let mut packet = peer.header.bytes().to_vec();
        packet[0] |= 1 << 5 | 1 << 4 | 2;
        packet.extend_from_slice(&[7; 8]);
        packet.extend_from_slice(&[0xbe, 0xde, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
        packet.extend_from_slice(payload);
        packet.extend_from_slice(&[0, 0, 0, 4]);
        peer.arrive(nth as u64 * 20, &packet);
        peer.header.sequence = peer.header.sequence.wrapping_add(1);
        peer.header.timestamp += 160;
    }
    assert_eq!(peer.heard(), sound);
    assert_eq!(peer.counters().malformed, 0);
}

#[test]
fn numbers_and_timestamps_wrap_unheard() {
    let mut peer = Peer::new();
    (peer.header.sequence, peer.header.timestamp) = (0xfff0, u32::MAX - 1_000);
    let sound = sound(8_000);
    for (nth, payload) in sound.chunks(160).enumerate() {
        peer.say(nth as u64 * 20, payload);
    }
    assert_eq!(peer.heard(), sound);
    assert_eq!((peer.counters().lost, peer.counters().ssrc_changes), (0, 0));
}

#[test]
fn a_gap_in_timestamps_alone_is_silence_and_no_loss() {
    let mut peer = Peer::new();
    peer.say(0, &[1; 160]);
    // Nothing was said for 100 ms (DTX): numbers go on, the clock has run.
    peer.header.timestamp += 800;
    peer.header.marker = true;
    peer.say(120, &[2; 160]);
    assert_eq!(peer.heard(), [[1; 160].to_vec(), vec![0xff; 800], vec![2; 160]].concat());
    assert_eq!(peer.counters().lost, 0);
    let quality = peer.end.stream.quality();
    assert_eq!((quality.lost, quality.jitter_max), (0, Duration::ZERO), "{quality}");
}

#[test]
fn comfort_noise_is_silence() {
    let mut peer = Peer::new();
    peer.say(0, &[1; 160]);
    peer.header.payload_type = 13;
    for nth in 0..5 {
        let packet = [&peer.header.bytes()[..], &[60, 30, 20]].concat();
        peer.arrive(20 + nth * 20, &packet);
        peer.header.sequence = peer.header.sequence.wrapping_add(1);
        peer.header.timestamp += 160;
    }
    peer.header.payload_type = 0;
    peer.say(120, &[2; 160]);
    assert_eq!(peer.heard(), [[1; 160].to_vec(), vec![0xff; 800], vec![2; 160]].concat());
    let Counters { lost, unknown_type, malformed, .. } = peer.counters();
    assert_eq!((lost, unknown_type, malformed), (0, 0, 0));
}

#[test]
fn a_jump_of_the_timestamp_either_way_loses_no_sound_and_no_key() {
    for jump in [1_000_000u32, 1 << 31, u32::MAX - 500_000, 7] {
        let mut peer = Peer::new();
        peer.say(0, &[1; 160]);
        peer.header.timestamp = peer.header.timestamp.wrapping_add(jump);
        for nth in 1..20 {
            peer.say(nth * 20, &[2; 160]);
        }
        let heard = peer.heard();
        assert!(heard.starts_with(&[1; 160]) && heard.ends_with(&[2; 320]), "{jump}");
        assert_eq!(peer.counters().lost, 0);
        let event = Header { payload_type: 101, marker: true, ..peer.header };
        peer.arrive(400, &[&event.bytes()[..], &[5, 10, 0, 160]].concat());
        assert_eq!(peer.end.keys, "5", "{jump}");
    }
}

#[test]
fn a_new_ssrc_begins_anew_whatever_its_numbers() {
    let mut peer = Peer::new();
    for nth in 0..5 {
        peer.say(nth * 20, &[1; 160]);
    }
    peer.header.ssrc = 10;
    peer.header.sequence = peer.header.sequence.wrapping_sub(3);
    peer.header.timestamp = 77;
    for nth in 5..10 {
        peer.say(nth * 20, &[2; 160]);
    }
    assert_eq!(peer.heard(), [[1; 800], [2; 800]].concat());
    let counters = peer.counters();
    assert_eq!((counters.ssrc_changes, counters.lost, counters.duplicate), (1, 0, 0));
    assert_eq!(peer.end.stream.quality().expected, 10);
}

#[test]
fn a_gap_is_waited_for_as_long_as_packets_are_late_here() {
    // Up to 95 ms late, none lost: with 60 ms of patience some would come too late.
    let mut pair = Pair::new();
    pair.jitter_ms = |nth| if nth < 100 { nth % 2 * 60 } else { nth * 7919 % 96 };
    pair.turns(1_000);
    let Counters { late, lost, .. } = pair.b.stream.counters();
    assert!(late <= 2 && lost <= 2, "{late} late, {lost} lost");
    // Where nothing is late, a lost packet is given up after 40 ms.
    let mut peer = Peer::new();
    for nth in 0..50 {
        peer.say(nth * 20, &[1; 160]);
    }
    peer.header.sequence = peer.header.sequence.wrapping_add(1);
    peer.say(1_020, &[1; 160]);
    let mut packet = [0; PACKET_MAX];
    for (ms, lost) in [(1_059, 0), (1_060, 1)] {
        peer.end.stream.transmit(peer.start + Duration::from_millis(ms), &mut packet);
        assert_eq!(peer.counters().lost, lost, "{ms} ms");
    }
}
