//! Cards that are kept for an account: offered on the next call, and kept if their holder agrees
//! before the gateway is asked to.

use std::time::Duration;

use super::charge::Settled;
use super::consent::brand_phrase;
use super::order::Order;
use super::tender::Tender;
use super::{Desk, Leave, Line, Note, SavedSettings, bank, phrases, today};
use crate::account::Account;
use crate::dialogue::grammar::{Menu, SecurityCode};
use crate::dialogue::{Field, ReadBack, Voice};
use crate::gateway::{Approval, Charge, Fixable, Route};
use crate::instrument::{Cvv, Fingerprint, Means, Method, Token};
use crate::ledger::arrangement::Kind;
use crate::ledger::card::FirstCharge;
use crate::ledger::{Consent, Entry, Recorded, SavedCard};
use crate::prompt::Prompt;
use crate::speech;

/// A card that is kept, with its security code if that is asked for.
pub(super) struct Tendered {
    pub(super) card: Box<SavedCard>,
    pub(super) instrument: crate::instrument::Saved,
}

/// How to pay, as the caller chose.
#[derive(Clone)]
pub(super) enum Way {
    Key(Method),
    Saved(Box<SavedCard>),
}

impl Way {
    pub(super) fn method(&self) -> Method {
        match self {
            Way::Key(method) => *method,
            Way::Saved(_) => Method::Card,
        }
    }
}

/// The ways to pay for one account.
pub(super) struct Ways {
    /// Newest first, at most [`CARDS_MAX`].
    cards: Vec<SavedCard>,
    /// A card may be keyed.
    card: bool,
    bank: bool,
    /// What was arranged with kept cards before.
    arranged: Vec<Kind>,
}

/// Cards kept for an account at a time: a menu of more is hard to follow.
const CARDS_MAX: usize = 2;

impl Ways {
    pub(super) async fn of(line: &mut Line, desk: &Desk, account: &Account) -> Ways {
        let card = !desk.settings.cards.is_empty() && account.may.pay_by_card;
        let bank = bank::is_offered(desk, account);
        let Some(settings) = settings(desk).filter(|_| account.may.pay_by_card) else {
            return Ways { cards: Vec::new(), card, bank, arranged: Vec::new() };
        };
        // A ledger that cannot be read has no cards, and the caller keys one.
        let biller = &desk.settings.biller;
        let wallet = line.wallet(biller, &account.id).await.unwrap_or_default();
        let arranged = wallet.arrangements.iter().map(|one| one.kind).collect();
        let mut cards = wallet.cards;
        let today = today(line.wall_ms());
        cards.retain(|card| {
            let able = desk.routes.by_id(&card.gateway).map(|route| route.gateway.capabilities());
            able.is_some_and(|able| able.tokens && (able.token_cvv || !settings.cvv))
                && desk.settings.cards.contains(&card.brand)
                && !card.expiry.is_over(today)
        });
        cards.truncate(CARDS_MAX);
        Ways { cards, card, bank, arranged }
    }

    pub(super) fn is_choice(&self) -> bool {
        self.cards.len() + usize::from(self.card) + usize::from(self.bank) > 1
    }

    pub(super) fn has_arranged(&self, kind: Kind) -> bool {
        self.arranged.contains(&kind)
    }

    /// Those that were refused on this call are not offered again.
    pub(super) fn without(&mut self, refused: &[String]) {
        self.cards.retain(|card| !refused.contains(&card.id));
    }

    /// Whether a card that is keyed may be kept.
    fn has_room_for(&self, fingerprint: Fingerprint) -> bool {
        let known = self.cards.iter().any(|card| card.fingerprint == fingerprint);
        self.cards.len() < CARDS_MAX && !known
    }

    /// Asks, where there is a choice.
    pub(super) async fn choose(&self, line: &mut Line) -> Result<Way, Leave> {
        const PRESS: [(char, &str); 4] = [
            ('1', "saved.press_one"),
            ('2', "saved.press_two"),
            ('3', "saved.press_three"),
            ('4', "saved.press_four"),
        ];
        match (&self.cards[..], self.card, self.bank) {
            ([], true, true) => return bank::choose(line).await.map(Way::Key),
            ([], true, false) => return Ok(Way::Key(Method::Card)),
            ([], false, true) => return Ok(Way::Key(Method::Bank)),
            // Somebody else has to take it.
            ([], false, false) => return Err(Leave::Failed),
            _ => {}
        }
        let mut prompt = Vec::new();
        let mut choices: Vec<(char, Option<Way>)> = Vec::new();
        let keyed = [self.card.then_some(Method::Card), self.bank.then_some(Method::Bank)];
        let ways = self.cards.iter().map(|card| Way::Saved(Box::new(card.clone())));
        let ways = ways.chain(keyed.into_iter().flatten().map(Way::Key));
        for ((key, press), way) in PRESS.into_iter().zip(ways) {
            match &way {
                Way::Saved(card) => prompt.extend(named(card)),
                Way::Key(Method::Card) => prompt.push(Prompt::Phrase("saved.other_card")),
                Way::Key(Method::Bank) => prompt.push(Prompt::Phrase("saved.bank")),
            }
            prompt.push(Prompt::Phrase(press));
            choices.push((key, Some(way)));
        }
        // A voice is told what it may do instead.
        prompt.push(Prompt::Pause { ms: 100 });
        let keys: Vec<(char, char)> = choices.iter().map(|(key, _)| (*key, *key)).collect();
        let field = Field::menu("saved", prompt, Menu(keys)).spoken(Voice {
            field: speech::Field::Digit,
            read_back: ReadBack::Never,
            prompt: "saved.say",
        });
        let chosen = line.ask(&field).await?;
        let way = choices.into_iter().find(|(key, _)| *key == chosen).and_then(|(_, way)| way);
        way.ok_or(Leave::Failed)
    }
}

/// To pay with your Visa ending in 1 1 1 1.
fn named(card: &SavedCard) -> [Prompt; 4] {
    [
        Prompt::Phrase("saved.pay_with"),
        Prompt::Phrase(brand_phrase(card.brand)),
        Prompt::Phrase("card.ending"),
        Prompt::Digits(card.last4.as_str().to_string()),
    ]
}

/// Whether cards are kept for this caller: never for one who hides who they are.
pub(super) fn settings(desk: &Desk) -> Option<&SavedSettings> {
    let anonymous = desk.caller.number.is_none() || desk.caller.name_withheld;
    desk.settings.saved.as_ref().filter(|_| !anonymous)
}

/// A card that is kept and about to be charged.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) card: Box<SavedCard>,
    /// The caller went back from it.
    pub(super) left: bool,
}

/// Asks for the security code, where that is wanted. [`Leave::Back`]: another way to pay.
pub(super) async fn take(line: &mut Line, desk: &Desk, draft: Draft) -> Result<Tendered, Leave> {
    let Draft { card, left } = draft;
    let cvv = match settings(desk).is_some_and(|settings| settings.cvv) {
        true => Some(code(line, &card).await?),
        false if left => return Err(Leave::Back),
        false => None,
    };
    let (token, expiry) = (card.token.clone(), Some(card.expiry));
    let instrument = crate::instrument::Saved { token, method: Method::Card, expiry, cvv };
    Ok(Tendered { card, instrument })
}

async fn code(line: &mut Line, card: &SavedCard) -> Result<Cvv, Leave> {
    let (brand, four) = (card.brand, card.brand.cvv_len() == 4);
    let ask = if four { "cvv.ask_four" } else { "cvv.ask_three" };
    let len = brand.cvv_len() as u8;
    let field = Field::number("cvv", ask, SecurityCode { brand }).spoken(Voice {
        field: speech::Field::Cvv((len, len)),
        read_back: ReadBack::Never,
        prompt: if four { "cvv.say_four" } else { "cvv.say_three" },
    });
    line.ask(&field.sensitive()).await
}

/// What was answered about keeping a card, so that nobody is asked twice about one.
#[derive(Default)]
pub(super) struct Asked(Option<(Fingerprint, Option<Consent>)>);

/// What is said of a card that is to be kept, in this order.
pub const TERMS: [&str; 2] = ["saved.terms", "saved.agree"];

/// Whether the card is to be kept, and what its holder agreed to: asked before it is charged, for
/// the gateway keeps it with the charge.
pub(super) async fn consent(
    line: &mut Line,
    desk: &Desk,
    ways: &Ways,
    asked: &mut Asked,
    (tender, order): (&Tender, &Order),
) -> Result<Option<Consent>, Leave> {
    let may = matches!(tender, Tender::Card(_))
        && settings(desk).is_some()
        && ways.has_room_for(order.fingerprint)
        && desk.routes.of(order.means).any(|route| route.takes.save);
    if !may {
        return Ok(None);
    }
    if let Some((_, answer)) = asked.0.as_ref().filter(|(card, _)| *card == order.fingerprint) {
        return Ok(answer.clone());
    }
    let keys = || Menu(vec![('1', true), ('2', false)]);
    let keep = Field::menu("keep", phrases(["saved.keep"]), keys());
    let agree = Field::menu("keep_terms", phrases(["saved.agree"]), keys());
    let agree = agree.notice(phrases(["saved.terms"]));
    let agreed = loop {
        if !line.ask(&keep).await? {
            break false;
        }
        match line.ask(&agree).await {
            Err(Leave::Back) => {}
            agreed => break agreed?,
        }
    };
    line.note(Note::Keep { means: order.means, last4: order.last4, agreed });
    let answer = agreed.then(|| Consent {
        said: TERMS.to_vec(),
        at_ms: line.wall_ms(),
        call_id: desk.call_id.clone(),
        payment: String::new(),
    });
    asked.0 = Some((order.fingerprint, answer.clone()));
    Ok(answer)
}

/// The gateway's name for a card, and the charge it was kept with.
pub(super) type Kept = (Token, FirstCharge);

/// What is kept of a card whose charge was approved, by one more request where the gateway wants
/// it.
pub(super) async fn token(
    line: &mut Line,
    route: &Route,
    sale: &Charge<'_>,
    approval: Approval,
) -> Option<Kept> {
    const LIMIT: Duration = Duration::from_secs(10);
    if !sale.save {
        return None;
    }
    let token = match route.gateway.keep(sale, &approval) {
        Some(request) => {
            let exchange = line.send(&route.id, request, LIMIT).await;
            route.gateway.kept(&approval, &exchange)
        }
        None => approval.token,
    };
    let (reference, network) = (approval.gateway_reference, approval.network.unwrap_or_default());
    Some((token?, FirstCharge { reference, network, total_minor: sale.total.minor }))
}

/// Keeps a card whose charge or verification was approved; its id, if it is kept.
pub(super) async fn keep(
    line: &mut Line,
    desk: &Desk,
    (route, payment): (&Route, &str),
    (order, tender): (&Order, &Tender),
    kept: Option<Kept>,
) -> Option<String> {
    let (Some((token, first)), Some(consent)) = (kept, order.keep.clone()) else { return None };
    let (Tender::Card(card), Means::Card(brand)) = (tender, order.means) else { return None };
    let created_ms = line.wall_ms();
    let card = SavedCard {
        id: super::charge::reference(line, created_ms),
        biller: desk.settings.biller.clone(),
        account_id: order.account_id.clone(),
        gateway: route.id.to_string(),
        token,
        brand,
        last4: order.last4,
        expiry: card.expiry,
        fingerprint: order.fingerprint,
        issuer: order.issuer,
        consent: Consent { payment: payment.into(), ..consent },
        first,
        created_ms,
    };
    let id = card.id.clone();
    let recorded = line.record(Entry::Keep(Box::new(card))).await;
    (recorded == Recorded::Stored).then_some(id)
}

/// A card that is kept and will never be charged again is dropped: nobody can correct it. One that
/// the gateway does not know may be known again once its keys or its merchant are the right ones.
pub(super) async fn spent(
    line: &mut Line,
    desk: &Desk,
    tender: &Tender,
    settled: Settled,
) -> Settled {
    let Tender::Saved(kept) = tender else { return settled };
    match settled {
        Settled::Fixable(Fixable::Number) => {
            let gateway = kept.card.gateway.as_str().into();
            line.note(Note::NotKnown { last4: kept.card.last4, gateway });
        }
        Settled::DeclinedHard | Settled::Fixable(Fixable::Expiry) => {
            let arranged = super::later::standing::with_card(line, desk, &kept.card).await;
            drop_card(line, &kept.card, "refused for good by the gateway").await;
            if arranged {
                line.tell(phrases(["later.stopped"])).await;
            }
        }
        settled => return settled,
    }
    Settled::DeclinedHard
}

/// A kept card that will never be charged again.
async fn drop_card(line: &mut Line, card: &SavedCard, why: &str) {
    let (id, who) = (card.id.clone(), String::new());
    line.note(Note::Dropped { last4: card.last4 });
    line.record(Entry::Drop { card: id, who, why: why.into() }).await;
}
