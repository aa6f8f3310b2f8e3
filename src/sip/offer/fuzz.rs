//! What must hold for any bytes that are offered or answered.

use super::*;

/// The body of the fuzz target: nothing panics, and what we answer is an answer to the offer.
pub fn fuzz(bytes: &[u8]) {
    for srtp in [SrtpPolicy::Off, SrtpPolicy::Optional, SrtpPolicy::Required] {
        fuzz_with(bytes, srtp);
    }
}

fn fuzzed_codecs() -> Vec<Codec> {
    vec![
        #[cfg(feature = "opus")]
        Codec::Opus,
        Codec::Pcmu,
        Codec::Pcma,
    ]
}

fn fuzz_with(bytes: &[u8], srtp: SrtpPolicy) {
    let local = Local {
        address: IpAddr::from([192, 0, 2, 1]),
        port: 4000,
        codecs: fuzzed_codecs(),
        silence: Silence::ComfortNoise,
        events: true,
        session_id: 1,
        session_version: 1,
        srtp,
        keys: SrtpSeed::new([7; 32]),
    };
    let accepted = accept(bytes, &local);
    assert!(srtp == SrtpPolicy::Required || !accepted.is_ok_and(|agreed| secured(&agreed)));
    if let Ok((answer, agreed)) = answer(bytes, &local) {
        assert!(srtp == SrtpPolicy::Optional || secured(&agreed) == (srtp == SrtpPolicy::Required));
        let ours = parse(&answer).expect("our own answer parses").medias;
        let theirs = parse(bytes).expect("it was parsed before").medias;
        assert_eq!(ours.len(), theirs.len());
        assert!(ours.iter().filter(|media| media.port != 0).count() <= 1);
        assert!(ours.iter().zip(&theirs).all(|(ours, theirs)| theirs.port != 0 || ours.port == 0));
    }
}
