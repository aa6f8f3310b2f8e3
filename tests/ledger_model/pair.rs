//! A bill that was charged and its fee that was not: given back, or left to stand by a person.

use rand::RngExt;
use rand::rngs::StdRng;
use ringtill::instrument::{Brand, Fingerprint, Last4, Means};
use ringtill::ledger::{Entry, FeeFailure, Intent, Origin, Recorded, Split, State};
use ringtill::money::Money;

use super::{BILLER, Bench, Model, approval, number};

impl Model {
    /// Bills that were charged and whose fees were not.
    pub fn without_fee(&self) -> Vec<String> {
        let fees = self.payments.values().filter(|one| {
            let name = one.state.name();
            ["declined", "not_charged"].contains(&name) && one.intent.split.bill().is_some()
        });
        let bills = fees.filter_map(|one| self.payments.get(one.intent.split.bill()?));
        let bills = bills.filter(|bill| bill.state.approval().is_some());
        bills.map(|bill| bill.intent.id.clone()).collect()
    }

    fn waive(&mut self, id: &str, now_ms: i64) -> bool {
        let without = self.without_fee().iter().any(|bill| bill == id);
        let Some(payment) = self.payments.get_mut(id).filter(|_| without) else { return false };
        let open = ["sending", "unknown", "manual"];
        let going = payment.changes.iter().any(|one| open.contains(&one.progress.name()));
        let Split::Bill { failure: failure @ FeeFailure::Void, .. } = &mut payment.intent.split
        else {
            return false;
        };
        if going || payment.undone != 0 {
            return false;
        }
        *failure = FeeFailure::Waive;
        payment.stands = true;
        payment.go(payment.state.clone(), now_ms);
        self.waived += 1;
        true
    }
}

impl Bench {
    /// A person lets a bill stand without its fee; twice at once, at times.
    pub async fn waive(&mut self, rng: &mut StdRng) {
        if self.model.without_fee().len() < 3 {
            self.pair(rng).await;
        }
        let without = self.model.without_fee();
        let id = match without.len() {
            some if some > 0 && rng.random_bool(0.8) => without[rng.random_range(0..some)].clone(),
            _ => self.some_payment(rng),
        };
        let Some(payment) = self.model.payments.get(&id) else { return };
        let intent = payment.intent.clone();
        for _ in 0..rng.random_range(1..3) {
            match self.store.waive_fee(&intent, "by ann: kind", self.now_ms).await {
                Err(_) => self.tally.failed += 1,
                Ok(told) => {
                    assert_eq!(told.is_ok(), self.model.waive(&id, self.now_ms), "{id}: {told:?}");
                }
            }
        }
    }

    /// A bill is charged and its fee is refused, as far as the disk lets them.
    async fn pair(&mut self, rng: &mut StdRng) {
        self.serial += 2;
        let none = Money::usd(0);
        let (fee, failure) = (Money::usd(200), FeeFailure::Void);
        let bill = Intent {
            id: format!("i{:04}", self.serial - 1),
            confirmation: number(self.serial - 1),
            biller: BILLER.into(),
            account_id: format!("A{}", rng.random_range(0..4)),
            amount: Money::usd(1_000),
            allocations: Vec::new(),
            fee: none,
            split: Split::Bill { fee, failure },
            means: Means::Card(Brand::Visa),
            last4: Last4::parse("1111").unwrap(),
            fingerprint: Fingerprint::parse(&"c".repeat(32)),
            gateway: "bogus".into(),
            call_id: "call".into(),
            origin: Origin::default(),
            created_ms: self.now_ms,
        };
        let split = Split::FeeOf(bill.id.clone());
        let (id, confirmation) = (format!("i{:04}", self.serial), number(self.serial));
        let fee = Intent { id, confirmation, amount: none, fee, split, ..bill.clone() };
        for intent in [&bill, &fee] {
            let entry = Entry::Consent(Box::new(intent.clone()));
            let told = self.store.record(entry, self.now_ms).await;
            self.told(told, |model, now_ms| model.consent(intent, now_ms));
        }
        for (id, to) in [
            (&bill.id, State::Sending),
            (&bill.id, State::Approved(approval("r1"))),
            (&fee.id, State::Sending),
            (&fee.id, State::Declined("no".into())),
        ] {
            let entry = Entry::Move { id: id.clone(), to: to.clone() };
            let told: Recorded = self.store.record(entry, self.now_ms).await;
            self.told(told, |model, now_ms| model.step(id, &to, now_ms));
        }
    }
}
