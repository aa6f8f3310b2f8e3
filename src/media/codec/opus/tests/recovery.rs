//! Lost packets of which the next holds a copy.

use super::*;

/// Packets that libopus 1.3.1 made of our English prompts in seven ways (SILK and both parts, one
/// channel and two, 10 to 60 ms, one frame and two), all with recovery. Those whose length has its
/// top bit set get lost; behind each stream is what libopus then hears of them from the packets
/// that follow, with each sound as long as a packet.
const RECOVERED: &[u8] = include_bytes!("../../../../../tests/vectors/opus/recovered.bin");

struct Holed {
    /// Whether it gets lost.
    packets: Vec<(bool, Vec<u8>)>,
    expected: Vec<u8>,
}

fn holed() -> Vec<Holed> {
    let (mut bytes, mut streams) = (RECOVERED, vec![]);
    while !bytes.is_empty() {
        let count = number(&mut bytes);
        let packet = |bytes: &mut &[u8]| {
            let len = number(bytes);
            (len >> 15 == 1, part(bytes, len & 0x7fff).to_vec())
        };
        let packets = (0..count).map(|_| packet(&mut bytes)).collect();
        let len = number(&mut bytes);
        streams.push(Holed { packets, expected: part(&mut bytes, len).to_vec() });
    }
    streams
}

fn correlation(a: &[u8], b: &[u8]) -> f32 {
    let dot = |a: &[u8], b: &[u8]| {
        let products = a
            .iter()
            .zip(b)
            .map(|(a, b)| f32::from(decode(Law::Mu, *a)) * f32::from(decode(Law::Mu, *b)));
        products.sum::<f32>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1.0)
}

#[test]
fn what_libopus_hears_of_lost_packets_is_heard() {
    let streams = holed();
    assert_eq!(streams.len(), 7);
    for (nth, Holed { packets, expected }) in streams.into_iter().enumerate() {
        let len = samples(&packets[0].1).unwrap();
        let (mut ours, mut whole, mut concealing) = (transcoder(), transcoder(), self::decoder());
        let mut expected = expected.chunks(len);
        let (mut recovered, mut other, mut lost, mut copies, mut partial) = (0, 0, 0, 0, 0);
        let (mut alike, mut alike_concealed) = (0.0, 0.0);
        let (mut said, mut concealed) = (vec![], vec![0; len]);
        for (gets_lost, packet) in &packets {
            if *gets_lost {
                said = whole.decode(packet).unwrap().to_vec();
                concealing.decode(&[], &mut concealed, DecodeMode::Normal).unwrap();
                ours.lose(1);
                lost += 1;
                continue;
            }
            if !said.is_empty() {
                let expected = expected.next().unwrap();
                if let Some(copy) = ours.recover(packet, len) {
                    let at = len - copy.len();
                    recovered += copy.len();
                    copies += 1;
                    partial += usize::from(copy.len() < len);
                    other += copy.iter().zip(&expected[at..]).filter(|(a, b)| a != b).count();
                    let concealed: Vec<u8> =
                        concealed.iter().map(|&sample| encode(Law::Mu, sample)).collect();
                    alike += correlation(copy, &said[at..]);
                    alike_concealed += correlation(&concealed[at..], &said[at..]);
                }
            }
            said.clear();
            assert_eq!(ours.decode(packet).unwrap().len(), len);
            whole.decode(packet).unwrap();
            concealing.decode(packet, &mut vec![0; len], DecodeMode::Normal).unwrap();
        }
        let [alike, alike_concealed] = [alike, alike_concealed].map(|sum| sum / copies as f32);
        println!(
            "stream {nth}: {recovered} samples of {lost} packets of {len}, {other} other; like \
             what was said: {alike:.3}, concealed {alike_concealed:.3}"
        );
        // Of two frames in a packet the first has no copy.
        let frame = frame_samples(packets[0].1[0]);
        assert!(recovered * 10 >= lost * frame * 8, "stream {nth}: {recovered} of {lost} packets");
        // What is made up in front of a part that has a copy is not the same in each libopus, and
        // goes on into it.
        let exact = other * 50 <= recovered;
        assert!(exact || partial > 0, "stream {nth}: {other} of {recovered} differ");
        assert!(alike > 0.75 && alike > alike_concealed + 0.1, "stream {nth}: {alike}");
        assert_eq!(expected.next(), None);
    }
}

#[test]
fn where_no_copy_is_held_none_is_heard_and_all_else_is_as_it_was() {
    // Without copies: SILK, both parts, and CELT alone.
    for nth in [0, 1, 3, 4, 5, 6, 7] {
        let (packets, _) = streams().swap_remove(nth);
        let len = samples(&packets[0]).unwrap();
        let (mut ours, mut before) = (transcoder(), self::decoder());
        for (at, packet) in packets.iter().enumerate() {
            let mut sound = vec![0; len];
            if at % 5 == 3 {
                ours.lose(1);
                before.decode(&[], &mut [0; 160], DecodeMode::Normal).unwrap();
                continue;
            }
            assert_eq!(ours.recover(packet, len), None, "stream {nth}");
            before.decode(packet, &mut sound, DecodeMode::Normal).unwrap();
            let expected: Vec<u8> = sound.iter().map(|&one| encode(Law::Mu, one)).collect();
            assert_eq!(ours.decode(packet).unwrap(), expected, "stream {nth}, packet {at}");
        }
    }
}

#[test]
fn a_copy_is_of_the_packet_right_before_or_it_is_not_heard() {
    let Holed { packets, .. } = holed().swap_remove(0);
    let (celt, _) = streams().swap_remove(6);
    let at = packets.iter().position(|(gets_lost, _)| *gets_lost).unwrap();
    let packet = |nth: usize| packets[nth].1.as_slice();
    // Lost packets, samples from what was heard to the next packet, and whether a copy is heard.
    for (lost, missing, heard) in [
        (0, 0, false),
        (0, 160, false),
        (1, 160, true),
        // An event was lost, or a packet before a silence that is not sent.
        (1, 0, false),
        (1, 320, false),
        (1, 800, false),
        (1, u32::MAX as usize, false),
        (2, 320, true),
        (2, 160, false),
        (7, 1_120, true),
    ] {
        let mut ours = transcoder();
        (0..at).for_each(|nth| assert!(ours.decode(packet(nth)).is_some()));
        ours.lose(lost);
        let copy = ours.recover(packet(at + 1), missing).map(<[u8]>::len);
        assert_eq!(copy, heard.then_some(160), "{lost} lost, {missing} samples missing");
        // Once.
        assert_eq!(ours.recover(packet(at + 1), 160).filter(|_| heard), None);
        assert_eq!(ours.decode(packet(at + 1)).unwrap().len(), 160);
        assert_eq!(ours.recover(packet(at + 1), 160), None);
    }
    // The decoder comes from CELT, or from nowhere: it would make up what it does not know.
    let mut ours = transcoder();
    ours.lose(1);
    assert_eq!(ours.recover(packet(at + 1), 160), None);
    ours.decode(&celt[0]).unwrap();
    ours.lose(1);
    assert_eq!(ours.recover(packet(at + 1), 160), None);
}

#[test]
fn who_loses_more_gets_more_copies_if_he_can_use_them() {
    let (_, speech) = streams().swap_remove(0);
    let copies = |recovers: bool, loss: u8| {
        let wishes = Opus { recovers, bitrate_max: Some(18_000), ..Opus::default() };
        let mut ours = Transcoder::new(wishes);
        ours.expect_loss(loss);
        let sound = speech.repeat(5);
        sound.chunks(160).filter(|chunk| repeated(ours.encode(chunk)).is_some()).count()
    };
    // With so few bits libopus has none left for copies, unless much is lost.
    assert_eq!([copies(true, 0), copies(false, 100)], [0, 0]);
    assert!(copies(true, 100) > 20, "{}", copies(true, 100));
}
