//! RTCP, RFC 3550 §6: a report of ours every few seconds, and what the peer's reports say of us
//! and of the way there.

use std::time::{Duration, Instant};

use rtcp_types::{
    Bye, Compound, Packet, ReceiverReport, ReportBlock, RtcpPacketWriter, RtcpPacketWriterExt,
    Sdes, SdesChunk, SdesItem, SenderReport,
};

use super::quality::PeerReport;
use super::reception::{Block, Reception};

/// The mean time between reports; each comes after half to one and a half of it.
const INTERVAL: Duration = Duration::from_secs(5);
/// A round trip beyond this is a mistake.
const ROUND_TRIP_MAX: u32 = 60 << 16;

/// One call's RTCP. The time is ours since the call began, not the wall clock's: a receiver needs
/// no more (RFC 3550 §6.4.1).
pub struct Control {
    ssrc: u32,
    /// Names us for as long as the call lasts, RFC 7022 §4.2: 96 random bits.
    name: String,
    /// Draws the intervals.
    chance: u32,
    epoch: Instant,
    /// Of the next report; `None` before the first time that there was anybody to send to.
    due: Option<Instant>,
    /// What the last report said was sent.
    told: Option<Sent>,
    /// The peer's last sender report: the middle of its NTP time, and when it came.
    heard: Option<(u32, Instant)>,
    round_trip: Option<Duration>,
    peer: Option<PeerReport>,
    /// Ticks per second of the RTP clock.
    clock: u32,
}

/// What we have sent so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub packets: u32,
    /// Of payload.
    pub octets: u32,
    /// RTP timestamp of now.
    pub timestamp: u32,
}

/// Not a compound RTCP packet that begins with a report (RFC 3550 A.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Control {
    /// `chance` is random: 96 bits of it are shown to the peer as our name, 32 are kept.
    pub fn new(now: Instant, ssrc: u32, chance: u128) -> Control {
        Control {
            ssrc,
            name: format!("{:024x}", chance >> 32),
            chance: chance as u32,
            epoch: now,
            due: None,
            told: None,
            heard: None,
            round_trip: None,
            peer: None,
            clock: 8000,
        }
    }

    /// Ticks per second of the RTP clock that both sides agreed on.
    pub fn set_clock(&mut self, clock: u32) {
        self.clock = clock.max(1);
    }

    /// Whether a report is due. The first time there is somebody to send to starts the clock.
    pub fn is_due(&mut self, now: Instant) -> bool {
        match self.due {
            Some(due) => now >= due,
            None => {
                // The first comes after half the time (RFC 3550 §6.2).
                self.due = Some(now + self.interval() / 2);
                false
            }
        }
    }

    /// A report, written into `packet`: its length.
    pub fn report(
        &mut self,
        now: Instant,
        sent: Sent,
        reception: &mut Reception,
        packet: &mut [u8],
    ) -> Option<usize> {
        self.due = Some(now + self.interval());
        let len = self.write_report(now, sent, reception, packet)?;
        Some(len + write(&self.named(), &mut packet[len..])?)
    }

    /// The last report, with a BYE; `None` if nobody has ever heard of us (§6.3.7).
    pub fn goodbye(
        &mut self,
        now: Instant,
        sent: Sent,
        reception: &mut Reception,
        packet: &mut [u8],
    ) -> Option<usize> {
        if sent.packets == 0 && self.told.is_none() {
            return None;
        }
        let len = self.report(now, sent, reception, packet)?;
        let bye = Bye::builder().add_source(self.ssrc);
        Some(len + write(&bye, &mut packet[len..])?)
    }

    /// What the peer sent, whoever the peer is: that is for the caller to know.
    pub fn receive(&mut self, now: Instant, bytes: &[u8]) -> Result<(), Malformed> {
        let heard = Heard::read(bytes, self.ssrc)?;
        if let Some(sent) = heard.sent {
            self.heard = Some((sent, now));
        }
        if let Some(about) = heard.about {
            self.believe(now, about);
        }
        Ok(())
    }

    /// The shortest that was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub fn peer(&self) -> Option<PeerReport> {
        self.peer
    }

    fn believe(&mut self, now: Instant, about: AboutUs) {
        let jitter = u64::from(about.jitter) * 1_000_000 / u64::from(self.clock);
        let AboutUs { lost, fraction_lost, .. } = about;
        self.peer = Some(PeerReport { lost, fraction_lost, jitter: Duration::from_micros(jitter) });
        if about.last_report == 0 {
            return;
        }
        let trip = self.short_time(now).wrapping_sub(about.last_report).wrapping_sub(about.delay);
        // The clocks may count a little past each other; everything else is not ours.
        let trip = if trip > u32::MAX - (1 << 16) { 0 } else { trip };
        if trip <= ROUND_TRIP_MAX {
            let trip = Duration::from_micros((u64::from(trip) * 1_000_000) >> 16);
            self.round_trip = Some(self.round_trip.map_or(trip, |shortest| shortest.min(trip)));
        }
    }

    /// A sender's report if we have sent since the last one, else a receiver's.
    fn write_report(
        &mut self,
        now: Instant,
        sent: Sent,
        reception: &mut Reception,
        packet: &mut [u8],
    ) -> Option<usize> {
        let block = reception.block().map(|block| {
            let (last, delay) = self.heard.map_or((0, 0), |(last, at)| (last, delay(at, now)));
            written(&block)
                .last_sender_report_timestamp(last)
                .delay_since_last_sender_report_timestamp(delay)
        });
        let before = self.told.replace(sent).map_or(0, |told| told.packets);
        if sent.packets == before {
            let report = ReceiverReport::builder(self.ssrc);
            return match block {
                Some(block) => write(&report.add_report_block(block), packet),
                None => write(&report, packet),
            };
        }
        let report = SenderReport::builder(self.ssrc)
            .ntp_timestamp(self.long_time(now))
            .rtp_timestamp(sent.timestamp)
            .packet_count(sent.packets)
            .octet_count(sent.octets);
        match block {
            Some(block) => write(&report.add_report_block(block), packet),
            None => write(&report, packet),
        }
    }

    fn named(&self) -> impl RtcpPacketWriter + '_ {
        let name = SdesItem::builder(SdesItem::CNAME, &self.name);
        Sdes::builder().add_chunk(SdesChunk::builder(self.ssrc).add_item(name))
    }

    /// Seconds and their 2^32nd parts since a second before the call began: 0 means unknown.
    fn long_time(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.epoch) + Duration::from_secs(1);
        let fraction = (u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000;
        elapsed.as_secs() << 32 | fraction
    }

    fn short_time(&self, now: Instant) -> u32 {
        (self.long_time(now) >> 16) as u32
    }

    /// Half to one and a half of [`INTERVAL`], so that no two calls keep step.
    fn interval(&mut self) -> Duration {
        self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        INTERVAL / 2 + INTERVAL * (self.chance >> 16) / (1 << 16)
    }
}

/// In 65,536ths of a second.
fn delay(since: Instant, now: Instant) -> u32 {
    let micros = now.saturating_duration_since(since).as_micros() as u64;
    ((micros << 16) / 1_000_000).min(u64::from(u32::MAX)) as u32
}

fn written(block: &Block) -> rtcp_types::ReportBlockBuilder {
    ReportBlock::builder(block.ssrc)
        .fraction_lost(block.fraction_lost)
        .cumulative_lost(block.lost as u32 & 0xff_ffff)
        .extended_sequence_number(block.highest)
        .interarrival_jitter(block.jitter)
}

fn write(part: &impl RtcpPacketWriter, packet: &mut [u8]) -> Option<usize> {
    part.write_into(packet).ok()
}

/// What matters to us of a compound packet.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    /// The middle of the NTP time in a sender's report.
    sent: Option<u32>,
    about: Option<AboutUs>,
}

/// The report block about us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AboutUs {
    lost: i32,
    fraction_lost: u8,
    jitter: u32,
    /// The middle of the NTP time of our last report that came; 0: none.
    last_report: u32,
    /// For how long they had it, in 65,536ths of a second.
    delay: u32,
}

impl Heard {
    /// All of it must be sound before any of it is believed.
    fn read(bytes: &[u8], ssrc: u32) -> Result<Heard, Malformed> {
        let mut heard = Heard::default();
        let packets = Compound::parse(bytes).map_err(|_| Malformed)?;
        for (nth, packet) in packets.enumerate() {
            match packet.map_err(|_| Malformed)? {
                Packet::Sr(report) => {
                    heard.sent = Some((report.ntp_timestamp() >> 16) as u32);
                    heard.find(report.report_blocks(), ssrc);
                }
                Packet::Rr(report) => heard.find(report.report_blocks(), ssrc),
                _ if nth == 0 => return Err(Malformed),
                _ => {}
            }
        }
        Ok(heard)
    }

    fn find<'a>(&mut self, mut blocks: impl Iterator<Item = ReportBlock<'a>>, ssrc: u32) {
        let Some(block) = blocks.find(|block| block.ssrc() == ssrc) else { return };
        self.about = Some(AboutUs {
            // The field has 24 bits and a sign.
            lost: (block.cumulative_lost() << 8) as i32 >> 8,
            fraction_lost: block.fraction_lost(),
            jitter: block.interarrival_jitter(),
            last_report: block.last_sender_report_timestamp(),
            delay: block.delay_since_last_sender_report_timestamp(),
        });
    }
}

/// Fuzz body: four bytes are our SSRC, the rest is refused or read, the same each time.
pub fn fuzz(bytes: &[u8]) {
    let Some((ssrc, packet)) = bytes.split_first_chunk::<4>() else { return };
    let ssrc = u32::from_be_bytes(*ssrc);
    let heard = Heard::read(packet, ssrc);
    assert_eq!(heard, Heard::read(packet, ssrc));
    assert!(heard.is_err() || super::packet::is_rtcp(packet));
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::rtp::packet::Header;

    const SENT: Sent = Sent { packets: 9, octets: 9 * 160, timestamp: 77 };

    /// One end: its RTCP, and what it received of the other.
    struct End {
        control: Control,
        reception: Reception,
    }

    fn end(now: Instant, ssrc: u32) -> End {
        let chance = u128::from(ssrc) << 64 | 5;
        End { control: Control::new(now, ssrc, chance), reception: Reception::new(now, 8000) }
    }

    fn report(end: &mut End, now: Instant, sent: Sent) -> Vec<u8> {
        let mut packet = [0; 256];
        let len = end.control.report(now, sent, &mut end.reception, &mut packet).unwrap();
        packet[..len].to_vec()
    }

    fn hear(end: &mut End, now: Instant, ssrc: u32, numbers: std::ops::Range<u16>) {
        for sequence in numbers {
            let timestamp = u32::from(sequence) * 160;
            let header = Header { marker: false, payload_type: 0, sequence, timestamp, ssrc };
            end.reception.note(now, &header, false);
        }
    }

    #[test]
    fn the_round_trip_is_measured_without_the_peers_delay() {
        let now = Instant::now();
        let ms = |ms: u64| now + Duration::from_millis(ms);
        let (mut a, mut b) = (end(now, 1), end(ms(700), 2));
        let sent = report(&mut a, ms(1000), SENT);
        b.control.receive(ms(1030), &sent).unwrap();
        hear(&mut b, ms(1030), 1, 0..3);
        let back = report(&mut b, ms(4000), SENT);
        a.control.receive(ms(4050), &back).unwrap();
        let trip = a.control.round_trip().unwrap().as_micros();
        assert!((79_900..80_100).contains(&trip), "{trip} us");
        assert_eq!(b.control.round_trip(), None, "A has not heard B when it reported");
        // A longer one does not replace it, a shorter one does.
        a.control.receive(ms(4090), &back).unwrap();
        assert_eq!(a.control.round_trip().unwrap().as_micros(), trip);
        a.control.receive(ms(4010), &back).unwrap();
        assert!(a.control.round_trip().unwrap().as_micros() < trip - 30_000);
        // Clocks that differ by less than what was measured: none at all, not an hour.
        a.control.receive(ms(3960), &back).unwrap();
        assert_eq!(a.control.round_trip(), Some(Duration::ZERO));
    }

    #[test]
    fn the_peers_loss_and_jitter_are_read_and_those_of_others_are_not() {
        let now = Instant::now();
        let (mut a, mut b) = (end(now, 1), end(now, 2));
        hear(&mut b, now, 1, 0..5);
        hear(&mut b, now, 1, 10..20);
        let back = report(&mut b, now, SENT);
        a.control.receive(now, &back).unwrap();
        let expected = PeerReport { lost: 5, fraction_lost: 64, jitter: Duration::ZERO };
        assert_eq!(a.control.peer(), Some(expected));
        let mut other = end(now, 3);
        other.control.receive(now, &back).unwrap();
        assert_eq!(other.control.peer(), None);
        // More duplicates than losses: a negative number in 24 bits.
        for _ in 0..7 {
            hear(&mut b, now, 1, 19..20);
        }
        a.control.receive(now, &report(&mut b, now, SENT)).unwrap();
        assert_eq!(a.control.peer().unwrap().lost, -2);
    }

    #[test]
    fn who_has_sent_makes_a_senders_report_who_has_not_a_receivers() {
        let now = Instant::now();
        let mut a = end(now, 1);
        let kind = |packet: &[u8]| packet[1];
        assert_eq!(kind(&report(&mut a, now, Sent { packets: 0, ..SENT })), 201);
        let sender = report(&mut a, now, SENT);
        assert_eq!(kind(&sender), 200);
        assert_eq!(kind(&report(&mut a, now, SENT)), 201, "nothing since");
        let mut packets = Compound::parse(&sender).unwrap();
        let Some(Ok(Packet::Sr(report))) = packets.next() else { panic!("no sender's report") };
        assert_eq!((report.ssrc(), report.rtp_timestamp()), (1, 77));
        assert_eq!((report.packet_count(), report.octet_count()), (9, 1440));
        let Some(Ok(Packet::Sdes(names))) = packets.next() else { panic!("no name") };
        let chunk = names.chunks().next().unwrap();
        let name = chunk.items().next().unwrap();
        assert_eq!((chunk.ssrc(), name.type_()), (1, SdesItem::CNAME));
        assert_eq!(
            name.value(),
            b"000000000000000100000000",
            "the bits that are kept are not in it"
        );
    }

    #[test]
    fn reports_are_spread_and_never_more_often_than_half_the_interval() {
        let now = Instant::now();
        let mut a = end(now, 1);
        assert!(!a.control.is_due(now));
        let (mut last, mut gaps) = (now, vec![]);
        for turn in 0..100_000u32 {
            let now = now + Duration::from_millis(20) * turn;
            if a.control.is_due(now) {
                report(&mut a, now, SENT);
                gaps.push((now - last).as_secs_f32());
                last = now;
            }
        }
        assert!((1.25..3.8).contains(&gaps[0]), "{}", gaps[0]);
        let rest = &gaps[1..];
        assert!(rest.iter().all(|gap| (2.5..7.53).contains(gap)), "{rest:?}");
        let mean = rest.iter().sum::<f32>() / rest.len() as f32;
        assert!((4.8..5.2).contains(&mean), "{mean}");
        assert!(rest.iter().any(|gap| *gap < 3.0) && rest.iter().any(|gap| *gap > 7.0));
    }

    #[test]
    fn goodbye_is_said_only_by_who_has_been_heard() {
        let now = Instant::now();
        let mut packet = [0; 256];
        let mut a = end(now, 1);
        let none = Sent { packets: 0, ..SENT };
        assert_eq!(a.control.goodbye(now, none, &mut a.reception, &mut packet), None);
        let len = a.control.goodbye(now, SENT, &mut a.reception, &mut packet).unwrap();
        let last = Compound::parse(&packet[..len]).unwrap().last();
        let Some(Ok(Packet::Bye(bye))) = last else { panic!("no BYE") };
        assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn what_does_not_begin_with_a_report_or_is_cut_is_refused_whole() {
        let now = Instant::now();
        let (mut a, mut b) = (end(now, 1), end(now, 2));
        hear(&mut b, now, 1, 0..3);
        let good = report(&mut b, now, SENT);
        for len in 0..good.len() {
            // Where it may end: after its first part.
            let whole = len == 52;
            assert_eq!(a.control.receive(now, &good[..len]).is_ok(), whole, "{len}");
        }
        assert_eq!(a.control.receive(now, &good[52..]), Err(Malformed), "a name alone");
        assert_eq!(a.control.receive(now, &[0x80, 200, 0, 0]), Err(Malformed));
        assert_eq!(a.control.receive(now, &good), Ok(()));
    }
}
