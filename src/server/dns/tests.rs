//! A name server of our own on loopback, and what is made of its answers.

#![allow(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, NAPTR, SRV};
use hickory_resolver::proto::rr::{Name, Record};
use tokio::net::UdpSocket;

use super::*;
use Transport::{Tcp, Tls, Udp};

type Zone = HashMap<(String, RecordType), Vec<RData>>;

fn name(text: &str) -> Name {
    Name::from_str(&format!("{}.", text.trim_end_matches('.'))).unwrap()
}

fn zone(records: &[(&str, RData)]) -> Zone {
    let mut zone = Zone::new();
    for (owner, data) in records {
        let key = (name(owner).to_utf8(), data.record_type());
        zone.entry(key).or_default().push(data.clone());
    }
    zone
}

fn srv(priority: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, 10, port, name(target)))
}

fn naptr(order: u16, service: &str, replacement: &str) -> RData {
    let (flags, services) = (b"s".to_vec().into(), service.as_bytes().to_vec().into());
    let (regexp, replacement) = (Vec::new().into(), name(replacement));
    RData::NAPTR(NAPTR::new(order, 1, flags, services, regexp, replacement))
}

fn a(ip: &str) -> RData {
    RData::A(A(ip.parse().unwrap()))
}

fn aaaa(ip: &str) -> RData {
    RData::AAAA(AAAA(ip.parse().unwrap()))
}

/// Answers from a table until it is dropped; remembers what it was asked.
struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NameServer {
    async fn new(zone: Zone) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = asked.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 2_048];
            while let Ok((length, source)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                let query = question.queries[0].clone();
                heard.lock().unwrap().push(format!("{} {}", query.query_type(), query.name()));
                let key = (query.name().to_lowercase().to_utf8(), query.query_type());
                let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
                answer.metadata.recursion_available = true;
                answer.add_query(query.clone());
                match zone.get(&key) {
                    Some(found) => {
                        let record = |data: &RData| {
                            Record::from_rdata(query.name().clone(), 60, data.clone())
                        };
                        answer.add_answers(found.iter().map(record));
                    }
                    None => answer.metadata.response_code = ResponseCode::NXDomain,
                }
                socket.send_to(&answer.to_vec().unwrap(), source).await.unwrap();
            }
        });
        NameServer { address, asked, task }
    }

    fn locator(&self, ours: &[Transport]) -> Locator {
        let ours: Vec<_> =
            ours.iter().map(|transport| (*transport, "127.0.0.1:1".parse().unwrap())).collect();
        self.locator_for(&ours)
    }

    fn locator_for(&self, ours: &[(Transport, SocketAddr)]) -> Locator {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.address.port();
        let mut server = NameServerConfig::udp(self.address.ip());
        server.connections = vec![connection];
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        tune(builder.options_mut(), ours);
        Locator { resolver: builder.build().unwrap(), ours: ours.to_vec() }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn hop(transport: Transport, address: &str, name: Option<&str>) -> Hop {
    Hop { transport, address: address.parse().unwrap(), name: name.map(String::from) }
}

async fn located(locator: &Locator, uri: &str) -> Result<Vec<Hop>, Unreachable> {
    locator.locate(&Uri::parse(uri).unwrap()).await
}

#[tokio::test]
async fn naptr_then_srv_then_addresses_in_order() {
    let server = NameServer::new(zone(&[
        ("example.com", naptr(20, "SIP+D2U", "_sip._udp.example.com")),
        ("example.com", naptr(10, "SIPS+D2T", "_sips._tcp.example.com")),
        ("_sips._tcp.example.com", srv(20, 5062, "b.example.net")),
        ("_sips._tcp.example.com", srv(10, 5061, "a.example.net")),
        ("_sip._udp.example.com", srv(1, 5060, "a.example.net")),
        ("a.example.net", a("192.0.2.1")),
        ("a.example.net", aaaa("2001:db8::1")),
        ("b.example.net", a("192.0.2.2")),
    ]))
    .await;
    let locator = server.locator(&[Udp, Tcp, Tls]);
    let domain = Some("example.com");
    let all = located(&locator, "sip:pay@Example.COM").await.unwrap();
    let (first, second) = (hop(Tls, "192.0.2.1:5061", domain), hop(Tls, "192.0.2.2:5062", domain));
    assert_eq!(all, [first.clone(), second.clone(), hop(Udp, "192.0.2.1:5060", None)]);
    assert!(!server.asked().is_empty());
    assert_eq!(located(&locator, "sips:example.com").await.unwrap(), [first, second]);
    assert_eq!(server.asked(), [""; 0], "remembered");
}

#[tokio::test]
async fn without_naptr_services_are_tried_and_without_these_the_host() {
    let server = NameServer::new(zone(&[
        ("_sip._tcp.srv.example", srv(1, 5070, "host.example")),
        ("host.example", a("192.0.2.3")),
    ]))
    .await;
    let locator = server.locator(&[Udp, Tcp]);
    let found = located(&locator, "sip:srv.example").await;
    assert_eq!(found.unwrap(), [hop(Tcp, "192.0.2.3:5070", None)]);
    let found = located(&locator, "sip:host.example").await;
    assert_eq!(found.unwrap(), [hop(Udp, "192.0.2.3:5060", None)]);
    server.asked();
    let found = located(&locator, "sip:host.example:5099;transport=tcp").await;
    assert_eq!(found.unwrap(), [hop(Tcp, "192.0.2.3:5099", None)]);
    assert!(!server.asked().iter().any(|asked| asked.contains("_sip")), "a port settles it");
    let found = located(&locator, "sip:host.example;transport=tcp").await;
    assert_eq!(found.unwrap(), [hop(Tcp, "192.0.2.3:5060", None)]);
    assert!(!server.asked().iter().any(|asked| asked.starts_with("NAPTR")), "nor a transport");
    assert_eq!(located(&locator, "sip:nobody.example").await, Err(Unreachable::Unknown));
    assert_eq!(located(&locator, "sips:host.example").await, Err(Unreachable::Unsupported));
    server.asked();
    let found = located(&locator, "sip:192.0.2.9").await;
    assert_eq!(found.unwrap(), [hop(Udp, "192.0.2.9:5060", None)]);
    assert_eq!(located(&locator, "sip:[2001:db8::9]").await, Err(Unreachable::Unknown));
    assert_eq!(server.asked(), [""; 0]);
}

#[tokio::test]
async fn only_families_we_can_send_to_and_no_more_than_enough() {
    let many: Vec<(&str, RData)> =
        (1..=40).map(|n| ("many.example", a(&format!("192.0.2.{n}")))).collect();
    let mut records = vec![("both.example", a("192.0.2.1")), ("both.example", aaaa("::2"))];
    records.extend(many);
    let server = NameServer::new(zone(&records)).await;
    let (v4, v6) = ("127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
    let locator = server.locator_for(&[(Udp, v4), (Udp, v6), (Tcp, v6)]);
    let found = located(&locator, "sip:both.example:5060").await.unwrap();
    assert_eq!(found, [hop(Udp, "192.0.2.1:5060", None), hop(Udp, "[::2]:5060", None)]);
    let found = located(&locator, "sip:both.example:5060;transport=tcp").await.unwrap();
    assert_eq!(found, [hop(Tcp, "[::2]:5060", None)]);
    let found = located(&locator, "sip:many.example:5060").await.unwrap();
    assert_eq!(found.len(), HOPS_MAX);
}

#[tokio::test]
async fn a_silent_name_server_does_not_keep_us() {
    let deaf = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut server = NameServer::new(Zone::new()).await;
    server.address = deaf.local_addr().unwrap();
    let before = std::time::Instant::now();
    let found = located(&server.locator(&[Udp]), "sip:example.com").await;
    assert!(matches!(found, Err(Unreachable::NoAnswer(_))), "{found:?}");
    assert!(before.elapsed() < LOCATE_LIMIT + Duration::from_secs(1));
}
