//! What happens to a payment after it was approved: voids and refunds, with who asked and why;
//! debits that the bank returned, and those presented to it again.

use super::{Intent, State};
use crate::gateway::{Act, Modified};
use crate::money::Money;

/// What gives money back, or takes it once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Undo {
    /// Asked for by us, before the payment settled.
    Void,
    /// Asked for by us, later.
    Refund,
    /// The holder's bank sent the debit back.
    Returned,
    /// A debit that was returned is made again: the money is received after all.
    Represented,
}

impl Undo {
    const ALL: [Undo; 4] = [Undo::Void, Undo::Refund, Undo::Returned, Undo::Represented];

    pub fn name(self) -> &'static str {
        match self {
            Undo::Void => "void",
            Undo::Refund => "refund",
            Undo::Returned => "return",
            Undo::Represented => "represent",
        }
    }

    pub fn parse(name: &str) -> Option<Undo> {
        Undo::ALL.into_iter().find(|one| one.name() == name)
    }

    /// What the gateway is asked for; `None`: it is not our doing, or none of the gateway's.
    pub fn act(self) -> Option<Act> {
        match self {
            Undo::Void => Some(Act::Void),
            Undo::Refund => Some(Act::Refund),
            Undo::Returned | Undo::Represented => None,
        }
    }

    /// How many times its amount is given back.
    pub fn sign(self) -> i64 {
        if self == Undo::Represented { -1 } else { 1 }
    }
}

/// One change. The id of a void or refund is our reference at the gateway and its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub id: String,
    pub intent_id: String,
    pub act: Undo,
    pub amount: Money,
    /// Who asked for it, and why: for people who look into it later.
    pub who: String,
    pub why: String,
    /// Unix milliseconds, UTC.
    pub created_ms: i64,
}

/// `Sending -> Done | Accepted | Refused | NotSent | Unknown -> ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The request may have left. After a crash this is `Unknown`.
    Sending,
    /// The gateway's reference for it.
    Done(String),
    /// Taken in; the gateway decides later and tells it elsewhere. Its reference.
    Accepted(String),
    Refused(String),
    /// Nothing was changed.
    NotSent(String),
    /// No definitive answer.
    Unknown(String),
    /// A person must look it up at the gateway.
    Manual(String),
}

impl Progress {
    pub fn name(&self) -> &'static str {
        match self {
            Progress::Sending => "sending",
            Progress::Done(_) => "done",
            Progress::Accepted(_) => "accepted",
            Progress::Refused(_) => "refused",
            Progress::NotSent(_) => "not_sent",
            Progress::Unknown(_) => "unknown",
            Progress::Manual(_) => "manual",
        }
    }

    /// Reference or reason.
    pub fn detail(&self) -> &str {
        match self {
            Progress::Sending => "",
            Progress::Done(text)
            | Progress::Accepted(text)
            | Progress::Refused(text)
            | Progress::NotSent(text)
            | Progress::Unknown(text)
            | Progress::Manual(text) => text,
        }
    }

    /// Reads what [`Progress::name`] and [`Progress::detail`] gave.
    pub fn parse(name: &str, detail: &str) -> Option<Progress> {
        let detail = detail.to_string();
        Some(match name {
            "sending" => Progress::Sending,
            "done" => Progress::Done(detail),
            "accepted" => Progress::Accepted(detail),
            "refused" => Progress::Refused(detail),
            "not_sent" => Progress::NotSent(detail),
            "unknown" => Progress::Unknown(detail),
            "manual" => Progress::Manual(detail),
            _ => return None,
        })
    }

    /// The money went back, as far as anybody knows.
    pub fn took_effect(&self) -> bool {
        matches!(self, Progress::Done(_) | Progress::Accepted(_))
    }

    /// Money may move without our knowing: nothing else is done to the payment meanwhile.
    pub fn is_open(&self) -> bool {
        matches!(self, Progress::Sending | Progress::Unknown(_) | Progress::Manual(_))
    }

    /// Names of the states `self` may follow.
    pub fn predecessors(&self) -> &'static [&'static str] {
        match self {
            Progress::Sending => &[],
            Progress::Unknown(_) => &["sending"],
            Progress::Manual(_) => &["unknown"],
            Progress::NotSent(_) => &["sending"],
            Progress::Done(_) | Progress::Accepted(_) | Progress::Refused(_) => {
                &["sending", "unknown", "manual"]
            }
        }
    }
}

impl From<Modified> for Progress {
    fn from(modified: Modified) -> Progress {
        match modified {
            Modified::Done(reference) => Progress::Done(reference),
            Modified::Accepted(reference) => Progress::Accepted(reference),
            Modified::Refused(why) => Progress::Refused(why),
            // Both say for certain that nothing was processed.
            Modified::NotSent(why) | Modified::Config(why) => Progress::NotSent(why),
            Modified::Unknown(why) => Progress::Unknown(why),
        }
    }
}

/// Whether `act` may be asked for: the amount it is about (all that is left without `amount`), or
/// why not, in words for who asked. `undone` is what went back before.
pub fn may_change(
    (intent, state): (&Intent, &State),
    undone: Money,
    act: Undo,
    amount: Option<Money>,
) -> Result<Money, String> {
    let taken = match state {
        State::Held(_, Some(approval)) => approval.partial.or(intent.total()),
        _ => state.approval().and(intent.total()),
    };
    let Some(taken) = taken else {
        return Err(format!("the payment is {}: there is nothing to give back", state.name()));
    };
    let left = Money::new(taken.minor - undone.minor, taken.currency);
    match (act, amount) {
        (Undo::Represented, _) if undone.is_positive() => Ok(undone),
        (Undo::Represented, _) => Err("none of it was returned".into()),
        _ if !left.is_positive() => Err("all of it was given back before".into()),
        (Undo::Void, _) if undone.is_positive() => {
            Err(format!("{undone} was refunded before: refund the rest, {left}"))
        }
        (Undo::Void, Some(part)) if part != taken => {
            Err("a void undoes all of a payment: refund a part once it has settled".into())
        }
        (_, Some(part)) if !part.is_positive() || part.minor > left.minor => {
            Err(format!("no more than {left} can be given back"))
        }
        (_, amount) => Ok(amount.unwrap_or(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::gateway::Approval;

    #[test]
    fn no_more_goes_back_than_came() {
        let intent = sample::intent(1, "A1");
        let posted = State::Posted(sample::approval());
        let part = Approval { partial: Some(Money::usd(5_000)), ..sample::approval() };
        let held = State::Held("part".into(), Some(part));
        let (void, refund) = (Undo::Void, Undo::Refund);
        for (state, undone, act, amount, want) in [
            (&posted, 0, void, None, Ok(32_372)),
            (&posted, 0, refund, None, Ok(32_372)),
            (&posted, 0, refund, Some(100), Ok(100)),
            (&posted, 300, refund, None, Ok(32_072)),
            (&posted, 300, refund, Some(32_073), Err("no more than $320.72")),
            (&posted, 300, void, None, Err("$3.00 was refunded before")),
            (&posted, 32_372, refund, None, Err("was given back before")),
            (&posted, 0, refund, Some(0), Err("no more than")),
            (&posted, 0, void, Some(100), Err("a void undoes all")),
            (&held, 0, void, None, Ok(5_000)),
            (&State::Held("review".into(), None), 0, void, None, Err("the payment is held")),
            (&State::Declined("no".into()), 0, refund, None, Err("the payment is declined")),
            (&State::Unknown("?".into()), 0, void, None, Err("the payment is unknown")),
        ] {
            let amount = amount.map(Money::usd);
            let got = may_change((&intent, state), Money::usd(undone), act, amount);
            match (got, want) {
                (Ok(got), Ok(want)) => assert_eq!(got, Money::usd(want)),
                (Err(why), Err(want)) => assert!(why.contains(want), "{why}"),
                (got, want) => panic!("{got:?} instead of {want:?}"),
            }
        }
    }

    #[test]
    fn names_are_read_back() {
        for progress in [
            Progress::Sending,
            Progress::Done("r".into()),
            Progress::Accepted("r".into()),
            Progress::Refused("w".into()),
            Progress::NotSent("w".into()),
            Progress::Unknown("w".into()),
            Progress::Manual("w".into()),
        ] {
            assert_eq!(Progress::parse(progress.name(), progress.detail()), Some(progress));
        }
        assert_eq!(Progress::parse("done ", ""), None);
        for undo in Undo::ALL {
            assert_eq!(Undo::parse(undo.name()), Some(undo));
        }
    }
}
