//! Ports for servers and callers that run beside each other.

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// [`free_port_at`] this machine.
pub fn free_port() -> u16 {
    free_port_at("127.0.0.1")
}

/// A port that nobody has right now at this address, for UDP and TCP alike.
pub fn free_port_at(ip: &str) -> u16 {
    free_ports_at::<1>(ip)
}

/// An even port for SIPp's audio: it takes neighbours for RTCP and video as well.
pub fn free_media_port_at(ip: &str) -> u16 {
    free_ports_at::<5>(ip).next_multiple_of(2)
}

/// The first of `COUNT` neighbouring ports that nobody has right now, for UDP and TCP alike. Below
/// those that the kernel gives to sockets without a port of their own and those of the servers'
/// media, and none is given twice, so that nobody takes one before the program it is for.
pub fn free_ports_at<const COUNT: u16>(ip: &str) -> u16 {
    const PORTS: Range<u32> = 10_240..20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ip: IpAddr = ip.parse().expect("an address");
    for _ in PORTS {
        // Two test programs at once begin at different ports.
        let first = process::id() * 64 + NEXT.fetch_add(COUNT.into(), Ordering::Relaxed);
        let first = u16::try_from(PORTS.start + first % (PORTS.end - PORTS.start)).expect("a port");
        let is_free =
            |port| UdpSocket::bind((ip, port)).is_ok() && TcpListener::bind((ip, port)).is_ok();
        if (first..first + COUNT).all(is_free) {
            return first;
        }
    }
    panic!("no {COUNT} neighbouring ports are free at {ip}");
}
