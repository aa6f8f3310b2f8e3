//! Paying from a bank account: `[payment.bank]`. Whoever debits an account owes its holder the
//! facts that an authorisation by phone must hold (Nacha, SEC code TEL): none may be missing.

use std::path::PathBuf;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Deserialize;

use crate::instrument::AccountKind;
use crate::payment::Fee;
use crate::prompt::Prompt;
use crate::sip::number::e164;

/// Checked as a whole, so that all that is missing is told at once.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub struct BankSettings {
    /// Who debits the account, as callers authorise it.
    pub company: String,
    /// Where callers ask and revoke, answered in business hours.
    pub phone: Phone,
    /// Where the biller is: an authorisation is of a day there.
    pub zone: Zone,
    /// Kinds of accounts that are taken, in the order they are offered.
    pub accounts: Vec<AccountKind>,
    /// Routing numbers and the names of their banks. Others are refused.
    pub routing_file: Option<PathBuf>,
    /// Another fee than that for cards.
    pub fee: Option<Fee>,
    /// The biller sends the account's holder a written notice before the debit settles, instead of
    /// keeping the authorisation as a recording.
    pub written_notice: bool,
}

/// A North American telephone number that can be said: ten digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phone(String);

impl Phone {
    pub fn parse(text: &str) -> Option<Phone> {
        let number = e164(text, "US")?;
        let national = number.strip_prefix("+1").filter(|digits| digits.len() == 10)?;
        Some(Phone(national.to_string()))
    }

    /// E.164 with `+`.
    pub fn number(&self) -> String {
        format!("+1{}", self.0)
    }

    /// In groups of three, three and four.
    pub(in crate::payment) fn prompts(&self) -> Vec<Prompt> {
        let (area, local) = self.0.split_at(3);
        let (exchange, line) = local.split_at(3);
        let pause = || Prompt::Pause { ms: 300 };
        let digits = |part: &str| Prompt::Digits(part.to_string());
        vec![digits(area), pause(), digits(exchange), pause(), digits(line)]
    }
}

/// A time zone of the United States by name, or any by its rule (POSIX `TZ`).
#[derive(Clone, Debug, PartialEq)]
pub struct Zone(TimeZone);

/// Standard and daylight-saving time as they are since 2007.
const ZONES: [(&str, &str); 7] = [
    ("eastern", "EST5EDT,M3.2.0,M11.1.0"),
    ("central", "CST6CDT,M3.2.0,M11.1.0"),
    ("mountain", "MST7MDT,M3.2.0,M11.1.0"),
    ("arizona", "MST7"),
    ("pacific", "PST8PDT,M3.2.0,M11.1.0"),
    ("alaska", "AKST9AKDT,M3.2.0,M11.1.0"),
    ("hawaii", "HST10"),
];

impl Zone {
    pub fn parse(text: &str) -> Option<Zone> {
        let named = ZONES.iter().find(|(name, _)| *name == text).map(|(_, rule)| *rule);
        TimeZone::posix(named.unwrap_or(text)).ok().map(Zone)
    }

    /// The day there at this instant, Unix milliseconds.
    pub fn date(&self, wall_ms: i64) -> Date {
        self.at(wall_ms).date()
    }

    /// Date and time of day there.
    pub fn civil(&self, wall_ms: i64) -> DateTime {
        self.at(wall_ms).datetime()
    }

    /// The instant it is this date and time there, Unix milliseconds.
    pub fn instant(&self, at: DateTime) -> Option<i64> {
        Some(at.to_zoned(self.0.clone()).ok()?.timestamp().as_millisecond())
    }

    /// As written: `2026-11-28T15:04:05-05:00`.
    pub fn written(&self, wall_ms: i64) -> String {
        let at = self.at(wall_ms);
        let seconds = at.offset().seconds();
        let (sign, seconds) = if seconds < 0 { ('-', -seconds) } else { ('+', seconds) };
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        format!("{}{sign}{hours:02}:{minutes:02}", at.strftime("%Y-%m-%dT%H:%M:%S"))
    }

    fn at(&self, wall_ms: i64) -> Zoned {
        let now = Timestamp::from_millisecond(wall_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        now.to_zoned(self.0.clone())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    company: Option<String>,
    phone: Option<String>,
    time_zone: Option<String>,
    accounts: Option<Vec<String>>,
    routing_file: Option<PathBuf>,
    fee: Option<Fee>,
    #[serde(default)]
    written_notice: bool,
}

impl TryFrom<Written> for BankSettings {
    type Error = String;

    fn try_from(written: Written) -> Result<BankSettings, String> {
        let mut wrong = Vec::new();
        let mut slot = |key: &str, text: &Option<String>, what: &str| {
            let text = text.as_deref().map_or("", str::trim);
            if text.is_empty() {
                wrong.push(format!("`{key}` is missing: {what}"));
            }
            text.to_string()
        };
        let company = slot(
            "company",
            &written.company,
            "callers authorise a debit by name, write company = \"Acme Water\"",
        );
        let phone = slot(
            "phone",
            &written.phone,
            "where callers ask and revoke, write phone = \"+1 800 555 0100\"",
        );
        let zone = slot(
            "time_zone",
            &written.time_zone,
            "an authorisation is of a day, write time_zone = \"eastern\"",
        );
        if company.chars().count() > COMPANY_MAX || company.chars().any(char::is_control) {
            wrong.push(format!("`company`: write at most {COMPANY_MAX} characters, on one line"));
        }
        let parsed = Phone::parse(&phone);
        if parsed.is_none() && !phone.is_empty() {
            wrong.push(format!("`phone`: `{phone}` is no number: write ten digits"));
        }
        let parsed_zone = Zone::parse(&zone);
        if parsed_zone.is_none() && !zone.is_empty() {
            let known = ZONES.map(|(name, _)| name).join(", ");
            wrong.push(format!(
                "`time_zone`: `{zone}` is none of {known}, nor a rule such as {}",
                ZONES[0].1
            ));
        }
        let accounts = kinds(written.accounts).map_err(|why| wrong.push(why)).unwrap_or_default();
        match (parsed, parsed_zone, wrong.is_empty()) {
            (Some(phone), Some(zone), true) => Ok(BankSettings {
                company,
                phone,
                zone,
                accounts,
                routing_file: written.routing_file,
                fee: written.fee,
                written_notice: written.written_notice,
            }),
            _ => Err(wrong.join("; ")),
        }
    }
}

/// What is longer is no name that callers would follow.
const COMPANY_MAX: usize = 60;

fn kinds(names: Option<Vec<String>>) -> Result<Vec<AccountKind>, String> {
    let Some(names) = names else { return Ok(AccountKind::ALL.to_vec()) };
    let mut kinds = Vec::new();
    for name in &names {
        let kind = AccountKind::ALL.into_iter().find(|kind| kind.name() == name);
        match kind {
            Some(kind) if !kinds.contains(&kind) => kinds.push(kind),
            Some(_) => {}
            None => {
                let known = AccountKind::ALL.map(AccountKind::name).join(", ");
                return Err(format!(
                    "`accounts`: `{name}` is none of {known} (TEL is for consumers' accounts)"
                ));
            }
        }
    }
    if kinds.is_empty() {
        return Err("`accounts`: no account would be taken: leave it out for all".into());
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "company = \"Acme Water\"\nphone = \"1 (800) 555-0100\"\ntime_zone = \"eastern\"\n";

    fn read(text: &str) -> Result<BankSettings, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_string())
    }

    #[test]
    fn what_every_authorisation_must_hold_is_asked_for_at_once() {
        let settings = read(GOOD).unwrap();
        assert_eq!(settings.phone.number(), "+18005550100");
        assert_eq!(settings.accounts, AccountKind::ALL);
        assert!(!settings.written_notice && settings.fee.is_none());
        let nothing = read("").unwrap_err();
        for want in ["company = \"Acme Water\"", "phone = \"+1 800", "time_zone = \"eastern\""] {
            assert!(nothing.contains(want), "{nothing}");
        }
        let blank = read(&GOOD.replace("Acme Water", "  ")).unwrap_err();
        assert!(blank.starts_with("`company` is missing"), "{blank}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (from, to, want) in [
            ("1 (800) 555-0100", "555-0100", "`555-0100` is no number: write ten digits"),
            ("1 (800) 555-0100", "+44 20 7946 0958", "is no number"),
            ("eastern", "EST/5", "`EST/5` is none of eastern, central"),
            ("eastern\"", "eastern\"\naccounts = [\"business\"]", "none of checking, savings"),
            ("eastern\"", "eastern\"\naccounts = []", "no account would be taken"),
            ("eastern\"", "eastern\"\nrouting = \"x\"", "unknown field `routing`"),
            ("Acme Water", &"x".repeat(61), "at most 60 characters"),
        ] {
            let error = read(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(want), "{to}: {error}");
        }
        let savings = read(&format!("{GOOD}accounts = [\"savings\"]\nfee = \"1.00\"")).unwrap();
        assert_eq!(savings.accounts, [AccountKind::Savings]);
        assert!(savings.fee.is_some());
    }

    #[test]
    fn a_day_is_the_billers_and_knows_summer_time() {
        let eastern = Zone::parse("eastern").unwrap();
        // 2026-11-29T03:30:00Z and 2026-06-15T03:30:00Z
        let (winter, summer) = (1_795_923_000_000, 1_781_494_200_000);
        assert_eq!(eastern.date(winter), jiff::civil::date(2026, 11, 28));
        assert_eq!(eastern.written(winter), "2026-11-28T22:30:00-05:00");
        assert_eq!(eastern.written(summer), "2026-06-14T23:30:00-04:00");
        assert_eq!(Zone::parse("hawaii").unwrap().date(winter), jiff::civil::date(2026, 11, 28));
        for (name, _) in ZONES {
            assert!(Zone::parse(name).is_some(), "{name}");
        }
    }
}
