//! A caller says her bank account, and signs the debit by key.

use ringtill::payment::BankSettings;

use super::*;

const ROUTING: &str = "021000021";
const ACCOUNT: &str = "12345678901";
/// Any name that is recorded will do for that of the company.
const BANK: &str = "company = \"Elizabeth\"\nphone = \"800 555 0100\"\ntime_zone = \"eastern\"\n\
                    written_notice = true\n";

#[test]
fn a_bank_account_is_said_and_its_debit_signed_by_key() {
    at_every_level("bank accounts said", "submitted", debit_by_voice);
}

fn debit_by_voice(seed: u64, noise: Option<f32>, figures: &mut Figures) {
    // One in four keys what she has said once: the two must be the same, however they came.
    let keys_again = seed % 4 == 3;
    let bank = |server: &mut Server| {
        server.bank = Some(toml::from_str::<BankSettings>(BANK).unwrap());
    };
    let react = |heard: &str| reaction(heard, keys_again);
    let (server, context) = speaking_call((seed, noise), bank, react);
    for sale in server.simulator.sales() {
        let last4 = sale.last4.as_ref().map(|four| four.as_str());
        assert_eq!(last4, Some(&ACCOUNT[7..]), "an account that is not hers\n{context}");
        assert_eq!(sale.total.minor, TOTAL, "{context}");
    }
    for debit in &server.debits {
        assert_eq!(*debit, format!("{ROUTING} {ACCOUNT} checking"), "{context}");
    }
    figures.count(&server);
    for telling in &server.tellings {
        // What is told of the call has the last four digits, as the authorisation must.
        let told = format!("{telling:?}");
        assert!(!told.contains(&ACCOUNT[..7]) && !told.contains(ROUTING), "{told}\n{context}");
        match telling {
            Telling::Keyed { field: "consent" | "authorisation", spoken, .. } => {
                assert!(!spoken, "signed by voice\n{context}");
            }
            Telling::Keyed {
                field: "bank_account_again", spoken: false, rejected: false, ..
            } if keys_again => {}
            Telling::Keyed { spoken, rejected: false, .. } => figures.answered(*spoken),
            _ => {}
        }
    }
}

fn reaction(heard: &str, keys_again: bool) -> Option<Act> {
    let heard = heard.trim_end();
    if heard.ends_with("say no or press 2.") {
        let right = [&ROUTING[5..], &ACCOUNT[7..]].contains(&&*read_back(heard));
        return Some(Act::Say(if right { "yes" } else { "no" }));
    }
    let keypad = heard.contains("Please use the keys") || heard.contains("Enter ");
    // What is asked by its last words, what she says to it, and what she keys if she must.
    let questions = [
        ("press 3.", "one", "1"),
        ("from a bank account, press 2.", "two", "2"),
        ("from a bank account, say or press 2.", "two", "2"),
        ("routing number of your bank.", "routing", ROUTING),
        ("Your bank can also tell you.", "routing", ROUTING),
        ("For a savings account, press 2.", "one", "1"),
        ("For a savings account, say or press 2.", "one", "1"),
        ("bank account, then press pound.", "account", "12345678901#"),
        ("bank account, digit by digit.", "account", "12345678901#"),
        ("start the entry again, press star.", "account", "12345678901#"),
        ("bank account once more, then press pound.", "account", "12345678901#"),
        ("bank account once more, digit by digit.", "account", "12345678901#"),
    ];
    if heard.contains("you authorize") || heard.contains("To revoke") {
        return heard.ends_with("press 2.").then_some(Act::Key("1"));
    }
    let (asked, said, keyed) = questions.into_iter().find(|(end, ..)| heard.ends_with(end))?;
    let keypad = keypad || heard.ends_with(", press 2.") && asked.contains(", press");
    let again = keys_again && asked.contains("once more");
    Some(if keypad || again { Act::Key(keyed) } else { Act::Say(said) })
}
