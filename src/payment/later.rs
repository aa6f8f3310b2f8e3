//! Paying later with a card that is kept: on a date, in instalments, or by AutoPay. What is agreed
//! is read out in full and accepted by a key alone.

use jiff::civil::Date;

use super::consent::brand_phrase;
use super::order::Order;
use super::saved::{self, Ways};
use super::settings::LaterSettings;
use super::tender::Tender;
use super::{Desk, Leave, Line, Note, Outcome, phrases};
use crate::dialogue::Field;
use crate::dialogue::grammar::{Extent, Grammar, Menu, Reject};
use crate::instrument::{Expiry, Means};
use crate::ledger::arrangement::{Agreement, Kind};
use crate::ledger::{Arrangement, Entry, Instalment, Recorded, confirmation};
use crate::money::Money;
use crate::prompt::Prompt;

pub(super) mod autopay; // the balance on each due date
pub(super) mod plan; // in instalments
pub(super) mod standing; // what was arranged before
pub(super) mod verify; // a card that was never charged

/// When the caller pays.
pub(super) enum When {
    Today,
    /// On a date, as was arranged; or the caller does not.
    Ended(Outcome),
    /// On a date, by a card that is to be verified first; it has been accepted.
    Once(Once),
    /// The first of a plan today; it has been accepted.
    Plan(plan::Plan),
}

/// One payment on a date, as it was agreed to.
pub(super) struct Once {
    instalment: Instalment,
    /// With its fee.
    total: Money,
}

#[derive(Clone, Copy)]
enum Wish {
    Today,
    Date,
    Plan,
}

/// Whether paying later is offered on this call: never to who hides who they are.
fn settings(desk: &Desk) -> Option<&LaterSettings> {
    saved::settings(desk)?;
    desk.settings.later.as_ref()
}

/// Asks when, where there is a choice. [`Leave::Back`]: before the question.
pub(super) async fn when(
    line: &mut Line,
    desk: &Desk,
    ways: &Ways,
    (tender, order): (&Tender, &Order),
) -> Result<When, Leave> {
    let Some(settings) = settings(desk) else { return Ok(When::Today) };
    // A fee that is a charge of its own is charged on a call, together with its bill.
    // What is arranged is for one account.
    if order.apart.is_some() || !order.allocations.is_empty() {
        return Ok(When::Today);
    }
    // A card that was never charged must be verified and kept. A surcharge is disclosed with
    // the one payment that it is on.
    let first = verify::may(desk, order) && !order.surcharge;
    let date = (matches!(tender, Tender::Saved(_)) || first)
        && settings.days_max > 0
        && !ways.has_arranged(Kind::Once);
    let keeps = order.keep.is_some() || matches!(tender, Tender::Saved(_));
    let (today, expiry) = (settings.today(line.wall_ms()), tender.expiry());
    let most = match (&settings.plan, expiry) {
        (Some(plan), Some(expiry)) => plan.most(order.amount, (today, expiry)),
        _ => 0,
    };
    let plan = keeps && most >= 2 && !ways.has_arranged(Kind::Plan) && !order.surcharge;
    let offered = [
        (true, '1', Wish::Today, "later.today"),
        (date, '2', Wish::Date, "later.on_a_date"),
        (plan, '3', Wish::Plan, "later.in_instalments"),
    ];
    let offered = offered.into_iter().filter(|(may, ..)| *may);
    let (keys, ids): (Vec<_>, Vec<_>) =
        offered.map(|(_, key, wish, id)| ((key, wish), Prompt::Phrase(id))).unzip();
    if keys.len() < 2 {
        return Ok(When::Today);
    }
    let menu = Field::menu("when", ids, Menu(keys));
    loop {
        let done = match line.ask(&menu).await? {
            Wish::Today => return Ok(When::Today),
            Wish::Date => on_a_date(line, desk, settings, (tender, order)).await,
            Wish::Plan => plan::agree(line, desk, settings, (tender, order)).await,
        };
        match done {
            Err(Leave::Back) => {}
            done => return done,
        }
    }
}

/// What is said of one payment on a date.
const ONCE_TERMS: &str = "consent.payment later.charged_on later.cancel_before later.agree";

async fn on_a_date(
    line: &mut Line,
    desk: &Desk,
    settings: &LaterSettings,
    (tender, order): (&Tender, &Order),
) -> Result<When, Leave> {
    let expiry = tender.expiry().ok_or(Leave::Failed)?;
    loop {
        let date = ask_date(line, settings, expiry).await?;
        let mut notice = spoken_total(order).ok_or(Leave::Failed)?;
        notice.extend([Prompt::Phrase("later.charged_on"), Prompt::Date(date)]);
        notice.push(Prompt::Phrase("later.cancel_before"));
        match agreed(line, notice).await {
            Err(Leave::Back) => continue,
            Ok(true) => {}
            Ok(false) => {
                line.tell(phrases(["consent.cancelled", "bye.plain"])).await;
                return Ok(When::Ended(Outcome::Cancelled));
            }
            Err(leave) => return Err(leave),
        }
        let Order { account_id, amount, fee, total, .. } = order;
        let at_ms = settings.instant(date).ok_or(Leave::Failed)?;
        let instalment = Instalment { position: 1, due: date, at_ms, amount: *amount, fee: *fee };
        let once = Once { instalment, total: *total };
        let Some(card) = tender.kept() else { return Ok(When::Once(once)) };
        let Some(number) = once.arrange(line, desk, account_id, card).await else {
            line.tell(phrases(["later.not_arranged"])).await;
            return Err(Leave::Failed);
        };
        super::receipt::arranged(line, &number, &[]).await;
        return Ok(When::Ended(Outcome::Arranged { number }));
    }
}

impl Once {
    /// Its number, if the ledger has it.
    async fn arrange(
        &self,
        line: &mut Line,
        desk: &Desk,
        account_id: &str,
        card: &str,
    ) -> Option<String> {
        let made = Made {
            account_id,
            card,
            kind: Kind::Once,
            limit: self.total,
            terms: ONCE_TERMS,
            instalments: vec![self.instalment.clone()],
        };
        arrange(line, desk, made).await
    }
}

/// A day after today on which the card is good, keyed and confirmed.
async fn ask_date(
    line: &mut Line,
    settings: &LaterSettings,
    expiry: Expiry,
) -> Result<Date, Leave> {
    let today = settings.today(line.wall_ms());
    let mut last = settings.last_day(today);
    while last > today && expiry.is_over(last) {
        last = last.yesterday().unwrap_or(today);
    }
    let grammar = Day { today, last };
    let ask = Field::number("date", "later.ask_date", grammar);
    loop {
        let date = line.ask(&ask).await?;
        let read_back = vec![
            Prompt::Phrase("later.chosen"),
            Prompt::Date(date),
            Prompt::Phrase("confirm.yes_no"),
        ];
        let right = Field::menu("date_confirm", read_back, Menu(vec![('1', true), ('2', false)]));
        match line.ask(&right).await {
            Ok(true) => return Ok(date),
            Ok(false) | Err(Leave::Back) => {}
            Err(leave) => return Err(leave),
        }
    }
}

/// `MMDD`: the next such day after today, not after the last.
#[derive(Clone)]
struct Day {
    today: Date,
    last: Date,
}

impl Grammar for Day {
    type Value = Date;

    fn extent(&self, keys: &str) -> Extent {
        if keys.len() < 4 { Extent::Short } else { Extent::Full }
    }

    fn parse(&self, keys: &str) -> Result<Date, Reject> {
        let part = |keys: Option<&str>| keys.and_then(|keys| keys.parse::<i8>().ok());
        let whole = keys.len() == 4;
        let (month, day) = (part(keys.get(..2)), part(keys.get(2..)));
        let (Some(month), Some(day), true) = (month, day, whole) else {
            return Err(Reject("later.no_date"));
        };
        let year = self.today.year();
        let in_year = |year| Date::new(year, month, day).ok();
        let dates = [in_year(year), in_year(year + 1)].into_iter().flatten();
        match dates.clone().find(|date| *date > self.today) {
            Some(date) if date <= self.last => Ok(date),
            Some(_) => Err(Reject(TOO_LATE)),
            None if dates.count() > 0 => Err(Reject(TOO_LATE)),
            None => Err(Reject("later.no_date")),
        }
    }

    fn explain(&self, reject: Reject) -> Vec<Prompt> {
        let mut said = vec![Prompt::Phrase(reject.0)];
        if reject.0 == TOO_LATE {
            said.push(Prompt::Date(self.last));
        }
        said
    }
}

const TOO_LATE: &str = "later.too_late";

/// Amount and fee, and the card that the total is charged to.
fn spoken_total(order: &Order) -> Option<Vec<Prompt>> {
    let Means::Card(brand) = order.means else { return None };
    let mut said = vec![Prompt::Phrase("consent.payment"), Prompt::Amount(order.amount)];
    said.extend(spoken_fee(order));
    said.extend([
        Prompt::Phrase("consent.total"),
        Prompt::Phrase(brand_phrase(brand)),
        Prompt::Phrase("card.ending"),
        Prompt::Digits(order.last4.as_str().to_string()),
        Prompt::Phrase("consent.will_be"),
        Prompt::Amount(order.total),
    ]);
    Some(said)
}

fn spoken_fee(order: &Order) -> Vec<Prompt> {
    if !order.fee.is_positive() {
        return Vec::new();
    }
    let fee = if order.surcharge { "consent.surcharge" } else { "consent.fee" };
    vec![Prompt::Phrase(fee), Prompt::Amount(order.fee), Prompt::Phrase("consent.fee_added")]
}

/// By a key that cannot be typed ahead, after all of it was heard.
async fn agreed(line: &mut Line, notice: Vec<Prompt>) -> Result<bool, Leave> {
    let agree = Field::menu("later_agree", phrases(["later.agree"]), yes_no()).notice(notice);
    line.ask(&agree).await
}

fn yes_no() -> Menu<bool> {
    Menu(vec![('1', true), ('2', false)])
}

/// What was agreed to.
struct Made<'a> {
    account_id: &'a str,
    card: &'a str,
    kind: Kind,
    limit: Money,
    terms: &'static str,
    instalments: Vec<Instalment>,
}

/// Writes it down; its number, if the ledger has it. A number may have been drawn before: another
/// is drawn before a conflict is believed.
async fn arrange(line: &mut Line, desk: &Desk, made: Made<'_>) -> Option<String> {
    const TRIES: usize = 3;
    let at_ms = line.wall_ms();
    for _ in 0..TRIES {
        let arrangement = Arrangement {
            id: super::charge::reference(line, at_ms),
            number: confirmation::mint(&mut line.rng),
            biller: desk.settings.biller.clone(),
            account_id: made.account_id.into(),
            card: made.card.into(),
            kind: made.kind,
            limit: made.limit,
            agreement: Agreement { said: made.terms.into(), at_ms, call_id: desk.call_id.clone() },
            instalments: made.instalments.clone(),
            created_ms: at_ms,
        };
        let (number, id) = (arrangement.number.clone(), arrangement.id.clone());
        match line.record(Entry::Arrange(Box::new(arrangement))).await {
            Recorded::Stored => {
                let kind = made.kind.name();
                line.note(Note::Arranged { kind, number: number.clone() });
                return Some(number);
            }
            Recorded::Conflict => {}
            Recorded::Illegal => return None,
            Recorded::Failed(_) => {
                // It may have been stored all the same: what nobody was told of is not charged.
                let (who, why) = (String::new(), "it could not be confirmed".into());
                line.record(Entry::Cancel { arrangement: id, who, why }).await;
                return None;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn a_date_is_the_next_such_day() {
        let day = Day { today: date(2026, 12, 20), last: date(2027, 1, 19) };
        for (keys, want) in [
            ("1221", Ok(date(2026, 12, 21))),
            ("0101", Ok(date(2027, 1, 1))),
            ("0119", Ok(date(2027, 1, 19))),
            ("0120", Err("later.too_late")),
            // Today is no later date, and next year's is too far off.
            ("1220", Err("later.too_late")),
            ("1219", Err("later.too_late")),
            ("0229", Err("later.no_date")),
            ("1301", Err("later.no_date")),
            ("0000", Err("later.no_date")),
            ("12 1", Err("later.no_date")),
            ("121", Err("later.no_date")),
        ] {
            assert_eq!(day.parse(keys).map_err(|reject| reject.0), want, "{keys}");
        }
        let leap = Day { today: date(2028, 2, 1), last: date(2028, 3, 2) };
        assert_eq!(leap.parse("0229").ok(), Some(date(2028, 2, 29)));
        let told = day.explain(Reject(TOO_LATE));
        assert_eq!(told[1], Prompt::Date(date(2027, 1, 19)));
        assert_eq!((day.extent("122"), day.extent("1221")), (Extent::Short, Extent::Full));
    }
}
