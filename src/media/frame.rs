//! 20 ms of PCM.
