//! A bridge as the Generic Pay Connector describes it, of any dialect. It charges a
//! `transaction_id` once.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::gateway::Purpose;
use crate::gateway::reply;
use crate::gateway::simulator::{
    self, Books, Case, Entry, Order, SECRET, Server, Trigger, by_number, judged, last4,
};
use crate::money::{Currency, Money};

pub struct Bridge {
    books: Books,
}

impl Bridge {
    pub fn new(seed: u64) -> Bridge {
        Bridge { books: Books::new(seed, |n| format!("ch_{n:06}")) }
    }

    fn post(&mut self, now_ms: i64, body: &[u8]) -> Response<Vec<u8>> {
        let body = reply::json(body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let unknown = |token: &str| self.books.kept(token).is_none();
        if text("payment_token").is_some_and(unknown) {
            return failed(StatusCode::BAD_REQUEST, "token_not_found");
        }
        let Some(order) = self.order(&body) else {
            return failed(StatusCode::BAD_REQUEST, "unreadable");
        };
        let save = text("token_type") == Some("reusable");
        if let Some(entry) = self.books.by_reference(&order.reference) {
            return match entry.order.fingerprint == order.fingerprint {
                true => told(entry),
                false => failed(StatusCode::CONFLICT, "transaction_id_reused"),
            };
        }
        let entry = self.books.charge(now_ms, order).clone();
        if !save || !entry.is_approved() {
            return told(&entry);
        }
        let (token, order) = (format!("tok_{}", entry.id), &entry.order);
        self.books.keep(&token, &order.last4, order.bank, order.case);
        let body = json!({ "charge_id": entry.id, "token_id": token, "error_code": null });
        simulator::reply(StatusCode::OK, "application/json", body.to_string().as_bytes())
    }

    fn order(&self, body: &Value) -> Option<Order> {
        let text = |name: &str| body.get(name)?.as_str();
        let currency = Currency::from_code(text("currency_code")?)?;
        let amount = text("amount").or(text("chargeAmount"))?;
        let total = Money::parse(amount, currency).ok()?;
        let bank = text("method")? == "ach-debit";
        let token = text("payment_token").unwrap_or_default();
        let number = match bank {
            _ if !token.is_empty() => "",
            true => text("bank_account_number")?,
            false => text("cardnumber").filter(|_| text("expiry_year").is_some())?,
        };
        let (last4, case) = match self.books.kept(token) {
            Some((last4, _, case)) => (last4, case),
            None => (last4(number), judged(number, bank)),
        };
        Some(Order {
            purpose: if total.minor == 0 { Purpose::Verify } else { Purpose::Sale },
            reference: text("transaction_id")?.to_string(),
            total,
            bank,
            last4,
            case,
            fingerprint: self.books.fingerprint(&[number, token, amount]),
        })
    }
}

impl Server for Bridge {
    fn answer(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Response<Vec<u8>> {
        let given = request.headers().get("authorization").map(|value| value.as_bytes());
        let wanted = format!("Basic {}", BASE64.encode(format!("ringtill:{SECRET}")));
        if given != Some(wanted.as_bytes()) {
            return failed(StatusCode::UNAUTHORIZED, "unauthorized");
        }
        let reference = request.uri().path().trim_start_matches('/');
        let reference = percent_encoding::percent_decode_str(reference).decode_utf8_lossy();
        match *request.method() {
            Method::POST => self.post(now_ms, request.body()),
            _ => match self.books.by_reference(&reference) {
                Some(entry) => told(entry),
                None => failed(StatusCode::NOT_FOUND, "not_found"),
            },
        }
    }

    fn entries(&self) -> Vec<Entry> {
        self.books.entries().to_vec()
    }

    fn trigger(&self, case: Case) -> Option<Trigger> {
        by_number(case).filter(|_| case != Case::Partial)
    }
}

fn told(entry: &Entry) -> Response<Vec<u8>> {
    let code = match entry.order.case {
        Case::Approved | Case::Partial => {
            let name =
                if entry.order.purpose == Purpose::Verify { "token_id" } else { "charge_id" };
            let body = json!({ name: entry.id, "error_code": null, "error_message": null });
            let body = body.to_string();
            return simulator::reply(StatusCode::OK, "application/json", body.as_bytes());
        }
        Case::DeclinedSoft => "insufficient_funds",
        Case::DeclinedHard => "stolen_card",
        Case::Number => "incorrect_number",
        Case::Expiry => "expired_card",
        Case::Cvv => "incorrect_cvc",
        Case::Zip => "incorrect_zip",
        Case::Routing => "invalid_routing_number",
        Case::Account => "invalid_account_number",
        Case::Held => "under_review",
    };
    failed(StatusCode::PAYMENT_REQUIRED, code)
}

fn failed(status: StatusCode, code: &str) -> Response<Vec<u8>> {
    let body = json!({ "charge_id": null, "error_code": code, "error_message": "not charged" });
    simulator::reply(status, "application/json", body.to_string().as_bytes())
}
