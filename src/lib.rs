//! Ringtill takes payments by phone on the operator's own machine.
//!
//! The modules below stand in the order a call meets them, and a module uses only modules
//! declared above it (`tests/architecture.rs` holds it to that). Everything above `server` is
//! sans-IO: it is told the time and handed the bytes, so that a whole call runs in a test on a
//! virtual clock. Only `server` owns sockets, files, threads, tokio and the clock.
//!
//! Protocol machines share three verbs by convention: `handle(now, input)` (or one method per
//! input), `poll() -> Option<Output>` until it returns `None`, and `deadline() -> Option<Instant>`,
//! when to call `handle` again even if nothing comes in.

pub mod secret; // Secret<T>, Keys: print as ***, zeroed on drop
pub mod near; // memory asked for before it is needed
pub mod money; // Money: minor units and a currency
pub mod instrument; // Pan, Expiry, Cvv, RoutingNumber, BankAccount: exist only if valid
pub mod ach; // NACHA files: debits out, returns and notices of change in

pub mod sip; // signalling, RFC 3261: INVITE in, call offered
pub mod rtp; // media packets: reorder, telephone-event, who may send to us
pub mod media; // sound: 20 ms frames, codecs, DTMF, playout, recording
pub mod speech; // what the caller said: sound in, answers of a field out
pub mod prompt; // what we say: catalogue, numbers aloud, clips, names
pub mod dialogue; // one question and its answer: barge-in, noinput, nomatch, attempts, * # 0 9
pub mod account; // who is calling and what they owe
pub mod gateway; // processors: request out, verdict back
pub mod ledger; // what was intended and what happened; reconciliation
pub mod payment; // the call as a script: greet, authenticate, amount, card, charge, receipt
pub mod call; // one call: dialogue and script over a SIP leg and a media stream
pub mod dial; // the scripted caller: our test phone

pub mod config; // ringtill.toml: each module's own settings, put together
pub mod server; // the world: sockets, threads, the store, the gateway's HTTPS, the console
