//! A card that is said leaves no more trace than one that is keyed.

use super::*;

/// What the demo's voice says.
const CARD: Spoken =
    Spoken { number: "4111111111111111", cvv: "349", expiry: "0930", zip: "75201" };

struct Spoken {
    number: &'static str,
    cvv: &'static str,
    expiry: &'static str,
    zip: &'static str,
}

fn voice(name: &str) -> String {
    format!("{}/src/server/demo/voice/{name}.flac", env!("CARGO_MANIFEST_DIR"))
}

fn sound(name: &str) -> Vec<u8> {
    let bytes = std::fs::read(voice(name)).expect("a voice");
    ringtill::server::dial::sound(bytes.into()).expect("sound").mu.to_vec()
}

#[test]
fn a_spoken_card_leaves_no_trace() {
    let _turn = beside_others();
    let mut binary = Binary::start("trace", "[speech]\nengine = \"digits\"\nfields = [\"all\"]\n");
    let [one, card, expiry, cvv, zip, yes] =
        ["one", "card", "expiry", "cvv", "zip", "yes"].map(voice);
    let script = format!(
        "hear-start menu.amount_say, pause 500, say {one}, hear-start card.say, pause 500, say {card},
         hear-start expiry.say 60, pause 500, say {expiry}, hear-start speech.yes_no 60, pause 300,
         say {yes}, hear-start cvv.say_three, pause 500, say {cvv}, hear-start zip.say 60, pause 500,
         say {zip}, hear-start speech.yes_no 60, pause 300, say {yes},
         hear-start consent.accept 60, key 1, hear result.approved 60, hangup"
    );
    let printed = Caller::dial(&binary, JAMES, "rfc4733", &script).end(&binary);
    binary.wait_for("call ended");
    let mut files = binary.files();
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
    files.extend(binary.files());
    let mut searched: Vec<(String, Vec<u8>)> =
        files.into_iter().map(|(path, bytes)| (path.display().to_string(), bytes)).collect();
    searched.push(("the log".into(), binary.log.join("\n").into_bytes()));
    searched.extend(printed.map(|text| ("the caller".to_string(), text)));
    let card = Card { number: CARD.number, cvv: CARD.cvv, expiry: CARD.expiry.into() };
    let cards = [card];
    let mut found: Vec<String> =
        searched.iter().flat_map(|(place, bytes)| findings(place, bytes, &cards)).collect();
    // Read back in full, for the caller's ears only.
    let log = binary.log.join("\n");
    let numbers: Vec<&str> = log.split(|c: char| !c.is_ascii_digit()).collect();
    for secret in [CARD.zip, CARD.expiry] {
        found.extend(numbers.contains(&secret).then(|| format!("the log: {secret}")));
    }
    assert!(found.is_empty(), "card data was found:\n{}", found.join("\n"));
    expect_voice_replaced(&recordings(&binary)[0]);
}

/// The choice of a menu is in the recording, what is said of the card is not.
fn expect_voice_replaced(wav: &[u8]) {
    let theirs: Vec<u8> = wav[58..].iter().step_by(2).copied().collect();
    let heard = |name: &str| {
        let sound = sound(name);
        let loud = |part: &&[u8]| part.iter().filter(|code| **code & 0x7f < 0x50).count() > 100;
        let parts: Vec<&[u8]> = sound.chunks_exact(200).filter(loud).collect();
        assert!(!parts.is_empty(), "{name} is silent");
        parts.iter().any(|part| theirs.windows(part.len()).any(|window| window == *part))
    };
    assert!(heard("one"), "the choice is not heard: what was searched?");
    for name in ["card", "expiry", "cvv", "zip"] {
        assert!(!heard(name), "{name} is heard");
    }
}
