//! Known answers, and what must not be believed.

use super::*;
use crate::rtp::packet::Header as RtpHeader;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Master key and salt of RFC 3711 appendix B.3.
const MASTER: &str = "E1F97A0D3E018BE0D64FA32C06DE4139 0EC675AD498AFEEBB6960B3AABE6";

fn key(suite: Suite) -> MasterKey {
    SrtpSeed::new([5; 32]).key(suite)
}

fn packet(ssrc: u32, sequence: u16) -> Vec<u8> {
    let header = RtpHeader { marker: false, payload_type: 0, sequence, timestamp: 9, ssrc };
    let mut bytes = header.bytes().to_vec();
    bytes.extend((0..160u32).map(|n| (n + u32::from(sequence)) as u8));
    bytes
}

fn sealed(sender: &mut Protect, plain: &[u8]) -> Vec<u8> {
    let mut bytes = plain.to_vec();
    bytes.resize(plain.len() + GROWTH_MAX, 0);
    let len = sender.rtp(&mut bytes, plain.len()).unwrap();
    bytes.truncate(len);
    bytes
}

fn sealed_control(sender: &mut Protect, plain: &[u8]) -> Vec<u8> {
    let mut bytes = plain.to_vec();
    bytes.resize(plain.len() + GROWTH_MAX, 0);
    let len = sender.rtcp(&mut bytes, plain.len()).unwrap();
    bytes.truncate(len);
    bytes
}

fn report(ssrc: u32) -> Vec<u8> {
    let mut bytes = hex("80c80006");
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend_from_slice(&[3; 20]);
    bytes
}

/// Packets that other implementations agree on, with the master key of RFC 3711 B.3 (counter
/// mode) and with one that counts up (GCM). The vectors of RFC 7714 §16 start from session keys,
/// which no master key leads to.
#[test]
fn known_answers() {
    let plain = hex("800f1234decafbadcafebabe abababababababababababababababab");
    let counting = "000102030405060708090a0b0c0d0e0f a0a1a2a3a4a5a6a7a8a9aaab";
    for (suite, master, answer) in [
        (Suite::Cm80, MASTER, "4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb"),
        (Suite::Cm32, MASTER, "4e55dc4ce79978d88ca4d215949d2402 b78d6acc"),
        (Suite::Gcm, counting, "c5002ede04cfdd2eb91159e0880aa06e d2976826f796b201df3131a127e8a392"),
    ] {
        let key = MasterKey::new(suite, &hex(master)).unwrap();
        let expected = [&plain[..12], &hex(answer)].concat();
        assert_eq!(sealed(&mut Protect::new(&key), &plain), expected, "{suite:?}");
        assert_eq!(Unprotect::new(&key).rtp(&expected).unwrap(), plain);
    }
}

/// The session keys of RFC 3711 B.3, used here by hand, make the same packet.
#[test]
fn session_keys_are_those_of_rfc_3711_b3() {
    let auth = hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4");
    let key = MasterKey::new(Suite::Cm80, &hex(MASTER)).unwrap();
    let wire = sealed(&mut Protect::new(&key), &packet(7, 1));
    let (body, tag) = wire.split_at(wire.len() - 10);
    let auth = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &auth);
    let expected = aws_lc_rs::hmac::sign(&auth, &[body, &[0; 4]].concat());
    assert_eq!(tag, &expected.as_ref()[..10]);
}

#[test]
fn numbers_wrap_in_order_and_out_of_order() {
    for suite in Suite::ALL {
        let (mut sender, mut receiver) = (Protect::new(&key(suite)), Unprotect::new(&key(suite)));
        let mut wire: Vec<(Vec<u8>, Vec<u8>)> = vec![];
        // Two rounds of 65,536, every 100th sent and around the wraps all.
        for number in (30_000..140_000u32).filter(|n| n % 100 == 0 || (n + 20) % 65_536 < 40) {
            let plain = packet(7, number as u16);
            wire.push((sealed(&mut sender, &plain), plain));
        }
        for pair in wire.chunks_mut(2) {
            pair.reverse();
            for (bytes, plain) in pair {
                assert_eq!(receiver.rtp(bytes).as_deref(), Ok(plain.as_slice()), "{suite:?}");
            }
        }
        let old = receiver.rtp(&wire[3].0).unwrap_err();
        assert_ne!(old, Refused::Malformed, "of an earlier round");
        assert_eq!(receiver.rtp(&wire[wire.len() - 5].0), Err(Refused::Replayed));
    }
}

#[test]
fn every_changed_bit_is_noticed() {
    for suite in Suite::ALL {
        let (mut sender, mut receiver) = (Protect::new(&key(suite)), Unprotect::new(&key(suite)));
        let first = sealed(&mut sender, &packet(7, 1));
        assert!(receiver.rtp(&first).is_ok());
        let wire = sealed(&mut sender, &packet(7, 2));
        for bit in 0..wire.len() * 8 {
            let mut changed = wire.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.rtp(&changed).is_err(), "{suite:?} bit {bit}");
        }
        for len in 0..wire.len() {
            assert!(receiver.rtp(&wire[..len]).is_err(), "{suite:?} length {len}");
        }
        assert!(receiver.rtp(&wire).is_ok(), "the genuine one is still taken");
    }
}

/// Forged packets neither fill our memory nor move the window before the first genuine one.
#[test]
fn what_a_stranger_makes_up_leaves_no_trace() {
    for suite in Suite::ALL {
        let (mut sender, mut receiver) = (Protect::new(&key(suite)), Unprotect::new(&key(suite)));
        for ssrc in 0..200 {
            assert_eq!(
                receiver.rtp(&[packet(ssrc, 40_000), vec![1; 16]].concat()),
                Err(Refused::Unauthentic)
            );
            let control = [report(ssrc), vec![1; 12], hex("80000009"), vec![1; 10]].concat();
            assert_eq!(receiver.rtcp(&control), Err(Refused::Unauthentic));
        }
        assert!(receiver.known.is_empty() && receiver.known_control.is_empty());
        assert!(receiver.rtp(&sealed(&mut sender, &packet(7, 20_000))).is_ok());
        // Nor do more sources than any peer has.
        let taken = (0..200u32).filter(|ssrc| {
            let wire = sealed(&mut sender, &packet(1000 + ssrc, 1));
            receiver.rtp(&wire).is_ok()
        });
        assert_eq!(taken.count(), SOURCES_MAX - 1);
    }
}

#[test]
fn csrcs_and_any_extension_are_left_as_they_are() {
    for suite in Suite::ALL {
        let (mut sender, mut receiver) = (Protect::new(&key(suite)), Unprotect::new(&key(suite)));
        let extensions = [
            "bede0002 1000aaf0 ffffffff",
            "bede0001 00000000",
            "bede0001 1faabbcc",
            "10000001 05ff0000",
            "abcd0000",
        ];
        for (sequence, extension) in (1..).zip(extensions) {
            let mut plain = packet(7, sequence)[..12].to_vec();
            plain[0] |= 0x12;
            plain.extend_from_slice(&[9; 8]);
            plain.extend(hex(extension));
            let header = plain.len();
            plain.extend_from_slice(&[0x55; 160]);
            let wire = sealed(&mut sender, &plain);
            assert_eq!(wire[..header], plain[..header], "the header stays in the clear");
            assert!(wire[header..].iter().filter(|byte| **byte == 0x55).count() < 20);
            assert_eq!(receiver.rtp(&wire).as_deref(), Ok(plain.as_slice()), "{extension}");
        }
    }
}

#[test]
fn rtcp_comes_back_once_and_never_in_the_clear() {
    for suite in Suite::ALL {
        let (mut sender, mut receiver) = (Protect::new(&key(suite)), Unprotect::new(&key(suite)));
        let wire = sealed_control(&mut sender, &report(7));
        assert_eq!(receiver.rtcp(&wire).as_deref(), Ok(report(7).as_slice()), "{suite:?}");
        assert_eq!(receiver.rtcp(&wire), Err(Refused::Replayed));
        let next = sealed_control(&mut sender, &report(7));
        let flag = next.len() - if suite == Suite::Gcm { 4 } else { 14 };
        let mut clear = next.clone();
        clear[flag] &= 0x7f;
        assert_eq!(receiver.rtcp(&clear), Err(Refused::Unauthentic), "{suite:?}");
        for at in 0..next.len() {
            let mut changed = next.clone();
            changed[at] ^= 4;
            assert!(receiver.rtcp(&changed).is_err(), "{suite:?} byte {at}");
        }
        assert!(receiver.rtcp(&next).is_ok());
    }
}

fn keys(ours: u8, theirs: u8, suite: Suite) -> SrtpKeys {
    let key = |seed| SrtpSeed::new([seed; 32]).key(suite);
    SrtpKeys { ours: key(ours), theirs: key(theirs) }
}

/// The same number under the same key must never be encrypted twice, whatever was agreed on in
/// between.
#[test]
fn a_key_that_comes_back_goes_on_where_it_was() {
    let mut shield = Shield::default();
    let send = |shield: &mut Shield, number: u32| {
        let plain = packet(7, number as u16);
        let mut bytes = [plain.clone(), vec![0; GROWTH_MAX]].concat();
        let len = shield.protect(&mut bytes, plain.len()).unwrap();
        bytes.truncate(len);
        bytes
    };
    let mut receiver = Unprotect::new(&keys(1, 2, Suite::Cm80).ours);
    shield.agree(Some(&keys(1, 2, Suite::Cm80)));
    for number in [65_000, 65_535, 65_536] {
        assert!(receiver.rtp(&send(&mut shield, number)).is_ok());
    }
    for between in [Some(keys(1, 2, Suite::Gcm)), None, Some(keys(1, 9, Suite::Cm80))] {
        shield.agree(between.as_ref());
        assert_eq!(shield.is_on(), between.is_some());
    }
    shield.agree(Some(&keys(1, 2, Suite::Cm80)));
    assert!(receiver.rtp(&send(&mut shield, 65_537)).is_ok(), "in the second round");
}

#[test]
fn packets_under_the_key_before_are_still_taken_once() {
    let mut shield = Shield::default();
    shield.agree(Some(&keys(1, 2, Suite::Cm80)));
    let (mut old, mut new) = (
        Protect::new(&keys(0, 2, Suite::Cm80).theirs),
        Protect::new(&keys(0, 3, Suite::Gcm).theirs),
    );
    let wire: Vec<_> = (0..4).map(|n| sealed(&mut old, &packet(7, n))).collect();
    assert!(shield.unprotect(&wire[0]).is_ok());
    shield.agree(Some(&keys(1, 3, Suite::Gcm)));
    assert!(shield.unprotect(&sealed(&mut new, &packet(7, 5))).is_ok());
    assert!(shield.unprotect(&wire[1]).is_ok());
    for again in [0, 1] {
        assert_eq!(shield.unprotect(&wire[again]), Err(Refused::Replayed));
    }
    // The same again forgets nothing of what came, nor does a key that comes back.
    let heard = sealed(&mut new, &packet(7, 6));
    assert!(shield.unprotect(&heard).is_ok());
    for theirs in [(3, Suite::Gcm), (2, Suite::Cm80), (3, Suite::Gcm)] {
        shield.agree(Some(&keys(1, theirs.0, theirs.1)));
        assert_eq!(shield.unprotect(&heard), Err(Refused::Replayed));
        assert_eq!(shield.unprotect(&wire[0]), Err(Refused::Replayed));
    }
    shield.agree(Some(&keys(1, 4, Suite::Gcm)));
    assert_eq!(shield.unprotect(&wire[2]), Err(Refused::Unauthentic), "two keys ago");
}
