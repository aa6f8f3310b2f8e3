//! The card, field by field; `*` goes back one field, and only a wrong field is asked again.

use zeroize::Zeroizing;

use super::{Desk, Leave, Line, today};
use crate::dialogue::Field;
use crate::dialogue::grammar::{CardNumber, ExpiryDate, SecurityCode, ZipCode};
use crate::gateway::Fixable;
use crate::instrument::{Card, Cvv, Expiry, Pan};

/// What is known of a card so far.
#[derive(Default)]
pub(super) struct Draft {
    pan: Option<Pan>,
    expiry: Option<Expiry>,
    cvv: Option<Cvv>,
    zip: Option<Zeroizing<String>>,
}

impl Draft {
    /// A card whose `field` the gateway did not like. A new number needs everything new.
    pub(super) fn without(card: Card, field: Fixable) -> Draft {
        let mut draft = Draft::from(card);
        match field {
            Fixable::Number => return Draft::default(),
            Fixable::Expiry => draft.expiry = None,
            Fixable::Cvv => draft.cvv = None,
            Fixable::Zip => draft.zip = None,
        }
        draft
    }

    /// One field back from the end.
    pub(super) fn back(card: Card) -> Draft {
        let mut draft = Draft::from(card);
        draft.drop_last();
        draft
    }

    fn from(card: Card) -> Draft {
        let Card { pan, expiry, cvv, zip } = card;
        Draft { pan: Some(pan), expiry: Some(expiry), cvv, zip }
    }

    /// Forgets the field asked last; false when nothing was known.
    fn drop_last(&mut self) -> bool {
        self.zip.take().is_some()
            || self.cvv.take().is_some()
            || self.expiry.take().is_some()
            || self.pan.take().is_some()
    }
}

/// Asks for what the draft lacks. [`Leave::Back`]: the caller went back past the number.
pub(super) async fn take(line: &mut Line, desk: &Desk, mut draft: Draft) -> Result<Card, Leave> {
    loop {
        match ask_next(line, desk, &mut draft).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(Leave::Back) if draft.drop_last() => {}
            Err(leave) => return Err(leave),
        }
    }
    let Draft { pan: Some(pan), expiry: Some(expiry), cvv, zip } = draft else {
        return Err(Leave::Failed);
    };
    Ok(Card { pan, expiry, cvv, zip })
}

/// Asks for the first missing field; false when none is missing.
async fn ask_next(line: &mut Line, desk: &Desk, draft: &mut Draft) -> Result<bool, Leave> {
    let settings = &desk.settings;
    let Some(pan) = &draft.pan else {
        let grammar = CardNumber { accepted: settings.cards.clone() };
        let field = Field::number("card", "card.ask", grammar).help("card.ask_help").sensitive();
        draft.pan = Some(line.ask(&field).await?);
        return Ok(true);
    };
    if draft.expiry.is_none() {
        let grammar = ExpiryDate { today: today(line.wall_ms()) };
        let field = Field::number("expiry", "expiry.ask", grammar).sensitive();
        draft.expiry = Some(line.ask(&field).await?);
    } else if settings.cvv && draft.cvv.is_none() {
        let brand = pan.brand();
        let ask = if brand.cvv_len() == 4 { "cvv.ask_four" } else { "cvv.ask_three" };
        let field = Field::number("cvv", ask, SecurityCode { brand }).sensitive();
        draft.cvv = Some(line.ask(&field).await?);
    } else if settings.zip && draft.zip.is_none() {
        let field = Field::number("zip", "zip.ask", ZipCode).sensitive();
        draft.zip = Some(line.ask(&field).await?);
    } else {
        return Ok(false);
    }
    Ok(true)
}
