//! Paying later with a kept card: `[payment.later]`. Dates are days where the biller is.

use jiff::civil::{Date, Time};
use jiff::{Span, ToSpan};
use serde::Deserialize;

use super::{Zone, amount_of};
use crate::instrument::Expiry;
use crate::money::Money;

/// Checked as a whole, so that all that is wrong is told at once.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub struct LaterSettings {
    pub zone: Zone,
    /// Cards are charged from this time of the day on.
    pub charge_at: Time,
    /// A payment may be put off by so many days; 0: none is.
    pub days_max: u16,
    /// AutoPay is offered, and never charges more than this. Unset: it is not.
    pub autopay_max: Option<Money>,
    /// Payment plans are offered.
    pub plan: Option<PlanSettings>,
    /// After a decline it is tried again after so many days, as often as there are.
    pub retries: Vec<u16>,
    /// What could not be charged on its day is charged up to so many days later.
    pub late_days_max: u16,
}

/// `plan` of `[payment.later]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanSettings {
    /// Payments of a plan, today's among them: from two to this many.
    pub instalments_max: u32,
    pub every: Every,
    /// The least that one of them may be.
    pub min: Money,
}

/// From one payment of a plan to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// The same day of the next month, or its last day if it has none such.
    Month,
    Days(u16),
}

impl LaterSettings {
    pub fn today(&self, wall_ms: i64) -> Date {
        self.zone.date(wall_ms)
    }

    /// When cards are charged on this day, Unix milliseconds. Where a clock is set forward past
    /// that time it is that much later.
    pub fn instant(&self, date: Date) -> Option<i64> {
        self.zone.instant(date.to_datetime(self.charge_at))
    }

    /// So many days after the day it is at `wall_ms`.
    pub fn days_after(&self, wall_ms: i64, days: u16) -> Option<i64> {
        self.instant(self.today(wall_ms).checked_add(i64::from(days).days()).ok()?)
    }

    /// The last day that a payment may be put off to.
    pub fn last_day(&self, today: Date) -> Date {
        today.checked_add(i64::from(self.days_max).days()).unwrap_or(today)
    }
}

impl PlanSettings {
    /// How many payments of at least the least this may be divided into from today on, while the
    /// card is good; less than two: none.
    pub fn most(&self, amount: Money, (today, expiry): (Date, Expiry)) -> u32 {
        let good = |payments: &u32| {
            let all = self.divide(amount, *payments, today).unwrap_or_default();
            all.last().is_some_and(|(last, _)| !expiry.is_over(*last))
        };
        (2..=self.fit(amount)).rev().find(good).unwrap_or(0)
    }

    fn fit(&self, amount: Money) -> u32 {
        let fit = amount.minor / self.min.minor.max(1);
        self.instalments_max.min(u32::try_from(fit).unwrap_or(self.instalments_max))
    }

    /// Equal payments from `today` on, the first of them with the cents that are left over.
    pub fn divide(&self, amount: Money, payments: u32, today: Date) -> Option<Vec<(Date, Money)>> {
        let count = i64::from(payments);
        let each = amount.minor.checked_div(count)?;
        let first = amount.minor - each * (count - 1);
        let payment = |nth: u32| {
            // Of the first day, not of the one before: January 31 leads to March 31.
            let date = today.checked_add(self.every.times(nth)).ok()?;
            let minor = if nth == 0 { first } else { each };
            Some((date, Money::new(minor, amount.currency)))
        };
        (0..payments).map(payment).collect()
    }
}

impl Every {
    fn times(self, count: u32) -> Span {
        match self {
            Every::Month => i64::from(count).months(),
            Every::Days(days) => (i64::from(count) * i64::from(days)).days(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    time_zone: Option<String>,
    charge_at: Option<String>,
    days_max: Option<u16>,
    autopay_max: Option<String>,
    plan: Option<WrittenPlan>,
    retries: Option<Vec<u16>>,
    late_days_max: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPlan {
    instalments_max: u32,
    every: Option<WrittenEvery>,
    min: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenEvery {
    Days(u16),
    Named(String),
}

impl TryFrom<Written> for LaterSettings {
    type Error = String;

    fn try_from(written: Written) -> Result<LaterSettings, String> {
        let mut wrong = Vec::new();
        let zone = match &written.time_zone {
            Some(text) => Zone::parse(text).or_else(|| {
                wrong.push(format!(
                    "`time_zone`: `{text}` is no time zone: write \"eastern\", or a rule such as \
                     \"EST5EDT,M3.2.0,M11.1.0\""
                ));
                None
            }),
            None => {
                wrong.push(
                    "`time_zone` is missing: dates are days where you are, write \
                     time_zone = \"eastern\""
                        .into(),
                );
                None
            }
        };
        let charge_at = written.charge_at.as_deref().unwrap_or("09:00");
        let time = time_of(charge_at).unwrap_or_else(|| {
            wrong.push(format!("`charge_at`: `{charge_at}` is no time: write \"09:00\""));
            Time::midnight()
        });
        let days_max = written.days_max.unwrap_or(30);
        let late_days_max = written.late_days_max.unwrap_or(3);
        let retries = written.retries.unwrap_or_else(|| vec![1, 3]);
        if days_max > DAYS_MAX {
            wrong.push(format!("`days_max` must be 0 to {DAYS_MAX}"));
        }
        if late_days_max > LATE_DAYS_MAX {
            wrong.push(format!("`late_days_max` must be 0 to {LATE_DAYS_MAX}"));
        }
        if retries.len() > RETRIES_MAX || retries.iter().any(|days| !(1..=30).contains(days)) {
            wrong.push(format!(
                "`retries`: write at most {RETRIES_MAX} numbers of days from 1 to 30, such as \
                 [1, 3]; card networks punish more"
            ));
        }
        let autopay_max =
            written.autopay_max.and_then(|text| positive("autopay_max", &text, &mut wrong));
        let plan = written.plan.and_then(|plan| plan_of(plan, &mut wrong));
        if days_max == 0 && autopay_max.is_none() && plan.is_none() && wrong.is_empty() {
            wrong.push(
                "nothing is offered: leave days_max out, or write autopay_max or plan".into(),
            );
        }
        match (zone, wrong.is_empty()) {
            (Some(zone), true) => Ok(LaterSettings {
                zone,
                charge_at: time,
                days_max,
                autopay_max,
                plan,
                retries,
                late_days_max,
            }),
            _ => Err(wrong.join("; ")),
        }
    }
}

/// Farther off than a year a date of four digits would have two meanings.
const DAYS_MAX: u16 = 180;
const LATE_DAYS_MAX: u16 = 30;
const RETRIES_MAX: usize = 4;
const INSTALMENTS_MAX: u32 = 9;

/// `09:00`.
fn time_of(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let two = |part: &str| (part.len() == 2).then(|| part.parse::<i8>().ok()).flatten();
    Time::new(two(hour)?, two(minute)?, 0, 0).ok()
}

fn positive(key: &str, text: &str, wrong: &mut Vec<String>) -> Option<Money> {
    let amount = amount_of::<serde::de::value::Error>(text).ok().filter(|it| it.is_positive());
    if amount.is_none() {
        wrong.push(format!("`{key}`: `{text}` is no amount: write \"50.00\""));
    }
    amount
}

fn plan_of(written: WrittenPlan, wrong: &mut Vec<String>) -> Option<PlanSettings> {
    let before = wrong.len();
    if !(2..=INSTALMENTS_MAX).contains(&written.instalments_max) {
        wrong.push(format!("`plan.instalments_max` must be 2 to {INSTALMENTS_MAX}"));
    }
    let every = match written.every {
        None => Every::Month,
        Some(WrittenEvery::Named(name)) if name == "month" => Every::Month,
        Some(WrittenEvery::Days(days)) if (1..=92).contains(&days) => Every::Days(days),
        Some(_) => {
            wrong.push("`plan.every`: write \"month\", or a number of days from 1 to 92".into());
            Every::Month
        }
    };
    let min = positive("plan.min", written.min.as_deref().unwrap_or("50.00"), wrong)?;
    let plan = PlanSettings { instalments_max: written.instalments_max, every, min };
    (wrong.len() == before).then_some(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn read(text: &str) -> Result<LaterSettings, String> {
        toml::from_str(text).map_err(|error| error.message().to_string())
    }

    fn settings(more: &str) -> LaterSettings {
        read(&format!("time_zone = \"eastern\"\n{more}")).unwrap()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let later = settings("");
        assert_eq!((later.days_max, later.late_days_max), (30, 3));
        assert_eq!(
            (&later.retries[..], later.charge_at),
            (&[1, 3][..], Time::constant(9, 0, 0, 0))
        );
        assert_eq!((later.autopay_max, later.plan), (None, None));
        let plan = settings("plan = { instalments_max = 3, every = 14 }").plan.unwrap();
        assert_eq!((plan.every, plan.min), (Every::Days(14), Money::usd(5_000)));
    }

    #[test]
    fn what_cannot_work_is_told_with_what_to_write() {
        for (text, want) in [
            ("", "write time_zone = \"eastern\""),
            ("time_zone = \"mars\"", "`mars` is no time zone"),
            ("charge_at = \"9\"", "`9` is no time: write \"09:00\""),
            ("charge_at = \"24:00\"", "is no time"),
            ("days_max = 400", "`days_max` must be 0 to 180"),
            ("days_max = 0", "nothing is offered"),
            ("retries = [0]", "days from 1 to 30"),
            ("retries = [1, 1, 1, 1, 1]", "card networks punish more"),
            ("late_days_max = 31", "`late_days_max` must be"),
            ("autopay_max = \"0\"", "`autopay_max`: `0` is no amount"),
            ("plan = { instalments_max = 1 }", "must be 2 to 9"),
            ("plan = { instalments_max = 3, every = \"week\" }", "write \"month\", or a number"),
            ("plan = { instalments_max = 3, min = \"x\" }", "`plan.min`: `x` is no amount"),
            ("charge = 1", "unknown field `charge`"),
        ] {
            let zone = if text.contains("zone") || text.is_empty() {
                ""
            } else {
                "time_zone = \"eastern\"\n"
            };
            let why = read(&format!("{zone}{text}")).unwrap_err();
            assert!(why.contains(want), "{text}: {why}");
        }
        let all = read("charge_at = \"9\"\ndays_max = 400").unwrap_err();
        assert!(all.contains("time_zone") && all.contains("charge_at") && all.contains("days_max"));
    }

    #[test]
    fn a_day_begins_where_the_biller_is() {
        let later = settings("charge_at = \"00:30\"");
        // 2026-06-02T03:59:59Z is still June 1 in New York.
        let midnight = later.zone.instant(date(2026, 6, 2).at(0, 0, 0, 0)).unwrap();
        assert_eq!(later.today(midnight - 1_000), date(2026, 6, 1));
        assert_eq!(later.today(midnight), date(2026, 6, 2));
        assert_eq!(later.instant(date(2026, 6, 2)), Some(midnight + 30 * 60_000));
    }

    #[test]
    fn the_hour_that_is_not_and_the_one_that_is_twice() {
        const HOUR_MS: i64 = 3_600_000;
        let later = settings("charge_at = \"02:30\"");
        let instant = |month, day| later.instant(date(2026, month, day)).unwrap();
        // Clocks go forward on March 8 and back on November 1.
        assert_eq!(instant(3, 8) - instant(3, 7), 24 * HOUR_MS);
        assert_eq!(instant(3, 9) - instant(3, 8), 23 * HOUR_MS);
        let later = settings("charge_at = \"01:30\"");
        let instant = |month, day| later.instant(date(2026, month, day)).unwrap();
        assert_eq!(instant(11, 1) - instant(10, 31), 24 * HOUR_MS);
        assert_eq!(instant(11, 2) - instant(11, 1), 25 * HOUR_MS);
        assert_eq!(later.days_after(instant(10, 31), 2), Some(instant(11, 2)));
    }

    #[test]
    fn a_month_ends_where_it_ends() {
        let plan = settings("plan = { instalments_max = 4 }").plan.unwrap();
        let all = plan.divide(Money::usd(20_001), 4, date(2027, 1, 31)).unwrap();
        let days = [date(2027, 1, 31), date(2027, 2, 28), date(2027, 3, 31), date(2027, 4, 30)];
        let minor = [5_001, 5_000, 5_000, 5_000];
        let want: Vec<_> = days.into_iter().zip(minor.map(Money::usd)).collect();
        assert_eq!(all, want);
        let most = |minor, (year, month)| {
            let good = (date(2027, 1, 31), Expiry::kept(year, month).unwrap());
            plan.most(Money::usd(minor), good)
        };
        assert_eq!([14_999, 4_999, 1_000_000].map(|minor| most(minor, (2030, 1))), [2, 0, 4]);
        // No payment comes after the month the card is good through.
        let until = [(2027, 4), (2027, 3), (2027, 2), (2027, 1)];
        assert_eq!(until.map(|until| most(1_000_000, until)), [4, 3, 2, 0]);
        let plan = settings("plan = { instalments_max = 3, every = 10 }").plan.unwrap();
        let all = plan.divide(Money::usd(10_000), 3, date(2026, 12, 25)).unwrap();
        assert_eq!(all[2].0, date(2027, 1, 14));
    }
}
