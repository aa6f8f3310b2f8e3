//! Whole calls over every gateway, drawn by seed: a caller who errs and hangs up at any question, a
//! processor that fails in any way, a ledger whose disk fails; then what the server does after the
//! call. `RINGTILL_SEED=<seed>` replays one, `RINGTILL_CALLS=<n>` makes n for each gateway.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringtill::account::{Account, Caller, May};
use ringtill::dialogue::{Heard, Question};
use ringtill::gateway::simulator::{Case, Fault, LATE_MS, Trigger};
use ringtill::gateway::{
    self, Charge, Exchange, Found, Initiator, Lookup, Operation, Purpose, Routes, Verdict,
};
use ringtill::instrument::{FingerprintKey, Instrument, Method, Saved};
use ringtill::ledger::journal::Journal;
use ringtill::ledger::{Entry, Recorded, State};
use ringtill::money::Money;
use ringtill::payment::{
    Desk, Fee, Flow, Outcome, Reply, Request, SavedSettings, Settings, Step, script,
};
use ringtill::prompt::Prompt;
use ringtill::secret::Keys;
use ringtill::server::resolver::ABSENT_AFTER_MS;

use super::bench::{NOW, Pair, ensure};

const CALLS: u64 = 4_000;
const STEPS_MAX: usize = 400;

#[test]
fn no_call_charges_twice_loses_an_approval_or_tells_what_is_not_so() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (one, calls) = (number("RINGTILL_SEED"), number("RINGTILL_CALLS").unwrap_or(CALLS));
    for name in gateway::NAMES {
        let mut tally = Tally::default();
        for seed in one.map_or(0..calls, |seed| seed..seed + 1) {
            if let Err(why) = run(name, seed, &mut tally) {
                panic!("{name}, RINGTILL_SEED={seed}: {why}");
            }
        }
        println!("{name:14} {tally:?}");
        // Otherwise nothing was tried.
        let found_out = tally.looked_up + tally.left > 0;
        let tried =
            tally.kept > 0 && tally.paid > 0 && tally.hung_up > 0 && tally.faults > 0 && found_out;
        assert!(one.is_some() || tried, "{name}: {tally:?}");
    }
}

/// What was seen.
#[derive(Debug, Default)]
struct Tally {
    calls: usize,
    paid: usize,
    pending: usize,
    hung_up: usize,
    faults: usize,
    disks: usize,
    /// Unknown after the call, and found out.
    looked_up: usize,
    /// Left to a person.
    left: usize,
    /// Cards kept for the next call.
    kept: usize,
}

/// Caller, ledger and processor of one call.
struct World<'a> {
    pair: Pair,
    rng: StdRng,
    journal: Journal,
    trigger: Trigger,
    account: Account,
    said: Vec<&'static str>,
    hung_up: bool,
    tally: &'a mut Tally,
}

fn run(name: &str, seed: u64, tally: &mut Tally) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let variants = gateway::variants(name);
    let pair = Pair::new(name, variants[rng.random_range(0..variants.len())].1);
    let case = Case::ALL[rng.random_range(0..Case::ALL.len())];
    let trigger = pair.simulator.trigger(case).filter(|trigger| !trigger.bank).unwrap_or_default();
    let fee = if trigger.minor.is_none() { 200 } else { 0 };
    let account = Account {
        id: "1001".into(),
        name_first: None,
        name_last: None,
        phones: vec!["+13175550123".into()],
        verify_zip: Some("46201".into()),
        amount_due: Money::usd(trigger.minor.unwrap_or(32_172)),
        past_due: None,
        min_payment: None,
        max_payment: None,
        due_date: None,
        may: May::default(),
    };
    let mut journal = Journal::new();
    if rng.random_range(0..5) == 0 {
        journal.fail_after(rng.random_range(0..6), rng.random_range(0..2) == 0);
        tally.disks += 1;
    }
    let desk = Desk {
        settings: Arc::new(Settings {
            fee: Fee::flat(Money::usd(fee)),
            min_payment: Money::usd(1),
            max_payment: Money::usd(100_000_000),
            saved: Some(SavedSettings::default()).filter(|_| rng.random_range(0..2) == 0),
            ..Settings::default()
        }),
        routes: Arc::new(Routes::one(pair.gateway.clone())),
        fingerprints: Arc::new(FingerprintKey::new(&[9; 32]).unwrap()),
        banks: None,
        bins: None,
        authorisations_recorded: false,
        caller_placed: true,
        caller: Caller { number: Some("+13175550123".into()), trusted: true, ..Caller::default() },
        trunk: "trunk".into(),
        call_id: "call".into(),
        agent: rng.random_range(0..2) == 0,
    };
    tally.calls += 1;
    let mut bytes = [0; 32];
    rng.fill(&mut bytes[..]);
    let said = Vec::new();
    let mut world = World { pair, rng, journal, trigger, account, said, hung_up: false, tally };
    let outcome = world.call(bytes, desk)?;
    world.after();
    world.check(&outcome)?;
    world.check_wallet()
}

impl World<'_> {
    fn call(&mut self, seed: [u8; 32], desk: Desk) -> Result<Outcome, String> {
        let mut flow = Flow::new(seed, |line| script(line, desk));
        let mut step = flow.start(self.pair.now_ms);
        for _ in 0..STEPS_MAX {
            flow.notes();
            match step {
                Step::Ended(outcome) => return Ok(outcome),
                Step::Request(request) => {
                    let reply = self.serve(request);
                    step = flow.resume(self.pair.now_ms, reply);
                }
            }
        }
        Err("the call does not end".into())
    }

    fn serve(&mut self, request: Request) -> Reply {
        match request {
            Request::Ask(question) => {
                self.pair.now_ms += 5_000;
                self.hear(&question.notice);
                Reply::Ask(self.answer(&question))
            }
            Request::Say { prompts, .. } => {
                self.hear(&prompts);
                Reply::Say
            }
            Request::Lookup(_) => Reply::Lookup(vec![self.account.clone()]),
            Request::Name(_) => Reply::Name(true),
            Request::Screen(screening) => Reply::Screen(self.journal.screen(&screening)),
            Request::Keep(_) => Reply::Keep(true),
            Request::Wallet { biller, account_id } => {
                Reply::Wallet(self.journal.wallet(&biller, &account_id))
            }
            Request::Record(entry) => Reply::Record(self.journal.record(entry)),
            Request::Send { request, .. } => Reply::Send(self.send(request)),
            Request::Wait(time) => {
                self.pair.now_ms += i64::try_from(time.as_millis()).unwrap();
                Reply::Wait
            }
            Request::Transfer => Reply::Transfer(self.rng.random_range(0..2) == 0),
        }
    }

    fn hear(&mut self, prompts: &[Prompt]) {
        self.said.extend(prompts.iter().filter_map(|prompt| match prompt {
            Prompt::Phrase(id) => Some(*id),
            _ => None,
        }));
    }

    /// The right answer, most of the time.
    fn answer(&mut self, question: &Question) -> Heard {
        if self.hung_up || self.rng.random_range(0..25) == 0 {
            self.tally.hung_up += usize::from(!self.hung_up);
            self.hung_up = true;
            return Heard::Hangup;
        }
        match self.rng.random_range(0..60) {
            0 => return Heard::Back,
            1 => return Heard::Agent,
            2 => return Heard::Failed,
            _ => {}
        }
        let Trigger { number, cvv, zip, .. } = self.trigger;
        let keys = match question.name {
            "account" => "1001",
            "verify" => "46201",
            "choice" | "confirm" | "consent" | "again" | "retry" => "1",
            "keep" | "keep_terms" => ["1", "1", "2"][self.rng.random_range(0..3)],
            "amount" => "2500",
            "card" => number.unwrap_or("4111111111111111"),
            "expiry" => "0930",
            "cvv" => cvv.unwrap_or("987"),
            "zip" => zip.unwrap_or("46201"),
            "repeat" => return Heard::Failed,
            other => panic!("no caller knows the question `{other}`"),
        };
        // An Amex asks for four.
        let keys = if question.grammar.check(keys).is_ok() { keys } else { "9876" };
        Heard::Keyed(keys.bytes().collect::<Keys>())
    }

    /// What is told of cards is so: one that is kept can be charged.
    fn check_wallet(&mut self) -> Result<(), String> {
        let wallet = self.journal.wallet("biller", "1001").unwrap_or_default().cards;
        let kept = self.said.contains(&"saved.kept");
        ensure(!kept || wallet.len() == 1, || format!("told of a kept card: {wallet:?}"))?;
        let Some(card) = wallet.into_iter().next() else { return Ok(()) };
        self.tally.kept += 1;
        let (token, expiry) = (card.token.clone(), Some(card.expiry));
        let saved = Saved { token, method: Method::Card, expiry, cvv: None };
        let charge = Charge {
            purpose: Purpose::Sale,
            reference: "0197284f-2c00-7a41-8d53-6f0f2f6f3f55",
            total: Money::usd(7_700),
            fee: Money::usd(0),
            surcharge: false,
            instrument: Instrument::Token(&saved),
            account_id: "1001",
            save: false,
            initiator: Initiator::Customer,
            at_ms: self.pair.now_ms,
        };
        match self.pair.charge(&charge) {
            Verdict::Approved(_) => Ok(()),
            other => Err(format!("a kept card: {other:?}")),
        }
    }

    /// To the processor, over a network that fails.
    fn send(&mut self, request: gateway::Request) -> Exchange {
        self.pair.now_ms += self.rng.random_range(50..3_000);
        match self.rng.random_range(0..6) {
            0 => {
                self.tally.faults += 1;
                return Exchange::NotSent("refused".into());
            }
            1..=2 => {
                self.tally.faults += 1;
                let fault = Fault::ALL[self.rng.random_range(0..Fault::ALL.len())];
                self.pair.simulator.fail_next(fault);
            }
            _ => {}
        }
        self.pair.exchange(request)
    }

    /// What the server does once the call has ended: lookups until the outcome is known.
    fn after(&mut self) {
        self.journal.repair();
        // What the call could not write down is found out as after a crash.
        self.journal.recover();
        let able = self.pair.gateway.capabilities().can(Operation::Lookup);
        let since_ms = self.pair.now_ms;
        for (intent, _) in self.journal.intents() {
            for wait_s in [2, 5, 15, 60, 300, 3_600, 7_200, 14_400] {
                let state = &self.journal.intent(&intent.id).unwrap().1;
                if !able || !matches!(state, State::Unknown(_)) {
                    break;
                }
                self.pair.now_ms += Duration::from_secs(wait_s).as_millis() as i64;
                let faulty = wait_s < 3_600 && self.rng.random_range(0..3) == 0;
                if faulty {
                    let fault = Fault::ALL[self.rng.random_range(0..Fault::ALL.len())];
                    self.pair.simulator.fail_next(fault);
                }
                let found = self.pair.find(Lookup {
                    purpose: Purpose::Sale,
                    reference: &intent.id,
                    total: intent.total().unwrap(),
                    method: intent.means.method(),
                    started_ms: intent.created_ms,
                    at_ms: self.pair.now_ms,
                    step: String::new(),
                });
                let to = match found {
                    Found::Absent if self.pair.now_ms - since_ms >= ABSENT_AFTER_MS => {
                        Some(State::NotCharged("the gateway never received it".into()))
                    }
                    found => found.verdict().map(|verdict| State::from(&verdict)),
                };
                if let Some(to) = to {
                    let entry = Entry::Move { id: intent.id.clone(), to };
                    assert_eq!(self.journal.record(entry), Recorded::Stored);
                    self.tally.looked_up += 1;
                }
            }
            let left = matches!(self.journal.intent(&intent.id).unwrap().1, State::Unknown(_));
            self.tally.left += usize::from(left);
        }
        // What is still on its way arrives with the next request.
        self.pair.now_ms += 10 * LATE_MS;
        let nobody = Lookup {
            purpose: Purpose::Sale,
            reference: "nobody",
            total: Money::usd(100),
            method: ringtill::instrument::Method::Card,
            started_ms: NOW,
            at_ms: self.pair.now_ms,
            step: String::new(),
        };
        if able {
            self.pair.find(nobody);
        }
    }

    fn check(&mut self, outcome: &Outcome) -> Result<(), String> {
        let standing: Vec<_> = self
            .pair
            .simulator
            .entries()
            .iter()
            .filter(|entry| entry.is_approved() && !entry.voided)
            .map(|entry| (entry.id.clone(), entry.order.total.minor, entry.captured))
            .collect();
        let told = |why: &str| format!("{why}: {outcome:?}, {standing:?}, said {:?}", self.said);
        ensure(standing.len() <= 1, || told("charged twice"))?;
        let said = |id| self.said.contains(&id);
        let paid = matches!(outcome, Outcome::Paid { .. });
        let pending = matches!(outcome, Outcome::Pending { .. });
        self.tally.paid += usize::from(paid);
        self.tally.pending += usize::from(pending);
        ensure(paid == said("result.approved"), || told("told otherwise than it ended"))?;
        ensure(!paid || standing.len() == 1, || told("told of a payment that is none"))?;
        ensure(standing.is_empty() || paid || pending, || told("an approval got lost"))?;
        // Dialects shorten our reference: what was approved is known by the gateway's.
        let states: Vec<State> =
            self.journal.intents().into_iter().map(|(_, state)| state).collect();
        let approved = states.iter().filter_map(State::approval);
        let approved: Vec<&str> = approved.map(|approval| &*approval.gateway_reference).collect();
        let ledger = || format!("the ledger has {states:?}");
        let unfinished = |state: &State| matches!(state, State::Consented | State::Sending);
        ensure(!states.iter().any(unfinished), || told(&ledger()))?;
        let open = |state: &State| matches!(state, State::Held(..) | State::Unknown(_));
        match (&standing[..], &approved[..]) {
            ([], []) => Ok(()),
            ([(id, total, taken)], [one]) => {
                ensure(id == one && *taken == *total, || told(&ledger()))
            }
            ([_], []) => ensure(states.iter().any(open), || told(&ledger())),
            _ => Err(told(&ledger())),
        }
    }
}
