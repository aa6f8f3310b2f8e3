//! Days on which the Federal Reserve moves money: neither weekends nor its holidays.

use jiff::civil::{Date, Weekday};

/// Whether debits settle on this day.
pub fn is_banking_day(date: Date) -> bool {
    !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday) && !is_holiday(date)
}

/// The first banking day after this one; `None` at the end of time.
pub fn banking_day_after(date: Date) -> Option<Date> {
    let mut day = date.tomorrow().ok()?;
    while !is_banking_day(day) {
        day = day.tomorrow().ok()?;
    }
    Some(day)
}

/// The last banking day up to this one.
pub fn banking_day_until(date: Date) -> Option<Date> {
    let mut day = date;
    while !is_banking_day(day) {
        day = day.yesterday().ok()?;
    }
    Some(day)
}

/// Holidays of the Federal Reserve Banks. One that falls on a Sunday is kept on the Monday after
/// it; one on a Saturday is not kept on another day.
fn is_holiday(date: Date) -> bool {
    let fixed = |day: Date| {
        matches!((day.month(), day.day()), (1, 1) | (6, 19) | (7, 4) | (11, 11) | (12, 25))
    };
    let sunday_before =
        (date.weekday() == Weekday::Monday).then(|| date.yesterday().ok()).flatten();
    // Which one of its weekday in the month it is: the days 1 to 7 are the first.
    let nth = (date.day() - 1) / 7 + 1;
    let last = date.day() + 7 > date.days_in_month();
    fixed(date)
        || sunday_before.is_some_and(fixed)
        || match (date.month(), date.weekday()) {
            // Martin Luther King, Washington, Columbus.
            (1 | 2, Weekday::Monday) => nth == 3,
            (10, Weekday::Monday) => nth == 2,
            // Memorial Day and Labor Day.
            (5, Weekday::Monday) => last,
            (9, Weekday::Monday) => nth == 1,
            (11, Weekday::Thursday) => nth == 4,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    /// As the Federal Reserve publishes them.
    #[test]
    fn holidays_are_those_of_the_federal_reserve() {
        let kept = |year: i16| {
            let days = date(year, 1, 1).series(jiff::Span::new().days(1));
            let days = days.take_while(move |day| day.year() == year);
            let weekday =
                |day: &Date| !matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday);
            let days = days.filter(weekday).filter(|day| !is_banking_day(*day));
            days.map(|day| (day.month(), day.day())).collect::<Vec<_>>()
        };
        let of_2025 = [
            (1, 1),
            (1, 20),
            (2, 17),
            (5, 26),
            (6, 19),
            (7, 4),
            (9, 1),
            (10, 13),
            (11, 11),
            (11, 27),
            (12, 25),
        ];
        assert_eq!(kept(2025), of_2025);
        // The fourth of July is a Saturday: no other day is kept.
        let of_2026 = [
            (1, 1),
            (1, 19),
            (2, 16),
            (5, 25),
            (6, 19),
            (9, 7),
            (10, 12),
            (11, 11),
            (11, 26),
            (12, 25),
        ];
        assert_eq!(kept(2026), of_2026);
        // Independence Day on a Sunday, Juneteenth and Christmas on a Saturday.
        let of_2027 =
            [(1, 1), (1, 18), (2, 15), (5, 31), (7, 5), (9, 6), (10, 11), (11, 11), (11, 25)];
        assert_eq!(kept(2027), of_2027);
    }

    #[test]
    fn the_next_banking_day_is_later() {
        for (from, want) in [
            (date(2026, 11, 27), date(2026, 11, 30)),
            (date(2026, 11, 28), date(2026, 11, 30)),
            (date(2026, 11, 25), date(2026, 11, 27)),
            (date(2026, 12, 31), date(2027, 1, 4)),
        ] {
            assert_eq!(banking_day_after(from), Some(want), "{from}");
        }
        assert_eq!(banking_day_until(date(2026, 11, 28)), Some(date(2026, 11, 27)));
        assert_eq!(banking_day_until(date(2026, 11, 27)), Some(date(2026, 11, 27)));
        assert_eq!(banking_day_after(Date::MAX), None);
    }
}
