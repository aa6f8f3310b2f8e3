//! `[gateway.settings]` of the gateway `nacha`: who originates debits, and when and where their
//! files are written. All that is wrong is told at once, by key.

use std::path::PathBuf;

use jiff::civil::Time;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::file::AGAIN;
use super::plain;
use crate::instrument::RoutingNumber;

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub originator: Originator,
    /// What is authorised before this time of a banking day, where the biller is, is in a file of
    /// that day.
    pub cut_off: Time,
    /// Files for the bank are written here.
    pub directory: PathBuf,
    /// File of the key that account numbers are sealed with until they are in a file.
    pub account_key: PathBuf,
}

/// What a file says of whom it comes from, in the words it says it. Kept with each file, so that a
/// changed configuration does not change a file that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Originator {
    /// Routing number of the bank that takes the files (ODFI).
    pub odfi: String,
    pub destination: String,
    pub destination_name: String,
    pub origin: String,
    pub origin_name: String,
    pub company_id: String,
    pub company_name: String,
    pub entry_description: String,
}

/// A key whose value cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub key: &'static str,
    pub what: String,
    pub instead: &'static str,
}

/// Settings as an operator would write them.
pub const EXAMPLE: &str = "\
odfi_routing = \"091000019\"                   # your bank, which takes the files
immediate_destination_name = \"FIRST BANK\"
immediate_origin = \"1800432100\"              # what your bank gave you, often 1 and your EIN
company_id = \"1800432100\"
company_name = \"ACME WATER\"                  # what holders see on their statement
entry_description = \"WATER BILL\"
cut_off = \"16:30\"                            # in the time zone of [payment.bank]
directory = \"ach\"
account_key = { file = \"ach.key\" }           # openssl rand -hex 32
";

const KEYS: [&str; 11] = [
    "odfi_routing",
    "immediate_destination",
    "immediate_destination_name",
    "immediate_origin",
    "immediate_origin_name",
    "company_id",
    "company_name",
    "entry_description",
    "cut_off",
    "directory",
    "account_key",
];

impl Settings {
    pub fn read(table: &Table) -> Result<Settings, Vec<Wrong>> {
        let mut keys = Keys { table, wrong: Vec::new() };
        for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            let what = format!("`{key}` is no key of the gateway `nacha`");
            keys.note("", what, "remove it");
        }
        let odfi = keys.routing();
        let origin_rule = "write the ten characters your bank gave you, or nine digits";
        let company_rule = "write ten letters and digits: 1 and your EIN, or what your bank says";
        let company_name =
            keys.name("company_name", 16, None, "write company_name = \"ACME WATER\"");
        let originator = Originator {
            destination: keys.id("immediate_destination", Some(&odfi), origin_rule),
            destination_name: keys.name(
                "immediate_destination_name",
                23,
                None,
                "write the name of your bank",
            ),
            origin: keys.id("immediate_origin", None, origin_rule),
            origin_name: keys.name(
                "immediate_origin_name",
                23,
                Some(&company_name),
                "leave it out for company_name",
            ),
            company_id: keys.id("company_id", None, company_rule),
            company_name,
            entry_description: keys.description(),
            odfi,
        };
        let cut_off = keys.cut_off();
        let directory =
            keys.path("directory", keys.table.get("directory"), "write directory = \"ach\"");
        let key_file = match table.get("account_key") {
            Some(Value::Table(pointer)) if pointer.len() == 1 => pointer.get("file"),
            _ => None,
        };
        let rule = "write account_key = { file = \"ach.key\" }; `openssl rand -hex 32` makes one";
        let account_key = keys.path("account_key", key_file, rule);
        match keys.wrong.is_empty() {
            true => Ok(Settings { originator, cut_off, directory, account_key }),
            false => Err(keys.wrong),
        }
    }
}

struct Keys<'t> {
    table: &'t Table,
    wrong: Vec<Wrong>,
}

impl Keys<'_> {
    fn note(&mut self, key: &'static str, what: impl Into<String>, instead: &'static str) {
        self.wrong.push(Wrong { key, what: what.into(), instead });
    }

    /// A text, trimmed; `None`, noted, if there is none.
    fn text(&mut self, key: &'static str, instead: &'static str) -> Option<String> {
        match self.table.get(key).map(Value::as_str) {
            Some(Some(text)) if !text.trim().is_empty() => Some(text.trim().to_string()),
            None => {
                self.note(key, format!("`{key}` is missing"), instead);
                None
            }
            _ => {
                self.note(key, format!("`{key}` must be a text"), instead);
                None
            }
        }
    }

    fn routing(&mut self) -> String {
        const RULE: &str = "write the nine digits of the bank that takes your files";
        let Some(text) = self.text("odfi_routing", RULE) else { return "0".repeat(9) };
        if RoutingNumber::parse(&text).is_none() {
            self.note("odfi_routing", format!("`{text}` is no routing number"), RULE);
            return "0".repeat(9);
        }
        text
    }

    /// Ten characters; nine digits get a blank before them.
    fn id(&mut self, key: &'static str, default: Option<&str>, rule: &'static str) -> String {
        let given = match (default, self.table.contains_key(key)) {
            (Some(default), false) => Some(default.to_string()),
            _ => self.text(key, rule),
        };
        let Some(text) = given else { return String::new() };
        let right = text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        match text.len() {
            10 if right => text,
            9 if right && key != "company_id" => format!(" {text}"),
            _ => {
                self.note(key, format!("`{key}`: `{text}` does not fit its field"), rule);
                String::new()
            }
        }
    }

    /// A name as files can hold it, of at most so many characters.
    fn name(
        &mut self,
        key: &'static str,
        most: usize,
        default: Option<&str>,
        rule: &'static str,
    ) -> String {
        let given = match (default, self.table.contains_key(key)) {
            (Some(default), false) => return default.to_string(),
            _ => self.text(key, rule),
        };
        let Some(text) = given else { return String::new() };
        let name = plain(&text);
        if name.is_empty() || name.len() > most {
            let what = format!("`{key}`: files have room for 1 to {most} characters");
            self.note(key, what, rule);
        }
        name
    }

    fn description(&mut self) -> String {
        const RULE: &str = "say what the debit is for, such as \"WATER BILL\"";
        let name = self.name("entry_description", 10, None, RULE);
        // These mean something else to banks.
        if [AGAIN, "REVERSAL", "RECLAIM"].contains(&name.as_str()) {
            let what = format!("`entry_description`: `{name}` has a meaning of its own");
            self.note("entry_description", what, RULE);
        }
        name
    }

    fn cut_off(&mut self) -> Time {
        const RULE: &str = "write a time of day such as \"16:30\", before your bank's last window";
        let Some(text) = self.text("cut_off", RULE) else { return Time::midnight() };
        Time::strptime("%H:%M", &text).unwrap_or_else(|_| {
            self.note("cut_off", format!("`cut_off`: `{text}` is no time of day"), RULE);
            Time::midnight()
        })
    }

    fn path(&mut self, key: &'static str, value: Option<&Value>, rule: &'static str) -> PathBuf {
        match value.and_then(Value::as_str) {
            Some(text) if !text.trim().is_empty() => PathBuf::from(text),
            _ => {
                self.note(key, format!("`{key}` is missing, or no path"), rule);
                PathBuf::new()
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn originator() -> Originator {
        Settings::read(&EXAMPLE.parse().unwrap()).unwrap().originator
    }

    #[test]
    fn the_example_can_be_used() {
        let settings = Settings::read(&EXAMPLE.parse().unwrap()).unwrap();
        let Originator { destination, origin_name, company_id, .. } = &settings.originator;
        assert_eq!((&**destination, &**origin_name), (" 091000019", "ACME WATER"));
        assert_eq!((&**company_id, settings.cut_off), ("1800432100", Time::constant(16, 30, 0, 0)));
        let words = serde_json::to_string(&settings.originator).unwrap();
        assert_eq!(serde_json::from_str::<Originator>(&words).unwrap(), settings.originator);
    }

    #[test]
    fn all_that_is_missing_is_told_at_once() {
        let wrong = Settings::read(&Table::new()).unwrap_err();
        let mut keys: Vec<_> = wrong.iter().map(|one| one.key).collect();
        keys.sort_unstable();
        let want = [
            "account_key",
            "company_id",
            "company_name",
            "cut_off",
            "directory",
            "entry_description",
            "immediate_destination_name",
            "immediate_origin",
            "odfi_routing",
        ];
        assert_eq!(keys, want);
    }

    #[test]
    fn what_no_file_can_hold_is_refused() {
        for (from, to, key, want) in [
            ("091000019", "091000018", "odfi_routing", "no routing number"),
            ("1800432100\"  ", "80043210\"  ", "immediate_origin", "does not fit"),
            ("company_id = \"1800432100", "company_id = \"180043210", "company_id", "does not fit"),
            ("ACME WATER", "THE ACME WATER COMPANY", "company_name", "1 to 16"),
            ("WATER BILL", "Retry Pymt", "entry_description", "a meaning of its own"),
            ("16:30", "25:00", "cut_off", "no time of day"),
            ("{ file = \"ach.key\" }", "\"0123\"", "account_key", "missing, or no path"),
            ("directory", "folder", "directory", "missing"),
            ("cut_off", "cutoff", "", "`cutoff` is no key"),
        ] {
            let text = EXAMPLE.replacen(from, to, 1);
            let wrong = Settings::read(&text.parse().unwrap()).unwrap_err();
            let found = wrong.iter().any(|one| one.key == key && one.what.contains(want));
            assert!(found, "{to}: {wrong:?}");
        }
    }
}
