//! Ways a message travels: over which transport, from whom, and what address we go by there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::Deserialize;

use super::model::{Host, Scheme, Uri, Via};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    /// Whether it repeats lost packets itself: then transactions need not (RFC 3261 §17).
    pub fn is_reliable(self) -> bool {
        self != Transport::Udp
    }

    /// As Via writes it.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        }
    }

    pub fn default_port(self) -> u16 {
        if self == Transport::Tls { 5061 } else { 5060 }
    }

    /// The transport a URI asks for; `None` when it leaves the choice to us (RFC 3263 §4.1).
    pub fn of(uri: &Uri) -> Option<Transport> {
        let named = uri.params.value("transport").map(str::to_ascii_lowercase);
        match (named.as_deref(), &uri.scheme) {
            (Some("tls"), _) | (_, Scheme::Sips) => Some(Transport::Tls),
            (Some("tcp"), _) => Some(Transport::Tcp),
            (Some("udp"), _) => Some(Transport::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        })
    }
}

/// Where a message came from, or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    pub transport: Transport,
    /// Which of [`super::agent::Settings::listeners`] it came in by, or leaves by.
    pub listener: usize,
    /// Theirs. On a stream: where to connect to when `connection` is gone.
    pub address: SocketAddr,
    /// The stream to use while it is open; `None`: any to `address`, or a new one.
    pub connection: Option<u64>,
}

impl Peer {
    /// A peer of our first listener.
    pub fn udp(address: SocketAddr) -> Peer {
        Peer { transport: Transport::Udp, listener: 0, address, connection: None }
    }

    /// Where the response to a request goes that came from here (RFC 3261 §18.2.2, RFC 3581 §4):
    /// back over the stream, or to the source address and the port of Via. `rport` asks for the
    /// source's port; a sent-by address that means nothing here does too: the peer is behind NAT.
    pub fn reply_path(self, via: &Via) -> Peer {
        let port = via.port.unwrap_or(self.transport.default_port());
        let sent_by = match via.host {
            Host::IpAddr(ip) if ip != self.address.ip() && is_private(ip) => None,
            _ => Some(port),
        };
        let reply = match (self.transport, sent_by) {
            (Transport::Udp, _) if via.params.has("rport") => self.address.port(),
            (_, Some(port)) => port,
            (_, None) => self.address.port(),
        };
        Peer { address: SocketAddr::new(self.address.ip(), reply), ..self }
    }

    /// Whether what was sent here is lost when `gone` cannot be reached any more.
    pub fn is_lost_with(&self, gone: &Peer) -> bool {
        match (self.connection, gone.connection) {
            (Some(ours), Some(gone)) => ours == gone,
            _ => self.transport == gone.transport && self.address == gone.address,
        }
    }
}

/// A listener from which a message can be sent there.
pub fn listener_for(
    listeners: &[Listener],
    transport: Transport,
    address: SocketAddr,
) -> Option<usize> {
    listeners.iter().position(|listener| listener.reaches(transport, address))
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport, self.address)
    }
}

/// One address of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub transport: Transport,
    /// Address and port as peers reach them: Via and Contact carry them.
    pub public: SocketAddr,
    /// Networks that reach us at another address than the rest of the world.
    pub inside: Vec<(IpNet, IpAddr)>,
}

impl Listener {
    pub fn new(transport: Transport, public: SocketAddr) -> Listener {
        Listener { transport, public, inside: Vec::new() }
    }

    /// Our address as `peer` reaches it.
    pub fn address_for(&self, peer: IpAddr) -> SocketAddr {
        let inside = self.inside.iter().find(|(net, _)| net.contains(&peer));
        match inside {
            Some((_, address)) => SocketAddr::new(*address, self.public.port()),
            None => self.public,
        }
    }

    /// Whether a message to `address` can leave here.
    pub fn reaches(&self, transport: Transport, address: SocketAddr) -> bool {
        self.transport == transport && self.public.is_ipv4() == address.is_ipv4()
    }
}

/// Addresses that mean nothing outside their own network.
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let carrier_nat = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || carrier_nat
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
    }
}

/// Where a URI points, when that needs no DNS.
pub fn numeric(uri: &Uri, transport: Transport) -> Option<SocketAddr> {
    match uri.host {
        Some(Host::IpAddr(ip)) => {
            Some(SocketAddr::new(ip, uri.port.unwrap_or(transport.default_port())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_its_transport() {
        let of = |text: &str| Transport::of(&Uri::parse(text).unwrap());
        assert_eq!(of("sip:a@h;transport=TCP"), Some(Transport::Tcp));
        assert_eq!(of("sips:a@h"), Some(Transport::Tls));
        assert_eq!(of("sips:a@h;transport=tcp"), Some(Transport::Tls));
        assert_eq!(of("sip:a@h;transport=udp"), Some(Transport::Udp));
        assert_eq!(of("sip:a@h"), None);
        let uri = Uri::parse("sip:a@192.0.2.1").unwrap();
        assert_eq!(numeric(&uri, Transport::Tls), Some("192.0.2.1:5061".parse().unwrap()));
    }

    #[test]
    fn peers_inside_are_told_the_inner_address() {
        let mut listener = Listener::new(Transport::Udp, "203.0.113.5:5070".parse().unwrap());
        listener.inside.push(("10.0.0.0/8".parse().unwrap(), "10.0.0.5".parse().unwrap()));
        let told = |peer: &str| listener.address_for(peer.parse().unwrap()).to_string();
        assert_eq!(told("10.1.2.3"), "10.0.0.5:5070");
        assert_eq!(told("198.51.100.1"), "203.0.113.5:5070");
    }

    #[test]
    fn a_response_goes_where_its_via_says_or_where_the_request_came_from() {
        let from = Peer::udp("192.0.2.9:4000".parse().unwrap());
        let port = |peer: Peer, via: &str| {
            let reply = peer.reply_path(&Via::parse(via).unwrap());
            assert_eq!(reply.address.ip(), peer.address.ip());
            reply.address.port()
        };
        assert_eq!(port(from, "SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bKa"), 5070);
        assert_eq!(port(from, "SIP/2.0/UDP phone.example;branch=z9hG4bKa"), 5060);
        assert_eq!(port(from, "SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bKa;rport"), 4000);
        assert_eq!(port(from, "SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bKa"), 4000, "behind NAT");
        let stream = Peer { transport: Transport::Tls, connection: Some(3), ..from };
        let via = Via::parse("SIP/2.0/TLS 192.0.2.9;branch=z9hG4bKa;rport").unwrap();
        let reply = stream.reply_path(&via);
        assert_eq!((reply.connection, reply.address.port()), (Some(3), 5061), "should it be lost");
    }
}
