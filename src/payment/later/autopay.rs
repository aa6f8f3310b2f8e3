//! AutoPay: the balance on each due date, offered after a payment by a card that is kept.

use super::{Made, agreed, arrange, settings, yes_no};
use crate::dialogue::Field;
use crate::instrument::{Last4, Means};
use crate::ledger::arrangement::Kind;
use crate::money::Money;
use crate::payment::charge::Settled;
use crate::payment::consent::brand_phrase;
use crate::payment::order::Order;
use crate::payment::receipt;
use crate::payment::saved::Ways;
use crate::payment::{Desk, Leave, Line, phrases};
use crate::prompt::Prompt;

/// What may be offered.
pub(in crate::payment) struct Offer {
    account_id: String,
    card: String,
    brand: &'static str,
    last4: Last4,
    max: Money,
}

const TERMS: &str = "later.autopay_card later.autopay_max later.autopay_above \
                     later.autopay_cancel later.agree";

/// After an approved payment by a card that is kept: `card`, or as it was kept just now.
pub(in crate::payment) fn offer(
    desk: &Desk,
    ways: &Ways,
    (order, settled): (&Order, &Settled),
    card: Option<&str>,
) -> Option<Offer> {
    let max = settings(desk)?.autopay_max?;
    let (Settled::Approved { with, .. }, Means::Card(brand)) = (settled, order.means) else {
        return None;
    };
    let card = card.or(with.kept.as_ref()?.as_deref())?.to_string();
    // A plan is of the same balance.
    let stands = [Kind::AutoPay, Kind::Plan].into_iter().any(|kind| ways.has_arranged(kind));
    // Who pays for several accounts is not asked about one of them.
    let may = order.plan.is_none() && order.allocations.is_empty() && !stands;
    may.then(|| Offer {
        account_id: order.account_id.clone(),
        card,
        brand: brand_phrase(brand),
        last4: order.last4,
        max,
    })
}

/// Asks once; whatever comes of it, the payment is made. [`Leave::Back`]: it is not wanted.
pub(in crate::payment) async fn ask(
    line: &mut Line,
    desk: &Desk,
    offer: Offer,
) -> Result<(), Leave> {
    let wanted = Field::menu("autopay", phrases(["later.autopay"]), yes_no()).once();
    if !line.ask(&wanted).await? {
        return Ok(());
    }
    let Offer { account_id, card, brand, last4, max } = offer;
    let notice = vec![
        Prompt::Phrase("later.autopay_card"),
        Prompt::Phrase(brand),
        Prompt::Phrase("card.ending"),
        Prompt::Digits(last4.as_str().to_string()),
        Prompt::Phrase("later.autopay_max"),
        Prompt::Amount(max),
        Prompt::Phrase("later.autopay_above"),
        Prompt::Phrase("later.autopay_cancel"),
    ];
    if !agreed(line, notice).await? {
        return Ok(());
    }
    let made = Made {
        account_id: &account_id,
        card: &card,
        kind: Kind::AutoPay,
        limit: max,
        terms: TERMS,
        instalments: Vec::new(),
    };
    match arrange(line, desk, made).await {
        Some(number) => {
            line.tell(receipt::read_out("later.autopay_on", "later.number", &number)).await;
        }
        None => line.tell(phrases(["later.not_arranged"])).await,
    }
    Ok(())
}
