//! Where a SIP URI is reached, asked of DNS (RFC 3263). Answers are kept for as long as they say.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};

use crate::sip::Transport;
use crate::sip::locate::{self, Hop, Naptr, Plan, Srv};
use crate::sip::model::Uri;

/// From the question to the last answer.
const LOCATE_LIMIT: Duration = Duration::from_secs(5);
/// One try with one name server.
const TRY_LIMIT: Duration = Duration::from_secs(2);
/// Places returned; the first few count.
const HOPS_MAX: usize = 16;
/// Answers remembered.
const CACHE_MAX: u64 = 1_024;
/// A name that was just made known is not denied for long.
const DENIED_MAX: Duration = Duration::from_secs(30);

/// Why a URI leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// It is no SIP URI, or asks for a transport we do not listen on.
    Unsupported,
    /// DNS knows no address for it.
    Unknown,
    /// No name server answered in time, or none could answer.
    NoAnswer(String),
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreachable::Unsupported => {
                f.write_str("it is no SIP URI, or no [sip] listen has its transport")
            }
            Unreachable::Unknown => f.write_str("DNS knows no address for it"),
            Unreachable::NoAnswer(why) => write!(f, "DNS does not answer: {why}"),
        }
    }
}

impl std::error::Error for Unreachable {}

/// Cheap to clone; clones share what they remember.
#[derive(Clone)]
pub struct Locator {
    resolver: TokioResolver,
    /// Transport and family of our listeners: what they cannot send to is left out.
    ours: Vec<(Transport, SocketAddr)>,
}

impl Locator {
    /// Asks the name servers of this machine's resolv.conf, after its hosts file. `ours` are the
    /// addresses we listen on, [`super::sip::Sip::locals`].
    pub fn system(ours: &[(Transport, SocketAddr)]) -> Result<Locator, String> {
        let builder = TokioResolver::builder_tokio().and_then(|mut builder| {
            tune(builder.options_mut(), ours);
            builder.build()
        });
        let resolver = builder.map_err(|error| format!("the name servers: {error}"))?;
        Ok(Locator { resolver, ours: ours.to_vec() })
    }

    /// All places where `uri` is reached, in the order to be tried, at least one.
    pub async fn locate(&self, uri: &Uri) -> Result<Vec<Hop>, Unreachable> {
        let mut supported: Vec<Transport> = self.ours.iter().map(|(t, _)| *t).collect();
        supported.dedup();
        let plan = Plan::of(uri, &supported).ok_or(Unreachable::Unsupported)?;
        let mut search = Search { locator: self, hops: Vec::new(), failed: None };
        let late = tokio::time::timeout(LOCATE_LIMIT, search.follow(plan)).await.is_err();
        let Search { hops, failed, .. } = search;
        match failed {
            _ if !hops.is_empty() => Ok(hops),
            _ if late => Err(Unreachable::NoAnswer(format!("{} s", LOCATE_LIMIT.as_secs()))),
            Some(why) => Err(Unreachable::NoAnswer(why)),
            None => Err(Unreachable::Unknown),
        }
    }

    fn reaches(&self, transport: Transport, ip: IpAddr) -> bool {
        let fits =
            |(own, at): &(Transport, SocketAddr)| *own == transport && at.is_ipv4() == ip.is_ipv4();
        self.ours.iter().any(fits)
    }
}

fn tune(options: &mut ResolverOpts, ours: &[(Transport, SocketAddr)]) {
    let family = |v4: bool| ours.iter().any(|(_, address)| address.is_ipv4() == v4);
    options.ip_strategy = match (family(true), family(false)) {
        (true, true) => LookupIpStrategy::Ipv4AndIpv6,
        (false, true) => LookupIpStrategy::Ipv6Only,
        _ => LookupIpStrategy::Ipv4Only,
    };
    options.timeout = TRY_LIMIT;
    options.attempts = 2;
    options.cache_size = CACHE_MAX;
    options.negative_max_ttl = Some(DENIED_MAX);
}

/// What was found so far: when time is up, that has to do.
struct Search<'a> {
    locator: &'a Locator,
    hops: Vec<Hop>,
    failed: Option<String>,
}

impl Search<'_> {
    async fn follow(&mut self, plan: Plan) {
        match plan {
            Plan::Direct(hop) => {
                if self.locator.reaches(hop.transport, hop.address.ip()) {
                    self.hops.push(hop);
                }
            }
            Plan::Addresses { host, port, transport } => {
                self.addresses(&host, &host, port, transport).await;
            }
            Plan::Services { host, naptr, transports, fallback } => {
                let named = match naptr {
                    true => locate::services(self.naptr(&host).await, &transports),
                    false => Vec::new(),
                };
                let by_default = transports.iter().map(|t| (*t, locate::service(*t, &host)));
                let services = if named.is_empty() { by_default.collect() } else { named };
                for (transport, service) in services {
                    self.service(&host, transport, &service).await;
                }
                if self.hops.is_empty() {
                    self.addresses(&host, &host, fallback.default_port(), fallback).await;
                }
            }
        }
    }

    async fn service(&mut self, host: &str, transport: Transport, service: &str) {
        let records = self.lookup(service, RecordType::SRV).await;
        let records = records.into_iter().filter_map(|data| match data {
            RData::SRV(srv) => Some(Srv {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_utf8(),
            }),
            _ => None,
        });
        let records = locate::by_priority(records.collect(), &mut rand::rng());
        for Srv { target, port, .. } in records {
            if self.hops.len() >= HOPS_MAX {
                return;
            }
            self.addresses(host, &target, port, transport).await;
        }
    }

    async fn naptr(&mut self, host: &str) -> Vec<Naptr> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let records = self.lookup(host, RecordType::NAPTR).await;
        let records = records.into_iter().filter_map(|data| match data {
            RData::NAPTR(naptr) => Some(Naptr {
                order: naptr.order,
                preference: naptr.preference,
                flags: text(&naptr.flags),
                service: text(&naptr.services),
                replacement: naptr.replacement.to_utf8(),
            }),
            _ => None,
        });
        records.collect()
    }

    async fn lookup(&mut self, name: &str, kind: RecordType) -> Vec<RData> {
        let found = self.locator.resolver.lookup(absolute(name), kind).await;
        match found {
            Ok(found) => found.answers().iter().map(|record| record.data.clone()).collect(),
            Err(error) => {
                self.note(&error);
                Vec::new()
            }
        }
    }

    /// The addresses of `target` that a listener of ours can send to; `host` is the URI's.
    async fn addresses(&mut self, host: &str, target: &str, port: u16, transport: Transport) {
        match self.locator.resolver.lookup_ip(absolute(target)).await {
            Ok(found) => {
                let name = (transport == Transport::Tls).then(|| host.to_string());
                let ours = found.iter().filter(|ip| self.locator.reaches(transport, *ip));
                let hops = ours.map(|ip| Hop {
                    transport,
                    address: SocketAddr::new(ip, port),
                    name: name.clone(),
                });
                for hop in hops {
                    if self.hops.len() < HOPS_MAX && !self.hops.contains(&hop) {
                        self.hops.push(hop);
                    }
                }
            }
            Err(error) => self.note(&error),
        }
    }

    /// That there is no such record is an answer.
    fn note(&mut self, error: &NetError) {
        if !error.is_no_records_found() && !error.is_nx_domain() {
            self.failed = Some(error.to_string());
        }
    }
}

/// A name with a dot is not tried below the domains of this machine; a short one may be.
fn absolute(name: &str) -> String {
    match name.trim_end_matches('.') {
        short if !short.contains('.') => short.to_string(),
        name => format!("{name}."),
    }
}

#[cfg(test)]
mod tests;
