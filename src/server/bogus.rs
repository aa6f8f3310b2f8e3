//! The simulated gateway on a real HTTPS socket of this machine, with a certificate of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroize;

use crate::gateway::bogus::{Action, Charge, Simulator};

/// A running host; it stops, and drops its connections, when this is dropped.
pub struct BogusHost {
    pub address: SocketAddr,
    /// The certificate a client must trust.
    pub certificate_pem: String,
    pub simulator: Arc<Mutex<Simulator>>,
    accepting: AbortHandle,
}

impl BogusHost {
    /// Serves `simulator` on a free port of 127.0.0.1.
    pub async fn start(simulator: Simulator) -> io::Result<BogusHost> {
        BogusHost::start_on((Ipv4Addr::LOCALHOST, 0).into(), simulator).await
    }

    pub async fn start_on(address: SocketAddr, simulator: Simulator) -> io::Result<BogusHost> {
        let (acceptor, certificate_pem) = tls()?;
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let simulator = Arc::new(Mutex::new(simulator));
        let accepting = tokio::spawn(accept(listener, acceptor, simulator.clone())).abort_handle();
        Ok(BogusHost { address, certificate_pem, simulator, accepting })
    }

    /// Everything the simulator has been asked to charge, oldest first.
    pub fn sales(&self) -> Vec<Charge> {
        let simulator = self.simulator.lock().unwrap_or_else(PoisonError::into_inner);
        simulator.sales().to_vec()
    }

    /// What to configure as `base_url`.
    pub fn base_url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for BogusHost {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Connections served at once.
const CONNECTIONS_MAX: usize = 256;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// No connection lives longer, a stalled one included.
const CONNECTION_LIMIT: Duration = Duration::from_secs(120);
const BODY_MAX: usize = 64 * 1024;

/// TLS for 127.0.0.1 and localhost with a fresh self-signed certificate, and that certificate.
pub(super) fn tls() -> io::Result<(TlsAcceptor, String)> {
    let names = ["127.0.0.1".to_string(), "localhost".to_string()];
    let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .map_err(io::Error::other)?;
    Ok((TlsAcceptor::from(Arc::new(config)), made.cert.pem()))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, simulator: Arc<Mutex<Simulator>>) {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((tcp, _)) => {
                let serving = serve(tcp, acceptor.clone(), simulator.clone());
                connections.spawn(tokio::time::timeout(CONNECTION_LIMIT, serving));
            }
            // Out of file descriptors, most likely: some will be free again.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, simulator: Arc<Mutex<Simulator>>) {
    let shaking_hands = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(tcp));
    let Ok(Ok(stream)) = shaking_hands.await else { return };
    let service = service_fn(|request| answer(request, &simulator));
    // An error here is what the simulator wanted, or a client that went away.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The connection is to be closed now.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed by the simulator")
    }
}

impl std::error::Error for Closed {}

async fn answer(
    request: http::Request<Incoming>,
    simulator: &Mutex<Simulator>,
) -> Result<http::Response<ReplyBody>, Closed> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_MAX).collect().await.map_err(|_| Closed)?;
    let mut request = http::Request::from_parts(head, body.to_bytes().to_vec());
    let action = {
        let mut simulator = simulator.lock().unwrap_or_else(PoisonError::into_inner);
        simulator.handle(now_ms(), &request)
    };
    request.body_mut().zeroize();
    match action {
        Action::Reply(response) => Ok(whole(response)),
        Action::Delayed(ms, response) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(whole(response))
        }
        Action::CloseMidReply(response) => Ok(half(response)),
        Action::CloseUnprocessed | Action::CloseAfterProcessing => Err(Closed),
        Action::Stall => {
            tokio::time::sleep(CONNECTION_LIMIT).await;
            Err(Closed)
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the server room tells everyone else the time")]
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn whole(response: http::Response<Vec<u8>>) -> http::Response<ReplyBody> {
    response.map(|body| ReplyBody { data: Some(body.into()), breaks_off: false })
}

/// Promises the whole body and sends half of it.
fn half(response: http::Response<Vec<u8>>) -> http::Response<ReplyBody> {
    let len = response.body().len();
    let mut response = response.map(|mut body| {
        body.truncate(len / 2);
        ReplyBody { data: Some(body.into()), breaks_off: true }
    });
    response.headers_mut().insert(CONTENT_LENGTH, len.into());
    response
}

/// A body that may break off.
struct ReplyBody {
    data: Option<Bytes>,
    breaks_off: bool,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        Poll::Ready(match self.data.take() {
            Some(data) => Some(Ok(Frame::data(data))),
            None if self.breaks_off => Some(Err(Closed)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && !self.breaks_off
    }

    fn size_hint(&self) -> SizeHint {
        match &self.data {
            Some(data) if !self.breaks_off => SizeHint::with_exact(data.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::bogus::{Bogus, Fault, Settings};
    use crate::gateway::{
        Charge as Asked, Dialect, Exchange, Found, Gateway, Initiator, Lookup, Purpose, Verdict,
    };
    use crate::instrument::{Card, Cvv, Expiry, Instrument, Method, Pan};
    use crate::money::Money;
    use crate::secret::Secret;
    use crate::server::http_client::{Connections, HttpClient};

    fn card() -> Card {
        let pan = Pan::parse("4111111111111111").unwrap();
        let cvv = Cvv::parse("123", pan.brand());
        let expiry = Expiry::parse("1239", jiff::civil::date(2026, 6, 1)).unwrap();
        Card { pan, expiry, cvv, zip: Some("46201".to_string().into()) }
    }

    struct Bench {
        host: BogusHost,
        gateway: Bogus,
        client: HttpClient,
    }

    async fn bench() -> Bench {
        let host = BogusHost::start(Simulator::new("key", 1)).await.unwrap();
        let api_key = Secret::new("key".to_string());
        let gateway = Bogus::open(Settings { base_url: host.base_url(), api_key }).unwrap();
        let roots = [host.certificate_pem.clone().into_bytes()];
        let client = HttpClient::new(&roots, Connections::to(&gateway)).unwrap();
        Bench { host, gateway, client }
    }

    impl Bench {
        async fn charge(&self, reference: &str, limit_ms: u64) -> Verdict {
            let card = card();
            let charge = asked(reference, &card);
            let request = self.gateway.charge(&charge).unwrap();
            let limit = Duration::from_millis(limit_ms);
            self.gateway.verdict(&charge, &self.client.send(request, limit).await)
        }

        async fn found(&self, reference: &str) -> Found {
            let lookup = look_up(reference);
            let request = self.gateway.lookup(&lookup).unwrap();
            self.gateway.found(&lookup, &self.client.send(request, Duration::from_secs(5)).await)
        }
    }

    fn asked<'a>(reference: &'a str, card: &'a Card) -> Asked<'a> {
        Asked {
            purpose: Purpose::Sale,
            reference,
            total: Money::usd(20_200),
            fee: Money::usd(200),
            surcharge: false,
            instrument: Instrument::Card(card),
            account_id: "A1",
            save: false,
            initiator: Initiator::Customer,
            at_ms: 0,
        }
    }

    fn look_up(reference: &str) -> Lookup<'_> {
        let total = Money::usd(20_200);
        let (purpose, method, step) = (Purpose::Sale, Method::Card, String::new());
        Lookup { purpose, reference, total, method, started_ms: 0, at_ms: 0, step }
    }

    #[tokio::test]
    async fn a_sale_goes_over_real_tls() {
        let bench = bench().await;
        assert!(matches!(bench.charge("r1", 5_000).await, Verdict::Approved(_)));
        assert!(matches!(bench.found("r1").await, Found::Settled(Verdict::Approved(_))));
        assert_eq!(bench.found("r2").await, Found::Absent);
        let simulator = bench.host.simulator.lock().unwrap();
        assert_eq!(simulator.sales()[0].total, Money::usd(20_200));
    }

    #[tokio::test]
    async fn each_fault_reaches_the_client_as_it_should() {
        for fault in Fault::ALL {
            let bench = bench().await;
            bench.host.simulator.lock().unwrap().fail_next(fault);
            let verdict = bench.charge("r", 400).await;
            match fault {
                Fault::TooManyRequests => assert!(matches!(verdict, Verdict::NotSent(_))),
                // Five seconds are longer than we wait here.
                _ => assert!(matches!(verdict, Verdict::Unknown(_)), "{fault:?} {verdict:?}"),
            }
            if !matches!(fault, Fault::Late | Fault::Pending) {
                let settled = matches!(bench.found("r").await, Found::Settled(_));
                assert_eq!(settled, fault.processes(), "{fault:?}");
            }
        }
    }

    #[tokio::test]
    async fn it_stops_when_dropped() {
        let Bench { host, gateway, client } = bench().await;
        host.simulator.lock().unwrap().fail_next(Fault::StallAfterProcessing);
        let request = gateway.lookup(&look_up("r")).unwrap();
        let pending = tokio::spawn(async move {
            (client.send(request, Duration::from_secs(60)).await, client, gateway)
        });
        while !host.simulator.lock().unwrap().is_quiet() {
            tokio::task::yield_now().await;
        }
        drop(host);
        let (exchange, client, gateway) = pending.await.unwrap();
        assert!(matches!(exchange, Exchange::NoAnswer(_)));
        let again = gateway.lookup(&look_up("r")).unwrap();
        let exchange = client.send(again, Duration::from_secs(5)).await;
        assert!(matches!(exchange, Exchange::NotSent(_)));
    }
}
