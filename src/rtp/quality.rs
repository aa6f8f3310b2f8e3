//! How a call sounded, as a number: R and MOS by ITU-T G.107, with the figures of G.113 for G.711.

use std::fmt;
use std::time::Duration;

/// One call's media at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// RTP packets that the peer sent, as their numbers tell.
    pub expected: u64,
    /// Of them, those that never came.
    pub lost: u64,
    /// Came, but after their turn.
    pub late: u64,
    /// Of both, those that were heard from a copy in the next packet.
    pub recovered: u64,
    /// RFC 3550 A.8, at the end and at its worst.
    pub jitter: Duration,
    pub jitter_max: Duration,
    /// The shortest that RTCP measured: there and back, without the peer's own delay.
    pub round_trip: Option<Duration>,
    /// What we heard: listening quality, and with the delay conversational quality. Both from 1 to
    /// 4.4; `None` where nothing was sent to us.
    pub mos: Option<Mos>,
    /// What the peer reported of us.
    pub peer: Option<PeerReport>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mos {
    pub listening: f32,
    pub conversational: f32,
}

/// The last report block about us (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// Of our packets, over the whole call.
    pub lost: i32,
    /// Of those since its report before, in 256ths.
    pub fraction_lost: u8,
    pub jitter: Duration,
}

impl PeerReport {
    /// What it has lost lately.
    pub fn percent_lost(self) -> u8 {
        (u16::from(self.fraction_lost) * 100).div_ceil(256) as u8
    }
}

impl Mos {
    /// `lost` of `expected` packets were not heard; `delay` is from mouth to ear.
    pub fn of(lost: u64, expected: u64, delay: Duration) -> Mos {
        let percent = 100.0 * lost as f32 / expected.max(1) as f32;
        let loss = 95.0 * percent / (percent + ROBUSTNESS);
        let ms = delay.as_secs_f32() * 1000.0;
        let late = 0.024 * ms + 0.11 * (ms - 177.3).max(0.0);
        Mos { listening: mos(R_BEST - loss), conversational: mos(R_BEST - late - loss) }
    }
}

/// R of a narrow-band call without loss or delay (G.107).
const R_BEST: f32 = 93.2;
/// Bpl of G.711 with concealment (G.113).
const ROBUSTNESS: f32 = 25.1;

/// G.107 Annex B.
fn mos(r: f32) -> f32 {
    let r = r.clamp(0.0, 100.0);
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
}

/// One line for a log.
impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_micros() as f32 / 1000.0;
        let Quality { expected, lost, late, recovered, .. } = self;
        write!(f, "{lost} of {expected} packets lost, {late} late")?;
        if *recovered > 0 {
            write!(f, ", {recovered} of them recovered")?;
        }
        write!(f, ", jitter {:.1} ms (max {:.1})", ms(self.jitter), ms(self.jitter_max))?;
        if let Some(round_trip) = self.round_trip {
            write!(f, ", round trip {:.1} ms", ms(round_trip))?;
        }
        if let Some(Mos { listening, conversational }) = self.mos {
            write!(f, ", MOS-LQ {listening:.2}, MOS-CQ {conversational:.2}")?;
        }
        if let Some(PeerReport { lost, jitter, .. }) = self.peer {
            write!(f, "; the peer: {lost} lost, jitter {:.1} ms", ms(jitter))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mos_by_the_tables_of_g107() {
        // Loss in percent, delay in ms, and the MOS that follows by hand from R.
        for (lost, delay_ms, listening, conversational) in [
            (0, 0, 4.409, 4.409),
            (0, 100, 4.409, 4.358),
            (0, 300, 4.409, 3.712),
            (5, 0, 3.923, 3.923),
            (10, 150, 3.411, 3.230),
            (100, 400, 1.177, 1.0),
        ] {
            let mos = Mos::of(lost, 100, Duration::from_millis(delay_ms));
            let close = |a: f32, b: f32| (a - b).abs() < 0.002;
            assert!(close(mos.listening, listening), "{lost} % {delay_ms} ms: {mos:?}");
            assert!(close(mos.conversational, conversational), "{lost} % {delay_ms} ms: {mos:?}");
        }
    }

    #[test]
    fn more_loss_or_delay_never_sounds_better() {
        let mut last = 5.0;
        for percent in 0..=100 {
            let mos = Mos::of(percent, 100, Duration::from_millis(percent * 5)).conversational;
            assert!((1.0..=last).contains(&mos), "{percent}: {mos}");
            last = mos;
        }
    }
}
