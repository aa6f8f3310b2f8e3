//! A peer whose messages are written out.

use super::*;

/// One agent, and a peer whose messages are written out.
pub struct Scripted {
    pub now: Instant,
    pub agent: Agent,
    pub leg: Leg,
    /// To header of the dialog, with our tag.
    pub to: String,
    pub transmitted: Vec<String>,
    pub destinations: Vec<SocketAddr>,
    pub events: Vec<Event>,
    pub intrusions: Vec<Intrusion>,
    pub registered: Vec<Registered>,
    pub reachable: Vec<bool>,
}

impl Scripted {
    pub fn new() -> Scripted {
        Scripted::with(settings(US))
    }

    /// Served by a trunk of which `profile` is TOML; the peer's address is added.
    pub fn trunk(profile: &str) -> Scripted {
        let profile = format!("sources = [\"192.0.2.0/24\"]\n{profile}");
        let trunks = vec![Arc::new(Profile::parse(&profile).unwrap())];
        Scripted::with(Settings { trunks, ..settings(US) })
    }

    pub fn with(settings: Settings) -> Scripted {
        Scripted {
            now: start(),
            agent: Agent::new(settings, [7; 32]),
            leg: Leg(0),
            to: String::new(),
            transmitted: Vec::new(),
            destinations: Vec::new(),
            events: Vec::new(),
            intrusions: Vec::new(),
            registered: Vec::new(),
            reachable: Vec::new(),
        }
    }

    /// With a call that is up.
    pub fn up(headers: &str) -> Scripted {
        Scripted::new().called(headers)
    }

    /// Its call with these headers is answered.
    pub fn called(mut self, headers: &str) -> Scripted {
        let peer = &mut self;
        let invite = peer.invite().replace("Contact:", &format!("{headers}Contact:"));
        peer.receive(&invite);
        peer.leg = peer.offered().0;
        peer.command(Command::Answer { leg: peer.leg, sdp: OFFER.into() });
        let ok = peer.sent("SIP/2.0 200");
        peer.to = field(&ok, "To").to_string();
        peer.receive(&peer.request("ACK", 1, "z9hG4bKack", Some(&ok), "", ""));
        assert!(matches!(peer.events()[..], [Event::Established { .. }]));
        peer.transmitted.clear();
        self
    }

    pub fn invite(&self) -> String {
        let sdp = "Content-Type: application/sdp\r\nContact: <sip:a@192.0.2.1:5060>\r\n";
        self.request("INVITE", 1, "z9hG4bK1", None, sdp, OFFER)
    }

    /// `response` lends its To to a request inside the dialog.
    pub fn request(
        &self,
        method: &str,
        cseq: u32,
        branch: &str,
        response: Option<&str>,
        headers: &str,
        body: &str,
    ) -> String {
        let to = response.map_or("<sip:1000@192.0.2.2>", |response| field(response, "To"));
        format!(
            "{method} sip:1000@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch={branch}\r\n\
             From: <sip:a@192.0.2.1>;tag=them\r\nTo: {to}\r\nCall-ID: c1\r\nCSeq: {cseq} {method}\r\n\
             {headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    pub fn in_dialog(
        &self,
        method: &str,
        cseq: u32,
        branch: &str,
        headers: &str,
        body: &str,
    ) -> String {
        let response = format!("SIP/2.0 200 OK\r\nTo: {}\r\n", self.to);
        self.request(method, cseq, branch, Some(&response), headers, body)
    }

    /// `headers|cseq|body`
    pub fn notify(&mut self, text: &str) {
        let parts: Vec<&str> = text.splitn(3, '|').collect();
        let branch = format!("z9hG4bKn{}", parts[1]);
        let cseq = parts[1].parse().unwrap();
        self.receive(&self.in_dialog("NOTIFY", cseq, &branch, parts[0], parts[2]));
    }

    pub fn place(&mut self, target: &str) -> String {
        let leg = self.agent.next_leg();
        self.command(Command::Invite {
            leg,
            call: Box::new(Placement {
                target: target.into(),
                destinations: vec![Peer::udp(address(PEER))],
                from: "sip:us@192.0.2.2".into(),
                headers: Vec::new(),
                sdp: OFFER.into(),
                trunk: self.agent.settings.trunks.first().cloned().unwrap_or_default(),
            }),
        });
        self.sent("INVITE ")
    }

    pub fn receive(&mut self, text: &str) {
        self.receive_from(text, PEER);
    }

    pub fn receive_from(&mut self, text: &str, source: &str) {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        self.agent.handle(self.now, Input::datagram(address(source), bytes));
        self.collect();
    }

    pub fn command(&mut self, command: Command) {
        self.agent.handle(self.now, Input::Command(command));
        self.collect();
    }

    pub fn respond(&mut self, request: &str, status: &str) {
        self.respond_with(request, status, "them", "", "");
    }

    pub fn respond_with(
        &mut self,
        request: &str,
        status: &str,
        tag: &str,
        headers: &str,
        body: &str,
    ) {
        let to = field(request, "To");
        let to = if to.contains("tag=") { to.to_string() } else { format!("{to};tag={tag}") };
        let text = format!(
            "SIP/2.0 {status}\r\nVia: {}\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
             {headers}Content-Length: {}\r\n\r\n{body}",
            field(request, "Via"),
            field(request, "From"),
            field(request, "Call-ID"),
            field(request, "CSeq"),
            body.len()
        );
        self.receive(&text);
    }

    pub fn pass(&mut self, time: Duration) {
        let limit = self.now + time;
        while let Some(at) = self.agent.deadline().filter(|at| *at <= limit) {
            self.now = self.now.max(at);
            self.agent.handle(self.now, Input::Tick);
            self.collect();
        }
        self.now = limit;
    }

    pub fn collect(&mut self) {
        while let Some(output) = self.agent.poll() {
            match output {
                Output::Event(event) => self.events.push(event),
                Output::Intrusion(intrusion) => self.intrusions.push(intrusion),
                Output::Registered { state, .. } => self.registered.push(state),
                Output::Reachable { up, .. } => self.reachable.push(up),
                Output::Transmit { destination, bytes } => {
                    self.destinations.push(destination.address);
                    self.transmitted.push(String::from_utf8(bytes.to_vec()).unwrap());
                }
            }
        }
    }

    /// Takes the first message with this start out of what was sent.
    pub fn sent(&mut self, start: &str) -> String {
        let at = self.transmitted.iter().position(|sent| sent.starts_with(start));
        self.transmitted.remove(at.unwrap_or_else(|| {
            panic!("no {start:?} in {:#?}", self.transmitted);
        }))
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub fn offered(&mut self) -> (Leg, Invitation) {
        let at = self.events.iter().position(|event| matches!(event, Event::Offered { .. }));
        match self.events.remove(at.expect("a call is offered")) {
            Event::Offered { leg, invitation } => (leg, *invitation),
            _ => unreachable!(),
        }
    }

    pub fn referred(&mut self) -> Vec<u16> {
        let status = |event| match event {
            Event::Referred { status, .. } => Some(status),
            _ => None,
        };
        self.events().into_iter().filter_map(status).collect()
    }
}

pub fn field<'a>(message: &'a str, name: &str) -> &'a str {
    let line = message.split("\r\n").find(|line| line.starts_with(&format!("{name}: ")));
    line.map_or("", |line| &line[name.len() + 2..])
}
