//! The real binary: called by SIPp, fed with garbage, told wrong configurations, searched for card
//! numbers. One binary of tests, since each link takes a while.
#![allow(clippy::unwrap_used)]

mod ach;
mod bad_input;
mod binary;
mod caller;
mod crash;
mod demo;
mod fail2ban;
mod load;
mod payments;
mod peers;
mod ports;
mod secrets;
mod sipp;
mod sipp_profiles;
mod speech;
mod teams;
mod tones;
mod trunks;
