//! The HTTP signature that CyberSource asks for: HMAC-SHA256 over the host, the time, the path, a
//! digest of the body and the merchant, each on a line of its own.

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::{DATE, HeaderName};
use http::request::Parts;
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::secret::Secret;

pub struct Signer {
    host: String,
    merchant_id: String,
    key_id: String,
    key: hmac::Key,
}

pub const MERCHANT: HeaderName = HeaderName::from_static("v-c-merchant-id");
pub const DIGEST: HeaderName = HeaderName::from_static("digest");
pub const SIGNATURE: HeaderName = HeaderName::from_static("signature");

impl Signer {
    /// Refuses a secret that is not base64.
    pub fn new(
        host: String,
        merchant_id: String,
        key_id: String,
        secret: &Secret<String>,
    ) -> Result<Signer, String> {
        let bytes = STANDARD.decode(secret.expose().trim()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| {
            "shared_secret: it is not base64; write the shared secret as the Business Center gave it"
        })?;
        Ok(Signer { host, merchant_id, key_id, key: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }

    /// Adds the headers that say who asks, when and what. What is made from the body is not shown:
    /// there are few enough card numbers to try them all.
    pub fn sign(&self, head: &mut Parts, at_ms: i64, body: &[u8]) {
        let date = date(at_ms);
        let digest = (!body.is_empty()).then(|| digest_of(body));
        let signed = lines(head, &self.host, &date, digest.as_deref(), &self.merchant_id);
        let tag = STANDARD.encode(hmac::sign(&self.key, signed.as_bytes()));
        let names = names(digest.is_some());
        let signature = format!(
            "keyid=\"{}\", algorithm=\"HmacSHA256\", headers=\"{names}\", signature=\"{tag}\"",
            self.key_id
        );
        let mut put = |name, value: &str, hidden| {
            // All of them are of characters that were checked.
            if let Ok(mut value) = HeaderValue::from_str(value) {
                value.set_sensitive(hidden);
                head.headers.insert(name, value);
            }
        };
        put(MERCHANT, &self.merchant_id, false);
        put(DATE, &date, false);
        if let Some(digest) = &digest {
            put(DIGEST, digest, true);
        }
        put(SIGNATURE, &signature, true);
    }
}

pub fn names(has_body: bool) -> &'static str {
    match has_body {
        true => "host date request-target digest v-c-merchant-id",
        false => "host date request-target v-c-merchant-id",
    }
}

/// What is signed.
pub fn lines(
    head: &Parts,
    host: &str,
    date: &str,
    digest: Option<&str>,
    merchant_id: &str,
) -> String {
    let method = head.method.as_str().to_ascii_lowercase();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let digest = digest.map(|digest| format!("digest: {digest}\n")).unwrap_or_default();
    format!(
        "host: {host}\ndate: {date}\nrequest-target: {method} {path}\n{digest}v-c-merchant-id: {merchant_id}"
    )
}

pub fn digest_of(body: &[u8]) -> String {
    format!("SHA-256={}", STANDARD.encode(digest::digest(&digest::SHA256, body)))
}

/// As HTTP writes the time (RFC 9110 section 5.6.7).
fn date(at_ms: i64) -> String {
    let time = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
