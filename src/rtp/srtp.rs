//! SRTP and SRTCP, RFC 3711 and RFC 7714: what we send is encrypted, what we receive is believed
//! only if it authenticates and was not there before.

use bytes::BytesMut;
use rtc_rtp::Header;
use rtc_shared::error::Error;
use rtc_srtp::context::Context;
use rtc_srtp::crypto::RTCCryptoProvider;
use rtc_srtp::crypto::providers::AwsLcRsProvider;
use rtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc_srtp::protection_profile::ProtectionProfile;

use super::packet::HEADER_LEN;
use crate::sip::offer::{MasterKey, SrtpKeys, SrtpSeed, Suite};

/// The longest that a packet grows: an SRTCP index and the tag of GCM.
pub const GROWTH_MAX: usize = 20;

/// Packets behind the newest that are told from replays.
const WINDOW: usize = 128;
/// Sources that are believed with one key. A peer has one, and another after each change of what
/// it plays; each is remembered so that nothing it said can be said again.
const SOURCES_MAX: usize = 32;
/// Keys of each side that are remembered, so that none is begun again from its first packet.
const KEYS_MAX: usize = 4;
/// Where the SSRC of an RTCP packet ends.
const RTCP_MIN: usize = 8;
const SRTCP_INDEX_LEN: usize = 4;

/// Why a packet is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Malformed,
    /// Its tag is wrong, or it claims a source that has never been heard.
    Unauthentic,
    /// It came before, or is too old to tell.
    Replayed,
}

/// Both directions of one stream, whatever keys offer/answer agrees on one after the other.
#[derive(Default)]
pub struct Shield {
    /// The one in use last.
    ours: Vec<Protect>,
    /// The same; packets under the one before it may still be on their way.
    theirs: Vec<Unprotect>,
    on: bool,
}

/// One key of ours.
pub struct Protect {
    key: MasterKey,
    context: Context,
}

/// One key of theirs.
pub struct Unprotect {
    key: MasterKey,
    context: Context,
    /// Sources whose packets have authenticated, of RTP and of RTCP.
    known: Vec<u32>,
    known_control: Vec<u32>,
}

impl Shield {
    /// What offer/answer agreed on. A key that stays goes on where it was: its rollover counter
    /// and its replay window are kept, and it is never used for a packet number again.
    pub fn agree(&mut self, keys: Option<&SrtpKeys>) {
        self.on = keys.is_some();
        let Some(SrtpKeys { ours, theirs }) = keys else { return };
        let known = self.ours.iter().position(|known| known.key == *ours);
        put_last(&mut self.ours, known, || Protect::new(ours));
        let known = self.theirs.iter().position(|known| known.key == *theirs);
        put_last(&mut self.theirs, known, || Unprotect::new(theirs));
    }

    /// Whether packets are encrypted.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Encrypts the first `len` bytes of `packet`, an RTP packet with a header of 12 bytes; its
    /// length afterwards. `None`: it cannot be sent.
    pub fn protect(&mut self, packet: &mut [u8], len: usize) -> Option<usize> {
        self.ours.last_mut()?.rtp(packet, len)
    }

    /// The same for a compound RTCP packet.
    pub fn protect_control(&mut self, packet: &mut [u8], len: usize) -> Option<usize> {
        self.ours.last_mut()?.rtcp(packet, len)
    }

    /// The packet inside an SRTP packet.
    pub fn unprotect(&mut self, bytes: &[u8]) -> Result<BytesMut, Refused> {
        self.under_either(|theirs| theirs.rtp(bytes))
    }

    /// The packet inside an SRTCP packet.
    pub fn unprotect_control(&mut self, bytes: &[u8]) -> Result<BytesMut, Refused> {
        self.under_either(|theirs| theirs.rtcp(bytes))
    }

    fn under_either(
        &mut self,
        mut open: impl FnMut(&mut Unprotect) -> Result<BytesMut, Refused>,
    ) -> Result<BytesMut, Refused> {
        let mut latest = self.theirs.iter_mut().rev();
        let opened = latest.next().map_or(Err(Refused::Unauthentic), &mut open);
        match (opened, latest.next()) {
            (Err(Refused::Unauthentic), Some(before)) => open(before),
            (opened, _) => opened,
        }
    }
}

impl Protect {
    pub fn new(key: &MasterKey) -> Protect {
        Protect { key: key.clone(), context: context(key) }
    }

    /// See [`Shield::protect`].
    pub fn rtp(&mut self, packet: &mut [u8], len: usize) -> Option<usize> {
        let plain = packet.get(..len)?;
        let header = outline(plain).filter(|_| len >= HEADER_LEN)?;
        let sealed = self.context.encrypt_rtp_with_header(plain, &header).ok()?;
        written(packet, &sealed)
    }

    /// Encrypts the first `len` bytes of `packet`, a compound RTCP packet; its length afterwards.
    pub fn rtcp(&mut self, packet: &mut [u8], len: usize) -> Option<usize> {
        let sealed = self.context.encrypt_rtcp(packet.get(..len)?).ok()?;
        written(packet, &sealed)
    }
}

impl Unprotect {
    pub fn new(key: &MasterKey) -> Unprotect {
        let (known, known_control) = (Vec::new(), Vec::new());
        Unprotect { key: key.clone(), context: context(key), known, known_control }
    }

    pub fn rtp(&mut self, bytes: &[u8]) -> Result<BytesMut, Refused> {
        let header = outline(bytes).ok_or(Refused::Malformed)?;
        if !self.known.contains(&header.ssrc) {
            // The crate remembers a source and where its numbers began before it has checked the
            // packet: what a stranger makes up must meet a context that is thrown away.
            let met = context(&self.key).decrypt_rtp_with_header(bytes, &header).is_ok();
            admit(&mut self.known, header.ssrc, met)?;
        }
        self.context.decrypt_rtp_with_header(bytes, &header).map_err(why)
    }

    pub fn rtcp(&mut self, bytes: &[u8]) -> Result<BytesMut, Refused> {
        let tag = match self.key.suite() {
            Suite::Cm80 | Suite::Cm32 => 10,
            // The tag stands before the index.
            Suite::Gcm => 0,
        };
        let index = bytes.len().checked_sub(SRTCP_INDEX_LEN + tag).filter(|at| *at >= RTCP_MIN);
        let index = index.ok_or(Refused::Malformed)?;
        if bytes[index] & 0x80 == 0 {
            // In the clear, which is never agreed on. The crate would take it without its tag.
            return Err(Refused::Unauthentic);
        }
        let ssrc = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        if !self.known_control.contains(&ssrc) {
            let met = context(&self.key).decrypt_rtcp(bytes).is_ok();
            admit(&mut self.known_control, ssrc, met)?;
        }
        self.context.decrypt_rtcp(bytes).map_err(why)
    }
}

/// Puts the key in use at the end: the one at `known`, or a new one.
fn put_last<T>(keys: &mut Vec<T>, known: Option<usize>, new: impl FnOnce() -> T) {
    match known {
        Some(at) => keys[at..].rotate_left(1),
        None => {
            if keys.len() == KEYS_MAX {
                keys.remove(0);
            }
            keys.push(new());
        }
    }
}

fn context(key: &MasterKey) -> Context {
    let profile = match key.suite() {
        Suite::Cm80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Suite::Cm32 => ProtectionProfile::Aes128CmHmacSha1_32,
        Suite::Gcm => ProtectionProfile::AeadAes128Gcm,
    };
    Context::new(
        key.expose_key(),
        key.expose_salt(),
        profile,
        Some(srtp_replay_protection(WINDOW)),
        Some(srtcp_replay_protection(WINDOW)),
        AwsLcRsProvider::new().crypto(),
    )
    .expect("the provider has every suite, and a key is as long as its suite wants")
}

/// Remembers a source that has authenticated.
fn admit(known: &mut Vec<u32>, ssrc: u32, met: bool) -> Result<(), Refused> {
    if !met || known.len() == SOURCES_MAX {
        return Err(Refused::Unauthentic);
    }
    known.push(ssrc);
    Ok(())
}

/// What the cipher wants to know of an RTP packet: its source, its number, and how long its header
/// is. The crate's own parser makes that length anew from the extensions it understood, and
/// allocates for each.
fn outline(bytes: &[u8]) -> Option<Header> {
    let fixed = bytes.first_chunk::<HEADER_LEN>().filter(|fixed| fixed[0] >> 6 == 2)?;
    let mut len = HEADER_LEN + usize::from(fixed[0] & 0xf) * 4;
    if fixed[0] & 0x10 != 0 {
        let extension = bytes.get(len..len + 4)?;
        len += 4 + usize::from(u16::from_be_bytes([extension[2], extension[3]])) * 4;
    }
    (bytes.len() >= len).then(|| Header {
        sequence_number: u16::from_be_bytes([fixed[2], fixed[3]]),
        ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
        csrc: vec![0; (len - HEADER_LEN) / 4],
        ..Header::default()
    })
}

fn why(error: Error) -> Refused {
    match error {
        Error::SrtpSsrcDuplicated(..) | Error::SrtcpSsrcDuplicated(..) => Refused::Replayed,
        Error::ErrTooShortRtp | Error::ErrTooShortRtcp => Refused::Malformed,
        _ => Refused::Unauthentic,
    }
}

fn written(packet: &mut [u8], sealed: &[u8]) -> Option<usize> {
    packet.get_mut(..sealed.len())?.copy_from_slice(sealed);
    Some(sealed.len())
}

/// Fuzz body: the first byte chooses a suite, the rest is a packet. As it is it authenticates
/// nowhere and harms nothing; encrypted by us it comes back as it was, once.
pub fn fuzz(bytes: &[u8]) {
    let Some((first, packet)) = bytes.split_first() else { return };
    let suite = Suite::ALL[usize::from(*first) % Suite::ALL.len()];
    let key = SrtpSeed::new([*first; 32]).key(suite);
    let mut receiver = Unprotect::new(&key);
    assert!(receiver.rtp(packet).is_err() && receiver.rtcp(packet).is_err());
    let mut sealed = vec![0; packet.len() + GROWTH_MAX];
    for control in [false, true] {
        sealed[..packet.len()].copy_from_slice(packet);
        let mut sender = Protect::new(&key);
        let len = match control {
            false => sender.rtp(&mut sealed, packet.len()),
            true => sender.rtcp(&mut sealed, packet.len()),
        };
        let Some(len) = len else { continue };
        let mut open = |bytes: &[u8]| match control {
            false => receiver.rtp(bytes),
            true => receiver.rtcp(bytes),
        };
        assert_eq!(open(&sealed[..len]).as_deref(), Ok(packet));
        assert_eq!(open(&sealed[..len]), Err(Refused::Replayed));
    }
}

#[cfg(test)]
mod tests;
