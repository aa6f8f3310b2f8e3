//! What is arranged for later, in the model and in the ledger.

use rand::RngExt;
use rand::rngs::StdRng;
use ringtill::instrument::{Brand, Expiry, Fingerprint, Last4, Means, Token};
use ringtill::ledger::arrangement::{Agreement, CARD_DROPPED, Kind, intent_id};
use ringtill::ledger::card::FirstCharge;
use ringtill::ledger::{
    Arrangement, Consent, Entry, Instalment, Intent, Origin, Recorded, SavedCard, Split, State,
};
use ringtill::money::Money;
use ringtill::server::store::arrangement::due::{Due, Next};

use super::{BILLER, Bench, Model, OPEN, number};

/// Money may move or have moved: nobody knows yet.
fn undecided(state: &str) -> bool {
    OPEN.contains(&state) || ["held", "manual"].contains(&state)
}

/// Cards and what is arranged with them.
#[derive(Default)]
pub struct Book {
    cards: Vec<Card>,
    all: Vec<Arranged>,
}

struct Card {
    id: String,
    account: String,
    letter: &'static str,
    kept: bool,
}

struct Arranged {
    id: String,
    number: String,
    account: String,
    card: String,
    kind: Kind,
    state: &'static str,
    why: String,
    instalments: Vec<One>,
}

#[derive(Clone, Debug, PartialEq)]
struct One {
    state: &'static str,
    attempt: i64,
    declines: i64,
    next_ms: i64,
    intent: String,
}

impl Arranged {
    fn end(&mut self, state: &'static str, why: &str) {
        (self.state, self.why) = (state, why.into());
        let waiting = self.instalments.iter_mut().filter(|one| one.state == "waiting");
        waiting.filter(|one| one.intent.is_empty()).for_each(|one| one.state = "void");
    }
}

impl Model {
    fn keep(&mut self, card: &SavedCard, letter: &'static str) -> Recorded {
        let book = &mut self.book;
        if book.cards.iter().any(|one| one.id == card.id) {
            return Recorded::Conflict;
        }
        let same =
            |one: &&mut Card| one.kept && one.account == card.account_id && one.letter == letter;
        if let Some(old) = book.cards.iter_mut().find(same) {
            old.kept = false;
            let theirs = book.all.iter_mut().filter(|one| one.state == "active");
            theirs.filter(|one| one.card == old.id).for_each(|one| one.card = card.id.clone());
        }
        let (id, account) = (card.id.clone(), card.account_id.clone());
        book.cards.push(Card { id, account, letter, kept: true });
        Recorded::Stored
    }

    fn forget(&mut self, id: &str) -> Recorded {
        let found = self.book.cards.iter_mut().find(|card| card.id == id && card.kept);
        let Some(card) = found else { return Recorded::Illegal };
        card.kept = false;
        let theirs = self.book.all.iter_mut().filter(|one| one.state == "active");
        theirs.filter(|one| one.card == id).for_each(|one| one.end("stopped", CARD_DROPPED));
        Recorded::Stored
    }

    fn arrange(&mut self, new: &Arrangement) -> Recorded {
        let kept = |card: &Card| card.id == new.card && card.kept && card.account == new.account_id;
        if !self.book.cards.iter().any(kept) {
            return Recorded::Illegal;
        }
        let taken = self.book.all.iter().any(|one| {
            one.id == new.id
                || one.number == new.number
                || (one.state == "active"
                    && (&one.account, one.kind) == (&new.account_id, new.kind))
        });
        if taken {
            return Recorded::Conflict;
        }
        let one = |instalment: &Instalment| One {
            state: "waiting",
            attempt: 0,
            declines: 0,
            next_ms: instalment.at_ms,
            intent: String::new(),
        };
        self.book.all.push(Arranged {
            id: new.id.clone(),
            number: new.number.clone(),
            account: new.account_id.clone(),
            card: new.card.clone(),
            kind: new.kind,
            state: "active",
            why: String::new(),
            instalments: new.instalments.iter().map(one).collect(),
        });
        Recorded::Stored
    }

    fn cancel(&mut self, id: &str) -> Recorded {
        let payments = &self.payments;
        let open = |one: &One| {
            one.state == "waiting"
                && payments.get(&one.intent).is_some_and(|it| undecided(it.state.name()))
        };
        let found = self.book.all.iter_mut().find(|one| one.id == id && one.state == "active");
        match found {
            Some(one) if !one.instalments.iter().any(open) => {
                one.end("cancelled", "asked");
                Recorded::Stored
            }
            _ => Recorded::Illegal,
        }
    }

    fn begin_instalment(&mut self, due: &Due, intent: &Intent, now_ms: i64) -> Recorded {
        let at = self.book.all.iter().position(|one| one.id == due.arrangement).unwrap();
        let arranged = &self.book.all[at];
        let one = &arranged.instalments[due.position as usize - 1];
        let fits = (one.state, one.attempt, &*one.intent) == ("waiting", due.attempt, "");
        if arranged.state != "active" || !fits {
            return Recorded::Illegal;
        }
        const DAYS_30_MS: i64 = 30 * 86_400_000;
        let open = self.payments.values().any(|payment| {
            let name = payment.state.name();
            let recent = payment.intent.created_ms > now_ms - DAYS_30_MS;
            super::several::meet(&payment.intent, intent)
                && (OPEN.contains(&name) || (undecided(name) && recent))
        });
        if open {
            return Recorded::Conflict;
        }
        let told = self.consent(intent, now_ms);
        if told == Recorded::Stored {
            let one = &mut self.book.all[at].instalments[due.position as usize - 1];
            one.intent.clone_from(&intent.id);
        }
        told
    }

    fn end_attempt(&mut self, due: &Due, next: &Next) -> bool {
        let arranged = self.book.all.iter_mut().find(|one| one.id == due.arrangement).unwrap();
        let one = &mut arranged.instalments[due.position as usize - 1];
        let intent = due.intent.as_deref().unwrap_or_default();
        if (one.state, one.attempt, &*one.intent) != ("waiting", due.attempt, intent) {
            return false;
        }
        one.attempt += 1;
        match next {
            Next::Paid => one.state = "paid",
            Next::Skipped(_) => one.state = "skipped",
            Next::Stopped(_) => one.state = "failed",
            Next::Declined { .. } | Next::NotCharged { .. } if !due.active => one.state = "void",
            Next::Declined { again_ms } => {
                one.declines += 1;
                (one.next_ms, one.intent) = (*again_ms, String::new());
            }
            Next::NotCharged { again_ms, .. } => {
                (one.next_ms, one.intent) = (*again_ms, String::new());
            }
        }
        let left = arranged.instalments.iter().any(|one| one.state == "waiting");
        let ends = matches!(next, Next::Paid | Next::Skipped(_)) && due.kind != Kind::AutoPay;
        match next {
            Next::Stopped(why) if arranged.state == "active" => arranged.end("stopped", why),
            _ if ends && !left && arranged.state == "active" => arranged.end("done", ""),
            _ => {}
        }
        true
    }
}

impl Bench {
    pub async fn later(&mut self, rng: &mut StdRng) {
        match rng.random_range(0..12) {
            0 | 1 => self.keep(rng).await,
            2 => self.forget(rng).await,
            3..=5 => self.arrange(rng).await,
            6 => self.cancel(rng).await,
            _ => self.charge_due(rng).await,
        }
    }

    async fn keep(&mut self, rng: &mut StdRng) {
        self.serial += 1;
        let letter = ["a", "b", "c"][rng.random_range(0..3)];
        let card = SavedCard {
            id: format!("k{:04}", self.serial - u64::from(rng.random_ratio(1, 12))),
            biller: BILLER.into(),
            account_id: format!("A{}", rng.random_range(0..4)),
            gateway: "bogus".into(),
            token: Token::parse("tok").unwrap(),
            brand: Brand::Visa,
            last4: Last4::parse("1111").unwrap(),
            expiry: Expiry::kept(2030, 9).unwrap(),
            fingerprint: Fingerprint::parse(&letter.repeat(32)).unwrap(),
            issuer: None,
            consent: Consent {
                said: Vec::new(),
                at_ms: self.now_ms,
                call_id: "call".into(),
                payment: String::new(),
            },
            first: FirstCharge::default(),
            created_ms: self.now_ms,
        };
        let told = self.store.record(Entry::Keep(Box::new(card.clone())), self.now_ms).await;
        self.told(told, |model, _| model.keep(&card, letter));
    }

    async fn forget(&mut self, rng: &mut StdRng) {
        let card = self.some_card(rng);
        let (who, why) = ("ann".into(), "lost".into());
        let entry = Entry::Drop { card: card.clone(), who, why };
        let told = self.store.record(entry, self.now_ms).await;
        self.told(told, |model, _| model.forget(&card));
    }

    async fn arrange(&mut self, rng: &mut StdRng) {
        self.serial += 1;
        let kinds = [Kind::Once, Kind::Plan, Kind::AutoPay];
        let kind = kinds[rng.random_range(0..3)];
        let card = self.some_card(rng);
        let owner = self.model.book.cards.iter().find(|one| one.id == card);
        let account = owner.map_or("A0".into(), |one| one.account.clone());
        let count = if kind == Kind::Plan { 3 } else { 1 };
        let start = jiff::civil::date(2026, 6, 1);
        let instalment = |position: i64| Instalment {
            position,
            due: start.checked_add(jiff::Span::new().days(position)).unwrap(),
            at_ms: self.now_ms + position * 30_000,
            amount: Money::usd(1_000),
            fee: Money::usd(200),
        };
        let arrangement = Arrangement {
            id: format!("r{:04}", self.serial - u64::from(rng.random_ratio(1, 12))),
            number: number(5_000 + self.serial - u64::from(rng.random_ratio(1, 12))),
            biller: BILLER.into(),
            account_id: account,
            card,
            kind,
            limit: Money::usd(1_200),
            agreement: Agreement { said: "x".into(), at_ms: self.now_ms, call_id: "c".into() },
            instalments: (1..=count).map(instalment).collect(),
            created_ms: self.now_ms,
        };
        let entry = Entry::Arrange(Box::new(arrangement.clone()));
        let told = self.store.record(entry, self.now_ms).await;
        self.told(told, |model, _| model.arrange(&arrangement));
    }

    async fn cancel(&mut self, rng: &mut StdRng) {
        let all = &self.model.book.all;
        let id = match all.len() {
            0 => "nobody".to_string(),
            some => all[some - 1 - rng.random_range(0..some.min(4))].id.clone(),
        };
        let (who, why) = ("ann".into(), "asked".into());
        let entry = Entry::Cancel { arrangement: id.clone(), who, why };
        let told = self.store.record(entry, self.now_ms).await;
        self.told(told, |model, _| model.cancel(&id));
    }

    /// What is due is the same in both; one of it is begun, or goes on as its payment says.
    async fn charge_due(&mut self, rng: &mut StdRng) {
        let Ok(due) = self.store.due(BILLER, self.now_ms, 1_000).await else {
            self.tally.failed += 1;
            return;
        };
        self.same_due(&due);
        if due.is_empty() {
            return;
        }
        let due = &due[rng.random_range(0..due.len())];
        let Some(id) = &due.intent else { return self.begin_due(due, rng).await };
        let again_ms = self.now_ms + rng.random_range(0..100_000);
        let next = match self.model.payments[id].state.name() {
            "approved" | "posted" => Next::Paid,
            "declined" if due.declines < 2 => Next::Declined { again_ms },
            "declined" => Next::Stopped("declined too often".into()),
            "not_charged" => Next::NotCharged { again_ms, why: "absent".into() },
            state => return self.go_on(&id.clone(), state == "consented", rng).await,
        };
        // At times somebody else has been faster.
        for _ in 0..rng.random_range(1..3) {
            match self.store.end_attempt(due, &next, self.now_ms).await {
                Err(_) => self.tally.failed += 1,
                Ok(told) => {
                    assert_eq!(told, self.model.end_attempt(due, &next), "{due:?} {next:?}");
                    self.tally.charged += usize::from(told && next == Next::Paid);
                }
            }
        }
    }

    /// Its payment goes on: sent, and answered one way or another.
    async fn go_on(&mut self, id: &str, consented: bool, rng: &mut StdRng) {
        let to = match rng.random_range(0..6) {
            _ if consented => State::Sending,
            0 => State::Declined("no".into()),
            1 => State::NotCharged("absent".into()),
            2 => State::Unknown("?".into()),
            _ => State::Approved(super::approval("r1")),
        };
        let entry = Entry::Move { id: id.into(), to: to.clone() };
        let told = self.store.record(entry, self.now_ms).await;
        self.told(told, |model, now_ms| model.step(id, &to, now_ms));
    }

    async fn begin_due(&mut self, due: &Due, rng: &mut StdRng) {
        self.serial += 1;
        let intent = Intent {
            id: intent_id(&due.arrangement, due.position, due.attempt),
            confirmation: number(self.serial - u64::from(rng.random_ratio(1, 12))),
            biller: BILLER.into(),
            account_id: due.account_id.clone(),
            amount: due.amount,
            allocations: Vec::new(),
            fee: due.fee,
            split: Split::Total,
            means: Means::Card(Brand::Visa),
            last4: Last4::parse("1111").unwrap(),
            fingerprint: Fingerprint::parse(&"a".repeat(32)),
            gateway: "bogus".into(),
            call_id: format!("later-{}", due.number),
            origin: Origin::default(),
            created_ms: self.now_ms,
        };
        let told = self.store.begin(due, &intent, self.now_ms).await;
        self.told(told, |model, now_ms| model.begin_instalment(due, &intent, now_ms));
    }

    fn same_due(&self, told: &[Due]) {
        let mut want = Vec::new();
        for arranged in &self.model.book.all {
            for (one, position) in arranged.instalments.iter().zip(1..) {
                if one.state == "waiting" && one.next_ms <= self.now_ms {
                    let active = arranged.state == "active";
                    want.push((arranged.id.clone(), position, one.clone(), active));
                }
            }
        }
        let one = |due: &Due| One {
            state: "waiting",
            attempt: due.attempt,
            declines: due.declines,
            next_ms: 0,
            intent: due.intent.clone().unwrap_or_default(),
        };
        let mut told: Vec<_> = told
            .iter()
            .map(|due| (due.arrangement.clone(), due.position, one(due), due.active))
            .collect();
        want.iter_mut().for_each(|(_, _, one, _)| one.next_ms = 0);
        let key = |all: &(String, i64, One, bool)| (all.0.clone(), all.1);
        told.sort_by_key(key);
        want.sort_by_key(key);
        assert_eq!(told, want);
    }

    /// Both hold the same, and what is paid was approved.
    pub async fn compare_later(&mut self, at: &str) {
        let told = self.store.list_arrangements(BILLER, None, true).await.unwrap();
        assert_eq!(told.len(), self.model.book.all.len(), "{at}");
        for want in &self.model.book.all {
            let listed = told.iter().find(|one| one.id == want.id).unwrap();
            assert_eq!((&*listed.state, &listed.number), (want.state, &want.number), "{at}");
            let why = listed.ended.as_ref().map_or("", |(_, why)| why);
            assert_eq!(why, want.why, "{at} {}", want.id);
            let states: Vec<&str> = listed.instalments.iter().map(|one| &*one.state).collect();
            let wanted: Vec<&str> = want.instalments.iter().map(|one| one.state).collect();
            assert_eq!(states, wanted, "{at} {}", want.id);
            for one in want.instalments.iter().filter(|one| one.state == "paid") {
                let state = self.model.payments[&one.intent].state.name();
                assert!(["approved", "posted"].contains(&state), "{at}: paid, and {state}");
            }
        }
    }

    fn some_card(&self, rng: &mut StdRng) -> String {
        let cards = &self.model.book.cards;
        match cards.len() {
            0 => "nobody".into(),
            some => cards[some - 1 - rng.random_range(0..some.min(6))].id.clone(),
        }
    }
}
