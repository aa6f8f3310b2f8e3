//! `ringtill.toml`: each module's own settings, put together.
