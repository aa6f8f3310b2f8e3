//! account file.
