//! dialogs.
