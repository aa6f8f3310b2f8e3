//! Two agents over a link that loses, delays and so reorders.

use std::collections::BTreeMap;

use rand::RngExt;

use super::super::super::timer::PATIENCE;
use super::*;

/// `[0]` calls `[1]`.
struct Link {
    now: Instant,
    agents: [Agent; 2],
    wire: BTreeMap<(Instant, u64), (usize, Bytes)>,
    sequence: u64,
    rng: StdRng,
    loss: f64,
    events: [Vec<Event>; 2],
}

const ENDS: [&str; 2] = [PEER, US];

impl Link {
    fn new(seed: u64, loss: f64) -> Link {
        let mut rng = StdRng::seed_from_u64(seed);
        let agents = ENDS.map(|end| Agent::new(settings(end), rng.random()));
        Link {
            now: start(),
            agents,
            wire: BTreeMap::new(),
            sequence: 0,
            rng,
            loss,
            events: [Vec::new(), Vec::new()],
        }
    }

    fn command(&mut self, end: usize, command: Command) {
        self.agents[end].handle(self.now, Input::Command(command));
        self.collect(end);
    }

    fn collect(&mut self, end: usize) {
        while let Some(output) = self.agents[end].poll() {
            match output {
                Output::Event(event) => self.events[end].push(event),
                Output::Intrusion(_) | Output::Registered { .. } | Output::Reachable { .. } => {
                    unreachable!()
                }
                Output::Transmit { destination, bytes } => {
                    assert_eq!(destination, Peer::udp(address(ENDS[1 - end])));
                    if !self.rng.random_bool(self.loss) {
                        let delay = Duration::from_millis(self.rng.random_range(5..60));
                        self.sequence += 1;
                        let at = (self.now + delay, self.sequence);
                        self.wire.insert(at, (1 - end, bytes));
                    }
                }
            }
        }
    }

    /// Lets time pass to what happens next; false when nothing will within the limit.
    fn step(&mut self, limit: Instant) -> bool {
        let packet = self.wire.first_key_value().map(|((at, _), _)| *at);
        let timers = self.agents.iter().filter_map(Agent::deadline);
        let Some(next) = timers.chain(packet).min().filter(|at| *at <= limit) else {
            self.now = limit;
            return false;
        };
        self.now = self.now.max(next);
        if packet == Some(next)
            && let Some((_, (end, bytes))) = self.wire.pop_first()
        {
            let source = address(ENDS[1 - end]);
            self.agents[end].handle(self.now, Input::datagram(source, bytes));
        }
        for end in 0..2 {
            self.agents[end].handle(self.now, Input::Tick);
            self.collect(end);
        }
        true
    }

    fn run(&mut self, time: Duration) {
        let limit = self.now + time;
        while self.step(limit) {}
    }

    /// Runs until the end reports something that `is` picks, and takes it out.
    fn until(&mut self, end: usize, is: impl Fn(&Event) -> bool) -> Event {
        let limit = self.now + Duration::from_secs(120);
        loop {
            if let Some(at) = self.events[end].iter().position(&is) {
                return self.events[end].remove(at);
            }
            assert!(self.step(limit), "nothing more happens");
        }
    }

    fn call(&mut self) -> Leg {
        let leg = self.agents[0].next_leg();
        self.command(
            0,
            Command::Invite {
                leg,
                call: Box::new(Placement {
                    target: format!("sip:1000@{US}"),
                    destinations: vec![Peer::udp(address(US))],
                    from: "\"James\" <sip:+14155550100@192.0.2.1>".into(),
                    headers: vec![("X-Account".into(), "7".into())],
                    sdp: OFFER.into(),
                    trunk: Arc::default(),
                }),
            },
        );
        leg
    }

    fn offered(&mut self) -> Leg {
        match self.until(1, |event| matches!(event, Event::Offered { .. })) {
            Event::Offered { leg, .. } => leg,
            _ => unreachable!(),
        }
    }

    /// A call that both sides regard as up.
    fn up(&mut self) -> [Leg; 2] {
        let out = self.call();
        let incoming = self.offered();
        self.command(1, Command::Answer { leg: incoming, sdp: OFFER.into() });
        self.until(0, |event| matches!(event, Event::Answered { .. }));
        self.until(1, |event| matches!(event, Event::Established { .. }));
        [out, incoming]
    }

    fn ends(&self, end: usize) -> Vec<&Cause> {
        let causes = self.events[end].iter().filter_map(|event| match event {
            Event::Ended { cause, .. } => Some(cause),
            _ => None,
        });
        causes.collect()
    }

    /// After everything is over, nothing may be remembered.
    fn assert_forgotten(&mut self) {
        self.run(Duration::from_secs(400));
        for agent in &self.agents {
            assert_eq!(agent.calls(), 0);
            assert!(agent.sessions.is_empty() && agent.dialogs.is_empty());
            assert!(agent.clients.is_empty() && agent.servers.is_empty());
            assert!(agent.transactions.is_empty());
            assert_eq!(agent.deadline(), None);
        }
    }
}

#[test]
fn a_thousand_calls_complete_at_ten_percent_loss() {
    let mut repeated = 0;
    for seed in 0..1000 {
        let mut link = Link::new(seed, 0.1);
        let legs = link.up();
        let who = (seed % 2) as usize;
        link.run(Duration::from_secs(seed % 3));
        link.command(who, hang_up(legs[who]));
        link.until(1 - who, |event| matches!(event, Event::Ended { .. }));
        link.assert_forgotten();
        assert_eq!(link.ends(who), [&Cause::WeHungUp], "seed {seed}");
        repeated += link.agents[0].counters().retransmitted;
    }
    assert!(repeated > 300, "the link lost nothing: {repeated}");
}

#[test]
fn cancel_races_the_answer() {
    let (mut cancelled, mut crossed) = (0, 0);
    for seed in 0..300 {
        // A lost 180 is not repeated, and without it there is no CANCEL to race.
        let mut link = Link::new(seed, 0.0);
        let leg = link.call();
        let incoming = link.offered();
        link.command(1, Command::Ring { leg: incoming });
        link.until(0, |event| matches!(event, Event::Progress { status: 180, .. }));
        link.loss = 0.05;
        link.command(0, hang_up(leg));
        link.run(Duration::from_millis(seed % 80));
        link.command(1, Command::Answer { leg: incoming, sdp: OFFER.into() });
        link.until(1, |event| match event {
            Event::Ended { cause: Cause::Cancelled, .. } => true,
            Event::Ended { cause: Cause::PeerHungUp, .. } => true,
            Event::Ended { cause, .. } => panic!("seed {seed}: {cause:?}"),
            _ => false,
        });
        let answered = link.events[1].iter().any(|e| matches!(e, Event::Established { .. }));
        if answered {
            crossed += 1
        } else {
            cancelled += 1
        }
        link.assert_forgotten();
        assert_eq!(link.ends(0), [&Cause::WeHungUp], "seed {seed}");
        assert!(link.ends(1).is_empty(), "seed {seed}: ended twice");
    }
    assert!(cancelled > 20 && crossed > 20, "{cancelled} {crossed}");
}

#[test]
fn hanging_up_before_anything_came_back() {
    let mut link = Link::new(1, 0.0);
    let leg = link.call();
    link.command(0, hang_up(leg));
    let incoming = link.offered();
    link.until(1, |event| matches!(event, Event::Ended { cause: Cause::Cancelled, .. }));
    link.command(1, Command::Answer { leg: incoming, sdp: OFFER.into() });
    link.assert_forgotten();
    assert_eq!(link.ends(0), [&Cause::WeHungUp]);
}

#[test]
fn a_dead_peer_ends_every_wait() {
    let mut link = Link::new(1, 1.0);
    link.call();
    link.run(PATIENCE);
    assert_eq!(link.ends(0), [&Cause::Timeout]);
    let mut link = Link::new(2, 0.0);
    let [_, incoming] = link.up();
    link.loss = 1.0;
    link.command(1, hang_up(incoming));
    assert_eq!((link.ends(1), link.agents[1].calls()), (vec![&Cause::WeHungUp], 1));
    link.run(PATIENCE);
    assert_eq!(link.agents[1].calls(), 0);
}

#[test]
fn ringing_forever_is_cut_off_on_both_sides() {
    let mut link = Link::new(3, 0.0);
    link.call();
    let incoming = link.offered();
    link.command(1, Command::Ring { leg: incoming });
    link.assert_forgotten();
    assert_eq!((link.ends(0).len(), link.ends(1).len()), (1, 1));
}
