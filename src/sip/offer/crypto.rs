//! `a=crypto`, RFC 4568: the keys of SRTP as SDP carries them.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::secret::Secret;

/// Whether media is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SrtpPolicy {
    /// Never: RTP/SAVP is refused, our offers are RTP/AVP.
    #[default]
    Off,
    /// As the peer offers it, RTP/SAVP if it offers both; our offers are RTP/AVP.
    Optional,
    /// Always: RTP/AVP is refused, our offers are RTP/SAVP.
    Required,
}

/// A crypto suite, RFC 4568 §6.2 and RFC 7714 §14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// AES_CM_128_HMAC_SHA1_80
    Cm80,
    /// AES_CM_128_HMAC_SHA1_32
    Cm32,
    /// AEAD_AES_128_GCM
    Gcm,
}

/// Bytes of a master key with its salt, of the suite that has the longer salt.
const MASTER_MAX: usize = 30;
/// Bytes of the key alone.
const KEY_LEN: usize = 16;
/// Lifetimes are at most 2^48 packets, RFC 3711 §9.2.
const LIFETIME_MAX: u64 = 1 << 48;
/// Tags have at most nine digits, RFC 4568 §9.1.
const TAG_MAX: u32 = 999_999_999;
/// Crypto lines that are looked at.
const LINES_MAX: usize = 32;

/// A master key and its salt. Prints as `***`, zeroed when the last copy is dropped.
#[derive(Clone)]
pub struct MasterKey {
    suite: Suite,
    bytes: Arc<Secret<[u8; MASTER_MAX]>>,
}

/// What both sides encrypt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrtpKeys {
    /// Of what we send.
    pub ours: MasterKey,
    /// Of what we receive.
    pub theirs: MasterKey,
}

/// What the master keys of one call leg come from: 32 random bytes that no other leg has, since a
/// key used for two streams encrypts neither.
#[derive(Clone)]
pub struct SrtpSeed(Arc<Secret<[u8; 32]>>);

/// A crypto line we can take.
pub struct Line {
    pub tag: u32,
    pub key: MasterKey,
}

impl Suite {
    /// All of them, in the order in which we offer them.
    pub const ALL: [Suite; 3] = [Suite::Cm80, Suite::Gcm, Suite::Cm32];

    pub fn name(self) -> &'static str {
        match self {
            Suite::Cm80 => "AES_CM_128_HMAC_SHA1_80",
            Suite::Cm32 => "AES_CM_128_HMAC_SHA1_32",
            Suite::Gcm => "AEAD_AES_128_GCM",
        }
    }

    /// Bytes of its master key and salt.
    fn master_len(self) -> usize {
        match self {
            Suite::Cm80 | Suite::Cm32 => KEY_LEN + 14,
            Suite::Gcm => KEY_LEN + 12,
        }
    }
}

impl MasterKey {
    /// `bytes` is the key and behind it the salt; `None` if that is not as long as the suite wants.
    pub fn new(suite: Suite, bytes: &[u8]) -> Option<MasterKey> {
        if bytes.len() != suite.master_len() {
            return None;
        }
        let mut all = [0; MASTER_MAX];
        all[..bytes.len()].copy_from_slice(bytes);
        Some(MasterKey { suite, bytes: Arc::new(Secret::new(all)) })
    }

    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The key, 16 bytes. It must end in a cipher.
    pub fn expose_key(&self) -> &[u8] {
        &self.bytes.expose()[..KEY_LEN]
    }

    /// The salt, 14 bytes or with GCM 12. It must end in a cipher.
    pub fn expose_salt(&self) -> &[u8] {
        &self.bytes.expose()[KEY_LEN..self.suite.master_len()]
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &MasterKey) -> bool {
        self.suite == other.suite && self.bytes.expose() == other.bytes.expose()
    }
}

impl Eq for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ***", self.suite.name())
    }
}

impl SrtpSeed {
    pub fn new(bytes: [u8; 32]) -> SrtpSeed {
        SrtpSeed(Arc::new(Secret::new(bytes)))
    }

    /// Our key for this suite, always the same: a re-INVITE does not change it.
    pub fn key(&self, suite: Suite) -> MasterKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.expose());
        let drawn = hmac::sign(&key, suite.name().as_bytes());
        MasterKey::new(suite, &drawn.as_ref()[..suite.master_len()])
            .expect("cut to the length of the suite")
    }
}

impl PartialEq for SrtpSeed {
    fn eq(&self, other: &SrtpSeed) -> bool {
        self.0.expose() == other.0.expose()
    }
}

impl Eq for SrtpSeed {}

impl fmt::Debug for SrtpSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Line {
    /// The first of a media line's crypto attributes that we can take.
    pub fn first<'a>(values: impl Iterator<Item = &'a str>) -> Option<Line> {
        values.take(LINES_MAX).find_map(Line::parse)
    }

    /// Reads `1 AES_CM_128_HMAC_SHA1_80 inline:...|2^31`. `None` for a suite, a master key
    /// identifier or a session parameter that we do not support, and for what is malformed: the
    /// peer's next line may do.
    fn parse(value: &str) -> Option<Line> {
        let mut fields = value.split_ascii_whitespace();
        let tag = number(fields.next()?).filter(|tag| *tag <= u64::from(TAG_MAX))? as u32;
        let name = fields.next()?;
        let suite = Suite::ALL.into_iter().find(|suite| suite.name().eq_ignore_ascii_case(name))?;
        let key = fields.next().and_then(|parameters| key(suite, parameters))?;
        fields.all(is_harmless).then_some(Line { tag, key })
    }

    /// As the value of an `a=crypto` attribute.
    pub fn written(&self) -> String {
        let suite = self.key.suite;
        let bytes = &self.key.bytes.expose()[..suite.master_len()];
        format!("{} {} inline:{}", self.tag, suite.name(), BASE64.encode(bytes))
    }
}

/// Some leave the `=` of the shorter key away.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `inline:` key and salt, and a lifetime. Several keys, or one with an identifier (MKI), are for
/// sessions that change keys on the way.
fn key(suite: Suite, parameters: &str) -> Option<MasterKey> {
    let (method, info) = parameters.split_once(':')?;
    if !method.eq_ignore_ascii_case("inline") {
        return None;
    }
    let mut parts = info.split('|');
    let encoded = parts.next()?;
    if let Some(lifetime) = parts.next() {
        is_lifetime(lifetime).then_some(())?;
    }
    if parts.next().is_some() {
        return None;
    }
    let mut bytes = zeroize::Zeroizing::new([0; 64]);
    let len = BASE64.decode_slice(encoded, bytes.as_mut_slice()).ok()?;
    MasterKey::new(suite, &bytes[..len])
}

/// Packets that may be encrypted with a key, as a number or a power of two. Calls are too short for
/// any that makes sense.
fn is_lifetime(text: &str) -> bool {
    match text.strip_prefix("2^") {
        Some(power) => number(power).is_some_and(|power| (16..=48).contains(&power)),
        None => number(text).is_some_and(|packets| (1 << 16..=LIFETIME_MAX).contains(&packets)),
    }
}

/// Session parameters (RFC 4568 §6.3) that change nothing in how packets look: the size of the
/// replay window, and what its sender marks as negligible.
fn is_harmless(parameter: &str) -> bool {
    parameter.starts_with('-')
        || parameter.strip_prefix("WSH=").is_some_and(|size| number(size).is_some())
        || parameter == "KDR=0"
}

fn number(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 30 bytes; the example of RFC 4568 §6.1 looks like it.
    const INLINE: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

    fn parse(rest: &str) -> Option<Line> {
        Line::parse(&format!("7 AES_CM_128_HMAC_SHA1_80 inline:{rest}"))
    }

    #[test]
    fn lines_we_can_take() {
        for rest in ["", "|2^20", "|2^31", "|1048576", " WSH=128", "|2^31 KDR=0 -OWN=1"] {
            let line = parse(&format!("{INLINE}{rest}")).unwrap_or_else(|| panic!("{rest}"));
            assert_eq!((line.tag, line.key.suite()), (7, Suite::Cm80));
            assert_eq!(line.key.expose_key(), b"wDfvg&T+)xG7@fb5");
            assert_eq!(line.key.expose_salt(), b"jU,RaA}\\|p0%*#");
            assert_eq!(line.written(), format!("7 AES_CM_128_HMAC_SHA1_80 inline:{INLINE}"));
        }
        for padding in ["==", ""] {
            let gcm =
                Line::parse(&format!("1 AEAD_AES_128_GCM inline:{}Q{padding}", &INLINE[..37]));
            assert_eq!(gcm.unwrap().key.expose_salt(), b"jU,RaA}\\|p0%");
        }
        let short_tag = format!("3 aes_cm_128_hmac_sha1_32 INLINE:{INLINE}");
        assert_eq!(Line::parse(&short_tag).unwrap().key.suite(), Suite::Cm32);
    }

    #[test]
    fn lines_that_are_passed_over() {
        for rest in [
            "|2^20|1:4",
            "|1:4",
            "|2^49",
            "|2^",
            "|0",
            "|",
            " UNENCRYPTED_SRTP",
            " UNENCRYPTED_SRTCP",
            " UNAUTHENTICATED_SRTP",
            " KDR=20",
            " FEC_ORDER=FEC_SRTP",
            " WSH=",
            ";inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
            "AAAA",
            "=",
        ] {
            assert!(parse(&format!("{INLINE}{rest}")).is_none(), "{rest}");
        }
        for value in [
            "",
            "7",
            "7 AES_CM_128_HMAC_SHA1_80",
            "7 AES_CM_128_HMAC_SHA1_80 inline:",
            "7 AES_CM_128_HMAC_SHA1_80 uri:x",
            "+7 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
            "1234567890 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
            "7 AES_256_CM_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
            "7 AEAD_AES_128_GCM inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
            "7 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJS!!",
        ] {
            assert!(Line::parse(value).is_none(), "{value}");
        }
        let lines = [format!("1 F8_128_HMAC_SHA1_80 inline:{INLINE}"), format!("2 {}", &INLINE)];
        let good = parse(INLINE).unwrap().written();
        let first = Line::first(lines.iter().map(String::as_str).chain([good.as_str()]));
        assert_eq!(first.unwrap().tag, 7);
    }

    #[test]
    fn keys_come_from_the_seed_differ_by_suite_and_are_never_shown() {
        let (seed, other) = (SrtpSeed::new([1; 32]), SrtpSeed::new([2; 32]));
        let keys: Vec<MasterKey> = Suite::ALL.into_iter().map(|suite| seed.key(suite)).collect();
        assert_eq!(keys[0], seed.key(Suite::Cm80));
        assert_ne!(keys[0], other.key(Suite::Cm80));
        assert_ne!(keys[0].expose_key(), keys[1].expose_key());
        assert_ne!(keys[0].expose_key(), keys[2].expose_key());
        let keys = SrtpKeys { ours: keys[0].clone(), theirs: keys[1].clone() };
        let shown = format!("{seed:?} {keys:?}");
        let plain =
            "*** SrtpKeys { ours: AES_CM_128_HMAC_SHA1_80 ***, theirs: AEAD_AES_128_GCM *** }";
        assert_eq!(shown, plain);
    }
}
