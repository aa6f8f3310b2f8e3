//! Files of the Automated Clearing House as Nacha lays them out: debits that callers authorised by
//! phone (SEC code TEL) go out, returns and notices of change come back. 94 characters a record.

use zeroize::Zeroizing;

use crate::instrument::{AccountKind, BankAccount, RoutingNumber};

pub mod calendar; // days on which the Federal Reserve moves money
pub mod settings; // who originates, and when and where files are written
pub mod record; // fields of a record, written and read
pub mod file; // debits, as the bank takes them
pub mod code; // why debits come back, and what to do then
pub mod correction; // what a notice of change says
pub mod returned; // files that come back

pub use code::{Action, Code};
pub use correction::Correction;
pub use file::{Entry, File};
pub use returned::{Damage, Item, News, Returned};
pub use settings::{Originator, Settings};

/// Whose account is debited, in Nacha's word. Sensitive.
pub struct Receiver {
    pub account: BankAccount,
    /// As the biller knows them; a file has room for the first 22 characters.
    pub name: Zeroizing<String>,
}

/// The longest that an encoded receiver can be.
const ENCODED_MAX: usize = 1_024;

impl Receiver {
    /// As it is sealed until a file holds it. The same receiver always gives the same bytes.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(ENCODED_MAX));
        let BankAccount { routing, kind, .. } = &self.account;
        let name: Zeroizing<String> =
            Zeroizing::new(self.name.chars().filter(|c| !c.is_control()).take(100).collect());
        let parts = [routing.as_str(), self.account.expose(), kind.name(), &name];
        for (index, part) in parts.into_iter().enumerate() {
            if index > 0 {
                bytes.push(b'\n');
            }
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }

    /// Reads what [`Receiver::encode`] gave.
    pub fn decode(bytes: &[u8]) -> Option<Receiver> {
        let mut parts = std::str::from_utf8(bytes).ok()?.splitn(4, '\n');
        let routing = RoutingNumber::parse(parts.next()?)?;
        let number = parts.next()?;
        let kind = parts.next()?;
        let kind = AccountKind::ALL.into_iter().find(|one| one.name() == kind)?;
        let account = BankAccount::parse(routing, number, kind)?;
        Some(Receiver { account, name: Zeroizing::new(parts.next()?.to_string()) })
    }
}

/// Upper-case letters, digits and a few marks, as every bank reads them; accents are dropped, and
/// what has no likeness becomes a blank.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_uppercase) {
        match c {
            'A'..='Z' | '0'..='9' | ' ' | '.' | ',' | '-' | '\'' | '/' | '&' => out.push(c),
            'À'..='Å' | 'Ā' | 'Ă' | 'Ą' => out.push('A'),
            'Æ' => out.push_str("AE"),
            'Ç' | 'Ć' | 'Č' => out.push('C'),
            'Ð' | 'Ď' | 'Đ' => out.push('D'),
            'È'..='Ë' | 'Ē' | 'Ė' | 'Ę' | 'Ě' => out.push('E'),
            'Ğ' | 'Ģ' => out.push('G'),
            'Ì'..='Ï' | 'Ī' | 'Į' | 'İ' => out.push('I'),
            'Ł' | 'Ļ' | 'Ľ' => out.push('L'),
            'Ñ' | 'Ń' | 'Ň' | 'Ņ' => out.push('N'),
            'Ò'..='Ö' | 'Ø' | 'Ō' | 'Ő' => out.push('O'),
            'Œ' => out.push_str("OE"),
            'Ř' | 'Ŕ' => out.push('R'),
            'Ś' | 'Š' | 'Ş' | 'Ș' => out.push('S'),
            'Ť' | 'Ţ' | 'Ț' => out.push('T'),
            'Ù'..='Ü' | 'Ū' | 'Ů' | 'Ű' | 'Ų' => out.push('U'),
            'Ý' | 'Ÿ' => out.push('Y'),
            'Þ' => out.push_str("TH"),
            'Ź' | 'Ż' | 'Ž' => out.push('Z'),
            _ => out.push(' '),
        }
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_read_back() {
        let routing = RoutingNumber::parse("021000021").unwrap();
        let account = BankAccount::parse(routing, "0012345", AccountKind::Savings).unwrap();
        let name = Zeroizing::new("José\nÁlvarez".to_string());
        let bytes = Receiver { account, name }.encode();
        let back = Receiver::decode(&bytes).unwrap();
        assert_eq!((back.account.expose(), back.account.kind), ("0012345", AccountKind::Savings));
        assert_eq!((back.account.routing.as_str(), &**back.name), ("021000021", "JoséÁlvarez"));
        for cut in 0..bytes.len() {
            // A name that is cut is a name; nothing else may be.
            let read = Receiver::decode(&bytes[..cut]).map(|one| one.account.expose().to_string());
            assert!(read.is_none_or(|number| number == "0012345"), "{cut}");
        }
    }

    #[test]
    fn names_are_what_every_bank_reads() {
        for (name, want) in [
            ("José Núñez-Ørsted", "JOSE NUNEZ-ORSTED"),
            ("  Zoë   O'Brien & Co. ", "ZOE O'BRIEN & CO."),
            ("straße", "STRASSE"),
            ("王 Wang\t#1", "WANG 1"),
            ("王", ""),
        ] {
            assert_eq!(plain(name), want, "{name}");
        }
    }
}
