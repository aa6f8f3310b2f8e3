//! A caller speaks to the real binary, which asks a model of an operator's what was said. Where
//! there is none the test says so: `RINGTILL_TESTS_WHISPER` is the path of a ggml model of Whisper.

use crate::binary::alone;
use crate::payments::Bench;

/// An answer is waited for as long as a slow machine needs.
#[test]
fn an_operators_model_hears_a_card_on_a_call() {
    let Some(model) = std::env::var_os("RINGTILL_TESTS_WHISPER") else {
        println!("RINGTILL_TESTS_WHISPER names no ggml model of Whisper: nothing is tested");
        return;
    };
    let _turn = alone();
    let speech =
        format!("[speech]\nengine = \"whisper:{}\"\nfields = [\"all\"]\n", model.display());
    let bench =
        Bench::with("", |settings| format!("{speech}[gateway]\nname = \"bogus\"\n{settings}"));
    let line = bench.call(
        "hear-start card.say, pause 600, say card, hear-start expiry.say 60, pause 600, say expiry,
         hear-start speech.yes_no 60, pause 400, say yes,
         hear-start consent.accept 60, key 1, hear result.approved 60, hangup",
    );
    println!("{}", line.log());
    let confirmations = bench.confirmations();
    assert_eq!(confirmations.len(), 1, "{}", line.log());
    let shown = bench.wait_for(&confirmations[0], "posted");
    assert!(shown.contains("visa ending 1111"), "{shown}");
}
