//! The world: sockets, threads, files and the clock.

pub mod dial; // the test phone on real sockets
pub mod prompts; // the voice: bundled and own files, the synthesis command
pub mod sip; // the SIP core: socket, agent, a mailbox for each call
