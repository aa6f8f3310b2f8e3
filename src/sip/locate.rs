//! Where a URI is reached (RFC 3263): what is to be asked of DNS, and in which order its answers
//! are tried. The asking is done elsewhere.

use std::net::SocketAddr;

use rand::{Rng, RngExt};

use super::model::{Host, Scheme, Uri};
use super::transport::{Transport, numeric};

/// One place to send a request to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub transport: Transport,
    pub address: SocketAddr,
    /// What the peer's certificate must name: the URI's domain, whatever DNS made of it
    /// (RFC 5922 §4).
    pub name: Option<String>,
}

impl Hop {
    pub fn udp(address: SocketAddr) -> Hop {
        Hop { transport: Transport::Udp, address, name: None }
    }
}

/// How a URI is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing is to be asked.
    Direct(Hop),
    /// The addresses of `host`: it has a port.
    Addresses { host: String, port: u16, transport: Transport },
    /// NAPTR of `host`, then [`services`]; without one the SRV records of `transports` in order;
    /// without any the addresses of `host` at the default port of `fallback`.
    Services { host: String, naptr: bool, transports: Vec<Transport>, fallback: Transport },
}

impl Plan {
    /// RFC 3263 §4.1 and §4.2. `None` if the URI is none of SIP, or asks for a transport that is
    /// not among `supported`.
    pub fn of(uri: &Uri, supported: &[Transport]) -> Option<Plan> {
        let secure = uri.scheme == Scheme::Sips;
        if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
            return None;
        }
        let asked = match uri.params.value("transport") {
            None => None,
            // One that we do not know is not silently replaced.
            Some(_) => Some(Transport::of(uri)?),
        };
        let fallback = asked.unwrap_or(if secure { Transport::Tls } else { Transport::Udp });
        let fits = |transport: &Transport| {
            supported.contains(transport)
                && asked.is_none_or(|asked| asked == *transport)
                && (!secure || *transport == Transport::Tls)
        };
        if let Some(address) = numeric(uri, fallback) {
            let hop = Hop { transport: fallback, address, name: None };
            return fits(&fallback).then_some(Plan::Direct(hop));
        }
        let Some(Host::Domain(host)) = &uri.host else { return None };
        let host = host.to_string().trim_end_matches('.').to_ascii_lowercase();
        if let Some(port) = uri.port {
            let plan = Plan::Addresses { host, port, transport: fallback };
            return fits(&fallback).then_some(plan);
        }
        let transports: Vec<Transport> =
            [Transport::Tls, Transport::Tcp, Transport::Udp].into_iter().filter(fits).collect();
        let fallback = if fits(&fallback) { fallback } else { *transports.first()? };
        Some(Plan::Services { host, naptr: asked.is_none(), transports, fallback })
    }
}

/// The SRV name of a transport's service in a domain (RFC 3263 §4.1).
pub fn service(transport: Transport, host: &str) -> String {
    let prefix = match transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        Transport::Tls => "_sips._tcp",
    };
    format!("{prefix}.{host}")
}

/// A NAPTR record (RFC 3403 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naptr {
    pub order: u16,
    pub preference: u16,
    pub flags: String,
    pub service: String,
    pub replacement: String,
}

/// The SRV names that NAPTR records lead to, those to be tried first in front.
pub fn services(mut records: Vec<Naptr>, transports: &[Transport]) -> Vec<(Transport, String)> {
    records.sort_by_key(|record| (record.order, record.preference));
    let named = records.into_iter().filter_map(|record| {
        let transport = match record.service.to_ascii_uppercase().as_str() {
            "SIPS+D2T" => Transport::Tls,
            "SIP+D2T" => Transport::Tcp,
            "SIP+D2U" => Transport::Udp,
            _ => return None,
        };
        let srv = record.flags.eq_ignore_ascii_case("s") && transports.contains(&transport);
        srv.then_some((transport, record.replacement))
    });
    named.collect()
}

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub target: String,
}

/// By priority; within one, by chance according to weight (RFC 2782).
pub fn by_priority(mut records: Vec<Srv>, rng: &mut impl Rng) -> Vec<Srv> {
    // "." says that there is no such service.
    records.retain(|record| !record.target.trim_end_matches('.').is_empty());
    // Those without weight stand in front, where chance rarely picks them.
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let priority = first.priority;
        let same = records.iter().take_while(|record| record.priority == priority);
        let total: u32 = same.clone().map(|record| u32::from(record.weight)).sum();
        let mut left = rng.random_range(0..=total);
        let picked = same.clone().position(|record| {
            let weight = u32::from(record.weight);
            let taken = left <= weight;
            left = left.saturating_sub(weight);
            taken
        });
        ordered.push(records.remove(picked.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transport::{Tcp, Tls, Udp};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const ALL: [Transport; 3] = [Udp, Tcp, Tls];

    fn plan(uri: &str, supported: &[Transport]) -> Option<Plan> {
        Plan::of(&Uri::parse(uri).unwrap(), supported)
    }

    fn services_of(naptr: bool, transports: &[Transport], fallback: Transport) -> Option<Plan> {
        let (host, transports) = ("example.com".into(), transports.to_vec());
        Some(Plan::Services { host, naptr, transports, fallback })
    }

    #[test]
    fn numbers_need_no_dns() {
        let direct = |transport, address: &str| {
            let address = address.parse().unwrap();
            Some(Plan::Direct(Hop { transport, address, name: None }))
        };
        assert_eq!(plan("sip:a@192.0.2.1", &ALL), direct(Udp, "192.0.2.1:5060"));
        assert_eq!(plan("sips:a@192.0.2.1", &ALL), direct(Tls, "192.0.2.1:5061"));
        assert_eq!(plan("sip:[2001:db8::1]:5;transport=tcp", &ALL), direct(Tcp, "[2001:db8::1]:5"));
        assert_eq!(plan("sip:a@192.0.2.1;transport=tls", &[Udp, Tcp]), None, "not ours");
        assert_eq!(plan("sip:a@192.0.2.1;transport=sctp", &ALL), None, "not known");
        assert_eq!(plan("tel:+13175550123", &ALL), None);
    }

    #[test]
    fn names_are_looked_up_as_far_as_they_leave_open() {
        let host = || "example.com".to_string();
        let port = |transport| Some(Plan::Addresses { host: host(), port: 5070, transport });
        assert_eq!(plan("sip:a@Example.com.:5070", &ALL), port(Udp));
        assert_eq!(plan("sips:example.com:5070", &ALL), port(Tls));
        assert_eq!(plan("sip:example.com", &ALL), services_of(true, &[Tls, Tcp, Udp], Udp));
        assert_eq!(plan("sips:example.com", &ALL), services_of(true, &[Tls], Tls));
        assert_eq!(plan("sip:example.com;transport=TCP", &ALL), services_of(false, &[Tcp], Tcp));
        assert_eq!(plan("sip:example.com", &[Tcp]), services_of(true, &[Tcp], Tcp));
        assert_eq!(plan("sips:example.com", &[Udp, Tcp]), None, "sips needs TLS");
    }

    #[test]
    fn naptr_records_are_ordered_and_those_we_cannot_use_left_out() {
        let record = |order, preference, flags: &str, service: &str, replacement: &str| Naptr {
            order,
            preference,
            flags: flags.into(),
            service: service.into(),
            replacement: replacement.into(),
        };
        let records = vec![
            record(20, 1, "s", "SIP+D2U", "u"),
            record(10, 50, "S", "sip+d2t", "t"),
            record(10, 10, "s", "SIPS+D2T", "s"),
            record(5, 5, "s", "SIP+D2S", "sctp"),
            record(5, 5, "u", "SIP+D2U", "uri"),
        ];
        let found = services(records.clone(), &ALL);
        assert_eq!(found, [(Tls, "s".to_string()), (Tcp, "t".into()), (Udp, "u".into())]);
        assert_eq!(services(records, &[Udp]), [(Udp, "u".to_string())]);
    }

    #[test]
    fn srv_records_by_priority_and_by_weight() {
        let record = |priority, weight, target: &str| Srv {
            priority,
            weight,
            port: 5060,
            target: target.into(),
        };
        let records = vec![
            record(20, 0, "last"),
            record(10, 30, "often"),
            record(10, 10, "seldom"),
            record(10, 0, "hardly"),
            record(1, 1, "."),
        ];
        let mut rng = StdRng::seed_from_u64(1);
        let mut first: std::collections::BTreeMap<String, u32> = Default::default();
        for _ in 0..4_000 {
            let order = by_priority(records.clone(), &mut rng);
            assert_eq!(order.len(), 4);
            assert_eq!(order[3].target, "last");
            *first.entry(order[0].target.clone()).or_default() += 1;
        }
        // 1 to 10 to 30 of 41.
        assert!((2_700..3_150).contains(&first["often"]), "{first:?}");
        assert!((850..1_150).contains(&first["seldom"]), "{first:?}");
        assert!((40..170).contains(&first["hardly"]), "{first:?}");
    }
}
