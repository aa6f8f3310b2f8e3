//! SDP offer/answer for one audio stream (RFC 3264, RFC 4566, RFC 4733 §2.4).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use sdp_types::{Attribute, Connection, Media, Origin, Session};
use serde::Deserialize;

/// G.711 companding law, by its static payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Law {
    /// PCMU, payload type 0.
    #[serde(rename = "pcmu")]
    Mu,
    /// PCMA, payload type 8.
    #[serde(rename = "pcma")]
    A,
}

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
    /// Accepted laws, preferred first.
    pub laws: Vec<Law>,
    /// Offer or accept telephone-event.
    pub events: bool,
    /// `o=` session id and version: the version grows with each changed description.
    pub session_id: u64,
    pub session_version: u64,
}

/// What both sides agreed on, as media needs it. Directions are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Where to send. `None` on hold (`c=0.0.0.0` or port 0).
    pub remote: Option<SocketAddr>,
    pub law: Law,
    /// Payload type and clock rate of telephone-event as the peer wants to receive it: what we
    /// send.
    pub events_out: Option<(u8, u32)>,
    /// Payload type and clock rate of telephone-event as we asked to receive it.
    pub events_in: Option<(u8, u32)>,
    /// Milliseconds of audio per packet that we send.
    pub ptime_ms: u8,
    pub direction: Direction,
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

impl Law {
    /// Its static payload type (RFC 3551 §6).
    pub fn payload_type(self) -> u8 {
        match self {
            Law::Mu => 0,
            Law::A => 8,
        }
    }

    /// The encoding name of `a=rtpmap` (RFC 3551).
    pub fn encoding(self) -> &'static str {
        match self {
            Law::Mu => "PCMU",
            Law::A => "PCMA",
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

/// The payload type of telephone-event in our own offers.
const EVENTS: u8 = 101;

/// Answers an offer: the first audio line with a common law is taken, every other line is refused
/// with port 0, all in their order (RFC 3264 §6). Our law is the first of ours that they offer.
pub fn answer(offer: &[u8], local: &Local) -> Result<(Vec<u8>, Negotiated), Refusal> {
    let session = parse(offer)?;
    let (taken, law) = choose(&session, local)?;
    let media = &session.medias[taken];
    let described = Described::read(&session, media)?;
    let events = if local.events { described.events } else { None };
    let negotiated = described.negotiated(law, events, events);
    let mut reply = description(local);
    reply.times = session.times.clone();
    for (index, theirs) in session.medias.iter().enumerate() {
        reply.medias.push(if index == taken {
            let port = if theirs.port == 0 { 0 } else { local.port };
            audio(port, &[law], events, negotiated.direction)
        } else {
            Media { port: 0, num_ports: None, ..bare(theirs) }
        });
    }
    Ok((written(&reply), negotiated))
}

/// Our offer: one audio line with all our laws.
pub fn offer(local: &Local) -> Vec<u8> {
    let events = local.events.then_some((EVENTS, 8000));
    let mut session = description(local);
    session.medias.push(audio(local.port, &local.laws, events, Direction::SendRecv));
    written(&session)
}

/// Reads the answer to [`offer`]. Of several laws the first counts.
pub fn accept(answer: &[u8], local: &Local) -> Result<Negotiated, Refusal> {
    let session = parse(answer)?;
    let media = session.medias.first().filter(|media| is_rtp_audio(media));
    let media = media.ok_or_else(|| refused("the answer has no RTP/AVP audio"))?;
    if media.port == 0 {
        return Err(refused("the answer refuses our audio (port 0)"));
    }
    let law = formats(media).find_map(|format| {
        local.laws.iter().copied().find(|law| offers(media, *law) && format == law.payload_type())
    });
    let law = law.ok_or_else(|| refused("the answer names no codec we offered"))?;
    let described = Described::read(&session, media)?;
    let events_out = if local.events { described.events } else { None };
    let events_in = events_out.map(|_| (EVENTS, 8000));
    Ok(described.negotiated(law, events_out, events_in))
}

/// The audio line to take and its law. A line with port 0 is taken only if no other will do: the
/// peer has put the stream on hold.
fn choose(session: &Session, local: &Local) -> Result<(usize, Law), Refusal> {
    let common = |media: &Media| local.laws.iter().copied().find(|law| offers(media, *law));
    let audio = || session.medias.iter().enumerate().filter(|(_, media)| is_rtp_audio(media));
    let pick = |held: bool| {
        audio().filter(|(_, m)| (m.port == 0) == held).find_map(|(i, m)| Some((i, common(m)?)))
    };
    pick(false).or_else(|| pick(true)).ok_or_else(|| {
        let secured = session.medias.iter().any(|media| media.proto.contains("SAVP"));
        refused(match (audio().next().is_some(), secured) {
            (true, _) => "neither PCMU nor PCMA as we accept them",
            (false, true) => "only SRTP (RTP/SAVP), which is not supported here",
            (false, false) => "no RTP/AVP audio",
        })
    })
}

/// What the peer says of its side of one audio line.
struct Described {
    remote: Option<SocketAddr>,
    events: Option<(u8, u32)>,
    ptime_ms: u8,
    /// Theirs.
    direction: Direction,
}

impl Described {
    fn read(session: &Session, media: &Media) -> Result<Described, Refusal> {
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
        Ok(Described {
            remote: (!held).then(|| SocketAddr::new(address, media.port)),
            events: events(media),
            ptime_ms: if (10.0..=60.0).contains(&ptime) { ptime as u8 / 10 * 10 } else { 20 },
            direction,
        })
    }

    fn negotiated(
        &self,
        law: Law,
        events_out: Option<(u8, u32)>,
        events_in: Option<(u8, u32)>,
    ) -> Negotiated {
        Negotiated {
            remote: self.remote,
            law,
            events_out,
            events_in,
            ptime_ms: self.ptime_ms,
            direction: self.direction.reversed(),
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

fn is_rtp_audio(media: &Media) -> bool {
    media.media == "audio" && media.proto == "RTP/AVP"
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

/// Static payload types need no rtpmap; one that says something else is believed.
fn offers(media: &Media, law: Law) -> bool {
    let payload_type = law.payload_type();
    let mapped = mappings(media).find(|(pt, ..)| *pt == payload_type);
    formats(media).any(|format| format == payload_type)
        && mapped
            .is_none_or(|(_, name, rate)| name.eq_ignore_ascii_case(law.encoding()) && rate == 8000)
}

/// telephone-event at the audio's clock rate if there is one, else at the first rate offered.
fn events(media: &Media) -> Option<(u8, u32)> {
    let all = || {
        mappings(media)
            .filter(|(pt, name, rate)| {
                name.eq_ignore_ascii_case("telephone-event")
                    && (8000..=192_000).contains(rate)
                    && formats(media).any(|format| format == *pt)
            })
            .map(|(pt, _, rate)| (pt, rate))
    };
    all().find(|(_, rate)| *rate == 8000).or_else(|| all().next())
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

fn audio(port: u16, laws: &[Law], events: Option<(u8, u32)>, direction: Direction) -> Media {
    let mut formats: Vec<String> = laws.iter().map(|law| law.payload_type().to_string()).collect();
    formats.extend(events.map(|(pt, _)| pt.to_string()));
    let mut media = Media {
        media: "audio".into(),
        port,
        num_ports: None,
        proto: "RTP/AVP".into(),
        fmt: formats.join(" "),
        media_title: None,
        connections: Vec::new(),
        bandwidths: Vec::new(),
        key: None,
        attributes: Vec::new(),
    };
    for law in laws {
        let mapping = format!("{} {}/8000", law.payload_type(), law.encoding());
        media.add_attribute_with_value("rtpmap", mapping);
    }
    if let Some((pt, rate)) = events {
        media.add_attribute_with_value("rtpmap", format!("{pt} telephone-event/{rate}"));
        media.add_attribute_with_value("fmtp", format!("{pt} 0-16"));
    }
    media.add_attribute_with_value("ptime", "20");
    media.add_attribute_from_str(direction.attribute());
    media
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

/// The body of the fuzz target: nothing panics, and what we answer is an answer to the offer.
pub fn fuzz(bytes: &[u8]) {
    let local = Local {
        address: IpAddr::from([192, 0, 2, 1]),
        port: 4000,
        laws: vec![Law::Mu, Law::A],
        events: true,
        session_id: 1,
        session_version: 1,
    };
    let _ = accept(bytes, &local);
    if let Ok((answer, _)) = answer(bytes, &local) {
        let ours = parse(&answer).expect("our own answer parses").medias;
        let theirs = parse(bytes).expect("it was parsed before").medias;
        assert_eq!(ours.len(), theirs.len());
        assert!(ours.iter().filter(|media| media.port != 0).count() <= 1);
        assert!(ours.iter().zip(&theirs).all(|(ours, theirs)| theirs.port != 0 || ours.port == 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Local {
        Local {
            address: "192.0.2.10".parse().unwrap(),
            port: 4000,
            laws: vec![Law::Mu, Law::A],
            events: true,
            session_id: 77,
            session_version: 3,
        }
    }

    fn sdp(media: &str) -> Vec<u8> {
        format!("v=0\r\no=x 1 1 IN IP4 192.0.2.4\r\ns=-\r\nc=IN IP4 192.0.2.4\r\nt=0 0\r\n{media}")
            .into_bytes()
    }

    fn answered(media: &str) -> (String, Negotiated) {
        let (bytes, negotiated) = answer(&sdp(media), &local()).unwrap();
        (String::from_utf8(bytes).unwrap(), negotiated)
    }

    #[test]
    fn a_plain_offer_without_rtpmap() {
        let (text, agreed) = answered("m=audio 49217 RTP/AVP 18 8 0\r\n");
        assert_eq!(agreed.remote, Some("192.0.2.4:49217".parse().unwrap()));
        assert_eq!((agreed.law, agreed.events_out, agreed.ptime_ms), (Law::Mu, None, 20));
        assert!(text.contains("o=- 77 3 IN IP4 192.0.2.10\r\n"));
        assert!(text.contains("m=audio 4000 RTP/AVP 0\r\n"), "{text}");
        assert!(text.contains("a=sendrecv"));
    }

    #[test]
    fn lines_are_answered_in_order() {
        let (text, _) = answered(
            "m=video 3227 RTP/AVP 31\r\nm=audio 5000 RTP/SAVP 0\r\nm=audio 5002 RTP/AVP 0\r\n\
             m=image 5004 udptl t38\r\n",
        );
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("m=")).collect();
        assert_eq!(
            lines,
            [
                "m=video 0 RTP/AVP 31",
                "m=audio 0 RTP/SAVP 0",
                "m=audio 4000 RTP/AVP 0",
                "m=image 0 udptl t38"
            ]
        );
    }

    #[test]
    fn telephone_event_is_mirrored() {
        let (text, agreed) = answered(
            "m=audio 5000 RTP/AVP 0 97 96\r\na=rtpmap:97 telephone-event/48000\r\n\
             a=rtpmap:96 Telephone-Event/8000\r\na=ptime:30\r\n",
        );
        assert_eq!((agreed.events_out, agreed.events_in), (Some((96, 8000)), Some((96, 8000))));
        assert_eq!(agreed.ptime_ms, 30);
        assert!(text.contains("a=fmtp:96 0-16"));
        let (_, agreed) =
            answered("m=audio 5000 RTP/AVP 0 97\r\na=rtpmap:97 telephone-event/16000\r\n");
        assert_eq!(agreed.events_out, Some((97, 16000)));
        let (_, agreed) =
            answered("m=audio 5000 RTP/AVP 0\r\na=rtpmap:97 telephone-event/8000\r\n");
        assert_eq!(agreed.events_out, None, "mapped but not offered");
    }

    #[test]
    fn hold_in_all_its_shapes() {
        let cases = [
            ("a=sendonly\r\n", Direction::RecvOnly, true),
            ("a=recvonly\r\n", Direction::SendOnly, true),
            ("a=inactive\r\n", Direction::Inactive, true),
            ("c=IN IP4 0.0.0.0\r\n", Direction::RecvOnly, false),
            ("c=IN IP4 0.0.0.0\r\na=inactive\r\n", Direction::Inactive, false),
            ("c=IN IP6 ::\r\n", Direction::RecvOnly, false),
            ("c=IN IP4 0.0.0.0\r\na=recvonly\r\n", Direction::Inactive, false),
        ];
        for (lines, direction, has_remote) in cases {
            let (text, agreed) = answered(&format!("m=audio 5000 RTP/AVP 0\r\n{lines}"));
            assert_eq!(
                (agreed.direction, agreed.remote.is_some()),
                (direction, has_remote),
                "{lines}"
            );
            assert!(text.contains(&format!("a={}\r\n", direction.attribute())), "{text}");
        }
        let (text, agreed) = answered("m=audio 0 RTP/AVP 0\r\n");
        assert_eq!((agreed.remote, agreed.direction), (None, Direction::Inactive));
        assert!(text.contains("m=audio 0 "));
        let session = b"v=0\r\no=x 1 1 IN IP4 1.2.3.4\r\ns=-\r\nc=IN IP4 1.2.3.4\r\nt=0 0\r\n\
            a=sendonly\r\nm=audio 5000 RTP/AVP 0\r\n";
        assert_eq!(answer(session, &local()).unwrap().1.direction, Direction::RecvOnly);
    }

    #[test]
    fn ipv6_and_media_level_connection() {
        let (_, agreed) = answered("m=audio 5000 RTP/AVP 8\r\nc=IN IP6 2001:db8::7\r\n");
        assert_eq!(agreed.remote, Some("[2001:db8::7]:5000".parse().unwrap()));
        let six = Local { address: "2001:db8::1".parse().unwrap(), ..local() };
        let text = String::from_utf8(offer(&six)).unwrap();
        assert!(text.contains("c=IN IP6 2001:db8::1\r\n"));
    }

    #[test]
    fn refusals_say_why() {
        let status = |media: &str| answer(&sdp(media), &local()).unwrap_err();
        assert!(
            matches!(status("m=audio 5000 RTP/SAVP 0\r\n"), Refusal::NoCommonCodec(w) if w.contains("SRTP"))
        );
        assert_eq!(status("m=audio 5000 RTP/AVP 18\r\n").status(), 488);
        assert_eq!(status("m=audio 5000 RTP/AVP 0\r\na=rtpmap:0 OPUS/48000\r\n").status(), 488);
        assert_eq!(status("m=audio 5000 RTP/AVP 0\r\nc=IN IP4 224.2.1.1\r\n").status(), 488);
        assert_eq!(status("").status(), 488);
        assert_eq!(status("m=audio\r\n").status(), 400);
        assert_eq!(answer(b"\xff\xfe", &local()).unwrap_err().status(), 400);
        let no_connection =
            b"v=0\r\no=x 1 1 IN IP4 1.2.3.4\r\ns=-\r\nt=0 0\r\nm=audio 5 RTP/AVP 0\r\n";
        assert_eq!(answer(no_connection, &local()).unwrap_err().status(), 400);
    }

    #[test]
    fn our_offer_and_answers_to_it() {
        let text = String::from_utf8(offer(&local())).unwrap();
        assert!(text.contains("m=audio 4000 RTP/AVP 0 8 101\r\n"), "{text}");
        let other_type = sdp("m=audio 6000 RTP/AVP 8 120\r\na=rtpmap:120 telephone-event/8000\r\n");
        let agreed = accept(&other_type, &local()).unwrap();
        assert_eq!((agreed.law, agreed.direction), (Law::A, Direction::SendRecv));
        assert_eq!((agreed.events_out, agreed.events_in), (Some((120, 8000)), Some((101, 8000))));
        assert_eq!(accept(&sdp("m=audio 0 RTP/AVP 0\r\n"), &local()).unwrap_err().status(), 488);
        assert_eq!(accept(&sdp("m=audio 9 RTP/AVP 18\r\n"), &local()).unwrap_err().status(), 488);
        let held = accept(&sdp("m=audio 9 RTP/AVP 0\r\na=recvonly\r\n"), &local()).unwrap();
        assert_eq!((held.direction, held.events_in), (Direction::SendOnly, None));
        let both = answer(&offer(&local()), &local()).unwrap();
        assert_eq!(accept(&both.0, &local()).unwrap().events_out, Some((101, 8000)));
    }

    #[test]
    fn latin_1_in_the_session_name_is_harmless() {
        let mut bytes = sdp("m=audio 5000 RTP/AVP 0\r\n");
        let at = bytes.windows(3).position(|w| w == b"s=-").unwrap() + 2;
        bytes[at] = 0xfc;
        assert!(answer(&bytes, &local()).is_ok());
    }
}
