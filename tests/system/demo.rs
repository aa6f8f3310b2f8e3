//! `ringtill demo`, as a newcomer runs it.

use std::process::Command;

use ringtill::ledger::reconcile;

use crate::binary::{RINGTILL, beside_others, files};

#[test]
fn all_calls_end_paid_and_nothing_secret_is_shown() {
    let _turn = beside_others();
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(RINGTILL)
        .args(["demo", "--directory", "."])
        .current_dir(folder.path())
        .output()
        .expect("the binary runs");
    let shown = String::from_utf8_lossy(&output.stdout);
    let context = format!("{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{context}");
    for part in [
        "Hello James.",
        "Your balance is $321.72",
        "keys ••••••••••••••••  [card]  (not accepted)",
        "approved, code",
        "$45.00 + $2.00 fee = $47.00 on visa ending 1111",
        "says 2000  [amount]",
        "says ••••••••••••••••  [card]",
        "I heard ••••.",
        "$20.00 + $2.00 fee = $22.00 on visa ending 1111",
        "Your confirmation number is",
        "approved, posted and reconciled",
        "serve -c",
        "sipp 127.0.0.1",
    ] {
        assert!(shown.contains(part), "`{part}` is not shown:\n{context}");
    }
    // The test card stands once, in the line that says which card to try.
    assert!(!shown.contains("4111111111111111"), "{context}");
    let all = files(folder.path());
    let ends =
        |end: &str| all.iter().filter(|(path, _)| path.to_string_lossy().ends_with(end)).count();
    assert_eq!((ends(".wav"), ends(".part")), (3, 0), "whole recordings");
    let posted = all.iter().filter(|(path, _)| {
        path.parent().is_some_and(|p| p.ends_with("posting"))
            && path.extension().is_some_and(|e| e == "csv")
    });
    let rows: usize = posted.map(|(_, csv)| reconcile::read(csv).expect("whole").rows.len()).sum();
    assert_eq!(rows, 3);
}
