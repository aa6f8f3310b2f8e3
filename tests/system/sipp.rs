//! SIPp as an independent caller. What it did is judged by the ledger and the reconciliation file.

use std::path::Path;
use std::process::Command;

use ringtill::ledger::reconcile;
use ringtill::ledger::{Intent, Origin, State};
use ringtill::server::store::Store;

use crate::binary::{Binary, beside_others, expiry};
use crate::ports::{free_media_port_at, free_port};
use crate::tones;

/// Whether SIPp is here; a failure when it must be.
pub fn is_here() -> bool {
    let here = Command::new("sipp").arg("-v").output().is_ok();
    if !here {
        let needed = std::env::var_os("RINGTILL_TESTS_NEED_SIPP").is_some();
        assert!(!needed, "sipp is not installed (Debian: sip-tester)");
        eprintln!("skipped: sipp is not installed (Debian: sip-tester)");
    }
    here
}

/// Runs a scenario of `tests/sipp`; false when SIPp is not here and need not be.
fn sipp(scenario: &str, binary: &Binary) -> bool {
    if !is_here() {
        return false;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sipp").join(scenario);
    let text = std::fs::read_to_string(file).expect("a scenario");
    // The card must still be good on the day of the test.
    std::fs::write(binary.path(scenario), text.replace("\"1230\"", &format!("\"{}\"", expiry())))
        .expect("written");
    let output = Command::new("sipp")
        .arg(format!("127.0.0.1:{}", binary.port))
        .args(["-sf", scenario])
        .args(["-i", "127.0.0.1", "-mi", "127.0.0.1", "-p", &free_port().to_string()])
        .args(["-mp", &free_media_port_at("127.0.0.1").to_string(), "-s", "pay"])
        .args(["-m", "1", "-l", "1", "-nostdin", "-timeout", "150", "-timeout_error"])
        .current_dir(binary.folder.path())
        .output()
        .expect("sipp runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let tail: Vec<&str> = text.lines().rev().take(40).collect();
    assert!(output.status.success(), "{}\n{}", output.status, tail.join("\n"));
    true
}

pub fn ledger(binary: &Binary) -> Vec<(Intent, State)> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let path = binary.path("ledger.db");
        let store = Store::open(&path.to_string_lossy()).await.expect("the ledger opens");
        store.intents().await.expect("the ledger reads")
    })
}

/// All rows of all reconciliation files, each file checked against its trailer.
pub fn posted(binary: &Binary) -> Vec<reconcile::Row> {
    let files = binary.files().into_iter().filter(|(path, _)| {
        path.parent().is_some_and(|p| p.ends_with("posting"))
            && path.extension().is_some_and(|e| e == "csv")
    });
    files
        .flat_map(|(_, bytes)| -> Vec<_> { reconcile::read(&bytes).expect("a whole file").rows })
        .collect()
}

/// An intent as a reconciliation file tells it: fingerprints and origin stay in the ledger.
pub fn told(intent: &Intent) -> Intent {
    Intent { fingerprint: None, origin: Origin::default(), ..intent.clone() }
}

pub fn expect_one_payment(binary: &Binary, account: &str, amount: i64) {
    let ledger = ledger(binary);
    assert_eq!(ledger.len(), 1, "{ledger:?}\n{}", binary.log.join("\n"));
    let (intent, state) = &ledger[0];
    assert!(matches!(state, State::Posted(_)), "{state:?}");
    assert_eq!(
        (intent.account_id.as_str(), intent.amount.minor, intent.fee.minor),
        (account, amount, 200)
    );
    let rows = posted(binary);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].intent, told(intent));
    assert_eq!(rows[0].received(), intent.total());
}

#[test]
fn a_call_that_hangs_up_charges_nothing() {
    let _turn = beside_others();
    let mut binary = Binary::start("info", "");
    if !sipp("uac_hangup.xml", &binary) {
        return;
    }
    binary.wait_for("call ended");
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
    assert_eq!(ledger(&binary), []);
    assert!(posted(&binary).is_empty());
}

#[test]
fn a_call_pays_with_rfc_4733_events() {
    let _turn = beside_others();
    let mut binary = Binary::start("info", "");
    if !sipp("pay_events.xml", &binary) {
        return;
    }
    binary.wait_for("call ended");
    assert_eq!(binary.stop(), Some(0));
    expect_one_payment(&binary, "1001", 32_172);
}

#[test]
fn a_call_pays_with_tones_in_its_audio() {
    let _turn = beside_others();
    let mut binary = Binary::start("info", "");
    // Keyed ahead up to the consent, which can be answered only once it has been spoken.
    let expiry = expiry();
    let keys = [
        (1.0, "1"),
        (2.0, "5555555555554444#"),
        (6.5, expiry.as_str()),
        (8.0, "123"),
        (9.0, "46204"),
    ];
    let audio = tones::timeline(&keys, (30.0, "1"), 60.0);
    std::fs::write(binary.path("tones.ulaw"), audio).expect("written");
    if !sipp("pay_inband.xml", &binary) {
        return;
    }
    binary.wait_for("call ended");
    assert_eq!(binary.stop(), Some(0));
    expect_one_payment(&binary, "1002", 8_810);
}
