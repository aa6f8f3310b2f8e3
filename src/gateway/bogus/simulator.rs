//! The simulated processor behind the bogus gateway: it keeps sales, honours idempotency keys,
//! voids and refunds by rule, and fails on demand. Sans-IO: requests in, actions out.
//!
//! Trigger cards stand in `charge.rs`. A total, in minor units, that goes wrong on its way (with
//! any card that is approved):
//!
//! | total | what happens |
//! |---|---|
//! | 900101 | processed, connection closed without an answer |
//! | 900102 | connection closed, nothing processed |
//! | 900103 | processed, HTTP 500 |
//! | 900104 | HTTP 500, nothing processed |
//! | 900105 | processed, the answer is garbled |
//! | 900106 | processed, the answer takes five seconds |
//! | 900107 | processed, no answer, the connection stays open |
//! | 900108 | processed, the answer breaks off in the middle |
//! | 900109 | HTTP 429, nothing processed |
//! | 900110 | connection closed; processed ten seconds later, unknown to lookups until then |
//! | 900111 | processed, no answer; lookups say `processing` for thirty seconds |

use std::collections::{HashMap, VecDeque};

use aws_lc_rs::hmac;
use http::{Method, Response, StatusCode};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde::Deserialize;
use serde_json::{Value, json};

use super::charge::{
    BankRequest, CardRequest, Charge, NO_SUCH_TOKEN, NOT_THE_FIRST, Outcome, SavedRequest, Vaulted,
    judged, judged_account, network_id, sale_json, token,
};
use crate::gateway::body::encoded;
use crate::gateway::simulator::{
    self, Case, Entry, LATE_MS, Order, SETTLE_MS, SLOW_MS, Server, Trigger, garbled,
};
pub use crate::gateway::simulator::{Action, Fault};
use crate::gateway::{Exchange, Purpose, Request};
use crate::instrument::{Last4, Pan};
use crate::money::{Currency, Money};
use crate::secret::Secret;

/// The first total, in minor units, that triggers a fault.
pub const TRIGGER_TOTAL: i64 = 900_101;
pub const PROCESSING_MS: i64 = 30_000;
/// Sales kept; beyond them requests get 429.
pub const SALES_MAX: usize = 100_000;
const FAULTS_MAX: usize = 1_000;

pub struct Simulator {
    authorization: Secret<String>,
    fingerprint_key: hmac::Key,
    charges: Vec<Charge>,
    /// Percent-encoded reference -> place in `charges`.
    by_reference: HashMap<String, usize>,
    /// Sales that enter the books later: the time and the charge.
    late: Vec<(i64, Charge)>,
    /// Cards that are kept, by token.
    vault: HashMap<String, Vaulted>,
    /// Answers to voids and refunds that took effect, by idempotency key.
    changes: HashMap<Vec<u8>, Response<Vec<u8>>>,
    faults: VecDeque<Fault>,
    flaky: Option<(StdRng, u32)>,
    /// Of the next sales, whatever is paid with.
    judgements: VecDeque<Outcome>,
}

impl Simulator {
    /// `seed` keys the fingerprints that stand for card numbers in memory.
    pub fn new(api_key: &str, seed: u64) -> Simulator {
        let mut key = [0; 32];
        StdRng::seed_from_u64(seed).fill_bytes(&mut key);
        Simulator {
            authorization: Secret::new(format!("Bearer {api_key}")),
            fingerprint_key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            charges: Vec::new(),
            by_reference: HashMap::new(),
            late: Vec::new(),
            vault: HashMap::new(),
            changes: HashMap::new(),
            faults: VecDeque::new(),
            flaky: None,
            judgements: VecDeque::new(),
        }
    }

    /// The next request that has no fault waiting for it goes wrong this way.
    pub fn fail_next(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push_back(fault);
        }
    }

    /// From now on `percent` of all requests go wrong, each in a random way.
    pub fn fail_randomly(&mut self, seed: u64, percent: u32) {
        self.flaky = Some((StdRng::seed_from_u64(seed), percent));
    }

    /// The next sale, and each further one by a further call, is judged so, whatever is paid with.
    pub fn judge_next(&mut self, outcome: Outcome) {
        if self.judgements.len() < FAULTS_MAX {
            self.judgements.push_back(outcome);
        }
    }

    /// From now on every card that is kept is judged so.
    pub fn judge_kept(&mut self, outcome: Outcome) {
        self.vault.values_mut().for_each(|card| card.outcome = outcome);
    }

    /// Forgets all cards.
    pub fn empty_vault(&mut self) {
        self.vault.clear();
    }

    /// Whether no fault ordered with [`Simulator::fail_next`] is left.
    pub fn is_quiet(&self) -> bool {
        self.faults.is_empty()
    }

    /// Every sale that was processed, whatever its outcome, oldest first.
    pub fn sales(&self) -> &[Charge] {
        &self.charges
    }

    /// Answers a request; `now_ms` is Unix time.
    pub fn handle(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Action {
        self.process_late(now_ms);
        let given = request.headers().get(http::header::AUTHORIZATION);
        if given.map(|value| value.as_bytes()) != Some(self.authorization.expose().as_bytes()) {
            return Action::Reply(error(StatusCode::UNAUTHORIZED, "unauthorized"));
        }
        let path = request.uri().path();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (request.method(), &parts[..]) {
            (&Method::POST, ["v1", "sales"]) => self.sale(now_ms, request),
            (&Method::GET, ["v1", "sales"]) => {
                let reply = self.lookup(now_ms, request.uri().query().unwrap_or_default());
                self.faulty_read(reply)
            }
            (&Method::POST, ["v1", "sales", id, act @ ("void" | "refund")]) => {
                self.change(now_ms, id, act, request)
            }
            _ => Action::Reply(error(StatusCode::NOT_FOUND, "no_such_path")),
        }
    }

    /// [`Simulator::handle`] for callers without a network: what an HTTP client would report.
    pub fn exchange(&mut self, now_ms: i64, request: Request) -> Exchange {
        let mut whole = http::Request::from_parts(request.head, request.body.to_vec());
        let action = self.handle(now_ms, &whole);
        zeroize::Zeroize::zeroize(whole.body_mut());
        action.exchange()
    }

    fn process_late(&mut self, now_ms: i64) {
        while let Some(at) = self.late.iter().position(|(due_ms, _)| *due_ms <= now_ms) {
            let (_, charge) = self.late.swap_remove(at);
            self.book(charge);
        }
    }

    fn book(&mut self, charge: Charge) {
        let key = encoded(&charge.reference);
        if !self.by_reference.contains_key(&key) {
            if let Some(token) = charge.token.clone().filter(|_| self.vault.len() < SALES_MAX) {
                let (brand, last4, outcome) = (charge.brand, charge.last4, charge.outcome);
                let network_id = network_id(&charge);
                self.vault.insert(token, Vaulted { brand, last4, outcome, network_id });
            }
            self.by_reference.insert(key, self.charges.len());
            self.charges.push(charge);
        }
    }

    fn sale(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Action {
        let Ok(body) = serde_json::from_slice::<SaleRequest>(request.body()) else {
            return Action::Reply(error(StatusCode::BAD_REQUEST, "unreadable_body"));
        };
        let given = request.headers().get("idempotency-key").map(|key| key.as_bytes());
        let key = encoded(&body.reference);
        let currency = Currency::from_code(&body.currency);
        // What is verified costs nothing, and nothing else does.
        let amount = if body.verify { body.amount == 0 } else { body.amount > 0 };
        let valid = amount && (0..=body.amount).contains(&body.fee);
        let (Some(currency), true, true) = (currency, valid, given == Some(key.as_bytes())) else {
            return Action::Reply(error(StatusCode::BAD_REQUEST, "invalid_request"));
        };
        let fingerprint = self.fingerprint(request.body());
        if let Some(&at) = self.by_reference.get(&key) {
            let charge = &self.charges[at];
            let same = charge.fingerprint == fingerprint;
            return Action::Reply(match same {
                true => sale_reply(charge, now_ms),
                false => error(StatusCode::CONFLICT, "idempotency_mismatch"),
            });
        }
        if self.charges.len() + self.late.len() >= SALES_MAX {
            return Action::Reply(error(StatusCode::TOO_MANY_REQUESTS, "simulator_full"));
        }
        let last4 = |number: &str| Last4::parse(number.get(number.len().saturating_sub(4)..)?);
        let (brand, last4, outcome) = match (&body.card, &body.bank, &body.saved) {
            (Some(card), None, None) => {
                let brand = Pan::parse(card.number).ok().as_ref().map(Pan::brand);
                (brand, last4(card.number), judged(card, now_ms))
            }
            (None, Some(bank), None) if bank.entry_class == "TEL" && !body.save && !body.verify => {
                (None, last4(bank.number), judged_account(bank))
            }
            (None, None, Some(saved)) if !body.save && !body.verify => match self
                .vault
                .get(saved.token)
            {
                Some(card) if body.network_id.as_ref().is_none_or(|id| *id == card.network_id) => {
                    (card.brand, card.last4, card.outcome)
                }
                Some(card) => (card.brand, card.last4, NOT_THE_FIRST),
                None => (None, None, NO_SUCH_TOKEN),
            },
            _ => return Action::Reply(error(StatusCode::BAD_REQUEST, "invalid_request")),
        };
        let outcome = self.judgements.pop_front().unwrap_or(outcome);
        let charge = Charge {
            id: format!("sale_{:06}", self.charges.len() + self.late.len() + 1),
            total: Money::new(body.amount, currency),
            fee: Money::new(body.fee, currency),
            brand,
            bank: body.bank.is_some(),
            last4,
            outcome,
            token: (body.save && outcome == Outcome::Approved).then(|| token(&fingerprint)),
            at_ms: now_ms,
            refunded: 0,
            processing_until_ms: i64::MIN,
            fingerprint,
            reference: body.reference.into_owned(),
        };
        let fault = self.next_fault().or_else(|| triggered(&charge));
        self.conclude(now_ms, charge, fault)
    }

    /// Books the sale, or not, and answers, or not.
    fn conclude(&mut self, now_ms: i64, mut charge: Charge, fault: Option<Fault>) -> Action {
        let reply = sale_reply(&charge, now_ms);
        match fault {
            Some(Fault::CloseUnprocessed) => return Action::CloseUnprocessed,
            Some(Fault::ErrorUnprocessed) => {
                return Action::Reply(error(StatusCode::INTERNAL_SERVER_ERROR, "internal"));
            }
            Some(Fault::TooManyRequests) => {
                return Action::Reply(error(StatusCode::TOO_MANY_REQUESTS, "busy"));
            }
            Some(Fault::Late) => {
                self.late.push((now_ms + LATE_MS, charge));
                return Action::CloseUnprocessed;
            }
            Some(Fault::Pending) => charge.processing_until_ms = now_ms + PROCESSING_MS,
            _ => {}
        }
        self.book(charge);
        match fault {
            None => Action::Reply(reply),
            Some(Fault::Slow) => Action::Delayed(SLOW_MS, reply),
            Some(Fault::StallAfterProcessing) => Action::Stall,
            Some(Fault::CloseMidReply) => Action::CloseMidReply(reply),
            Some(Fault::Garbled) => Action::Reply(garbled(reply)),
            Some(Fault::ErrorAfterProcessing) => {
                Action::Reply(error(StatusCode::INTERNAL_SERVER_ERROR, "internal"))
            }
            Some(_) => Action::CloseAfterProcessing,
        }
    }

    fn next_fault(&mut self) -> Option<Fault> {
        if let Some(fault) = self.faults.pop_front() {
            return Some(fault);
        }
        let (rng, percent) = self.flaky.as_mut()?;
        let failing = rng.random_range(0..100) < *percent;
        failing.then(|| Fault::ALL[rng.random_range(0..Fault::ALL.len())])
    }

    /// A lookup goes wrong as any request does, but there is nothing to process.
    fn faulty_read(&mut self, reply: Response<Vec<u8>>) -> Action {
        match self.next_fault() {
            None => Action::Reply(reply),
            Some(Fault::Slow) => Action::Delayed(SLOW_MS, reply),
            Some(Fault::StallAfterProcessing) => Action::Stall,
            Some(Fault::CloseMidReply) => Action::CloseMidReply(reply),
            Some(Fault::Garbled) => Action::Reply(garbled(reply)),
            Some(Fault::TooManyRequests) => {
                Action::Reply(error(StatusCode::TOO_MANY_REQUESTS, "busy"))
            }
            Some(Fault::ErrorAfterProcessing | Fault::ErrorUnprocessed) => {
                Action::Reply(error(StatusCode::INTERNAL_SERVER_ERROR, "internal"))
            }
            Some(_) => Action::CloseUnprocessed,
        }
    }

    fn lookup(&self, now_ms: i64, query: &str) -> Response<Vec<u8>> {
        let Some(wanted) = query.strip_prefix("reference=") else {
            return error(StatusCode::BAD_REQUEST, "invalid_request");
        };
        let found = self.by_reference.get(wanted).map(|&at| &self.charges[at]);
        let sales: Vec<Value> = found.iter().map(|charge| sale_json(charge, now_ms)).collect();
        reply(StatusCode::OK, &json!({ "sales": sales }))
    }

    /// Voids or refunds once for each idempotency key, and goes wrong as any request does.
    fn change(
        &mut self,
        now_ms: i64,
        id: &str,
        act: &str,
        request: &http::Request<Vec<u8>>,
    ) -> Action {
        let key = request.headers().get("idempotency-key").map(|key| key.as_bytes().to_vec());
        let before = key.as_ref().and_then(|key| self.changes.get(key).cloned());
        if let Some(reply) = before {
            return self.faulty_read(reply);
        }
        let fault = self.next_fault();
        if fault.is_some_and(|fault| !fault.processes()) {
            return Action::CloseUnprocessed;
        }
        let reply = match act {
            "void" => self.void(now_ms, id),
            _ => self.refund(now_ms, id, request.body()),
        };
        if let Some(key) = key.filter(|_| reply.status() == StatusCode::OK)
            && self.changes.len() < SALES_MAX
        {
            self.changes.insert(key, reply.clone());
        }
        match fault {
            None => Action::Reply(reply),
            Some(Fault::Garbled) => Action::Reply(garbled(reply)),
            Some(_) => Action::CloseAfterProcessing,
        }
    }

    fn void(&mut self, now_ms: i64, id: &str) -> Response<Vec<u8>> {
        let Some(charge) = self.charges.iter_mut().find(|charge| charge.id == id) else {
            return error(StatusCode::NOT_FOUND, "no_such_sale");
        };
        let settled = now_ms - charge.at_ms >= SETTLE_MS;
        match charge.outcome {
            Outcome::Voided => {}
            Outcome::Approved | Outcome::Held(_) if !settled => charge.outcome = Outcome::Voided,
            Outcome::Approved => return error(StatusCode::CONFLICT, "already_settled"),
            _ => return error(StatusCode::CONFLICT, "not_approved"),
        }
        reply(StatusCode::OK, &sale_json(charge, now_ms))
    }

    fn refund(&mut self, now_ms: i64, id: &str, body: &[u8]) -> Response<Vec<u8>> {
        let Some(charge) = self.charges.iter_mut().find(|charge| charge.id == id) else {
            return error(StatusCode::NOT_FOUND, "no_such_sale");
        };
        let Ok(body) = serde_json::from_slice::<RefundRequest>(body) else {
            return error(StatusCode::BAD_REQUEST, "unreadable_body");
        };
        let left = charge.total.minor - charge.refunded;
        if charge.outcome != Outcome::Approved {
            return error(StatusCode::CONFLICT, "not_approved");
        }
        if now_ms - charge.at_ms < SETTLE_MS {
            return error(StatusCode::CONFLICT, "not_settled");
        }
        if body.currency != charge.total.currency.code() || !(1..=left).contains(&body.amount) {
            return error(StatusCode::CONFLICT, "more_than_charged");
        }
        charge.refunded += body.amount;
        reply(StatusCode::OK, &sale_json(charge, now_ms))
    }

    fn fingerprint(&self, body: &[u8]) -> [u8; 16] {
        let tag = hmac::sign(&self.fingerprint_key, body);
        let mut short = [0; 16];
        short.copy_from_slice(&tag.as_ref()[..16]);
        short
    }
}

impl Server for Simulator {
    fn answer(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Response<Vec<u8>> {
        match self.handle(now_ms, request).exchange() {
            Exchange::Response(response) => response,
            _ => error(StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    fn entries(&self) -> Vec<Entry> {
        self.charges.iter().map(entry).collect()
    }

    fn trigger(&self, case: Case) -> Option<Trigger> {
        simulator::by_number(case).filter(|_| case != Case::Partial)
    }
}

/// A sale as the common books show it.
fn entry(charge: &Charge) -> Entry {
    let case = match charge.outcome {
        Outcome::Approved | Outcome::Voided => Case::Approved,
        Outcome::Declined(_, "never", _) => Case::DeclinedHard,
        Outcome::Declined(_, _, "number") => Case::Number,
        Outcome::Declined(_, _, "expiry") => Case::Expiry,
        Outcome::Declined(_, _, "cvv") => Case::Cvv,
        Outcome::Declined(_, _, "zip") => Case::Zip,
        Outcome::Declined(_, _, "routing") => Case::Routing,
        Outcome::Declined(_, _, "account") => Case::Account,
        Outcome::Declined(..) => Case::DeclinedSoft,
        Outcome::Held(_) => Case::Held,
    };
    let approved = case == Case::Approved;
    Entry {
        id: charge.id.clone(),
        at_ms: charge.at_ms,
        captured: if approved { charge.total.minor } else { 0 },
        refunded: charge.refunded,
        voided: charge.outcome == Outcome::Voided,
        auth_code: String::new(),
        order: Order {
            purpose: if charge.total.minor == 0 { Purpose::Verify } else { Purpose::Sale },
            reference: charge.reference.clone(),
            total: charge.total,
            bank: charge.bank,
            last4: charge.last4.map(|last4| last4.as_str().into()).unwrap_or_default(),
            case,
            fingerprint: charge.fingerprint,
        },
    }
}

/// Borrowed from the request, so that no copy of the card stays behind.
#[derive(Deserialize)]
struct SaleRequest<'a> {
    #[serde(borrow)]
    reference: std::borrow::Cow<'a, str>,
    amount: i64,
    fee: i64,
    currency: String,
    #[serde(borrow)]
    card: Option<CardRequest<'a>>,
    #[serde(borrow)]
    bank: Option<BankRequest<'a>>,
    #[serde(borrow)]
    saved: Option<SavedRequest<'a>>,
    #[serde(default)]
    verify: bool,
    #[serde(default)]
    save: bool,
    #[serde(borrow)]
    network_id: Option<std::borrow::Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RefundRequest {
    amount: i64,
    currency: String,
}

fn triggered(charge: &Charge) -> Option<Fault> {
    let at = usize::try_from(charge.total.minor.checked_sub(TRIGGER_TOTAL)?).ok()?;
    (charge.outcome == Outcome::Approved).then(|| Fault::ALL.get(at).copied()).flatten()
}

fn sale_reply(charge: &Charge, now_ms: i64) -> Response<Vec<u8>> {
    let status = match charge.outcome {
        Outcome::Approved | Outcome::Voided => StatusCode::OK,
        Outcome::Declined(..) | Outcome::Held(_) => StatusCode::PAYMENT_REQUIRED,
    };
    reply(status, &sale_json(charge, now_ms))
}

fn error(status: StatusCode, code: &str) -> Response<Vec<u8>> {
    reply(status, &json!({ "error": code }))
}

fn reply(status: StatusCode, body: &Value) -> Response<Vec<u8>> {
    let mut response = Response::new(body.to_string().into_bytes());
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests;
