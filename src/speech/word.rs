//! What a word that is heard means, whatever the language: a model's tokens are turned into these.

pub mod english;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// 0 to 9; "oh" is a zero.
    Digit(u8),
    /// The next digit this many times: "double" 2, "triple" 3.
    Times(u8),
    /// 10 to 19.
    Teen(u8),
    /// 20, 30 ... 90.
    Tens(u8),
    Hundred,
    Thousand,
    /// The currency's unit, and its hundredth.
    Dollars,
    Cents,
    /// "and", "point": joins, and says nothing itself.
    And,
    Point,
    /// 1 to 12.
    Month(u8),
    Yes,
    No,
    Command(Command),
    /// Speech that is none of these.
    Other,
}

/// What a caller may say instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Repeat,
    Agent,
    Cancel,
    Back,
}

impl Command {
    pub fn name(self) -> &'static str {
        match self {
            Command::Repeat => "repeat",
            Command::Agent => "agent",
            Command::Cancel => "cancel",
            Command::Back => "back",
        }
    }
}
