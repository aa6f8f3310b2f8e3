//! Which trunk a request belongs to, and why not to the others.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::profile::Profile;
use super::transport::{Peer, Transport};

/// How a request came to us.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub transport: Transport,
    pub source: IpAddr,
    /// Names in the verified TLS client certificate.
    pub certificate: Option<&'a [String]>,
}

impl<'a> Arrival<'a> {
    pub fn new(peer: &Peer, certificate: Option<&'a [String]>) -> Arrival<'a> {
        Arrival { transport: peer.transport, source: peer.address.ip(), certificate }
    }
}

/// Why a trunk does not take a request for its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Nothing in the profile says who the trunk is.
    Nobody,
    Source(IpAddr),
    Transport(Transport),
    /// No verified client certificate was shown.
    Uncertified,
    /// The names in the certificate are others.
    Certificate(Vec<String>),
}

impl Miss {
    /// In one word, for counters and the security log.
    pub fn reason(&self) -> &'static str {
        match self {
            Miss::Nobody | Miss::Source(_) => "unknown-trunk",
            Miss::Transport(_) => "wrong-transport",
            Miss::Uncertified | Miss::Certificate(_) => "no-certificate",
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Miss::Nobody => f.write_str("it names no `sources`, `certificates` or `users`"),
            Miss::Source(ip) => write!(f, "{ip} is in none of its `sources`"),
            Miss::Transport(transport) => {
                write!(f, "it came by {transport}, which is not in its `transports`")
            }
            Miss::Uncertified => f.write_str("no verified TLS client certificate was shown"),
            Miss::Certificate(names) => {
                write!(f, "the certificate is for {}, not in `certificates`", names.join(", "))
            }
        }
    }
}

/// One thing by which a request is a trunk's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Its source lies in this network of `sources`.
    Source(IpNet),
    /// `transports` names its transport.
    Transport(Transport),
    /// A name of the certificate shown is this one of `certificates`.
    Certificate(String),
    /// Nothing tells yet: it has to prove that it is one of these users.
    Users(Vec<String>),
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ground::Source(net) => write!(f, "its source is in {net}"),
            Ground::Transport(transport) => write!(f, "{transport} is one of its transports"),
            Ground::Certificate(name) => write!(f, "the certificate shown is for {name}"),
            Ground::Users(names) => {
                write!(f, "it must prove to be {} (digest)", names.join(" or "))
            }
        }
    }
}

impl Profile {
    /// Why this trunk takes a request that came like this, rule by rule.
    pub fn grounds(&self, arrival: &Arrival<'_>) -> Result<Vec<Ground>, Miss> {
        self.admits(arrival)?;
        let source = self.sources.iter().find(|net| net.contains(&arrival.source));
        let transport = self.transports.iter().find(|own| **own == arrival.transport);
        let shown = |wanted: &&String| {
            let names = arrival.certificate.unwrap_or_default();
            names.iter().any(|name| covers(wanted, name))
        };
        let certificate = self.certificates.iter().find(shown);
        let users: Vec<String> = self.users.iter().map(|user| user.username.clone()).collect();
        let mut grounds: Vec<Ground> = source.copied().map(Ground::Source).into_iter().collect();
        grounds.extend(transport.copied().map(Ground::Transport));
        grounds.extend(certificate.cloned().map(Ground::Certificate));
        grounds.extend((!users.is_empty()).then_some(Ground::Users(users)));
        Ok(grounds)
    }

    /// Whether a request that came like this is this trunk's, digest authentication aside. The
    /// most specific reason comes last: a wrong source is told before a wrong certificate.
    pub fn admits(&self, arrival: &Arrival<'_>) -> Result<(), Miss> {
        if self.sources.is_empty() && self.certificates.is_empty() && self.users.is_empty() {
            return Err(Miss::Nobody);
        }
        let inside = self.sources.iter().any(|net| net.contains(&arrival.source));
        if !self.sources.is_empty() && !inside {
            return Err(Miss::Source(arrival.source));
        }
        if !self.transports.is_empty() && !self.transports.contains(&arrival.transport) {
            return Err(Miss::Transport(arrival.transport));
        }
        if self.certificates.is_empty() {
            return Ok(());
        }
        let Some(names) = arrival.certificate else { return Err(Miss::Uncertified) };
        let known = |name: &String| self.certificates.iter().any(|wanted| covers(wanted, name));
        if names.iter().any(known) { Ok(()) } else { Err(Miss::Certificate(names.to_vec())) }
    }
}

/// All trunks that take such a request, in the order of the configuration: the first serves it.
pub fn admitting<'t>(
    trunks: &'t [Arc<Profile>],
    arrival: &Arrival<'_>,
) -> impl Iterator<Item = &'t Arc<Profile>> {
    trunks.iter().filter(|trunk| trunk.admits(arrival).is_ok())
}

/// Why none takes it: the reason of the trunk that came nearest.
pub fn miss(trunks: &[Arc<Profile>], arrival: &Arrival<'_>) -> Miss {
    let nearness = |miss: &Miss| match miss {
        Miss::Nobody => 0,
        Miss::Source(_) => 1,
        Miss::Transport(_) => 2,
        Miss::Uncertified => 3,
        Miss::Certificate(_) => 4,
    };
    let misses = trunks.iter().filter_map(|trunk| trunk.admits(arrival).err());
    misses.max_by_key(nearness).unwrap_or(Miss::Source(arrival.source))
}

/// Whether a name of a certificate is the wanted one; `*.` stands for one label.
fn covers(wanted: &str, name: &str) -> bool {
    match wanted.strip_prefix("*.") {
        Some(domain) => {
            name.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain))
        }
        None => wanted.eq_ignore_ascii_case(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(toml: &str) -> Arc<Profile> {
        Arc::new(Profile::parse(toml).unwrap())
    }

    fn arrival(source: &str, transport: Transport) -> Arrival<'static> {
        Arrival { transport, source: source.parse().unwrap(), certificate: None }
    }

    #[test]
    fn a_source_matches_by_network() {
        let trunk = profile("sources = ['192.0.2.0/24', '2001:db8::/32']\ntransports = ['udp']");
        assert_eq!(trunk.admits(&arrival("192.0.2.200", Transport::Udp)), Ok(()));
        assert_eq!(trunk.admits(&arrival("2001:db8::1", Transport::Udp)), Ok(()));
        let other = arrival("198.51.100.1", Transport::Udp);
        assert_eq!(trunk.admits(&other), Err(Miss::Source(other.source)));
        let tcp = arrival("192.0.2.200", Transport::Tcp);
        assert_eq!(trunk.admits(&tcp), Err(Miss::Transport(Transport::Tcp)));
        let nobody = Profile::default().admits(&arrival("127.0.0.1", Transport::Udp));
        assert_eq!(nobody, Err(Miss::Nobody));
    }

    #[test]
    fn a_certificate_tells_who_it_is() {
        let trunk = profile("certificates = ['sip.example.com', '*.pstnhub.example']");
        let shown = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
            let arrival = arrival("198.51.100.1", Transport::Tls);
            trunk.admits(&Arrival { certificate: Some(&names), ..arrival })
        };
        assert_eq!(shown(&["x.example.com", "SIP.example.com"]), Ok(()));
        assert_eq!(shown(&["sip2.pstnhub.example"]), Ok(()));
        assert!(shown(&["a.b.pstnhub.example"]).is_err());
        assert!(shown(&["pstnhub.example"]).is_err());
        let plain = trunk.admits(&arrival("198.51.100.1", Transport::Tls));
        assert_eq!(plain, Err(Miss::Uncertified));
    }

    #[test]
    fn every_rule_that_held_is_told() {
        let trunk = profile(
            "sources = ['10.0.0.0/8', '192.0.2.0/24']\ntransports = ['tls']\n\
             certificates = ['*.example.com']\nusers = [{ username = 'a', password = 'b' }]",
        );
        let names = ["sip.example.com".to_string()];
        let shown = Arrival { certificate: Some(&names), ..arrival("192.0.2.1", Transport::Tls) };
        let told: Vec<String> =
            trunk.grounds(&shown).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "its source is in 192.0.2.0/24",
                "tls is one of its transports",
                "the certificate shown is for *.example.com",
                "it must prove to be a (digest)",
            ]
        );
        let plain = trunk.grounds(&arrival("192.0.2.1", Transport::Tls));
        assert_eq!(plain, Err(Miss::Uncertified));
    }

    #[test]
    fn the_first_trunk_counts_and_the_nearest_miss_is_told() {
        let trunks = [
            profile("name = 'a'\nsources = ['192.0.2.0/24']\ntransports = ['tls']"),
            profile("name = 'b'\nsources = ['192.0.2.0/25']"),
            profile("name = 'c'\nsources = ['192.0.2.0/24']"),
        ];
        let names = |arrival| -> Vec<String> {
            admitting(&trunks, &arrival).map(|trunk| trunk.name.clone()).collect()
        };
        assert_eq!(names(arrival("192.0.2.1", Transport::Udp)), ["b", "c"]);
        assert!(names(arrival("198.51.100.1", Transport::Udp)).is_empty());
        let missed = miss(&trunks[..1], &arrival("192.0.2.1", Transport::Tcp));
        assert_eq!(missed, Miss::Transport(Transport::Tcp));
        assert_eq!(missed.reason(), "wrong-transport");
    }
}
