//! Catalogue and clips put together.

/// Phrases and clips of one language, loaded once.
pub struct Library {}
