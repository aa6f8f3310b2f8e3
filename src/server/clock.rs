//! The clock: the one place that asks what time it is.
#![allow(clippy::disallowed_methods)]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

pub fn now() -> Instant {
    Instant::now()
}

/// Unix milliseconds, UTC.
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The year by UTC.
pub fn year() -> i16 {
    let now = Timestamp::from_millisecond(wall_ms()).unwrap_or(Timestamp::UNIX_EPOCH);
    now.to_zoned(jiff::tz::TimeZone::UTC).year()
}

/// `20261123T140501Z`, for file names.
pub fn file_stamp() -> String {
    let now = Timestamp::from_millisecond(wall_ms()).unwrap_or(Timestamp::UNIX_EPOCH);
    now.strftime("%Y%m%dT%H%M%SZ").to_string()
}
