//! The world: sockets, threads, files and the clock.

pub mod sip; // the SIP core: socket, agent, a mailbox for each call
