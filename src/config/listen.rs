//! An address to listen on, as an operator writes it: `udp:0.0.0.0:5060`, or without a transport
//! for UDP.

use std::fmt;
use std::net::SocketAddr;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use crate::sip::Transport;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    pub transport: Transport,
    pub address: SocketAddr,
}

impl Listen {
    pub fn udp(address: SocketAddr) -> Listen {
        Listen { transport: Transport::Udp, address }
    }

    fn parse(text: &str) -> Result<Listen, String> {
        let transports = [Transport::Udp, Transport::Tcp, Transport::Tls];
        let named = transports.into_iter().find_map(|transport| {
            let rest = text.strip_prefix(transport.to_string().as_str())?.strip_prefix(':')?;
            Some((transport, rest))
        });
        let (transport, address) = named.unwrap_or((Transport::Udp, text));
        let address = address.parse().map_err(|_| {
            format!("`{text}` is no address: write \"udp:192.0.2.7:5060\" or \"tls:[::]:5061\"")
        })?;
        Ok(Listen { transport, address })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport, self.address)
    }
}

/// A string, or a list of them.
pub fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Listen>, D::Error> {
    struct OneOrMore;

    impl<'de> Visitor<'de> for OneOrMore {
        type Value = Vec<Listen>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an address in quotes, or a list: [\"udp:0.0.0.0:5060\", \"tcp:...\"]")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Listen>, E> {
            Listen::parse(text).map(|listen| vec![listen]).map_err(E::custom)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Listen>, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = seq.next_element::<String>()? {
                all.push(Listen::parse(&text).map_err(A::Error::custom)?);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_any(OneOrMore)
}
