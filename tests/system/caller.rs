//! Callers over real sockets: SIP written out by hand, and the test phone with its own thread of
//! time.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use ringtill::dial::listen::Index;
use ringtill::dial::phone::{Output, Phone, Setup};
use ringtill::dial::run::Failure;
use ringtill::dial::script::{Keying, Script};
use ringtill::media::Clip;
use ringtill::prompt::{self, Library};
use ringtill::rtp::packet::{Header, Packet};
use ringtill::server::dial;
use ringtill::sip::offer::{Law, SrtpPolicy};

use crate::binary::{deadline, now, uninterrupted};

/// Numbers of the accounts in `binary::ACCOUNTS`.
pub const JAMES: &str = "+13175550123";
pub const MARIA: &str = "+13175550144";

/// SIP by hand: each request is a transaction of its own.
pub struct Sip {
    pub socket: UdpSocket,
    pub server: SocketAddr,
    serial: u32,
}

/// The final response to a request.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub text: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        let lines = self.text.lines().filter_map(|line| line.split_once(':'));
        let mut found = lines.filter(|(header, _)| header.eq_ignore_ascii_case(name));
        found.next().map_or("", |(_, value)| value.trim())
    }
}

impl Sip {
    /// A caller at a loopback address; the server's trunk knows 127.0.0.1 only.
    pub fn at(address: &str, port: u16) -> Sip {
        let socket = UdpSocket::bind((address, 0)).expect("a port");
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        Sip { socket, server, serial: 0 }
    }

    /// A request outside any dialog, complete with its body.
    pub fn request(&mut self, method: &str, body: &str) -> String {
        self.serial += 1;
        self.message(method, self.serial, "", body)
    }

    pub fn invite(&mut self, sdp: &str) -> String {
        self.request("INVITE", sdp)
    }

    /// `call` names dialog and transaction; `to` is the tag of To, as `;tag=x`, or empty.
    fn message(&self, method: &str, call: u32, to: &str, body: &str) -> String {
        let us = self.socket.local_addr().expect("bound");
        let server = self.server;
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let cseq = if matches!(method, "INVITE" | "ACK" | "CANCEL") { 1 } else { 2 };
        format!(
            "{method} sip:pay@{server} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {us};branch=z9hG4bK-{method}-{call}\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:{JAMES}@{us}>;tag=f{call}\r\n\
             To: <sip:pay@{server}>{to}\r\n\
             Call-ID: call-{call}@{us}\r\n\
             CSeq: {cseq} {method}\r\n\
             Contact: <sip:{JAMES}@{us}>\r\n\
             {kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    pub fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.server).expect("sent");
    }

    /// Sends a request, again while nothing comes, until its final response; acknowledges a
    /// refusal of an INVITE.
    pub fn ask(&mut self, request: &str) -> Reply {
        let Some(reply) = self.reply_within(request, Duration::from_secs(10)) else {
            panic!("no answer to\n{request}");
        };
        if reply.status >= 300 && request.starts_with("INVITE") {
            let tag = tag(&reply);
            let ack = self.message("ACK", self.serial, &tag, "");
            // The ACK of a refusal belongs to the INVITE's transaction, that of a 200 does not.
            self.send(ack.replace("z9hG4bK-ACK", "z9hG4bK-INVITE").as_bytes());
        }
        reply
    }

    /// The final response to a request, if there is one.
    pub fn reply_within(&self, request: &str, limit: Duration) -> Option<Reply> {
        let until = deadline(limit);
        let branch = request.lines().find(|line| line.starts_with("Via:"))?;
        let branch = branch.split("branch=").nth(1)?.trim();
        let mut again = Duration::from_millis(500);
        while now() < until {
            self.send(request.as_bytes());
            let pause = deadline(again).min(until);
            while let Some(text) = self.receive(pause) {
                let status = text.get(8..11).and_then(|status| status.parse().ok());
                let status = status.filter(|_| text.starts_with("SIP/2.0 ")).unwrap_or(0);
                if status >= 200 && text.contains(branch) {
                    return Some(Reply { status, text });
                }
                if status >= 100 {
                    // Somebody has it: no need to send again.
                    again = limit;
                }
            }
            again *= 2;
        }
        None
    }

    fn receive(&self, until: Instant) -> Option<String> {
        let mut buffer = vec![0; 65_536];
        let left = until.saturating_duration_since(now()).max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(left)).expect("a timeout");
        let (len, _) = uninterrupted(|| self.socket.recv_from(&mut buffer)).ok()?;
        Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
    }

    pub fn options(&mut self) -> Reply {
        let request = self.request("OPTIONS", "");
        self.ask(&request)
    }

    /// A whole short call: answered, the greeting heard, hung up.
    pub fn expect_a_working_call(&mut self) {
        let us = self.socket.local_addr().expect("bound").ip();
        let rtp = UdpSocket::bind((us, 0)).expect("a port");
        let sdp = sdp(rtp.local_addr().expect("bound"));
        let invite = self.invite(&sdp);
        let answer = self.ask(&invite);
        assert_eq!(answer.status, 200, "{}", answer.text);
        let (call, tag) = (self.serial, tag(&answer));
        self.send(self.message("ACK", call, &tag, "").as_bytes());
        let port = answer.text.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next());
        let port = port.and_then(|port| port.parse().ok()).expect("audio in the answer");
        rtp.connect((self.server.ip(), port)).expect("connected");
        let heard = loud_packets(&rtp, 25, Duration::from_secs(5));
        assert!(heard >= 25, "{heard} packets of the greeting");
        self.hang_up(call, &tag);
    }

    /// A call that is up, its sound ignored; the tag of its To.
    pub fn call(&mut self) -> String {
        let us = self.socket.local_addr().expect("bound");
        let invite = self.invite(&sdp(us));
        let answer = self.ask(&invite);
        assert_eq!(answer.status, 200, "{}", answer.text);
        let tag = tag(&answer);
        self.send(self.message("ACK", self.serial, &tag, "").as_bytes());
        tag
    }

    /// Presses keys on the last call, each reported by INFO. `cseq` is the first one's number.
    pub fn press(&mut self, tag: &str, cseq: u32, keys: &str) {
        for (nth, key) in keys.chars().enumerate() {
            let cseq = cseq + nth as u32;
            let body = format!("Signal={key}\r\nDuration=100\r\n");
            let info = self
                .message("INFO", self.serial, tag, &body)
                .replace("CSeq: 2 ", &format!("CSeq: {cseq} "))
                .replace("z9hG4bK-INFO", &format!("z9hG4bK-INFO{cseq}"))
                .replace("application/sdp", "application/dtmf-relay");
            let reply = self.reply_within(&info, Duration::from_secs(10));
            assert_eq!(reply.map(|reply| reply.status), Some(200), "INFO {cseq}");
        }
    }

    fn hang_up(&mut self, call: u32, tag: &str) {
        let bye = self.message("BYE", call, tag, "");
        let over = self.ask(&bye);
        assert_eq!(over.status, 200, "{}", over.text);
    }
}

/// `;tag=...` of To.
fn tag(reply: &Reply) -> String {
    let to = reply.header("To");
    to.split_once(";tag=").map(|(_, tag)| format!(";tag={tag}")).unwrap_or_default()
}

/// An offer that gets 488, so that no call comes of it.
pub const NO_CODEC: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\n\
                            t=0 0\r\nm=audio 30000 RTP/AVP 18\r\n";

/// An offer of PCMU and telephone-events.
pub fn sdp(rtp: SocketAddr) -> String {
    let (ip, port) = (rtp.ip(), rtp.port());
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n"
    )
}

/// How many packets that are more than silence arrive, up to `enough`; sends silence meanwhile.
fn loud_packets(rtp: &UdpSocket, enough: usize, limit: Duration) -> usize {
    rtp.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    let (until, mut buffer, mut loud) = (deadline(limit), [0; 2048], 0);
    let mut header =
        Header { marker: true, payload_type: 0, sequence: 0, timestamp: 0, ssrc: 0x5eed };
    while loud < enough && now() < until {
        let _ = rtp.send(&[&header.bytes()[..], &[0xff; 160]].concat());
        header.sequence += 1;
        header.timestamp += 160;
        let Ok(len) = rtp.recv(&mut buffer) else { continue };
        let sound = Packet::parse(&buffer[..len]).expect("RTP").payload;
        loud += usize::from(sound.iter().any(|code| !matches!(code, 0xff | 0x7f)));
    }
    loud
}

/// What the caller of the demo says.
fn spoken(name: &str) -> Result<Clip, String> {
    let path = format!("{}/src/server/demo/voice/{name}.flac", env!("CARGO_MANIFEST_DIR"));
    let bytes = fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
    dial::sound(bytes.into()).map_err(|error| format!("{path}: {error}"))
}

/// The test phone on sockets of this machine.
pub struct Line {
    phone: Phone,
    sip: UdpSocket,
    pub rtp: UdpSocket,
    /// The header of the last packet we sent, and where to.
    pub last: Option<(Header, SocketAddr)>,
    pub reports: Vec<String>,
    began: Instant,
}

impl Line {
    /// Calls the server on `port` as `number`.
    pub fn place(port: u16, number: &str, script: &str, keying: Keying) -> Line {
        let bind = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket.set_nonblocking(true).expect("nonblocking");
            socket
        };
        let (sip, rtp) = (bind(), bind());
        let mut script = Script::parse(script, &|id| library().catalog().entry(id).is_some())
            .unwrap_or_else(|error| panic!("{error}"));
        script.load(spoken).unwrap_or_else(|error| panic!("{error}"));
        let address = sip.local_addr().expect("bound");
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&address.port().to_le_bytes());
        let setup = Setup {
            target: format!("sip:pay@127.0.0.1:{port}"),
            destination: SocketAddr::from(([127, 0, 0, 1], port)),
            from: format!("sip:{number}@{address}"),
            headers: Vec::new(),
            sip: address,
            rtp: rtp.local_addr().expect("bound"),
            prompts: vec![index()],
            codecs: Vec::new(),
            script,
            keying,
            srtp: SrtpPolicy::Off,
            seed,
            call_max: Duration::from_secs(180),
        };
        let began = now();
        let phone = Phone::new(setup, began);
        Line { phone, sip, rtp, last: None, reports: Vec::new(), began }
    }

    /// Runs the call until the phone reports something with `part` in it.
    pub fn run_until(&mut self, part: &str) {
        let seen = self.reports.len();
        while !self.reports[seen..].iter().any(|report| report.contains(part)) {
            assert!(self.turn().is_none(), "the call ended before `{part}`:\n{}", self.log());
        }
    }

    /// Runs the call to its end: how it went by the script.
    pub fn run(&mut self) -> Result<(), Failure> {
        loop {
            if let Some(result) = self.turn() {
                return result;
            }
        }
    }

    /// What the phone reported, with times.
    pub fn log(&self) -> String {
        self.reports.join("\n")
    }

    /// A few milliseconds of the call; how it went once it is over.
    pub fn turn(&mut self) -> Option<Result<(), Failure>> {
        while let Some(output) = self.phone.poll() {
            match output {
                Output::Sip { destination, bytes } => {
                    let _ = self.sip.send_to(&bytes, destination);
                }
                Output::Rtp { destination, bytes } => {
                    let _ = self.rtp.send_to(&bytes, destination);
                    let header = Packet::parse(&bytes).expect("the phone sends RTP").header;
                    self.last = Some((header, destination));
                }
                Output::Sound(_) => {}
                Output::Report(report) => {
                    let at = now().duration_since(self.began).as_secs_f32();
                    self.reports.push(format!("{at:7.2} {report}"));
                }
            }
        }
        if let Some(result) = self.phone.finished() {
            return Some(result.clone());
        }
        let mut buffer = [0; 65_536];
        while let Ok((len, source)) = self.sip.recv_from(&mut buffer) {
            self.phone.sip(now(), source, buffer[..len].to_vec().into());
        }
        while let Ok((len, source)) = self.rtp.recv_from(&mut buffer) {
            self.phone.rtp(now(), source, &buffer[..len]);
        }
        if self.phone.deadline().is_some_and(|at| at <= now()) {
            self.phone.tick(now());
        }
        thread::sleep(Duration::from_millis(2));
        None
    }
}

pub fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = ringtill::server::prompts::load(&prompt::Settings::default());
        library.unwrap_or_else(|problems| panic!("{problems:?}"))
    })
}

/// The words of a phrase, as the phone reports them.
pub fn words(id: &str) -> &'static str {
    &library().catalog().entry(id).unwrap_or_else(|| panic!("no phrase {id}")).text
}

fn index() -> Arc<Index> {
    static INDEX: OnceLock<Arc<Index>> = OnceLock::new();
    INDEX.get_or_init(|| Arc::new(Index::of(library(), Law::Mu))).clone()
}
