//! Adyen's Checkout with keys that replay. Modifications are taken in and done at once here.

use std::collections::HashMap;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::gateway::simulator::{
    self, Books, Case, Entry, Order, Refusal, SECRET, Server, Trigger, by_number, judged, last4,
};
use crate::gateway::{Purpose, reply};
use crate::money::{Currency, Money};

pub struct Checkout {
    books: Books,
    /// Key -> fingerprint of the request, and what was answered.
    answered: HashMap<String, ([u8; 16], StatusCode, Value)>,
}

const KEYS_MAX: usize = 100_000;

type Answer = (StatusCode, Value);

impl Checkout {
    pub fn new(seed: u64) -> Checkout {
        let mut books = Books::new(seed, |n| format!("PSP{n:013}"));
        books.refunds_at_once = true;
        Checkout { books, answered: HashMap::new() }
    }

    fn post(&mut self, now_ms: i64, path: &str, body: &Value) -> Answer {
        if body["merchantAccount"] != "AcmeWaterUS" {
            return failed(StatusCode::FORBIDDEN, "901");
        }
        let parts: Vec<&str> = path.split('/').skip_while(|part| *part != "payments").collect();
        let minor = body.pointer("/amount/value").and_then(Value::as_i64).unwrap_or_default();
        let done = match parts[..] {
            ["payments"] => return self.charge(now_ms, body, minor),
            ["payments", id, "captures"] => self.books.capture(now_ms, id, minor),
            ["payments", id, "reversals"] => self.books.void(now_ms, id),
            ["payments", id, "refunds"] => self.books.refund(now_ms, id, minor),
            _ => return failed(StatusCode::NOT_FOUND, ""),
        };
        match done {
            Ok(entry) => {
                let reference = format!("M{}", entry.id);
                (StatusCode::CREATED, json!({ "status": "received", "pspReference": reference }))
            }
            Err(Refusal::TooMuch) => failed(StatusCode::UNPROCESSABLE_ENTITY, "137"),
            Err(_) => failed(StatusCode::UNPROCESSABLE_ENTITY, "167"),
        }
    }

    fn charge(&mut self, now_ms: i64, body: &Value, minor: i64) -> Answer {
        let at = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let number = at("/paymentMethod/number");
        let token = at("/paymentMethod/storedPaymentMethodId");
        let Some(currency) = Currency::from_code(at("/amount/currency")) else {
            return failed(StatusCode::UNPROCESSABLE_ENTITY, "138");
        };
        let (last4, case) = match token {
            "" if at("/shopperInteraction") != "Moto" => {
                return failed(StatusCode::UNPROCESSABLE_ENTITY, "134");
            }
            "" => (last4(number), judged(number, false)),
            token => match self.books.kept(token) {
                Some((last4, _, case)) => (last4, case),
                None => return failed(StatusCode::UNPROCESSABLE_ENTITY, "803"),
            },
        };
        let order = Order {
            purpose: match at("/additionalData/manualCapture") {
                _ if minor == 0 => Purpose::Verify,
                "true" => Purpose::Authorize,
                _ => Purpose::Sale,
            },
            reference: at("/reference").to_string(),
            total: Money::new(minor, currency),
            bank: false,
            last4,
            case,
            fingerprint: self.books.fingerprint(&[number, token]),
        };
        let entry = self.books.charge(now_ms, order).clone();
        let mut told = told(&entry);
        if body["storePaymentMethod"] == true && entry.is_approved() {
            let token = format!("T{}", entry.id);
            self.books.keep(&token, &entry.order.last4, false, entry.order.case);
            told["additionalData"]["tokenization.storedPaymentMethodId"] = token.into();
        }
        (StatusCode::OK, told)
    }
}

impl Server for Checkout {
    fn answer(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Response<Vec<u8>> {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let body = reply::json(request.body());
        let (status, answer) = match (body, header("idempotency-key").map(str::to_string)) {
            _ if header("x-api-key") != Some(SECRET) => failed(StatusCode::UNAUTHORIZED, "000"),
            (Some(body), Some(key)) => {
                let path = request.uri().path();
                let content = String::from_utf8_lossy(request.body());
                let fingerprint = self.books.fingerprint(&[path, &content]);
                match self.answered.get(&key) {
                    Some((first, status, answer)) if *first == fingerprint => {
                        (*status, answer.clone())
                    }
                    Some(_) => failed(StatusCode::UNPROCESSABLE_ENTITY, "704"),
                    None => {
                        let (status, answer) = self.post(now_ms, path, &body);
                        if self.answered.len() < KEYS_MAX {
                            self.answered.insert(key, (fingerprint, status, answer.clone()));
                        }
                        (status, answer)
                    }
                }
            }
            _ => failed(StatusCode::BAD_REQUEST, "702"),
        };
        simulator::reply(status, "application/json", answer.to_string().as_bytes())
    }

    fn entries(&self) -> Vec<Entry> {
        self.books.entries().to_vec()
    }

    fn trigger(&self, case: Case) -> Option<Trigger> {
        let bank = matches!(case, Case::Routing | Case::Account);
        by_number(case).filter(|_| !bank && case != Case::Held)
    }
}

fn told(entry: &Entry) -> Value {
    let (result, code) = match entry.order.case {
        Case::Approved => ("Authorised", ""),
        Case::Partial => ("PartiallyAuthorised", ""),
        Case::DeclinedHard => ("Refused", "5"),
        Case::Number => ("Refused", "8"),
        Case::Expiry => ("Refused", "6"),
        Case::Cvv => ("Refused", "24"),
        Case::Zip => ("Refused", "32"),
        _ => ("Refused", "12"),
    };
    let mut told = json!({ "pspReference": entry.id, "resultCode": result,
        "merchantReference": entry.order.reference });
    if code.is_empty() {
        told["amount"] = json!({ "currency": entry.order.total.currency.code(),
            "value": entry.approved() });
        told["additionalData"] = json!({ "authCode": entry.auth_code, "avsResultRaw": "Y",
            "cvcResultRaw": "M" });
    } else {
        told["refusalReasonCode"] = code.into();
        told["refusalReason"] = "refused".into();
    }
    told
}

fn failed(status: StatusCode, code: &str) -> Answer {
    let body = json!({ "status": status.as_u16(), "errorCode": code, "message": "no",
        "errorType": "validation" });
    (status, body)
}
