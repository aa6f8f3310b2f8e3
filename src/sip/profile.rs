//! How one trunk or PBX differs, as TOML: `sip-profiles/<name>.toml`, one file each.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Deserialize;

use super::identity::Trust;
use super::number::NumberFormat;
use super::offer::{Codec, Silence, SrtpPolicy};
use super::password::Password;
use super::transport::Transport;

/// One trunk. Every key has a default that suits a generic SIP trunk.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Shown in logs and call records.
    pub name: String,
    /// Addresses this trunk's requests come from. Empty: any, provided that `certificates` or
    /// `users` tell who it is; without those it matches nobody.
    pub sources: Vec<IpNet>,
    /// Transports its requests may come by. Empty: any.
    pub transports: Vec<Transport>,
    /// Names of which its TLS client certificate must bear one; `*.example.com` stands for one
    /// label. Empty: no certificate is asked for.
    pub certificates: Vec<String>,
    /// Who it must prove to be when it calls (digest authentication). Empty: nobody.
    pub users: Vec<User>,
    /// What its own challenges are answered with.
    pub account: Option<User>,
    /// Keeps us registered there.
    pub register: Option<Register>,
    /// Our name in Contact, for trunks that know us by a host name. Unset: our address.
    pub contact_host: Option<String>,
    /// How often we ask its `proxy` whether it is there (OPTIONS). 0: never.
    pub options_s: u32,
    /// Where calls of ours go, as a SIP URI. Unset: to where the trunk's own calls come from.
    pub proxy: Option<String>,
    /// Calls of this trunk that may be up, and that may begin in a second (over two of them); more
    /// are refused with 503. Unset: as many as there may be in all, but nine tenths of those when
    /// there are other trunks.
    pub calls_max: Option<usize>,
    pub calls_per_second: Option<u32>,
    /// Accepted codecs, preferred first: `pcmu`, `pcma`, `g722`, `opus`.
    pub codecs: Vec<Codec>,
    /// Offer and accept RFC 4733 telephone-event.
    pub telephone_event: bool,
    /// Who may send us audio.
    pub latch: Latch,
    /// With `latch = "nat"`, the networks its audio may come from. Empty: any.
    pub media_sources: Vec<IpNet>,
    /// What it gets while we play nothing.
    pub silence: Silence,
    /// Whether its sound is encrypted (SRTP, RFC 4568).
    pub srtp: SrtpPolicy,
    /// What card data may be said or keyed over.
    pub sensitive_media: SensitiveMedia,
    /// Sound before the call is answered (183 with SDP).
    pub early_media: bool,
    /// Provisional responses that are acknowledged (RFC 3262).
    pub reliable: Reliable,
    /// A call that is not refreshed for this long is over (RFC 4028). 0: we never ask for it.
    pub session_expires_s: u32,
    /// The shortest such time we accept; below it the caller gets a 422. At least 90.
    pub session_min_s: u32,
    /// How a caller is passed on.
    pub transfer: Transfer,
    /// Where the facts for the agent go in a REFER.
    pub refer_headers: ReferHeaders,
    /// The trunk may send the call elsewhere with REFER.
    pub accept_refer: bool,
    /// The trunk may put one call in the place of another (INVITE with Replaces).
    pub accept_replaces: bool,
    /// Headers the caller's number is read from, first match wins.
    pub caller_id: Vec<String>,
    /// Whether that number proves who is calling: then a balance may be spoken to it.
    pub trust_caller_id: Trust,
    /// ISO 3166 country that national numbers belong to.
    pub country: String,
    /// How numbers are written in calls of ours.
    pub number_format: NumberFormat,
    /// Header name -> field of the caller (`account`, `name`, or any name of the biller's own).
    pub headers: BTreeMap<String, String>,
}

/// Who proves to be whom by digest authentication (RFC 8760).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub username: String,
    pub password: Password,
    /// The realm these are for; unset: whichever asks.
    #[serde(default)]
    pub realm: Option<String>,
}

/// A registration to be kept (RFC 3261 §10).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// `sip:host` of the registrar.
    pub registrar: String,
    /// Whom we register: `sip:user@host`.
    pub address: String,
    #[serde(default = "Register::hour")]
    pub expires_s: u32,
}

impl Register {
    fn hour() -> u32 {
        3600
    }
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

/// What a caller's card data may travel over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SensitiveMedia {
    /// Whatever was agreed on: the operator trusts the network to this trunk.
    Trusted,
    /// SRTP whose keys came over TLS; calls without are refused with 488.
    Srtp,
}

/// Whether provisional responses of ours are sent reliably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reliable {
    /// Only if the trunk insists.
    Off,
    /// If the trunk can.
    Supported,
    /// Calls that cannot are refused with 421.
    Required,
}

/// How a caller is passed on to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    /// By REFER; if the trunk refuses that, by a call of our own with the sound passed through.
    Auto,
    /// By REFER only.
    Refer,
    /// By a call of our own only.
    Bridge,
}

/// Where a REFER carries what the agent should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferHeaders {
    /// In header fields of the REFER itself, for PBXs that copy them.
    Refer,
    /// In the URI of Refer-To, for the INVITE that it causes (RFC 7433 §3.1).
    Target,
}

impl Default for Profile {
    fn default() -> Profile {
        Profile {
            name: "generic".into(),
            sources: Vec::new(),
            transports: Vec::new(),
            certificates: Vec::new(),
            users: Vec::new(),
            account: None,
            register: None,
            contact_host: None,
            options_s: 0,
            proxy: None,
            calls_max: None,
            calls_per_second: None,
            codecs: vec![Codec::Pcmu, Codec::Pcma],
            telephone_event: true,
            latch: Latch::Strict,
            media_sources: Vec::new(),
            silence: Silence::Packets,
            srtp: SrtpPolicy::Off,
            sensitive_media: SensitiveMedia::Trusted,
            early_media: false,
            reliable: Reliable::Off,
            session_expires_s: 1800,
            session_min_s: 90,
            transfer: Transfer::Auto,
            refer_headers: ReferHeaders::Refer,
            accept_refer: false,
            accept_replaces: true,
            caller_id: ["P-Asserted-Identity", "Remote-Party-ID", "From"]
                .map(String::from)
                .to_vec(),
            trust_caller_id: Trust::Never,
            country: "US".into(),
            number_format: NumberFormat::default(),
            headers: BTreeMap::new(),
        }
    }
}

impl Profile {
    /// Reads a profile file. The error holds line, column and the keys that are known.
    pub fn parse(toml_text: &str) -> Result<Profile, toml::de::Error> {
        toml::from_str(toml_text)
    }

    /// The passwords it needs, to be fetched from where they are kept.
    pub fn passwords(&mut self) -> impl Iterator<Item = &mut Password> {
        self.users.iter_mut().chain(&mut self.account).map(|user| &mut user.password)
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
        let unknown = Profile::parse("nonsense = 1").unwrap_err();
        let keys: Vec<&str> = unknown.message().split('`').skip(3).step_by(2).collect();
        assert!(keys.len() > 20, "{keys:?}");
        for key in keys {
            let stated = ["", "# "].iter().any(|lead| {
                GENERIC.contains(&format!("\n{lead}{key} ="))
                    || GENERIC.contains(&format!("\n{lead}[{key}]"))
                    || GENERIC.contains(&format!("\n{lead}[[{key}]]"))
            });
            assert!(stated, "{key} is not explained");
        }
    }

    #[test]
    fn a_typo_is_an_error_that_names_the_key() {
        let error = Profile::parse("codec = ['pcmu']").unwrap_err().to_string();
        assert!(error.contains("codec"), "{error}");
        assert!(Profile::parse("codecs = ['g729']").is_err());
        let opus = Profile::parse("codecs = ['opus', 'pcma']");
        assert_eq!(opus.is_ok(), cfg!(feature = "opus"));
        let wide = Profile::parse("codecs = ['g722', 'pcmu']\nsilence = 'comfort_noise'");
        assert_eq!(wide.is_ok(), cfg!(feature = "g722"), "what is not built in is not known");
        assert!(Profile::parse("sources = ['192.0.2.1/99']").is_err());
    }
}
