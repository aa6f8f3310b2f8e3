//! Gateway requests over HTTPS, with the one distinction that money depends on: whether a byte of
//! the request can have left us.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use reqwest::tls::TlsInfo;
use reqwest::{Certificate, Client, ClientBuilder, redirect, retry};

use crate::gateway::{Exchange, Request};

/// One TLS connection per request: a connection kept from before may have been closed by the
/// peer, and then nobody can tell whether the request was read.
#[derive(Clone)]
pub struct HttpClient {
    client: Client,
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
/// The longest answer that is read: lookups may list a day's transactions.
const BODY_MAX: usize = 1024 * 1024;

impl HttpClient {
    /// Trusts the system's roots and those of `extra_roots`, each a PEM file's content.
    pub fn new(extra_roots: &[Vec<u8>]) -> Result<HttpClient, RootError> {
        HttpClient::with_connect_limit(extra_roots, CONNECT_LIMIT)
    }

    fn with_connect_limit(
        extra_roots: &[Vec<u8>],
        connect_limit: Duration,
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
        let merged = builder(connect_limit).tls_certs_merge(roots.clone()).build();
        // A machine without system roots can still reach a gateway whose root it was given.
        let built = match merged {
            Err(_) if !roots.is_empty() => builder(connect_limit).tls_certs_only(roots).build(),
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
        .pool_max_idle_per_host(0)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

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
        let client = HttpClient::with_connect_limit(roots, Duration::from_millis(300)).unwrap();
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

    #[test]
    fn a_root_file_without_certificates_is_refused() {
        let error = HttpClient::new(&[b"hello".to_vec()]).err().unwrap().to_string();
        assert!(error.contains("BEGIN CERTIFICATE"), "{error}");
    }
}
