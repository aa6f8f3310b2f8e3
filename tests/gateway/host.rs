//! A simulator on a real HTTPS socket of this machine, and a network that fails. HTTP is read and
//! written by hand, so that it can be written wrongly.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringtill::gateway::Simulator;
use ringtill::gateway::simulator::{Action, LATE_MS};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::bench::NOW;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Works,
    /// Closed when the head has been read, before the body.
    CloseUnread,
    /// Processed, then closed.
    CloseUnanswered,
    CloseMidReply,
    Stall,
    /// The answer comes byte by byte, too slowly.
    Trickle,
    ErrorAfter,
    ErrorBefore,
    /// Half of the body, as if it were all.
    Truncated,
    /// A byte order mark before the body.
    Mark,
    /// UTF-16.
    Charset,
    Twice,
    /// Closed, and processed [`LATE_MS`] later.
    Late,
}

pub struct Host {
    pub address: SocketAddr,
    pub certificate: Vec<u8>,
    pub simulator: Arc<Mutex<Simulator>>,
    pub wire: Arc<Mutex<Wire>>,
    accepting: AbortHandle,
}

impl Host {
    /// Serves `simulator` on a free port, with a certificate for `name`.
    pub async fn start(simulator: Simulator, name: &str) -> Host {
        let made = rcgen::generate_simple_self_signed([name.to_string()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let simulator = Arc::new(Mutex::new(simulator));
        let wire = Arc::new(Mutex::new(Wire::Works));
        let (shared, faulty) = (simulator.clone(), wire.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, simulator) = (acceptor.clone(), shared.clone());
                let wire = faulty.clone();
                tokio::spawn(async move { serve(tcp, acceptor, simulator, wire).await });
            }
        });
        let certificate = made.cert.pem().into_bytes();
        Host { address, certificate, simulator, wire, accepting: accepting.abort_handle() }
    }

    pub fn base(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The next connection goes this way.
    pub fn next(&self, wire: Wire) {
        *self.wire.lock().unwrap() = wire;
    }

    pub fn standing(&self) -> usize {
        let entries = self.simulator.lock().unwrap().entries();
        entries.iter().filter(|entry| entry.is_approved() && !entry.voided).count()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    simulator: Arc<Mutex<Simulator>>,
    wire: Arc<Mutex<Wire>>,
) -> Option<()> {
    let mut stream = acceptor.accept(tcp).await.ok()?;
    let (head, early) = read_head(&mut stream).await?;
    let wire = std::mem::replace(&mut *wire.lock().unwrap(), Wire::Works);
    if wire == Wire::CloseUnread {
        return None;
    }
    let request = read_body(&mut stream, head, early).await?;
    match wire {
        Wire::ErrorBefore => return send(&mut stream, &error()).await,
        Wire::Late => {
            // Ordered as the simulator's own fault: it keeps the request for later.
            let mut simulator = simulator.lock().unwrap();
            simulator.fail_next(ringtill::gateway::simulator::Fault::Late);
            simulator.handle(NOW, &request);
            return None;
        }
        _ => {}
    }
    let action = simulator.lock().unwrap().handle(NOW, &request);
    let Action::Reply(response) = action else { return None };
    let good = bytes(&response, response.body());
    match wire {
        Wire::CloseUnanswered => {}
        Wire::CloseMidReply => stream.write_all(&good[..good.len() - 2]).await.ok()?,
        Wire::Stall => std::future::pending().await,
        Wire::Trickle => {
            for byte in good {
                stream.write_all(&[byte]).await.ok()?;
                stream.flush().await.ok()?;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        }
        Wire::ErrorAfter => send(&mut stream, &error()).await?,
        Wire::Truncated => {
            let half = &response.body()[..response.body().len() / 2];
            send(&mut stream, &bytes(&response, half)).await?;
        }
        Wire::Mark => {
            let body = response.body();
            let bare = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
            let marked = [b"\xef\xbb\xbf", bare].concat();
            send(&mut stream, &bytes(&response, &marked)).await?;
        }
        Wire::Charset => {
            let text = String::from_utf8_lossy(response.body()).into_owned();
            let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            send(&mut stream, &bytes(&response, &wide)).await?;
        }
        Wire::Twice => send(&mut stream, &[good.clone(), good].concat()).await?,
        _ => send(&mut stream, &good).await?,
    }
    stream.shutdown().await.ok()
}

async fn send(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> Option<()> {
    stream.write_all(bytes).await.ok()?;
    stream.flush().await.ok()
}

fn error() -> Vec<u8> {
    b"HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\ncontent-length: 5\r\n\r\nerror"
        .to_vec()
}

fn bytes(response: &http::Response<Vec<u8>>, body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {}\r\n", response.status());
    for (name, value) in response.headers() {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    head += &format!("connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The head, and what came after it.
async fn read_head(stream: &mut TlsStream<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = read.split_off(end + 4);
            return Some((String::from_utf8(read).ok()?, body));
        }
        let mut buffer = [0; 4096];
        let len = stream.read(&mut buffer).await.ok().filter(|len| *len > 0)?;
        read.extend(&buffer[..len]);
    }
}

async fn read_body(
    stream: &mut TlsStream<TcpStream>,
    head: String,
    mut body: Vec<u8>,
) -> Option<http::Request<Vec<u8>>> {
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let mut request = http::Request::builder().method(first.next()?).uri(first.next()?);
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok()?;
        }
    }
    while body.len() < length {
        let mut buffer = [0; 4096];
        let len = stream.read(&mut buffer).await.ok().filter(|len| *len > 0)?;
        body.extend(&buffer[..len]);
    }
    request.body(body).ok()
}

/// So much later everything late has been processed.
pub const LATER_MS: i64 = LATE_MS + 1_000;
