//! numbers aloud.
