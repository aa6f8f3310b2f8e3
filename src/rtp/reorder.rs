//! in sequence.
