//! One payment for several accounts: what of it is for each.

use super::Intent;
use crate::money::Money;

/// What of a payment is for one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    pub account_id: String,
    pub amount: Money,
}

/// Each account of a payment and what is for it: its one account, unless it has allocations.
pub fn parts<'a>(
    account_id: &'a str,
    amount: Money,
    allocations: &'a [Allocation],
) -> impl Iterator<Item = (&'a str, Money)> {
    let single = allocations.is_empty().then_some((account_id, amount));
    let several = allocations.iter().map(|one| (&*one.account_id, one.amount));
    single.into_iter().chain(several)
}

impl Intent {
    /// The accounts it pays and what for each, fees left out; the first is `account_id`.
    pub fn parts(&self) -> impl Iterator<Item = (&str, Money)> {
        parts(&self.account_id, self.amount, &self.allocations)
    }

    /// Whether it pays for an account, and how much.
    pub fn part_of(&self, account_id: &str) -> Option<Money> {
        self.parts().find(|(of, _)| *of == account_id).map(|(_, amount)| amount)
    }

    /// Whether its allocations are of different accounts, the first one its own, and all of its
    /// amount: anything else must not be charged.
    pub fn is_allocated(&self) -> bool {
        let Some(first) = self.allocations.first() else { return true };
        let zero = Money::new(0, self.amount.currency);
        let sum = self.allocations.iter().try_fold(zero, |sum, one| sum.checked_add(one.amount));
        let mut accounts: Vec<&str> = self.allocations.iter().map(|one| &*one.account_id).collect();
        accounts.sort_unstable();
        accounts.dedup();
        accounts.len() == self.allocations.len()
            && accounts.len() > 1
            && first.account_id == self.account_id
            && self.allocations.iter().all(|one| one.amount.is_positive())
            && sum == Some(self.amount)
            && self.split.bill().is_none()
    }
}

/// What of `back`, given back after `before` was, is taken off each account: off the first until
/// nothing of it is left, then off the next. More than all of them goes off the last.
pub fn given_back(parts: &[Money], before: Money, back: Money) -> Vec<Money> {
    let (from, to) = (before.minor, before.minor.saturating_add(back.minor));
    let mut start = 0_i64;
    let cut = parts.iter().enumerate().map(|(nth, part)| {
        let last = nth + 1 == parts.len();
        let end = if last { i64::MAX } else { start.saturating_add(part.minor) };
        let taken = to.clamp(start, end) - from.clamp(start, end);
        start = end;
        Money::new(taken, back.currency)
    });
    cut.collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::ledger::Split;

    fn of(parts: &[(&str, i64)]) -> Intent {
        let allocation = |(account, minor): &(&str, i64)| Allocation {
            account_id: (*account).into(),
            amount: Money::usd(*minor),
        };
        let allocations = parts.iter().map(allocation).collect();
        let amount = Money::usd(parts.iter().map(|(_, minor)| minor).sum());
        Intent { amount, allocations, ..sample::intent(1, "A1") }
    }

    #[test]
    fn a_payment_is_for_all_of_its_accounts() {
        let one = sample::intent(1, "A1");
        assert!(one.is_allocated());
        assert_eq!(one.parts().collect::<Vec<_>>(), [("A1", Money::usd(32_172))]);
        let two = of(&[("A1", 1_000), ("A2", 500)]);
        assert!(two.is_allocated());
        assert_eq!(two.part_of("A2"), Some(Money::usd(500)));
        assert_eq!(two.part_of("A3"), None);
        for wrong in [
            of(&[("A1", 1_000)]),
            of(&[("A2", 1_000), ("A1", 500)]),
            of(&[("A1", 1_000), ("A1", 500)]),
            of(&[("A1", 1_000), ("A2", 0)]),
            of(&[("A1", 1_000), ("A2", 500), ("A2", 1)]),
            Intent { amount: Money::usd(1_499), ..two.clone() },
            Intent { split: Split::FeeOf("intent-2".into()), ..two.clone() },
        ] {
            assert!(!wrong.is_allocated(), "{:?}", wrong.allocations);
        }
    }

    /// Whatever goes back in whatever pieces, each account gives back what it was paid and no more.
    #[test]
    fn what_goes_back_comes_off_one_account_after_the_other() {
        let parts = [1_000, 500, 250].map(Money::usd);
        for (pieces, want) in [
            (vec![1_750], vec![[1_000, 500, 250]]),
            (vec![600, 600, 550], vec![[600, 0, 0], [400, 200, 0], [0, 300, 250]]),
            // The fee of the payment, last.
            (vec![1_750, 200], vec![[1_000, 500, 250], [0, 0, 200]]),
            (vec![1_499, 1, 1], vec![[1_000, 499, 0], [0, 1, 0], [0, 0, 1]]),
        ] {
            let mut before = 0;
            for (back, want) in pieces.into_iter().zip(want) {
                let cut = given_back(&parts, Money::usd(before), Money::usd(back));
                assert_eq!(cut, want.map(Money::usd), "{back} after {before}");
                before += back;
            }
        }
    }
}
