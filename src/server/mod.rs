//! To be written.

pub mod prompts; // the voice: bundled and own files, the synthesis command
