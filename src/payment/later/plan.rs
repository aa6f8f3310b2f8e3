//! A payment plan: the first payment today, the others on dates that the caller has heard.

use jiff::civil::Date;

use super::{Made, When, agreed, arrange, settings, spoken_fee};
use crate::dialogue::Field;
use crate::dialogue::grammar::Menu;
use crate::ledger::Instalment;
use crate::ledger::arrangement::Kind;
use crate::money::Money;
use crate::payment::consent::brand_phrase;
use crate::payment::order::Order;
use crate::payment::settings::LaterSettings;
use crate::payment::tender::Tender;
use crate::payment::{Desk, Leave, Line, Note, Outcome, phrases};
use crate::prompt::Prompt;

/// A plan that was accepted.
pub(in crate::payment) struct Plan {
    /// Today's, and its fee.
    pub(in crate::payment) first: Money,
    pub(in crate::payment) fee: Money,
    /// The fee is a surcharge.
    pub(in crate::payment) surcharge: bool,
    /// Those that follow.
    rest: Vec<(Date, Money)>,
}

const TERMS: &str =
    "later.plan_today later.plan_then later.plan_card later.plan_cancel later.agree";

pub(super) async fn agree(
    line: &mut Line,
    desk: &Desk,
    settings: &LaterSettings,
    (tender, order): (&Tender, &Order),
) -> Result<When, Leave> {
    let Some(plan) = &settings.plan else { return Err(Leave::Failed) };
    loop {
        let today = settings.today(line.wall_ms());
        let expiry = tender.expiry().ok_or(Leave::Failed)?;
        let most = plan.most(order.amount, (today, expiry));
        let payments = count(line, most).await?;
        let mut all = plan.divide(order.amount, payments, today).ok_or(Leave::Failed)?.into_iter();
        let (_, first) = all.next().ok_or(Leave::Failed)?;
        let one = Order::of(desk, &order.account_id, first, tender).ok_or(Leave::Failed)?;
        let (fee, surcharge) = (one.fee, one.surcharge);
        let plan = Plan { first, fee, surcharge, rest: all.collect() };
        match agreed(line, plan.spoken(&one).ok_or(Leave::Failed)?).await {
            Ok(true) => {
                let Order { amount, fee, total, means, last4, .. } = one;
                line.note(Note::Consent { amount, fee, total, means, last4 });
                return Ok(When::Plan(plan));
            }
            Ok(false) => {
                line.tell(phrases(["consent.cancelled", "bye.plain"])).await;
                return Ok(When::Ended(Outcome::Cancelled));
            }
            Err(Leave::Back) => {}
            Err(leave) => return Err(leave),
        }
    }
}

/// How many payments, today's among them.
async fn count(line: &mut Line, most: u32) -> Result<u32, Leave> {
    let keys = (2..=most).filter_map(|count| Some((char::from_digit(count, 10)?, count)));
    let prompt = vec![
        Prompt::Phrase("later.plan_count"),
        Prompt::Number(2),
        Prompt::Phrase("later.plan_to"),
        Prompt::Number(most),
    ];
    line.ask(&Field::menu("instalments", prompt, Menu(keys.collect()))).await
}

impl Plan {
    /// Every amount and every date.
    fn spoken(&self, one: &Order) -> Option<Vec<Prompt>> {
        let crate::instrument::Means::Card(brand) = one.means else { return None };
        let mut said = vec![Prompt::Phrase("later.plan_today"), Prompt::Amount(self.first)];
        said.extend(spoken_fee(one));
        for (date, amount) in &self.rest {
            said.extend([
                Prompt::Phrase("later.plan_then"),
                Prompt::Date(*date),
                Prompt::Pause { ms: 100 },
                Prompt::Amount(*amount),
                Prompt::Pause { ms: 300 },
            ]);
        }
        said.extend([
            Prompt::Phrase("later.plan_card"),
            Prompt::Phrase(brand_phrase(brand)),
            Prompt::Phrase("card.ending"),
            Prompt::Digits(one.last4.as_str().to_string()),
            Prompt::Phrase("later.plan_cancel"),
        ]);
        Some(said)
    }

    /// Arranges what follows, now that the first payment is approved; its number.
    pub(in crate::payment) async fn begin(
        &self,
        line: &mut Line,
        desk: &Desk,
        account_id: &str,
        card: &str,
    ) -> Option<String> {
        let settings = settings(desk)?;
        let none = Money::new(0, self.first.currency);
        let instalment = |((due, amount), nth): (&(Date, Money), i64)| {
            let at_ms = settings.instant(*due)?;
            // Only what is paid on a call has a convenience fee.
            Some(Instalment { position: nth, due: *due, at_ms, amount: *amount, fee: none })
        };
        let instalments: Option<Vec<_>> = self.rest.iter().zip(1..).map(instalment).collect();
        let limit = self.rest.iter().map(|(_, amount)| *amount).max_by_key(|it| it.minor)?;
        let made = Made {
            account_id,
            card,
            kind: Kind::Plan,
            limit,
            terms: TERMS,
            instalments: instalments?,
        };
        arrange(line, desk, made).await
    }
}
