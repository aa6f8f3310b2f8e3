//! Two sessions on real loopback sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::media::{Digit, Method, PlayId};
use crate::sip::offer::{Direction, Law, Negotiated};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn start() -> Media {
    let ports = 32_000..=32_199;
    Media::start(Settings { address: LOOPBACK, ports, threads: 1, recording_directory: None })
        .expect("loopback is there")
}

fn open(media: &Media) -> (Session, mpsc::Receiver<Event>) {
    let setup = media::Setup { ssrc: 1, sequence: 1, timestamp: 1, record: false, listen: false };
    let (events, inbox) = mpsc::channel(256);
    let call = OpenCall { name: "test".into(), setup, latch: Latch::Strict, events };
    (media.open(call).expect("a port is free"), inbox)
}

fn negotiated(port: u16, events: bool) -> Command {
    let events = events.then_some((101, 8_000));
    Command::Negotiated(Negotiated {
        remote: Some(SocketAddr::new(LOOPBACK, port)),
        law: Law::Mu,
        events_out: events,
        events_in: events,
        ptime_ms: 20,
        direction: Direction::SendRecv,
    })
}

async fn keys_heard(method: Method) -> String {
    let media = start();
    let (caller, mut caller_events) = open(&media);
    let (us, mut inbox) = open(&media);
    let events = method == Method::Events;
    caller.command(negotiated(us.port(), events));
    us.command(negotiated(caller.port(), events));
    let keys = "4111#".chars().filter_map(Digit::from_key).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    caller.command(Command::Press { keys, method, on_ms: 80, off_ms: 80 });
    let mut heard = String::new();
    let mut pressed = false;
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    while (heard.len() < 5 || !pressed) && tokio::time::Instant::now() < until {
        tokio::select! {
            Some(Event::Key { digit, .. }) = inbox.recv() => heard.push(digit.expose().into()),
            Some(Event::Pressed) = caller_events.recv() => pressed = true,
            () = tokio::time::sleep_until(until) => {}
        }
    }
    // Nothing more may come of the same keys.
    while let Ok(Some(event)) = timeout(Duration::from_millis(300), inbox.recv()).await {
        if let Event::Key { digit, .. } = event {
            heard.push(digit.expose().into());
        }
    }
    heard
}

#[tokio::test]
async fn keys_cross_as_events_once_each() {
    assert_eq!(keys_heard(Method::Events).await, "4111#");
}

#[tokio::test]
async fn keys_cross_as_tones_once_each() {
    assert_eq!(keys_heard(Method::InBand).await, "4111#");
}

#[tokio::test]
async fn a_play_ends_and_a_foreign_source_is_not_heard() {
    let media = start();
    let (us, mut inbox) = open(&media);
    let peer = UdpSocket::bind((LOOPBACK, 0)).expect("a port");
    us.command(negotiated(peer.local_addr().expect("bound").port(), true));
    let sound: Arc<[u8]> = vec![0x55; 800].into();
    let clips = vec![media::Clip { mu: sound.clone(), a: sound }];
    us.command(Command::Play { id: PlayId(1), clips, barge_in: true });
    // Wait until the socket is connected: our first packet has arrived.
    peer.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    peer.recv(&mut [0; 512]).expect("a packet");
    let foreign = UdpSocket::bind((LOOPBACK, 0)).expect("a port");
    let key = [0x80, 0xe5, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 4, 0x0a, 0, 160];
    let target = SocketAddr::new(LOOPBACK, us.port());
    foreign.send_to(&key, target).expect("sent");
    let ended = timeout(Duration::from_secs(5), inbox.recv()).await.expect("in time");
    assert!(matches!(ended, Some(Event::PlayEnded { id: PlayId(1), completed: true })));
    peer.send_to(&key, target).expect("sent");
    let heard = timeout(Duration::from_secs(5), inbox.recv()).await.expect("in time");
    assert!(matches!(heard, Some(Event::Key { .. })), "the peer's key, and only the peer's");
    let more = timeout(Duration::from_millis(300), inbox.recv()).await;
    assert!(more.is_err(), "one key was pressed");
}
