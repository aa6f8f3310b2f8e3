//! The world: sockets, threads, files and the clock.

pub mod bogus; // HTTPS host of the simulated gateway
pub mod http_client; // gateway requests over HTTPS
pub mod resolver; // looks up payments whose outcome is unknown
pub mod store; // the durable ledger
