//! `ringtill gateway test`: a verification against each configured gateway, with what was reached,
//! what was answered, and whose fault it is if that is not an approval. No money moves.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use reqwest::tls::TlsInfo;

use super::http_client::HttpClient;
use super::{clock, gateway};
use crate::config::Config;
use crate::gateway::{
    Charge, Exchange, Found, Gateway, Initiator, Lookup, Operation, Purpose, Route, Search, Verdict,
};
use crate::instrument::{Card, Cvv, Expiry, Instrument, Method, Pan};
use crate::ledger::journal::masked;
use crate::money::Money;

/// The test card every processor's documents name; of nobody.
const CARD: &str = "4111111111111111";
const CODE: &str = "999";
const ZIP: &str = "46201";
const LIMIT: Duration = Duration::from_secs(30);

/// Prints as it goes. False: a gateway could not be used, or did not approve the test card. With
/// `id` only that one is tried.
pub async fn test(config: &Config, id: Option<&str>, out: &mut impl Write) -> io::Result<bool> {
    let opened = match gateway::open(config, None).await {
        Ok(opened) => opened,
        Err(why) => {
            writeln!(out, "{:10} {why}", "settings")?;
            return blame(out, "yours: the configuration cannot work as it is");
        }
    };
    let gateways = &opened.gateways;
    let mut good = true;
    let mut tried = 0;
    for route in gateways.routes.all() {
        let wanted = id.is_none_or(|id| id == &*route.id);
        let Some(client) = gateways.client(&route.id).filter(|_| wanted) else { continue };
        if tried > 0 {
            writeln!(out)?;
        }
        tried += 1;
        good &= match client {
            gateway::Client::Https(http) => test_one(config, route, http, out).await?,
            gateway::Client::Files(_) => {
                tell(out, "gateway", &route.id)?;
                tell(out, "verdict", "nobody to ask: debits go to your bank in files")?;
                true
            }
        };
    }
    if tried == 0 {
        let known: Vec<&str> = gateways.routes.all().iter().map(|route| &*route.id).collect();
        tell(out, "settings", &format!("no gateway has this id; there are: {}", known.join(", ")))?;
        return Ok(false);
    }
    Ok(good)
}

async fn test_one(
    config: &Config,
    route: &Route,
    http: &HttpClient,
    out: &mut impl Write,
) -> io::Result<bool> {
    let gateway = &*route.gateway;
    let alias = if *route.id == *gateway.name() { "" } else { &*route.id };
    tell(out, "gateway", format!("{} {alias}", gateway.name()).trim_end())?;
    let capabilities = gateway.capabilities();
    let can = Operation::ALL.into_iter().filter(|operation| capabilities.can(*operation));
    let mut can: Vec<&str> = can.map(Operation::name).collect();
    can.extend(capabilities.bank.then_some("bank accounts"));
    can.extend(capabilities.tokens.then_some("tokens"));
    tell(out, "can", &can.join(", "))?;
    let reference = uuid::Uuid::now_v7().to_string();
    let Some(card) = card() else { return blame(out, "Ringtill's: the test card") };
    if !capabilities.can(Operation::Verify) {
        return look_up(gateway, http, &reference, out).await;
    }
    let charge = Charge {
        purpose: Purpose::Verify,
        reference: &reference,
        total: Money::new(0, config.payment.currency()),
        fee: Money::new(0, config.payment.currency()),
        surcharge: false,
        instrument: Instrument::Card(&card),
        account_id: "test",
        save: false,
        initiator: Initiator::Customer,
        at_ms: clock::wall_ms(),
    };
    let request = match gateway.charge(&charge) {
        Ok(request) => request,
        Err(cannot) => return blame(out, &format!("yours: {}", cannot.0)),
    };
    let host = reach(&request.head.uri, out).await?;
    tell(out, "sent", &format!("verification of the card ending 1111, reference {reference}"))?;
    let began = clock::now();
    let exchange = http.send(request, LIMIT).await;
    answered(&exchange, &host, began, out)?;
    conclude(&gateway.verdict(&charge, &exchange), out)
}

fn card() -> Option<Card> {
    let pan = Pan::parse(CARD).ok()?;
    let today = jiff::Timestamp::from_millisecond(clock::wall_ms()).ok()?;
    let today = today.to_zoned(jiff::tz::TimeZone::UTC).date();
    let expiry = Expiry::parse(&format!("12{:02}", (today.year() + 3) % 100), today).ok()?;
    let cvv = Cvv::parse(CODE, pan.brand());
    Some(Card { pan, expiry, cvv, zip: Some(ZIP.to_string().into()) })
}

/// A gateway without verification is asked for a charge that nobody made.
async fn look_up(
    gateway: &dyn Gateway,
    http: &HttpClient,
    reference: &str,
    out: &mut impl Write,
) -> io::Result<bool> {
    let now_ms = clock::wall_ms();
    let lookup = Lookup {
        purpose: Purpose::Sale,
        reference,
        total: Money::usd(100),
        method: Method::Card,
        started_ms: now_ms,
        at_ms: now_ms,
        step: String::new(),
    };
    let mut search = Search::new(gateway, lookup);
    let mut last = None;
    while let Some(request) = search.request() {
        let host = reach(&request.head.uri, out).await?;
        tell(out, "sent", &format!("lookup of a charge nobody made, reference {reference}"))?;
        let began = clock::now();
        let exchange = http.send(request, LIMIT).await;
        answered(&exchange, &host, began, out)?;
        search.answered(&exchange);
        last = Some(exchange);
    }
    let found = search.found();
    tell(
        out,
        "verdict",
        if found == Found::Absent { "no such charge, as it should be" } else { "not clear" },
    )?;
    match (found, last) {
        (Found::Absent, _) => Ok(true),
        (_, Some(Exchange::NotSent(why))) => conclude(&Verdict::NotSent(why), out),
        (_, Some(Exchange::Response(response))) if response.status().is_client_error() => {
            blame(out, "yours: the gateway does not accept the credentials")
        }
        _ => blame(out, "the gateway's: it gave no clear answer"),
    }
}

/// Resolves and connects once, to say what is there; the host.
async fn reach(uri: &http::Uri, out: &mut impl Write) -> io::Result<String> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_string();
    let port = uri.port_u16().unwrap_or(443);
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let addresses: Vec<_> = found.map(|found| found.collect()).unwrap_or_default();
    if addresses.is_empty() {
        tell(out, "address", &format!("{host}: no address found"))?;
    }
    for address in addresses.iter().take(4) {
        let connecting = tokio::net::TcpStream::connect(address);
        let state = match tokio::time::timeout(Duration::from_secs(3), connecting).await {
            Ok(Ok(_)) => "connected".to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer within 3 s".to_string(),
        };
        tell(out, "address", &format!("{host} is {address}: {state}"))?;
    }
    Ok(host)
}

fn answered(
    exchange: &Exchange,
    host: &str,
    began: Instant,
    out: &mut impl Write,
) -> io::Result<()> {
    let response = match exchange {
        Exchange::Response(response) => response,
        Exchange::NotSent(why) => return tell(out, "answer", &format!("nothing was sent: {why}")),
        Exchange::NoAnswer(why) => return tell(out, "answer", &format!("none: {why}")),
    };
    let certificate = response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
    let named = certificate.map(names).unwrap_or_default();
    let named = if named.is_empty() { host.to_string() } else { named.join(", ") };
    tell(out, "TLS", &format!("verified for {host}; the certificate names {named}"))?;
    let took = clock::now().saturating_duration_since(began).as_millis();
    tell(out, "answer", &format!("HTTP {} after {took} ms", response.status()))
}

/// Host names of a verified certificate.
fn names(certificate: &[u8]) -> Vec<String> {
    let der = rustls::pki_types::CertificateDer::from(certificate);
    webpki::EndEntityCert::try_from(&der)
        .map(|certificate| certificate.valid_dns_names().map(String::from).collect())
        .unwrap_or_default()
}

fn conclude(verdict: &Verdict, out: &mut impl Write) -> io::Result<bool> {
    let approval = match verdict {
        Verdict::Approved(approval) => approval,
        Verdict::DeclinedHard | Verdict::DeclinedSoft | Verdict::Fixable(_) | Verdict::Held(_) => {
            tell(out, "verdict", "not approved")?;
            let why = "nobody's, most likely: credentials and connection work, and the test card is \
                       refused, as a live gateway must";
            return blame(out, why);
        }
        Verdict::Duplicate { .. } => {
            tell(out, "verdict", "taken for a repeat")?;
            return blame(out, "nobody's: wait for the end of the gateway's duplicate window");
        }
        Verdict::NotSent(why) => {
            tell(out, "verdict", &format!("not sent: {}", masked(why)))?;
            let why = "the network's, or the gateway's: nothing was sent; look at address and TLS";
            return blame(out, why);
        }
        Verdict::Config(why) => {
            tell(out, "verdict", &masked(why))?;
            return blame(out, "yours: credentials, or what the account may do");
        }
        Verdict::Unknown(why) => {
            tell(out, "verdict", &format!("unknown: {}", masked(why)))?;
            return blame(out, "the gateway's: its answer cannot be understood, or never came");
        }
    };
    let id = &approval.gateway_reference;
    tell(out, "verdict", &format!("approved, their reference {id}, code {}", approval.auth_code))?;
    tell(out, "AVS", approval.avs.as_deref().unwrap_or("not told"))?;
    tell(out, "CVV", approval.cvv.as_deref().unwrap_or("not told"))?;
    Ok(true)
}

fn tell(out: &mut impl Write, what: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{what:10} {text}")
}

fn blame(out: &mut impl Write, whose: &str) -> io::Result<bool> {
    writeln!(out, "{:10} {whose}", "fault")?;
    Ok(false)
}
