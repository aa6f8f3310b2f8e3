//! Senders as found in the field, and what the network does to them.

use super::*;

const AUDIO: u32 = 160;

/// A sender as found in the field, at 20 ms per packet; `None` in place of audio packets.
#[derive(Clone)]
struct Phone {
    header: Header,
    sent: Vec<(Header, Option<[u8; 4]>)>,
}

impl Phone {
    fn new(sequence: u16, timestamp: u32) -> Phone {
        let header = Header { marker: false, payload_type: 101, sequence, timestamp, ssrc: 7 };
        let mut phone = Phone { header, sent: Vec::new() };
        phone.audio(10);
        phone
    }

    fn push(&mut self, marker: bool, timestamp: u32, payload: Option<[u8; 4]>) {
        self.sent.push((Header { marker, timestamp, ..self.header }, payload));
        self.header.sequence = self.header.sequence.wrapping_add(1);
    }

    fn audio(&mut self, packets: u32) {
        for _ in 0..packets {
            self.push(false, self.header.timestamp, None);
            self.header.timestamp = self.header.timestamp.wrapping_add(AUDIO);
        }
    }

    /// Presses `event` for `packets` turns through our own sender, then pauses.
    fn press(&mut self, event: u8, packets: u32, pause: u32) {
        let start = self.header.timestamp;
        let mut sender = Sender::new(event, start, packets * AUDIO, AUDIO);
        let mut turn = start;
        while let Some(packet) = sender.next(turn) {
            self.push(packet.marker, packet.timestamp, Some(packet.payload));
            if sender.is_held() {
                turn = turn.wrapping_add(AUDIO);
            }
        }
        self.header.timestamp = start.wrapping_add(packets * AUDIO);
        self.audio(pause);
    }

    fn press_all(&mut self, events: &[u8]) {
        for &event in events {
            self.press(event, 5, 4);
        }
    }

    fn events(&mut self) -> impl Iterator<Item = &mut (Header, Option<[u8; 4]>)> {
        self.sent.iter_mut().filter(|(_, payload)| payload.is_some())
    }
}

fn is_end(payload: &Option<[u8; 4]>) -> bool {
    payload.is_some_and(|p| p[1] & 0x80 != 0)
}

fn heard(phone: &Phone) -> Vec<u8> {
    heard_at(8000, phone)
}

fn heard_at(clock: u32, phone: &Phone) -> Vec<u8> {
    let mut receiver = Receiver::new(clock);
    let mut keys = vec![];
    for (header, payload) in &phone.sent {
        let Some(payload) = payload else { continue };
        if let Heard::Pressed(press) = receiver.receive(header, payload) {
            keys.push(press.event);
        }
    }
    keys
}

const CARD: [u8; 17] = [4, 1, 1, 1, 1, 1, 1, 2, 3, 3, 3, 9, 9, 0, 0, 5, 11];

fn card() -> Phone {
    let mut phone = Phone::new(1000, 50_000);
    phone.press_all(&CARD);
    phone
}

fn random(state: &mut u32) -> u32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *state >> 8
}

#[test]
fn sender_follows_the_rfc() {
    let mut phone = Phone::new(0, 0);
    phone.sent.clear();
    phone.press(5, 3, 0);
    let sent: Vec<_> = phone
        .sent
        .iter()
        .map(|(header, payload)| {
            let [event, flags, high, low] = payload.unwrap();
            let duration = u16::from_be_bytes([high, low]);
            (header.marker, header.timestamp, event, flags & 0x80 != 0, duration)
        })
        .collect();
    let start = 1600;
    assert_eq!(
        sent,
        [
            (true, start, 5, false, 160),
            (false, start, 5, false, 320),
            (false, start, 5, true, 480),
            (false, start, 5, true, 480),
            (false, start, 5, true, 480),
        ]
    );
    let sequences: Vec<_> = phone.sent.iter().map(|(header, _)| header.sequence).collect();
    assert_eq!(sequences, [10, 11, 12, 13, 14]);
}

#[test]
fn clean() {
    assert_eq!(heard(&card()), CARD);
}

#[test]
fn told_at_the_first_packet() {
    let phone = card();
    let (header, payload) = phone.sent.iter().find(|(_, p)| p.is_some()).unwrap();
    let told = Receiver::new(8000).receive(header, &payload.unwrap());
    let press = Press { event: 4, start: header.timestamp, duration: 160 };
    assert_eq!(told, Heard::Pressed(press));
}

#[test]
fn marker_missing_or_everywhere() {
    for marker in [false, true] {
        let mut phone = card();
        phone.events().for_each(|(header, _)| header.marker = marker);
        assert_eq!(heard(&phone), CARD);
    }
}

#[test]
fn first_packet_three_times_or_with_no_duration() {
    let mut phone = card();
    phone.sent = phone
        .sent
        .iter()
        .flat_map(|packet| vec![*packet; if packet.0.marker { 3 } else { 1 }])
        .collect();
    assert_eq!(heard(&phone), CARD);
    let mut phone = card();
    phone.events().filter(|(header, _)| header.marker).for_each(|(_, payload)| {
        *payload = payload.map(|[event, flags, ..]| [event, flags, 0, 0]);
    });
    assert_eq!(heard(&phone), CARD);
}

#[test]
fn timestamp_wraps_anywhere() {
    for offset in 0..200 {
        let mut phone = Phone::new(0, 0u32.wrapping_sub(offset * 97));
        phone.press_all(&CARD);
        assert_eq!(heard(&phone), CARD, "wrap after {offset} * 97 ticks");
    }
}

#[test]
fn sequence_wraps_anywhere() {
    for offset in 0..160 {
        let mut phone = Phone::new(0u16.wrapping_sub(offset), 0);
        phone.press_all(&CARD);
        assert_eq!(heard(&phone), CARD, "wrap after {offset} packets");
    }
}

#[test]
fn end_copies_with_new_timestamps() {
    let restamp = |phone: &mut Phone| {
        let mut copy = 0;
        phone.events().for_each(|(header, payload)| {
            copy = if is_end(payload) { copy + 1 } else { 0 };
            header.timestamp = header.timestamp.wrapping_add(AUDIO * u32::saturating_sub(copy, 1));
        });
    };
    for packets in 1..8 {
        let mut phone = Phone::new(0, u32::MAX - 3000);
        for event in CARD {
            phone.press(event, packets, 2);
        }
        restamp(&mut phone);
        assert_eq!(heard(&phone), CARD, "{packets} packets per press");
    }
}

#[test]
fn timestamp_that_runs_with_the_packets() {
    let mut phone = card();
    let mut start = 0;
    phone.events().for_each(|(header, payload)| {
        start = if header.marker { header.timestamp } else { start };
        let [_, _, high, low] = payload.unwrap();
        let duration = u32::from(u16::from_be_bytes([high, low]));
        header.timestamp = start.wrapping_add(duration - AUDIO);
    });
    assert_eq!(heard(&phone), CARD);
    // Even with a hole in the middle of each press.
    let mut nth = 0;
    phone.sent.retain(|(header, payload)| {
        nth = if header.marker { 0 } else { nth + 1 };
        payload.is_none() || !(1..=2).contains(&nth)
    });
    assert_eq!(heard(&phone), CARD);
}

#[test]
fn a_long_press_in_segments_is_one() {
    let mut phone = Phone::new(0, 4_000_000_000);
    phone.press(5, 1000, 4);
    phone.press(11, 5, 4);
    let starts: std::collections::BTreeSet<u32> = phone
        .sent
        .iter()
        .filter(|(_, p)| p.is_some_and(|p| p[0] == 5))
        .map(|(header, _)| header.timestamp)
        .collect();
    assert_eq!(starts.len(), 3, "20 s are three segments at 8 kHz");
    assert_eq!(heard(&phone), [5, 11]);
    // The last 100 ms of the first segment lost.
    let mut lossy = phone.clone();
    let full = lossy
        .sent
        .iter()
        .position(|(header, p)| p.is_some() && header.timestamp != phone.sent[10].0.timestamp);
    let full = full.unwrap();
    lossy.sent.drain(full - 5..full);
    assert_eq!(heard(&lossy), [5, 11]);
}

#[test]
fn segments_as_other_senders_cut_them() {
    // The full segment reports 0xffff, the next starts 0xffff later or at its own step.
    for next in [0xffff, 65_440] {
        let start = 77_000u32;
        let mut phone = Phone::new(0, start);
        phone.sent.clear();
        for duration in (160..65_400).step_by(160) {
            let [high, low] = (duration as u16).to_be_bytes();
            phone.push(duration == 160, start, Some([5, 10, high, low]));
        }
        phone.push(false, start, Some([5, 10, 0xff, 0xff]));
        for duration in (160..1600).step_by(160) {
            let [high, low] = (duration as u16).to_be_bytes();
            phone.push(false, start + next, Some([5, 10, high, low]));
        }
        assert_eq!(heard(&phone), [5], "next segment at {next}");
    }
}

#[test]
fn clocks_of_16_and_48_khz() {
    for clock in [16_000, 48_000] {
        let step = clock / 50;
        let mut phone = Phone::new(0, u32::MAX - 20_000);
        phone.sent.clear();
        let mut start = phone.header.timestamp;
        for event in [7, 7, 11] {
            let mut sender = Sender::new(event, start, clock * 3, step);
            let mut turn = start;
            while let Some(packet) = sender.next(turn) {
                phone.push(packet.marker, packet.timestamp, Some(packet.payload));
                turn = turn.wrapping_add(step);
            }
            start = start.wrapping_add(clock * 4);
        }
        assert_eq!(heard_at(clock, &phone), [7, 7, 11], "{clock} Hz");
    }
}

#[test]
fn all_ends_lost() {
    let mut phone = card();
    phone.sent.retain(|(_, payload)| !is_end(payload));
    assert_eq!(heard(&phone), CARD);
}

#[test]
fn the_same_key_twice_with_all_ends_lost_is_two() {
    let mut phone = Phone::new(0, u32::MAX - 500);
    phone.press(8, 2, 1);
    phone.press(8, 2, 1);
    phone.sent.retain(|(_, payload)| !is_end(payload));
    assert_eq!(heard(&phone), [8, 8]);
}

#[test]
fn rapid_same() {
    let mut phone = Phone::new(0, 0);
    (0..8).for_each(|_| phone.press(3, 2, 1));
    assert_eq!(heard(&phone), [3; 8]);
}

#[test]
fn starts_lost() {
    let mut phone = card();
    phone.sent.retain(|(_, payload)| payload.is_none() || is_end(payload));
    assert_eq!(heard(&phone), CARD);
}

#[test]
fn random_loss_loses_no_press_of_which_a_packet_arrived() {
    for percent in [1, 5, 10, 20, 30] {
        for seed in 0..200 {
            let mut state = seed;
            let mut phone = card();
            phone.sent.retain(|_| random(&mut state) % 100 >= percent);
            let mut starts = vec![];
            let mut expected = vec![];
            for (header, payload) in &phone.sent {
                let Some(payload) = payload else { continue };
                if !starts.contains(&header.timestamp) {
                    starts.push(header.timestamp);
                    expected.push(payload[0]);
                }
            }
            assert_eq!(heard(&phone), expected, "{percent} % seed {seed}");
        }
    }
}

#[test]
fn bursts_of_60_and_100_ms() {
    for burst in [3, 5] {
        for at in 0..150 {
            let mut phone = card();
            let end = (at + burst).min(phone.sent.len());
            phone.sent.drain(at.min(end)..end);
            let keys = heard(&phone);
            // A whole press (7 packets) is longer than the burst: none can vanish.
            assert_eq!(keys, CARD, "burst of {burst} at {at}");
        }
    }
}

#[test]
fn reordered_within_45_ms_and_duplicated() {
    for seed in 0..200 {
        let mut state = seed;
        let mut phone = card();
        let mut timed = vec![];
        for (at, packet) in phone.sent.iter().enumerate() {
            let late =
                if random(&mut state).is_multiple_of(3) { random(&mut state) % 45 } else { 0 };
            timed.push((at as u32 * 20 + late, *packet));
            if random(&mut state).is_multiple_of(3) {
                timed.push((at as u32 * 20 + random(&mut state) % 45, *packet));
            }
        }
        timed.sort_by_key(|(time, _)| *time);
        phone.sent = timed.into_iter().map(|(_, packet)| packet).collect();
        assert_eq!(heard(&phone), CARD, "seed {seed}");
    }
}

#[test]
fn a_late_end_inside_the_next_press_is_dropped() {
    for same in [true, false] {
        let mut phone = Phone::new(0, u32::MAX - 2000);
        phone.press(6, 5, 3);
        let end = phone.sent.iter().rposition(|(_, payload)| is_end(payload)).unwrap();
        phone.press(if same { 6 } else { 9 }, 5, 3);
        let late = phone.sent.remove(end);
        phone.sent.insert(end + 6, late);
        assert_eq!(heard(&phone), [6, if same { 6 } else { 9 }]);
    }
}

#[test]
fn a_new_source_presses_anew() {
    let mut phone = Phone::new(0, 0);
    phone.press(6, 5, 1);
    let mut other = Phone::new(0, 0);
    other.press(6, 5, 1);
    other.sent.iter_mut().for_each(|(header, _)| header.ssrc = 8);
    phone.sent.extend(other.sent);
    assert_eq!(heard(&phone), [6, 6]);
}

#[test]
fn refuses_what_is_no_key() {
    let mut receiver = Receiver::new(8000);
    let header = Phone::new(0, 0).header;
    for payload in [&[][..], &[1], &[1, 2, 3], &[1, 0, 0, 160, 0]] {
        assert_eq!(receiver.receive(&header, payload), Heard::Malformed);
    }
    for event in 16..=255 {
        assert_eq!(receiver.receive(&header, &[event, 0, 0, 160]), Heard::Other);
    }
    let padded = [1, 0, 0, 160, 0, 0, 0, 0];
    assert!(matches!(receiver.receive(&header, &padded), Heard::Pressed(_)));
}

#[test]
fn no_script_of_packets_breaks_it() {
    let mut state = 4733;
    for _ in 0..20_000 {
        let script: Vec<u8> =
            (0..64).map(|_| random(&mut state) as u8 & random(&mut state) as u8).collect();
        fuzz(&script);
    }
}
