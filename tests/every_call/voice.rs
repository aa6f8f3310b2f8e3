//! Every field may be said; nothing that costs money, or signs for it, is agreed to by voice.

use ringtill::dialogue::{Question, ReadBack, Secrecy};
use ringtill::speech::Field;

/// The rules for one question, as the script puts it.
pub fn check(question: &Question) {
    let name = question.name;
    let said = question.voice.map(|voice| (voice.field, voice.read_back));
    // What is agreed to here is agreed to by key.
    let signs = ["consent", "authorisation", "keep", "keep_terms", "later_agree", "autopay"];
    if signs.contains(&name) {
        return assert!(said.is_none(), "{name} may be said");
    }
    let fields = [
        ("account", ReadBack::Always),
        ("verify", ReadBack::Always),
        ("choice", ReadBack::Never),
        ("amount", ReadBack::Later),
        ("method", ReadBack::Never),
        ("card", ReadBack::LastFour),
        ("expiry", ReadBack::Always),
        ("cvv", ReadBack::Never),
        ("zip", ReadBack::Always),
        ("routing", ReadBack::LastFour),
        ("kind", ReadBack::Never),
        // A slip in the digits that are not read back is found by the second entry.
        ("bank_account", ReadBack::Ending),
        ("bank_account_again", ReadBack::Later),
    ];
    if let Some((_, read_back)) = fields.iter().find(|(field, _)| *field == name) {
        assert_eq!(said.map(|(_, read_back)| read_back), Some(*read_back), "{name}");
    }
    if let Some((Field::Card | Field::Cvv(_) | Field::Routing, _)) = said {
        assert_eq!(question.secrecy, Secrecy::Sensitive, "{name}");
    }
    if name.starts_with("bank_account") {
        assert_eq!(question.secrecy, Secrecy::Sensitive, "{name}");
    }
}
