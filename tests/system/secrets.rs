//! Card data leaves no trace: the server pays cards at log level `trace`, and every byte it wrote,
//! logged or printed is searched.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::binary::{Binary, RINGTILL, expiry, one_at_a_time};
use crate::caller::{JAMES, MARIA};

mod scan;

use scan::{Card, findings, keys_in};

/// One mistyped digit away from the first card: as sensitive as the number itself.
const MISTYPED: &str = "4012888888881882";

fn cards() -> [Card; 3] {
    let expiry = expiry();
    let card = |number, cvv| Card { number, cvv, expiry: expiry.clone() };
    [card("4012888888881881", "926"), card("5105105105105100", "847"), card(MISTYPED, "926")]
}

/// Pays in one call of `ringtill dial`.
fn pay(binary: &Binary, number: &str, keys: &str, card: &str) -> Child {
    let script = format!(
        "hear-start greet.hello, key 1, {card}, hear-start consent.accept 60, key 1,
         hear result.approved 60, hear-start result.confirmation, hangup"
    );
    dial(binary, number, keys, &script)
}

fn dial(binary: &Binary, number: &str, keys: &str, script: &str) -> Child {
    let target = format!("sip:pay@127.0.0.1:{}", binary.port);
    Command::new(RINGTILL)
        .args(["dial", &target, "--from", number, "--keys", keys, "--script", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dial runs")
}

/// What a caller printed, once the call went as its script says.
fn printed(call: Child, binary: &Binary) -> [Vec<u8>; 2] {
    let call = call.wait_with_output().expect("dial ends");
    let text = [&call.stdout[..], &call.stderr].map(String::from_utf8_lossy).join("\n");
    assert_eq!(call.status.code(), Some(0), "{text}\n{}", binary.log.join("\n"));
    [call.stdout, call.stderr]
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
    let _turn = one_at_a_time();
    let mut binary = Binary::start("trace", "");
    let cards = cards();
    let again = key_card(&cards[0], "46201").replace("hear-start card.ask", "hear card.invalid");
    let mistyped = format!("hear-start card.ask, key {MISTYPED}#, {again}");
    let calls = [
        pay(&binary, JAMES, "rfc4733", &mistyped),
        pay(&binary, MARIA, "inband", &key_card(&cards[1], "46204")),
    ];
    let printed = calls.map(|call| printed(call, &binary));
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
        ("ledger.db-wal", vec!["intent"]),
        (".csv", vec!["PMT,", "1881", "5100"]),
        ("the log", vec!["TRACE", "DEBUG", "verdict"]),
        ("stdout of caller 0", vec!["16 digits ending in 1881"]),
        ("stdout of caller 1", vec!["16 digits ending in 5100 + # as tones"]),
    ] {
        let text = text_of(file);
        for part in needed {
            assert!(text.contains(part), "`{part}` is not in {file}: what was searched?");
        }
    }
}

/// Both calls are recorded with their prompts; of the keys only the choices can be heard.
fn expect_recordings_without_keys(binary: &Binary) {
    let recordings = recordings(binary);
    assert_eq!(recordings.len(), 2, "two calls were recorded");
    for wav in recordings {
        let [caller, ours] = keys_in(&wav);
        assert!(caller.bytes().all(|key| key == b'1') && caller.len() <= 2, "keys are heard");
        assert_eq!(ours.len(), 0, "keys are heard on our side");
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
