//! G.722 at 64 kbit/s. Its RTP clock is 8,000 whatever it samples (RFC 3551 §4.5.2), so that a byte
//! is a tick as in G.711. Sound inside has 8 kHz: the lower half-band alone is decoded, and what we
//! say has nothing in the upper one.

use audio_codec::g722::{Bitrate, G722Decoder, G722Encoder};
use audio_codec::{Decoder as _, Encoder as _};

use super::{decode, encode};
use crate::rtp::reorder::PAYLOAD_MAX;
use crate::sip::offer::Law;

/// Samples between two are made of this many on each side, in 16,384ths: a low-pass at 4 kHz.
const HALFWAY: [i32; HALFWAY_LEN] = [10100, -2498, 762, -172];
const HALFWAY_LEN: usize = 4;

/// Both directions of one call.
pub struct Transcoder {
    encoder: G722Encoder,
    decoder: G722Decoder,
    /// The last samples that were sent.
    past: [i16; 2 * HALFWAY_LEN],
    /// What came out last.
    bytes: [u8; PAYLOAD_MAX],
}

impl Default for Transcoder {
    fn default() -> Transcoder {
        Transcoder {
            // Its mode for 8 kHz gives every sample the same code, as of audio-codec 0.4.13.
            encoder: G722Encoder::with_options(Bitrate::Mode1_64000, false, false),
            decoder: G722Decoder::with_options(Bitrate::Mode1_64000, false, true),
            past: [0; 2 * HALFWAY_LEN],
            bytes: [0; PAYLOAD_MAX],
        }
    }
}

impl Transcoder {
    /// As [`super::Transcoder::decode`].
    pub fn decode(&mut self, payload: &[u8]) -> Option<&[u8]> {
        if payload.len() > PAYLOAD_MAX {
            return None;
        }
        let mut samples = [0; PAYLOAD_MAX];
        let len = self.decoder.decode_into(payload, &mut samples).unwrap_or(0);
        for (code, &sample) in self.bytes.iter_mut().zip(&samples[..len]) {
            *code = encode(Law::Mu, sample);
        }
        Some(&self.bytes[..len])
    }

    /// As [`super::Transcoder::encode`].
    pub fn encode(&mut self, codes: &[u8]) -> &[u8] {
        let mut samples = [0; 2 * PAYLOAD_MAX];
        let codes = &codes[..codes.len().min(PAYLOAD_MAX)];
        for (pair, &code) in samples.chunks_exact_mut(2).zip(codes) {
            pair.copy_from_slice(&self.double(decode(Law::Mu, code)));
        }
        let samples = &samples[..2 * codes.len()];
        let len = self.encoder.encode_into(samples, &mut self.bytes).unwrap_or(0);
        &self.bytes[..len]
    }

    /// One sample in, at 8 kHz, and two of the past out, at 16 kHz.
    fn double(&mut self, sample: i16) -> [i16; 2] {
        self.past.copy_within(1.., 0);
        self.past[2 * HALFWAY_LEN - 1] = sample;
        let (before, after) = self.past.split_at(HALFWAY_LEN);
        let sides = before.iter().rev().zip(after).zip(HALFWAY);
        let sum: i32 = sides.map(|((a, b), weight)| (i32::from(*a) + i32::from(*b)) * weight).sum();
        let halfway = (sum >> 14).clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        [before[HALFWAY_LEN - 1], halfway]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f32, count: usize) -> Vec<u8> {
        let sample = |n: usize| (n as f32 * hz * std::f32::consts::TAU / 8000.0).sin() * 8000.0;
        (0..count).map(|n| encode(Law::Mu, sample(n) as i16)).collect()
    }

    /// Loudness of a tone in dB, and how much less there is of anything else.
    fn measure(codes: &[u8], hz: f32) -> (f32, f32) {
        let (mut sine, mut cosine, mut all) = (0.0, 0.0, 0.0);
        for (n, code) in codes.iter().enumerate() {
            let (sample, angle) =
                (f32::from(decode(Law::Mu, *code)), n as f32 * hz * std::f32::consts::TAU / 8000.0);
            sine += sample * angle.sin();
            cosine += sample * angle.cos();
            all += sample * sample;
        }
        let tone = 2.0 * (sine * sine + cosine * cosine) / codes.len() as f32;
        (10.0 * (tone / codes.len() as f32).log10(), 10.0 * (tone / (all - tone)).log10())
    }

    #[test]
    fn sound_comes_back_a_byte_for_a_tick_whatever_the_length() {
        for hz in [300.0, 697.0, 1633.0, 2_500.0] {
            let sent = tone(hz, 8_000);
            for len in [80, 160, 240, 480] {
                let (mut ours, mut theirs) = (Transcoder::default(), Transcoder::default());
                let mut back = vec![];
                for chunk in sent.chunks(len) {
                    let payload = ours.encode(chunk);
                    assert_eq!(payload.len(), chunk.len());
                    back.extend_from_slice(theirs.decode(payload).unwrap());
                }
                assert_eq!(back.len(), sent.len());
                let (before, _) = measure(&sent[800..], hz);
                let (after, clear) = measure(&back[800..], hz);
                let lost = before - after;
                assert!(lost.abs() < 1.0 && clear > 25.0, "{hz} Hz: {lost} dB lost, {clear} dB");
            }
        }
    }

    #[test]
    fn no_bytes_panic() {
        let mut state = 1u32;
        let mut transcoder = Transcoder::default();
        for round in 0..3_000usize {
            let bytes: Vec<u8> = (0..round % 500)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            transcoder.decode(&bytes);
            transcoder.encode(&bytes);
        }
    }
}
