//! Every caller there can be, up to a number of misbehaviours: the script is run over `Line` with
//! each choice the caller, the store and the gateway have, and the money rules are checked at the
//! end of every call.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::thread;

use ringtill::account::{Account, Query};
use ringtill::dialogue::{Heard, Question};
use ringtill::gateway::{self, Exchange};
use ringtill::ledger::journal::Journal;
use ringtill::ledger::{Entry, Intent, Recorded, State};
use ringtill::payment::{
    Desk, DuplicateMatch, Evidence, Flow, Note, Outcome, PartialSettings, Reply, Request, Step,
    script,
};
use ringtill::prompt::Prompt;
use ringtill::secret::Keys;

mod choices;
mod later; // what is arranged for later
mod pair; // fees that are charges of their own
mod saved; // cards that are kept
mod scenes;
mod several; // accounts in one payment
mod voice; // what may be said, and what is read back of it
mod words;

use choices::Choices;
use later::{Arranging, standing};
use pair::Pair;
use saved::Keeping;
use scenes::{
    EARLIER, EARLIER_CONFIRMATION, Earlier, Gateways, Scene, earlier, key, scenes, wallet,
};
use several::Several;
use words::{ACCOUNT, response, routes};

const CALLS_MIN: u64 = 100_000;
const MISBEHAVIOURS_MAX: u32 = 4;
const STEPS_MAX: u32 = 400;
const NOW_MS: i64 = 1_795_400_000_000; // 23 November 2026

fn main() -> ExitCode {
    // `RINGTILL_SCENE` walks those alone whose names have it.
    let wanted = std::env::var("RINGTILL_SCENE").unwrap_or_default();
    let scenes: Vec<Scene> =
        scenes().into_iter().filter(|scene| scene.name.contains(&wanted)).collect();
    let (next, calls) = (AtomicUsize::new(0), AtomicU64::new(0));
    // Each scene is walked by itself.
    let walk = || {
        while let Some(scene) = scenes.get(next.fetch_add(1, Relaxed)) {
            let walked = every_call_of(scene);
            calls.fetch_add(walked, Relaxed);
            println!("{}: {walked} calls", scene.name);
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(scenes.len());
    thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(walk))));
    let calls = calls.into_inner();
    assert!(calls >= CALLS_MIN || !wanted.is_empty(), "only {calls} calls");
    println!("test result: ok. {calls} calls enumerated; 0 failed");
    ExitCode::SUCCESS
}

fn every_call_of(scene: &Scene) -> u64 {
    let mut choices = Choices::default();
    let mut calls = 0;
    loop {
        run(scene, &mut choices);
        calls += 1;
        if !choices.advance() {
            return calls;
        }
    }
}

fn run(scene: &Scene, choices: &mut Choices) {
    let mut journal = Journal::new();
    for entry in scene.earlier.iter().flat_map(|one| earlier(scene, *one)) {
        assert_eq!(journal.record(entry), Recorded::Stored);
    }
    for entry in scene.kept_at.iter().flat_map(|gateway| wallet(scene, gateway)) {
        assert_eq!(journal.record(entry), Recorded::Stored);
    }
    if scene.standing {
        assert_eq!(journal.record(standing(scene)), Recorded::Stored);
    }
    let mut world = World {
        scene,
        choices,
        journal,
        truth: Truth::default(),
        said: Vec::new(),
        noted: Vec::new(),
        numbers_said: Vec::new(),
        consented: None,
        last_asked: None,
        last_reference: String::new(),
        asked_since_sale: true,
        sold_at: String::new(),
        went_unprocessed: false,
        hung_up: false,
        transferred: false,
        store_failed: false,
        told_again: false,
        again: false,
        screened: false,
        signed: None,
        charged_with: None,
        kept: Vec::new(),
        keyed_account: String::new(),
        keeping: Keeping::default(),
        arranging: Arranging::default(),
        asked: Vec::new(),
        pair: Pair::default(),
        several: Several::default(),
        done: false,
    };
    let desk = Desk {
        settings: Arc::new(scene.settings.clone()),
        routes: Arc::new(routes(scene.gateways)),
        fingerprints: Arc::new(key()),
        banks: scene.banks.clone(),
        bins: scene.bins.clone(),
        authorisations_recorded: scene.recorded,
        caller: scene.caller.clone(),
        caller_placed: scene.caller_placed,
        trunk: "trunk".into(),
        call_id: "call".into(),
        agent: scene.agent,
    };
    let mut flow = Flow::new([7; 32], |line| script(line, desk));
    let mut step = flow.start(NOW_MS);
    let mut steps = 0;
    let outcome = loop {
        for note in flow.notes() {
            world.note(note);
        }
        match step {
            Step::Ended(outcome) => break outcome,
            Step::Request(request) => {
                steps += 1;
                assert!(steps < STEPS_MAX, "the call does not end: {:?}", world.choices.path);
                let reply = world.serve(request);
                step = flow.resume(NOW_MS, reply);
            }
        }
    };
    world.check(&outcome);
}

/// What the gateway really did, by reference.
#[derive(Default)]
struct Truth {
    /// Reference -> (what it decided, minor units).
    processed: BTreeMap<String, (&'static str, i64)>,
    /// Sale requests of which at least one byte arrived, by reference.
    arrived: BTreeMap<String, u32>,
}

impl Truth {
    fn approved(&self) -> Vec<(&str, i64)> {
        let all = self.processed.iter();
        all.filter(|(_, (word, _))| *word == "approved").map(|(r, (_, m))| (&**r, *m)).collect()
    }
}

/// Caller, accounts, store and gateway of one call.
struct World<'a> {
    scene: &'a Scene,
    choices: &'a mut Choices,
    journal: Journal,
    truth: Truth,
    said: Vec<&'static str>,
    noted: Vec<Note>,
    /// Digits read aloud in groups: confirmation numbers and references.
    numbers_said: Vec<String>,
    /// What the caller said yes to, until a charge of it was refused: minor units, card.
    consented: Option<(i64, String)>,
    /// The last question, if the caller went back from it.
    last_asked: Option<&'static str>,
    last_reference: String,
    asked_since_sale: bool,
    /// Where the last sale went, and whether it was certainly not processed there.
    sold_at: String,
    went_unprocessed: bool,
    hung_up: bool,
    transferred: bool,
    /// A write to the ledger was reported as failed, or it could not be read.
    store_failed: bool,
    /// The last question about paying again was about the earlier payment.
    told_again: bool,
    /// The caller was told of the earlier payment and wants another.
    again: bool,
    /// The ledger was asked since the last sale.
    screened: bool,
    /// The text of the debit that the caller signed last and that was not yet kept.
    signed: Option<Vec<Prompt>>,
    /// Minor units, card or account.
    charged_with: Option<(i64, String)>,
    /// References of debits whose authorisations are kept.
    kept: Vec<String>,
    /// The bank account as it was keyed first.
    keyed_account: String,
    keeping: Keeping,
    arranging: Arranging,
    /// Names of the questions that were asked.
    asked: Vec<&'static str>,
    pair: Pair,
    several: Several,
    /// Nothing is due, and the caller wants nothing else.
    done: bool,
}

impl World<'_> {
    fn note(&mut self, note: Note) {
        if let Note::Consent { amount, fee, total, means, last4 } = &note {
            assert_eq!(amount.checked_add(*fee), Some(*total));
            self.consented = Some((total.minor, format!("{} {}", means.name(), last4.as_str())));
        }
        let hidden = self.keyed_account.is_empty() || !format!("{note:?}").contains(ACCOUNT);
        assert!(hidden, "{note:?}");
        self.noted.push(note);
    }

    fn serve(&mut self, request: Request) -> Reply {
        assert!(!self.transferred, "the script goes on after the caller was handed over");
        match request {
            Request::Ask(question) => Reply::Ask(self.answer(&question)),
            Request::Say { prompts, .. } => {
                self.hear(&prompts);
                Reply::Say
            }
            Request::Lookup(query) => Reply::Lookup(self.find(&query)),
            Request::Name(name) => {
                let own = name != "Acme Water" && name != "First Bank";
                let anonymous = self.scene.caller.name_withheld && own;
                assert!(!anonymous, "an anonymous caller is named");
                Reply::Name(self.choices.pick(2) == 0)
            }
            Request::Screen(screening) => {
                self.screened = true;
                Reply::Screen(match self.choices.pick(2) {
                    0 => self.journal.screen(&screening),
                    _ => {
                        self.store_failed = true;
                        None
                    }
                })
            }
            Request::Wallet { account_id, .. } => Reply::Wallet(self.wallet(&account_id)),
            Request::Record(entry) => {
                self.check_kept(&entry);
                self.check_arranged(&entry);
                let keeps = matches!(entry, Entry::Keep(_));
                let recorded = self.record(entry);
                self.keeping.stored |= keeps && recorded == Recorded::Stored;
                Reply::Record(recorded)
            }
            Request::Keep(evidence) => Reply::Keep(self.keep(*evidence)),
            Request::Send { gateway, request, .. } => Reply::Send(self.gateway(&gateway, &request)),
            Request::Wait(_) => Reply::Wait,
            Request::Transfer => {
                self.transferred = !self.hung_up && self.choices.pick(2) == 0;
                Reply::Transfer(self.transferred)
            }
        }
    }

    /// The right answer first, then every other thing a caller may do.
    fn answer(&mut self, question: &Question) -> Heard {
        self.hear(&question.notice);
        if question.name == "again" {
            let number = self.numbers_said.pop().unwrap_or_default();
            let known = self.journal.intents().into_iter().map(|(intent, _)| intent.confirmation);
            assert!(known.into_iter().any(|known| known == number), "{number} is no payment");
            self.told_again = number == EARLIER_CONFIRMATION;
        }
        if self.hung_up {
            return Heard::Hangup;
        }
        self.asked_since_sale = true;
        self.asked.push(question.name);
        voice::check(question);
        let went_back = self.last_asked.take();
        assert_ne!(went_back, Some(question.name), "`*` leads nowhere: {:?}", self.choices.path);
        self.check_together(question, went_back);
        let keyed: &[&str] = match question.name {
            "account" => self.account(),
            "several" => self.another_account(),
            "verify" => &["46201", "00000"],
            "choice" => &["1", "2", "3"],
            "nothing_due" => &["2", "1"],
            "amount" => &["2500"],
            "confirm" | "consent" | "again" => &["1", "2"],
            "when" => self.when(),
            "date" => &["1205"],
            "instalments" => &["2"],
            "date_confirm" | "later_agree" | "autopay" => &["1", "2"],
            "standing" => &["2", "1"],
            "standing_cancel" => &["1", "2"],
            "method" => &["2", "1"],
            "routing" => &["021000021"],
            "kind" => &["1", "2"],
            "bank_account" => &[ACCOUNT, "10987654321"],
            "bank_account_again" => &[ACCOUNT],
            "authorisation" => &["1", "2"],
            "card" => &["4111111111111111", "5555555555554444"],
            "saved" => self.ways(),
            "keep" | "keep_terms" => &["1", "2"],
            "expiry" => &["1230"],
            "cvv" => &["123"],
            "zip" => &["46201"],
            "retry" => &["1"],
            "repeat" => &["9"],
            other => panic!("no caller knows the question `{other}`"),
        };
        for keys in keyed {
            assert!(question.grammar.check(keys).is_ok(), "{}: {keys}", question.name);
        }
        // Silence at the end is how a satisfied caller leaves the read-out.
        let silence_is_good = question.name == "repeat";
        let way = self.choices.pick(keyed.len() + 4 + usize::from(silence_is_good));
        let way = match (silence_is_good, way) {
            (true, 0) => return Heard::Failed,
            (true, way) => way - 1,
            (false, way) => way,
        };
        if question.name == "again" {
            self.again |= self.told_again && keyed.get(way) == Some(&"1");
        }
        self.keeping.answered(question.name, keyed.get(way).copied());
        self.several(question, keyed.get(way).copied());
        self.arranging(question, keyed.get(way).copied());
        let silent = way == keyed.len() + 2;
        self.done |= question.name == "nothing_due" && (keyed.get(way) == Some(&"2") || silent);
        match (question.name, keyed.get(way)) {
            ("bank_account", Some(keyed)) => self.keyed_account = (*keyed).into(),
            ("authorisation", Some(&"1")) => self.sign(question),
            _ => {}
        }
        match (keyed.get(way), way.saturating_sub(keyed.len())) {
            (Some(keyed), _) => Heard::Keyed(keyed.bytes().collect::<Keys>()),
            (None, 0) => {
                // There is nothing before the account number.
                self.last_asked = (question.name != "account").then_some(question.name);
                Heard::Back
            }
            (None, 1) => Heard::Agent,
            (None, 2) => Heard::Failed,
            (None, _) => {
                self.hung_up = true;
                Heard::Hangup
            }
        }
    }

    fn hear(&mut self, prompts: &[Prompt]) {
        self.hear_together(prompts);
        for prompt in prompts {
            let silent = self.keyed_account.is_empty() || !told(prompt).contains(&ACCOUNT[..7]);
            assert!(silent, "{prompt:?}");
            match prompt {
                Prompt::Phrase(id) => self.said.push(id),
                Prompt::Groups { digits, .. } => self.numbers_said.push(digits.clone()),
                _ => {}
            }
        }
    }

    fn find(&self, query: &Query) -> Vec<Account> {
        let fits = |account: &&Account| match query {
            Query::Phone(phone) => account.phones.contains(phone),
            Query::Verified { account: id, zip } => {
                account.id == *id && account.verify_zip.as_ref() == Some(zip)
            }
        };
        self.scene.accounts.iter().filter(fits).cloned().collect()
    }

    /// The caller pressed the key that signs: what they had heard is all that there must be.
    fn sign(&mut self, question: &Question) {
        assert_eq!(question.recorded, self.scene.recorded);
        assert!(question.voice.is_none(), "signed by voice");
        let announced = self.said.contains(&"authorisation.recorded");
        assert_eq!(announced, self.scene.recorded, "recorded unannounced");
        let has = |wanted: &dyn Fn(&Prompt) -> bool| question.notice.iter().any(wanted);
        assert!(has(&|prompt| *prompt == Prompt::Name("Acme Water".into())));
        assert!(has(&|prompt| matches!(prompt, Prompt::Date(_))));
        assert!(has(&|prompt| matches!(prompt, Prompt::Amount(_))));
        assert!(has(&|prompt| *prompt == Prompt::Digits("0100".into())), "no telephone number");
        for id in ["authorisation.debit", "authorisation.account", "authorisation.revoke"] {
            assert!(has(&|prompt| *prompt == Prompt::Phrase(id)), "{id}");
        }
        self.signed = Some(question.notice.clone());
    }

    fn keep(&mut self, evidence: Evidence) -> bool {
        let state = self.journal.intent(&evidence.reference).map(|(_, state)| state);
        assert_eq!(state, Some(&State::Consented), "kept for what the ledger does not know");
        let authorisation = &evidence.authorisation;
        let signed = self.signed.as_ref() == Some(&authorisation.said);
        assert!(signed, "kept what was not signed");
        let text = format!("{evidence:?}");
        assert!(!text.contains(ACCOUNT) && !text.contains("021000021"), "{text}");
        let (total, ending) = (authorisation.total.minor, authorisation.last4.as_str());
        let signed = (total, format!("{} {ending}", authorisation.kind.name()));
        assert_eq!(self.consented.as_ref(), Some(&signed));
        let kept = self.choices.pick(2) == 0;
        if kept {
            self.kept.push(evidence.reference);
        }
        self.store_failed |= !kept;
        kept
    }

    fn record(&mut self, entry: Entry) -> Recorded {
        match self.choices.pick(3) {
            0 => return self.journal.record(entry),
            1 => {}
            // Stored, but nobody could say so.
            _ => {
                self.journal.record(entry);
            }
        }
        self.store_failed = true;
        Recorded::Failed("injected".into())
    }

    fn gateway(&mut self, route: &str, request: &gateway::Request) -> Exchange {
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        let words: Vec<&str> = body.split(' ').collect();
        match words[0] {
            kind @ ("sale" | "verify") => {
                let reference = words[1];
                let known = self.journal.intent(reference).map(|(intent, _)| &*intent.gateway);
                assert_eq!(known, Some(route), "the ledger would ask another gateway");
                let elsewhere = std::mem::take(&mut self.sold_at) != route;
                let elsewhere = elsewhere && self.went_unprocessed;
                match self.is_fee(reference) {
                    true => assert_eq!(route, "fees"),
                    false => self.check_new(reference, elsewhere),
                }
                self.check_way(route, &words[3..]);
                let (minor, card) = (words[2].parse().unwrap(), words[3..5].join(" "));
                let exchange = match kind {
                    "verify" => self.verify(reference, &card),
                    _ => self.sale(reference, minor, &card),
                };
                self.went_unprocessed = match &exchange {
                    Exchange::NotSent(_) => true,
                    Exchange::Response(response) => response.body() == b"busy",
                    Exchange::NoAnswer(_) => false,
                };
                self.sold_at = route.to_string();
                let resting = route == "first" && self.scene.gateways == Gateways::FirstRests;
                assert!(!resting, "a gateway that rests is asked");
                exchange
            }
            "keep" => self.keep_there(words[1]),
            "lookup" => self.look_up(words[1]),
            "void" => self.void(route, words[1], words[2]),
            other => panic!("the script must not {other}"),
        }
    }

    fn sale(&mut self, reference: &str, minor: i64, card: &str) -> Exchange {
        let Some((intent, state)) = self.journal.intent(reference).cloned() else {
            panic!("the request leaves before the ledger knows")
        };
        assert_eq!(state, State::Sending, "the request leaves before the ledger knows");
        self.check_agreed(&intent, minor, card);
        self.check_allocated(&intent);
        if self.scene.settings.partial != PartialSettings::default() {
            let due = self.scene.accounts.iter().find(|one| one.id == intent.account_id);
            assert_eq!(due.map(|one| one.amount_due), Some(intent.amount), "not what is due");
        }
        self.check_again(&intent, card);
        let bank = card.starts_with("checking") || card.starts_with("savings");
        if bank {
            let kept = self.kept.iter().any(|kept| kept == reference);
            assert!(kept, "debited without a kept authorisation");
            let may = self.scene.accounts[0].may;
            let asked_for = self.scene.caller_placed || may.be_called;
            assert!(asked_for, "debited on a call of ours");
            assert!(may.pay_by_bank, "debited against the biller's will");
        } else {
            let may = self.scene.accounts.iter().any(|account| account.may.pay_by_card);
            assert!(may, "a card was charged against the biller's will");
        }
        const CARD: [&str; 8] =
            ["approved", "hard", "soft", "cvv", "zip", "number", "held", "config"];
        const BANK: [&str; 8] =
            ["approved", "hard", "soft", "routing", "account", "number", "held", "config"];
        let replies = if bank { BANK } else { CARD };
        let (exchange, decision) = self.reply(reference, replies);
        let Some(decision) = decision else { return exchange };
        self.truth.processed.insert(reference.to_string(), (decision, minor));
        self.decided(decision);
        self.charged_with = Some((minor, card.into()));
        self.signed = None;
        // A yes to a card holds while its other fields are corrected; an authorisation is of one
        // debit.
        if bank || !matches!(decision, "cvv" | "zip") {
            self.consented = None;
        }
        exchange
    }

    /// What the gateway answers, and what it decided if it got the request.
    fn reply(
        &mut self,
        reference: &str,
        replies: [&'static str; 8],
    ) -> (Exchange, Option<&'static str>) {
        const NOT_SENT: usize = 8;
        const LOST_BEFORE: usize = 9;
        const LOST_AFTER: usize = 10;
        const GARBLED_AFTER: usize = 11;
        const BUSY: usize = 12;
        let way = self.choices.pick(13);
        if way == NOT_SENT {
            return (Exchange::NotSent("refused".into()), None);
        }
        let arrived = self.truth.arrived.entry(reference.to_string()).or_default();
        *arrived += 1;
        assert_eq!(*arrived, 1, "a request that had left was sent again");
        let decision = match way {
            LOST_BEFORE => return (Exchange::NoAnswer("closed".into()), None),
            BUSY => return (response("busy"), None),
            LOST_AFTER | GARBLED_AFTER => "approved",
            way => replies[way],
        };
        let exchange = match way {
            LOST_AFTER => Exchange::NoAnswer("closed".into()),
            GARBLED_AFTER => response("<html>"),
            _ => response(decision),
        };
        (exchange, Some(decision))
    }

    /// A new charge is for something the caller has said since the last one, or the last one's
    /// gateway did not process it and this is another.
    fn check_new(&mut self, reference: &str, elsewhere: bool) {
        let again = self.last_reference == reference || elsewhere;
        let screened = std::mem::take(&mut self.screened);
        assert!(again || screened, "charged without a look into the ledger");
        assert!(again || self.asked_since_sale, "the same card was charged again unasked");
        self.asked_since_sale = false;
        self.last_reference = reference.to_string();
    }

    /// What was paid before is paid again only if the caller was told and said so.
    fn check_again(&mut self, intent: &Intent, card: &str) {
        let Some(earlier) = self.scene.earlier else { return };
        let account = &self.scene.accounts[0];
        let same_amount = intent.part_of(&account.id) == Some(account.amount_due);
        let visa = card.starts_with("visa");
        let wanted = match earlier {
            Earlier::OpenSameCard => !visa && self.again,
            Earlier::Open => self.again,
            Earlier::Tried => false,
            Earlier::Approved if same_amount => {
                let other = self.scene.settings.duplicate_match == DuplicateMatch::Method && !visa;
                self.again || other
            }
            _ => true,
        };
        assert!(wanted, "paid twice unasked: {:?}", self.choices.path);
    }

    fn look_up(&mut self, reference: &str) -> Exchange {
        match self.choices.pick(3) {
            0 => {}
            1 => return Exchange::NoAnswer("closed".into()),
            // Our credentials were withdrawn meanwhile: that says nothing of the sale.
            _ => return response("config"),
        }
        response(self.truth.processed.get(reference).map_or("absent", |(word, _)| word))
    }

    /// The money rules.
    fn check(&self, outcome: &Outcome) {
        let path = format!("{}: {:?} -> {outcome:?}", self.scene.name, self.choices.path);
        let mut charged = self.truth.approved();
        charged.retain(|(reference, _)| !self.is_fee(reference));
        assert!(charged.len() <= 1, "charged twice: {path}");
        let said = |id| self.said.contains(&id);
        let charges = self
            .noted
            .iter()
            .filter(|note| matches!(note, Note::Charging { .. } | Note::Verifying { .. }));
        // Two gateways may be tried, or two charges be made.
        let gateways = if self.scene.gateways == Gateways::One { 1 } else { 2 };
        let charges_max = gateways * usize::from(self.scene.settings.declines_max);
        assert!(charges.count() <= charges_max, "charged too often in one call: {path}");
        let goodbye = *outcome == Outcome::Cancelled && said("bye.plain");
        assert!(!self.done || goodbye, "no goodbye to who owes nothing: {path}");
        let told_paid = said("result.approved") || said("result.submitted");
        let handed_over = self.transferred && !told_paid && !said("later.arranged");
        assert_eq!(*outcome == Outcome::Transferred, handed_over, "{path}");
        let told_to_hold = said("agent.transfer") && !self.scene.agent;
        assert!(!told_to_hold && (self.scene.agent || !self.transferred), "nobody there: {path}");
        if matches!(self.scene.earlier, Some(Earlier::TriedSome)) {
            let told = ["card.invalid", "cvv.invalid", "zip.invalid", "result.declined_hard"];
            assert!(!told.into_iter().any(said), "told what is wrong with a card: {path}");
        }
        let paid = matches!(outcome, Outcome::Paid { .. });
        let pending = matches!(outcome, Outcome::Pending { .. });
        assert_eq!(paid, told_paid, "told otherwise than recorded: {path}");
        let debit = |card: &(i64, String)| !card.1.starts_with("visa") && !card.1.starts_with("ma");
        let debited = self.charged_with.as_ref().is_some_and(debit);
        assert_eq!(paid && debited, said("result.submitted"), "a debit was called paid: {path}");
        if paid {
            assert_eq!(charged.len(), 1, "told of a payment that is none: {path}");
        }
        if charged.len() == 1 {
            assert!(paid || pending, "an approval got lost: {path}");
            let denied = ["consent.cancelled", "result.not_charged", "again.stopped"].map(said);
            assert!(!denied.contains(&true), "told that nothing was charged: {path}");
        }
        self.check_keeping((paid, pending), &path);
        self.check_arranging(outcome, &path);
        self.check_pair(paid, pending, &path);
        self.check_ledger(paid, pending, &path);
        self.check_number(outcome, &path);
    }

    /// The number in the outcome, on the console and in the caller's ear is the ledger's.
    fn check_number(&self, outcome: &Outcome, path: &str) {
        let told = match outcome {
            Outcome::Paid { confirmation } | Outcome::Pending { confirmation } => confirmation,
            Outcome::Arranged { number } => {
                let same = self.numbers_said.iter().all(|said| said == number);
                return assert!(same && !self.numbers_said.is_empty(), "another number: {path}");
            }
            _ => return assert!(self.numbers_said.is_empty(), "a number for nothing: {path}"),
        };
        let same = self.numbers_said.iter().all(|said| said == told || self.is_arranged(said));
        assert!(same && self.numbers_said.contains(told), "another number was said: {path}");
        let sent = self.noted.iter().rev().find_map(|note| match note {
            Note::Charging { reference, .. } if !self.is_fee(reference) => {
                self.journal.intent(reference)
            }
            _ => None,
        });
        let number = sent.map(|(intent, _)| &intent.confirmation);
        assert_eq!(number, Some(told), "the number of another payment: {path}");
        let noted = self.noted.contains(&Note::Confirmation(told.clone()));
        assert_eq!(noted, matches!(outcome, Outcome::Paid { .. }), "{path}");
    }

    /// The ledger agrees with the gateway, or leaves open what the server will look up.
    fn check_ledger(&self, paid: bool, pending: bool, path: &str) {
        let intents = self.journal.intents();
        for (intent, state) in intents.iter().filter(|(intent, _)| intent.call_id != EARLIER) {
            let truth = self.truth.processed.get(&intent.id);
            let approved = truth.is_some_and(|(word, _)| *word == "approved");
            match state {
                State::Approved(_) if truth.is_some_and(|(word, _)| *word == "voided") => {
                    let undone = self.journal.undone(&intent.id);
                    assert!(undone.minor > 0 || undone.open, "given back unknown: {path}");
                    let sure = undone.minor > 0 || self.store_failed || pending;
                    assert!(sure, "nobody knows what became of the void: {path}");
                }
                State::Approved(_) => {
                    let told = paid || (pending && self.scene.gateways == Gateways::Apart);
                    assert!(approved && told, "the ledger invents a payment: {path}");
                    assert_eq!(truth.map(|t| t.1), Some(intent.amount.minor + intent.fee.minor));
                }
                State::Declined(_) | State::NotCharged(_) => {
                    assert!(!approved, "the ledger lost a payment: {path}");
                }
                State::Held(..) | State::Unknown(_) => {
                    let told = pending || self.said.contains(&"result.fee_open");
                    assert!(told || self.store_failed, "left open without a cause: {path}");
                }
                State::Consented | State::Sending => {
                    assert!(self.store_failed, "left open without a cause: {path}");
                }
                State::Manual | State::Posted(_) => panic!("not the script's to decide: {path}"),
            }
        }
        for (reference, _) in self.truth.approved() {
            assert!(self.journal.intent(reference).is_some(), "not in the ledger: {path}");
        }
    }
}

/// What is said of a value.
fn told(prompt: &Prompt) -> &str {
    match prompt {
        Prompt::Digits(digits) | Prompt::Groups { digits, .. } => digits,
        Prompt::Private(digits) => digits.expose(),
        Prompt::Name(name) => name,
        _ => "",
    }
}
