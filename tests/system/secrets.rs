//! Card data leaves no trace: the server pays cards at log level `trace`, and every byte it wrote,
//! logged or printed is searched.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::binary::{Binary, RINGTILL, beside_others, expiry};
use crate::caller::{JAMES, MARIA, Sip, library};

mod bank; // from a bank account
mod memory; // what stays in the server's memory
mod saved; // by a card that is kept
mod scan;
mod spoken; // by voice

pub use scan::numbers;
use scan::{Card, findings, keys_in};

/// One mistyped digit away from the first card: as sensitive as the number itself.
const MISTYPED: &str = "4012888888881882";

fn cards() -> [Card; 3] {
    let expiry = expiry();
    let card = |number, cvv| Card { number, cvv, expiry: expiry.clone() };
    [card("4012888888881881", "926"), card("5105105105105100", "847"), card(MISTYPED, "926")]
}

/// A call of `ringtill dial` and what it has printed so far.
pub struct Caller {
    dial: Child,
    stdout: BufReader<ChildStdout>,
    printed: Vec<u8>,
}

impl Caller {
    /// Pays the balance; `card` are the steps that key a card.
    fn pay(binary: &Binary, number: &str, keys: &str, card: &str) -> Caller {
        let script = format!(
            "hear-start greet.hello, key 1, {card}, hear-start consent.accept 60, key 1,
             hear result.approved 60, hear-start result.confirmation, hangup"
        );
        Caller::dial(binary, number, keys, &script)
    }

    pub fn dial(binary: &Binary, number: &str, keys: &str, script: &str) -> Caller {
        let target = format!("sip:pay@127.0.0.1:{}", binary.port);
        let mut dial = Command::new(RINGTILL)
            .args(["dial", &target, "--from", number, "--keys", keys, "--script", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dial runs");
        let stdout = BufReader::new(dial.stdout.take().expect("piped"));
        Caller { dial, stdout, printed: Vec::new() }
    }

    /// Reads on until a line has `part` in it.
    fn until(&mut self, part: &str) {
        loop {
            let before = self.printed.len();
            let len = self.stdout.read_until(b'\n', &mut self.printed).expect("dial prints");
            let line = String::from_utf8_lossy(&self.printed[before..]);
            if line.contains(part) {
                return;
            }
            assert!(len > 0, "no `{part}`:\n{}", String::from_utf8_lossy(&self.printed));
        }
    }

    /// All it printed, once the call went as its script says.
    pub fn end(mut self, binary: &Binary) -> [Vec<u8>; 2] {
        self.stdout.read_to_end(&mut self.printed).expect("dial prints");
        let call = self.dial.wait_with_output().expect("dial ends");
        let text = [&self.printed[..], &call.stderr].map(String::from_utf8_lossy).join("\n");
        assert_eq!(call.status.code(), Some(0), "{text}\n{}", binary.log.join("\n"));
        [self.printed, call.stderr]
    }
}

/// Keys a card as asked: number, expiry, security code, ZIP.
fn key_card(card: &Card, zip: &str) -> String {
    let Card { number, cvv, expiry } = card;
    format!(
        "hear-start card.ask, key {number}#, hear-start expiry.ask, key {expiry},
         hear-start cvv.ask_three, key {cvv}, hear-start zip.ask, key {zip}"
    )
}

#[test]
fn no_byte_we_write_holds_card_data() {
    let _turn = beside_others();
    let mut binary = Binary::start("trace", "");
    let cards = cards();
    let again = key_card(&cards[0], "46201").replace("hear-start card.ask", "hear card.invalid");
    let mistyped = format!("hear-start card.ask, key {MISTYPED}#, {again}");
    let mut first = Caller::pay(&binary, JAMES, "rfc4733", &mistyped);
    // Keys of two calls, mixed in a log, would not be recognised: the first has keyed all but its
    // consent.
    first.until("billing ZIP code");
    let second = Caller::pay(&binary, MARIA, "inband", &key_card(&cards[1], "46204"));
    let printed = [first, second].map(|caller| caller.end(&binary));
    for _ in &printed {
        binary.wait_for("call ended");
    }
    // While it runs there is a write-ahead log too.
    let mut files = binary.files();
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
    files.extend(binary.files());
    let mut searched: Vec<(String, Vec<u8>)> =
        files.into_iter().map(|(path, bytes)| (path.display().to_string(), bytes)).collect();
    searched.push(("the log".into(), binary.log.join("\n").into_bytes()));
    for (nth, [stdout, stderr]) in printed.into_iter().enumerate() {
        searched.push((format!("stdout of caller {nth}"), stdout));
        searched.push((format!("stderr of caller {nth}"), stderr));
    }
    expect_everything_there(&searched);
    let found: Vec<String> =
        searched.iter().flat_map(|(place, bytes)| findings(place, bytes, &cards)).collect();
    assert!(found.is_empty(), "card data was found:\n{}", found.join("\n"));
    expect_recordings_without_keys(&binary);
}

/// A search proves something only where the payments are: their last four digits are known.
fn expect_everything_there(searched: &[(String, Vec<u8>)]) {
    let text_of = |end: &str| -> String {
        let files = searched.iter().filter(|(place, _)| place.ends_with(end));
        files.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    };
    for (file, needed) in [
        ("ledger.db", vec!["1881", "5100", "approved"]),
        ("ledger.db-wal", vec!["testco"]),
        (".csv", vec!["PMT,", "1881", "5100"]),
        ("the log", vec!["DEBUG ringtill::", "verdict"]),
        ("stdout of caller 0", vec!["16 digits ending in 1881"]),
        ("stdout of caller 1", vec!["16 digits ending in 5100 + # as tones"]),
    ] {
        let text = text_of(file);
        for part in needed {
            assert!(text.contains(part), "`{part}` is not in {file}: what was searched?");
        }
    }
}

/// Both calls are recorded with their prompts, and no key of either side can be heard.
fn expect_recordings_without_keys(binary: &Binary) {
    let recordings = recordings(binary);
    assert_eq!(recordings.len(), 2, "two calls were recorded");
    for wav in recordings {
        assert_eq!(keys_in(&wav).map(|keys| keys.len()), [0, 0], "keys are heard");
        expect_card_questions_replaced(&wav);
    }
}

/// Windows are silence on our side too, from the first word of what asks for a card.
fn expect_card_questions_replaced(wav: &[u8]) {
    let ours: Vec<u8> = wav[58..].iter().skip(1).step_by(2).copied().collect();
    let heard = |id: &str| {
        let sound = &library().clip(id).expect("a phrase").mu;
        let begins = sound.iter().position(|code| code & 0x7f < 0x50).expect("a sound");
        ours.windows(400).any(|part| part == &sound[begins..begins + 400])
    };
    assert!(heard("result.approved"), "the result is not heard: what was searched?");
    for id in ["card.ask", "expiry.ask", "cvv.ask_three", "zip.ask"] {
        assert!(!heard(id), "{id} is heard");
    }
}

fn recordings(binary: &Binary) -> Vec<Vec<u8>> {
    let is_wav = |path: &Path| path.extension().is_some_and(|end| end == "wav");
    let files = binary.files().into_iter().filter(|(path, _)| is_wav(path));
    let recordings: Vec<Vec<u8>> = files.map(|(_, wav)| wav).collect();
    for wav in &recordings {
        let loud = wav.iter().filter(|code| !matches!(code, 0xff | 0x7f)).count();
        assert!(loud > 100_000, "a recording is silent");
    }
    recordings
}

/// A card keyed when nobody asked for it must not be in the recording either.
#[test]
fn a_card_keyed_at_the_wrong_moment_is_not_recorded() {
    let _turn = beside_others();
    let mut binary = Binary::start("info", "");
    let [card, other, _] = cards();
    // Into the notice of fee and total, which takes no keys.
    let script = format!(
        "hear-start greet.hello, key 1, {},
         hear-start consent.payment, key {}#, hear-start consent.accept 60, key 2,
         hear-start consent.cancelled, hangup",
        key_card(&card, "46201"),
        other.number,
    );
    Caller::dial(&binary, JAMES, "inband", &script).end(&binary);
    binary.wait_for("call ended");
    assert_eq!(binary.stop(), Some(0));
    for wav in recordings(&binary) {
        assert_eq!(keys_in(&wav).map(|keys| keys.len()), [0, 0], "keys are heard");
    }
}

/// Keys that come by SIP INFO are in messages, where a log of signalling would hold them.
#[test]
fn keys_by_info_pay_and_leave_no_trace() {
    let _turn = beside_others();
    let mut binary = Binary::start("trace", "");
    let [card, ..] = cards();
    let mut caller = Sip::at("127.0.0.1", binary.port);
    let call = caller.call();
    let keys = format!("1{}#{}{}46201", card.number, card.expiry, card.cvv);
    caller.press(&call, 2, &keys);
    // Consent can be given only once fee and total have been spoken; what comes earlier is lost.
    let mut cseq = 2 + keys.len() as u32;
    while binary.lines_with("charging") == 0 {
        assert!(cseq < 200, "nobody asks for consent:\n{}", binary.log.join("\n"));
        caller.press(&call, cseq, "1");
        cseq += 1;
        std::thread::sleep(std::time::Duration::from_millis(400));
    }
    binary.wait_for_lines(1, "confirmed");
    let mut files = binary.files();
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
    files.extend(binary.files());
    let log = binary.log.join("\n").into_bytes();
    let searched = files.into_iter().map(|(path, bytes)| (path.display().to_string(), bytes));
    let found: Vec<String> = searched
        .chain([("the log".to_string(), log)])
        .flat_map(|(place, bytes)| findings(&place, &bytes, std::slice::from_ref(&card)))
        .collect();
    assert!(found.is_empty(), "card data was found:\n{}", found.join("\n"));
}
