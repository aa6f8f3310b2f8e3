//! The call as a script: greet, authenticate, amount, card or bank account, consent, charge,
//! receipt.

use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil::Date};

use crate::account::Caller;
use crate::gateway::Routes;
use crate::instrument::{FingerprintKey, Last4, Means, Method};
use crate::money::Money;
use crate::prompt::Prompt;

pub mod line; // the seam: requests out, replies in
pub mod fee; // what paying by phone costs
pub mod settings; // what the biller accepts and charges
pub mod banks; // routing numbers and whose they are
mod greet;
mod authenticate;
pub mod partial; // less or more than what is due
mod amount;
pub mod surcharge; // for paying by credit card
mod again;
mod several; // accounts in one payment
mod card;
mod bank;
mod saved; // cards that are kept for the next call
mod later; // on a date, in instalments, by AutoPay
mod tender; // a card, keyed or kept, or a bank account
pub mod authorisation; // of a debit by phone
mod order; // what is to be paid, and what with
mod consent; // the total, accepted by a key
mod charge;
mod pair; // a bill and its fee, charged apart
mod receipt;

pub use authorisation::{Authorisation, Evidence};
pub use banks::Banks;
pub use fee::Fee;
pub use line::{Flow, Leave, Line, Reply, Request, Step};
pub use pair::{WHO as VOIDED_BY, WHY as VOIDED_FOR};
pub use partial::PartialSettings;
pub use saved::TERMS as CARD_TERMS;
pub use settings::{
    BankSettings, DuplicateMatch, FeeMode, LaterSettings, SavedSettings, Settings, Zone,
};
pub use several::ACCOUNTS_MAX;
pub use surcharge::{Bins, SurchargeSettings};

use again::Told;
use amount::Choice;
use charge::Settled;
use later::When;
use order::Order;
use receipt::Next;
use saved::{Way, Ways};
use several::Bill;
use tender::{Draft, Tender};

/// Everything one call's script is given.
pub struct Desk {
    pub settings: Arc<Settings>,
    pub routes: Arc<Routes>,
    pub fingerprints: Arc<FingerprintKey>,
    /// Banks by routing number; `None`: any number with a right checksum is taken.
    pub banks: Option<Arc<Banks>>,
    /// Whose cards are credit cards; `None`: nobody is surcharged.
    pub bins: Option<Arc<Bins>>,
    /// Authorisations of debits are recorded; else a written notice follows.
    pub authorisations_recorded: bool,
    pub caller: Caller,
    /// The caller called us, not we them.
    pub caller_placed: bool,
    /// The trunk the call came by.
    pub trunk: String,
    /// Our id of this call, kept with its payments.
    pub call_id: String,
    /// Somebody can take callers over.
    pub agent: bool,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Paid {
        confirmation: String,
    },
    /// The gateway gave no definitive answer: the caller was told to wait for the result.
    Pending {
        confirmation: String,
    },
    /// A kept card will be charged later: the number of what was arranged.
    Arranged {
        number: String,
    },
    /// The caller said no to the total, or has nothing to pay.
    Cancelled,
    Transferred,
    /// The caller hung up before anything was charged.
    HungUp,
    /// Nothing was charged and no agent took the call.
    Failed(&'static str),
}

/// What happened, for the console and the call record. Never card data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A step of the script begins.
    Step(&'static str),
    Identified {
        account: String,
        by: &'static str,
    },
    /// The caller was told of a payment like theirs; whether they pay again.
    Again {
        confirmation: String,
        again: bool,
    },
    /// Too much was tried, by or for what is named: nothing is paid until then (Unix milliseconds).
    Locked {
        counted: &'static str,
        until_ms: i64,
    },
    Consent {
        amount: Money,
        fee: Money,
        total: Money,
        means: Means,
        last4: Last4,
    },
    /// The caller was asked whether a card is to be kept for their next payments.
    Keep {
        means: Means,
        last4: Last4,
        agreed: bool,
    },
    /// A kept card will not be offered again.
    Dropped {
        last4: Last4,
    },
    /// The gateway that keeps a card does not know it: another merchant's keys, or it was deleted
    /// there. It is not offered again on this call.
    NotKnown {
        last4: Last4,
        gateway: Arc<str>,
    },
    /// A kept card is to be charged later: once, by AutoPay or a plan.
    Arranged {
        kind: &'static str,
        number: String,
    },
    /// The caller has cancelled what was arranged.
    Disarranged {
        number: String,
    },
    Charging {
        reference: String,
        gateway: Arc<str>,
    },
    /// A card is verified, to be kept and charged later.
    Verifying {
        reference: String,
        gateway: Arc<str>,
    },
    /// A gateway that would take the charge is not asked: it has failed too often of late.
    Resting {
        gateway: Arc<str>,
    },
    Verdict(String),
    Confirmation(String),
}

/// Serves one caller from greeting to goodbye.
pub async fn script(mut line: Line, desk: Desk) -> Outcome {
    line.has_agent(desk.agent);
    let leave = match serve(&mut line, &desk).await {
        Ok(outcome) => return outcome,
        Err(leave) => leave,
    };
    match leave {
        Leave::Hangup => Outcome::HungUp,
        Leave::HandedOver => Outcome::Transferred,
        Leave::Agent => hand_over(&mut line, Vec::new()).await,
        Leave::Failed => hand_over(&mut line, phrases(["error.too_many"])).await,
        Leave::Back => Outcome::Cancelled,
    }
}

async fn serve(line: &mut Line, desk: &Desk) -> Result<Outcome, Leave> {
    let mut account = match greet::known(line, desk).await {
        Some(account) => account,
        None => loop {
            match authenticate::caller(line, desk).await {
                // There is nothing before the first question.
                Err(Leave::Back) => {}
                account => break account?,
            }
        },
    };
    let mut charges_left = desk.settings.declines_max;
    let mut told = Told::default();
    loop {
        later::standing::tell(line, desk, &account, &mut told.standing).await?;
        line.note(Note::Step("amount"));
        let amount = match amount::choose(line, desk, &account, None).await {
            Ok(Choice::Amount(amount)) => amount,
            Ok(Choice::Nothing) => {
                line.tell(phrases(["bye.plain"])).await;
                return Ok(Outcome::Cancelled);
            }
            Ok(Choice::OtherAccount) | Err(Leave::Back) => {
                match authenticate::other_account(line, desk).await {
                    Err(Leave::Back) => {}
                    other => account = other?,
                }
                continue;
            }
            Err(leave) => return Err(leave),
        };
        match again::wanted(line, desk, &mut told, [(&*account.id, amount)], None).await {
            Ok(true) => {}
            Ok(false) => return Ok(stopped(line).await),
            Err(Leave::Back) => continue,
            Err(leave) => return Err(leave),
        }
        let bill = Bill::of(account.clone(), amount);
        match pay_all(line, desk, &mut told, bill, &mut charges_left).await {
            Err(Leave::Back) => continue,
            ended => return ended,
        }
    }
}

/// Gathers what else is paid, and pays it. Who goes back from paying finds all of it there.
async fn pay_all(
    line: &mut Line,
    desk: &Desk,
    told: &mut Told,
    mut bill: Bill,
    charges_left: &mut u8,
) -> Result<Outcome, Leave> {
    let mut back = false;
    loop {
        bill = several::gather(line, desk, told, bill, back).await?;
        match pay(line, desk, told, &bill, charges_left).await {
            Err(Leave::Back) => back = true,
            ended => return ended,
        }
    }
}

/// By a card that is kept, another card or from a bank account, and by another if one does not do.
async fn pay(
    line: &mut Line,
    desk: &Desk,
    told: &mut Told,
    bill: &Bill,
    charges_left: &mut u8,
) -> Result<Outcome, Leave> {
    let mut ways = Ways::of(line, desk, &bill.account).await;
    ways.without(&told.refused);
    loop {
        let choice = ways.is_choice();
        let way = ways.choose(line).await?;
        match pay_by(line, desk, told, bill, (way, &mut ways), charges_left).await {
            Ok(Some(outcome)) => return Ok(outcome),
            Ok(None) => {}
            Err(Leave::Back) if choice => {}
            Err(leave) => return Err(leave),
        }
    }
}

/// Card or account, consent and charge, again after a decline until the biller's patience with
/// this call ends. `None`: another way to pay is wanted, where there is a choice.
async fn pay_by(
    line: &mut Line,
    desk: &Desk,
    told: &mut Told,
    bill: &Bill,
    (way, ways): (Way, &mut Ways),
    charges_left: &mut u8,
) -> Result<Option<Outcome>, Leave> {
    let (method, choice) = (way.method(), ways.is_choice());
    let mut draft = Draft::new(&way);
    let mut consented = None;
    let mut asked = saved::Asked::default();
    while *charges_left > 0 {
        line.note(Note::Step(method.name()));
        let tender = draft.take(line, desk, &bill.account).await?;
        let this = (tender.means(), tender.last4());
        let mut order = Order::new(desk, bill, &tender).ok_or(Leave::Failed)?;
        let fingerprint = Some(order.fingerprint);
        if !again::wanted(line, desk, told, bill.parts(), fingerprint).await? {
            drop(tender);
            return Ok(Some(stopped(line).await));
        }
        let before = consented == Some(this);
        match agreed(line, desk, (ways, &mut asked), (&tender, &mut order), before).await {
            // A plan is of what is to be paid, not of its first payment; and of what is put off
            // nothing is paid today.
            Ok(None) => {
                let today = order.plan.is_none() && order.once.is_none();
                consented = Some(this).filter(|_| today);
            }
            Ok(Some(outcome)) => {
                drop(tender);
                return Ok(Some(outcome));
            }
            Err(Leave::Back) => {
                draft = Draft::back(tender, &desk.settings);
                continue;
            }
            Err(leave) => return Err(leave),
        }
        *charges_left -= 1;
        let settled = match &order.once {
            Some(once) => later::verify::verify(line, desk, told, (&order, once), &tender).await,
            None => charge::charge(line, desk, told, &order, &tender).await,
        };
        let settled = match settled {
            // What was never asked cannot be asked again.
            Settled::Fixable(field) if !tender.has_asked(field, &desk.settings) => {
                Settled::DeclinedSoft
            }
            settled => settled,
        };
        let offer = later::autopay::offer(desk, ways, (&order, &settled), tender.kept());
        draft = match (&settled, tender) {
            (Settled::Fixable(field), tender) => Draft::without(tender, *field),
            // Card data ends here, before anything is read back.
            (_, Tender::Saved(kept)) => {
                told.refused.push(kept.card.id);
                ways.without(&told.refused);
                Draft::new(&Way::Key(method))
            }
            _ => Draft::new(&way),
        };
        // A yes is for one card, and for one that was not declined.
        consented = consented.filter(|_| draft.keeps_consent());
        // Where there are only bank accounts, another one is another way.
        let other_way = choice || method == Method::Bank;
        // Whoever finds the outcome out has neither the card's token nor the caller.
        let unmade = [
            order.keep.is_some().then_some("saved.not_kept"),
            order.plan.is_some().then_some("later.no_plan"),
        ];
        let unmade = unmade.into_iter().flatten().collect();
        let next = receipt::Retry { may: *charges_left > 0, other_way, method, unmade };
        match receipt::tell(line, desk, (settled, offer), next).await? {
            Next::End(outcome) => return Ok(Some(outcome)),
            Next::TryAgain => {}
            Next::OtherWay => return Ok(None),
        }
    }
    Err(Leave::Failed)
}

/// Whether the card is to be kept, when is to be paid, and then whether the total is accepted,
/// unless it was `before`. An outcome: nothing is charged on this call.
async fn agreed(
    line: &mut Line,
    desk: &Desk,
    (ways, asked): (&Ways, &mut saved::Asked),
    (tender, order): (&Tender, &mut Order),
    before: bool,
) -> Result<Option<Outcome>, Leave> {
    order.keep = saved::consent(line, desk, ways, asked, (tender, &*order)).await?;
    if before {
        return Ok(None);
    }
    match later::when(line, desk, ways, (tender, &*order)).await? {
        When::Today => {}
        When::Ended(outcome) => return Ok(Some(outcome)),
        When::Once(once) => {
            order.once = Some(once);
            return Ok(None);
        }
        When::Plan(plan) => return order.divided(plan).map(|()| None).ok_or(Leave::Failed),
    }
    if consent::consent(line, desk, order, tender).await? {
        return Ok(None);
    }
    line.tell(phrases(["consent.cancelled", "bye.plain"])).await;
    Ok(Some(Outcome::Cancelled))
}

/// The caller has paid before, and once is enough.
async fn stopped(line: &mut Line) -> Outcome {
    line.tell(phrases(["again.stopped", "bye.plain"])).await;
    Outcome::Cancelled
}

/// To the agent, or an honest goodbye.
async fn hand_over(line: &mut Line, before: Vec<Prompt>) -> Outcome {
    if line.hand_over(before).await {
        return Outcome::Transferred;
    }
    line.tell(phrases(["agent.unavailable", "bye.plain"])).await;
    Outcome::Failed("no agent")
}

fn phrases<const N: usize>(ids: [&'static str; N]) -> Vec<Prompt> {
    ids.into_iter().map(Prompt::Phrase).collect()
}

/// The earliest date it can be anywhere at this instant: a card is good through the last day of
/// its month where the caller is, which may be half a day behind UTC.
fn today(wall_ms: i64) -> Date {
    let behind = SignedDuration::from_hours(12);
    let now = Timestamp::from_millisecond(wall_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let earliest = now.checked_sub(behind).unwrap_or(now);
    earliest.to_zoned(TimeZone::UTC).date()
}
