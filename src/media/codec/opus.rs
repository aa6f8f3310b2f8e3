//! Opus (RFC 6716) at 8 kHz and on one channel, whatever the peer sends: its decoder gives any
//! packet at the rate that is asked for. The RTP clock of 48,000 is the stream's affair.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ropus::celt::range_coder::RangeDecoder;
use ropus::opus::decoder::{MAX_FRAMES, opus_packet_parse_impl};
use ropus::silk::tables::SILK_LBRR_FLAGS_ICDF_PTR as REPEATED;
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
/// What a peer that can recover a lost packet from the next is expected to lose, in per cent: at
/// least, and at most, whatever it reports.
const LOSS_MIN: u8 = 5;
const LOSS_MAX: u8 = 25;
/// Samples of 10 ms: every packet has some of these.
const TENTH: usize = 80;
const TENTHS_MAX: usize = PAYLOAD_MAX / TENTH;
/// Samples of SILK's longest frame, of which one of Opus holds up to three.
const PART: usize = 160;
/// In a packet's first byte: nothing of it is SILK's; it has two channels (RFC 6716 §3.1).
const CELT_ALONE: u8 = 0x80;
const STEREO: u8 = 4;
/// Lost packets that the decoder is told of; by then it has faded out.
const CONCEALED_MAX: u16 = 3;

/// Both directions of one call.
pub struct Transcoder {
    wishes: Opus,
    encoder: Encoder,
    decoder: Decoder,
    /// Packets that never came since the last that did.
    lost: u16,
    /// The last packet was heard, and not by CELT alone: the decoder goes on in what the next one
    /// holds of a lost one.
    goes_on: bool,
    /// How often the decoder had to be replaced.
    pub(super) broken: u32,
    /// What came out last.
    bytes: [u8; PAYLOAD_MAX],
}

impl Transcoder {
    pub fn new(wishes: Opus) -> Transcoder {
        let (encoder, decoder) = (encoder(wishes), decoder());
        let bytes = [0; PAYLOAD_MAX];
        Transcoder { wishes, encoder, decoder, lost: 0, goes_on: false, broken: 0, bytes }
    }

    /// As [`super::Transcoder::decode`].
    pub fn decode(&mut self, payload: &[u8]) -> Option<&[u8]> {
        let expected = samples(payload).filter(|samples| *samples <= PAYLOAD_MAX)?;
        self.conceal(self.lost);
        self.goes_on = false;
        let mut sound = [0; PAYLOAD_MAX];
        let len = self.guarded(payload, &mut sound, DecodeMode::Normal)?;
        // What is decoded is as long as its first byte says, or the decoder is wrong.
        let whole = sound.get(..len).filter(|sound| sound.len() == expected)?;
        self.goes_on = payload.first().is_some_and(|kind| kind & CELT_ALONE == 0);
        Some(self.written(whole))
    }

    /// As [`super::Transcoder::lose`].
    pub fn lose(&mut self, packets: u16) {
        self.lost = self.lost.saturating_add(packets);
    }

    /// As [`super::Transcoder::recover`]. Where there is no copy the decoder would make something
    /// up instead, in which keys go on that have ended.
    pub fn recover(&mut self, payload: &[u8], missing: usize) -> Option<&[u8]> {
        let len = samples(payload).filter(|samples| *samples <= PAYLOAD_MAX)?;
        // Of an event that was lost, or of silence that was not sent, nothing is held.
        let as_long = self.lost > 0 && missing == len * usize::from(self.lost);
        if !as_long || !self.goes_on {
            return None;
        }
        let repeated = catch_unwind(|| repeated(payload)).ok().flatten()?;
        self.conceal(self.lost - 1);
        let mut sound = [0; PAYLOAD_MAX];
        let decoded = self.guarded(payload, &mut sound[..len], DecodeMode::Fec)?;
        let recovered = decoded.checked_sub(repeated).filter(|_| decoded == len)?;
        Some(self.written(&sound[recovered..len]))
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

    /// As [`super::Transcoder::expect_loss`].
    pub fn expect_loss(&mut self, percent: u8) {
        if self.wishes.recovers {
            // Every number up to 100 is possible.
            let _ = self.encoder.set_packet_loss_perc(percent.clamp(LOSS_MIN, LOSS_MAX));
        }
    }

    /// The decoder goes on from the last packet as if the first of these had faded out of it; none
    /// is missing any more.
    fn conceal(&mut self, packets: u16) {
        self.lost = 0;
        let mut sound = [0; 2 * TENTH];
        for _ in 0..packets.min(CONCEALED_MAX) {
            let _ = self.guarded(&[], &mut sound, DecodeMode::Normal);
        }
    }

    fn written(&mut self, sound: &[i16]) -> &[u8] {
        for (code, &sample) in self.bytes.iter_mut().zip(sound) {
            *code = encode(Law::Mu, sample);
        }
        &self.bytes[..sound.len()]
    }

    /// A packet is anybody's bytes: should they ever be too much for the decoder, it is a new one
    /// that hears the next, and no other call is touched.
    fn guarded(&mut self, payload: &[u8], sound: &mut [i16], mode: DecodeMode) -> Option<usize> {
        let decoder = &mut self.decoder;
        let decode = || decoder.decode(payload, sound, mode);
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
        .packet_loss_perc(if wishes.recovers { LOSS_MIN } else { 0 })
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
    let frames = match kind & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => usize::from(payload.get(1)? & 0x3f),
    };
    (frames > 0).then_some(frame_samples(kind) * frames)
}

/// Of one frame of the packet that begins with this byte.
fn frame_samples(kind: u8) -> usize {
    match kind >> 3 {
        config @ 0..=11 => [80, 160, 320, 480][usize::from(config & 3)],
        config @ 12..=15 => [80, 160][usize::from(config & 1)],
        config => [20, 40, 80, 160][usize::from(config & 3)],
    }
}

/// Samples that a packet holds once more of what came right before it: how many of the last frame's
/// 20 ms, from its end back (LBRR, RFC 6716 §4.2.3 and §4.2.4). `None` if there are none.
fn repeated(payload: &[u8]) -> Option<usize> {
    let kind = *payload.first()?;
    if kind & CELT_ALONE != 0 {
        return None;
    }
    let (mut first, mut lengths, mut start) = (0, [0; MAX_FRAMES], 0);
    let len = i32::try_from(payload.len()).ok()?;
    let count =
        opus_packet_parse_impl(payload, len, false, &mut first, &mut lengths, &mut start, None);
    let start = usize::try_from(start).ok().filter(|_| count > 0)?;
    let coded = payload.get(start..start + usize::try_from(lengths[0]).ok()?)?;
    // One byte or none: nothing was said.
    let coded = Some(coded).filter(|coded| coded.len() > 1)?;
    let frame = frame_samples(kind);
    let parts = frame.div_ceil(PART);
    let mut bits = RangeDecoder::new(coded);
    // For each part whether somebody speaks in it; then whether anything is repeated.
    for _ in 0..parts {
        bits.decode_bit_logp(1);
    }
    if !bits.decode_bit_logp(1) {
        return None;
    }
    let Some(odds) = parts.checked_sub(2).and_then(|nth| REPEATED.get(nth)) else {
        return Some(frame);
    };
    if kind & STEREO != 0 {
        // The same of the other channel, which is not listened to.
        for _ in 0..=parts {
            bits.decode_bit_logp(1);
        }
    }
    let which = u32::try_from(bits.decode_icdf(odds, 8) + 1).ok()?;
    let last = (which << (u32::BITS - parts as u32)).leading_ones() as usize;
    (last > 0).then_some(last * PART)
}

#[cfg(test)]
mod tests;
