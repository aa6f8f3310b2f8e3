//! UDP: sockets, and the task that empties one as fast as datagrams come.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::error::TrySendError;

use super::Inbox;
use crate::sip::{Input, Peer, Transport};

/// Kernel buffer: a burst while the core is busy must not be lost.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

pub(super) fn open(listen: SocketAddr) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(listen);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if listen.is_ipv6() {
        // IPv4 peers would show up as mapped addresses, which match no trunk.
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    let granted = socket.recv_buffer_size()?;
    if granted < RECEIVE_BUFFER_BYTES {
        tracing::warn!(
            granted,
            wanted = RECEIVE_BUFFER_BYTES,
            "small SIP receive buffer: raise net.core.rmem_max"
        );
    }
    socket.bind(&listen.into())?;
    UdpSocket::from_std(socket.into())
}

/// Takes datagrams off the socket of this listener.
pub(super) async fn read(socket: Arc<UdpSocket>, listener: usize, inbox: Inbox) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, address)) = socket.recv_from(&mut buffer).await else {
            // It belongs to an earlier send (ICMP unreachable) and passes; if not, do not spin.
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let peer = Peer { transport: Transport::Udp, listener, address, connection: None };
        let taken = inbox.admits(address.ip()) && {
            let bytes = Bytes::copy_from_slice(&buffer[..length]);
            let input = Input::Received { peer, certificate: None, bytes };
            match inbox.inputs.try_send(input) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => false,
                Err(TrySendError::Closed(_)) => return,
            }
        };
        if !taken {
            inbox.drop_one();
        }
    }
}
