//! The scripted caller: places a call, listens for prompts, keys digits. Our test phone.

pub mod script; // steps as text and as a value
pub mod run; // the script against what is heard
pub mod listen; // recognises our own prompts in received audio
pub mod report; // what a person following a call is told
pub mod phone; // UAC and media stream, driven by the script

pub use phone::Phone;
pub use script::Script;
