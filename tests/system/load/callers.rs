//! Calls of our own user agent, many at once: each is answered and then hung up.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ringtill::server::clock;
use ringtill::server::sip::{Commands, Offer, Rates, Sip, Transports};
use ringtill::sip::agent::{Placement, Settings};
use ringtill::sip::transport::Listener;
use ringtill::sip::{Cause, Command, Event, Leg, Peer, Transport};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

/// Longer than any transaction of RFC 3261 may take, and two in a row.
const CALL_LIMIT: Duration = Duration::from_secs(80);

/// A user agent that calls.
pub struct Callers {
    pub sip: Sip,
    transport: Transport,
    _offers: Receiver<Offer>,
    /// Takes the sound, and keeps it.
    sink: UdpSocket,
}

/// What became of calls: how many were answered and ended by us, and the others by reason.
#[derive(Debug, Default)]
pub struct Tally {
    pub completed: u32,
    pub failed: BTreeMap<String, u32>,
}

impl Callers {
    /// On `local`, telling peers that it is at `public`.
    pub async fn bind(transport: Transport, local: IpAddr, public: IpAddr) -> Callers {
        let any = SocketAddr::new(public, 0);
        let mut settings = Settings::new(any, "Callers", 100_000);
        settings.listeners = vec![Listener::new(transport, any)];
        let transports = Transports {
            listen: vec![SocketAddr::new(local, 0)],
            rates: Rates { per_second: 1_000_000, ..Rates::default() },
            ..Transports::default()
        };
        let (sip, offers) = Sip::bind(transports, settings, [11; 32]).await.expect("a port");
        let sink = UdpSocket::bind((local, 0)).expect("a port");
        Callers { sip, transport, _offers: offers, sink }
    }

    /// Places one call; `rtp` is where its sound goes.
    pub async fn call(&self, server: SocketAddr, rtp: SocketAddr) -> (Leg, Receiver<Event>) {
        let (ip, port) = (rtp.ip(), rtp.port());
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
        );
        let destination = Peer { transport: self.transport, ..Peer::udp(server) };
        let placement = Placement {
            target: format!("sip:pay@{server};transport={}", self.transport),
            destinations: vec![destination],
            from: format!("sip:+12025550100@{}", self.sip.local()),
            headers: Vec::new(),
            sdp: sdp.into_bytes(),
            trunk: Arc::default(),
        };
        self.sip.commands().invite(placement).await.expect("the agent runs")
    }

    /// Places `count` calls, so many a second, hangs up each as soon as it is answered, and
    /// returns when all of them are over on our side: their BYE is answered or given up.
    pub async fn place(&self, server: SocketAddr, count: u32, per_second: u32) -> Tally {
        let rtp = self.sink.local_addr().expect("bound");
        let (mut calls, mut tally) = (JoinSet::new(), Tally::default());
        let begin = clock::now();
        for nth in 0..count {
            let due = begin + Duration::from_secs_f64(f64::from(nth) / f64::from(per_second));
            tokio::time::sleep_until(due.into()).await;
            let (leg, events) = self.call(server, rtp).await;
            let commands = self.sip.commands();
            calls.spawn(async move {
                tokio::time::timeout(CALL_LIMIT, through(leg, events, commands)).await
            });
            while let Some(over) = calls.try_join_next() {
                tally.add(over.expect("no panic").unwrap_or(Err("no end".into())));
            }
        }
        while let Some(over) = calls.join_next().await {
            tally.add(over.expect("no panic").unwrap_or(Err("no end".into())));
        }
        let mut status = self.sip.status();
        let all_over = status.wait_for(|status| status.calls == 0);
        let all_over = tokio::time::timeout(CALL_LIMIT, all_over).await;
        assert!(all_over.is_ok(), "calls of ours do not end");
        tally
    }
}

/// Follows one call to its end; why it failed, if it did.
async fn through(leg: Leg, mut events: Receiver<Event>, commands: Commands) -> Result<(), String> {
    let mut answered = false;
    while let Some(event) = events.recv().await {
        match event {
            Event::Answered { .. } => {
                answered = true;
                let hangup = Command::Hangup { leg, reason: None };
                commands.send(hangup).await.map_err(|stopped| stopped.to_string())?;
            }
            Event::Ended { cause: Cause::WeHungUp, .. } if answered => return Ok(()),
            Event::Ended { cause, .. } => return Err(format!("{cause:?}")),
            _ => {}
        }
    }
    Err("the agent stopped".into())
}

impl Tally {
    fn add(&mut self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.completed += 1,
            Err(why) => *self.failed.entry(why).or_default() += 1,
        }
    }
}
