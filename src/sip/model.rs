//! messages over `rsip`.
