//! in-band DTMF.
