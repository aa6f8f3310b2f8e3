//! Gateway requests over HTTPS, with the one distinction that money depends on: whether a byte of
//! the request can have left us.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use reqwest::tls::TlsInfo;
use reqwest::{Certificate, Client, ClientBuilder, redirect, retry};

use crate::gateway::{Exchange, Gateway, Operation, Repeat, Request};

#[derive(Clone)]
pub struct HttpClient {
    client: Client,
}

/// Whether a request may go over a connection that has carried another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// Each has its own: one kept from before may be closed by the peer just as a request is
    /// written, and then nobody can tell whether it was read.
    Fresh,
    /// For peers that answer what they have had before as they did then: a request that is lost
    /// with its connection may be asked about, and no harm is done.
    Kept,
}

impl Connections {
    /// What suits a gateway.
    pub fn to(gateway: &dyn Gateway) -> Connections {
        let able = gateway.capabilities();
        match able.repeat {
            Repeat::Replays if able.can(Operation::Lookup) => Connections::Kept,
            Repeat::Replays | Repeat::Refuses { .. } | Repeat::Charges => Connections::Fresh,
        }
    }
}

/// A root certificate that cannot be used; the operator's file is at fault.
#[derive(Debug)]
pub struct RootError(String);

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for RootError {}

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Connections that are kept, and for how long: peers close them after a minute or so, and it is
/// us who should be first.
const KEPT_MAX: usize = 8;
const KEPT_FOR: Duration = Duration::from_secs(15);
/// The longest answer that is read: lookups may list a day's transactions.
const BODY_MAX: usize = 1024 * 1024;

impl HttpClient {
    /// Trusts the system's roots and those of `extra_roots`, each a PEM file's content.
    pub fn new(extra_roots: &[Vec<u8>], connections: Connections) -> Result<HttpClient, RootError> {
        let kept = if connections == Connections::Kept { KEPT_MAX } else { 0 };
        let builder =
            || builder(CONNECT_LIMIT).pool_max_idle_per_host(kept).pool_idle_timeout(KEPT_FOR);
        HttpClient::built(extra_roots, &builder)
    }

    fn built(
        extra_roots: &[Vec<u8>],
        builder: &dyn Fn() -> ClientBuilder,
    ) -> Result<HttpClient, RootError> {
        let mut roots = Vec::new();
        for pem in extra_roots {
            let found = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if found.is_empty() {
                let why = "no certificate in the root file; it must hold BEGIN CERTIFICATE lines";
                return Err(RootError(why.into()));
            }
            roots.extend(found);
        }
        let merged = builder().tls_certs_merge(roots.clone()).build();
        // A machine without system roots can still reach a gateway whose root it was given.
        let built = match merged {
            Err(_) if !roots.is_empty() => builder().tls_certs_only(roots).build(),
            other => other,
        };
        let client = built.map_err(|error| {
            RootError(format!("cannot use the root certificates: {}", chain(&error)))
        })?;
        Ok(HttpClient { client })
    }

    /// Sends a request once and waits no longer than `limit` for the whole answer.
    pub async fn send(&self, request: Request, limit: Duration) -> Exchange {
        let Request { head, body, .. } = request;
        let url = head.uri.to_string();
        let sending = self
            .client
            .request(head.method, url)
            .headers(head.headers)
            .timeout(limit)
            // The card stays in this one allocation, zeroed when the last reader lets go of it.
            .body(Bytes::from_owner(body));
        let mut response = match sending.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() || error.is_builder() => {
                return Exchange::NotSent(chain(&error));
            }
            Err(error) => return Exchange::NoAnswer(chain(&error)),
        };
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= BODY_MAX => body.extend(chunk),
                Ok(Some(_)) => return Exchange::NoAnswer("the answer is too long".into()),
                Ok(None) => break,
                Err(error) => return Exchange::NoAnswer(chain(&error)),
            }
        }
        let mut whole = Response::new(body);
        *whole.status_mut() = response.status();
        *whole.headers_mut() = std::mem::take(response.headers_mut());
        if let Some(info) = response.extensions_mut().remove::<TlsInfo>() {
            whole.extensions_mut().insert(info);
        }
        Exchange::Response(whole)
    }
}

fn builder(connect_limit: Duration) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("ringtill/", env!("CARGO_PKG_VERSION")))
        .https_only(true)
        .tls_info(true)
        .http1_only()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .connect_timeout(connect_limit)
}

/// An error with its causes, without the URL.
fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "timeout".to_string() } else { String::new() };
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = if text.is_empty() { said } else { format!("{text}: {said}") };
        }
        cause = next.source();
    }
    if text.is_empty() { "no connection".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::bogus::tls;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    /// What a server does with its one connection once the request was read.
    enum Then {
        Close,
        Say(&'static str),
        Stall,
    }

    /// A TLS server for one request; its address and certificate. Returns what it read.
    async fn server(then: Then) -> (String, Vec<u8>, tokio::task::JoinHandle<String>) {
        let (acceptor, pem) = tls().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(tcp).await else { return String::new() };
            let mut read = Vec::new();
            while !read.ends_with(b"the end") {
                let mut buffer = [0; 1024];
                match stream.read(&mut buffer).await {
                    Ok(len) if len > 0 => read.extend(&buffer[..len]),
                    _ => break,
                }
            }
            match then {
                Then::Close => {}
                Then::Say(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                Then::Stall => std::future::pending().await,
            }
            stream.shutdown().await.ok();
            String::from_utf8(read).unwrap()
        });
        (base, pem.into_bytes(), task)
    }

    fn request(base: &str) -> Request {
        let head = http::Request::post(format!("{base}/v1/sales")).header("x-key", "1").body(());
        let (head, ()) = head.unwrap().into_parts();
        Request { head, body: b"the end".to_vec().into(), shown: &[] }
    }

    async fn send(base: &str, roots: &[Vec<u8>], limit_ms: u64) -> Exchange {
        let short = || builder(Duration::from_millis(300)).pool_max_idle_per_host(0);
        let client = HttpClient::built(roots, &short).unwrap();
        client.send(request(base), Duration::from_millis(limit_ms)).await
    }

    fn kind(exchange: &Exchange) -> (&'static str, &str) {
        match exchange {
            Exchange::Response(_) => ("response", ""),
            Exchange::NotSent(why) => ("not sent", why),
            Exchange::NoAnswer(why) => ("no answer", why),
        }
    }

    #[tokio::test]
    async fn an_answer_comes_back_whole() {
        let say = "HTTP/1.1 402 Payment Required\r\nx-a: b\r\ncontent-length: 2\r\n\r\n{}";
        let (base, pem, task) = server(Then::Say(say)).await;
        let exchange = send(&base, &[pem], 5_000).await;
        let Exchange::Response(response) = exchange else { panic!("{:?}", kind(&exchange)) };
        assert_eq!((response.status().as_u16(), response.body().as_slice()), (402, &b"{}"[..]));
        assert_eq!(response.headers()["x-a"], "b");
        let read = task.await.unwrap();
        assert!(read.starts_with("POST /v1/sales HTTP/1.1\r\n") && read.contains("x-key: 1"));
        assert!(read.ends_with("\r\n\r\nthe end"), "{read}");
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let say = "HTTP/1.1 307 x\r\nlocation: https://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        let (base, pem, _) = server(Then::Say(say)).await;
        let Exchange::Response(response) = send(&base, &[pem], 5_000).await else { panic!() };
        assert_eq!(response.status().as_u16(), 307);
    }

    #[tokio::test]
    async fn without_a_connection_nothing_was_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = format!("https://{}", listener.local_addr().unwrap());
        drop(listener);
        let refused = send(&refused, &[], 5_000).await;
        assert_eq!(kind(&refused).0, "not sent", "{}", kind(&refused).1);
        let nowhere = send("https://gateway.invalid", &[], 5_000).await;
        assert_eq!(kind(&nowhere).0, "not sent", "{}", kind(&nowhere).1);
        let plain = send("http://127.0.0.1:1", &[], 5_000).await;
        assert_eq!(kind(&plain).0, "not sent", "{}", kind(&plain).1);
    }

    #[tokio::test]
    async fn to_an_untrusted_server_nothing_was_sent() {
        let (base, _, task) = server(Then::Close).await;
        let (_, other_pem, _) = server(Then::Close).await;
        let exchange = send(&base, &[other_pem], 5_000).await;
        let (kind, why) = kind(&exchange);
        assert_eq!(kind, "not sent", "{why}");
        assert!(why.to_lowercase().contains("certificate"), "{why}");
        assert_eq!(task.await.unwrap(), "");
    }

    #[tokio::test]
    async fn to_a_server_that_never_shakes_hands_nothing_was_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let exchange = send(&base, &[], 5_000).await;
        assert_eq!(kind(&exchange).0, "not sent", "{}", kind(&exchange).1);
    }

    #[tokio::test]
    async fn once_sent_a_lost_answer_is_no_answer() {
        for (then, why) in [
            (Then::Close, "closed"),
            (Then::Say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"), "half a body"),
            (Then::Say("HTTP/1.1 200 O"), "half a head"),
            (Then::Say("nonsense\r\n\r\n"), "no HTTP"),
            (Then::Say("HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"), "too long"),
            (Then::Stall, "stall"),
        ] {
            let (base, pem, task) = server(then).await;
            let exchange = send(&base, &[pem], 400).await;
            assert_eq!(kind(&exchange).0, "no answer", "{why}: {}", kind(&exchange).1);
            assert!(!kind(&exchange).1.contains("127.0.0.1"), "{why}: {}", kind(&exchange).1);
            task.abort();
        }
    }

    #[tokio::test]
    async fn endless_answers_are_cut_off() {
        let (acceptor, pem) = tls().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let exchange = send(&base, &[pem.into_bytes()], 5_000).await;
        assert_eq!(kind(&exchange), ("no answer", "the answer is too long"));
        task.await.unwrap();
    }

    /// Connections of a server: how many there were, and a word for each that was closed.
    struct Tally {
        opened: Arc<AtomicUsize>,
        closed: mpsc::UnboundedReceiver<()>,
    }

    /// Serves so many requests on each connection and then closes it.
    async fn serving(each: usize) -> (String, Vec<u8>, tokio::task::JoinHandle<()>, Tally) {
        let (acceptor, pem) = tls().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let opened = Arc::new(AtomicUsize::new(0));
        let (told, closed) = mpsc::unbounded_channel();
        let tally = Tally { opened: opened.clone(), closed };
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let mut stream = acceptor.accept(tcp).await.unwrap();
                opened.fetch_add(1, Ordering::Relaxed);
                for _ in 0..each {
                    let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
                    while !read.ends_with(b"the end") {
                        match stream.read(&mut buffer).await {
                            Ok(len) if len > 0 => read.extend(&buffer[..len]),
                            _ => break,
                        }
                    }
                    let say = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                    if read.is_empty() || stream.write_all(say).await.is_err() {
                        break;
                    }
                }
                stream.shutdown().await.ok();
                drop(stream);
                told.send(()).ok();
            }
        });
        (base, pem.into_bytes(), task, tally)
    }

    #[tokio::test]
    async fn connections_are_kept_where_that_is_safe_and_replaced_once_closed() {
        const REQUESTS: usize = 6;
        for (connections, each, want) in [
            (Connections::Fresh, 1, REQUESTS),
            (Connections::Kept, REQUESTS, 1),
            (Connections::Kept, 2, REQUESTS / 2),
        ] {
            let (base, pem, task, mut tally) = serving(each).await;
            let client = HttpClient::new(&[pem], connections).unwrap();
            for nth in 1..=REQUESTS {
                let exchange = client.send(request(&base), Duration::from_secs(5)).await;
                let told = format!("{nth} of {connections:?}, {each}: {:?}", kind(&exchange));
                assert!(matches!(exchange, Exchange::Response(_)), "{told}");
                if nth % each == 0 {
                    tally.closed.recv().await.unwrap();
                    // Each of these is a turn of the reactor: what was closed is known after them.
                    for _ in 0..5 {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
            }
            assert_eq!(tally.opened.load(Ordering::Relaxed), want, "{connections:?}, {each}");
            task.abort();
        }
    }

    #[test]
    fn only_gateways_that_replay_are_reached_over_kept_connections() {
        let kinds = [
            ("bogus", Connections::Kept),
            ("nmi", Connections::Fresh),
            ("adyen", Connections::Fresh),
        ];
        for (name, want) in kinds {
            let example = crate::gateway::example(name).unwrap();
            let mut settings: toml::Table = toml::from_str(example).unwrap();
            // A secret that lies in a file.
            for (_, value) in settings.iter_mut().filter(|(_, value)| value.is_table()) {
                *value = "k7Qm2vX9pL4sT8wZ".into();
            }
            let gateway = crate::gateway::open(name, settings).unwrap();
            assert_eq!(Connections::to(&*gateway), want, "{name}");
        }
    }

    #[test]
    fn a_root_file_without_certificates_is_refused() {
        let error =
            HttpClient::new(&[b"hello".to_vec()], Connections::Fresh).err().unwrap().to_string();
        assert!(error.contains("BEGIN CERTIFICATE"), "{error}");
    }
}
