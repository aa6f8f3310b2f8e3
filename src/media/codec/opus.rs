//! Opus (RFC 6716) at 8 kHz and on one channel, whatever the peer sends: its decoder gives any
//! packet at the rate that is asked for. The RTP clock of 48,000 is the stream's affair.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ropus::{Application, Bitrate, Channels, DecodeMode, Decoder, Encoder, InbandFec, Signal};

use super::{decode, encode};
use crate::media::frame::RATE;
use crate::rtp::reorder::PAYLOAD_MAX;
use crate::sip::offer::{Law, Opus};

/// Bits per second, on average: more than enough for speech of 8 kHz.
const BITRATE: u32 = 20_000;
/// Of 0 to 10. The most takes three times as long; with less than this libopus has no bits left for
/// what a peer recovers lost packets from.
const COMPLEXITY: u8 = 2;
/// What a peer that can recover a lost packet from the next is expected to lose, in per cent.
const LOSS: u8 = 5;
/// Samples of 10 ms: every packet has some of these.
const TENTH: usize = 80;
const TENTHS_MAX: usize = PAYLOAD_MAX / TENTH;
/// Lost packets that the decoder is told of; by then it has faded out.
const CONCEALED_MAX: u16 = 3;

/// Both directions of one call.
pub struct Transcoder {
    wishes: Opus,
    encoder: Encoder,
    decoder: Decoder,
    /// How often the decoder had to be replaced.
    pub(super) broken: u32,
    /// What came out last.
    bytes: [u8; PAYLOAD_MAX],
}

impl Transcoder {
    pub fn new(wishes: Opus) -> Transcoder {
        let (encoder, decoder) = (encoder(wishes), decoder());
        Transcoder { wishes, encoder, decoder, broken: 0, bytes: [0; PAYLOAD_MAX] }
    }

    /// As [`super::Transcoder::decode`].
    pub fn decode(&mut self, payload: &[u8]) -> Option<&[u8]> {
        let expected = samples(payload).filter(|samples| *samples <= PAYLOAD_MAX)?;
        let mut sound = [0; PAYLOAD_MAX];
        let len = self.guarded(payload, &mut sound)?;
        // What is decoded is as long as its first byte says, or the decoder is wrong.
        for (code, &sample) in self.bytes.iter_mut().zip(sound.get(..len)?) {
            *code = encode(Law::Mu, sample);
        }
        (len == expected).then_some(&self.bytes[..len])
    }

    /// As [`super::Transcoder::lose`].
    pub fn lose(&mut self, packets: u16) {
        let mut sound = [0; 2 * TENTH];
        for _ in 0..packets.min(CONCEALED_MAX) {
            let _ = self.guarded(&[], &mut sound);
        }
    }

    /// As [`super::Transcoder::encode`]; nothing if it cannot be encoded.
    pub fn encode(&mut self, codes: &[u8]) -> &[u8] {
        let mut sound = [0; PAYLOAD_MAX];
        for (sample, &code) in sound.iter_mut().zip(codes) {
            *sample = decode(Law::Mu, code);
        }
        let tenths = (codes.len() / TENTH).clamp(1, TENTHS_MAX);
        let sound = &sound[..tenths * TENTH];
        let len = match tenths {
            // Frames there are of 10, 20, 40 and 60 ms.
            1 | 2 | 4 | 6 => encode_frame(&mut self.encoder, sound, &mut self.bytes),
            _ => encode_tenths(&mut self.encoder, sound, &mut self.bytes),
        };
        let len = len.unwrap_or_else(|| {
            self.encoder = encoder(self.wishes);
            0
        });
        &self.bytes[..len]
    }

    /// A packet is anybody's bytes: should they ever be too much for the decoder, it is a new one
    /// that hears the next, and no other call is touched.
    fn guarded(&mut self, payload: &[u8], sound: &mut [i16]) -> Option<usize> {
        let decoder = &mut self.decoder;
        let decode = || decoder.decode(payload, sound, DecodeMode::Normal);
        match catch_unwind(AssertUnwindSafe(decode)) {
            Ok(decoded) => decoded.ok(),
            Err(_) => {
                self.broken += 1;
                self.decoder = self::decoder();
                None
            }
        }
    }
}

fn encoder(wishes: Opus) -> Encoder {
    let bits = wishes.bitrate_max.map_or(BITRATE, |most| most.min(BITRATE));
    let recovery = if wishes.recovers { InbandFec::Enabled } else { InbandFec::Disabled };
    Encoder::builder(RATE, Channels::Mono, Application::Voip)
        .bitrate(Bitrate::Bits(bits))
        .complexity(COMPLEXITY)
        .signal(Signal::Voice)
        .vbr(!wishes.constant)
        .inband_fec(recovery)
        .packet_loss_perc(if wishes.recovers { LOSS } else { 0 })
        .build()
        .expect("8,000 and one channel are possible, and so is every setting")
}

fn decoder() -> Decoder {
    Decoder::new(RATE, Channels::Mono).expect("8,000 and one channel are possible")
}

/// One packet of one frame.
fn encode_frame(encoder: &mut Encoder, sound: &[i16], packet: &mut [u8]) -> Option<usize> {
    catch_unwind(AssertUnwindSafe(|| encoder.encode(sound, packet))).ok()?.ok()
}

/// One packet of any number of 10 ms, each a frame (RFC 6716 §3.2.5).
fn encode_tenths(
    encoder: &mut Encoder,
    sound: &[i16],
    packet: &mut [u8; PAYLOAD_MAX],
) -> Option<usize> {
    const FRAMES: u8 = 3;
    const VARIABLE: u8 = 0x80;
    let room = PAYLOAD_MAX / TENTHS_MAX - 4;
    let mut frame = [0; PAYLOAD_MAX];
    let (mut frames, mut len, mut lengths) = ([0; PAYLOAD_MAX], 0, [0; TENTHS_MAX]);
    let (mut first, mut count) = (None, 0);
    for sound in sound.chunks(TENTH) {
        let coded = encode_frame(encoder, sound, &mut frame[..room])?;
        let (kind, frame) = frame[..coded].split_first()?;
        // All frames of a packet are of one kind, and it is known for each how long it is.
        if first.get_or_insert(*kind) != kind || kind & FRAMES != 0 {
            break;
        }
        frames[len..len + frame.len()].copy_from_slice(frame);
        len += frame.len();
        lengths[count] = frame.len() as u8;
        count += 1;
    }
    packet[..2].copy_from_slice(&[first? | FRAMES, VARIABLE | count as u8]);
    let body = 1 + count;
    packet[2..body].copy_from_slice(&lengths[..count - 1]);
    packet[body..body + len].copy_from_slice(&frames[..len]);
    Some(body + len)
}

/// Samples at 8 kHz that a packet says it holds, by its first bytes (RFC 6716 §3.1 and §3.2).
fn samples(payload: &[u8]) -> Option<usize> {
    let kind = *payload.first()?;
    let frame = match kind >> 3 {
        config @ 0..=11 => [80, 160, 320, 480][usize::from(config & 3)],
        config @ 12..=15 => [80, 160][usize::from(config & 1)],
        config => [20, 40, 80, 160][usize::from(config & 3)],
    };
    let frames = match kind & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => usize::from(payload.get(1)? & 0x3f),
    };
    (frames > 0).then_some(frame * frames)
}

#[cfg(test)]
mod tests;
