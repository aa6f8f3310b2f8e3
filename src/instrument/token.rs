//! What a gateway keeps for us: its name for a card or account, of no use anywhere else.

use std::fmt;

use zeroize::Zeroizing;

use super::{Cvv, Expiry, Method};

/// A gateway's name for a card or account it keeps: no card data, and yet it can be charged, so it
/// is not printed. ASCII without spaces, at most [`TOKEN_MAX`] characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

pub const TOKEN_MAX: usize = 256;

impl Token {
    pub fn parse(text: &str) -> Option<Token> {
        let plain =
            (1..=TOKEN_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        plain.then(|| Token(Zeroizing::new(text.to_string())))
    }

    /// The token, for the gateway request and the ledger alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A card or account that the gateway keeps, to be charged.
pub struct Saved {
    pub token: Token,
    pub method: Method,
    /// Of a card: some gateways keep a number and no more.
    pub expiry: Option<Expiry>,
    /// The card's security code, where it is asked for again.
    pub cvv: Option<Cvv>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_printed() {
        let token = Token::parse("cus_1/pm_2").unwrap();
        assert_eq!((format!("{token:?}"), token.expose()), ("***".to_string(), "cus_1/pm_2"));
        for wrong in ["", "a b", "ü", &"x".repeat(TOKEN_MAX + 1)] {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
    }
}
