//! Why a debit comes back (R01 and on), what a notice of change is about (C01 and on), and what is
//! to be done then.

use std::fmt;

/// A reason as Nacha codes it: a letter and two digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code([u8; 3]);

/// What a return asks of whoever made the debit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It may be presented again, twice at most.
    Again,
    /// This bank account cannot be debited: it is refused from now on.
    Block,
    /// Its holder says it was not authorised: no bank account of this customer is debited until a
    /// person has spoken to them.
    Stop,
    /// The money went back; nothing else follows.
    Nothing,
    /// About a return, between banks: a person settles it.
    Dispute,
}

/// Presented at most so often after it was returned.
pub const AGAIN_MAX: i64 = 2;
/// Days after which a debit that was returned may not be presented any more.
pub const AGAIN_DAYS: i64 = 180;

impl Code {
    pub fn parse(text: &str) -> Option<Code> {
        let bytes: [u8; 3] = text.as_bytes().try_into().ok()?;
        let right = matches!(bytes[0], b'R' | b'C') && bytes[1..].iter().all(u8::is_ascii_digit);
        right.then_some(Code(bytes))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub fn is_return(self) -> bool {
        self.0[0] == b'R'
    }

    fn number(self) -> u8 {
        (self.0[1] - b'0') * 10 + self.0[2] - b'0'
    }

    /// What a return with this reason asks for.
    pub fn action(self) -> Action {
        match self.number() {
            1 | 9 => Action::Again,
            2 | 3 | 4 | 13 | 14 | 15 | 16 | 20 | 28 => Action::Block,
            5 | 7 | 10 | 11 | 29 => Action::Stop,
            61..=79 => Action::Dispute,
            _ => Action::Nothing,
        }
    }

    /// The reason in words, for people.
    pub fn reason(self) -> &'static str {
        let letter = self.0[0];
        match (letter, self.number()) {
            (b'R', 1) => "insufficient funds",
            (b'R', 2) => "account closed",
            (b'R', 3) => "no account, or it is not this person's",
            (b'R', 4) => "no such account number",
            (b'R', 5) => "a consumer's account debited as a business's, not authorised",
            (b'R', 6) => "sent back because our bank asked",
            (b'R', 7) => "authorisation revoked",
            (b'R', 8) => "payment stopped",
            (b'R', 9) => "uncollected funds",
            (b'R', 10) => "holder says it was not authorised",
            (b'R', 11) => "not as it was authorised",
            (b'R', 12) => "account went to another bank",
            (b'R', 13) => "no bank has this routing number",
            (b'R', 14 | 15) => "holder or beneficiary died",
            (b'R', 16) => "account frozen",
            (b'R', 17) => "wrong data or a doubtful entry",
            (b'R', 18) => "wrong effective date",
            (b'R', 19) => "wrong amount",
            (b'R', 20) => "account takes no debits",
            (b'R', 21) => "wrong company id",
            (b'R', 22) => "wrong individual id",
            (b'R', 24) => "a duplicate",
            (b'R', 26) => "a mandatory field is wrong",
            (b'R', 27) => "wrong trace number",
            (b'R', 28) => "wrong check digit of the routing number",
            (b'R', 29) => "company says it was not authorised",
            (b'R', 61..=70) => "the return was dishonoured",
            (b'R', 71..=79) => "a dishonoured return is contested",
            (b'C', 1) => "account number changed",
            (b'C', 2) => "routing number changed",
            (b'C', 3) => "routing and account number changed",
            (b'C', 4) => "name changed",
            (b'C', 5) => "kind of account changed",
            (b'C', 6) => "account number and kind changed",
            (b'C', 7) => "routing number, account number and kind changed",
            (b'C', 9) => "individual id changed",
            (b'C', 61..=69) => "our notice of change was refused",
            _ => "see Nacha's list of codes",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_asks_for_what_the_rules_want() {
        let of = |action| {
            let codes = (1..=99).filter_map(|n| Code::parse(&format!("R{n:02}")));
            let codes = codes.filter(move |code| code.action() == action);
            codes.map(|code| code.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(Action::Again), "R01 R09");
        assert_eq!(of(Action::Block), "R02 R03 R04 R13 R14 R15 R16 R20 R28");
        assert_eq!(of(Action::Stop), "R05 R07 R10 R11 R29");
        let dispute = of(Action::Dispute);
        assert!(dispute.starts_with("R61") && dispute.ends_with("R79"), "{dispute}");
        for wrong in ["", "R1", "R001", "X01", "R0a", "r01", "ä1"] {
            assert_eq!(Code::parse(wrong), None, "{wrong}");
        }
        assert!(!Code::parse("C01").unwrap().is_return());
    }
}
