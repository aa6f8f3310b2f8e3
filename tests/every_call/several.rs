//! Several accounts in one payment: each was found on this call, what is for each was said before
//! the total was accepted, and the ledger has just that.

use ringtill::dialogue::Question;
use ringtill::ledger::Intent;
use ringtill::payment::Note;
use ringtill::prompt::Prompt;

use super::World;

/// What is known of the accounts of a call.
#[derive(Default)]
pub struct Several {
    /// The caller wants to pay another account, and is asked for it.
    another: bool,
    /// What was said of each account before the total was accepted: its number and minor units.
    agreed: Vec<(String, i64)>,
    /// What was said last that they are together, since an amount was asked for: minor units.
    together: Option<i64>,
}

impl World<'_> {
    /// A good caller wants one more account, and then no other.
    pub fn another_account(&self) -> &'static [&'static str] {
        let asked = self.asked.iter().filter(|name| **name == "several").count();
        if asked == 1 { &["1", "2"] } else { &["2", "1"] }
    }

    pub fn account(&self) -> &'static [&'static str] {
        if self.several.another { &["1002", "1001", "9999"] } else { &["1001", "9999"] }
    }

    /// The caller hears what the accounts are together.
    pub fn hear_together(&mut self, prompts: &[Prompt]) {
        for said in prompts.windows(2) {
            if let [Prompt::Phrase("several.together"), Prompt::Amount(total)] = said {
                self.several.together = Some(total.minor);
            }
        }
    }

    /// What was added stays until the caller goes back over it.
    pub fn check_together(&mut self, question: &Question, went_back: Option<&str>) {
        let Some(total) = self.several.together else { return };
        if went_back == Some("card") {
            let full = self.scene.settings.max_payment.minor == total;
            assert_eq!(question.name, if full { "choice" } else { "several" }, "not what is paid");
        }
        match question.name {
            // Another amount.
            "choice" | "amount" => self.several.together = None,
            "consent" => {
                let parts = told(&question.notice);
                let sum: i64 = parts.iter().map(|(_, minor)| minor).sum();
                assert_eq!(sum, total, "an account was lost: {:?}", self.choices.path);
            }
            _ => {}
        }
    }

    pub fn several(&mut self, question: &Question, keyed: Option<&str>) {
        match (question.name, keyed) {
            ("several", keyed) => self.several.another = keyed == Some("1"),
            ("consent", Some("1")) => self.several.agreed = told(&question.notice),
            _ => {}
        }
    }

    /// The charge is for the accounts that its payer agreed to.
    pub fn check_allocated(&self, intent: &Intent) {
        assert!(intent.is_allocated(), "{intent:?}");
        let parts = intent.allocations.iter();
        let parts = parts.map(|one| (one.account_id.clone(), one.amount.minor));
        let parts: Vec<_> = parts.collect();
        let bill = intent.split.bill().is_none();
        assert!(!bill || parts == self.several.agreed, "{parts:?} {:?}", self.several.agreed);
        let most = self.scene.settings.max_payment.minor;
        assert!(parts.is_empty() || intent.amount.minor <= most, "more than is taken at once");
        for (account, minor) in &parts {
            let found = |note: &Note| match note {
                Note::Identified { account: one, .. } => one == account,
                _ => false,
            };
            assert!(self.noted.iter().any(found), "{account} is nobody's on this call");
            let due = self.scene.accounts.iter().find(|one| one.id == *account);
            assert!(due.is_some_and(|one| one.may.pay_by_card), "{account} by card");
            let due = due.map(|one| one.amount_due.minor);
            assert!(*minor == 2_500 || Some(*minor) == due, "{minor} was never chosen");
        }
        let may = self.scene.settings.several_accounts;
        assert!(parts.is_empty() || may, "several accounts against the biller's will");
    }
}

/// What a notice says of each account.
fn told(notice: &[Prompt]) -> Vec<(String, i64)> {
    let mut parts = Vec::new();
    for said in notice.windows(3) {
        if let [Prompt::Phrase("several.account"), Prompt::Digits(id), Prompt::Amount(of)] = said {
            parts.push((id.clone(), of.minor));
        }
    }
    parts
}
