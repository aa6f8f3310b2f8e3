//! RTP headers.
