//! The whole server on loopback, stopped at the worst moment.

use std::path::Path;
use std::time::Duration;

use super::configuration::trunk_profile;
use super::sip::tls::tests::Authority;
use super::*;
use crate::config::Listen;
use crate::dial::script::{Keying, Script};
use crate::gateway::bogus::Fault;
use crate::media::Method;
use crate::sip::agent::{Placement, Settings};
use crate::sip::locate::Hop;
use crate::sip::offer::{Law, SrtpPolicy};
use crate::sip::transport::Listener;
use crate::sip::{Command, Event, Transport};

const SCRIPT: &str = "hear-start greet.hello, key 1, key 4111111111111111#, key 1230 123 46201,
    hear-start consent.accept 60, key 1, wait-end 30";
const ACCOUNTS: &str = "account_id,name_first,phone1,verify_zip,amount_due
1001,James,+13175550123,46201,10.00
";

fn config(folder: &Path) -> Config {
    let shown = folder.display();
    std::fs::write(folder.join("accounts.csv"), ACCOUNTS).expect("written");
    let text = format!(
        "[sip]\nlisten = \"127.0.0.1:0\"\n[media]\nports = [33000, 33099]\n\
         [store]\nfile = \"{shown}/ledger.db\"\n[accounts]\nfile = \"{shown}/accounts.csv\"\n\
         [posting]\ndirectory = \"{shown}/posting\"\n\
         [[trunk]]\nsources = [\"127.0.0.1/32\"]\ntrust_caller_id = true\n"
    );
    Config::parse(&text, &|name| trunk_profile(name, folder)).expect("a right configuration")
}

/// The operator stops the server while the gateway thinks: the payment is still written down and
/// posted, not left to the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_charge_under_way_is_finished_before_we_stop() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(config(folder.path()), None).await.unwrap();
    server.simulator().unwrap().simulator.lock().unwrap().fail_next(Fault::Slow);
    let library = server.library().clone();
    let call = dial::Call {
        target: format!("sip:pay@{}", server.sip_address()),
        from: Some("+13175550123".into()),
        headers: Vec::new(),
        prompts: dial::indexes(&library, &[Law::Mu]),
        script: Script::parse(SCRIPT, &|id| dial::knows(&library, id)).unwrap(),
        keying: Keying { method: Method::Events, on_ms: 60, off_ms: 60 },
        srtp: SrtpPolicy::Off,
        local: None,
        call_max: Duration::from_secs(120),
        person: None,
    };
    let caller = tokio::spawn(async move { Box::pin(dial::place(call, &mut |_, _| {})).await });
    let until_sending = async {
        loop {
            let intents = server.store().intents().await.unwrap();
            if intents.iter().any(|(_, state)| state.name() == "sending") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), until_sending).await.unwrap();
    server.stop().await;
    let _ = caller.await.unwrap();
    let store = store::Store::open(&folder.path().join("ledger.db").to_string_lossy()).await;
    let intents = store.unwrap().intents().await.unwrap();
    let states: Vec<&str> = intents.iter().map(|(_, state)| state.name()).collect();
    assert_eq!(states, ["posted"]);
}

#[tokio::test]
async fn a_start_that_fails_says_which_key_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let right = config(folder.path());
    let mut store = right.clone();
    store.store.file = folder.path().join("nowhere/ledger.db");
    let mut posting = right.clone();
    posting.posting.directory = file.join("posting");
    let mut media = right;
    media.media.address = Some("192.0.2.1".parse().unwrap());
    for (config, at_fault, parts) in [
        (store, true, ["[store] file", "create it or correct the path"]),
        (posting, true, ["[posting] directory", "name one we may write to"]),
        (media, false, ["192.0.2.1", "change [media] address"]),
    ] {
        let error = Server::start(config, None).await.err().unwrap();
        assert!(parts.iter().all(|part| error.message.contains(part)), "{error}");
        assert_eq!(error.configuration, at_fault, "{error}");
    }
}

/// Calls `name` over TLS at the server: whether somebody answered who bears it.
async fn answers(server: &Server, authority: &Authority, name: &str) -> bool {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let tls = Arc::new(sip::tls::Tls::open(authority.sign("phone", &["phone.example"])).unwrap());
    let transports = sip::Transports { tls: Some(tls), ..listen.into() };
    let settings = Settings {
        listeners: vec![Listener::new(Transport::Tls, listen)],
        ..Settings::new(listen, "phone", 4)
    };
    let (phone, _offers) = sip::Sip::bind(transports, settings, rand::random()).await.unwrap();
    let (transport, address) = server.sip.locals()[2];
    let hop = Hop { transport, address, name: Some(name.into()) };
    let offer = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
        m=audio 33200 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n";
    let call = Placement {
        target: format!("sips:pay@{address}"),
        destinations: vec![phone.commands().peer(&hop).unwrap()],
        from: "sip:+13175550123@127.0.0.1".into(),
        headers: Vec::new(),
        sdp: offer.into(),
        trunk: Arc::default(),
    };
    let (leg, mut events) = phone.commands().invite(call).await.unwrap();
    let answered = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Answered { .. } => return true,
                Event::Ended { .. } => return false,
                _ => {}
            }
        }
        false
    };
    let answered = tokio::time::timeout(Duration::from_secs(20), answered).await.unwrap();
    let _ = phone.commands().send(Command::Hangup { leg, reason: None }).await;
    phone.shutdown(Duration::from_secs(2)).await;
    answered
}

/// From the configuration to a call over TLS, and what a reload makes of new certificates.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_again_and_bad_ones_are_not_taken() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let tls = authority.sign("server", &["old.example"]);
    let mut config = config(folder.path());
    let listen = |transport| Listen { transport, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
    config.sip.listen = [Transport::Udp, Transport::Tcp, Transport::Tls].map(listen).to_vec();
    config.sip.tls = Some(tls.clone());
    let server = Server::start(config, None).await.unwrap();
    assert!(answers(&server, &authority, "old.example").await);
    assert!(!answers(&server, &authority, "new.example").await);
    std::fs::write(&tls.certificate_file, "nothing").unwrap();
    server.reload_certificates().await;
    assert!(answers(&server, &authority, "old.example").await, "the certificate in use stays");
    authority.sign("server", &["new.example"]);
    server.reload_certificates().await;
    assert!(answers(&server, &authority, "new.example").await);
    server.stop().await;
}
