//! test phone.
