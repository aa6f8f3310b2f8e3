//! What is on the wire now.

use std::sync::Arc;

/// Audio ready for the wire: 8 kHz, encoded once in both laws, shared by all calls.
#[derive(Clone)]
pub struct Clip {
    pub mu: Arc<[u8]>,
    pub a: Arc<[u8]>,
}
