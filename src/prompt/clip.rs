//! clips.
