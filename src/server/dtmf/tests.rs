//! Recordings and packets written to files, and what is printed of them.

use super::*;
use crate::media::{Digit, Method};

/// A WAV header for 8 kHz, 16 bit, mono; `spoil` may change its bytes.
fn wav(samples: &[i16], spoil: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    file.extend(8000u32.to_le_bytes());
    file.extend(16000u32.to_le_bytes());
    file.extend([2, 0, 16, 0]);
    // A chunk of odd length, padded, that nobody knows.
    file.extend(b"note\x03\0\0\0abc\0data");
    file.extend((samples.len() as u32 * 2).to_le_bytes());
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    spoil(&mut file);
    file
}

/// Keys as our own keypad makes them, 80 ms each.
fn keyed(keys: &str) -> Vec<i16> {
    let mut call = Call::new();
    let keys: Vec<Digit> = keys.chars().filter_map(Digit::from_key).collect();
    let turns = keys.len() as u32 * 8 + 20;
    let press = Command::Press { keys, method: Method::InBand, on_ms: 80, off_ms: 80 };
    let mut packet = [0; PACKET_MAX];
    let mut samples = vec![0i16; 437];
    call.stream.command(call.began, press);
    for turn in 0..turns {
        let len = call.stream.transmit(call.began + TURN * turn, &mut packet).unwrap();
        let codes = &packet[HEADER_LEN..len];
        samples.extend(codes.iter().map(|&code| codec::decode(Law::Mu, code)));
    }
    samples
}

fn printed(file: &[u8]) -> Result<String, String> {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    let mut out = Vec::new();
    match hear(path.path(), None, &mut out) {
        Ok(()) => Ok(String::from_utf8(out).unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn a_recording_tells_each_key_its_start_its_end_and_when_it_was_told() {
    let text = printed(&wav(&keyed("40#"), |_| {})).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.iter().map(|line| line[0]).collect::<String>(), "40#");
    for (nth, line) in lines.iter().enumerate() {
        // 437 samples of silence, then 80 ms on and 80 ms off.
        let start = 437.0 / 8.0 + 160.0 * nth as f64;
        let [told_start, end, at] = [1, 2, 3].map(|field| line[field].parse::<f64>().unwrap());
        assert!((told_start - start).abs() < 5.0, "{text}");
        assert!((end - start - 80.0).abs() < 10.0, "{text}");
        assert!((25.0..47.0).contains(&(at - start)) && at % 20.0 == 0.0, "{text}");
    }
}

#[test]
fn a_key_that_sounds_to_the_end_has_no_end() {
    let mut sound = keyed("7");
    sound.truncate(437 + 60 * 8);
    let text = printed(&wav(&sound, |_| {})).unwrap();
    assert!(text.starts_with("7 ") && text.contains(" - "), "{text}");
}

#[test]
fn a_file_that_is_no_8_khz_16_bit_mono_wav_is_refused_with_what_it_is() {
    let sound = [0; 800];
    let refused = |spoil: fn(&mut Vec<u8>), what: &str| {
        let told = printed(&wav(&sound, spoil)).unwrap_err();
        assert!(told.contains(what) && told.ends_with("8000 Hz, 16 bit, mono"), "{told}");
    };
    refused(|file| file[0] = b'X', "not a WAV file");
    refused(Vec::clear, "not a WAV file");
    refused(|file| file.truncate(20), "WAV with a damaged header");
    refused(|file| file.truncate(36), "WAV without sound");
    refused(|file| file[22] = 2, "2 channels");
    refused(|file| file[25] = 0x3e, "PCM, 15936 Hz");
    refused(|file| file[34] = 8, "8 bit");
    refused(|file| file[20] = 7, "format 7, not PCM");
    let missing = hear(Path::new("no/such.wav"), None, &mut Vec::new()).unwrap_err().to_string();
    assert!(missing.starts_with("no/such.wav: "), "{missing}");
    // A length that a killed recorder left wrong.
    let long = |file: &mut Vec<u8>| file[52..56].fill(0xff);
    assert_eq!(printed(&wav(&sound, long)), Ok(String::new()));
}

fn printed_packets(lines: &str) -> Result<String, String> {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), lines).unwrap();
    let mut out = Vec::new();
    match hear_packets(path.path(), &mut out) {
        Ok(()) => Ok(String::from_utf8(out).unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn packets_tell_a_key_at_the_first_that_came() {
    let packets = "\
        0.0 9 1000 0 0 -\n\
        20.5 10 1160 1 101 050a00a0\n\
        40.0 11 1160 0 101 050a0140\n\
        60.0 12 1160 0 101 058a01e0\n\n\
        80.0 14 1160 0 101 058a01e0\n\
        120.0 16 1960 0 101 0b8a0140\n";
    let told = printed_packets(packets);
    assert_eq!(told, Ok("5 1160 - 20.5\n# 1960 - 120.0\n".to_string()));
}

#[test]
fn lines_that_are_no_packets_are_refused_with_their_number() {
    for (line, what) in [
        ("1 2 3", "want `<arrival_ms>"),
        ("x 1 1 0 101 -", "arrival"),
        ("-1 1 1 0 101 -", "arrival"),
        ("1e99 1 1 0 101 -", "arrival"),
        ("1 65536 1 0 101 -", "sequence"),
        ("1 1 4294967296 0 101 -", "timestamp"),
        ("1 1 1 2 101 -", "marker"),
        ("1 1 1 0 128 -", "payload type"),
        ("1 1 1 0 101 050", "hexadecimal"),
        ("1 1 1 0 101 05é0", "hexadecimal"),
    ] {
        let told = printed_packets(&format!("0 1 1 0 0 -\n{line}\n")).unwrap_err();
        assert!(told.contains(":2: ") && told.contains(what), "{line}: {told}");
    }
}
