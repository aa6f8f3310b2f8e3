//! SDP offer/answer for one audio stream (RFC 3264, RFC 4566, RFC 4733 §2.4), in the clear or
//! encrypted (RTP/SAVP with keys in `a=crypto`, RFC 4568).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use sdp_types::{Attribute, Connection, Media, Origin, Session};

mod codec;
pub mod crypto;
mod fuzz;
mod opus;

pub use codec::{Codec, Law, Silence};
use crypto::Line;
pub use crypto::{MasterKey, SrtpKeys, SrtpPolicy, SrtpSeed, Suite};
pub use fuzz::fuzz;
pub use opus::Opus;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// What we say about our side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    pub address: IpAddr,
    pub port: u16,
    /// Accepted codecs, preferred first.
    pub codecs: Vec<Codec>,
    /// Offer or accept telephone-event.
    pub events: bool,
    pub silence: Silence,
    /// `o=` session id and version: the version grows with each changed description.
    pub session_id: u64,
    pub session_version: u64,
    pub srtp: SrtpPolicy,
    /// Where our keys come from. To change them in a re-INVITE, put another in its place.
    pub keys: SrtpSeed,
}

/// What both sides agreed on, as media needs it. Directions are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Where to send. `None` on hold (`c=0.0.0.0` or port 0).
    pub remote: Option<SocketAddr>,
    pub codec: Codec,
    /// What there is to know besides, if it is Opus.
    pub opus: Option<Opus>,
    /// Payload type and clock rate of telephone-event as the peer wants to receive it: what we
    /// send.
    pub events_out: Option<(u8, u32)>,
    /// Payload type and clock rate of telephone-event as we asked to receive it.
    pub events_in: Option<(u8, u32)>,
    /// As the profile wants it and the peer can take it.
    pub silence: Silence,
    /// Milliseconds of audio per packet that we send.
    pub ptime_ms: u8,
    pub direction: Direction,
    /// Where our reports go; `None` on hold, and where the peer wants none.
    pub rtcp: Option<Rtcp>,
    /// `None`: in the clear.
    pub srtp: Option<SrtpKeys>,
}

/// The way of RTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rtcp {
    /// From our odd port, to this address: a port above RTP's, or what `a=rtcp` says (RFC 3605).
    Apart(SocketAddr),
    /// Over the ports of RTP (RFC 5761).
    Muxed,
}

/// Whether what both sides agreed on is encrypted.
pub fn secured(negotiated: &Negotiated) -> bool {
    negotiated.srtp.is_some()
}

/// Why no description can be agreed on; each becomes a SIP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not SDP, or truncated: 400.
    Malformed(String),
    /// No audio we understand: 488 with Warning 305.
    NoCommonCodec(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Malformed(why) => write!(f, "malformed SDP: {why}"),
            Refusal::NoCommonCodec(why) => write!(f, "no media we can take: {why}"),
        }
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// The SIP status that says so.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::NoCommonCodec(_) => 488,
        }
    }
}

impl Direction {
    /// The same stream seen from the other side.
    pub fn reversed(self) -> Direction {
        match self {
            Direction::SendOnly => Direction::RecvOnly,
            Direction::RecvOnly => Direction::SendOnly,
            other => other,
        }
    }

    fn attribute(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }
}

/// The payload types of telephone-event in our own offers, by clock: as the sound's (RFC 4733
/// §2.5.2.3), and for those who know but one.
const EVENTS: [(u8, u32); 2] = [(110, opus::CLOCK), (101, 8000)];
/// Payload type of comfort noise at the clock of our codecs (RFC 3389 §4).
pub const COMFORT_NOISE: u8 = 13;

/// Answers an offer: the first audio line with a common codec is taken, every other line is refused
/// with port 0, all in their order (RFC 3264 §6). Our codec is the first of ours that they offer.
pub fn answer(offer: &[u8], local: &Local) -> Result<(Vec<u8>, Negotiated), Refusal> {
    let session = parse(offer)?;
    let Chosen { taken, codec, payload_type, line } = choose(&session, local)?;
    let media = &session.medias[taken];
    let described = Described::read(&session, media, codec)?;
    let events = if local.events { described.events } else { None };
    let mut negotiated = described.negotiated(local, codec, events, events);
    negotiated.opus = codec.is_opus().then(|| Opus::read(media, payload_type, payload_type));
    if muxes(media) && negotiated.rtcp.is_some() {
        negotiated.rtcp = Some(Rtcp::Muxed);
    }
    // The answer repeats the tag of the line it takes (RFC 4568 §5.1.2).
    let ours = line.map(|Line { tag, key: theirs }| {
        let ours = Line { tag, key: local.keys.key(theirs.suite()) };
        negotiated.srtp = Some(SrtpKeys { ours: ours.key.clone(), theirs });
        ours
    });
    let mut reply = description(local);
    reply.times = session.times.clone();
    for (index, theirs) in session.medias.iter().enumerate() {
        reply.medias.push(if index == taken {
            let port = if theirs.port == 0 { 0 } else { local.port };
            let audio = Audio {
                port,
                codecs: &[(payload_type, codec)],
                events: events.as_slice(),
                comfort_noise: negotiated.silence == Silence::ComfortNoise,
                direction: negotiated.direction,
                muxed: muxes(theirs),
                lines: ours.as_slice(),
            };
            audio.media()
        } else {
            Media { port: 0, num_ports: None, ..bare(theirs) }
        });
    }
    Ok((written(&reply), negotiated))
}

/// Our offer: one audio line with all our codecs, and with all our crypto suites where media must
/// be encrypted.
pub fn offer(local: &Local) -> Vec<u8> {
    let codecs: Vec<(u8, Codec)> =
        local.codecs.iter().map(|codec| (codec.payload_type(), *codec)).collect();
    let events: &[(u8, u32)] = match local.events {
        true if local.codecs.iter().any(|codec| codec.is_opus()) => &EVENTS,
        true => &EVENTS[1..],
        false => &[],
    };
    let mut session = description(local);
    let audio = Audio {
        port: local.port,
        codecs: &codecs,
        events,
        comfort_noise: local.silence == Silence::ComfortNoise,
        direction: Direction::SendRecv,
        muxed: false,
        lines: &offered_lines(local),
    };
    session.medias.push(audio.media());
    written(&session)
}

/// Reads the answer to [`offer`]. Of several codecs the first counts.
pub fn accept(answer: &[u8], local: &Local) -> Result<Negotiated, Refusal> {
    let session = parse(answer)?;
    let secure = local.srtp == SrtpPolicy::Required;
    let profile = if secure { SECURE } else { PLAIN };
    let media = session.medias.first().filter(|media| is_audio(media, profile));
    let media = media.ok_or_else(|| refused(&format!("the answer has no {profile} audio")))?;
    if media.port == 0 {
        return Err(refused("the answer refuses our audio (port 0)"));
    }
    let srtp = secure.then(|| accepted_keys(media, local)).transpose()?;
    let codec = formats(media).find_map(|format| {
        let mut ours = local.codecs.iter().copied();
        let codec = ours.find(|codec| offered(media, *codec) == Some(format))?;
        Some((format, codec))
    });
    let (format, codec) = codec.ok_or_else(|| refused("the answer names no codec we offered"))?;
    let described = Described::read(&session, media, codec)?;
    let events_out = if local.events { described.events } else { None };
    let events_in = events_out.map(|(_, clock)| {
        EVENTS.into_iter().find(|ours| ours.1 == clock).unwrap_or((EVENTS[1].0, 8000))
    });
    let opus = codec.is_opus().then(|| Opus::read(media, format, codec.payload_type()));
    Ok(Negotiated { srtp, opus, ..described.negotiated(local, codec, events_out, events_in) })
}

/// The lines of our offer, each with a key of its own.
fn offered_lines(local: &Local) -> Vec<Line> {
    if local.srtp != SrtpPolicy::Required {
        return Vec::new();
    }
    (1..).zip(Suite::ALL).map(|(tag, suite)| Line { tag, key: local.keys.key(suite) }).collect()
}

/// The keys of an answer to [`offered_lines`].
fn accepted_keys(media: &Media, local: &Local) -> Result<SrtpKeys, Refusal> {
    let theirs = Line::first(crypto_values(media)).ok_or_else(|| refused(NO_CRYPTO))?;
    let mut offered = offered_lines(local).into_iter();
    let ours = offered
        .find(|ours| ours.tag == theirs.tag && ours.key.suite() == theirs.key.suite())
        .ok_or_else(|| refused("the answer's crypto line is none of those we offered"))?;
    Ok(SrtpKeys { ours: ours.key, theirs: theirs.key })
}

struct Chosen {
    /// Index of the media line.
    taken: usize,
    codec: Codec,
    /// As the peer numbers it.
    payload_type: u8,
    /// The crypto line of one that is encrypted.
    line: Option<Line>,
}

/// The audio line to take: an encrypted one before one in the clear, as far as we may take either.
/// A line with port 0 is taken only if no other will do: the peer has put the stream on hold.
fn choose(session: &Session, local: &Local) -> Result<Chosen, Refusal> {
    let chosen = |secure: bool, (taken, media): (usize, &Media)| {
        let mut ours = local.codecs.iter();
        let (codec, payload_type) =
            ours.find_map(|codec| Some((*codec, offered(media, *codec)?)))?;
        let line = if secure { Some(Line::first(crypto_values(media))?) } else { None };
        Some(Chosen { taken, codec, payload_type, line })
    };
    let pick = |held: bool, secure: bool| {
        let profile = if secure { SECURE } else { PLAIN };
        let mut lines = session.medias.iter().enumerate();
        lines.find_map(|line| {
            let fits = is_audio(line.1, profile) && (line.1.port == 0) == held;
            fits.then(|| chosen(secure, line)).flatten()
        })
    };
    let secure: &[bool] = match local.srtp {
        SrtpPolicy::Off => &[false],
        SrtpPolicy::Optional => &[true, false],
        SrtpPolicy::Required => &[true],
    };
    let mut tries =
        [false, true].into_iter().flat_map(|held| secure.iter().map(move |s| (held, *s)));
    tries.find_map(|(held, secure)| pick(held, secure)).ok_or_else(|| why_not(session, local))
}

/// What is wrong with every line of an offer.
fn why_not(session: &Session, local: &Local) -> Refusal {
    let audio = |profile: &str| session.medias.iter().find(|media| is_audio(media, profile));
    let (plain, secure) = (audio(PLAIN), audio(SECURE));
    let no_crypto = secure.is_some_and(|media| Line::first(crypto_values(media)).is_none());
    refused(match (local.srtp, plain.is_some(), secure.is_some()) {
        (SrtpPolicy::Off, false, true) => "only SRTP (RTP/SAVP), which is off here",
        (SrtpPolicy::Required, true, false) => "secure media (RTP/SAVP) is required here",
        (SrtpPolicy::Required, ..) | (SrtpPolicy::Optional, false, _) if no_crypto => NO_CRYPTO,
        (_, false, false) if audio("RTP/SAVPF").is_some() => {
            "only RTP/SAVPF (WebRTC), which is not supported here: offer RTP/SAVP"
        }
        (_, false, false) => "no RTP/AVP audio",
        _ => "none of the codecs that we accept",
    })
}

const PLAIN: &str = "RTP/AVP";
const SECURE: &str = "RTP/SAVP";
const NO_CRYPTO: &str = "no a=crypto line we can take: one of AES_CM_128_HMAC_SHA1_80, \
                         AEAD_AES_128_GCM, AES_CM_128_HMAC_SHA1_32 without MKI";

fn crypto_values(media: &Media) -> impl Iterator<Item = &str> {
    media.get_attribute_values("crypto").flatten()
}

/// What the peer says of its side of one audio line.
struct Described {
    remote: Option<SocketAddr>,
    events: Option<(u8, u32)>,
    comfort_noise: bool,
    ptime_ms: u8,
    /// Theirs.
    direction: Direction,
    rtcp: Option<Rtcp>,
}

impl Described {
    fn read(session: &Session, media: &Media, codec: Codec) -> Result<Described, Refusal> {
        let connection = media.connections.first().or(session.connection.as_ref());
        let connection = connection.ok_or_else(|| Refusal::Malformed("no c= line".into()))?;
        let address = connection.try_address().map_err(|_| refused("c= is no IP address"))?.ip;
        if address.is_multicast() {
            return Err(refused("c= is a multicast address"));
        }
        let held = address.is_unspecified() || media.port == 0;
        let stated = direction(&media.attributes).or_else(|| direction(&session.attributes));
        let direction = match stated.unwrap_or(Direction::SendRecv) {
            _ if media.port == 0 => Direction::Inactive,
            // RFC 2543 hold: they still send, we must not.
            Direction::SendRecv if held => Direction::SendOnly,
            Direction::RecvOnly if held => Direction::Inactive,
            stated => stated,
        };
        let ptime = media.get_first_attribute_value("ptime").flatten();
        let ptime = ptime.and_then(|text| text.trim().parse::<f32>().ok()).unwrap_or(20.0);
        let remote = (!held).then(|| SocketAddr::new(address, media.port));
        Ok(Described {
            remote,
            rtcp: remote.and_then(|remote| rtcp(media, remote)),
            events: events(media, codec.clock()),
            comfort_noise: formats(media).any(|format| format == COMFORT_NOISE),
            ptime_ms: if (10.0..=60.0).contains(&ptime) { ptime as u8 / 10 * 10 } else { 20 },
            direction,
        })
    }

    fn negotiated(
        &self,
        local: &Local,
        codec: Codec,
        events_out: Option<(u8, u32)>,
        events_in: Option<(u8, u32)>,
    ) -> Negotiated {
        Negotiated {
            remote: self.remote,
            codec,
            opus: None,
            events_out,
            events_in,
            silence: match local.silence {
                // It is of the wrong clock for Opus.
                Silence::ComfortNoise if !self.comfort_noise || codec.is_opus() => Silence::Packets,
                wanted => wanted,
            },
            ptime_ms: self.ptime_ms,
            direction: self.direction.reversed(),
            rtcp: self.rtcp,
            srtp: None,
        }
    }
}

fn refused(why: &str) -> Refusal {
    Refusal::NoCommonCodec(why.into())
}

/// Descriptions in Latin-1 are common in `s=` and `i=`; only their ASCII matters to us.
fn parse(bytes: &[u8]) -> Result<Session, Refusal> {
    let latin1: String;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => {
            latin1 = bytes.iter().map(|b| char::from(*b)).collect();
            &latin1
        }
    };
    Session::parse(text.as_bytes()).map_err(|error| Refusal::Malformed(error.to_string()))
}

fn is_audio(media: &Media, profile: &str) -> bool {
    media.media == "audio" && media.proto == profile
}

fn formats(media: &Media) -> impl Iterator<Item = u8> {
    media.fmt.split_whitespace().filter_map(|format| format.parse().ok())
}

/// `encoding/rate[/channels]` of each mapped payload type. Lines we cannot read are skipped.
fn mappings(media: &Media) -> impl Iterator<Item = (u8, &str, u32)> {
    media.get_attribute_values("rtpmap").flatten().filter_map(|text| {
        let (payload_type, mapping) = text.trim().split_once(' ')?;
        let mut parts = mapping.trim().split('/');
        let (encoding, rate) = (parts.next()?, parts.next()?.trim().parse().ok()?);
        Some((payload_type.parse().ok().filter(|pt| *pt < 128)?, encoding, rate))
    })
}

/// The payload type that it is offered with. Static ones need no rtpmap; one that says something
/// else is believed.
fn offered(media: &Media, codec: Codec) -> Option<u8> {
    if codec.is_opus() {
        return opus::offered(media);
    }
    let payload_type = codec.payload_type();
    let mapped = mappings(media).find(|(pt, ..)| *pt == payload_type);
    let offers = formats(media).any(|format| format == payload_type)
        && mapped.is_none_or(|(_, name, rate)| {
            name.eq_ignore_ascii_case(codec.encoding()) && rate == 8000
        });
    offers.then_some(payload_type)
}

/// telephone-event at the audio's clock rate if there is one, else at 8,000, else at the first rate
/// offered.
fn events(media: &Media, clock: u32) -> Option<(u8, u32)> {
    let all = || {
        mappings(media)
            .filter(|(pt, name, rate)| {
                name.eq_ignore_ascii_case("telephone-event")
                    && (8000..=192_000).contains(rate)
                    && formats(media).any(|format| format == *pt)
            })
            .map(|(pt, _, rate)| (pt, rate))
    };
    let at = |clock: u32| all().find(|(_, rate)| *rate == clock);
    at(clock).or_else(|| at(8000)).or_else(|| all().next())
}

const RTCP_MUX: &str = "rtcp-mux";

/// Whether the peer takes RTCP at its RTP port. We never offer it, so that in an answer it says
/// nothing.
fn muxes(media: &Media) -> bool {
    media.has_attribute(RTCP_MUX)
}

/// Where the peer's RTCP is, if its RTP is at `remote`.
fn rtcp(media: &Media, remote: SocketAddr) -> Option<Rtcp> {
    // Bandwidth 0 for senders and receivers: no RTCP at all (RFC 3556 §2).
    let none = |kind: &str| media.bandwidths.iter().any(|b| b.bwtype == kind && b.bandwidth == 0);
    if none("RS") && none("RR") {
        return None;
    }
    let stated = media.get_first_attribute_value("rtcp").flatten().and_then(|text| {
        let mut parts = text.split_whitespace();
        let port = parts.next()?.parse().ok().filter(|port| *port > 0)?;
        let address = parts.nth(2).map_or(Some(remote.ip()), |text| text.parse().ok())?;
        Some(SocketAddr::new(address, port))
    });
    let usual = || Some(SocketAddr::new(remote.ip(), remote.port().checked_add(1)?));
    let usable = |at: &SocketAddr| !at.ip().is_multicast() && !at.ip().is_unspecified();
    stated.filter(usable).or_else(usual).map(Rtcp::Apart)
}

fn direction(attributes: &[Attribute]) -> Option<Direction> {
    use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
    let all = [SendRecv, SendOnly, RecvOnly, Inactive];
    attributes.iter().find_map(|attribute| {
        all.into_iter().find(|d| attribute.attribute.eq_ignore_ascii_case(d.attribute()))
    })
}

fn description(local: &Local) -> Session {
    let origin = Origin::with_ip_addr(local.session_id, local.session_version, local.address);
    let mut session = Session::new(origin, "-");
    session.connection = Some(Connection::from_ip_addr(local.address));
    session
}

/// Our audio line.
struct Audio<'a> {
    port: u16,
    /// Each with its payload type.
    codecs: &'a [(u8, Codec)],
    events: &'a [(u8, u32)],
    comfort_noise: bool,
    direction: Direction,
    muxed: bool,
    /// Encrypted if there are any.
    lines: &'a [Line],
}

impl Audio<'_> {
    fn media(&self) -> Media {
        let mut formats: Vec<u8> = self.codecs.iter().map(|(pt, _)| *pt).collect();
        formats.extend(self.comfort_noise.then_some(COMFORT_NOISE));
        formats.extend(self.events.iter().map(|(pt, _)| *pt));
        let formats: Vec<String> = formats.iter().map(u8::to_string).collect();
        let mut media = Media {
            media: "audio".into(),
            port: self.port,
            num_ports: None,
            proto: if self.lines.is_empty() { PLAIN } else { SECURE }.into(),
            fmt: formats.join(" "),
            media_title: None,
            connections: Vec::new(),
            bandwidths: Vec::new(),
            key: None,
            attributes: Vec::new(),
        };
        for line in self.lines {
            media.add_attribute_with_value("crypto", line.written());
        }
        for (pt, codec) in self.codecs {
            if codec.is_opus() {
                media.add_attribute_with_value("rtpmap", format!("{pt} {}", opus::MAPPING));
                media.add_attribute_with_value("fmtp", format!("{pt} {}", opus::WISHES));
            } else {
                let mapping = format!("{pt} {}/8000", codec.encoding());
                media.add_attribute_with_value("rtpmap", mapping);
            }
        }
        if self.comfort_noise {
            media.add_attribute_with_value("rtpmap", format!("{COMFORT_NOISE} CN/8000"));
        }
        for (pt, rate) in self.events {
            media.add_attribute_with_value("rtpmap", format!("{pt} telephone-event/{rate}"));
            media.add_attribute_with_value("fmtp", format!("{pt} 0-16"));
        }
        media.add_attribute_with_value("ptime", "20");
        media.add_attribute_from_str(self.direction.attribute());
        if self.muxed {
            media.add_attribute_from_str(RTCP_MUX);
        }
        media
    }
}

/// A media line without anything below it.
fn bare(theirs: &Media) -> Media {
    Media {
        media: theirs.media.clone(),
        port: theirs.port,
        num_ports: theirs.num_ports,
        proto: theirs.proto.clone(),
        fmt: theirs.fmt.clone(),
        media_title: None,
        connections: Vec::new(),
        bandwidths: Vec::new(),
        key: None,
        attributes: Vec::new(),
    }
}

fn written(session: &Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    session.write(&mut bytes).expect("writing to a Vec cannot fail");
    bytes
}

#[cfg(test)]
mod tests;
