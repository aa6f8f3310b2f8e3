//! What a trunk asks of the rest of the configuration.

use crate::config::{Config, Problem};
use crate::sip::Transport;
use crate::sip::model::{Scheme, Uri};
use crate::sip::offer::SrtpPolicy;
use crate::sip::profile::{Profile, SensitiveMedia};

/// Every way in which a trunk cannot work as it is written.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    config.trunks.iter().flat_map(|trunk| of(trunk, config)).collect()
}

fn of(trunk: &Profile, config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut note = |message: String, instead: &str| {
        let problem = Problem::new(None, format!("trunk `{}`: {message}", trunk.name));
        found.push(problem.instead(instead));
    };
    let listens = |transport: &Transport| config.sip.listens(*transport);
    if !trunk.transports.is_empty() && !trunk.transports.iter().any(listens) {
        let names: Vec<String> = trunk.transports.iter().map(ToString::to_string).collect();
        let message = format!("it calls by {} only, on which nobody listens", names.join(", "));
        note(message, "add such an address to [sip] listen, as in \"tls:192.0.2.7:5061\"");
    }
    let authorities = config.sip.tls.as_ref().and_then(|tls| tls.client_ca_file.as_ref());
    if !trunk.certificates.is_empty() && authorities.is_none() {
        note(
            "certificates cannot be verified".into(),
            "name who signs them: client_ca_file in [sip.tls]",
        );
    }
    if trunk.sensitive_media == SensitiveMedia::Srtp {
        if trunk.srtp == SrtpPolicy::Off {
            note("no call could be taken: srtp is off".into(), "write srtp = \"required\"");
        } else if !config.sip.listens(Transport::Tls) {
            note(
                "no call could be taken: SRTP keys must come by TLS".into(),
                "add \"tls:...\" to [sip] listen",
            );
        }
    }
    let registers = trunk.register.iter();
    let uris = registers.flat_map(|register| [&register.registrar, &register.address]);
    for uri in uris.chain(&trunk.proxy) {
        let scheme = Uri::parse(uri).map(|uri| uri.scheme);
        if !matches!(scheme, Some(Scheme::Sip | Scheme::Sips)) {
            note(format!("`{uri}` is no SIP URI"), "write it as \"sip:sip.example.com\"");
        }
    }
    if trunk.calls_max == Some(0) || trunk.calls_per_second == Some(0) {
        note("no call could be taken".into(), "write at least 1, or leave the limit out");
    }
    if trunk.options_s > 0 && trunk.proxy.is_none() {
        note("options_s needs somebody to ask".into(), "add proxy = \"sip:sip.example.com\"");
    }
    found
}
