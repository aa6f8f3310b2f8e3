//! What a caller agrees to pay: for which accounts, with which means, and its fee.

use super::Desk;
use super::authorisation::Authorisation;
use super::later::Once;
use super::later::plan::Plan;
use super::several::Bill;
use super::tender::Tender;
use crate::instrument::{Fingerprint, Last4, Means};
use crate::ledger::{Allocation, Consent, FeeFailure};
use crate::money::Money;

/// What is to be paid, and what with.
pub(super) struct Order {
    pub(super) account_id: String,
    /// Of several accounts what is for each; else empty.
    pub(super) allocations: Vec<Allocation>,
    pub(super) amount: Money,
    pub(super) fee: Money,
    pub(super) total: Money,
    /// The fee is a charge of its own, and what becomes of the bill if it fails.
    pub(super) apart: Option<FeeFailure>,
    /// The fee is a surcharge.
    pub(super) surcharge: bool,
    pub(super) means: Means,
    pub(super) last4: Last4,
    pub(super) fingerprint: Fingerprint,
    pub(super) issuer: Option<Fingerprint>,
    /// Of a debit; without it none is made.
    pub(super) authorisation: Option<Authorisation>,
    /// The card is to be kept, as its holder agreed.
    pub(super) keep: Option<Consent>,
    /// It is the first payment of a plan.
    pub(super) plan: Option<Plan>,
    /// It is charged on a later date, and only verified today.
    pub(super) once: Option<Once>,
}

impl Order {
    /// `None` when amount and fee cannot be added.
    pub(super) fn new(desk: &Desk, bill: &Bill, tender: &Tender) -> Option<Order> {
        let order = Order::of(desk, &bill.account.id, bill.amount, tender)?;
        Some(Order { allocations: bill.allocations.clone(), ..order })
    }

    /// The same for one account.
    pub(super) fn of(
        desk: &Desk,
        account_id: &str,
        amount: Money,
        tender: &Tender,
    ) -> Option<Order> {
        let surcharge = surcharge(desk, amount, tender)?;
        let fee = match surcharge.is_positive() {
            true => surcharge,
            false => desk.settings.fee(tender.means(), amount)?,
        };
        let surcharge = surcharge.is_positive();
        let apart = desk.settings.fee_apart().filter(|_| fee.is_positive());
        Some(Order {
            apart,
            surcharge,
            account_id: account_id.into(),
            allocations: Vec::new(),
            amount,
            fee,
            total: amount.checked_add(fee)?,
            means: tender.means(),
            last4: tender.last4(),
            fingerprint: tender.fingerprint(desk),
            issuer: tender.issuer(desk),
            authorisation: None,
            keep: None,
            plan: None,
            once: None,
        })
    }

    /// Only the first payment of the plan is made now.
    pub(super) fn divided(&mut self, plan: Plan) -> Option<()> {
        (self.amount, self.fee, self.surcharge) = (plan.first, plan.fee, plan.surcharge);
        self.total = plan.first.checked_add(plan.fee)?;
        self.plan = Some(plan);
        Some(())
    }
}

/// What is put on the payment for its being by credit card; `None` if it does not fit.
fn surcharge(desk: &Desk, amount: Money, tender: &Tender) -> Option<Money> {
    match (&desk.settings.surcharge, tender) {
        (Some(settings), Tender::Card(card)) => settings.of(desk.bins.as_deref(), card, amount),
        _ => Some(Money::new(0, amount.currency)),
    }
}
