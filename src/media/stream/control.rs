//! A stream's RTCP: reports over our odd port or beside the RTP, and what they say at the end.

use super::*;
use crate::rtp::quality::{Mos, Quality};
use crate::rtp::rtcp::Sent;

/// From mouth to ear besides the way itself: the sound of one packet.
const PACKET_TIME: Duration = TURN;

impl Stream {
    /// A datagram that arrived on the call's RTCP port.
    pub fn receive_control(&mut self, now: Instant, source: SocketAddr, bytes: &[u8]) {
        if !self.gate.admits_control(source, false) {
            self.counters.foreign += 1;
            return;
        }
        if !is_rtcp(bytes) {
            self.counters.malformed += 1;
            return;
        }
        if !self.shield.is_on() {
            return self.hear_report(now, source, bytes);
        }
        match self.shield.unprotect_control(bytes) {
            Ok(plain) => self.hear_report(now, source, &plain),
            Err(refused) => self.count_refused(refused),
        }
    }

    /// The report that is due in this turn, if one is: how long it is, and which way it goes. Call
    /// it after [`Stream::transmit`].
    pub fn report(&mut self, now: Instant, packet: &mut [u8; PACKET_MAX]) -> Option<(usize, Rtcp)> {
        let way = self.agreed?.rtcp?;
        if !self.control.is_due(now) {
            return None;
        }
        self.send_report(now, way, packet, Control::report)
    }

    /// The last report, when the call is over.
    pub fn goodbye(
        &mut self,
        now: Instant,
        packet: &mut [u8; PACKET_MAX],
    ) -> Option<(usize, Rtcp)> {
        let way = self.agreed?.rtcp?;
        self.send_report(now, way, packet, Control::goodbye)
    }

    /// How the call has sounded so far.
    pub fn quality(&self) -> Quality {
        let Counters { late, duplicate, recovered, .. } = self.counters;
        let tally = self.heard.tally();
        let lost = (tally.expected + duplicate).saturating_sub(tally.received);
        let round_trip = self.control.round_trip();
        let delay = round_trip.unwrap_or_default() / 2 + PACKET_TIME;
        let expected = tally.expected;
        let unheard = (lost + late).saturating_sub(recovered);
        Quality {
            expected,
            lost,
            late,
            recovered,
            jitter: self.heard.jitter(),
            jitter_max: self.heard.jitter_max(),
            round_trip,
            mos: (expected > 0).then(|| Mos::of(unheard, expected, delay)),
            peer: self.control.peer(),
        }
    }

    /// RTCP of the peer, decrypted.
    pub(super) fn hear_report(&mut self, now: Instant, source: SocketAddr, bytes: &[u8]) {
        match self.control.receive(now, bytes) {
            Ok(()) => {
                self.counters.rtcp += 1;
                self.gate.heard_control(source);
                self.hear_life(now);
                if let (Some(coder), Some(peer)) = (&mut self.transcoder, self.control.peer()) {
                    coder.expect_loss(peer.percent_lost());
                }
            }
            Err(Malformed) => self.counters.malformed += 1,
        }
    }

    fn send_report(
        &mut self,
        now: Instant,
        way: Rtcp,
        packet: &mut [u8; PACKET_MAX],
        write: fn(&mut Control, Instant, Sent, &mut Reception, &mut [u8]) -> Option<usize>,
    ) -> Option<(usize, Rtcp)> {
        let way = match way {
            Rtcp::Muxed => way,
            Rtcp::Apart(stated) => Rtcp::Apart(self.gate.control_remote(stated)?),
        };
        let sent = self.out.sent(self.counters.sent);
        let room = PACKET_MAX - GROWTH_MAX;
        let len = write(&mut self.control, now, sent, &mut self.heard, &mut packet[..room])?;
        let len = match self.shield.is_on() {
            true => self.shield.protect_control(packet, len)?,
            false => len,
        };
        self.counters.reports += 1;
        Some((len, way))
    }
}
