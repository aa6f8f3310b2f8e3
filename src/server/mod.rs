//! The world: sockets, threads, files and the clock.

pub mod media;
