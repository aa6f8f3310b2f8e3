//! What simulated processors have in common: their books, their triggers, and failing on demand.
//! Sans-IO: requests in, actions out. Each dialect reads and writes for itself.
//!
//! Every card number that is valid is approved, and every account, except those of [`CARDS`] and
//! [`ACCOUNTS`]; a dialect adds the triggers its processor documents.

use std::collections::{HashMap, VecDeque};

use aws_lc_rs::hmac;
use http::{Response, StatusCode};
use zeroize::Zeroize;

use super::{Exchange, Purpose, Request};
use crate::money::Money;

/// What the host of a simulator does with the connection.
#[derive(Debug)]
pub enum Action {
    Reply(Response<Vec<u8>>),
    /// Answers after so many milliseconds.
    Delayed(u64, Response<Vec<u8>>),
    /// Closes without an answer; nothing was processed.
    CloseUnprocessed,
    /// Closes without an answer; the request was processed.
    CloseAfterProcessing,
    /// Sends the head and half of the body, then closes.
    CloseMidReply(Response<Vec<u8>>),
    /// Keeps the connection open and never answers.
    Stall,
}

impl Action {
    /// What an HTTP client would report.
    pub fn exchange(self) -> Exchange {
        match self {
            Action::Reply(response) | Action::Delayed(_, response) => Exchange::Response(response),
            Action::CloseUnprocessed | Action::CloseAfterProcessing => {
                Exchange::NoAnswer("connection closed before an answer".into())
            }
            Action::CloseMidReply(_) => Exchange::NoAnswer("the answer broke off".into()),
            Action::Stall => Exchange::NoAnswer("timeout".into()),
        }
    }
}

/// What can go wrong with a request, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    CloseAfterProcessing,
    CloseUnprocessed,
    ErrorAfterProcessing,
    ErrorUnprocessed,
    Garbled,
    Slow,
    StallAfterProcessing,
    CloseMidReply,
    TooManyRequests,
    /// Processed [`LATE_MS`] after the connection was closed.
    Late,
    /// No answer, and lookups do not know the outcome yet for a while.
    Pending,
}

impl Fault {
    pub const ALL: [Fault; 11] = [
        Fault::CloseAfterProcessing,
        Fault::CloseUnprocessed,
        Fault::ErrorAfterProcessing,
        Fault::ErrorUnprocessed,
        Fault::Garbled,
        Fault::Slow,
        Fault::StallAfterProcessing,
        Fault::CloseMidReply,
        Fault::TooManyRequests,
        Fault::Late,
        Fault::Pending,
    ];

    /// Whether the sale ends up in the books although the answer was lost.
    pub fn processes(self) -> bool {
        !matches!(self, Fault::CloseUnprocessed | Fault::ErrorUnprocessed | Fault::TooManyRequests)
    }
}

pub const SLOW_MS: u64 = 5_000;
pub const LATE_MS: i64 = 10_000;
/// A sale settles after a day: until then it can be voided, from then on refunded.
pub const SETTLE_MS: i64 = 24 * 3_600_000;

/// How a processor judges what it is asked to charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    Approved,
    /// Less than asked.
    Partial,
    DeclinedSoft,
    DeclinedHard,
    Number,
    Expiry,
    Cvv,
    Zip,
    Routing,
    Account,
    Held,
}

impl Case {
    pub const ALL: [Case; 11] = [
        Case::Approved,
        Case::Partial,
        Case::DeclinedSoft,
        Case::DeclinedHard,
        Case::Number,
        Case::Expiry,
        Case::Cvv,
        Case::Zip,
        Case::Routing,
        Case::Account,
        Case::Held,
    ];
}

pub const CARDS: [(&str, Case); 9] = [
    ("4000000000000002", Case::DeclinedSoft),
    ("4000000000009995", Case::DeclinedSoft),
    ("4000000000009979", Case::DeclinedHard),
    ("4000000000000119", Case::Number),
    ("4000000000000069", Case::Expiry),
    ("4000000000000127", Case::Cvv),
    ("4000000000000010", Case::Zip),
    ("4000000000009235", Case::Held),
    ("4000000000000259", Case::Partial),
];

/// Account numbers, whatever the bank.
pub const ACCOUNTS: [(&str, Case); 4] = [
    ("000111111116", Case::DeclinedSoft),
    ("000111111113", Case::DeclinedHard),
    ("000111111117", Case::Routing),
    ("000111111118", Case::Account),
];

/// What to charge so that a case comes up. Fields that are `None` may be anything valid.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trigger {
    /// A card's number, or with `bank` an account's.
    pub number: Option<&'static str>,
    pub bank: bool,
    pub cvv: Option<&'static str>,
    pub zip: Option<&'static str>,
    pub minor: Option<i64>,
}

/// The number that brings a case up everywhere.
pub fn by_number(case: Case) -> Option<Trigger> {
    let find = |table: &[(&'static str, Case)]| {
        table.iter().find(|(_, judged)| *judged == case).map(|(number, _)| *number)
    };
    let (card, account) = (find(&CARDS), find(&ACCOUNTS));
    match case {
        Case::Approved => Some(Trigger::default()),
        Case::Routing | Case::Account => {
            account.map(|number| Trigger { number: Some(number), bank: true, ..Trigger::default() })
        }
        _ => card.map(|number| Trigger { number: Some(number), ..Trigger::default() }),
    }
}

/// How the tables judge a number.
pub fn judged(number: &str, bank: bool) -> Case {
    let table: &[(&str, Case)] = if bank { &ACCOUNTS } else { &CARDS };
    let found = table.iter().find(|(listed, _)| *listed == number);
    match found {
        Some((_, case)) => *case,
        None if !bank && !crate::instrument::luhn(number) => Case::Number,
        None => Case::Approved,
    }
}

/// A charge as a dialect's server understood it.
#[derive(Clone, Debug)]
pub struct Order {
    pub purpose: Purpose,
    pub reference: String,
    pub total: Money,
    pub bank: bool,
    /// Of the card or account.
    pub last4: String,
    pub case: Case,
    /// What makes two charges the same to this processor, hashed by [`Books::fingerprint`].
    pub fingerprint: [u8; 16],
}

/// A charge in the books.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: String,
    pub order: Order,
    pub at_ms: i64,
    /// What was taken, in minor units.
    pub captured: i64,
    /// Of this, paid back.
    pub refunded: i64,
    pub voided: bool,
    pub auth_code: String,
}

impl Entry {
    pub fn is_approved(&self) -> bool {
        matches!(self.order.case, Case::Approved | Case::Partial)
    }

    /// What was approved, in minor units.
    pub fn approved(&self) -> i64 {
        match self.order.case {
            Case::Approved => self.order.total.minor,
            Case::Partial => self.order.total.minor / 2,
            _ => 0,
        }
    }

    /// What the card network calls it.
    pub fn network(&self) -> String {
        format!("N{}", self.id)
    }

    pub fn is_settled(&self, now_ms: i64) -> bool {
        self.captured > 0 && now_ms - self.at_ms >= SETTLE_MS
    }
}

/// Why a capture, void or refund is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoSuch,
    NotApproved,
    AlreadyCaptured,
    Settled,
    NotSettled,
    TooMuch,
    Voided,
}

/// Charges kept; beyond them nothing is processed.
pub const ENTRIES_MAX: usize = 100_000;

pub struct Books {
    key: hmac::Key,
    name: fn(usize) -> String,
    entries: Vec<Entry>,
    by_reference: HashMap<String, usize>,
    /// Tokens given out, and how what they stand for is judged.
    tokens: HashMap<String, (String, bool, Case)>,
    /// What the network, or the processor, calls the charges that tokens were given out with.
    firsts: HashMap<String, String>,
    /// Whether a charge can be paid back before it has settled.
    pub refunds_at_once: bool,
}

impl Books {
    /// `name` makes the n-th charge's id.
    pub fn new(seed: u64, name: fn(usize) -> String) -> Books {
        Books {
            key: hmac::Key::new(hmac::HMAC_SHA256, &seed.to_be_bytes()),
            name,
            entries: Vec::new(),
            by_reference: HashMap::new(),
            tokens: HashMap::new(),
            firsts: HashMap::new(),
            refunds_at_once: false,
        }
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Stands for `content` in the books, which may hold a card's number.
    pub fn fingerprint(&self, content: &[&str]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in content {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut short = [0; 16];
        short.copy_from_slice(&context.sign().as_ref()[..16]);
        short
    }

    /// Books a charge under the next id; the latest of a reference is the one that lookups find.
    pub fn charge(&mut self, now_ms: i64, order: Order) -> &Entry {
        let n = self.entries.len() + 1;
        let mut entry = Entry {
            id: (self.name)(n),
            at_ms: now_ms,
            captured: 0,
            refunded: 0,
            voided: false,
            auth_code: format!("A{n:05}"),
            order,
        };
        if entry.order.purpose == Purpose::Sale && entry.is_approved() {
            entry.captured = entry.approved();
        }
        let at = self.entries.len();
        if at < ENTRIES_MAX {
            self.by_reference.insert(entry.order.reference.clone(), at);
            self.entries.push(entry);
        }
        &self.entries[at.min(ENTRIES_MAX - 1)]
    }

    pub fn by_reference(&self, reference: &str) -> Option<&Entry> {
        self.by_reference.get(reference).map(|at| &self.entries[*at])
    }

    pub fn by_id(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    /// The latest charge that is the same and not older than `window_s`.
    pub fn same(&self, now_ms: i64, fingerprint: [u8; 16], window_s: i64) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| {
            entry.order.fingerprint == fingerprint
                && entry.is_approved()
                && now_ms - entry.at_ms < window_s * 1_000
        })
    }

    pub fn keep(&mut self, token: &str, last4: &str, bank: bool, case: Case) {
        if self.tokens.len() < ENTRIES_MAX {
            self.tokens.insert(token.to_string(), (last4.to_string(), bank, case));
        }
    }

    /// A token was given out with the charge of this id.
    pub fn keep_first(&mut self, token: &str, first: &str) {
        if self.firsts.len() < ENTRIES_MAX {
            self.firsts.insert(token.to_string(), first.to_string());
        }
    }

    /// Whether a charge by the merchant may name `first` as the one a token was given out with;
    /// one that names none does not lie.
    pub fn is_first(&self, token: &str, first: Option<&str>) -> bool {
        first.is_none_or(|first| self.firsts.get(token).is_some_and(|known| known == first))
    }

    /// Last four digits, whether it is an account, and how it is judged.
    pub fn kept(&self, token: &str) -> Option<(String, bool, Case)> {
        self.tokens.get(token).cloned()
    }

    pub fn capture(&mut self, now_ms: i64, id: &str, minor: i64) -> Result<&Entry, Refusal> {
        let entry = self.of_id(id)?;
        match entry {
            _ if entry.voided => Err(Refusal::Voided),
            _ if entry.captured > 0 => Err(Refusal::AlreadyCaptured),
            _ if entry.order.purpose != Purpose::Authorize => Err(Refusal::NotApproved),
            _ if !(1..=entry.approved()).contains(&minor) => Err(Refusal::TooMuch),
            entry => {
                entry.captured = minor;
                entry.at_ms = now_ms;
                Ok(entry)
            }
        }
    }

    pub fn void(&mut self, now_ms: i64, id: &str) -> Result<&Entry, Refusal> {
        let entry = self.of_id(id)?;
        match entry {
            _ if entry.voided => Err(Refusal::Voided),
            _ if entry.is_settled(now_ms) => Err(Refusal::Settled),
            entry => {
                entry.voided = true;
                Ok(entry)
            }
        }
    }

    pub fn refund(&mut self, now_ms: i64, id: &str, minor: i64) -> Result<&Entry, Refusal> {
        let at_once = self.refunds_at_once;
        let entry = self.of_id(id)?;
        match entry {
            _ if entry.voided => Err(Refusal::Voided),
            _ if !at_once && !entry.is_settled(now_ms) => Err(Refusal::NotSettled),
            _ if !(1..=entry.captured - entry.refunded).contains(&minor) => Err(Refusal::TooMuch),
            entry => {
                entry.refunded += minor;
                Ok(entry)
            }
        }
    }

    /// An approved charge.
    fn of_id(&mut self, id: &str) -> Result<&mut Entry, Refusal> {
        let entry = self.entries.iter_mut().find(|entry| entry.id == id).ok_or(Refusal::NoSuch)?;
        if !entry.is_approved() && entry.order.case != Case::Held {
            return Err(Refusal::NotApproved);
        }
        Ok(entry)
    }
}

/// A processor's dialect from its side.
pub trait Server: Send {
    /// Processes a request and answers it.
    fn answer(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Response<Vec<u8>>;
    /// Everything that was processed, oldest first.
    fn entries(&self) -> Vec<Entry>;
    /// How to bring a case up; `None` if this processor has no such answer.
    fn trigger(&self, case: Case) -> Option<Trigger>;
}

/// What every simulated processor accepts as its secret: a key of ours in base64.
pub const SECRET: &str = "cmluZ3RpbGwtc2ltdWxhdG9yLXNlY3JldC0wMDAwMDE=";

const FAULTS_MAX: usize = 1_000;

/// A simulated processor that fails on demand.
pub struct Simulator {
    server: Box<dyn Server>,
    faults: VecDeque<Fault>,
    /// Requests that are processed later, and when.
    late: Vec<(i64, http::Request<Vec<u8>>)>,
    ahead_ms: i64,
}

impl Simulator {
    pub fn new(server: Box<dyn Server>) -> Simulator {
        Simulator { server, faults: VecDeque::new(), late: Vec::new(), ahead_ms: 0 }
    }

    /// The next request that has no fault waiting for it goes wrong this way.
    pub fn fail_next(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push_back(fault);
        }
    }

    /// From now on the simulator's clock is so much further.
    pub fn advance(&mut self, ms: i64) {
        self.ahead_ms += ms;
    }

    /// Everything that was processed, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.server.entries()
    }

    pub fn trigger(&self, case: Case) -> Option<Trigger> {
        self.server.trigger(case)
    }

    /// Answers a request; `now_ms` is Unix time.
    pub fn handle(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Action {
        let now_ms = now_ms + self.ahead_ms;
        while let Some(at) = self.late.iter().position(|(due_ms, _)| *due_ms <= now_ms) {
            let (due_ms, mut late) = self.late.swap_remove(at);
            self.server.answer(due_ms, &late);
            late.body_mut().zeroize();
        }
        match self.faults.pop_front() {
            None => Action::Reply(self.server.answer(now_ms, request)),
            Some(Fault::CloseUnprocessed) => Action::CloseUnprocessed,
            Some(Fault::ErrorUnprocessed) => Action::Reply(failure()),
            Some(Fault::TooManyRequests) => {
                Action::Reply(plain(StatusCode::TOO_MANY_REQUESTS, b"busy"))
            }
            Some(Fault::Late | Fault::Pending) => {
                self.late.push((now_ms + LATE_MS, request.clone()));
                Action::CloseUnprocessed
            }
            Some(fault) => processed(fault, self.server.answer(now_ms, request)),
        }
    }

    /// [`Simulator::handle`] for callers without a network: what an HTTP client would report.
    pub fn exchange(&mut self, now_ms: i64, request: Request) -> Exchange {
        let mut whole = http::Request::from_parts(request.head, request.body.to_vec());
        let action = self.handle(now_ms, &whole);
        whole.body_mut().zeroize();
        action.exchange()
    }
}

/// What becomes of the answer to a request that was processed.
fn processed(fault: Fault, reply: Response<Vec<u8>>) -> Action {
    match fault {
        Fault::Slow => Action::Delayed(SLOW_MS, reply),
        Fault::StallAfterProcessing => Action::Stall,
        Fault::CloseMidReply => Action::CloseMidReply(reply),
        Fault::Garbled => Action::Reply(garbled(reply)),
        Fault::ErrorAfterProcessing => Action::Reply(failure()),
        _ => Action::CloseAfterProcessing,
    }
}

/// Half of the body, and a byte that is no text.
pub fn garbled(mut response: Response<Vec<u8>>) -> Response<Vec<u8>> {
    let body = response.body_mut();
    body.truncate(body.len() / 2);
    body.push(0xff);
    response
}

fn failure() -> Response<Vec<u8>> {
    plain(StatusCode::INTERNAL_SERVER_ERROR, b"internal error")
}

fn plain(status: StatusCode, body: &[u8]) -> Response<Vec<u8>> {
    reply(status, "text/plain", body)
}

pub fn reply(status: StatusCode, kind: &'static str, body: &[u8]) -> Response<Vec<u8>> {
    let mut response = Response::new(body.to_vec());
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static(kind);
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// Members of a form by name, percent-decoded; the last of a name counts.
pub fn form(text: &str) -> HashMap<String, String> {
    let decoded = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

/// The last four characters.
pub fn last4(number: &str) -> String {
    number.get(number.len().saturating_sub(4)..).unwrap_or_default().to_string()
}
