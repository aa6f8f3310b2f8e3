//! One call: dialogue and script over a SIP leg and a media stream; routing only.
