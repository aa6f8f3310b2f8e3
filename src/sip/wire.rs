//! bytes <-> messages.
