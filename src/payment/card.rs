//! The card, field by field; `*` goes back one field, and only a wrong field is asked again.

use zeroize::Zeroizing;

use super::{Desk, Leave, Line, Settings, today};
use crate::dialogue::grammar::{CardNumber, ExpiryDate, SecurityCode, ZipCode};
use crate::dialogue::{Field, ReadBack, Voice};
use crate::gateway::Fixable;
use crate::instrument::{Card, Cvv, Expiry, Pan};
use crate::speech;

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
            Fixable::Routing | Fixable::Account => {}
        }
        draft
    }

    /// A complete card, one field back from the end.
    pub(super) fn back(card: Card, settings: &Settings) -> Draft {
        let mut draft = Draft::from(card);
        draft.step_back(settings);
        draft
    }

    pub(super) fn has_number(&self) -> bool {
        self.pan.is_some()
    }

    fn from(card: Card) -> Draft {
        let Card { pan, expiry, cvv, zip } = card;
        Draft { pan: Some(pan), expiry: Some(expiry), cvv, zip }
    }

    /// The first field that is asked for and not known.
    fn missing(&self, settings: &Settings) -> Option<Fixable> {
        asked(settings).find(|field| match field {
            Fixable::Number => self.pan.is_none(),
            Fixable::Expiry => self.expiry.is_none(),
            Fixable::Cvv => self.cvv.is_none(),
            Fixable::Zip => self.zip.is_none(),
            Fixable::Routing | Fixable::Account => false,
        })
    }

    /// Forgets the field before the missing one; false at the number.
    fn step_back(&mut self, settings: &Settings) -> bool {
        let missing = self.missing(settings);
        match asked(settings).take_while(|field| Some(*field) != missing).last() {
            None => return false,
            Some(Fixable::Number) => *self = Draft::default(),
            Some(Fixable::Expiry) => self.expiry = None,
            Some(Fixable::Cvv) => self.cvv = None,
            Some(Fixable::Zip) => self.zip = None,
            Some(Fixable::Routing | Fixable::Account) => {}
        }
        true
    }
}

/// The fields the biller wants, in the order they are asked.
fn asked(settings: &Settings) -> impl Iterator<Item = Fixable> {
    let all = [Fixable::Number, Fixable::Expiry, Fixable::Cvv, Fixable::Zip];
    all.into_iter().filter(|field| settings.asks(*field))
}

/// Asks for what the draft lacks. [`Leave::Back`]: the caller went back past the number.
pub(super) async fn take(line: &mut Line, desk: &Desk, mut draft: Draft) -> Result<Card, Leave> {
    loop {
        match ask_next(line, desk, &mut draft).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(Leave::Back) if draft.step_back(&desk.settings) => {}
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
    match draft.missing(settings) {
        None | Some(Fixable::Routing | Fixable::Account) => return Ok(false),
        Some(Fixable::Number) => {
            let grammar = CardNumber { accepted: settings.cards.clone() };
            let field = Field::number("card", "card.ask", grammar).help("card.ask_help");
            let field = field.spoken(Voice {
                field: speech::Field::Card,
                read_back: ReadBack::LastFour,
                prompt: "card.say",
            });
            draft.pan = Some(line.ask(&field.sensitive()).await?);
        }
        Some(Fixable::Expiry) => {
            let today = today(line.wall_ms());
            let grammar = ExpiryDate { today };
            let field = Field::number("expiry", "expiry.ask", grammar).help("expiry.ask_help");
            let field = field.spoken(Voice {
                field: speech::Field::Expiry(years_from(today.year())),
                read_back: ReadBack::Always,
                prompt: "expiry.say",
            });
            draft.expiry = Some(line.ask(&field.sensitive()).await?);
        }
        Some(Fixable::Cvv) => {
            let brand = draft.pan.as_ref().ok_or(Leave::Failed)?.brand();
            let ask = if brand.cvv_len() == 4 { "cvv.ask_four" } else { "cvv.ask_three" };
            let say = if brand.cvv_len() == 4 { "cvv.say_four" } else { "cvv.say_three" };
            let len = brand.cvv_len() as u8;
            let field = Field::number("cvv", ask, SecurityCode { brand }).spoken(Voice {
                field: speech::Field::Cvv((len, len)),
                read_back: ReadBack::Never,
                prompt: say,
            });
            draft.cvv = Some(line.ask(&field.sensitive()).await?);
        }
        Some(Fixable::Zip) => {
            let field = Field::number("zip", "zip.ask", ZipCode).spoken(Voice {
                field: speech::Field::Zip,
                read_back: ReadBack::Always,
                prompt: "zip.say",
            });
            draft.zip = Some(line.ask(&field.sensitive()).await?);
        }
    }
    Ok(true)
}

/// Years in which a card that is good now may end, two digits each.
fn years_from(year: i16) -> (u8, u8) {
    /// Issuers print at most 20 years.
    const YEARS_MAX: i16 = 20;
    let digits = |year: i16| year.rem_euclid(100) as u8;
    (digits(year), digits(year + YEARS_MAX))
}
