//! Which of the fields callers are asked for they may say: those that an engine understands, of
//! people it has never heard.

use super::Field;

/// Kinds of field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields(u16);

/// What each is called in a configuration, and by whom it is understood: of strangers, in noise
/// of 10 to 30 dB and with packets lost, as many right at the first try as callers can live with.
const KINDS: [(&str, &[&str]); 9] = [
    ("card", &["whisper"]),
    ("routing", &["whisper"]),
    ("zip", &["whisper"]),
    ("expiry", &["whisper"]),
    ("cvv", &["whisper"]),
    ("amount", &[]),
    ("yesno", &["digits", "whisper"]),
    ("menu", &[]),
    ("account", &[]),
];

impl Fields {
    pub const NONE: Fields = Fields(0);
    pub const ALL: Fields = Fields((1 << KINDS.len()) - 1);

    /// Those that the engine of this name understands well enough.
    pub fn proven(engine: &str) -> Fields {
        let by_it = KINDS.iter().filter(|(_, engines)| engines.contains(&engine));
        by_it.filter_map(|&(name, _)| Fields::named(name)).fold(Fields::NONE, Fields::and)
    }

    /// One of the kinds, or `all` of them.
    pub fn named(name: &str) -> Option<Fields> {
        let one = KINDS.iter().position(|&(kind, _)| kind == name).map(|at| Fields(1 << at));
        one.or((name == "all").then_some(Fields::ALL))
    }

    /// What may be written, for those who wrote something else.
    pub fn names() -> String {
        KINDS.iter().map(|(name, _)| *name).chain(["all"]).collect::<Vec<_>>().join(", ")
    }

    pub fn and(self, other: Fields) -> Fields {
        Fields(self.0 | other.0)
    }

    pub fn has(self, field: Field) -> bool {
        let kind = match field {
            Field::Card => "card",
            Field::Routing => "routing",
            Field::Zip => "zip",
            Field::Expiry(_) => "expiry",
            Field::Cvv(_) => "cvv",
            Field::Amount => "amount",
            Field::YesNo => "yesno",
            Field::Digit => "menu",
            Field::Digits { .. } => "account",
        };
        Fields::named(kind).is_some_and(|kind| self.0 & kind.0 != 0)
    }
}

impl std::fmt::Display for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = KINDS.iter().enumerate().filter(|(at, _)| self.0 >> at & 1 == 1);
        f.write_str(&named.map(|(_, (name, _))| *name).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_name_and_is_itself_alone() {
        let fields = [
            (Field::Card, "card"),
            (Field::Routing, "routing"),
            (Field::Zip, "zip"),
            (Field::Expiry((26, 46)), "expiry"),
            (Field::Cvv((3, 4)), "cvv"),
            (Field::Amount, "amount"),
            (Field::YesNo, "yesno"),
            (Field::Digit, "menu"),
            (Field::Digits { min: 4, max: 17 }, "account"),
        ];
        assert_eq!(fields.len(), KINDS.len());
        for (field, name) in fields {
            let named = Fields::named(name).unwrap();
            assert_eq!(named.to_string(), name);
            assert_eq!(fields.map(|(other, _)| named.has(other)), fields.map(|(f, _)| f == field));
            assert!(Fields::ALL.has(field) && !Fields::NONE.has(field));
        }
        assert_eq!(Fields::named("all"), Some(Fields::ALL));
        assert_eq!(Fields::named("cards"), None);
    }

    #[test]
    fn engines_are_offered_for_what_they_understand() {
        assert_eq!(Fields::proven("digits").to_string(), "yesno");
        assert_eq!(Fields::proven("whisper").to_string(), "card, routing, zip, expiry, cvv, yesno");
        assert_eq!(Fields::proven("off"), Fields::NONE);
    }
}
