//! blind transfer out.
