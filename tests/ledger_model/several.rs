//! Payments for several accounts, cent by cent.

use rand::RngExt;
use rand::rngs::StdRng;
use ringtill::ledger::{Allocation, Intent};
use ringtill::money::Money;

use super::{BILLER, Bench, Model};

/// The accounts of a payment with what is for each, in minor units.
pub fn accounts(intent: &Intent) -> Vec<(String, i64)> {
    match intent.allocations.len() {
        0 => vec![(intent.account_id.clone(), intent.amount.minor)],
        _ => intent
            .allocations
            .iter()
            .map(|one| (one.account_id.clone(), one.amount.minor))
            .collect(),
    }
}

/// Whether two payments are for one account.
pub fn meet(one: &Intent, other: &Intent) -> bool {
    let theirs = accounts(other);
    accounts(one).iter().any(|(account, _)| theirs.iter().any(|(other, _)| other == account))
}

/// What a payment of these accounts gives back of each, when `back` goes after `before` went: one
/// cent after the other, off the first account that has one left.
pub fn taken_off(accounts: &[(String, i64)], before: i64, back: i64) -> Vec<i64> {
    let mut off = vec![0; accounts.len()];
    for cent in before..before + back {
        let (mut at, mut end) = (0, accounts[0].1);
        while cent >= end && at + 1 < accounts.len() {
            at += 1;
            end += accounts[at].1;
        }
        off[at] += 1;
    }
    off
}

/// Some payment for two or three accounts; now and then one that contradicts itself.
pub fn allocated(rng: &mut StdRng, intent: Intent) -> Intent {
    let count = rng.random_range(2..4);
    let first = rng.random_range(0..4);
    let mut allocations: Vec<Allocation> = (0..count)
        .map(|nth| Allocation {
            account_id: format!("A{}", (first + nth) % 4),
            amount: Money::usd(rng.random_range(1..3) * 1_000),
        })
        .collect();
    let amount = Money::usd(allocations.iter().map(|one| one.amount.minor).sum());
    let account_id = allocations[0].account_id.clone();
    match rng.random_range(0..16) {
        0 => allocations[1].account_id = allocations[0].account_id.clone(),
        1 => allocations[1].amount = Money::usd(1),
        2 => allocations.swap(0, 1),
        3 => allocations.truncate(1),
        _ => {}
    }
    Intent { account_id, amount, allocations, ..intent }
}

/// Whether what is for each account can be right.
pub fn adds_up(intent: &Intent) -> bool {
    let accounts = accounts(intent);
    let mut names: Vec<&String> = accounts.iter().map(|(account, _)| account).collect();
    names.sort();
    names.dedup();
    intent.allocations.len() != 1
        && names.len() == accounts.len()
        && accounts[0].0 == intent.account_id
        && accounts.iter().map(|(_, minor)| minor).sum::<i64>() == intent.amount.minor
}

impl Model {
    /// What was paid for an account since then and has not gone back, fees left out.
    fn received(&self, account: &str, since_ms: i64) -> i64 {
        let mut received = 0;
        for payment in self.payments.values() {
            let counts = ["approved", "posted"].contains(&payment.state.name())
                && payment.intent.created_ms >= since_ms;
            if !counts {
                continue;
            }
            let accounts = accounts(&payment.intent);
            let off = taken_off(&accounts, 0, payment.undone.max(0));
            let of = accounts.iter().zip(off).filter(|((of, _), _)| of == account);
            received += of.map(|((_, minor), off)| (minor - off).max(0)).sum::<i64>();
        }
        received
    }
}

impl Bench {
    pub async fn compare_received(&mut self, rng: &mut StdRng, at: &str) {
        // To count cents takes long.
        if !rng.random_ratio(1, 16) {
            return;
        }
        let account = format!("A{}", rng.random_range(0..4));
        let since_ms = self.now_ms - rng.random_range(0..20_000_000);
        let told = self.store.received((BILLER, &account), since_ms).await.unwrap();
        assert_eq!(told, self.model.received(&account, since_ms), "{at} {account}");
    }
}
