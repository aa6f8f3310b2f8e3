//! Cores on loopback, calling each other.

use super::*;
use crate::sip::{Cause, Peer};

const SDP: &[u8] = b"v=0\r\n";

async fn core(calls_max: usize) -> (Sip, mpsc::Receiver<Offer>) {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let settings = Settings::new(any, "Ringtill/test", calls_max);
    Sip::bind(any, settings, [3; 32]).await.unwrap()
}

fn call_to(server: &Sip) -> Placement {
    Placement {
        target: format!("sip:1000@{}", server.local()),
        destinations: vec![Peer::udp(server.local())],
        from: "sip:test@127.0.0.1".into(),
        headers: Vec::new(),
        sdp: SDP.into(),
        trunk: Arc::default(),
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("no answer in 10 s")
}

#[tokio::test]
async fn a_call_over_loopback_from_offer_to_end() {
    let ((server, mut offers), (phone, _)) = (core(4).await, core(4).await);
    let (leg, mut events) = phone.commands().invite(call_to(&server)).await.unwrap();
    let mut offer = within(offers.recv()).await.unwrap();
    assert_eq!(offer.invitation.offer.as_deref(), Some(SDP));
    assert_eq!(offer.invitation.dialled, "1000");
    assert_eq!(offer.invitation.source.address, phone.local());
    let answer = Command::Answer { leg: offer.leg, sdp: SDP.into() };
    server.commands().send(answer).await.unwrap();
    assert!(matches!(within(events.recv()).await, Some(Event::Answered { .. })));
    assert!(matches!(within(offer.events.recv()).await, Some(Event::Established { .. })));
    phone.commands().send(Command::Hangup { leg, reason: None }).await.unwrap();
    let ended = within(events.recv()).await;
    assert!(matches!(ended, Some(Event::Ended { cause: Cause::WeHungUp, .. })));
    let ended = within(offer.events.recv()).await;
    assert!(matches!(ended, Some(Event::Ended { cause: Cause::PeerHungUp, .. })));
    assert!(offer.events.recv().await.is_none(), "nothing follows Ended");
    let status = server.status().borrow().clone();
    assert_eq!((status.agent.offered, status.unsent, status.dropped), (1, 0, 0));
    assert_eq!(status.agent.retransmitted, 0);
    within(server.shutdown(Duration::from_secs(5))).await;
}

#[tokio::test]
async fn a_wildcard_is_no_contact() {
    let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let settings = |contact: &str| Settings::new(contact.parse().unwrap(), "Ringtill/test", 4);
    let refused = Sip::bind(any, settings("0.0.0.0:0"), [0; 32]).await.err().unwrap();
    assert!(refused.to_string().contains("which address"), "{refused}");
    assert!(Sip::bind(any, settings("192.0.2.1:0"), [0; 32]).await.is_ok());
}

#[tokio::test]
async fn a_call_whose_task_died_is_hung_up() {
    let ((server, mut offers), (phone, _)) = (core(4).await, core(4).await);
    let (_, mut events) = phone.commands().invite(call_to(&server)).await.unwrap();
    let offer = within(offers.recv()).await.unwrap();
    let answer = Command::Answer { leg: offer.leg, sdp: SDP.into() };
    server.commands().send(answer).await.unwrap();
    assert!(matches!(within(events.recv()).await, Some(Event::Answered { .. })));
    drop(offer);
    let ended = within(events.recv()).await;
    assert!(matches!(ended, Some(Event::Ended { cause: Cause::PeerHungUp, .. })));
}

#[tokio::test]
async fn nobody_taking_calls_means_503() {
    let ((server, offers), (phone, _)) = (core(4).await, core(4).await);
    drop(offers);
    let (_, mut events) = phone.commands().invite(call_to(&server)).await.unwrap();
    let ended = within(events.recv()).await;
    let Some(Event::Ended { cause: Cause::Refused { status, .. }, .. }) = ended else {
        panic!("not refused");
    };
    assert_eq!(status, 503);
}

#[tokio::test]
async fn shutdown_refuses_new_calls_and_hangs_up_the_old() {
    let ((server, mut offers), (phone, _)) = (core(4).await, core(4).await);
    let (_, mut events) = phone.commands().invite(call_to(&server)).await.unwrap();
    let mut offer = within(offers.recv()).await.unwrap();
    let answer = Command::Answer { leg: offer.leg, sdp: SDP.into() };
    server.commands().send(answer).await.unwrap();
    assert!(matches!(within(offer.events.recv()).await, Some(Event::Established { .. })));
    let second = call_to(&server);
    let server_commands = server.commands();
    let stopping = tokio::spawn(server.shutdown(Duration::from_millis(300)));
    let (_, mut refused) = phone.commands().invite(second).await.unwrap();
    assert!(matches!(within(events.recv()).await, Some(Event::Answered { .. })));
    let ended = within(events.recv()).await;
    assert!(matches!(ended, Some(Event::Ended { cause: Cause::PeerHungUp, .. })));
    let ended = within(refused.recv()).await;
    assert!(matches!(ended, Some(Event::Ended { .. })));
    within(stopping).await.unwrap();
    assert_eq!(server_commands.send(Command::Drain).await, Err(Stopped));
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_peer_that_is_gone() {
    let ((server, mut offers), (phone, _)) = (core(4).await, core(4).await);
    let (_, mut events) = phone.commands().invite(call_to(&server)).await.unwrap();
    let mut offer = within(offers.recv()).await.unwrap();
    let answer = Command::Answer { leg: offer.leg, sdp: SDP.into() };
    server.commands().send(answer).await.unwrap();
    assert!(matches!(within(offer.events.recv()).await, Some(Event::Established { .. })));
    assert!(matches!(within(events.recv()).await, Some(Event::Answered { .. })));
    drop(phone);
    within(server.shutdown(Duration::ZERO)).await;
    assert!(matches!(offer.events.recv().await, Some(Event::Ended { .. })));
}

/// A core without tasks, to look at its mailboxes.
async fn bare() -> (Core, mpsc::Receiver<Offer>) {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let settings = Settings::new(any, "Ringtill/test", 4);
    let (offers, offered) = mpsc::channel(4);
    let core = Core {
        udp: Vec::new(),
        connections: Connections::new(
            &any.into(),
            Vec::new(),
            Inbox::new(mpsc::channel(1).0, Rates::default()),
        ),
        agent: Agent::new(settings, [0; 32]),
        mailboxes: HashMap::new(),
        offers,
        status: watch::channel(Status::default()).0,
        dropped: Arc::default(),
        unsent: 0,
        overflowed: 0,
        security: Security::new(Instant::now()),
        sweep: Instant::now(),
        stop: None,
    };
    (core, offered)
}

#[tokio::test]
async fn a_full_mailbox_never_loses_ended() {
    let (mut core, _offers) = bare().await;
    let leg = Leg(9);
    let (mailbox, mut events) = Mailbox::new();
    core.mailboxes.insert(leg, mailbox);
    for _ in 0..MAILBOX {
        assert!(core.deliver(Event::Referred { leg, status: 100 }).is_none());
    }
    let unheard = core.deliver(Event::Referred { leg, status: 200 });
    assert!(matches!(unheard, Some(Command::Hangup { .. })));
    assert_eq!(core.overflowed, 1);
    core.deliver(Event::Ended { leg, cause: Cause::PeerHungUp });
    for _ in 0..MAILBOX {
        assert!(matches!(events.recv().await, Some(Event::Referred { .. })));
    }
    assert!(matches!(events.recv().await, Some(Event::Ended { .. })));
    assert!(events.recv().await.is_none());
}

/// A call from offer to BYE over each transport, both ways over one connection.
#[tokio::test]
async fn a_call_over_streams_and_ipv6() {
    let authority = tls::tests::Authority::new();
    let tls = Arc::new(tls::Tls::open(authority.sign("us", &["localhost"])).unwrap());
    let core = async |transport, ip: &str| {
        let listen = SocketAddr::new(ip.parse().unwrap(), 0);
        let transports = Transports { tls: Some(tls.clone()), ..listen.into() };
        let listeners = vec![Listener::new(transport, listen)];
        let settings = Settings { listeners, ..Settings::new(listen, "Ringtill/test", 4) };
        Sip::bind(transports, settings, [3; 32]).await
    };
    for (transport, ip) in [
        (Transport::Tcp, "127.0.0.1"),
        (Transport::Tls, "127.0.0.1"),
        (Transport::Udp, "::1"),
        (Transport::Tcp, "::1"),
    ] {
        let (Ok((server, mut offers)), Ok((phone, _))) =
            (core(transport, ip).await, core(transport, ip).await)
        else {
            assert_eq!(ip, "::1");
            eprintln!("skipped: this machine has no IPv6");
            continue;
        };
        let address = server.local();
        let hop = Hop { transport, address, name: Some("localhost".into()) };
        let peer = phone.commands().peer(&hop).expect("a listener");
        let call = Placement { destinations: vec![peer], ..call_to(&server) };
        let (_, mut events) = phone.commands().invite(call).await.unwrap();
        let mut offer = within(offers.recv()).await.unwrap();
        let answer = Command::Answer { leg: offer.leg, sdp: SDP.into() };
        server.commands().send(answer).await.unwrap();
        assert!(matches!(within(events.recv()).await, Some(Event::Answered { .. })));
        assert!(matches!(within(offer.events.recv()).await, Some(Event::Established { .. })));
        let hangup = Command::Hangup { leg: offer.leg, reason: None };
        server.commands().send(hangup).await.unwrap();
        let ended = within(events.recv()).await;
        let Some(Event::Ended { cause, .. }) = ended else { panic!("{transport} {ip}") };
        assert_eq!(cause, Cause::PeerHungUp, "{transport} {ip}");
        let status = server.status().borrow().clone();
        let streams = u64::from(transport != Transport::Udp);
        let connections = status.connections;
        assert_eq!((connections.accepted, connections.opened), (streams, 0), "{transport} {ip}");
        within(server.shutdown(Duration::from_secs(5))).await;
    }
}

#[tokio::test]
async fn a_call_that_finds_nobody_ends_at_once() {
    let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listeners = vec![Listener::new(Transport::Tcp, listen)];
    let settings = Settings { listeners, ..Settings::new(listen, "Ringtill/test", 4) };
    let (phone, _offers) = Sip::bind(listen, settings, [3; 32]).await.unwrap();
    let free = std::net::TcpListener::bind(listen).unwrap().local_addr().unwrap();
    for transport in [Transport::Tcp, Transport::Tls, Transport::Udp] {
        let peer = Peer { transport, listener: 0, address: free, connection: None };
        let call = Placement { destinations: vec![peer], ..call_to(&phone) };
        let (_, mut events) = phone.commands().invite(call).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), events.recv()).await;
        assert!(matches!(ended, Ok(Some(Event::Ended { .. }))), "{transport}");
    }
}
