//! who may send to us.
