//! `ringtill trunk explain`: which trunk takes a request, by which rule, why the others do not, and
//! what is read of the caller. The verdicts are those of the code that serves calls.

use std::fmt::{self, Write};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{clock, configuration};
use crate::account::Caller;
use crate::config::Config;
use crate::sip::agent::{Agent, Event, Input, Output, Settings};
use crate::sip::identity::{Attestation, Trust, Verification};
use crate::sip::model::{Host, Message, Method, Request, Response, is_token, phrase};
use crate::sip::offer::{self, Direction, Local, SrtpSeed};
use crate::sip::profile::{Profile, SensitiveMedia};
use crate::sip::trunk::{self, Arrival, Miss};
use crate::sip::wire::{self, Framed, Limits};
use crate::sip::{Invitation, Peer, Transport};

#[cfg(test)]
mod tests;

/// What to explain, and what the file does not tell.
#[derive(Debug)]
pub struct Options {
    /// One SIP request; `-` is standard input.
    pub file: PathBuf,
    pub from: Option<SocketAddr>,
    pub transport: Option<Transport>,
    /// Names in the TLS client certificate.
    pub certificates: Vec<String>,
}

/// How the explanation ended, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Taken,
    /// No trunk takes it.
    Unknown,
    /// It is no SIP request, or says not where it came from.
    Unreadable,
}

/// Larger files are no SIP request.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The bundled profiles, a line each.
pub fn list() -> String {
    let mut text = String::new();
    for (name, profile) in configuration::bundled_profiles() {
        let first = profile.lines().next().unwrap_or_default().trim_start_matches("# ");
        let _ = writeln!(text, "{name:<12}{first}");
    }
    text
}

/// The explanation, ready to print.
pub fn explain(config: &Config, options: &Options) -> (String, Verdict) {
    let trunks: Vec<Arc<Profile>> = config.trunks.iter().cloned().map(Arc::new).collect();
    match read(&options.file) {
        Ok(bytes) => explained(&trunks, &bytes, options),
        Err(error) => {
            let shown = options.file.display();
            (format!("{shown}: {error}; name a file with one SIP request\n"), Verdict::Unreadable)
        }
    }
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match file.to_str() {
        Some("-") => std::io::stdin().take(FILE_BYTES_MAX).read_to_end(&mut bytes)?,
        _ => std::fs::File::open(file)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

fn explained(trunks: &[Arc<Profile>], bytes: &[u8], options: &Options) -> (String, Verdict) {
    let bytes = as_sent(bytes);
    let request = match wire::parse(&bytes, &Limits::default()) {
        Framed::Message(Message::Request(request)) => request,
        Framed::Message(Message::Response(_)) => {
            return unreadable("this is a response; a request is needed, such as an INVITE");
        }
        Framed::KeepAlive => return unreadable("there is nothing in it"),
        Framed::Bad(bad) => {
            let (status, reason) = (bad.status, bad.reason);
            return unreadable(&format!("no SIP request: {reason} (it would get {status})"));
        }
    };
    let Some((peer, guessed)) = peer(&request, options) else {
        return unreadable("its Via names no address: say --from IP:PORT");
    };
    let certificate = (!options.certificates.is_empty()).then_some(options.certificates.as_slice());
    let mut report = Report { text: String::new() };
    let hint = if guessed { ", guessed from its Via: --from IP:PORT says better" } else { "" };
    let (method, dialled) = (&request.method, shown(&request.uri.number().unwrap_or_default()));
    let (transport, address) = (peer.transport, peer.address);
    report.line(format!("{method} for `{dialled}` by {transport} from {address}{hint}"));
    let verdict = report.trunks(trunks, &request, peer, certificate, &bytes);
    (report.text, verdict)
}

fn unreadable(why: &str) -> (String, Verdict) {
    (format!("error: {why}\n"), Verdict::Unreadable)
}

/// Traces are saved with line feeds alone and without the last one, and then Content-Length counts
/// what is not there any more: it is written anew.
fn as_sent(bytes: &[u8]) -> Vec<u8> {
    if bytes.windows(2).any(|pair| pair == b"\r\n") {
        return bytes.to_vec();
    }
    let (mut head, mut body) = (Vec::new(), Vec::new());
    let mut in_head = true;
    for line in bytes.trim_ascii().split(|b| *b == b'\n') {
        let name = line.split(|b| *b == b':').next().unwrap_or_default().trim_ascii();
        let length = name.eq_ignore_ascii_case(b"Content-Length") || name == b"l";
        match in_head {
            true if line.is_empty() => in_head = false,
            true if length => {}
            true => head.extend([line, b"\r\n"].concat()),
            false => body.extend([line, b"\r\n"].concat()),
        }
    }
    if !head.is_empty() {
        head.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
    }
    [head, body].concat()
}

/// Where it came from, and whether that is a guess.
fn peer(request: &Request, options: &Options) -> Option<(Peer, bool)> {
    let via = &request.core.via;
    let transport = options.transport.unwrap_or(match via.transport.as_str() {
        "TCP" => Transport::Tcp,
        "TLS" => Transport::Tls,
        _ => Transport::Udp,
    });
    let number = |name| via.params.value(name).and_then(|text| text.parse::<u16>().ok());
    let stated = || {
        let received = via.params.value("received").and_then(|text| text.parse().ok());
        let ip = received.or(match via.host {
            Host::IpAddr(ip) => Some(ip),
            Host::Domain(_) => None,
        })?;
        let port = number("rport").or(via.port).unwrap_or(transport.default_port());
        Some(SocketAddr::new(ip, port))
    };
    let (address, guessed) = match options.from {
        Some(address) => (address, false),
        None => (stated()?, true),
    };
    Some((Peer { transport, listener: 0, address, connection: None }, guessed))
}

/// The text as it grows.
struct Report {
    text: String,
}

impl Report {
    fn line(&mut self, line: impl fmt::Display) {
        let _ = writeln!(self.text, "{line}");
    }

    fn item(&mut self, name: &str, value: impl fmt::Display) {
        let _ = writeln!(self.text, "  {name:<14}{value}");
    }

    fn trunks(
        &mut self,
        trunks: &[Arc<Profile>],
        request: &Request,
        peer: Peer,
        certificate: Option<&[String]>,
        bytes: &[u8],
    ) -> Verdict {
        let arrival = Arrival::new(&peer, certificate);
        let first = trunk::admitting(trunks, &arrival).next().cloned();
        self.line("\nTrunks, in the order of the configuration:");
        let mut reached = true;
        for trunk in trunks {
            let verdict = match trunk.grounds(&arrival) {
                Err(miss) => format!("no: {miss}"),
                Ok(grounds) => {
                    let grounds: Vec<String> = grounds.iter().map(ToString::to_string).collect();
                    let grounds = grounds.join(", ");
                    // By digest an earlier trunk's call may prove to be a later one's.
                    let by_user = first.as_ref().is_some_and(|first| !first.users.is_empty());
                    match std::mem::take(&mut reached) {
                        true => format!("TAKES IT: {grounds}"),
                        false if by_user && !trunk.users.is_empty() => {
                            format!("takes it, if it proves to be this one's user: {grounds}")
                        }
                        false => format!("not reached; it would take it too: {grounds}"),
                    }
                }
            };
            self.item(&shown(&trunk.name), verdict);
        }
        let Some(trunk) = first else {
            self.nobody(&trunk::miss(trunks, &arrival), &peer);
            return Verdict::Unknown;
        };
        self.treatment(&trunk, request, peer, certificate, bytes);
        Verdict::Taken
    }

    fn nobody(&mut self, miss: &Miss, peer: &Peer) {
        self.line(format!("\nNo trunk takes it; nearest came the one of which {miss}."));
        self.line("It is refused with 403, or dropped. If it is yours, add:\n");
        let ip = peer.address.ip();
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        self.line("[[trunk]]");
        self.line("profile = \"generic\"      # others: `ringtill trunk list`");
        self.line("name = \"my-trunk\"");
        self.line(format!("sources = [\"{ip}/{prefix}\"]"));
    }

    /// What the trunk's profile makes of it. Digest is left out: the nonce was ours, of that time.
    fn treatment(
        &mut self,
        trunk: &Arc<Profile>,
        request: &Request,
        peer: Peer,
        certificate: Option<&[String]>,
        bytes: &[u8],
    ) {
        let proved = Arc::new(Profile { users: Vec::new(), ..Profile::clone(trunk) });
        let stands_alone = trunk.users.is_empty() || !trunk.sources.is_empty();
        let admitted = if stands_alone || !trunk.certificates.is_empty() {
            proved
        } else {
            let anywhere = vec![peer.address.ip().into()];
            Arc::new(Profile { sources: anywhere, ..Profile::clone(&proved) })
        };
        let answer = answer(admitted, peer, certificate, bytes);
        if request.method == Method::INVITE {
            self.line(format!("\nWhat `{}` reads in it:", shown(&trunk.name)));
            self.caller(trunk, request, peer);
            self.abilities(request);
        }
        self.line("");
        if !trunk.users.is_empty() {
            self.line("Without the right credentials it gets 401 first.");
        }
        match answer {
            Some(Answer::Offered(invitation)) => self.media(trunk, &invitation),
            Some(Answer::Response(response)) => self.response(request, &response),
            None => self.line("It gets no answer."),
        }
    }

    fn caller(&mut self, trunk: &Profile, request: &Request, peer: Peer) {
        let invitation = invitation(request, peer);
        let caller = Caller::from_invitation(&invitation, trunk);
        let header = trunk.caller_id.iter().find(|header| {
            let only = Profile { caller_id: vec![header.to_string()], ..trunk.clone() };
            Caller::from_invitation(&invitation, &only).number.is_some()
        });
        match (&caller.number, header) {
            (Some(number), Some(header)) => self.item("caller", format!("{number}, from {header}")),
            _ => {
                let headers = trunk.caller_id.join(", ");
                self.item("caller", format!("none: no telephone number in {headers}"));
            }
        }
        self.item("trusted", trusted(&caller, trunk.trust_caller_id));
        self.item("verified", verified(caller.verified));
        match (&caller.name, caller.name_withheld) {
            (_, true) => self.item("name", "withheld"),
            (name, false) => self.item("name", name.as_deref().map_or("none".into(), shown)),
        }
        self.item("account", caller.account.as_deref().map_or("none".into(), shown));
        for (field, value) in &caller.fields {
            self.item(&shown(field), shown(value));
        }
        if let Some(number) = &caller.diverted_from {
            self.item("diverted from", shown(number));
        }
        self.item("dialled", shown(&invitation.dialled));
    }

    fn abilities(&mut self, request: &Request) {
        let says = |header: &str, what: &str| {
            let mut words = request.headers.list(header);
            words.any(|word| word.eq_ignore_ascii_case(what))
        };
        let mut able: Vec<&str> = ["100rel", "timer", "replaces"]
            .into_iter()
            .filter(|option| says("Supported", option) || says("Require", option))
            .collect();
        able.extend(says("Allow", "UPDATE").then_some("UPDATE"));
        able.extend(says("Allow", "REFER").then_some("REFER"));
        let able = if able.is_empty() { "nothing of note".into() } else { able.join(", ") };
        self.item("its side can", able);
    }

    /// An INVITE that gets through is answered, unless its description cannot be.
    fn media(&mut self, trunk: &Profile, invitation: &Invitation) {
        let Some(sdp) = &invitation.offer else {
            self.line(
                "We would answer it with 200 and an offer of our own: it has none (late offer).",
            );
            return;
        };
        let tls = invitation.source.transport == Transport::Tls;
        match offer::answer(sdp, &local(trunk, invitation)) {
            Ok((_, agreed))
                if trunk.sensitive_media == SensitiveMedia::Srtp
                    && !(tls && offer::secured(&agreed)) =>
            {
                let why = "`sensitive_media` wants SRTP that is agreed on by TLS";
                self.line(format!("We would refuse it with 488 {}: {why}.", phrase(488)));
            }
            Ok((_, agreed)) => {
                let events = match agreed.events_in {
                    Some((payload_type, _)) => format!("telephone-event {payload_type}"),
                    None => "no telephone-event: keys are heard in the audio".into(),
                };
                let hold = match agreed.direction {
                    Direction::SendRecv => "",
                    _ => ", on hold",
                };
                let codec = agreed.codec.encoding();
                let srtp = if offer::secured(&agreed) { ", SRTP" } else { "" };
                self.line(format!("We would answer it with 200: {codec}, {events}{srtp}{hold}."));
            }
            Err(refusal) => {
                let status = refusal.status();
                let reason = phrase(status);
                self.line(format!("We would refuse it with {status} {reason}: {refusal}."));
            }
        }
    }

    fn response(&mut self, request: &Request, response: &Response) {
        let (status, reason) = (response.status, &response.reason);
        let verb = if status < 300 { "answer" } else { "refuse" };
        let why = why(request, response);
        self.line(format!("We would {verb} it with {status} {reason}{why}."));
    }
}

/// What the agent made of the request.
enum Answer {
    Offered(Box<Invitation>),
    Response(Box<Response>),
}

/// Asks an agent that serves this trunk alone.
fn answer(
    trunk: Arc<Profile>,
    peer: Peer,
    certificate: Option<&[String]>,
    bytes: &[u8],
) -> Option<Answer> {
    let contact = SocketAddr::from(([127, 0, 0, 1], peer.transport.default_port()));
    let settings = Settings { trunks: vec![trunk], ..Settings::new(contact, "ringtill", 1) };
    let mut agent = Agent::new(settings, [0; 32]);
    let certificate = certificate.map(Arc::from);
    let bytes = bytes.to_vec().into();
    agent.handle(clock::now(), Input::Received { peer, certificate, bytes });
    let mut answer = None;
    while let Some(output) = agent.poll() {
        match output {
            Output::Event(Event::Offered { invitation, .. }) => {
                answer = Some(Answer::Offered(invitation));
            }
            Output::Transmit { bytes, .. } if answer.is_none() => {
                if let Framed::Message(Message::Response(response)) =
                    wire::parse(&bytes, &Limits::default())
                    && response.status >= 200
                {
                    answer = Some(Answer::Response(Box::new(response)));
                }
            }
            _ => {}
        }
    }
    answer
}

/// What the response tells of its reason, in words.
fn why(request: &Request, response: &Response) -> String {
    let option = |header: &str| {
        let words = response.headers.list(header).filter(|word| is_token(word));
        words.collect::<Vec<_>>().join(", ")
    };
    match response.status {
        420 => format!(": it requires {}, which we do not know", option("Unsupported")),
        421 => format!(": the profile wants {} of it (`reliable`)", option("Require")),
        422 => format!(": its session timer is below {} s (`session_min_s`)", option("Min-SE")),
        403 if request.headers.first("Replaces").is_some() => {
            ": the profile does not let it replace calls (`accept_replaces`)".into()
        }
        481 if request.headers.first("Replaces").is_some() => {
            ", unless the call it replaces runs here".into()
        }
        481 if request.core.to_tag().is_some() => {
            ", unless its call runs here: it belongs to a call (To has a tag)".into()
        }
        415 => ": its body is no session description".into(),
        416 => ": we are not reached by this kind of address over this transport".into(),
        483 => ": too many hops (Max-Forwards 0)".into(),
        405 | 501 => format!(": we take no part in {}", request.method),
        _ => String::new(),
    }
}

fn invitation(request: &Request, source: Peer) -> Invitation {
    Invitation {
        source,
        local: source.address,
        trunk: Arc::default(),
        call_id: request.core.call_id.clone(),
        dialled: request.uri.number().unwrap_or_default(),
        headers: request.headers.clone().into_pairs(),
        offer: None,
    }
}

fn local(trunk: &Profile, invitation: &Invitation) -> Local {
    Local {
        address: invitation.local.ip(),
        port: 20_000,
        codecs: trunk.codecs.clone(),
        silence: trunk.silence,
        events: trunk.telephone_event,
        session_id: 1,
        session_version: 1,
        srtp: trunk.srtp,
        // Nobody sees these keys.
        keys: SrtpSeed::new([0; 32]),
    }
}

fn trusted(caller: &Caller, trust: Trust) -> &'static str {
    match (trust, caller.trusted) {
        (Trust::Never, _) => "no: trust_caller_id = false",
        _ if caller.number.is_none() => "no: there is no number",
        (Trust::Always, true) => "yes: trust_caller_id = true",
        (Trust::Always, false) => "no: the network says that its verification failed",
        (Trust::Attested, true) => "yes: verified with attestation A",
        (Trust::Attested, false) => "no: not verified with attestation A",
        (Trust::Validated, true) => "yes: verified",
        (Trust::Validated, false) => "no: not verified, or with a level below A",
    }
}

fn verified(verification: Verification) -> &'static str {
    match verification {
        Verification::Passed(Some(Attestation::Full)) => "passed, attestation A",
        Verification::Passed(Some(Attestation::Partial)) => "passed, attestation B",
        Verification::Passed(Some(Attestation::Gateway)) => "passed, attestation C",
        Verification::Passed(None) => "passed, level not told",
        Verification::Failed => "failed",
        Verification::Unknown => "not told",
    }
}

/// Text of others, fit for a terminal.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(128).collect()
}
