//! Who may send to us: the address of the peer's SDP, or behind NAT one steady source that
//! proved itself. Everyone else is a stranger, whatever SSRC it uses (RTP bleed).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::sip::profile::Latch;

/// A challenger is believed after this many packets in unbroken sequence ...
const PROBATION_PACKETS: u32 = 8;
/// ... that took at least this long: a flood proves nothing.
const PROBATION_TIME: Duration = Duration::from_millis(120);
/// A challenger that pauses longer makes room for another.
const CHALLENGER_SILENCE: Duration = Duration::from_millis(500);
/// The believed source may be replaced, by one that proves itself, after this long without it.
const BELIEVED_SILENCE: Duration = Duration::from_secs(2);

pub struct Gate {
    policy: Latch,
    /// The address of the peer's SDP.
    expected: Option<SocketAddr>,
    /// The one source believed, with `Latch::Nat`.
    believed: Option<SocketAddr>,
    /// Locked: nobody else is listened to until the session is renegotiated, or the source has
    /// been silent for long; with when it was heard last.
    locked: Option<Instant>,
    /// Where others than the peer of the SDP may send from; empty: anywhere.
    networks: Vec<IpNet>,
    challenger: Option<Challenger>,
    /// Where the believed peer's RTCP was heard from, with `Latch::Nat`.
    control: Option<SocketAddr>,
    /// Where the peer says that its RTCP is.
    expected_control: Option<SocketAddr>,
}

struct Challenger {
    source: SocketAddr,
    next: u16,
    packets: u32,
    since: Instant,
    last: Instant,
}

impl Gate {
    pub fn new(policy: Latch) -> Gate {
        Gate {
            policy,
            expected: None,
            believed: None,
            locked: None,
            networks: Vec::new(),
            challenger: None,
            control: None,
            expected_control: None,
        }
    }

    /// With `Latch::Nat`, only sources within these networks may prove themselves. None: any.
    pub fn admit_only(&mut self, networks: Vec<IpNet>) {
        self.networks = networks;
    }

    /// A new offer/answer. The source believed so far stays so while `remote` is unchanged, but
    /// another may now prove itself: the peer may have renegotiated because it moved.
    pub fn renegotiate(&mut self, remote: Option<SocketAddr>, control: Option<SocketAddr>) {
        if self.expected != remote {
            self.believed = None;
        }
        self.control = None;
        self.expected_control = control;
        self.expected = remote;
        self.locked = None;
        self.challenger = None;
    }

    /// Whether a packet with this RTP sequence number is the peer's.
    pub fn admit(&mut self, now: Instant, source: SocketAddr, sequence: u16) -> bool {
        match self.policy {
            Latch::Strict => self.expected == Some(source),
            Latch::Nat => self.admit_nat(now, source, sequence),
        }
    }

    /// Whether RTCP from `source` is the peer's; `muxed` if it came to our RTP port.
    pub fn admits_control(&self, source: SocketAddr, muxed: bool) -> bool {
        match (self.policy, muxed) {
            (Latch::Strict, true) => self.expected == Some(source),
            (Latch::Strict, false) => self.expected_control == Some(source),
            (Latch::Nat, true) => self.believed == Some(source),
            // A NAT gives each port another one, but of the same address.
            (Latch::Nat, false) => match self.control {
                Some(known) => known == source,
                None => self.believed.is_some_and(|peer| peer.ip() == source.ip()),
            },
        }
    }

    /// RTCP that was admitted has proved to be the peer's.
    pub fn heard_control(&mut self, source: SocketAddr) {
        if self.believed != Some(source) {
            self.control.get_or_insert(source);
        }
    }

    /// Where RTCP goes, if the peer's SDP says `stated`; `None` while nobody knows.
    pub fn control_remote(&self, stated: SocketAddr) -> Option<SocketAddr> {
        let behind_nat = self.policy == Latch::Nat && self.believed != self.expected;
        if behind_nat { self.control } else { Some(stated) }
    }

    /// Whether nothing from `source` will be taken, whatever it is.
    pub fn is_stranger(&self, now: Instant, source: SocketAddr) -> bool {
        match self.policy {
            Latch::Strict => self.expected != Some(source),
            Latch::Nat if self.believed == Some(source) || self.expected == Some(source) => {
                self.is_locked(now) && self.believed != Some(source)
            }
            Latch::Nat => self.expected.is_none() || self.is_locked(now) || !self.is_within(source),
        }
    }

    /// Where to send: where the peer was heard from, or else the address of its SDP.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.expected.map(|expected| self.believed.unwrap_or(expected))
    }

    /// Whether it is known that `remote` is the peer: always with `Strict`, and with `Nat` once a
    /// source is believed. Until then nothing personal may be sent.
    pub fn is_certain(&self) -> bool {
        match self.policy {
            Latch::Strict => self.expected.is_some(),
            Latch::Nat => self.believed.is_some(),
        }
    }

    fn admit_nat(&mut self, now: Instant, source: SocketAddr, sequence: u16) -> bool {
        if self.expected.is_none() {
            return false;
        }
        if self.is_locked(now) {
            let peer = self.believed == Some(source);
            if peer {
                self.locked = Some(now);
            }
            return peer;
        }
        let by_sdp = self.expected == Some(source);
        if self.believed.is_none() && by_sdp {
            self.lock(now, source);
            return true;
        }
        let trusted = by_sdp || self.believed == Some(source) || self.is_within(source);
        if trusted && self.probation(now, source, sequence) {
            self.lock(now, source);
        }
        self.believed == Some(source)
    }

    fn is_locked(&self, now: Instant) -> bool {
        let silent = |last: Instant| now.saturating_duration_since(last) > BELIEVED_SILENCE;
        self.locked.is_some_and(|last| !silent(last))
    }

    fn is_within(&self, source: SocketAddr) -> bool {
        let address = source.ip().to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|net| net.contains(&address))
    }

    /// Counts one packet of a source on probation; true when it has proved itself.
    fn probation(&mut self, now: Instant, source: SocketAddr, sequence: u16) -> bool {
        let fresh = Challenger {
            source,
            next: sequence.wrapping_add(1),
            packets: 1,
            since: now,
            last: now,
        };
        let Some(challenger) = &mut self.challenger else {
            self.challenger = Some(fresh);
            return false;
        };
        if challenger.source != source {
            let gone = now.saturating_duration_since(challenger.last) > CHALLENGER_SILENCE;
            // The believed source is never kept waiting by a stranger.
            if gone || self.believed == Some(source) {
                self.challenger = Some(fresh);
            }
            return false;
        }
        if challenger.next != sequence {
            self.challenger = None;
            return false;
        }
        challenger.next = sequence.wrapping_add(1);
        challenger.packets += 1;
        challenger.last = now;
        challenger.packets >= PROBATION_PACKETS
            && now.saturating_duration_since(challenger.since) >= PROBATION_TIME
    }

    fn lock(&mut self, now: Instant, source: SocketAddr) {
        self.believed = Some(source);
        self.locked = Some(now);
        self.challenger = None;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// Sends `count` packets from `port`, one every `every_ms`; how many were let in.
    fn send(
        gate: &mut Gate,
        now: &mut Instant,
        port: u16,
        first: u16,
        count: u16,
        every: u64,
    ) -> u16 {
        let mut admitted = 0;
        for n in 0..count {
            admitted += u16::from(gate.admit(*now, address(port), first.wrapping_add(n)));
            *now += Duration::from_millis(every);
        }
        admitted
    }

    #[test]
    fn strict_believes_only_the_sdp_address_and_port() {
        let (mut gate, mut now) = (Gate::new(Latch::Strict), Instant::now());
        assert_eq!(send(&mut gate, &mut now, 4000, 0, 20, 20), 0);
        gate.renegotiate(Some(address(4000)), None);
        assert_eq!(send(&mut gate, &mut now, 4001, 0, 50, 20), 0);
        assert_eq!(send(&mut gate, &mut now, 4000, 0, 50, 20), 50);
        gate.renegotiate(Some(address(4001)), None);
        assert_eq!(gate.remote(), Some(address(4001)));
        assert_eq!(send(&mut gate, &mut now, 4000, 50, 50, 20), 0);
        gate.renegotiate(None, None);
        assert_eq!((gate.remote(), send(&mut gate, &mut now, 4001, 0, 5, 20)), (None, 0));
    }

    #[test]
    fn nat_takes_the_sdp_address_at_once_and_locks() {
        let (mut gate, mut now) = (Gate::new(Latch::Nat), Instant::now());
        gate.renegotiate(Some(address(4000)), None);
        assert!(!gate.is_certain());
        send(&mut gate, &mut now, 666, 0, 5, 20);
        assert_eq!(send(&mut gate, &mut now, 4000, 0, 1, 20), 1);
        assert_eq!(send(&mut gate, &mut now, 666, 5, 100, 20), 0);
        assert!(gate.is_certain());
        assert_eq!(gate.remote(), Some(address(4000)));
    }

    #[test]
    fn nat_believes_a_steady_source_after_probation_only() {
        let (mut gate, mut now) = (Gate::new(Latch::Nat), Instant::now());
        gate.renegotiate(Some(address(4000)), None);
        assert_eq!(send(&mut gate, &mut now, 5000, 65533, 7, 20), 0);
        assert_eq!(gate.remote(), Some(address(4000)));
        assert_eq!(send(&mut gate, &mut now, 5000, 4, 1, 20), 1);
        assert_eq!(gate.remote(), Some(address(5000)));
        // Locked: not even the SDP address gets in now.
        assert_eq!(send(&mut gate, &mut now, 4000, 0, 20, 20), 0);
        gate.renegotiate(Some(address(4002)), None);
        assert_eq!(send(&mut gate, &mut now, 5000, 5, 5, 20), 0);
    }

    #[test]
    fn nat_lets_another_prove_itself_after_two_seconds_of_silence_and_not_before() {
        let (mut gate, mut now) = (Gate::new(Latch::Nat), Instant::now());
        gate.renegotiate(Some(address(4000)), None);
        send(&mut gate, &mut now, 4000, 0, 10, 20);
        // While the peer speaks nothing helps, nor in its pauses.
        for n in 10..60 {
            assert_eq!(send(&mut gate, &mut now, 5000, n, 1, 900), 0);
            assert_eq!(send(&mut gate, &mut now, 4000, n, 1, 900), 1);
        }
        assert!(gate.is_stranger(now, address(5000)));
        now += Duration::from_millis(1_200);
        assert!(!gate.is_stranger(now, address(5000)));
        assert_eq!(send(&mut gate, &mut now, 5000, 70, 9, 20), 2);
        assert_eq!((gate.remote(), gate.is_certain()), (Some(address(5000)), true));
        // The peer that comes back goes on by the same rule.
        assert_eq!(send(&mut gate, &mut now, 4000, 60, 20, 20), 0);
        now += Duration::from_millis(2_001);
        assert_eq!(send(&mut gate, &mut now, 5000, 80, 1, 20), 1, "it was only silent");
        assert_eq!(send(&mut gate, &mut now, 4000, 80, 7, 20), 0);
    }

    #[test]
    fn nat_believes_only_sources_within_the_networks_of_the_trunk() {
        let (mut gate, mut now) = (Gate::new(Latch::Nat), Instant::now());
        gate.admit_only(vec!["198.51.100.0/24".parse().unwrap()]);
        gate.renegotiate(Some(address(4000)), None);
        assert_eq!(send(&mut gate, &mut now, 5000, 0, 100, 20), 0);
        assert!(gate.is_stranger(now, address(5000)) && !gate.is_stranger(now, address(4000)));
        let inside = SocketAddr::from(([198, 51, 100, 7], 5000));
        let mut admitted = 0;
        for sequence in 0..10 {
            admitted += u16::from(gate.admit(now, inside, sequence));
            now += Duration::from_millis(20);
        }
        assert_eq!((admitted, gate.remote()), (3, Some(inside)));
    }

    #[test]
    fn a_flood_or_a_broken_sequence_proves_nothing() {
        let (mut gate, mut now) = (Gate::new(Latch::Nat), Instant::now());
        gate.renegotiate(Some(address(4000)), None);
        assert_eq!(send(&mut gate, &mut now, 666, 0, 100, 1), 0);
        let (mut gate, mut now) = (Gate::new(Latch::Nat), Instant::now());
        gate.renegotiate(Some(address(4000)), None);
        for n in 0..100 {
            assert_eq!(send(&mut gate, &mut now, 666, n * 2, 1, 20), 0);
        }
    }

    #[test]
    fn one_challenger_at_a_time() {
        let (mut gate, mut now) = (Gate::new(Latch::Nat), Instant::now());
        gate.renegotiate(Some(address(4000)), None);
        for n in 0..7 {
            assert!(!gate.admit(now, address(5000), n));
            assert!(!gate.admit(now, address(666), 900 + n));
            now += Duration::from_millis(20);
        }
        assert!(gate.admit(now, address(5000), 7));
        assert!(!gate.admit(now, address(666), 907));
        // A silent challenger makes room.
        let mut gate = Gate::new(Latch::Nat);
        gate.renegotiate(Some(address(4000)), None);
        gate.admit(now, address(666), 0);
        now += Duration::from_millis(501);
        assert_eq!(send(&mut gate, &mut now, 5000, 0, 8, 20), 1);
    }

    #[test]
    fn control_is_believed_from_where_the_sdp_says_or_beside_the_believed_source() {
        let mut gate = Gate::new(Latch::Strict);
        gate.renegotiate(Some(address(4000)), Some(address(4001)));
        assert!(
            gate.admits_control(address(4001), false) && gate.admits_control(address(4000), true)
        );
        assert!(!gate.admits_control(address(4000), false));
        assert!(!gate.admits_control(address(4001), true));
        assert_eq!(gate.control_remote(address(4001)), Some(address(4001)));
        let (mut gate, mut now) = (Gate::new(Latch::Nat), Instant::now());
        gate.renegotiate(Some(address(4000)), Some(address(4001)));
        assert!(!gate.admits_control(address(4001), false), "nobody is believed yet");
        send(&mut gate, &mut now, 5000, 0, 8, 20);
        assert_eq!(gate.control_remote(address(4001)), None);
        assert!(!gate.admits_control(SocketAddr::from(([192, 0, 2, 2], 5001)), false));
        assert!(gate.admits_control(address(61_000), false));
        gate.heard_control(address(61_000));
        assert!(!gate.admits_control(address(61_001), false), "one is enough");
        assert_eq!(gate.control_remote(address(4001)), Some(address(61_000)));
    }

    #[test]
    fn renegotiation_keeps_the_believed_source_until_another_proves_itself() {
        let (mut gate, mut now) = (Gate::new(Latch::Nat), Instant::now());
        gate.renegotiate(Some(address(4000)), None);
        send(&mut gate, &mut now, 5000, 0, 8, 20);
        gate.renegotiate(Some(address(4000)), None);
        assert_eq!(send(&mut gate, &mut now, 5000, 8, 3, 20), 3);
        assert_eq!(gate.remote(), Some(address(5000)));
        now += Duration::from_secs(2);
        assert_eq!(send(&mut gate, &mut now, 5002, 0, 9, 20), 2);
        assert_eq!(gate.remote(), Some(address(5002)));
    }
}
