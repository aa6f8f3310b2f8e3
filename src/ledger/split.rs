//! How a payment and its fee hang together: one charge, or two of which the second is never made
//! without the first.

use super::{Intent, State};
use crate::money::Money;

/// What part an intent is of what its payer agreed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// All of it: amount and convenience fee in one charge.
    #[default]
    Total,
    /// All of it; what is called its fee is a surcharge.
    Surcharge,
    /// The bill: its fee is charged next, by itself.
    Bill { fee: Money, failure: FeeFailure },
    /// The fee of the bill of this id; it has no amount.
    FeeOf(String),
    /// None: a card was verified, to be charged later. It has neither amount nor fee.
    Verification,
}

/// What becomes of a bill whose fee could not be charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeeFailure {
    /// It is given back: nothing was charged.
    Void,
    /// It stands without its fee.
    Waive,
}

/// What a verification that was approved is: [`State::NotCharged`] for this reason.
pub const VERIFIED: &str = "its card was verified";

impl FeeFailure {
    const ALL: [FeeFailure; 2] = [FeeFailure::Void, FeeFailure::Waive];

    pub fn name(self) -> &'static str {
        match self {
            FeeFailure::Void => "void",
            FeeFailure::Waive => "waive",
        }
    }

    pub fn parse(name: &str) -> Option<FeeFailure> {
        FeeFailure::ALL.into_iter().find(|one| one.name() == name)
    }
}

impl Split {
    /// Of the bill it is the fee of.
    pub fn bill(&self) -> Option<&str> {
        match self {
            Split::FeeOf(bill) => Some(bill),
            _ => None,
        }
    }

    /// Whether an intent may come into a state: nobody pays by a verification, and what became of
    /// one is nobody's money.
    pub fn may_be(&self, state: &State) -> bool {
        let moneyless = matches!(
            state,
            State::Consented | State::Sending | State::Declined(_) | State::NotCharged(_)
        );
        moneyless || *self != Split::Verification
    }
}

/// Where a bill and its fee stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Not decided, by us or by a gateway.
    Open,
    /// The bill was not charged, and no fee.
    Neither,
    Both,
    /// The bill stands without its fee, as the biller wants it.
    Waived,
    /// The bill was given back, or is being given back, and has no fee.
    GivenBack,
    /// The bill must be given back, and nothing has been done about it.
    ToVoid,
}

/// What is to be known of the changes to a bill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Minor units that went back.
    pub minor: i64,
    /// A void or refund has no definitive answer.
    pub open: bool,
}

/// Where they stand, by the bill, its fee and what went back of the bill.
pub fn pairing(bill: &State, failure: FeeFailure, fee: &State, undone: Undone) -> Pairing {
    let received = bill.approval().is_some();
    match (bill, fee) {
        (State::Declined(_) | State::NotCharged(_), _) => Pairing::Neither,
        _ if !received => Pairing::Open,
        (_, State::Approved(_) | State::Posted(_)) => Pairing::Both,
        (_, State::Declined(_) | State::NotCharged(_)) => match failure {
            _ if undone.minor > 0 || undone.open => Pairing::GivenBack,
            FeeFailure::Waive => Pairing::Waived,
            FeeFailure::Void => Pairing::ToVoid,
        },
        _ => Pairing::Open,
    }
}

/// Whether a fee may be sent: its bill was charged, and nothing of it goes back.
pub fn may_charge_fee(bill: &State, undone: Undone) -> bool {
    bill.approval().is_some() && undone == Undone::default()
}

/// Whether all of a bill may be given back: not while its fee stands or is on its way. Why not, in
/// words for who asked; `undone`: of the fee.
pub fn may_give_back((fee, state): (&Intent, &State), undone: Undone) -> Result<(), String> {
    let number = &fee.confirmation;
    match state {
        State::Consented | State::Declined(_) | State::NotCharged(_) => Ok(()),
        State::Approved(_) | State::Posted(_) => {
            let total = fee.total().map_or(i64::MAX, |total| total.minor);
            match undone.minor >= total {
                true => Ok(()),
                false => Err(format!(
                    "its fee, {}, was charged by itself as {number}: give that back first",
                    fee.fee
                )),
            }
        }
        State::Sending | State::Unknown(_) | State::Held(..) | State::Manual => Err(format!(
            "its fee, {number}, is {}: wait for the outcome, or settle it first",
            state.name()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_bill_and_its_fee_end_together() {
        let approved = State::Approved(sample::approval());
        let posted = State::Posted(sample::approval());
        let declined = State::Declined("no".into());
        let gone = State::NotCharged("absent".into());
        let unknown = State::Unknown("?".into());
        let held = State::Held("review".into(), None);
        let (void, waive) = (FeeFailure::Void, FeeFailure::Waive);
        let none = Undone::default();
        let (back, going) = (Undone { minor: 5, open: false }, Undone { minor: 0, open: true });
        for (bill, failure, fee, undone, want) in [
            (&declined, void, &gone, none, Pairing::Neither),
            (&gone, waive, &State::Consented, none, Pairing::Neither),
            (&unknown, void, &gone, none, Pairing::Open),
            (&held, void, &gone, none, Pairing::Open),
            (&approved, void, &State::Consented, none, Pairing::Open),
            (&approved, void, &unknown, none, Pairing::Open),
            (&posted, waive, &held, none, Pairing::Open),
            (&approved, void, &approved, none, Pairing::Both),
            (&posted, waive, &posted, none, Pairing::Both),
            (&approved, void, &declined, none, Pairing::ToVoid),
            (&posted, void, &gone, none, Pairing::ToVoid),
            (&approved, void, &declined, going, Pairing::GivenBack),
            (&posted, void, &gone, back, Pairing::GivenBack),
            (&approved, waive, &declined, none, Pairing::Waived),
            (&posted, waive, &gone, back, Pairing::GivenBack),
        ] {
            assert_eq!(pairing(bill, failure, fee, undone), want, "{bill:?} {failure:?} {fee:?}");
        }
    }

    #[test]
    fn no_fee_without_its_bill() {
        let approved = State::Approved(sample::approval());
        let none = Undone::default();
        assert!(may_charge_fee(&approved, none));
        assert!(!may_charge_fee(&State::Sending, none));
        assert!(!may_charge_fee(&State::Unknown("?".into()), none));
        assert!(!may_charge_fee(&approved, Undone { minor: 1, open: false }));
        assert!(!may_charge_fee(&approved, Undone { minor: 0, open: true }));
        let fee = Intent {
            amount: Money::usd(0),
            split: Split::FeeOf("intent-1".into()),
            ..sample::intent(2, "A1")
        };
        let may = |state: State, minor| {
            may_give_back((&fee, &state), Undone { minor, open: false }).err().unwrap_or_default()
        };
        for state in [State::Consented, State::Declined("no".into())] {
            assert_eq!(may(state, 0), "");
        }
        assert!(may(approved.clone(), 0).contains("give that back first"));
        assert!(may(approved.clone(), 199).contains("give that back first"));
        assert_eq!(may(approved, 200), "");
        for state in [State::Sending, State::Unknown("?".into()), State::Manual] {
            assert!(may(state, 0).contains("settle it first"));
        }
    }
}
