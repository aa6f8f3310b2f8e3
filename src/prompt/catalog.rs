//! phrase ids.
