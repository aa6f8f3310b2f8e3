//! A dialog (RFC 3261 §12): tags, sequence numbers, route set, remote target, and where a request
//! inside it is sent.

use super::model::{Draft, Headers, Method, NameAddr, Params, Request, Response, Uri};
use super::transport::{Listener, Peer, Transport, is_private, listener_for, numeric};

/// One peer-to-peer relationship. `local` is us, whoever called.
#[derive(Clone, Debug)]
pub struct Dialog {
    pub call_id: String,
    pub local_tag: String,
    pub remote_tag: String,
    /// From value of our requests, tag included.
    local: String,
    /// To value of our requests, tag included.
    remote: String,
    local_cseq: u32,
    remote_cseq: Option<u32>,
    /// Route values, first hop first.
    routes: Vec<String>,
    target: Uri,
    /// Where the peer's packets come from.
    peer: Peer,
}

impl Dialog {
    /// The dialog that our 2xx to `invite` confirms (RFC 3261 §12.1.1).
    pub fn uas(invite: &Request, local_tag: &str, peer: Peer) -> Dialog {
        let field = |name| invite.headers.first(name).unwrap_or_default().to_string();
        let to = field("To");
        Dialog {
            call_id: invite.core.call_id.clone(),
            local_tag: local_tag.into(),
            remote_tag: invite.core.from_tag().into(),
            local: format!("{to};tag={local_tag}"),
            remote: field("From"),
            local_cseq: 0,
            remote_cseq: Some(invite.core.cseq),
            routes: invite.headers.list("Record-Route").map(String::from).collect(),
            target: contact(&invite.headers).unwrap_or_else(|| invite.core.from.uri.clone()),
            peer,
        }
    }

    /// The dialog that a 2xx to our INVITE confirms (RFC 3261 §12.1.2). `target` is the INVITE's
    /// Request-URI, for a peer that sends no Contact.
    pub fn uac(accepted: &Response, target: &Uri, peer: Peer) -> Dialog {
        let field = |name| accepted.headers.first(name).unwrap_or_default().to_string();
        let mut routes: Vec<String> =
            accepted.headers.list("Record-Route").map(String::from).collect();
        routes.reverse();
        Dialog {
            call_id: accepted.core.call_id.clone(),
            local_tag: accepted.core.from_tag().into(),
            remote_tag: accepted.core.to_tag().unwrap_or_default().into(),
            local: field("From"),
            remote: field("To"),
            local_cseq: accepted.core.cseq,
            remote_cseq: None,
            routes,
            target: contact(&accepted.headers).unwrap_or_else(|| target.clone()),
            peer,
        }
    }

    /// Whether a request's sequence number is news; it is remembered (RFC 3261 §12.2.2).
    pub fn advance(&mut self, cseq: u32) -> bool {
        if self.remote_cseq.is_some_and(|last| cseq <= last) {
            return false;
        }
        self.remote_cseq = Some(cseq);
        true
    }

    /// Takes the new Contact of a re-INVITE, and where it came from.
    pub fn refresh(&mut self, headers: &Headers, peer: Peer) {
        if let Some(target) = contact(headers) {
            self.target = target;
        }
        self.peer = peer;
    }

    /// A request inside the dialog, with the next sequence number (RFC 3261 §12.2.1.1).
    pub fn request(&mut self, method: &Method, via: &str) -> Draft {
        let cseq = self.next_cseq();
        self.draft(method, via, cseq)
    }

    /// The number of our last request.
    pub fn local_cseq(&self) -> u32 {
        self.local_cseq
    }

    /// A request sent once more needs a number of its own.
    pub fn next_cseq(&mut self) -> u32 {
        self.local_cseq += 1;
        self.local_cseq
    }

    /// Requests of ours go on after this number: it was used before the dialog was confirmed.
    pub fn skip_to(&mut self, cseq: u32) {
        self.local_cseq = self.local_cseq.max(cseq);
    }

    /// Who we are in it, without the tag.
    pub fn local_address(&self) -> Option<NameAddr> {
        NameAddr::parse(&self.local)
            .map(|address| NameAddr { params: Params::default(), ..address })
    }

    /// For a Replaces header, as the peer's peer is to write it (RFC 3891 §3).
    pub fn replaces(&self) -> String {
        let Dialog { call_id, local_tag, remote_tag, .. } = self;
        format!("{call_id};to-tag={remote_tag};from-tag={local_tag}")
    }

    /// The ACK to a 2xx: it bears the INVITE's number (RFC 3261 §13.2.2.4).
    pub fn ack(&self, via: &str, cseq: u32) -> Draft {
        self.draft(&Method::ACK, via, cseq)
    }

    fn draft(&self, method: &Method, via: &str, cseq: u32) -> Draft {
        let (uri, routes) = self.path();
        let mut draft = Draft::request(method, &uri).with("Via", via).with("Max-Forwards", "70");
        for route in routes {
            draft = draft.with("Route", route);
        }
        draft
            .with("From", &self.local)
            .with("To", &self.remote)
            .with("Call-ID", &self.call_id)
            .with("CSeq", format!("{cseq} {method}"))
    }

    /// Request-URI and Route values. A first hop without `lr` is a strict router: it wants itself
    /// in the Request-URI and the target at the end of the route.
    fn path(&self) -> (String, Vec<String>) {
        let target = self.target.as_str().to_string();
        let first = self.routes.first().and_then(|route| NameAddr::parse(route));
        match first {
            Some(first) if !first.uri.params.has("lr") => {
                let mut routes = self.routes[1..].to_vec();
                routes.push(format!("<{target}>"));
                (first.uri.as_str().into(), routes)
            }
            _ => (target, self.routes.clone()),
        }
    }

    /// Where to send a request: the first route, else the remote target. If that is a name, or a
    /// private address other than the one the peer's packets come from, the peer sits behind a
    /// NAT that did not rewrite it: then to where its packets come from. A stream that is open to
    /// the same host is used again, whatever port its Contact names.
    pub fn next_hop(&self, listeners: &[Listener]) -> Peer {
        let route = self.routes.first().and_then(|route| NameAddr::parse(route));
        let uri = route.as_ref().map_or(&self.target, |route| &route.uri);
        let transport = Transport::of(uri).unwrap_or(self.peer.transport);
        let hop = numeric(uri, transport);
        let Some(address) =
            hop.filter(|hop| hop.ip() == self.peer.address.ip() || !is_private(hop.ip()))
        else {
            return self.peer;
        };
        if transport == self.peer.transport && address.ip() == self.peer.address.ip() {
            return Peer { address, ..self.peer };
        }
        match listener_for(listeners, transport, address) {
            Some(listener) => Peer { transport, listener, address, connection: None },
            // We do not speak what its Contact says, yet it reached us somehow.
            None => self.peer,
        }
    }
}

fn contact(headers: &Headers) -> Option<Uri> {
    headers.list("Contact").next().and_then(NameAddr::parse).map(|contact| contact.uri)
}

#[cfg(test)]
mod tests {
    use super::super::model::Message;
    use super::super::wire::{self, Framed, Limits};
    use super::*;

    fn invite(extra: &str) -> Request {
        let text = format!(
            "INVITE sip:us@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
             From: \"A\" <sip:a@h>;tag=them\r\nTo: <sip:us@h>\r\nCall-ID: c\r\nCSeq: 5 INVITE\r\n\
             {extra}\r\n"
        );
        match wire::parse(text.as_bytes(), &Limits::default()) {
            Framed::Message(Message::Request(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    fn peer(address: &str) -> Peer {
        Peer::udp(address.parse().unwrap())
    }

    fn ours() -> [Listener; 2] {
        [Transport::Udp, Transport::Tcp]
            .map(|transport| Listener::new(transport, "192.0.2.10:5060".parse().unwrap()))
    }

    fn dialog(extra: &str) -> Dialog {
        Dialog::uas(&invite(extra), "us", peer("198.51.100.7:6000"))
    }

    fn sent(dialog: &mut Dialog) -> String {
        let draft = dialog.request(&Method::BYE, "SIP/2.0/UDP x;branch=z9hG4bK2");
        String::from_utf8(draft.encode().to_vec()).unwrap()
    }

    #[test]
    fn requests_go_to_the_contact_with_swapped_ends() {
        let mut dialog = dialog("Contact: <sip:a@198.51.100.9:5080;ob>\r\n");
        assert_eq!(dialog.next_hop(&ours()).address, "198.51.100.9:5080".parse().unwrap());
        let bye = sent(&mut dialog);
        assert!(bye.starts_with("BYE sip:a@198.51.100.9:5080;ob SIP/2.0\r\n"));
        assert!(bye.contains("From: <sip:us@h>;tag=us\r\n"));
        assert!(bye.contains("To: \"A\" <sip:a@h>;tag=them\r\n"));
        assert!(bye.contains("CSeq: 1 BYE\r\n"));
    }

    #[test]
    fn private_and_named_targets_give_way_to_the_source() {
        for contact in ["192.168.1.2:5060", "10.0.0.1", "100.64.0.1", "phone.local", "[fd00::1]"] {
            let dialog = dialog(&format!("Contact: <sip:a@{contact}>\r\n"));
            assert_eq!(
                dialog.next_hop(&ours()).address,
                "198.51.100.7:6000".parse().unwrap(),
                "{contact}"
            );
        }
        let same = "Contact: <sip:a@10.0.0.1:5099>\r\n";
        let inside = Dialog::uas(&invite(same), "us", peer("10.0.0.1:40000"));
        assert_eq!(
            inside.next_hop(&ours()).address.port(),
            5099,
            "the same host: its Contact holds"
        );
        assert_eq!(dialog("").next_hop(&ours()).address, "198.51.100.7:6000".parse().unwrap());
    }

    #[test]
    fn an_open_stream_is_used_again() {
        let stream = Peer {
            transport: Transport::Tcp,
            listener: 1,
            connection: Some(7),
            ..peer("198.51.100.7:41000")
        };
        let hop = |contact: &str| {
            let invite = invite(&format!("Contact: <sip:a@{contact}>\r\n"));
            Dialog::uas(&invite, "us", stream).next_hop(&ours())
        };
        let same = hop("198.51.100.7:5070;transport=tcp");
        assert_eq!((same.connection, same.address.port()), (Some(7), 5070));
        assert_eq!(hop("10.0.0.7").connection, Some(7), "behind NAT");
        assert_eq!(hop("198.51.100.7").transport, Transport::Tcp, "no transport named");
        let other = hop("203.0.113.4;transport=tcp");
        assert_eq!((other.connection, other.listener), (None, 1));
        let datagrams = hop("203.0.113.4;transport=udp");
        assert_eq!((datagrams.transport, datagrams.listener), (Transport::Udp, 0));
        assert_eq!(hop("203.0.113.4;transport=tls"), stream, "we do not listen on TLS");
    }

    #[test]
    fn route_sets_loose_and_strict() {
        let contact = "Contact: <sip:a@198.51.100.9>\r\n";
        let routes = "Record-Route: <sip:203.0.113.1;lr>, <sip:203.0.113.2;lr>\r\n";
        let mut loose = dialog(&format!("{routes}{contact}"));
        assert_eq!(loose.next_hop(&ours()).address, "203.0.113.1:5060".parse().unwrap());
        let bye = sent(&mut loose);
        assert!(bye.starts_with("BYE sip:a@198.51.100.9 SIP/2.0\r\n"));
        assert!(bye.contains("Route: <sip:203.0.113.1;lr>\r\nRoute: <sip:203.0.113.2;lr>\r\n"));
        let mut strict = dialog(&format!("Record-Route: <sip:203.0.113.1>\r\n{contact}"));
        let bye = sent(&mut strict);
        assert!(bye.starts_with("BYE sip:203.0.113.1 SIP/2.0\r\n"));
        assert!(bye.contains("Route: <sip:a@198.51.100.9>\r\n"));
    }

    #[test]
    fn sequence_and_target_refresh() {
        let mut dialog = dialog("Contact: <sip:a@198.51.100.9>\r\n");
        assert!(!dialog.advance(5));
        assert!(dialog.advance(6));
        assert!(!dialog.advance(4));
        let reinvite = invite("Contact: <sip:b@198.51.100.20:5070>\r\n");
        dialog.refresh(&reinvite.headers, peer("198.51.100.20:5070"));
        assert_eq!(dialog.next_hop(&ours()).address, "198.51.100.20:5070".parse().unwrap());
    }
}
