//! Which card or account a payment was made with, to be compared and never read back: keyed
//! HMAC-SHA-256 (PCI DSS 3.5.1.1), so that without the key no number can be tried against it.

use std::fmt;

use aws_lc_rs::hmac;

use super::{BankAccount, Pan};

/// The first half of the tag, written as 32 letters `a` to `p`: no reader, and no search for card
/// numbers, takes it for one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; LEN]);

const LEN: usize = 16;

impl Fingerprint {
    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Fingerprint> {
        let letters = text.as_bytes();
        if letters.len() != 2 * LEN || !letters.iter().all(|b| (b'a'..=b'p').contains(b)) {
            return None;
        }
        let mut bytes = [0; LEN];
        for (byte, pair) in bytes.iter_mut().zip(letters.chunks_exact(2)) {
            *byte = (pair[0] - b'a') << 4 | (pair[1] - b'a');
        }
        Some(Fingerprint(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |nibble: u8| char::from(b'a' + nibble);
        let mut letters = self.0.iter().flat_map(|byte| [letter(byte >> 4), letter(byte & 15)]);
        letters.try_for_each(|letter| fmt::Write::write_char(f, letter))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key of all fingerprints of one ledger. With another key every card looks new.
pub struct FingerprintKey(hmac::Key);

/// A key of fewer bytes is no secret.
pub const KEY_LEN_MIN: usize = 32;

impl FingerprintKey {
    /// `None` if there are fewer than [`KEY_LEN_MIN`] bytes.
    pub fn new(key: &[u8]) -> Option<FingerprintKey> {
        (key.len() >= KEY_LEN_MIN).then(|| FingerprintKey(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    pub fn card(&self, pan: &Pan) -> Fingerprint {
        self.tag(&["card", pan.expose()])
    }

    pub fn bank(&self, account: &BankAccount) -> Fingerprint {
        self.tag(&["bank", account.kind.name(), account.routing.as_str(), account.expose()])
    }

    /// Of whoever issued the card: its first eight digits, six of a number shorter than 16
    /// (ISO/IEC 7812-1).
    pub fn issuer(&self, pan: &Pan) -> Fingerprint {
        let digits = pan.expose();
        let len = if digits.len() < 16 { 6 } else { 8 };
        self.tag(&["issuer", &digits[..len]])
    }

    /// Of a caller's number.
    pub fn caller(&self, number: &str) -> Fingerprint {
        self.tag(&["caller", number])
    }

    fn tag(&self, parts: &[&str]) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        let tag = context.sign();
        let mut bytes = [0; LEN];
        bytes.copy_from_slice(&tag.as_ref()[..LEN]);
        Fingerprint(bytes)
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AccountKind, RoutingNumber};
    use super::*;

    fn key(byte: u8) -> FingerprintKey {
        FingerprintKey::new(&[byte; 32]).unwrap()
    }

    fn bank(number: &str, kind: AccountKind) -> BankAccount {
        let routing = RoutingNumber::parse("021000021").unwrap();
        BankAccount::parse(routing, number, kind).unwrap()
    }

    #[test]
    fn the_same_card_has_the_same_fingerprint_under_one_key_alone() {
        let pan = |digits| Pan::parse(digits).unwrap();
        let (visa, amex) = (pan("4111111111111111"), pan("378282246310005"));
        assert_eq!(key(1).card(&visa), key(1).card(&pan("4111111111111111")));
        assert_ne!(key(1).card(&visa), key(1).card(&amex));
        assert_ne!(key(1).card(&visa), key(2).card(&visa));
        // HMAC-SHA-256 by OpenSSL: printf 'card\0004111111111111111\0', key of 32 bytes of 1.
        assert_eq!(key(1).card(&visa).to_string(), VISA);
        assert_eq!(key(1).issuer(&visa), key(1).issuer(&pan("4111111111111111")));
        assert_ne!(key(1).issuer(&visa), key(1).issuer(&pan("4012888888881881")));
        assert!(FingerprintKey::new(&[1; 31]).is_none());
    }

    const VISA: &str = "fedchlkbcanfcjipcciokmnagjhahpbi";

    #[test]
    fn checking_and_savings_are_two_accounts() {
        let checking = key(1).bank(&bank("123456", AccountKind::Checking));
        assert_ne!(checking, key(1).bank(&bank("123456", AccountKind::Savings)));
        assert_ne!(checking, key(1).bank(&bank("1234567", AccountKind::Checking)));
    }

    #[test]
    fn it_is_written_in_letters_and_read_back() {
        let fingerprint = key(1).caller("+13175550123");
        let text = fingerprint.to_string();
        assert!(text.len() == 32 && text.bytes().all(|b| b.is_ascii_lowercase()), "{text}");
        assert_eq!(Fingerprint::parse(&text), Some(fingerprint));
        for wrong in ["", "abc", &"q".repeat(32), &"a".repeat(34), &"é".repeat(16)] {
            assert_eq!(Fingerprint::parse(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{:?}", key(1)), "***");
    }
}
