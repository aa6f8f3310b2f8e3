//! What the SIP headers tell of the caller, by trunk profile.

use std::collections::BTreeMap;

/// The caller as the trunk described them; nothing here is verified unless `trusted`.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Calling number as E.164 with `+`, when it could be normalised.
    pub number: Option<String>,
    pub name: Option<String>,
    /// Account number passed by the contact center.
    pub account: Option<String>,
    /// The trunk vouches for `number`.
    pub trusted: bool,
    /// Other fields mapped by the profile.
    pub fields: BTreeMap<String, String>,
}
