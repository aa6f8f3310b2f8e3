//! Real sockets on loopback: what two sessions tell each other arrives once.
#![allow(clippy::disallowed_methods)]

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use std::path::PathBuf;

use super::*;
use crate::media::recording::WAV_HEADER_LEN;
use crate::media::tone::Detector;
use crate::media::{Clip, Digit, Method, PlayId, SegmentId, Source};
use crate::rtp::packet::Header;
use crate::sip::offer::{
    Codec, Direction, Law, Negotiated, Rtcp, Silence, SrtpKeys, SrtpSeed, Suite,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longer than anything here takes, even on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);

fn media(ports: RangeInclusive<u16>, recordings: Option<PathBuf>) -> Media {
    let recordings = Folders { calls: recordings, segments: None };
    let settings = Settings { address: LOOPBACK, ports, threads: 1, recordings };
    Media::start(settings).unwrap()
}

struct Leg {
    session: Session,
    events: mpsc::Receiver<Event>,
}

fn leg(media: &Media, name: &str) -> Leg {
    leg_with(media, name, 64)
}

fn leg_with(media: &Media, name: &str, room: usize) -> Leg {
    leg_beside(media, name, room, None)
}

fn leg_beside(media: &Media, name: &str, room: usize, beside: Option<&Leg>) -> Leg {
    let (events, inbox) = mpsc::channel(room);
    let setup =
        Setup { ssrc: 7, sequence: 1, timestamp: 99, chance: 1, record: true, listen: false };
    let (latch, networks) = (Latch::Strict, vec![]);
    let call = OpenCall { name: name.into(), setup, latch, networks, events, inlet: None };
    let session = match beside {
        None => media.open(call),
        Some(other) => media.open_beside(&other.session, call),
    };
    Leg { session: session.unwrap(), events: inbox }
}

fn negotiated(port: u16) -> Command {
    Command::Negotiated(agreed(port))
}

fn agreed(port: u16) -> Negotiated {
    Negotiated {
        remote: Some(SocketAddr::new(LOOPBACK, port)),
        codec: Codec::Pcmu,
        opus: None,
        silence: Silence::Packets,
        events_out: Some((101, 8000)),
        events_in: Some((101, 8000)),
        ptime_ms: 20,
        direction: Direction::SendRecv,
        rtcp: None,
        srtp: None,
    }
}

/// A sound unlike any key, this long.
fn babble(ms: usize) -> Vec<Clip> {
    let sound: Arc<[u8]> = (0..8 * ms).map(|n| (n * n / 64) as u8).collect();
    vec![Clip::new(Arc::clone(&sound), sound)]
}

/// The keys heard on either side of a recording, how much of either is not silent, and how long
/// it is, in ms.
fn heard_in(wav: &[u8]) -> ([String; 2], [usize; 2], usize) {
    let sides = [0, 1].map(|side| -> Vec<u8> {
        wav[WAV_HEADER_LEN..].iter().skip(side).step_by(2).copied().collect()
    });
    let keys = sides.each_ref().map(|side| {
        let mut detector = Detector::new();
        let hits = side.chunks(160).filter_map(|frame| detector.push(Law::Mu, frame));
        hits.map(|hit| char::from(hit.digit.expose())).collect()
    });
    let loud = sides.each_ref().map(|side| side.iter().filter(|&&code| code != 0xff).count() / 8);
    (keys, loud, sides[0].len() / 8)
}

fn press(keys: &str, method: Method) -> Command {
    let keys = keys.chars().map(|key| Digit::from_key(key).unwrap()).collect();
    Command::Press { keys, method, on_ms: 80, off_ms: 80 }
}

impl Leg {
    fn next(&mut self) -> Event {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let next = async { tokio::time::timeout(PATIENCE, self.events.recv()).await };
        runtime.block_on(next).expect("an event in time").expect("an open call")
    }

    fn keys(&mut self, count: usize) -> (String, Vec<Source>) {
        let (mut keys, mut sources) = (String::new(), vec![]);
        while keys.len() < count {
            if let Event::Key { digit, source } = self.next() {
                keys.push(char::from(digit.expose()));
                sources.push(source);
            }
        }
        (keys, sources)
    }

    fn wait_pressed(&mut self) {
        while !matches!(self.next(), Event::Pressed) {}
    }

    /// Sounds for as long, and waits for its end.
    fn speak(&mut self, ms: usize) {
        let play = Command::Play { id: PlayId(5), clips: babble(ms), barge_in: false };
        self.session.command(play);
        while !matches!(self.next(), Event::PlayEnded { completed: true, .. }) {}
    }

    /// Waits until all orders so far are carried out: whether the call is joined.
    fn is_joined(&mut self) -> bool {
        let play = Command::Play { id: PlayId(99), clips: vec![], barge_in: false };
        self.session.command(play);
        loop {
            if let Event::PlayEnded { completed, .. } = self.next() {
                return !completed;
            }
        }
    }

    /// Whatever is there already.
    fn rest(&mut self) -> usize {
        std::iter::from_fn(|| self.events.try_recv().ok())
            .filter(|event| matches!(event, Event::Key { .. }))
            .count()
    }
}

#[test]
fn keys_are_heard_once_each_way() {
    let directory = tempfile::tempdir().unwrap();
    let media = media(30_000..=30_099, Some(directory.path().into()));
    let (mut a, mut b) = (leg(&media, "a"), leg(&media, "b"));
    a.session.command(negotiated(b.session.port()));
    b.session.command(negotiated(a.session.port()));
    b.session.command(press("159#", Method::InBand));
    assert_eq!(a.keys(4), ("159#".into(), vec![Source::Tone; 4]));
    b.wait_pressed();
    a.session.command(press("4111*", Method::Events));
    assert_eq!(b.keys(5), ("4111*".into(), vec![Source::Event; 5]));
    a.wait_pressed();
    assert_eq!((a.rest(), b.rest(), media.totals().calls), (0, 0, 2));
    // Both have their turns together.
    assert!(media.lateness().turns > 50);
    drop((a, b));
    drop(media);
    for name in ["a.wav", "b.wav"] {
        let bytes = std::fs::read(directory.path().join(name)).unwrap();
        // 4 keys of 160 ms and 5 of 160 ms: at least 1.4 s of both directions.
        assert!(bytes.len() > 1400 * 16, "{name}: {} bytes", bytes.len());
        let data = u32::from_le_bytes(bytes[54..58].try_into().unwrap());
        assert_eq!(data as usize, bytes.len() - 58);
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn segments_are_on_disk_by_themselves_and_hold_no_key_and_no_window() {
    let directory = tempfile::tempdir().unwrap();
    let recordings = Folders { calls: None, segments: Some(directory.path().into()) };
    let settings = Settings { address: LOOPBACK, ports: 31_200..=31_299, threads: 1, recordings };
    let media = Media::start(settings).unwrap();
    let (mut a, mut b) = (leg(&media, "a"), leg(&media, "b"));
    a.session.command(negotiated(b.session.port()));
    b.session.command(negotiated(a.session.port()));
    let segment = |nth: Option<u16>| Command::Segment(nth.map(SegmentId));
    let talk = Command::Play { id: PlayId(1), clips: babble(60_000), barge_in: false };
    a.session.command(talk);
    b.speak(200);
    // Spoken words, and the key that agrees to them.
    b.session.command(segment(Some(1)));
    b.speak(1000);
    a.session.command(press("1", Method::InBand));
    assert_eq!(b.keys(1).0, "1");
    b.session.command(segment(None));
    b.speak(300);
    // A card, where none should be keyed; the call ends in it.
    b.session.command(segment(Some(2)));
    b.session.command(Command::Sensitive(true));
    b.speak(200);
    for (method, key) in [(Method::InBand, "4"), (Method::Events, "1")] {
        a.session.command(press(key, method));
        assert_eq!(b.keys(1).0, key);
        a.wait_pressed();
    }
    b.speak(200);
    assert_eq!(media.totals().recording_dropped, 0);
    drop((a, b));
    drop(media);
    let mut names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["b-1.wav", "b-2.wav"], "of the call that was marked alone");
    let [first, second] = ["b-1.wav", "b-2.wav"]
        .map(|name| heard_in(&std::fs::read(directory.path().join(name)).unwrap()));
    let no_keys = [String::new(), String::new()];
    assert_eq!((&first.0, &second.0), (&no_keys, &no_keys));
    assert!(first.1[0] > 200 && first.1[1] > 900, "both are heard: {:?}", first.1);
    assert!((1000..4000).contains(&first.2), "{} ms", first.2);
    assert_eq!(second.1, [0, 0], "a window is silence, in a segment too");
    assert!(second.2 >= 600, "its time is kept: {} ms", second.2);
}

#[test]
fn a_segment_with_no_folder_is_counted() {
    let media = media(31_300..=31_399, None);
    let mut call = leg(&media, "a");
    call.session.command(negotiated(call.session.port()));
    call.speak(100);
    assert_eq!(media.totals().recording_dropped, 0);
    call.session.command(Command::Segment(Some(SegmentId(1))));
    call.speak(300);
    assert!(media.totals().recording_dropped > 0);
}

#[test]
fn a_key_stops_the_prompt_and_its_end_is_told() {
    let media = media(30_100..=30_199, None);
    let (a, mut b) = (leg(&media, "a"), leg(&media, "b"));
    a.session.command(negotiated(b.session.port()));
    b.session.command(negotiated(a.session.port()));
    let sound: Arc<[u8]> = vec![0x90; 800_000].into();
    let clips = vec![Clip::new(Arc::clone(&sound), sound)];
    b.session.command(Command::Play { id: PlayId(3), clips, barge_in: true });
    a.session.command(press("5", Method::Events));
    assert!(matches!(b.next(), Event::Key { .. }));
    assert!(matches!(b.next(), Event::PlayEnded { id: PlayId(3), completed: false }));
}

#[test]
fn a_stranger_is_not_heard() {
    let media = media(30_200..=30_299, None);
    let (a, mut b) = (leg(&media, "a"), leg(&media, "b"));
    a.session.command(negotiated(b.session.port()));
    b.session.command(negotiated(a.session.port()));
    let stranger = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    for sequence in 0..50 {
        let timestamp = u32::from(sequence) * 1600;
        let header = Header { marker: true, payload_type: 101, sequence, timestamp, ssrc: 7 };
        let mut event = header.bytes().to_vec();
        event.extend_from_slice(&[6, 0x8a, 1, 0x40]);
        // Refused by the kernel once the port is connected.
        let _ = stranger.send_to(&event, (LOOPBACK, b.session.port()));
        let _ = stranger.send_to(b"garbage", (LOOPBACK, b.session.port()));
    }
    a.session.command(press("1", Method::Events));
    assert_eq!(b.keys(1).0, "1");
    assert_eq!(b.rest(), 0);
}

/// A key press in a single packet.
fn event(key: u8, sequence: u16, timestamp: u32) -> Vec<u8> {
    let header = Header { marker: true, payload_type: 101, sequence, timestamp, ssrc: 77 };
    [&header.bytes()[..], &[key, 0x8a, 1, 0x40]].concat()
}

#[test]
fn what_came_before_a_port_had_its_peer_is_nobodys() {
    let media = media(31_000..=31_099, None);
    let stranger = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    for _ in 0..5 {
        let (a, mut b) = (leg(&media, "a"), leg(&media, "b"));
        a.session.command(negotiated(b.session.port()));
        stranger.send_to(&event(6, 0, 0), (LOOPBACK, b.session.port())).unwrap();
        b.session.command(negotiated(a.session.port()));
        a.session.command(press("1", Method::Events));
        assert_eq!(b.keys(1).0, "1");
        assert_eq!(b.rest(), 0);
    }
}

#[test]
fn packets_that_come_together_are_all_heard_however_steady_it_was_before() {
    let media = media(31_100..=31_199, None);
    let mut call = leg(&media, "a");
    let peer = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    call.session.command(negotiated(peer.local_addr().unwrap().port()));
    let to = (LOOPBACK, call.session.port());
    for sequence in 0..20 {
        let timestamp = 160 * u32::from(sequence);
        let header = Header { marker: false, payload_type: 0, sequence, timestamp, ssrc: 77 };
        peer.send_to(&[&header.bytes()[..], &[0xff; 160]].concat(), to).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    for (nth, key) in (0..24u16).zip((0..10).cycle()) {
        peer.send_to(&event(key, 20 + nth, 3200 + 400 * u32::from(nth)), to).unwrap();
    }
    assert_eq!(call.keys(24).0, "012345678901234567890123");
}

#[test]
fn calls_go_to_the_emptiest_thread_that_is_not_avoided() {
    let ports = 31_200..=31_299;
    let settings =
        Settings { address: LOOPBACK, ports, threads: 3, recordings: Folders::default() };
    let media = Media::start(settings).unwrap();
    media.avoid(1, true);
    let calls: Vec<Leg> = (0..4).map(|_| leg(&media, "a")).collect();
    let threads: Vec<usize> = calls.iter().map(|call| call.session.worker).collect();
    assert_eq!(threads, [0, 2, 0, 2]);
    media.avoid(0, true);
    media.avoid(2, true);
    assert_eq!(leg(&media, "a").session.worker, 1, "all are avoided: the emptiest");
    let mut windows = Vec::new();
    assert_eq!(media.conditions(&mut windows).len(), 3);
    assert!(media.conditions(&mut windows).iter().all(|one| one.busy < 1.0));
}

#[test]
fn a_slow_listener_loses_no_key() {
    let media = media(30_300..=30_399, None);
    let (mut a, mut b) = (leg(&media, "a"), leg_with(&media, "b", 1));
    a.session.command(negotiated(b.session.port()));
    b.session.command(negotiated(a.session.port()));
    a.session.command(press("1234567890", Method::Events));
    a.wait_pressed();
    assert_eq!(b.keys(10).0, "1234567890");
}

#[test]
fn a_call_without_a_port_is_refused_and_ports_rest() {
    let media = media(30_400..=30_403, None);
    let (a, b) = (leg(&media, "a"), leg(&media, "b"));
    assert_ne!(a.session.port(), b.session.port());
    assert!([a.session.port(), b.session.port()].iter().all(|port| port % 2 == 0));
    drop(a);
    let (events, _inbox) = mpsc::channel(1);
    let setup =
        Setup { ssrc: 7, sequence: 1, timestamp: 99, chance: 1, record: false, listen: false };
    let (latch, networks) = (Latch::Strict, vec![]);
    let call = OpenCall { name: "c".into(), setup, latch, networks, events, inlet: None };
    assert_eq!(media.open(call).err(), Some(Full::Ports));
}

#[test]
fn a_renegotiated_call_goes_to_its_new_peer() {
    let media = media(30_500..=30_599, None);
    let (a, mut b, c) = (leg(&media, "a"), leg(&media, "b"), leg(&media, "c"));
    a.session.command(negotiated(b.session.port()));
    c.session.command(negotiated(b.session.port()));
    b.session.command(negotiated(a.session.port()));
    a.session.command(press("1", Method::Events));
    assert_eq!(b.keys(1).0, "1");
    b.session.command(negotiated(c.session.port()));
    c.session.command(press("2", Method::Events));
    assert_eq!(b.keys(1).0, "2");
}

#[test]
fn sessions_outlive_media_harmlessly() {
    let media = media(30_600..=30_699, None);
    let mut a = leg(&media, "a");
    drop(media);
    a.session.command(Command::Stop);
    assert!(a.events.try_recv().is_err());
}

#[test]
fn joined_calls_hear_each_other_until_they_are_parted() {
    let settings = Settings {
        address: LOOPBACK,
        ports: 30_700..=30_799,
        threads: 2,
        recordings: Folders::default(),
    };
    let media = Media::start(settings).unwrap();
    let (mut caller, mut a) = (leg(&media, "caller"), leg(&media, "a"));
    let (mut b, mut agent) = (leg_beside(&media, "b", 64, Some(&a)), leg(&media, "agent"));
    caller.session.command(negotiated(a.session.port()));
    a.session.command(negotiated(caller.session.port()));
    // The agent's side speaks A-law, with other events, encrypted.
    let other_side = |port: u16, ours: u8, theirs: u8| {
        let key = |seed| SrtpSeed::new([seed; 32]).key(Suite::Gcm);
        Command::Negotiated(Negotiated {
            codec: Codec::Pcma,
            events_out: Some((96, 8000)),
            events_in: Some((96, 8000)),
            srtp: Some(SrtpKeys { ours: key(ours), theirs: key(theirs) }),
            ..agreed(port)
        })
    };
    b.session.command(other_side(agent.session.port(), 1, 2));
    agent.session.command(other_side(b.session.port(), 2, 1));
    a.session.bridge(&b.session);
    assert!(a.is_joined());
    caller.session.command(press("159#", Method::Events));
    agent.session.command(press("42", Method::Events));
    assert_eq!(agent.keys(4), ("159#".into(), vec![Source::Event; 4]));
    assert_eq!(caller.keys(2), ("42".into(), vec![Source::Event; 2]));
    caller.wait_pressed();
    assert_eq!((a.rest(), b.rest()), (0, 0), "nothing of it is for the script");
    a.session.part();
    assert!(!a.is_joined());
    caller.session.command(press("7", Method::Events));
    assert_eq!(a.keys(1).0, "7");
    caller.wait_pressed();
    assert_eq!((agent.rest(), b.rest()), (0, 0));
    // The end of one parts the other.
    a.session.bridge(&b.session);
    assert!(a.is_joined());
    drop((b, agent));
    let patience = Instant::now() + PATIENCE;
    while a.is_joined() {
        assert!(Instant::now() < patience, "joined to nobody");
    }
    caller.session.command(press("8", Method::Events));
    assert_eq!(a.keys(1).0, "8");
}

#[test]
fn tones_travel_through_joined_calls_and_strangers_are_not_joined() {
    let settings = Settings {
        address: LOOPBACK,
        ports: 30_800..=30_899,
        threads: 2,
        recordings: Folders::default(),
    };
    let media = Media::start(settings).unwrap();
    let (mut caller, mut a) = (leg(&media, "caller"), leg(&media, "a"));
    let (b, mut agent) = (leg_beside(&media, "b", 64, Some(&a)), leg(&media, "agent"));
    for (one, other) in [(&caller, &a), (&b, &agent)] {
        one.session.command(negotiated(other.session.port()));
        other.session.command(negotiated(one.session.port()));
    }
    // Of another thread: refused, and both go on as they were.
    a.session.bridge(&agent.session);
    caller.session.command(press("3", Method::InBand));
    assert_eq!(a.keys(1).0, "3");
    caller.wait_pressed();
    a.session.bridge(&b.session);
    assert!(a.is_joined());
    caller.session.command(press("159#", Method::InBand));
    assert_eq!(agent.keys(4), ("159#".into(), vec![Source::Tone; 4]));
    assert_eq!(a.rest(), 0);
}

#[test]
fn reports_leave_from_the_odd_port_and_a_goodbye_ends_them() {
    let media = media(30_900..=30_999, None);
    let call = leg(&media, "a");
    let [rtp, rtcp] = [(); 2].map(|()| UdpSocket::bind((LOOPBACK, 0)).unwrap());
    rtcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let agreed = |port: u16| {
        let way = Some(Rtcp::Apart(rtcp.local_addr().unwrap()));
        Command::Negotiated(Negotiated { rtcp: way, ..agreed(port) })
    };
    call.session.command(agreed(rtp.local_addr().unwrap().port()));
    let mut packet = [0; 512];
    let mut receive = || {
        // A machine that was paused meanwhile interrupts a wait that has a limit.
        let (len, from) = loop {
            match rtcp.recv_from(&mut packet) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received.unwrap(),
            }
        };
        assert_eq!(from.port(), call.session.port() + 1);
        packet[..len].to_vec()
    };
    // What it has sent of RTP, and that it has sent; then what it has heard from here.
    assert_eq!(receive()[1], 200);
    let heard = [0x80, 200, 0, 6, 0, 0, 0, 9, 0, 0, 0, 1, 2, 3, 4, 5];
    let report = [&heard[..], &[0; 12]].concat();
    rtcp.send_to(&report, (LOOPBACK, call.session.port() + 1)).unwrap();
    let header = Header { marker: true, payload_type: 0, sequence: 1, timestamp: 0, ssrc: 9 };
    let audio = [&header.bytes()[..], &[0xff; 160]].concat();
    rtp.send_to(&audio, (LOOPBACK, call.session.port())).unwrap();
    let second = receive();
    let block = &second[28..52];
    assert_eq!((&block[..4], &block[16..20]), (&[0, 0, 0, 9][..], &[0, 1, 2, 3][..]));
    drop(call);
    let last = loop {
        let (len, _) = rtcp.recv_from(&mut packet).unwrap();
        if packet[..len].windows(4).any(|part| part == [0x81, 203, 0, 1]) {
            break len;
        }
    };
    assert!(last > 52);
}
