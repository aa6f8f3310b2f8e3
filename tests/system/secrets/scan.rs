//! Searches bytes for card data in every form we can think of, and recordings for tones. What it
//! can find is shown by planting it.

use ringtill::media::tone::Detector;
use ringtill::sip::offer::Law;

/// A card that was keyed. What is found of it is named, never quoted.
pub struct Card {
    pub number: &'static str,
    pub cvv: &'static str,
    /// `MMYY`
    pub expiry: String,
}

/// Every trace of card data in `bytes`, as `where: form`.
pub fn findings(place: &str, bytes: &[u8], cards: &[Card]) -> Vec<String> {
    let mut found = Vec::new();
    let all = Streams::of(bytes);
    for (nth, card) in cards.iter().enumerate() {
        for form in all.forms_of(card.number, bytes) {
            found.push(format!("{place}: card {nth} {form}"));
        }
        for form in security_code(bytes, &all.tokens, card) {
            found.push(format!("{place}: security code {nth} {form}"));
        }
    }
    for form in cards_of_any_number(bytes) {
        found.push(format!("{place}: {form}"));
    }
    found
}

/// Every trace of one number of at most 16 digits, as `where: form`.
pub fn numbers(place: &str, bytes: &[u8], number: &str) -> Vec<String> {
    let forms = Streams::of(bytes).forms_of(number, bytes);
    forms.into_iter().map(|form| format!("{place}: {form}")).collect()
}

/// The bytes as they may hide a number.
struct Streams<'a> {
    /// ASCII digits with everything between them left out: spaces, JSON, UTF-16, escapes.
    digits: Vec<u8>,
    /// Nibbles, high and low half first: packed BCD at any alignment.
    nibbles: [Vec<u8>; 2],
    tokens: Vec<Token<'a>>,
    /// For each kind of line, what stood in each of its numeric fields, line after line.
    columns: Vec<Vec<u8>>,
}

/// A run of ASCII digits.
struct Token<'a> {
    start: usize,
    end: usize,
    text: &'a [u8],
}

impl<'a> Streams<'a> {
    fn of(bytes: &'a [u8]) -> Streams<'a> {
        let halves = |first: u32| -> Vec<u8> {
            bytes.iter().flat_map(|b| [b >> first & 15, b >> (4 - first) & 15]).collect()
        };
        Streams {
            digits: bytes.iter().copied().filter(u8::is_ascii_digit).collect(),
            nibbles: [halves(4), halves(0)],
            tokens: tokens(bytes),
            columns: columns(bytes),
        }
    }

    fn forms_of(&self, number: &str, bytes: &[u8]) -> Vec<String> {
        let mut forms = Vec::new();
        let mut look = |form: &str, stream: &[u8], pattern: &[u8]| {
            if contains(stream, pattern) {
                forms.push(form.to_string());
            }
        };
        let reversed: String = number.chars().rev().collect();
        for (order, number) in [("", number), (" reversed", reversed.as_str())] {
            let values: Vec<u8> = number.bytes().map(|digit| digit - b'0').collect();
            let hex: String = number.bytes().map(|digit| format!("{digit:02x}")).collect();
            let codes: String = number.bytes().map(|digit| digit.to_string()).collect();
            look(&format!("in digits{order}"), &self.digits, number.as_bytes());
            look(&format!("in hexadecimal{order}"), &self.digits, hex.as_bytes());
            look(&format!("in character codes{order}"), &self.digits, codes.as_bytes());
            look(&format!("in BCD{order}"), &self.nibbles[0], &values);
            look(&format!("in swapped BCD{order}"), &self.nibbles[1], &values);
            for width in [1, 2, 4, 8] {
                let [little, big] = spread(&values, width);
                look(&format!("in {width} bytes a digit{order}"), bytes, &little);
                look(&format!("in {width} bytes a digit{order}, big endian"), bytes, &big);
            }
            for column in &self.columns {
                look(&format!("one digit a line{order}"), column, number.as_bytes());
            }
            for shift in 0..3 {
                look(&format!("in base64{order}"), bytes, base64(number, shift).as_bytes());
            }
        }
        let integer: u64 = number.parse().expect("a card number");
        // Card numbers below 2^56 need no more bytes, and stores may keep no more.
        let big = &integer.to_be_bytes()[1..];
        look("as an integer, big endian", bytes, big.trim_ascii_start());
        look("as an integer, little endian", bytes, &integer.to_le_bytes()[..7]);
        forms
    }
}

fn contains(stream: &[u8], pattern: &[u8]) -> bool {
    stream.windows(pattern.len()).any(|window| window == pattern)
}

/// Each digit as a number of `width` bytes; the ends, which may be anything, left out.
fn spread(values: &[u8], width: usize) -> [Vec<u8>; 2] {
    let mut little = Vec::new();
    for value in values {
        little.push(*value);
        little.extend(std::iter::repeat_n(0, width - 1));
    }
    let big = little.iter().rev().copied().collect::<Vec<u8>>();
    little.truncate(little.len() - (width - 1));
    // Reversing turns the order of the digits too: turn that back.
    let mut turned = Vec::new();
    for digit in big.chunks(width).rev() {
        turned.extend(digit);
    }
    [little, turned[width - 1..].to_vec()]
}

/// The part of the base64 text that depends on the number alone, for a number that begins
/// `shift` bytes into a group of three.
fn base64(number: &str, shift: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let whole = &number.as_bytes()[(3 - shift) % 3..];
    let sextets = whole.chunks_exact(3).flat_map(|three| {
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        [18, 12, 6, 0].map(|at| ALPHABET[(bits >> at & 63) as usize])
    });
    sextets.map(char::from).collect()
}

fn tokens(bytes: &[u8]) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let len = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if len > 0 {
            tokens.push(Token { start: at, end: at + len, text: &bytes[at..at + len] });
        }
        at += len.max(1);
    }
    tokens
}

/// Lines that differ in their numbers only, such as one for each key, read down each column.
fn columns(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut kinds: std::collections::BTreeMap<Vec<u8>, Vec<Vec<u8>>> = Default::default();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| line.len() < 4_096) {
        let tokens = tokens(line);
        let mut kind = Vec::new();
        let mut at = 0;
        for token in &tokens {
            kind.extend_from_slice(&line[at..token.start]);
            kind.push(b'#');
            at = token.end;
        }
        kind.extend_from_slice(&line[at..]);
        let fields = kinds.entry(kind).or_insert_with(|| vec![Vec::new(); tokens.len()]);
        for (field, token) in fields.iter_mut().zip(&tokens) {
            field.extend_from_slice(token.text);
        }
    }
    kinds.into_values().flatten().collect()
}

/// The security code beside the expiry date or a word that names it: three digits by themselves
/// are anywhere.
fn security_code(bytes: &[u8], tokens: &[Token<'_>], card: &Card) -> Vec<&'static str> {
    const NEAR: usize = 64;
    let (month, year) = card.expiry.split_at(2);
    let long_year = format!("20{year}");
    let whole = [
        card.expiry.clone(),
        format!("{year}{month}"),
        format!("{month}{long_year}"),
        format!("{long_year}{month}"),
    ];
    let joined = [format!("{}{}", card.expiry, card.cvv), format!("{}{}", card.cvv, card.expiry)];
    let mut forms = Vec::new();
    for (nth, token) in tokens.iter().enumerate() {
        if joined.iter().any(|both| contains(token.text, both.as_bytes())) {
            forms.push("joined to its expiry");
        }
        if token.text != card.cvv.as_bytes() {
            continue;
        }
        let before = &bytes[token.start.saturating_sub(24)..token.start];
        let before = String::from_utf8_lossy(before).to_ascii_lowercase();
        if ["cvv", "cvc", "cvn", "cid", "security"].iter().any(|word| before.contains(word)) {
            forms.push("beside its name");
        }
        let near =
            |other: &&Token<'_>| other.start < token.end + NEAR && other.end + NEAR > token.start;
        let around = &tokens[nth.saturating_sub(NEAR)..(nth + NEAR).min(tokens.len())];
        let around: Vec<&Token<'_>> = around.iter().filter(near).collect();
        let date = |pair: &[&Token<'_>]| {
            let between = &bytes[pair[0].end..pair[1].start];
            let pair = [pair[0].text, pair[1].text];
            let parts = [[month, year], [month, &long_year], [year, month], [&long_year, month]];
            matches!(between, b"/" | b"-") && parts.iter().any(|p| p.map(str::as_bytes) == pair)
        };
        if around.iter().any(|token| whole.iter().any(|date| token.text == date.as_bytes()))
            || around.windows(2).any(date)
        {
            forms.push("beside its expiry");
        }
    }
    forms
}

/// Without UUIDs: the digits that one ends with, and what follows it in a record of the ledger,
/// would be taken for one number. No part of a UUID has room for a card.
fn without_references(bytes: &[u8]) -> Vec<u8> {
    const LEN: usize = 36;
    let mut without = bytes.to_vec();
    for (start, window) in bytes.windows(LEN).enumerate() {
        let is_reference = window.iter().enumerate().all(|(nth, byte)| match nth {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
        if is_reference {
            without[start..start + LEN].fill(b'x');
        }
    }
    without
}

/// Anything that could be a card number, known to us or not.
fn cards_of_any_number(bytes: &[u8]) -> Vec<String> {
    let bytes = &without_references(bytes)[..];
    let tokens = &tokens(bytes)[..];
    let mut found = Vec::new();
    let mut judge = |digits: &[u8], at: usize| {
        if starts_like_a_card(digits) && luhn(digits) {
            found.push(format!("a possible card number of {} digits at {at}", digits.len()));
        }
    };
    for token in tokens {
        judge(token.text, token.start);
    }
    for groups in [&[4, 4, 4, 4][..], &[4, 6, 5]] {
        for window in tokens.windows(groups.len()) {
            let gap = |pair: &[Token<'_>]| &bytes[pair[0].end..pair[1].start];
            let first = gap(&window[..2]);
            let lens = window.iter().map(|token| token.text.len()).eq(groups.iter().copied());
            let same = window.windows(2).all(|pair| gap(pair) == first);
            if lens && same && matches!(first, b" " | b"-" | b".") {
                let digits: Vec<u8> = window.iter().flat_map(|token| token.text).copied().collect();
                judge(&digits, window[0].start);
            }
        }
    }
    found
}

fn starts_like_a_card(digits: &[u8]) -> bool {
    let prefix = std::str::from_utf8(&digits[..digits.len().min(4)]).unwrap_or_default();
    let prefix: u32 = prefix.parse().unwrap_or(0);
    (13..=19).contains(&digits.len())
        && matches!(prefix,
            4000..=4999 | 5100..=5599 | 2221..=2720 | 3400..=3499 | 3700..=3799 | 6000..=6999
            | 3528..=3589 | 3000..=3059 | 3600..=3699 | 3800..=3999 | 8100..=8199)
}

fn luhn(digits: &[u8]) -> bool {
    let weigh = |(nth, digit): (usize, &u8)| {
        let value = u32::from(digit - b'0') << (nth % 2);
        value / 10 + value % 10
    };
    digits.iter().rev().enumerate().map(weigh).sum::<u32>().is_multiple_of(10)
}

/// The keys that can be heard in each channel of a mu-law WAV file, by our own detector.
pub fn keys_in(wav: &[u8]) -> [String; 2] {
    let data = wav.windows(4).position(|window| window == b"data").expect("a WAV file") + 8;
    assert_eq!(wav[20], 7, "mu-law");
    [0, 1].map(|channel| {
        let sound: Vec<u8> = wav[data..].iter().skip(channel).step_by(2).copied().collect();
        let mut detector = Detector::new();
        let hits = sound.chunks(160).filter_map(|frame| detector.push(Law::Mu, frame));
        hits.map(|hit| char::from(hit.digit.expose())).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tones;
    use ringtill::media::recording::{interleaved, wav_header};

    fn card() -> Card {
        Card { number: "4012888888881881", cvv: "926", expiry: "1131".into() }
    }

    fn found(bytes: &[u8]) -> Vec<String> {
        findings("here", bytes, &[card()])
    }

    #[test]
    fn a_planted_number_is_found_in_every_form() {
        let number = card().number;
        let backwards: String = number.chars().rev().collect();
        let digits: Vec<u8> = number.bytes().map(|digit| digit - b'0').collect();
        let packed = |digits: &[u8]| -> Vec<u8> {
            digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        };
        let swapped: Vec<u8> = packed(&digits).iter().map(|byte| byte.rotate_left(4)).collect();
        let mut offset = vec![0xf];
        offset.extend(&digits);
        offset.push(0xf);
        let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            number.encode_utf16().flat_map(order).collect()
        };
        let wide: Vec<u8> = digits.iter().flat_map(|d| u32::from(*d).to_le_bytes()).collect();
        let wide_big: Vec<u8> = digits.iter().flat_map(|d| u64::from(*d).to_be_bytes()).collect();
        let keys: String = number
            .chars()
            .enumerate()
            .map(|(nth, key)| format!("2026-11-23T02:44:{nth:02}.1Z TRACE key={key} port=31000\n"))
            .collect();
        let integer: u64 = number.parse().unwrap();
        let escaped: String = number.bytes().map(|digit| format!("\\x{digit:02x}")).collect();
        for (form, planted) in [
            ("plain", number.as_bytes().to_vec()),
            ("spaced", b"4012 8888 8888 1881".to_vec()),
            ("dashed", b"4012-8888-8888-1881".to_vec()),
            ("in pieces", format!("{}\n  {}", &number[..7], &number[7..]).into_bytes()),
            ("reversed", backwards.into_bytes()),
            ("JSON array", format!("{digits:?}").into_bytes()),
            ("JSON strings", format!("{:?}", number.chars().collect::<Vec<_>>()).into_bytes()),
            ("Debug of bytes", format!("{:?}", number.as_bytes()).into_bytes()),
            ("hex escapes", escaped.into_bytes()),
            ("BCD", packed(&digits)),
            ("BCD at half a byte", packed(&offset)),
            ("swapped BCD", swapped),
            ("reversed BCD", packed(&digits.iter().rev().copied().collect::<Vec<_>>())),
            ("UTF-16 little endian", utf16(u16::to_le_bytes)),
            ("UTF-16 big endian", utf16(u16::to_be_bytes)),
            ("a byte a digit", digits.clone()),
            ("four bytes a digit", wide),
            ("eight bytes a digit, big endian", wide_big),
            ("a line a key", keys.into_bytes()),
            ("integer big endian", integer.to_be_bytes().to_vec()),
            ("integer little endian", integer.to_le_bytes().to_vec()),
            ("base64", b"NDAxMjg4ODg4ODg4MTg4MQ==".to_vec()),
            ("base64 one on", b"Ojo6NDAxMjg4ODg4ODg4MTg4MQ".to_vec()),
            ("base64 in JSON", b"IjQwMTI4ODg4ODg4ODE4ODEi".to_vec()),
        ] {
            for around in [&b""[..], b"\xff\xfe some text, <b>\n", b"\0\0\0\0\0\0\0\n"] {
                let bytes = [around, &planted, around].concat();
                assert!(!found(&bytes).is_empty(), "{form} is not found");
            }
        }
    }

    #[test]
    fn a_number_nobody_keyed_is_found_if_it_could_be_a_card() {
        for planted in ["pan=5555555555554444;", "3782 822463 10005", "a 6011-1111-1111-1117 b"] {
            assert!(!found(planted.as_bytes()).is_empty(), "{planted}");
        }
    }

    #[test]
    fn a_planted_security_code_is_found() {
        for planted in [
            "exp=1131 cvv=926",
            "{\"exp_month\":\"11\",\"cvv\":\"926\"}",
            "926 until 11/31",
            "2031-11,926",
            "12 keys 1131926#",
            "security code was 926",
        ] {
            assert!(!found(planted.as_bytes()).is_empty(), "{planted}");
        }
    }

    #[test]
    fn what_may_be_kept_is_not_reported() {
        for kept in [
            "visa ending in 1881, approved, cvv M, avs Y",
            "401288******1881",
            "created_ms 1795401854251 1795401892293",
            "01a2064e-446e-73af-8b94-929fdca60633",
            "confirmation 370147779, total $323.72, port 31926",
            "2026-11-23T02:48:42.926375Z INFO 11:31:00",
            "4012888888881882 is no card number",
        ] {
            assert_eq!(found(kept.as_bytes()), Vec::<String>::new(), "{kept}");
        }
    }

    #[test]
    fn digits_that_a_reference_ends_with_are_no_part_of_the_next_number() {
        let after = |reference: &str| found(format!("{reference}111111111testco").as_bytes());
        assert_eq!(after("0197284f-2c00-7a41-8d53-6f0f24111111"), [""; 0]);
        assert_eq!(after("0197284f-2c00-7a41-8d53-6f0f2x4111111").len(), 1);
    }

    #[test]
    fn tones_in_a_recording_are_heard_on_either_side() {
        let tones = tones::timeline(&[(0.3, "4012#")], (2.0, "1881"), 4.0);
        let silence = vec![0xff; tones.len()];
        for (left, right, expected) in [
            (&tones, &silence, ["4012#1881", ""]),
            (&silence, &tones, ["", "4012#1881"]),
            (&silence, &silence, ["", ""]),
        ] {
            let mut wav = wav_header((tones.len() / 160) as u32).to_vec();
            for (caller, ours) in left.chunks(160).zip(right.chunks(160)) {
                let mut stereo = [0; 320];
                stereo[..160].copy_from_slice(caller);
                stereo[160..].copy_from_slice(ours);
                wav.extend(interleaved(&stereo));
            }
            assert_eq!(keys_in(&wav), expected);
        }
    }
}
