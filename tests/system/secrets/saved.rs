//! A card that is kept: its number is nowhere, and its token in the ledger alone.

use super::{Caller, cards, findings, key_card};
use crate::binary::{Binary, beside_others};
use crate::caller::JAMES;

#[test]
fn a_kept_card_is_nowhere_and_its_token_in_the_ledger_alone() {
    let _turn = beside_others();
    let mut binary = Binary::start("trace", "[payment.saved]\n");
    let cards = cards();
    let keep = "hear-start saved.keep, key 1, hear-start saved.agree 60, key 1";
    let card = format!("{}, {keep}", key_card(&cards[0], "46201"));
    let first = Caller::pay(&binary, JAMES, "rfc4733", &card).end(&binary);
    let again = Caller::pay(&binary, JAMES, "inband", "hear-start saved.pay_with, key 1");
    let printed = [first, again.end(&binary)];
    binary.wait_for_lines(2, "call ended");
    let mut files = binary.files();
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
    files.extend(binary.files());
    let mut searched: Vec<(String, Vec<u8>)> =
        files.into_iter().map(|(path, bytes)| (path.display().to_string(), bytes)).collect();
    searched.push(("the log".into(), binary.log.join("\n").into_bytes()));
    searched.extend(printed.concat().into_iter().map(|bytes| ("a caller".to_string(), bytes)));
    let found: Vec<String> =
        searched.iter().flat_map(|(place, bytes)| findings(place, bytes, &cards)).collect();
    assert!(found.is_empty(), "card data was found:\n{}", found.join("\n"));
    let mut tokens = Vec::new();
    for (place, bytes) in &searched {
        if bytes.windows(4).any(|part| part == b"tok_") {
            tokens.push(place.as_str());
        }
    }
    let ledger = |place: &&str| place.contains("ledger.db");
    assert!(!tokens.is_empty() && tokens.iter().all(ledger), "tokens are in {tokens:?}");
    assert_eq!(binary.lines_with("confirmed"), 2, "{}", binary.log.join("\n"));
}
