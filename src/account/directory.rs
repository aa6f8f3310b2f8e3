//! Accounts by number and by phone.

/// One biller's accounts, immutable: a new file makes a new directory.
#[derive(Default)]
pub struct Directory {}
