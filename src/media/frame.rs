//! 20 ms of sound on the wire: 160 bytes of G.711, and packets of any length cut into such.

/// Samples per second, the G.711 rate and RTP clock.
pub const RATE: u32 = 8000;
/// Samples, and bytes of G.711, in a frame.
pub const SAMPLES: usize = 160;
/// Milliseconds in a frame.
pub const FRAME_MS: u32 = 20;

/// One frame in G.711.
pub type Frame = [u8; SAMPLES];

/// Cuts payloads of any length into frames, in order.
pub struct Cutter {
    frame: Frame,
    filled: usize,
}

impl Cutter {
    pub fn new() -> Cutter {
        Cutter { frame: [0; SAMPLES], filled: 0 }
    }

    /// Adds `bytes`; `each` gets every frame that became full.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&Frame)) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(SAMPLES - self.filled));
            self.frame[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == SAMPLES {
                self.filled = 0;
                each(&self.frame);
            }
        }
    }
}

impl Default for Cutter {
    fn default() -> Cutter {
        Cutter::new()
    }
}

/// The product of two stretches of sound, of as much as both have. Eight sums side by side, as the
/// machine likes them.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let len = a.len().min(b.len());
    let (a, a_rest) = a[..len].as_chunks::<8>();
    let (b, b_rest) = b[..len].as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_of_as_much_as_both_have() {
        let sound: Vec<f32> = (0..30u8).map(f32::from).collect();
        for lag in 0..30 {
            let expected: f32 = (lag..30).map(|at| (at * (at - lag)) as f32).sum();
            assert_eq!(dot(&sound, &sound[lag..]), expected, "{lag}");
        }
    }

    #[test]
    fn payloads_of_any_length_become_the_same_frames() {
        let sound: Vec<u8> = (0..960u32).map(|n| (n % 251) as u8).collect();
        for len in [80, 160, 240, 320, 480, 7] {
            let mut cutter = Cutter::new();
            let mut frames = vec![];
            for payload in sound.chunks(len) {
                cutter.push(payload, |frame| frames.extend_from_slice(frame));
            }
            assert_eq!(frames, sound, "{len} bytes per payload");
        }
    }
}
