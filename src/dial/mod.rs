//! The scripted caller: places a call, listens for prompts, keys digits. Our test phone.

pub mod listen; // recognises our own prompts in received audio
pub mod phone;
pub mod script; // steps as text and as a value // UAC and media stream, driven by the script
