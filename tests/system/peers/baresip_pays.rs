//! baresip pays a bill: one phone by UDP in the clear, another by TLS with SRTP. Meanwhile a third
//! is passed on to an agent and calls it itself, as our REFER says.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::baresip::{Baresip, Voice};
use super::{is_here, payments};
use crate::binary::{ACCOUNTS, Binary, beside_others, expiry};
use crate::caller::{JAMES, MARIA, Sip};

/// Connections to 127.0.0.1 come from there too; datagrams to the secure trunk come from here.
const SECURE: &str = "127.0.0.3";

#[test]
fn baresip_pays_in_the_clear_and_encrypted() {
    if !is_here("baresip", "baresip-core") {
        return;
    }
    let _turn = beside_others();
    let certificates = certificates();
    let clear = |account: &str| {
        let account = format!("<sip:{account}@127.0.0.1>;regint=0;answermode=auto");
        Baresip::start("127.0.0.1", &account, Voice::Silent)
    };
    let mut agent = clear("agent");
    let trunks = trunks(&certificates, agent.port);
    let mut ringtill = Binary::start_listening(&["tls"], ACCOUNTS, "info", &trunks);
    let port = ringtill.port;
    let secure = |mediaenc: &str| {
        let account = format!("<sip:{MARIA}@127.0.0.1;transport=tls>;regint=0{mediaenc}");
        let authority = certificates.path().join("ca.pem");
        Baresip::trusting("127.0.0.1", &account, Voice::Silent, Some(&authority))
    };
    let mut james = clear(JAMES);
    let mut maria = secure(";mediaenc=srtp-mand");
    refused_without_srtp(&ringtill, secure(""));

    for phone in [&mut james, &mut maria] {
        // It adds the transport of its account.
        phone.command("dial", &format!("sip:pay@127.0.0.1:{port}"));
    }
    for (phone, card, code, zip) in [
        (&mut james, "4111111111111111#", "123", "46201"),
        (&mut maria, "5555555555554444#", "321", "46204"),
    ] {
        phone.wait_for("CALL_ESTABLISHED");
        phone.wait_for("CALL_RTPESTAB");
        // Keyed ahead, up to the consent.
        for keys in ["1", card, &expiry(), code, zip] {
            phone.key(keys);
        }
    }
    passed_on(&mut ringtill, clear(MARIA), &mut agent);
    // The consent counts only once fee and total have been spoken: asked again until it does.
    let mut agreed = 0;
    for _ in 0..30 {
        agreed = ringtill.lines_with(": consent ");
        if agreed == 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1_500));
        james.key("1");
        maria.key("1");
    }
    assert_eq!(agreed, 2, "{}", ringtill.log.join("\n"));
    ringtill.wait_for_lines(2, ": confirmed ");
    for phone in [&mut james, &mut maria] {
        phone.command("hangup", "");
        phone.wait_for("CALL_CLOSED");
    }
    ringtill.wait_for_lines(2, "outcome=Paid");

    let log = maria.stop();
    assert!(log.contains("SRTP is Enabled"), "{log}");
    assert!(!james.stop().contains("SRTP is Enabled"));
    assert_eq!(ringtill.stop(), Some(0), "{}", ringtill.log.join("\n"));
    let paid = [("1001".to_string(), 32_172), ("1002".to_string(), 8_810)];
    assert_eq!(payments(&ringtill), paid);
}

/// Asks for the agent, is referred to it and calls it; we are out of it then.
fn passed_on(ringtill: &mut Binary, mut phone: Baresip, agent: &mut Baresip) {
    phone.command("dial", &format!("sip:pay@127.0.0.1:{}", ringtill.port));
    phone.wait_for("CALL_ESTABLISHED");
    phone.key("0");
    agent.wait_for("CALL_ESTABLISHED");
    agent.wait_for("CALL_RTPESTAB");
    ringtill.wait_for_lines(1, "outcome=Transferred");
    assert_eq!(ringtill.lines_with(": calling the agent "), 0);
    phone.command("hangup", "");
    agent.wait_for("CALL_CLOSED");
    let log = phone.stop();
    assert!(log.contains("transferring call"), "{log}");
}

/// The trunk that takes card data over SRTP only: sound in the clear is refused over TLS and UDP,
/// and so are keys for SRTP that came in the clear.
fn refused_without_srtp(ringtill: &Binary, mut phone: Baresip) {
    phone.command("dial", &format!("sip:pay@127.0.0.1:{}", ringtill.port));
    let why = phone.wait_for("CALL_CLOSED");
    assert!(why.starts_with("488 "), "{why}");
    let mut caller = Sip::at(SECURE, ringtill.port);
    let plain = crate::caller::sdp("127.0.0.3:4000".parse().expect("an address"));
    let key = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 \
               inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n";
    let keyed = format!("{}{key}", plain.replace("RTP/AVP", "RTP/SAVP"));
    for offer in [plain, keyed] {
        let invite = caller.invite(&offer);
        assert_eq!(caller.ask(&invite).status, 488, "{offer}");
    }
}

/// The trunk of 127.0.0.1 takes datagrams only, so that TLS is another one's.
fn trunks(certificates: &TempDir, agent: u16) -> String {
    let folder = certificates.path().display();
    format!(
        "transports = [\"udp\"]\n\n[agent]\nuri = \"sip:agent@127.0.0.1:{agent}\"\n\n\
         [sip.tls]\ncertificate_file = \"{folder}/us.pem\"\nkey_file = \"{folder}/us.key\"\n\n\
         [[trunk]]\nname = \"secure\"\nsources = [\"127.0.0.1/32\", \"{SECURE}/32\"]\n\
         trust_caller_id = true\nsrtp = \"optional\"\nsensitive_media = \"srtp\"\n"
    )
}

/// `ca.pem`, and a certificate for 127.0.0.1 signed with it.
fn certificates() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let key = || KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (root_key, our_key) = (key(), key());
    let root = params.self_signed(&root_key).expect("a certificate").pem();
    let us = CertificateParams::new(vec!["127.0.0.1".to_string()]).expect("parameters");
    let us = us.signed_by(&our_key, &Issuer::new(params, root_key)).expect("a certificate").pem();
    let files = [("ca.pem", root), ("us.pem", us), ("us.key", our_key.serialize_pem())];
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}
