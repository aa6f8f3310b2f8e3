//! How one trunk or PBX differs, as TOML: `sip-profiles/<name>.toml`, one file each.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::offer::Law;

/// One trunk. Every key has a default that suits a generic SIP trunk.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Shown in logs and call records.
    pub name: String,
    /// Addresses this trunk's requests come from. Empty: it matches nobody.
    pub sources: Vec<IpNet>,
    /// Accepted codecs, preferred first: `pcmu`, `pcma`.
    pub codecs: Vec<Law>,
    /// Offer and accept RFC 4733 telephone-event.
    pub telephone_event: bool,
    /// Who may send us audio.
    pub latch: Latch,
    /// Headers the caller's number is read from, first match wins.
    pub caller_id: Vec<String>,
    /// Whether that number proves who is calling: then a balance may be spoken to it.
    pub trust_caller_id: bool,
    /// ISO 3166 country that national numbers belong to.
    pub country: String,
    /// Header name -> field of the caller (`account`, `name`, or any name of the biller's own).
    pub headers: BTreeMap<String, String>,
}

/// Which source of RTP is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Latch {
    /// Only the address and port of the peer's SDP.
    Strict,
    /// The SDP address, or else one steady source after probation (a peer behind NAT).
    Nat,
}

impl Default for Profile {
    fn default() -> Profile {
        Profile {
            name: "generic".into(),
            sources: Vec::new(),
            codecs: vec![Law::Mu, Law::A],
            telephone_event: true,
            latch: Latch::Strict,
            caller_id: ["P-Asserted-Identity", "Remote-Party-ID", "From"]
                .map(String::from)
                .to_vec(),
            trust_caller_id: false,
            country: "US".into(),
            headers: BTreeMap::new(),
        }
    }
}

impl Profile {
    /// Reads a profile file. The error holds line, column and the keys that are known.
    pub fn parse(toml_text: &str) -> Result<Profile, toml::de::Error> {
        toml::from_str(toml_text)
    }

    /// Whether requests from `source` belong to this trunk.
    pub fn matches(&self, source: IpAddr) -> bool {
        self.sources.iter().any(|net| net.contains(&source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERIC: &str = include_str!("../../sip-profiles/generic.toml");

    #[test]
    fn the_shipped_profile_states_the_defaults() {
        let (shipped, default) = (Profile::parse(GENERIC).unwrap(), Profile::default());
        assert_eq!(format!("{shipped:?}"), format!("{default:?}"));
        for key in [
            "name",
            "sources",
            "codecs",
            "telephone_event",
            "latch",
            "caller_id",
            "trust_caller_id",
            "country",
            "headers",
        ] {
            assert!(
                GENERIC.contains(&format!("\n{key} =")) || GENERIC.contains(&format!("[{key}]"))
            );
        }
    }

    #[test]
    fn a_source_matches_by_network() {
        let profile = Profile::parse("sources = ['192.0.2.0/24', '2001:db8::/32']").unwrap();
        assert!(profile.matches("192.0.2.200".parse().unwrap()));
        assert!(profile.matches("2001:db8::1".parse().unwrap()));
        assert!(!profile.matches("198.51.100.1".parse().unwrap()));
        assert!(!Profile::default().matches("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_typo_is_an_error_that_names_the_key() {
        let error = Profile::parse("codec = ['pcmu']").unwrap_err().to_string();
        assert!(error.contains("codec"), "{error}");
        assert!(Profile::parse("codecs = ['opus']").is_err());
        assert!(Profile::parse("sources = ['192.0.2.1/99']").is_err());
    }
}
