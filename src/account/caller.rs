//! What the SIP headers tell of the caller, by trunk profile.

use std::collections::BTreeMap;

use crate::sip::Invitation;
use crate::sip::profile::Profile;

/// The caller as the trunk described them; nothing here is verified unless `trusted`.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Calling number as E.164 with `+`, when it could be normalised.
    pub number: Option<String>,
    pub name: Option<String>,
    /// Account number passed by the contact center.
    pub account: Option<String>,
    /// The trunk vouches for `number`.
    pub trusted: bool,
    /// Other fields mapped by the profile.
    pub fields: BTreeMap<String, String>,
}

impl Caller {
    /// Reads the identity headers the profile lists, in its order; the first that yields a number
    /// wins. `account` and `name` come from mapped headers, the name else from the same header as
    /// the number.
    pub fn from_invitation(invitation: &Invitation, profile: &Profile) -> Caller {
        let mut caller = Caller::default();
        let identities = profile.caller_id.iter().flat_map(|wanted| values(invitation, wanted));
        for address in identities.flat_map(addresses) {
            if let Some(number) = e164(&address.user, &profile.country) {
                caller.name = address.display.filter(|name| is_name(name));
                caller.number = Some(number);
                break;
            }
        }
        caller.trusted = profile.trust_caller_id && caller.number.is_some();
        for (header, field) in &profile.headers {
            let Some(value) = values(invitation, header).find_map(clean) else { continue };
            match field.as_str() {
                "account" => caller.account = Some(value),
                "name" => caller.name = Some(value),
                _ => drop(caller.fields.insert(field.clone(), value)),
            }
        }
        caller
    }
}

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
        return Some(number.format().mode(phonenumber::Mode::E164).to_string());
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

/// An address of a SIP header: what is shown, and the user part of the URI.
struct Address {
    display: Option<String>,
    user: String,
}

fn values<'a>(invitation: &'a Invitation, header: &'a str) -> impl Iterator<Item = &'a str> {
    let all = invitation.headers.iter();
    all.filter(move |(name, _)| name.eq_ignore_ascii_case(header)).map(|(_, value)| value.as_str())
}

/// The addresses of a header value, RFC 3261 §20.10 and RFC 3325 §9: name-addr or addr-spec,
/// separated by commas.
fn addresses(value: &str) -> Vec<Address> {
    let value: String = value.chars().take(VALUE_MAX).collect();
    let mut parts = vec![String::new()];
    let (mut quoted, mut escaped, mut angle) = (false, false, false);
    for c in value.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => angle = true,
            '>' if !quoted => angle = false,
            ',' if !quoted && !angle => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts.iter().filter_map(|part| address(part.trim())).collect()
}

const VALUE_MAX: usize = 1024;

fn address(text: &str) -> Option<Address> {
    let (display, rest) = match text.strip_prefix('"') {
        Some(quoted) => {
            let (display, rest) = unquoted(quoted)?;
            (Some(display), rest)
        }
        None => match text.find('<') {
            Some(at) => (Some(text[..at].to_string()), &text[at..]),
            None => (None, text),
        },
    };
    let uri = match rest.trim_start().strip_prefix('<') {
        Some(inside) => inside.split_once('>')?.0,
        // Without angle brackets, parameters belong to the header.
        None => rest.split(';').next()?,
    };
    let (scheme, rest) = uri.trim().split_once(':')?;
    let user = match scheme.to_ascii_lowercase().as_str() {
        "tel" => rest,
        "sip" | "sips" => rest.rsplit_once('@')?.0,
        _ => return None,
    };
    let user = percent_decoded(user.split([';', ':']).next()?);
    Some(Address { display: display.as_deref().and_then(clean), user })
}

/// The text up to the closing quote, without escapes, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => out.push(chars.next()?.1),
            other => out.push(other),
        }
    }
    None
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |digit: Option<u8>| digit.and_then(|d| char::from(d).to_digit(16));
        let mut ahead = bytes.clone();
        match (byte, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A value fit to keep: no control characters, 1 to 128 characters.
fn clean(value: &str) -> Option<String> {
    let kept: String = value.trim().chars().filter(|c| !c.is_control()).take(FIELD_MAX).collect();
    (!kept.is_empty()).then_some(kept)
}

const FIELD_MAX: usize = 128;

/// Whether a display name can be spoken: not a number again, nor what networks write for nobody.
fn is_name(display: &str) -> bool {
    const NOBODY: [&str; 6] =
        ["anonymous", "unknown", "unavailable", "restricted", "private", "wireless caller"];
    let lower = display.to_lowercase();
    display.chars().any(char::is_alphabetic) && !NOBODY.contains(&lower.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation(headers: &[(&str, &str)]) -> Invitation {
        let headers = headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        Invitation {
            source: crate::sip::Peer::udp(([192, 0, 2, 1], 5060).into()),
            local: ([192, 0, 2, 2], 5060).into(),
            call_id: "1".into(),
            dialled: "100".into(),
            headers,
            offer: None,
        }
    }

    fn caller(headers: &[(&str, &str)]) -> Caller {
        Caller::from_invitation(&invitation(headers), &Profile::default())
    }

    #[test]
    fn numbers_come_from_every_form_of_address() {
        for (value, number, name) in [
            (
                "\"James \\\"Jim\\\" Doe\" <sip:+13175550142@192.0.2.1>;tag=1",
                true,
                "James \"Jim\" Doe",
            ),
            ("James <sip:3175550142@example.com;user=phone>", true, "James"),
            ("<tel:+1-317-555-0142>", true, ""),
            ("<tel:3175550142;phone-context=+1>", true, ""),
            ("sip:13175550142@example.com;tag=x", true, ""),
            ("<sip:+13175550142;npdi=yes:pw@h>", true, ""),
            ("<sip:%2B13175550142@h>", true, ""),
            ("Anonymous <sip:+13175550142@h>", true, ""),
            ("\"3175550142\" <sip:3175550142@h>", true, ""),
            ("\"a, b\" <sip:x@h>, <tel:+13175550142>", true, ""),
            ("Anonymous <sip:anonymous@anonymous.invalid>", false, ""),
            ("<sip:192.0.2.1>", false, ""),
            ("\"never closed <sip:3175550142@h>", false, ""),
            ("<sip:3175550142@h", false, ""),
            ("", false, ""),
        ] {
            let caller = caller(&[("From", value)]);
            let want = number.then(|| "+13175550142".to_string());
            assert_eq!(caller.number, want, "{value}");
            assert_eq!(caller.name.as_deref().unwrap_or_default(), name, "{value}");
        }
    }

    #[test]
    fn headers_count_in_the_order_of_the_profile() {
        let from = ("From", "<sip:2125550100@h>");
        let asserted = ("p-asserted-identity", "<sip:+13175550142@h>");
        assert_eq!(caller(&[from, asserted]).number.as_deref(), Some("+13175550142"));
        let anonymous = ("P-Asserted-Identity", "<sip:anonymous@h>");
        assert_eq!(caller(&[from, anonymous]).number.as_deref(), Some("+12125550100"));
    }

    #[test]
    fn only_a_trusted_trunk_vouches_for_a_number() {
        let mut profile = Profile { trust_caller_id: true, ..Profile::default() };
        let known = invitation(&[("From", "<sip:+13175550142@h>")]);
        let nobody = invitation(&[("From", "<sip:anonymous@h>")]);
        assert!(Caller::from_invitation(&known, &profile).trusted);
        assert!(!Caller::from_invitation(&nobody, &profile).trusted);
        profile.trust_caller_id = false;
        assert!(!Caller::from_invitation(&known, &profile).trusted);
    }

    #[test]
    fn mapped_headers_become_fields() {
        let mut profile = Profile::default();
        for (header, field) in [("X-Account", "account"), ("X-Name", "name"), ("X-Queue", "queue")]
        {
            profile.headers.insert(header.into(), field.into());
        }
        let caller = Caller::from_invitation(
            &invitation(&[
                ("From", "Jim <sip:+13175550142@h>"),
                ("x-account", " 4471 "),
                ("X-Name", "James\u{7}"),
                ("X-Queue", "water"),
                ("X-Other", "ignored"),
            ]),
            &profile,
        );
        assert_eq!(caller.account.as_deref(), Some("4471"));
        assert_eq!(caller.name.as_deref(), Some("James"));
        assert_eq!(
            caller.fields.into_iter().collect::<Vec<_>>(),
            [("queue".into(), "water".into())]
        );
    }

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
}
