//! Stripe's API with its test cards, and idempotency keys that replay for a day and refuse another
//! request under the same key.

use std::collections::HashMap;

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::gateway::Purpose;
use crate::gateway::simulator::{
    self, Books, Case, Entry, Order, Refusal, SECRET, Server, Trigger, by_number, form, judged,
    last4,
};
use crate::money::{Currency, Money};

pub struct Api {
    books: Books,
    /// Key -> fingerprint of the request, and what was answered.
    answered: HashMap<String, ([u8; 16], StatusCode, Value)>,
}

const KEYS_MAX: usize = 100_000;

type Answer = (StatusCode, Value);

impl Api {
    pub fn new(seed: u64) -> Api {
        let mut books = Books::new(seed, |n| format!("pi_{n:024}"));
        books.refunds_at_once = true;
        Api { books, answered: HashMap::new() }
    }

    fn post(&mut self, now_ms: i64, path: &str, fields: &HashMap<String, String>) -> Answer {
        let at = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let amount = |name: &str| at(name).parse::<i64>().ok();
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        let done = match parts[..] {
            ["payment_intents" | "setup_intents"] => return self.charge(now_ms, parts[0], fields),
            ["customers"] => return self.attach(at("payment_method")),
            ["payment_intents", id, "capture"] => {
                let minor = amount("amount_to_capture").unwrap_or_default();
                self.books.capture(now_ms, id, minor).cloned()
            }
            ["payment_intents", id, "cancel"] => match self.books.by_id(id) {
                Some(entry) if entry.captured > 0 => Err(Refusal::AlreadyCaptured),
                _ => self.books.void(now_ms, id).cloned(),
            },
            ["refunds"] => {
                let id = at("payment_intent");
                let left = self.books.by_id(id).map_or(0, |e| e.captured - e.refunded);
                match self.books.refund(now_ms, id, amount("amount").unwrap_or(left)).cloned() {
                    Ok(entry) => {
                        // Paid back in full at once, it is as if it had never been.
                        if amount("amount").is_none() {
                            let _ = self.books.void(now_ms, id);
                        }
                        let id = format!("re_{}", entry.id);
                        let body = json!({ "id": id, "object": "refund", "status": "succeeded" });
                        return (StatusCode::OK, body);
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            _ => return missing(),
        };
        match done {
            Ok(entry) => (StatusCode::OK, shown(&entry)),
            Err(Refusal::NoSuch) => missing(),
            Err(Refusal::TooMuch) => invalid("amount_too_large"),
            Err(Refusal::Voided) if parts[0] == "refunds" => invalid("charge_already_refunded"),
            Err(_) => invalid("payment_intent_unexpected_state"),
        }
    }

    /// A customer with this card, which can be charged from now on.
    fn attach(&mut self, method: &str) -> Answer {
        let Some((last4, bank, case)) = self.books.kept(method) else {
            return gone("payment_method");
        };
        let customer = format!("cus_{}", method.trim_start_matches("pm_"));
        self.books.keep(&format!("{customer}/{method}"), &last4, bank, case);
        (StatusCode::OK, json!({ "id": customer, "object": "customer" }))
    }

    fn charge(&mut self, now_ms: i64, kind: &str, fields: &HashMap<String, String>) -> Answer {
        let at = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let number = at("payment_method_data[card][number]");
        let token = format!("{}/{}", at("customer"), at("payment_method"));
        let (last4, case) = match at("payment_method") {
            "" => (last4(number), judged(number, false)),
            _ => match self.books.kept(&token) {
                Some((last4, _, case)) => (last4, case),
                None => return gone("customer"),
            },
        };
        // Nobody is there to key a card that is kept.
        let moto = at("payment_method_options[card][moto]") == "true";
        let alone = at("off_session") == "true" && !at("payment_method").is_empty();
        if !(moto || alone) || at("confirm") != "true" {
            return invalid("parameter_missing");
        }
        let verify = kind == "setup_intents";
        let currency = Currency::from_code(&at("currency").to_ascii_uppercase());
        let Some(currency) = currency.or(verify.then_some(Currency::USD)) else {
            return invalid("currency_invalid");
        };
        let order = Order {
            purpose: match at("capture_method") {
                _ if verify => Purpose::Verify,
                "manual" => Purpose::Authorize,
                _ => Purpose::Sale,
            },
            reference: at("metadata[ref]").to_string(),
            total: Money::new(at("amount").parse().unwrap_or_default(), currency),
            bank: false,
            last4,
            case,
            fingerprint: self.books.fingerprint(&[number, &token, at("amount")]),
        };
        let entry = self.books.charge(now_ms, order).clone();
        let usage = if verify { "usage" } else { "setup_future_usage" };
        if at(usage) == "off_session" && entry.is_approved() {
            let order = &entry.order;
            self.books.keep(&method(&entry), &order.last4, false, order.case);
        }
        let entry = &entry;
        match error(entry) {
            None => (StatusCode::OK, shown(entry)),
            Some(mut error) => {
                error["type"] = "card_error".into();
                error["payment_intent"] = shown(entry);
                (StatusCode::PAYMENT_REQUIRED, json!({ "error": error }))
            }
        }
    }

    fn list(&self, kind: &str, query: &str) -> Answer {
        let fields = form(query);
        let bound = |name: &str| fields.get(name).and_then(|text| text.parse::<i64>().ok());
        let (from, to) = (bound("created[gte]"), bound("created[lte]"));
        let verify = kind == "setup_intents";
        let entries = self.books.entries().iter().filter(|entry| {
            let created = entry.at_ms / 1_000;
            (entry.order.purpose == Purpose::Verify) == verify
                && from.is_none_or(|from| created >= from)
                && to.is_none_or(|to| created <= to)
        });
        let mut rows: Vec<&Entry> = entries.rev().collect();
        if let Some(after) = fields.get("starting_after") {
            let at = rows.iter().position(|entry| entry.id == *after).map_or(0, |at| at + 1);
            rows.drain(..at);
        }
        let limit = bound("limit").and_then(|n| usize::try_from(n).ok()).unwrap_or(10);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let data: Vec<Value> = rows.into_iter().map(shown).collect();
        (StatusCode::OK, json!({ "object": "list", "data": data, "has_more": more }))
    }

    /// What the key was answered before, if it was.
    fn replayed(
        &mut self,
        now_ms: i64,
        request: &http::Request<Vec<u8>>,
        fields: &HashMap<String, String>,
    ) -> Answer {
        let path = request.uri().path();
        let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
        let Some(key) = key.map(str::to_string) else { return invalid("parameter_missing") };
        let content = String::from_utf8_lossy(request.body());
        let fingerprint = self.books.fingerprint(&[path, &content]);
        if let Some((first, status, body)) = self.answered.get(&key) {
            return match *first == fingerprint {
                true => (*status, body.clone()),
                false => {
                    let error = json!({ "error": { "type": "idempotency_error" } });
                    (StatusCode::BAD_REQUEST, error)
                }
            };
        }
        let (status, body) = self.post(now_ms, path, fields);
        if self.answered.len() < KEYS_MAX {
            self.answered.insert(key, (fingerprint, status, body.clone()));
        }
        (status, body)
    }
}

impl Server for Api {
    fn answer(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Response<Vec<u8>> {
        let given = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let (status, body) = if given != Some(&format!("Bearer {SECRET}")) {
            let error = json!({ "error": { "type": "invalid_request_error" } });
            (StatusCode::UNAUTHORIZED, error)
        } else if *request.method() == Method::GET {
            let kind = request.uri().path().trim_start_matches("/v1/");
            self.list(kind, request.uri().query().unwrap_or_default())
        } else {
            let fields = form(&String::from_utf8_lossy(request.body()));
            self.replayed(now_ms, request, &fields)
        };
        simulator::reply(status, "application/json", body.to_string().as_bytes())
    }

    fn entries(&self) -> Vec<Entry> {
        self.books.entries().to_vec()
    }

    fn trigger(&self, case: Case) -> Option<Trigger> {
        let bank = matches!(case, Case::Routing | Case::Account);
        by_number(case).filter(|_| !bank && case != Case::Held)
    }
}

/// The error of a card that is not charged.
fn error(entry: &Entry) -> Option<Value> {
    Some(match entry.order.case {
        Case::Approved | Case::Partial => return None,
        Case::DeclinedHard => json!({ "code": "card_declined", "decline_code": "stolen_card",
            "advice_code": "do_not_try_again" }),
        Case::Number => json!({ "code": "incorrect_number" }),
        Case::Expiry => json!({ "code": "expired_card" }),
        Case::Cvv => json!({ "code": "incorrect_cvc" }),
        Case::Zip => json!({ "code": "incorrect_zip" }),
        _ => json!({ "code": "card_declined", "decline_code": "insufficient_funds" }),
    })
}

fn shown(entry: &Entry) -> Value {
    let verify = entry.order.purpose == Purpose::Verify;
    let error = error(entry);
    let status = match entry {
        entry if entry.voided => "canceled",
        _ if error.is_some() => "requires_payment_method",
        entry if entry.captured > 0 || verify => "succeeded",
        _ => "requires_capture",
    };
    let mut intent = json!({
        "id": entry.id, "status": status, "metadata": { "ref": entry.order.reference },
        "object": if verify { "setup_intent" } else { "payment_intent" },
        "payment_method": method(entry),
        "latest_charge": { "payment_method_details": { "card": {
            "authorization_code": entry.auth_code,
            "checks": { "address_postal_code_check": "pass", "cvc_check": "pass" } } } },
    });
    if !verify {
        intent["amount"] = entry.order.total.minor.into();
        intent["currency"] = entry.order.total.currency.code().to_ascii_lowercase().into();
        intent["amount_received"] = entry.captured.into();
        let open = if entry.captured == 0 && !entry.voided { entry.approved() } else { 0 };
        intent["amount_capturable"] = open.into();
    }
    let last = if verify { "last_setup_error" } else { "last_payment_error" };
    intent[last] = error.unwrap_or_default();
    intent
}

fn invalid(code: &str) -> Answer {
    let error = json!({ "error": { "type": "invalid_request_error", "code": code } });
    (StatusCode::BAD_REQUEST, error)
}

/// What Stripe calls the card that was charged.
fn method(entry: &Entry) -> String {
    entry.id.replace("pi_", "pm_")
}

fn gone(param: &str) -> Answer {
    let error = json!({ "error": { "type": "invalid_request_error", "code": "resource_missing",
        "param": param } });
    (StatusCode::BAD_REQUEST, error)
}

fn missing() -> Answer {
    let error = json!({ "error": { "type": "invalid_request_error", "code": "resource_missing" } });
    (StatusCode::NOT_FOUND, error)
}
