//! Who is calling and by what way, as the headers of an INVITE tell it: RFC 3325 and 3323, RFC
//! 5806, 7044, 7433, Remote-Party-ID and verstat. What a header says is no proof: see [`Trust`].
//! The Identity header (RFC 8224) is not read: its signature is the network's to check, and
//! unchecked it would say what any caller likes.

use std::fmt;

use percent_encoding::percent_decode_str;
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::model::{NameAddr, Params, Uri, split_list};

/// All headers of a request in order: long names, unfolded values.
type Headers = [(String, String)];

/// Elements of one kind that are read; more are ignored.
const ELEMENTS_MAX: usize = 16;

/// When a trunk's caller number proves who is calling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    #[default]
    Never,
    /// The trunk vouches for it, unless its verification failed.
    Always,
    /// Only where the network verified it with attestation A: the originating carrier knows the
    /// caller and their right to the number. The trunk must remove what callers claim themselves.
    Attested,
    /// As `Attested`, for trunks whose verification does not tell the level.
    Validated,
}

impl Trust {
    pub fn holds(self, verification: Verification) -> bool {
        use Attestation::Full;
        match self {
            Trust::Never => false,
            Trust::Always => verification != Verification::Failed,
            Trust::Attested => verification == Verification::Passed(Some(Full)),
            Trust::Validated => matches!(verification, Verification::Passed(None | Some(Full))),
        }
    }
}

impl From<bool> for Trust {
    fn from(always: bool) -> Trust {
        if always { Trust::Always } else { Trust::Never }
    }
}

impl<'de> Deserialize<'de> for Trust {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Trust, D::Error> {
        struct BoolOrWord;

        impl Visitor<'_> for BoolOrWord {
            type Value = Trust;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, \"attested\" or \"validated\"")
            }

            fn visit_bool<E: de::Error>(self, always: bool) -> Result<Trust, E> {
                Ok(always.into())
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Trust, E> {
                match word {
                    "attested" => Ok(Trust::Attested),
                    "validated" => Ok(Trust::Validated),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }
        }

        value.deserialize_any(BoolOrWord)
    }
}

/// What the originating carrier vouches for (RFC 8588 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attestation {
    /// C: only where the call entered.
    Gateway,
    /// B: the customer, not the number.
    Partial,
    /// A: the customer and their right to the number.
    Full,
}

impl Attestation {
    fn parse(text: &str) -> Option<Attestation> {
        match text {
            "A" | "a" => Some(Attestation::Full),
            "B" | "b" => Some(Attestation::Partial),
            "C" | "c" => Some(Attestation::Gateway),
            _ => None,
        }
    }
}

/// What the network found when it verified the caller's number (STIR/SHAKEN).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// With the level, where it was told.
    Passed(Option<Attestation>),
    Failed,
    #[default]
    Unknown,
}

impl Verification {
    /// A verstat value (3GPP TS 24.229 §7.2A.20), perhaps with the level appended (`-A`), or the
    /// bare level of an attestation header. `None` if it is neither.
    pub fn parse(text: &str) -> Option<Verification> {
        let text = text.split(';').next().unwrap_or(text).trim().trim_matches('"');
        let lower = text.to_ascii_lowercase();
        if let Some(level) = lower.strip_prefix("tn-validation-passed") {
            let level =
                level.strip_prefix('-').and_then(|level| Attestation::parse(level.get(..1)?));
            return Some(Verification::Passed(level));
        }
        if lower.starts_with("tn-validation-failed") {
            return Some(Verification::Failed);
        }
        if lower == "no-tn-validation" {
            return Some(Verification::Unknown);
        }
        Attestation::parse(text).map(|level| Verification::Passed(Some(level)))
    }

    /// Of several statements the worst counts; one that tells the level makes one that does not
    /// more precise.
    pub fn of(statements: impl IntoIterator<Item = Verification>) -> Verification {
        let worse = |known, new| match (known, new) {
            (Verification::Failed, _) | (_, Verification::Failed) => Verification::Failed,
            (Verification::Unknown, _) | (_, Verification::Unknown) => Verification::Unknown,
            (Verification::Passed(a), Verification::Passed(b)) => {
                Verification::Passed(a.zip(b).map(|(a, b)| a.min(b)).or(a).or(b))
            }
        };
        statements.into_iter().reduce(worse).unwrap_or_default()
    }
}

/// One identity of the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: Option<String>,
    /// The number as it was sent, or a user name.
    pub user: Option<String>,
    /// The caller wants it kept from us; that it came all the same does not change that.
    pub withheld: bool,
    /// Remote-Party-ID: whether the network checked it. `None`: not said.
    pub screened: Option<bool>,
    pub verstat: Option<Verification>,
}

impl Identity {
    fn read(header: &str, text: &str) -> Option<Identity> {
        let address = NameAddr::parse(text)?;
        let remote_party = header.eq_ignore_ascii_case("Remote-Party-ID");
        let param = |name| address.params.value(name).filter(|_| remote_party);
        if param("party").is_some_and(|party| party.eq_ignore_ascii_case("called")) {
            return None;
        }
        let open = |value: &str| value.split('-').next().is_some_and(|kind| kind == "off");
        let withheld = param("privacy").is_some_and(|value| !open(&value.to_ascii_lowercase()));
        Some(Identity {
            withheld: withheld || is_anonymous(&address),
            screened: param("screen").map(|screened| screened.eq_ignore_ascii_case("yes")),
            verstat: verstat(&address),
            user: address.uri.number(),
            name: address.display,
        })
    }
}

/// The identities in these headers, in the order of `wanted`: several values and several fields
/// of a name count, those of the called party do not.
pub fn identities<'a>(
    headers: &'a Headers,
    wanted: impl IntoIterator<Item = &'a str> + 'a,
) -> impl Iterator<Item = Identity> + 'a {
    let values = |name: &'a str| elements(headers, name).map(move |element| (name, element));
    let all = wanted.into_iter().flat_map(values);
    all.filter_map(|(name, element)| Identity::read(name, element))
}

/// Whether the caller does not want to be known (RFC 3323): by Privacy, or by an anonymous From
/// over whatever the network asserts.
pub fn is_withheld(headers: &Headers) -> bool {
    let kinds = values(headers, "Privacy").flat_map(|value| value.split([';', ',']));
    let private = |kind: &str| {
        ["id", "user", "header"].iter().any(|private| kind.trim().eq_ignore_ascii_case(private))
    };
    let mut named = identities(headers, ["Remote-Party-ID", "From"]);
    kinds.into_iter().any(private) || named.any(|identity| identity.withheld)
}

fn is_anonymous(address: &NameAddr) -> bool {
    let nobody = |text: &str| {
        ["anonymous", "restricted"].iter().any(|nobody| text.trim().eq_ignore_ascii_case(nobody))
    };
    let invalid = address.uri.as_str().to_ascii_lowercase().contains("@anonymous.invalid");
    let user = address.uri.user();
    invalid || address.display.as_deref().is_some_and(nobody) || user.is_some_and(|u| nobody(&u))
}

/// A parameter of the number within the user part, else of the URI, else of the header.
fn verstat(address: &NameAddr) -> Option<Verification> {
    let user = address.uri.user().unwrap_or_default();
    let of_user = Params::parse(user.split_once(';').map_or("", |(_, params)| params));
    let all = [&of_user, &address.uri.params, &address.params];
    let value = all.into_iter().find_map(|params| params.value("verstat"))?;
    Verification::parse(value)
}

/// Who sent the call on, and why (RFC 5806).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diversion {
    pub name: Option<String>,
    /// The number that was called, as it was sent.
    pub user: Option<String>,
    /// `unconditional`, `user-busy`, `no-answer`, ...
    pub reason: Option<String>,
    /// Diversions that this one stands for.
    pub counter: u32,
}

/// As written: the latest diversion first, so that the last is what the caller dialled.
pub fn diversions(headers: &Headers) -> Vec<Diversion> {
    let read = |element| {
        let NameAddr { display, uri, params } = NameAddr::parse(element)?;
        let counter = params.value("counter").and_then(|value| value.parse().ok()).unwrap_or(1);
        let reason = params.value("reason").map(str::to_ascii_lowercase);
        Some(Diversion { name: display, user: uri.number(), reason, counter })
    };
    elements(headers, "Diversion").filter_map(read).collect()
}

/// One station of the call (RFC 7044).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// Where it was sent: the number as it was sent, or a user name.
    pub user: Option<String>,
    /// `1`, `1.1`, `1.2`: a dot is a step on, a higher number another attempt.
    pub index: String,
    /// Why it was sent on from there: the `cause` of RFC 4458 here, or of the Reason within.
    pub cause: Option<u16>,
    /// Asked not to be told on.
    pub private: bool,
}

/// As written: the oldest first, so that the first is what the caller dialled.
pub fn history(headers: &Headers) -> Vec<Station> {
    let read = |element| {
        let NameAddr { uri, params, .. } = NameAddr::parse(element)?;
        let reason = embedded(&uri, "Reason");
        let reason = Params::parse(reason.as_deref().unwrap_or_default());
        let cause = uri.params.value("cause").or(reason.value("cause"));
        let privacy = embedded(&uri, "Privacy");
        let open = |value: &str| value.eq_ignore_ascii_case("none");
        Some(Station {
            user: uri.number(),
            index: params.value("index").unwrap_or_default().into(),
            cause: cause.and_then(|cause| cause.trim().parse().ok()),
            private: privacy.is_some_and(|value| !open(&value)),
        })
    };
    elements(headers, "History-Info").filter_map(read).collect()
}

/// A header within a URI (RFC 3261 §19.1.1), escapes resolved.
fn embedded(uri: &Uri, name: &str) -> Option<String> {
    let text = uri.as_str();
    let text = text.split_once('@').map_or(text, |(_, rest)| rest);
    let (_, headers) = text.split_once('?')?;
    let pairs = headers.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?.1;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

/// What one application tells another through the call (RFC 7433).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserToUser {
    pub content: Vec<u8>,
    /// The content, where it is text without control characters.
    pub text: Option<String>,
    pub purpose: Option<String>,
    pub encoding: Option<String>,
}

/// All values of the header named, which is `User-to-User` or a private one of the same form.
pub fn user_to_user(headers: &Headers, name: &str) -> Vec<UserToUser> {
    elements(headers, name).map(UserToUser::read).collect()
}

impl UserToUser {
    /// Hex, unless it says otherwise (RFC 7433 §4.1) or is none. Hex that says so may start with
    /// the protocol discriminator of ISDN (RFC 7434), a control character before the text.
    fn read(element: &str) -> UserToUser {
        let (literal, params) = content(element);
        let params = Params::parse(params);
        let encoding = params.value("encoding").map(str::to_ascii_lowercase);
        let decoded = match encoding.as_deref() {
            Some("hex") => unhex(&literal),
            None => unhex(&literal).filter(|bytes| text(bytes).is_some()),
            Some(_) => None,
        };
        let plain = || percent_decode_str(&literal).collect();
        let content = decoded.unwrap_or_else(plain);
        UserToUser {
            text: text(&content),
            content,
            purpose: params.value("purpose").map(String::from),
            encoding,
        }
    }

    /// `account=1001&name=Jim`, also with `;`, `|` or `,` between: what a contact center tells
    /// through the one header it can set. Empty if it is no such list.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let text = self.text.as_deref().unwrap_or_default();
        let parts = text.split(['&', ';', '|', ',']).filter(|part| !part.trim().is_empty());
        let pairs = parts.map(|part| {
            let (key, value) = part.split_once(['=', ':'])?;
            let (key, value) = (key.trim(), value.trim());
            let name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            (!key.is_empty() && key.bytes().all(name)).then_some((key, value))
        });
        let pairs: Option<Vec<_>> = pairs.take(ELEMENTS_MAX).collect();
        pairs.unwrap_or_default()
    }
}

/// The content and the parameters after it: a quoted string or all up to the first `;`.
fn content(element: &str) -> (String, &str) {
    let quoted = element.strip_prefix('"').and_then(|inside| inside.split_once('"'));
    match quoted {
        Some((text, params)) => (text.into(), params),
        None => {
            let (text, params) = element.split_once(';').unwrap_or((element, ""));
            (text.trim().into(), params)
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}

fn text(bytes: &[u8]) -> Option<String> {
    let bytes = match bytes {
        [0..0x20, rest @ ..] => rest,
        all => all,
    };
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.into())
}

fn values<'a>(headers: &'a Headers, name: &'a str) -> impl Iterator<Item = &'a str> {
    let all = headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name));
    all.map(|(_, value)| value.as_str())
}

fn elements<'a>(headers: &'a Headers, name: &'a str) -> impl Iterator<Item = &'a str> {
    values(headers, name).flat_map(split_list).take(ELEMENTS_MAX)
}

#[cfg(test)]
mod tests;
