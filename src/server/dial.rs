//! `ringtill dial`: the test phone on real sockets.

use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::sleep_until;

use super::prompts;
use crate::dial::Phone;
use crate::dial::listen::Index;
use crate::dial::phone::{Output, Report, Setup};
use crate::dial::run::Failure;
use crate::dial::script::{Keying, Script};
use crate::media::Clip;
use crate::media::frame::SAMPLES;
use crate::prompt::clip::{ClipError, Converter, encode};
use crate::prompt::{self, Library};
use crate::secret::Keys;
use crate::sip::model::Uri;
use crate::sip::offer::{Law, SrtpPolicy};

/// The largest datagram we take.
const DATAGRAM_MAX: usize = 65_535;
/// Packets handed to the phone before it may send again.
const BURST_MAX: usize = 64;
/// Who we are unless told otherwise.
const NUMBER: &str = "+12025550100";
const SIP_PORT: u16 = 5060;

/// What `ringtill dial` was asked for.
pub struct Options {
    /// `sip:pay@host:port`
    pub target: String,
    /// Our number, or a whole SIP URI.
    pub from: Option<String>,
    /// Steps of [`Script`]; without any it listens until the other side hangs up.
    pub script: String,
    pub keying: Keying,
    pub srtp: SrtpPolicy,
    /// Offered codecs, preferred first.
    pub laws: Vec<Law>,
    /// Added to the INVITE.
    pub headers: Vec<(String, String)>,
    /// The voice whose prompts are recognised.
    pub prompts: prompt::Settings,
    /// Our address; found by the route to the target when `None`.
    pub local: Option<IpAddr>,
    pub call_max: Duration,
    /// Who speaks and keys beside the script.
    pub person: Option<Box<dyn Person>>,
}

/// One call to be placed.
pub struct Call {
    pub target: String,
    pub from: Option<String>,
    pub headers: Vec<(String, String)>,
    /// What may be recognised, in each law offered: see [`indexes`].
    pub prompts: Vec<Arc<Index>>,
    pub script: Script,
    pub keying: Keying,
    pub srtp: SrtpPolicy,
    pub local: Option<IpAddr>,
    pub call_max: Duration,
    /// Who speaks and keys beside the script.
    pub person: Option<Box<dyn Person>>,
}

/// Somebody with a phone in their hand.
pub trait Person: Send {
    /// The next 20 ms of what they say, 8 kHz, if it is there already. Asked for once a packet: it
    /// is for them to keep in step with our clock.
    fn spoken(&mut self) -> Option<Box<[i16; SAMPLES]>>;
    /// Plays 20 ms to them.
    fn play(&mut self, sound: &[i16; SAMPLES]);
    /// Keys they have pressed.
    fn pressed(&mut self) -> Option<Keys>;
    /// Why they can hear or say no more, once that is so.
    fn lost(&mut self) -> Option<String>;
}

/// Why a call was not placed, or how it went wrong.
#[derive(Debug)]
pub enum DialError {
    /// The target cannot be called; says what to write.
    Target(String),
    Socket(io::Error),
    Failed(Failure),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Target(why) => f.write_str(why),
            DialError::Socket(error) => write!(f, "network: {error}"),
            DialError::Failed(failure) => fmt::Display::fmt(failure, f),
        }
    }
}

impl std::error::Error for DialError {}

/// Places a call and prints what happens, with times. Exit code 0: it went as the script says;
/// 1: it did not; 2: the request cannot be carried out.
pub async fn dial(options: Options, out: &mut (dyn Write + Send)) -> ExitCode {
    let library = match prompts::load(&options.prompts) {
        Ok(library) => library,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            return ExitCode::from(2);
        }
    };
    let steps = if options.script.trim().is_empty() { "wait-end 600" } else { &options.script };
    let mut script = match Script::parse(steps, &|id| knows(&library, id)) {
        Ok(script) => script,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(why) = script.load(sound_file) {
        eprintln!("error: {why}");
        return ExitCode::from(2);
    }
    let call = Call {
        target: options.target,
        from: options.from,
        headers: options.headers,
        prompts: indexes(&library, &options.laws),
        script,
        keying: options.keying,
        srtp: options.srtp,
        local: options.local,
        call_max: options.call_max,
        person: options.person,
    };
    let mut print = |at: Duration, report: &Report| {
        // A closed pipe must not end the call without a BYE.
        let _ = writeln!(out, "{:>7.2}  {report}", at.as_secs_f64());
    };
    match Box::pin(place(call, &mut print)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ DialError::Failed(_)) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// What a caller says, from a file.
fn sound_file(name: &str) -> Result<Clip, String> {
    let bytes = std::fs::read(name).map_err(|error| format!("{name}: {error}"))?;
    sound(bytes.into()).map_err(|error| format!("{name}: {error}"))
}

/// What a caller says, from FLAC or WAV.
pub fn sound(bytes: std::borrow::Cow<'static, [u8]>) -> Result<Clip, ClipError> {
    /// Nobody says more in one go.
    const SECONDS_MAX: usize = 60;
    Ok(encode(&Converter::default().sound(bytes, SECONDS_MAX)?))
}

/// Whether a script may wait for this id.
pub fn knows(library: &Library, id: &str) -> bool {
    library.catalog().entry(id).is_some() || library.names().any(|(name, _, _)| name == id)
}

/// The prompts of a library, ready to be recognised in each law.
pub fn indexes(library: &Library, laws: &[Law]) -> Vec<Arc<Index>> {
    laws.iter().map(|&law| Arc::new(Index::of(library, law))).collect()
}

/// Places a call over UDP; `report` is told what happens and when, from the INVITE on. An
/// interrupt from the keyboard hangs up: a script has failed then, a person has done it themselves.
#[allow(clippy::disallowed_methods)] // `server` owns the clock.
pub async fn place(
    call: Call,
    report: &mut (dyn FnMut(Duration, &Report) + Send),
) -> Result<(), DialError> {
    let destination = resolve(&call.target).await?;
    let local = match call.local {
        Some(address) => address,
        None => route(destination).await.map_err(DialError::Socket)?,
    };
    let bind = || async move { UdpSocket::bind((local, 0)).await.map_err(DialError::Socket) };
    let (sip, rtp) = (bind().await?, bind().await?);
    let mut seed = [0; 32];
    let no_random = |error| DialError::Socket(io::Error::other(error));
    SysRng.try_fill_bytes(&mut seed).map_err(no_random)?;
    let sip_address = sip.local_addr().map_err(DialError::Socket)?;
    let from = call.from.unwrap_or_else(|| NUMBER.into());
    let setup = Setup {
        target: call.target,
        destination,
        from: if from.contains(':') { from } else { format!("sip:{from}@{sip_address}") },
        headers: call.headers,
        sip: sip_address,
        rtp: rtp.local_addr().map_err(DialError::Socket)?,
        prompts: call.prompts,
        codecs: Vec::new(),
        script: call.script,
        keying: call.keying,
        srtp: call.srtp,
        seed,
        call_max: call.call_max,
    };
    let start = Instant::now();
    let phone = Phone::new(setup, start);
    let phone = if call.person.is_some() { phone.live() } else { phone };
    let mut line = Line { phone, sip, rtp, start, person: call.person };
    line.run(report).await.map_err(DialError::Socket)?.map_err(DialError::Failed)
}

struct Line {
    phone: Phone,
    sip: UdpSocket,
    rtp: UdpSocket,
    start: Instant,
    person: Option<Box<dyn Person>>,
}

impl Line {
    #[allow(clippy::disallowed_methods)] // `server` owns the clock.
    async fn run(
        &mut self,
        report: &mut (dyn FnMut(Duration, &Report) + Send),
    ) -> io::Result<Result<(), Failure>> {
        let mut sip = vec![0; DATAGRAM_MAX];
        let mut rtp = vec![0; DATAGRAM_MAX];
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        let mut interrupted = false;
        loop {
            self.look_at_person();
            self.send(report).await;
            if let Some(result) = self.phone.finished() {
                return Ok(result.clone());
            }
            let deadline = self.phone.deadline();
            let due = async {
                match deadline {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                arrived = self.sip.recv_from(&mut sip) => {
                    let (len, source) = arrived?;
                    let bytes = Bytes::copy_from_slice(&sip[..len]);
                    self.phone.sip(Instant::now(), source, bytes);
                }
                () = due => {
                    let now = Instant::now();
                    self.listen_to_person(now);
                    self.phone.tick(now);
                }
                arrived = self.rtp.recv_from(&mut rtp) => {
                    let (len, source) = arrived?;
                    self.phone.rtp(Instant::now(), source, &rtp[..len]);
                    for _ in 1..BURST_MAX {
                        let Ok((len, source)) = self.rtp.try_recv_from(&mut rtp) else { break };
                        self.phone.rtp(Instant::now(), source, &rtp[..len]);
                    }
                }
                _ = &mut interrupt, if !interrupted => {
                    interrupted = true;
                    let ours = self.person.as_ref().map(|_| ()).ok_or(Failure::Interrupted);
                    self.phone.hang_up_early(Instant::now(), ours);
                }
            }
        }
    }

    /// What they say into the packet that is due: no earlier, or it would wait and be late.
    fn listen_to_person(&mut self, now: Instant) {
        if self.phone.due(now)
            && let Some(sound) = self.person.as_mut().and_then(|person| person.spoken())
        {
            self.phone.speak(&sound);
        }
    }

    /// What they have keyed since the last turn, and whether they are there.
    #[allow(clippy::disallowed_methods)] // `server` owns the clock.
    fn look_at_person(&mut self) {
        let Some(person) = &mut self.person else { return };
        if let Some(why) = person.lost() {
            self.phone.hang_up_early(Instant::now(), Err(Failure::Person(why)));
        }
        while let Some(keys) = person.pressed() {
            self.phone.press(Instant::now(), keys);
        }
    }

    async fn send(&mut self, report: &mut (dyn FnMut(Duration, &Report) + Send)) {
        while let Some(output) = self.phone.poll() {
            // What cannot be sent is lost, like any datagram: SIP sends it again.
            match output {
                Output::Sip { destination, bytes } => {
                    let _ = self.sip.send_to(&bytes, destination).await;
                }
                Output::Rtp { destination, bytes } => {
                    let _ = self.rtp.send_to(&bytes, destination).await;
                }
                Output::Report(what) => report(self.start.elapsed(), &what),
                Output::Sound(sound) => {
                    if let Some(person) = &mut self.person {
                        person.play(&sound);
                    }
                }
            }
        }
    }
}

async fn resolve(target: &str) -> Result<SocketAddr, DialError> {
    let wrong = |why: &str| {
        DialError::Target(format!("`{target}` {why}: write it as sip:pay@192.0.2.7:5060"))
    };
    let uri = Uri::parse(target).ok_or_else(|| wrong("is no SIP address"))?;
    if let Some(address) = uri.socket() {
        return Ok(address);
    }
    let host = uri.host.as_ref().ok_or_else(|| wrong("names no host"))?.to_string();
    let port = uri.port.unwrap_or(SIP_PORT);
    let found = lookup_host((host.as_str(), port)).await;
    let found = found.map_err(|error| wrong(&format!("cannot be resolved ({error})")))?;
    // Most telephony is IPv4 still; take the other only when there is nothing else.
    let addresses: Vec<SocketAddr> = found.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| wrong("has no address"))
}

/// Our address on the way to `destination`.
async fn route(destination: SocketAddr) -> io::Result<IpAddr> {
    let any = if destination.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(destination).await?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::media::stream::PACKET_MAX;
    use crate::media::{self, PlayId, Stream};
    use crate::prompt::Prompt;
    use crate::sip::agent::{self, Agent, Command, Event, Input};
    use crate::sip::offer::{self, Local, SrtpSeed};
    use crate::sip::profile::Latch;

    fn options(target: String, script: &str) -> Options {
        Options {
            target,
            from: Some("+12025550123".into()),
            script: script.into(),
            keying: Keying { on_ms: 60, off_ms: 40, ..Keying::default() },
            srtp: SrtpPolicy::Off,
            laws: vec![Law::Mu, Law::A],
            headers: vec![("X-Account".into(), "48291503".into())],
            prompts: prompt::Settings::default(),
            local: None,
            call_max: Duration::from_secs(20),
            person: None,
        }
    }

    /// Answers one call, says goodbye and hangs up.
    #[allow(clippy::disallowed_methods)]
    async fn answer_one(sip: UdpSocket, library: Arc<Library>) -> agent::Invitation {
        let contact = sip.local_addr().unwrap();
        let rtp = UdpSocket::bind((contact.ip(), 0)).await.unwrap();
        let settings = agent::Settings::new(contact, "test", 2);
        let mut agent = Agent::new(settings, [1; 32]);
        let media = media::Setup {
            ssrc: 1,
            sequence: 1,
            timestamp: 1,
            chance: 1,
            record: false,
            listen: false,
        };
        let mut stream = Stream::new(media, Latch::Strict, Instant::now());
        let mut turns = tokio::time::interval(Duration::from_millis(20));
        let (mut buffer, mut taken, mut leg) = ([0; 4096], None, None);
        loop {
            while let Some(output) = agent.poll() {
                let now = Instant::now();
                match output {
                    agent::Output::Transmit { destination, bytes } => {
                        sip.send_to(&bytes, destination.address).await.unwrap();
                    }
                    agent::Output::Event(Event::Offered { leg: offered, invitation }) => {
                        let port = rtp.local_addr().unwrap().port();
                        let local = Local {
                            address: contact.ip(),
                            port,
                            codecs: vec![Law::A.into()],
                            silence: offer::Silence::Packets,
                            events: true,
                            session_id: 1,
                            session_version: 1,
                            srtp: SrtpPolicy::Optional,
                            keys: SrtpSeed::new([3; 32]),
                        };
                        let sdp = invitation.offer.as_ref().unwrap();
                        let (sdp, negotiated) = offer::answer(sdp, &local).unwrap();
                        stream.command(now, media::Command::Negotiated(negotiated));
                        let clips = library.clips(&[Prompt::Phrase("bye.plain")], &|_| None);
                        let id = PlayId(1);
                        stream.command(now, media::Command::Play { id, clips, barge_in: false });
                        agent.handle(now, Input::Command(Command::Answer { leg: offered, sdp }));
                        (taken, leg) = (Some(*invitation), Some(offered));
                    }
                    agent::Output::Event(_)
                    | agent::Output::Intrusion(_)
                    | agent::Output::Registered { .. }
                    | agent::Output::Reachable { .. } => {}
                }
            }
            if agent.calls() == 0
                && let Some(invitation) = taken.take()
            {
                return invitation;
            }
            tokio::select! {
                arrived = sip.recv_from(&mut buffer) => {
                    let (len, source) = arrived.unwrap();
                    let bytes = Bytes::copy_from_slice(&buffer[..len]);
                    let datagram = Input::datagram(source, bytes);
                    agent.handle(Instant::now(), datagram);
                }
                _ = turns.tick() => {
                    let mut packet = [0; PACKET_MAX];
                    if let Some(len) = stream.transmit(Instant::now(), &mut packet) {
                        rtp.send_to(&packet[..len], stream.remote().unwrap()).await.unwrap();
                    }
                    if let Some(media::Event::PlayEnded { .. }) = stream.poll()
                        && let Some(leg) = leg.take()
                    {
                        let hangup = Command::Hangup { leg, reason: None };
                        agent.handle(Instant::now(), Input::Command(hangup));
                    }
                    agent.handle(Instant::now(), Input::Tick);
                }
            }
        }
    }

    #[tokio::test]
    async fn calls_over_real_sockets() {
        let library = Arc::new(prompts::load(&prompt::Settings::default()).unwrap());
        let sip = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = format!("sip:pay@{}", sip.local_addr().unwrap());
        let server = tokio::spawn(answer_one(sip, library));
        let mut told = Vec::new();
        let code = dial(options(target, "hear bye.plain 10s, wait-end 5s"), &mut told).await;
        let told = String::from_utf8(told).unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS), "{told}");
        let lines: Vec<&str> = told.lines().map(|line| line[9..].trim()).collect();
        let want = ["answered, PCMA and telephone-event", "heard \"Goodbye.\""];
        assert_eq!(lines, [want[0], want[1], "the other side hung up"]);
        let invitation = server.await.unwrap();
        assert!(invitation.headers.contains(&("X-Account".into(), "48291503".into())));
    }

    /// Talks on and on, until their phone is gone.
    struct Somebody {
        asked: Arc<AtomicUsize>,
    }

    impl Person for Somebody {
        fn spoken(&mut self) -> Option<Box<[i16; SAMPLES]>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Some(Box::new([1_000; SAMPLES]))
        }

        fn play(&mut self, _: &[i16; SAMPLES]) {}

        fn pressed(&mut self) -> Option<Keys> {
            None
        }

        fn lost(&mut self) -> Option<String> {
            (self.asked.load(Ordering::Relaxed) >= 15).then(|| "the headset is gone".into())
        }
    }

    #[tokio::test]
    async fn a_person_is_heard_once_a_packet_and_the_call_ends_with_their_headset() {
        let library = Arc::new(prompts::load(&prompt::Settings::default()).unwrap());
        let sip = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut options = options(format!("sip:pay@{}", sip.local_addr().unwrap()), "");
        let server = tokio::spawn(answer_one(sip, library));
        let asked = Arc::new(AtomicUsize::new(0));
        options.person = Some(Box::new(Somebody { asked: Arc::clone(&asked) }));
        let mut told = Vec::new();
        let code = dial(options, &mut told).await;
        let told = String::from_utf8(told).unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(1)), "{told}");
        assert!(told.trim_end().ends_with("we hung up"), "{told}");
        // 15 packets of 20 ms.
        let at: f64 = told.lines().last().unwrap()[..9].trim().parse().unwrap();
        assert!(at > 0.27, "{told}");
        assert_eq!(asked.load(Ordering::Relaxed), 15);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_dialled_is_said() {
        for (target, script) in
            [("pay", ""), ("tel:+12025550100", ""), ("sip:pay@127.0.0.1:9", "shout")]
        {
            let mut told = Vec::new();
            let code = dial(options(target.into(), script), &mut told).await;
            assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(2)), "{target}");
        }
        let error = resolve("tel:+12025550100").await.unwrap_err().to_string();
        assert!(error.ends_with("write it as sip:pay@192.0.2.7:5060"), "{error}");
    }
}
