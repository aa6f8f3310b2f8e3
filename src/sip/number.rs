//! Telephone numbers: E.164 from what networks send, and back to what they want to be sent.

use phonenumber::Mode;
use phonenumber::metadata::DATABASE;
use serde::Deserialize;

/// A phone number as E.164 with `+`. `text` may be E.164, international with the prefix dialled
/// in `country` (ISO 3166), or national; `None` if it is no number of a person or line.
pub fn e164(text: &str, country: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > NUMBER_MAX || text.bytes().any(|b| b.is_ascii_alphabetic() || b > 0x7e) {
        return None;
    }
    let punctuation = [' ', '-', '.', '(', ')', '/'];
    let plain: String = text.chars().filter(|c| !punctuation.contains(c)).collect();
    let international = plain.strip_prefix('+');
    let digits = international.unwrap_or(&plain);
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if NORTH_AMERICA.contains(&country) || international.is_some() {
        let national = match (international, digits.len()) {
            (None, 10) => Some(digits),
            (_, 11) => digits.strip_prefix('1'),
            _ => None,
        };
        if let Some(national) = national {
            return is_north_american(national).then(|| format!("+1{national}"));
        }
    }
    let id = country.parse().ok();
    if let Ok(number) = phonenumber::parse(id, &plain)
        && phonenumber::is_valid(&number)
    {
        return Some(number.format().mode(Mode::E164).to_string());
    }
    // Numbers newer than the library's tables: believed when they came in full.
    let full = (8..=15).contains(&digits.len()) && !digits.starts_with('0');
    (international.is_some() && full).then(|| format!("+{digits}"))
}

const NUMBER_MAX: usize = 40;
/// Countries of the North American Numbering Plan whose numbers are checked without the library,
/// which would cost most of the time of a large import.
const NORTH_AMERICA: [&str; 3] = ["US", "CA", "PR"];

/// NXX NXX XXXX, N from 2 to 9.
fn is_north_american(national: &str) -> bool {
    let digits = national.as_bytes();
    digits.len() == 10 && digits[0] >= b'2' && digits[3] >= b'2'
}

/// How a trunk wants the numbers that it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberFormat {
    /// `+13175550142`
    #[default]
    PlusE164,
    /// `13175550142`
    E164,
    /// As it is dialled in the trunk's country, without separators: `3175550142` in the United
    /// States, `02079460000` in the United Kingdom; other countries' with the prefix for abroad.
    National,
}

/// A number as a trunk in `country` (ISO 3166) wants it. What is no E.164 number with `+` (an
/// extension, a name) goes out as it is.
pub fn outgoing(number_e164: &str, format: NumberFormat, country: &str) -> String {
    let Some(digits) = number_e164.strip_prefix('+').filter(|digits| is_full(digits)) else {
        return number_e164.into();
    };
    match format {
        NumberFormat::PlusE164 => number_e164.into(),
        NumberFormat::E164 => digits.into(),
        NumberFormat::National => {
            national(number_e164, country).unwrap_or_else(|| number_e164.into())
        }
    }
}

/// Digits that can be a country code and what follows it.
fn is_full(digits: &str) -> bool {
    (4..=15).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0')
}

/// `None` if the number or the country is none that the library knows.
fn national(number_e164: &str, country: &str) -> Option<String> {
    let home = DATABASE.by_id(country)?;
    let number = phonenumber::parse(None, number_e164).ok()?;
    if number.code().value() == home.country_code() {
        let text = number.format().mode(Mode::National).to_string();
        return Some(text.chars().filter(char::is_ascii_digit).collect());
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let preferred = home.preferred_international_prefix();
    let pattern = home.international_prefix().map(|pattern| pattern.as_str());
    let abroad = preferred.or(pattern).filter(|prefix| digits(prefix))?;
    Some(format!("{abroad}{}", &number_e164[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_normalised_by_country() {
        for (text, country, want) in [
            ("(317) 555-0142", "US", Some("+13175550142")),
            ("1 317 555 0142", "US", Some("+13175550142")),
            ("+1 317 555 0142", "DE", Some("+13175550142")),
            ("011 44 20 7946 0000", "US", Some("+442079460000")),
            ("020 7946 0000", "GB", Some("+442079460000")),
            ("030 901820", "DE", Some("+4930901820")),
            ("+44 20 7946 0000", "US", Some("+442079460000")),
            ("117 555 0142", "US", None),
            ("+1 117 555 0142", "US", None),
            ("1001", "US", None),
            ("anonymous", "US", None),
            ("", "US", None),
            ("3175550142", "nowhere", None),
            ("4111111111111111", "US", None),
        ] {
            assert_eq!(e164(text, country).as_deref(), want, "{text} {country}");
        }
    }

    #[test]
    fn numbers_go_out_as_the_trunk_wants_them() {
        use NumberFormat::{E164, National, PlusE164};
        for (number, format, country, want) in [
            ("+13175550142", PlusE164, "US", "+13175550142"),
            ("+13175550142", E164, "US", "13175550142"),
            ("+13175550142", National, "US", "3175550142"),
            ("+442079460000", National, "US", "011442079460000"),
            ("+442079460000", National, "GB", "02079460000"),
            ("+13175550142", National, "GB", "0013175550142"),
            ("+4930901820", National, "DE", "030901820"),
            ("+4930901820", E164, "DE", "4930901820"),
            ("+491701234567", National, "DE", "01701234567"),
            ("+442079460000", National, "DE", "00442079460000"),
            ("+13175550142", National, "nowhere", "+13175550142"),
            ("1001", National, "US", "1001"),
            ("+1001x", E164, "US", "+1001x"),
            ("billing", E164, "US", "billing"),
            ("", National, "US", ""),
        ] {
            assert_eq!(outgoing(number, format, country), want, "{number} {format:?} {country}");
        }
    }

    #[test]
    fn what_goes_out_comes_back_the_same() {
        for (number, country) in
            [("+13175550142", "US"), ("+442079460000", "GB"), ("+4930901820", "DE")]
        {
            for other in ["US", "GB", "DE"] {
                let sent = outgoing(number, NumberFormat::National, other);
                assert_eq!(e164(&sent, other).as_deref(), Some(number), "{sent} in {other}");
            }
            let sent = outgoing(number, NumberFormat::PlusE164, country);
            assert_eq!(e164(&sent, "FR").as_deref(), Some(number));
        }
    }
}
