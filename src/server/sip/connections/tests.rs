//! Connections on loopback: accepted, opened, used again, turned away, lost.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::super::Rates;
use super::super::tls::tests::Authority;
use super::*;

const OPTIONS: &str = "OPTIONS sip:a@h SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\n\
    From: <sip:b@h>;tag=1\r\nTo: <sip:a@h>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nl: 0\r\n\r\n";

/// One end: a listener, and what its agent would hear.
struct End {
    connections: Arc<Connections>,
    inputs: mpsc::Receiver<Input>,
    local: SocketAddr,
    transport: Transport,
}

impl End {
    async fn new(transport: Transport, tls: Option<Tls>, limits: Limits) -> End {
        let listener = stream::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let local = listener.local_addr().unwrap();
        let (sender, inputs) = mpsc::channel(64);
        let transports = Transports {
            listen: Vec::new(),
            tls: tls.map(Arc::new),
            limits,
            ..Transports::default()
        };
        let inbox = Inbox::new(sender, Rates::default());
        let connections = Connections::new(&transports, vec![(transport, local)], inbox);
        tokio::spawn(connections.clone().accept(listener, 0));
        End { connections, inputs, local, transport }
    }

    async fn tcp() -> End {
        End::new(Transport::Tcp, None, Limits::default()).await
    }

    fn peer(&self) -> Peer {
        let (transport, address) = (self.transport, self.local);
        Peer { transport, listener: 0, address, connection: None }
    }

    fn send(&self, to: Peer, text: &str) {
        self.connections.send(to, Bytes::copy_from_slice(text.as_bytes()));
    }

    async fn next(&mut self) -> Input {
        within(self.inputs.recv()).await.expect("an input")
    }

    async fn received(&mut self) -> (Peer, Vec<String>, Bytes) {
        match self.next().await {
            Input::Received { peer, certificate, bytes } => {
                (peer, certificate.map(|names| names.to_vec()).unwrap_or_default(), bytes)
            }
            Input::Unreachable(peer) => panic!("{peer} is unreachable"),
            _ => panic!("neither"),
        }
    }

    async fn lost(&mut self) -> Peer {
        match self.next().await {
            Input::Unreachable(peer) => peer,
            _ => panic!("not lost"),
        }
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.expect("nothing in 10 s")
}

/// What a bare client reads until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let _ = within(stream.read_to_string(&mut text)).await;
    text
}

#[tokio::test]
async fn a_connection_is_used_again_from_both_ends() {
    let (mut ours, mut theirs) = (End::tcp().await, End::tcp().await);
    ours.send(theirs.peer(), OPTIONS);
    let (back, names, bytes) = theirs.received().await;
    assert_eq!((&bytes[..], names.len()), (OPTIONS.as_bytes(), 0));
    theirs.send(back, OPTIONS);
    ours.send(theirs.peer(), OPTIONS);
    let (again, ..) = theirs.received().await;
    assert_eq!(again, back, "the same connection");
    let (answer, ..) = ours.received().await;
    assert_eq!(answer.address, theirs.local);
    ours.send(answer, OPTIONS);
    assert_eq!(theirs.received().await.0, back);
    let counters = (ours.connections.counters(), theirs.connections.counters());
    assert_eq!((counters.0.opened, counters.1.accepted, counters.1.opened), (1, 1, 0));
}

#[tokio::test]
async fn a_lost_connection_is_told_and_opened_anew() {
    let (mut ours, mut theirs) = (End::tcp().await, End::tcp().await);
    ours.send(theirs.peer(), OPTIONS);
    let (back, ..) = theirs.received().await;
    theirs.send(back, OPTIONS);
    let (peer, ..) = ours.received().await;
    theirs.connections.abort();
    let first = ours.lost().await;
    assert!(peer.is_lost_with(&first) && peer.is_lost_with(&ours.lost().await));
    // It names a connection that is gone: a new one is opened to the address, and closed again
    // by a server that takes none any more.
    ours.send(peer, OPTIONS);
    assert!(peer.is_lost_with(&ours.lost().await));
    assert_eq!(ours.connections.counters().opened, 2);
}

#[tokio::test]
async fn who_cannot_be_reached_is_told_at_once() {
    let mut ours = End::tcp().await;
    let closed = End::tcp().await;
    let nobody = {
        let listener = stream::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        Peer { address: listener.local_addr().unwrap(), ..closed.peer() }
    };
    let stale = Peer { connection: Some(77), ..nobody };
    ours.send(stale, OPTIONS);
    assert_eq!(ours.lost().await, stale);
    assert_eq!(ours.lost().await.address, nobody.address);
    let by_udp = Peer { transport: Transport::Udp, ..nobody };
    ours.send(by_udp, OPTIONS);
    assert_eq!(ours.lost().await, by_udp, "this listener cannot");
}

#[tokio::test]
async fn pings_are_answered_and_pieces_put_together() {
    let mut server = End::tcp().await;
    let mut client = TcpStream::connect(server.local).await.unwrap();
    client.set_nodelay(true).unwrap();
    client.write_all(b"\r\n\r\n").await.unwrap();
    let mut pong = [0; 2];
    within(client.read_exact(&mut pong)).await.unwrap();
    assert_eq!(&pong, b"\r\n");
    let (head, tail) = OPTIONS.split_at(100);
    client.write_all(head.as_bytes()).await.unwrap();
    within(client.write_all(b"")).await.unwrap();
    client.write_all(format!("{tail}{OPTIONS}").as_bytes()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(&server.received().await.2[..], OPTIONS.as_bytes());
    }
}

#[tokio::test]
async fn a_broken_message_is_handed_up_answered_and_the_end() {
    let mut server = End::tcp().await;
    let mut client = TcpStream::connect(server.local).await.unwrap();
    client.write_all(OPTIONS.replace("l: 0", "X: 0").as_bytes()).await.unwrap();
    let (peer, _, head) = server.received().await;
    assert!(head.ends_with(b"X: 0\r\n\r\n"));
    server.send(peer, "SIP/2.0 400 Bad Request\r\n\r\n");
    assert_eq!(rest(&mut client).await, "SIP/2.0 400 Bad Request\r\n\r\n");
    assert_eq!(server.lost().await, peer);
    assert_eq!((server.connections.counters().broken, server.connections.counters().open), (1, 0));
}

#[tokio::test]
async fn sources_have_a_limit_and_silence_has_an_end() {
    let limits =
        Limits { per_source_max: 2, idle: Duration::from_millis(200), ..Limits::default() };
    let mut server = End::new(Transport::Tcp, None, limits).await;
    let connect = || TcpStream::connect(server.local);
    let (mut first, mut second) = (connect().await.unwrap(), connect().await.unwrap());
    first.write_all(OPTIONS.as_bytes()).await.unwrap();
    second.write_all(OPTIONS.as_bytes()).await.unwrap();
    for _ in 0..2 {
        server.received().await;
    }
    let mut third = TcpStream::connect(server.local).await.unwrap();
    assert_eq!(rest(&mut third).await, "", "turned away");
    assert_eq!(server.connections.counters().refused, 1);
    assert_eq!(rest(&mut first).await, "");
    server.lost().await;
    server.lost().await;
    let counters = server.connections.counters();
    assert_eq!((counters.open, counters.accepted, counters.broken), (0, 2, 0));
    let mut after = TcpStream::connect(server.local).await.unwrap();
    after.write_all(OPTIONS.as_bytes()).await.unwrap();
    server.received().await;
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_cut_off_and_costs_little() {
    let mut server = End::tcp().await;
    let mut client = TcpStream::connect(server.local).await.unwrap();
    client.write_all(OPTIONS.as_bytes()).await.unwrap();
    let (peer, ..) = server.received().await;
    let much = "x".repeat(60_000);
    // The kernels of both ends take some megabytes.
    for sent in 0.. {
        assert!(sent < 10_000, "no end to it");
        server.send(peer, &much);
        tokio::task::yield_now().await;
        if let Ok(Input::Unreachable(lost)) = server.inputs.try_recv() {
            assert!(peer.is_lost_with(&lost));
            break;
        }
    }
    assert_eq!(server.connections.counters().open, 0);
}

#[tokio::test]
async fn what_is_queued_goes_out_before_we_close() {
    let (ours, mut theirs) = (End::tcp().await, End::tcp().await);
    for _ in 0..50 {
        ours.send(theirs.peer(), OPTIONS);
    }
    ours.connections.close(Duration::from_secs(5)).await;
    assert_eq!(ours.connections.counters().open, 0);
    for _ in 0..50 {
        theirs.received().await;
    }
    theirs.lost().await;
}

fn client(authority: &Authority) -> Tls {
    Tls::open(authority.sign("client", &["sip:carrier.example", "client.example"])).unwrap()
}

#[tokio::test]
async fn tls_proves_who_we_call_and_who_calls_us() {
    let authority = Authority::new();
    let mut settings = authority.sign("server", &["sbc.example"]);
    settings.client_ca_file = settings.ca_file.clone();
    settings.client_required = true;
    let server = Tls::open(settings).unwrap();
    let mut theirs = End::new(Transport::Tls, Some(server), Limits::default()).await;
    let mut ours = End::new(Transport::Tls, Some(client(&authority)), Limits::default()).await;
    // Its certificate does not bear the address.
    ours.send(theirs.peer(), OPTIONS);
    ours.lost().await;
    ours.lost().await;
    assert!(theirs.lost().await.connection.is_some());
    ours.connections.expect_name(theirs.local, "SBC.example");
    ours.send(theirs.peer(), OPTIONS);
    let (back, names, bytes) = theirs.received().await;
    assert_eq!((&names[..], bytes.len()), (&client_names()[..], OPTIONS.len()));
    theirs.send(back, OPTIONS);
    assert_eq!(ours.received().await.1, ["sbc.example"]);
    // Another name at the same address is proved anew.
    ours.connections.expect_name(theirs.local, "other.example");
    ours.send(theirs.peer(), OPTIONS);
    ours.lost().await;
    assert_eq!(ours.connections.counters().handshakes_failed, 2);
    // A stranger's certificate is none.
    let stranger = Tls::open({
        let mut stranger = Authority::new().sign("client", &["client.example"]);
        stranger.ca_file = Some(authority.file("ca.pem"));
        stranger
    });
    assert!(stranger.is_err(), "its folder is gone");
    let foreign = Authority::new();
    let mut settings = foreign.sign("client", &["client.example"]);
    settings.ca_file = Some(authority.file("ca.pem"));
    let stranger = Tls::open(settings).unwrap();
    let mut stranger = End::new(Transport::Tls, Some(stranger), Limits::default()).await;
    stranger.connections.expect_name(theirs.local, "sbc.example");
    stranger.send(theirs.peer(), OPTIONS);
    stranger.lost().await;
}

fn client_names() -> [String; 2] {
    ["carrier.example".into(), "client.example".into()]
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let authority = Authority::new();
    let tls = Arc::new(Tls::open(authority.sign("server", &["old.example"])).unwrap());
    let transports = Transports { tls: Some(tls.clone()), ..Transports::default() };
    let listener = stream::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let local = listener.local_addr().unwrap();
    let (sender, mut inputs) = mpsc::channel(64);
    let inbox = Inbox::new(sender, Rates::default());
    let server = Connections::new(&transports, vec![(Transport::Tls, local)], inbox);
    tokio::spawn(server.clone().accept(listener, 0));
    let mut ours = End::new(Transport::Tls, Some(client(&authority)), Limits::default()).await;
    let peer = Peer { address: local, ..ours.peer() };
    ours.connections.expect_name(local, "old.example");
    ours.send(peer, OPTIONS);
    assert!(matches!(within(inputs.recv()).await, Some(Input::Received { .. })));
    authority.sign("server", &["new.example"]);
    tls.reload().unwrap();
    ours.send(peer, OPTIONS);
    assert!(matches!(within(inputs.recv()).await, Some(Input::Received { .. })), "the old goes on");
    ours.connections.expect_name(local, "new.example");
    ours.send(peer, OPTIONS);
    let third = within(inputs.recv()).await;
    assert!(matches!(third, Some(Input::Received { .. })), "the new one has the new name");
    assert!(ours.inputs.try_recv().is_err(), "nothing was lost");
}

#[tokio::test]
async fn handshakes_that_never_end_do_not_keep_others_out_for_long() {
    let authority = Authority::new();
    let server = Tls::open(authority.sign("server", &["sbc.example"])).unwrap();
    let limits = Limits { per_source_max: 1_000, ..Limits::default() };
    let server = End::new(Transport::Tls, Some(server), limits).await;
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX {
        silent.push(TcpStream::connect(server.local).await.unwrap());
    }
    let mut one_more = TcpStream::connect(server.local).await.unwrap();
    assert_eq!(rest(&mut one_more).await, "", "turned away");
    silent.clear();
    let all_over = async {
        while server.connections.table().handshakes > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(all_over).await;
    assert_eq!(server.connections.counters().handshakes_failed, HANDSHAKES_MAX as u64);
}
