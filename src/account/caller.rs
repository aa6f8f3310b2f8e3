//! What the SIP headers tell of the caller, by trunk profile.

use std::collections::BTreeMap;

use crate::sip::Invitation;
use crate::sip::identity::{
    self, Identity, Trust, UserToUser, Verification, diversions, history, identities, user_to_user,
};
use crate::sip::model::NameAddr;
use crate::sip::number::e164;
use crate::sip::profile::Profile;

/// The caller as the trunk described them; nothing here is verified unless `trusted`.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Calling number as E.164 with `+`, when it could be normalised.
    pub number: Option<String>,
    pub name: Option<String>,
    /// The caller does not want to be known: identify them if you can, but name no names.
    pub name_withheld: bool,
    /// Account number passed by the contact center.
    pub account: Option<String>,
    /// The trunk vouches for `number`.
    pub trusted: bool,
    /// What the network found out about `number`.
    pub verified: Verification,
    /// The number that the caller dialled, when it was not ours: E.164 with `+`, or as it came.
    pub diverted_from: Option<String>,
    /// Other fields mapped by the profile.
    pub fields: BTreeMap<String, String>,
}

impl Caller {
    /// Reads the identity headers the profile lists, in its order; the first that yields a number
    /// wins. The name is from the same header as the number, unless a mapped header holds one.
    pub fn from_invitation(invitation: &Invitation, profile: &Profile) -> Caller {
        let headers = invitation.headers.as_slice();
        let country = profile.country.as_str();
        let mut caller = Caller {
            name_withheld: identity::is_withheld(headers),
            diverted_from: diverted_from(headers, country),
            ..Caller::default()
        };
        let wanted = profile.caller_id.iter().map(String::as_str);
        let number = |identity: &Identity| e164(identity.user.as_deref()?, country);
        for identity in identities(headers, wanted) {
            if let Some(number) = number(&identity) {
                caller.name = identity.name.as_deref().and_then(clean).filter(|name| is_name(name));
                caller.number = Some(number);
                break;
            }
        }
        caller.verified = caller.verification(headers, profile);
        caller.trusted = caller.is_trusted(profile.trust_caller_id);
        for (header, field) in &profile.headers {
            caller.map(headers, header, field, country);
        }
        caller.name = caller.name.filter(|_| !caller.name_withheld);
        caller
    }

    fn is_trusted(&self, trust: impl Into<Trust>) -> bool {
        self.number.is_some() && trust.into().holds(self.verified)
    }

    /// Verstat of this very number, and whatever header the profile maps to `verstat`. That
    /// another number failed counts too: something is wrong with this call.
    fn verification(&self, headers: &[(String, String)], profile: &Profile) -> Verification {
        let wanted = profile.caller_id.iter().map(String::as_str);
        let of_identity = identities(headers, wanted.chain(VERIFIED)).filter_map(|identity| {
            let own = identity.user.and_then(|user| e164(&user, &profile.country)) == self.number;
            identity.verstat.filter(|verstat| own || *verstat == Verification::Failed)
        });
        let mapped = profile.headers.iter().filter(|(_, field)| *field == "verstat");
        let told = mapped.flat_map(|(header, _)| values(headers, header));
        Verification::of(of_identity.chain(told.filter_map(Verification::parse)))
    }

    /// Takes over a header that the profile maps.
    fn map(&mut self, headers: &[(String, String)], header: &str, field: &str, country: &str) {
        let in_user_to_user = || user_to_user(headers, header).into_iter();
        match field {
            "verstat" => {}
            "diverted" => {
                let number = values(headers, header).find_map(|value| diverted(value, country));
                self.diverted_from = number.or(self.diverted_from.take());
            }
            "uui" => in_user_to_user().for_each(|uui| self.take_pairs(&uui)),
            _ if header.eq_ignore_ascii_case("User-to-User") => {
                if let Some(text) = in_user_to_user().find_map(|uui| clean(&uui.text?)) {
                    self.set(field, text);
                }
            }
            _ => {
                if let Some(value) = values(headers, header).find_map(clean) {
                    self.set(field, value);
                }
            }
        }
    }

    /// Pairs become fields; other text the field `uui`.
    fn take_pairs(&mut self, uui: &UserToUser) {
        let pairs = uui.pairs();
        for (key, value) in &pairs {
            if let (Some(key), Some(value)) = (clean(key), clean(value)) {
                self.set(&key, value);
            }
        }
        if let (true, Some(text)) = (pairs.is_empty(), uui.text.as_deref().and_then(clean)) {
            self.set("uui", text);
        }
    }

    fn set(&mut self, field: &str, value: String) {
        match field {
            "account" => self.account = Some(value),
            "name" => self.name = Some(value),
            _ => drop(self.fields.insert(field.into(), value)),
        }
    }
}

/// Headers that networks write verstat into.
const VERIFIED: [&str; 2] = ["P-Asserted-Identity", "From"];

/// The first to divert the call (RFC 5806), else its first station (RFC 7044) if there are more.
fn diverted_from(headers: &[(String, String)], country: &str) -> Option<String> {
    let first = diversions(headers).pop().and_then(|diversion| diversion.user);
    let stations = history(headers);
    let dialled = || match stations.as_slice() {
        [first, _, ..] if !first.private => first.user.clone(),
        _ => None,
    };
    first.or_else(dialled).and_then(|user| number_or_text(&user, country))
}

/// A header of the trunk's own: an address or just a number.
fn diverted(value: &str, country: &str) -> Option<String> {
    let user = NameAddr::parse(value).and_then(|address| address.uri.number());
    number_or_text(user.as_deref().unwrap_or(value), country)
}

fn number_or_text(user: &str, country: &str) -> Option<String> {
    e164(user, country).or_else(|| clean(user))
}

fn values<'a>(headers: &'a [(String, String)], header: &'a str) -> impl Iterator<Item = &'a str> {
    let all = headers.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(header));
    all.map(|(_, value)| value.as_str())
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
    use crate::sip::identity::Attestation;

    fn invitation(headers: &[(&str, &str)]) -> Invitation {
        let headers = headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        Invitation {
            source: crate::sip::Peer::udp(([192, 0, 2, 1], 5060).into()),
            local: ([192, 0, 2, 2], 5060).into(),
            trunk: std::sync::Arc::default(),
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
        let mut profile = Profile { trust_caller_id: true.into(), ..Profile::default() };
        let known = invitation(&[("From", "<sip:+13175550142@h>")]);
        let nobody = invitation(&[("From", "<sip:anonymous@h>")]);
        assert!(Caller::from_invitation(&known, &profile).trusted);
        assert!(!Caller::from_invitation(&nobody, &profile).trusted);
        profile.trust_caller_id = false.into();
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
    fn an_anonymous_caller_is_identified_and_not_named() {
        let asserted = ("P-Asserted-Identity", "\"Jim\" <sip:+13175550142@h>");
        let from = ("From", "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1");
        for hidden in [from, ("Privacy", "id")] {
            let caller = caller(&[hidden, asserted]);
            assert_eq!(caller.number.as_deref(), Some("+13175550142"));
            assert_eq!((caller.name, caller.name_withheld), (None, true));
        }
        let open = caller(&[asserted]);
        assert_eq!((open.name.as_deref(), open.name_withheld), (Some("Jim"), false));
    }

    #[test]
    fn several_diversions_lead_back_to_the_number_dialled() {
        let history = ("History-Info", "<sip:3175550100@h>;index=1, <sip:us@h>;index=1.1");
        let diversions = ("Diversion", "<sip:+13175550111@h>;reason=no-answer, <sip:100@h>");
        let later = ("Diversion", "<tel:317-555-0199>;reason=unconditional");
        for (headers, number) in [
            (vec![diversions, later, history], Some("+13175550199")),
            (vec![diversions], Some("100")),
            (vec![history], Some("+13175550100")),
            (vec![("History-Info", "<sip:us@h>;index=1")], None),
            (vec![], None),
        ] {
            assert_eq!(caller(&headers).diverted_from.as_deref(), number, "{headers:?}");
        }
        let mut profile = Profile::default();
        profile.headers.insert("X-Dialled".into(), "diverted".into());
        for value in ["317 555 0155", "\"x\" <sip:3175550155@h>"] {
            let caller =
                Caller::from_invitation(&invitation(&[later, ("X-Dialled", value)]), &profile);
            assert_eq!(caller.diverted_from.as_deref(), Some("+13175550155"));
        }
    }

    #[test]
    fn a_failed_verification_undoes_trust() {
        let mut profile = Profile { trust_caller_id: true.into(), ..Profile::default() };
        profile.headers.insert("X-Verstat".into(), "verstat".into());
        let passed = ("P-Asserted-Identity", "<sip:+13175550142;verstat=TN-Validation-Passed@h>");
        let plain = ("P-Asserted-Identity", "<sip:+13175550142@h>");
        let other = ("From", "<sip:+12125550100;verstat=TN-Validation-Failed@h>");
        let forged = ("From", "<sip:+12125550100;verstat=TN-Validation-Passed-A@h>");
        use Verification::{Failed, Passed, Unknown};
        let full = Passed(Some(Attestation::Full));
        for (headers, verified, trusted) in [
            (vec![plain], Unknown, true),
            (vec![passed], Passed(None), true),
            (vec![passed, other], Failed, false),
            (vec![plain, forged], Unknown, true),
            (vec![passed, ("X-Verstat", "A")], full, true),
            (vec![plain, ("x-verstat", "TN-Validation-Failed-A")], Failed, false),
        ] {
            let caller = Caller::from_invitation(&invitation(&headers), &profile);
            assert_eq!((caller.verified, caller.trusted), (verified, trusted), "{headers:?}");
            assert!(caller.fields.is_empty());
            let attested = caller.is_trusted(Trust::Attested);
            assert_eq!(attested, verified == full, "{headers:?}");
        }
    }

    #[test]
    fn user_to_user_becomes_fields() {
        let mut profile = Profile::default();
        profile.headers.insert("User-to-User".into(), "account".into());
        let hex = ("User-to-User", "0431303031;encoding=hex;purpose=isdn-uui");
        let account = Caller::from_invitation(&invitation(&[hex]), &profile).account;
        assert_eq!(account.as_deref(), Some("1001"));
        profile.headers.insert("User-to-User".into(), "uui".into());
        let pairs = ("User-to-User", "\"account=1001&name=Jim&queue=water\";encoding=ascii");
        let caller = Caller::from_invitation(&invitation(&[pairs]), &profile);
        assert_eq!(caller.account.as_deref(), Some("1001"));
        assert_eq!(caller.name.as_deref(), Some("Jim"));
        assert_eq!(caller.fields.get("queue").map(String::as_str), Some("water"));
        let caller = Caller::from_invitation(&invitation(&[hex]), &profile);
        assert_eq!(caller.fields.get("uui").map(String::as_str), Some("1001"));
    }
}
