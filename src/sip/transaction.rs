//! client and server transactions.
