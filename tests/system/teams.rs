//! Microsoft Teams Direct Routing as its profile has it: TLS with a certificate of the right name,
//! SRTP with keys in the SDP. SIPp of Debian speaks no TLS, so the other side is played here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ringtill::rtp::packet::Packet;
use ringtill::rtp::srtp::Unprotect;
use ringtill::sip::offer::{MasterKey, Suite};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::binary::{ACCOUNTS, Binary, beside_others, uninterrupted};
use crate::caller::Sip;

const OURS: &str = "sbc.example.com";
/// Where Teams calls from in this test; the trunk of 127.0.0.1 is another.
const MICROSOFT: &str = "127.0.3.1";

/// An authority, and what it signed: certificate and key as PEM.
struct Authority {
    root: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a certificate").pem();
        Authority { root, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_string()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

/// A TLS connection from Microsoft's address, and how often it asked.
struct Teams {
    stream: StreamOwned<ClientConnection, TcpStream>,
    received: String,
    rtp: UdpSocket,
    call: u32,
}

impl Teams {
    fn connect(from: &str, port: u16, authority: &Authority, name: Option<&str>) -> Teams {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.root.as_bytes()).expect("PEM");
        roots.add(root).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match name.map(|name| authority.sign(name)) {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(vec![certificate.expect("PEM")], key).expect("a pair")
            }
        };
        let server = ServerName::try_from(OURS).expect("a name");
        let connection = ClientConnection::new(Arc::new(config), server).expect("a client");
        let local: SocketAddr = format!("{from}:0").parse().expect("an address");
        let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::STREAM);
        let socket = socket2::Socket::new(domain, kind, None).expect("a socket");
        socket.bind(&local.into()).expect("bound");
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("connected");
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let rtp = UdpSocket::bind((MICROSOFT, 0)).expect("a port");
        rtp.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let stream = StreamOwned::new(connection, socket);
        Teams { stream, received: String::new(), rtp, call: 0 }
    }

    /// What the server showed, after the first answer.
    fn certificate(&self) -> Vec<u8> {
        let shown = self.stream.conn.peer_certificates().expect("a handshake");
        shown[0].as_ref().to_vec()
    }

    fn send(&mut self, message: &str) {
        self.stream.write_all(message.as_bytes()).expect("sent");
    }

    /// The next final response.
    fn response(&mut self) -> String {
        loop {
            while let Some(message) = self.message() {
                if !message.starts_with("SIP/2.0 1") {
                    return message;
                }
            }
            let mut buffer = [0; 4096];
            let len = uninterrupted(|| self.stream.read(&mut buffer)).expect("an answer");
            assert!(len > 0, "the connection was closed");
            self.received.push_str(&String::from_utf8_lossy(&buffer[..len]));
        }
    }

    /// One whole message of what has come.
    fn message(&mut self) -> Option<String> {
        let head = self.received.find("\r\n\r\n")? + 4;
        let length = self.received[..head].split("Content-Length: ").nth(1)?;
        let length: usize = length.split("\r\n").next()?.parse().ok()?;
        (self.received.len() >= head + length)
            .then(|| self.received.drain(..head + length).collect())
    }

    /// An INVITE as Teams writes it, with this audio line and what is below it.
    fn invite(&mut self, audio: &str) -> String {
        self.call += 1;
        let port = self.rtp.local_addr().expect("bound").port();
        let audio = audio.replace("PORT", &port.to_string());
        let body = format!(
            "v=0\r\no=- 1 1 IN IP4 {MICROSOFT}\r\ns=session\r\nc=IN IP4 {MICROSOFT}\r\nt=0 0\r\n{audio}"
        );
        let more = format!(
            "Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let invite = self.request("INVITE", "", &more);
        self.send(&invite);
        let answer = self.response();
        let ack = self.request("ACK", &tag(&answer), "Content-Length: 0\r\n\r\n");
        self.send(&ack);
        answer
    }

    fn request(&self, method: &str, to_tag: &str, more: &str) -> String {
        let cseq = if method == "BYE" { 2 } else { 1 };
        let call = self.call;
        format!(
            "{method} sip:+13175550100@{OURS}:5061;user=phone;transport=tls SIP/2.0\r\n\
             Via: SIP/2.0/TLS {MICROSOFT}:5061;branch=z9hG4bK{method}{call}{to_tag}\r\n\
             From: <sip:+13175550123@sip.pstnhub.microsoft.com:5061;user=phone>;tag=t{call}\r\n\
             To: <sip:+13175550100@{OURS}:5061;user=phone>{to_tag}\r\n\
             Call-ID: teams-{call}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 69\r\n\
             Record-Route: <sip:{MICROSOFT}:5061;transport=tls;lr>\r\n\
             Contact: <sip:api-du-a-uswe.pstnhub.microsoft.com:443;x-i=4b;transport=tls>\r\n\
             P-Asserted-Identity: <tel:+13175550123>\r\nPrivacy: id\r\n{more}"
        )
    }
}

/// `;tag=...` of To.
fn tag(response: &str) -> String {
    let to = response.lines().find(|line| line.starts_with("To: ")).unwrap_or_default();
    to.split_once(";tag=").map(|(_, tag)| format!(";tag={tag}")).unwrap_or_default()
}

/// The server, and the folder that its certificate is in.
fn start(authority: &Authority) -> (Binary, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    certify(authority, folder.path());
    let root = folder.path().join("microsoft.pem");
    std::fs::write(&root, &authority.root).expect("written");
    let more = format!(
        "[[trunk]]\nprofile = \"teams\"\nsources = [\"127.0.3.0/29\"]\ntrust_caller_id = true\n\n\
         [sip.tls]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\nclient_ca_file = \"{}\"\n",
        folder.path().join("ours.pem").display(),
        folder.path().join("ours.key").display(),
        root.display(),
    );
    (Binary::start_listening(&["tls"], ACCOUNTS, "info", &more), folder)
}

/// Puts a new certificate of ours into the folder.
fn certify(authority: &Authority, folder: &Path) {
    let (certificate, key) = authority.sign(OURS);
    std::fs::write(folder.join("ours.pem"), certificate).expect("written");
    std::fs::write(folder.join("ours.key"), key).expect("written");
}

/// TLS does not imply SRTP, nor a network whose address is known that it is who it says.
#[test]
fn problem_12_teams_gets_srtp_over_tls_or_488() {
    let _turn = beside_others();
    let authority = Authority::new();
    let (mut binary, folder) = start(&authority);
    let key = [7; 30];
    let plain = "m=audio PORT RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n";
    let secured = format!(
        "m=audio PORT RTP/SAVP 104 0 101\r\na=rtpmap:104 SILK/16000\r\n\
         a=rtpmap:101 telephone-event/8000\r\n\
         a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{}|2^31\r\n",
        STANDARD.encode(key)
    );
    // From several addresses: one is not told about twice in a second.
    for (from, name) in [
        ("127.0.3.2", None),
        ("127.0.3.3", Some("sip.pstnhub.example")),
        ("127.0.3.4", Some("pstnhub.microsoft.com")),
    ] {
        let mut stranger = Teams::connect(from, binary.port, &authority, name);
        let answer = stranger.invite(&secured);
        assert!(answer.starts_with("SIP/2.0 403"), "{name:?}: {answer}");
        binary.wait_for("no-certificate");
    }
    let by_udp = Sip::at("127.0.3.5", binary.port).options();
    assert_eq!(by_udp.status, 403);
    binary.wait_for("wrong-transport");
    let mut teams =
        Teams::connect(MICROSOFT, binary.port, &authority, Some("sip.pstnhub.microsoft.com"));
    let answer = teams.invite(plain);
    assert!(answer.starts_with("SIP/2.0 488"), "{answer}");
    let answer = teams.invite(&secured);
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    assert!(answer.contains(";transport=tls>"), "our Contact: {answer}");
    hear(&teams, &answer);
    // A certificate that is renewed meanwhile is for new connections, and disturbs no call.
    let shown = teams.certificate();
    certify(&authority, folder.path());
    binary.signal("HUP");
    binary.wait_for("TLS certificates read again");
    let name = Some("sip.pstnhub.microsoft.com");
    let mut next = Teams::connect(MICROSOFT, binary.port, &authority, name);
    next.call = teams.call;
    assert!(next.invite(plain).starts_with("SIP/2.0 488"));
    assert_ne!(next.certificate(), shown);
    let bye = teams.request("BYE", &tag(&answer), "Content-Length: 0\r\n\r\n");
    teams.send(&bye);
    assert!(teams.response().starts_with("SIP/2.0 200"));
    binary.wait_for("call ended");
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
    let log = binary.log.join("\n");
    assert!(log.contains("by=\"caller id\""), "{log}");
    let inline = answer.split("inline:").nth(1).and_then(|rest| rest.get(..40)).expect("a key");
    for secret in [STANDARD.encode(key).as_str(), inline] {
        assert!(!log.contains(secret), "a key is in the log");
    }
}

/// What comes in is sealed with the key of the answer, and is sound once opened.
fn hear(teams: &Teams, answer: &str) {
    assert!(answer.contains(" RTP/SAVP 0 101\r\n"), "{answer}");
    let inline = answer.split("AES_CM_128_HMAC_SHA1_80 inline:").nth(1).expect("a crypto line");
    let key = STANDARD.decode(inline.get(..40).expect("40 characters")).expect("base64");
    let mut theirs = Unprotect::new(&MasterKey::new(Suite::Cm80, &key).expect("30 bytes"));
    let (mut buffer, mut heard) = ([0; 2048], 0);
    while heard < 10 {
        let len = uninterrupted(|| teams.rtp.recv(&mut buffer)).expect("sound");
        let opened = theirs.rtp(&buffer[..len]).expect("sealed with that key");
        let sound = Packet::parse(&opened).expect("RTP").payload;
        assert_eq!(sound.len(), 160);
        heard += usize::from(sound.iter().any(|code| !matches!(code, 0xff | 0x7f)));
    }
}
