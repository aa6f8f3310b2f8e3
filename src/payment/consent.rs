//! What is to be paid, and that its payer agrees to it.

use super::authorisation;
use super::order::Order;
use super::tender::Tender;
use super::{Desk, Leave, Line, Note, pair, several};
use crate::dialogue::Field;
use crate::dialogue::grammar::Menu;
use crate::instrument::{Brand, Means};
use crate::prompt::Prompt;

/// What is to be paid spoken in full, then accepted by a key that cannot be typed ahead.
pub(super) async fn consent(
    line: &mut Line,
    desk: &Desk,
    order: &mut Order,
    tender: &Tender,
) -> Result<bool, Leave> {
    match tender {
        Tender::Card(_) | Tender::Saved(_) => accept(line, desk, order).await,
        Tender::Bank(debit) => {
            order.authorisation = authorisation::ask(line, desk, order, debit).await?;
            Ok(order.authorisation.is_some())
        }
    }
}

/// Fee and total of a charge to a card.
async fn accept(line: &mut Line, desk: &Desk, order: &Order) -> Result<bool, Leave> {
    let Order { amount, fee, total, means, last4, .. } = *order;
    let Means::Card(brand) = means else { return Err(Leave::Failed) };
    if order.apart.is_some() {
        return pair::accept(line, desk, order, brand).await;
    }
    let mut notice = several::read_out(&order.allocations);
    notice.extend([Prompt::Phrase("consent.payment"), Prompt::Amount(amount)]);
    if fee.is_positive() {
        notice.extend([
            Prompt::Phrase(if order.surcharge { "consent.surcharge" } else { "consent.fee" }),
            Prompt::Amount(fee),
            Prompt::Phrase("consent.fee_added"),
        ]);
    }
    notice.extend([
        Prompt::Phrase("consent.total"),
        Prompt::Phrase(brand_phrase(brand)),
        Prompt::Phrase("card.ending"),
        Prompt::Digits(last4.as_str().to_string()),
        Prompt::Phrase("consent.will_be"),
        Prompt::Amount(total),
    ]);
    ask(line, order, notice).await
}

/// Whether what was said is accepted, by a key.
pub(super) async fn ask(
    line: &mut Line,
    order: &Order,
    notice: Vec<Prompt>,
) -> Result<bool, Leave> {
    let Order { amount, fee, total, means, last4, .. } = *order;
    let accept = vec![Prompt::Phrase("consent.accept")];
    let field = Field::menu("consent", accept, Menu(vec![('1', true), ('2', false)]));
    let accepted = line.ask(&field.notice(notice)).await?;
    if accepted {
        line.note(Note::Consent { amount, fee, total, means, last4 });
    }
    Ok(accepted)
}

pub(super) fn brand_phrase(brand: Brand) -> &'static str {
    match brand {
        Brand::Visa => "brand.visa",
        Brand::Mastercard => "brand.mastercard",
        Brand::Amex => "brand.amex",
        Brand::Discover => "brand.discover",
        Brand::Jcb => "brand.jcb",
        Brand::Diners => "brand.diners",
        Brand::UnionPay => "brand.unionpay",
    }
}
