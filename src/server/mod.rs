//! To be written.

pub mod dial; // the test phone on real sockets
pub mod prompts; // the voice: bundled and own files, the synthesis command
