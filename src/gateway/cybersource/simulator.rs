//! CyberSource as its documents describe it: signatures are checked, searches find at once.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{DATE, HOST};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::signature::{self, DIGEST, MERCHANT, SIGNATURE};
use crate::gateway::simulator::{
    self, Books, Case, Entry, Order, Refusal, SECRET, Server, Trigger, by_number, judged, last4,
};
use crate::gateway::{Purpose, reply};
use crate::money::{Currency, Money};

pub struct Processor {
    books: Books,
}

type Answer = (StatusCode, Value);

const SURCHARGE: &str = "orderInformation.amountDetails.surcharge.amount";
const MERCHANT_ID: &str = "acmewater_1";

impl Processor {
    pub fn new(seed: u64) -> Processor {
        let mut books = Books::new(seed, |n| format!("70000000{n:014}"));
        books.refunds_at_once = true;
        Processor { books }
    }

    fn answered(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Answer {
        if !is_signed(request) {
            let message = json!({ "response": { "rmsg": "Authentication Failed" } });
            return (StatusCode::UNAUTHORIZED, message);
        }
        let path = request.uri().path();
        if let Some(id) = path.strip_prefix("/tss/v2/transactions/") {
            return match self.books.by_id(id) {
                Some(entry) => (StatusCode::OK, transaction(entry)),
                None => (StatusCode::NOT_FOUND, json!({ "reason": "NOT_FOUND" })),
            };
        }
        let Some(body) = reply::json(request.body()) else {
            return refused("INVALID_DATA", None);
        };
        match path.strip_prefix("/pts/v2/payments").map(|rest| rest.split('/').collect::<Vec<_>>())
        {
            Some(rest) if rest == [""] => self.charge(now_ms, &body),
            Some(rest) if rest.len() == 3 => self.modify(now_ms, rest[1], rest[2], &body),
            None if path == "/tss/v2/searches" => self.search(&body),
            _ => (StatusCode::NOT_FOUND, json!({ "reason": "NOT_FOUND" })),
        }
    }

    fn charge(&mut self, now_ms: i64, body: &Value) -> Answer {
        let at = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let Some(total) = money(body.get("orderInformation")) else {
            return refused("INVALID_DATA", Some("orderInformation.amountDetails.totalAmount"));
        };
        let part = body.pointer("/orderInformation/amountDetails/surcharge/amount");
        let part = part.map(|part| Money::parse(part.as_str().unwrap_or_default(), total.currency));
        // It is a part of the whole.
        if part.is_some_and(|part| !part.is_ok_and(|part| (1..total.minor).contains(&part.minor))) {
            return refused("INVALID_DATA", Some(SURCHARGE));
        }
        let (card, account) =
            (at("/paymentInformation/card/number"), at("/paymentInformation/bank/account/number"));
        let token = at("/paymentInformation/paymentInstrument/id");
        let indicator = at("/processingInformation/commerceIndicator");
        let alone = ["recurring", "install"].contains(&indicator) && !token.is_empty();
        let moto = indicator == "moto" || alone;
        let merchant = "/processingInformation/authorizationOptions/initiator\
                        /merchantInitiatedTransaction";
        let given = body.pointer(merchant).map(|given| {
            let part = |name: &str| given[name].as_str().unwrap_or_default().to_string();
            first(&part("previousTransactionId"), &part("originalAuthorizedAmount"))
        });
        let named = self.books.is_first(token, given.as_deref());
        let tel = at("/processingInformation/bankTransferOptions/secCode") == "TEL";
        let (number, bank, case) = match (card, account, token) {
            ("", "", token) => match self.books.kept(token) {
                Some((last4, bank, case)) if named => (last4, bank, case),
                Some((last4, bank, _)) => (last4, bank, Case::DeclinedSoft),
                None if token.is_empty() => {
                    return refused("INVALID_DATA", Some("paymentInformation"));
                }
                None => {
                    let field = "paymentInformation.paymentInstrument.id";
                    return refused("INVALID_DATA", Some(field));
                }
            },
            ("", account, _) => (last4(account), true, judged(account, true)),
            (card, ..) => (last4(card), false, judged(card, false)),
        };
        if !(if bank { tel } else { moto }) {
            return refused("MISSING_FIELD", Some("processingInformation"));
        }
        let capture = body.pointer("/processingInformation/capture") == Some(&json!(true));
        let order = Order {
            purpose: match (bank || capture, total.minor) {
                (_, 0) => Purpose::Verify,
                (true, _) => Purpose::Sale,
                (false, _) => Purpose::Authorize,
            },
            reference: at("/clientReferenceInformation/code").to_string(),
            total,
            bank,
            last4: number,
            case,
            fingerprint: self.books.fingerprint(&[card, account, token]),
        };
        let entry = self.books.charge(now_ms, order).clone();
        let keeps =
            body.pointer("/processingInformation/actionList") == Some(&json!(["TOKEN_CREATE"]));
        let mut told = told(&entry);
        if keeps && entry.is_approved() {
            let token = format!("PI{}", entry.id);
            self.books.keep(&token, &entry.order.last4, bank, entry.order.case);
            let first = first(&entry.network(), &entry.order.total.decimal());
            self.books.keep_first(&token, &first);
            told["tokenInformation"] = json!({ "paymentInstrument": { "id": token } });
        }
        match field(entry.order.case) {
            Some(field) => refused("INVALID_DATA", Some(field)),
            None => (StatusCode::CREATED, told),
        }
    }

    fn modify(&mut self, now_ms: i64, id: &str, what: &str, body: &Value) -> Answer {
        let minor = |part: &str| money(body.get(part)).map(|money| money.minor).unwrap_or_default();
        let reserved = self.books.by_id(id).is_some_and(|entry| entry.captured == 0);
        let (done, status) = match what {
            "captures" => (self.books.capture(now_ms, id, minor("orderInformation")), "PENDING"),
            "refunds" => (self.books.refund(now_ms, id, minor("orderInformation")), "PENDING"),
            "voids" if !reserved => (self.books.void(now_ms, id), "VOIDED"),
            "reversals" if reserved => (self.books.void(now_ms, id), "REVERSED"),
            _ => (Err(Refusal::NotApproved), ""),
        };
        match done {
            Ok(entry) => {
                let told = json!({ "id": format!("8{}", &entry.id[1..]), "status": status,
                    "clientReferenceInformation": body["clientReferenceInformation"] });
                (StatusCode::CREATED, told)
            }
            Err(Refusal::NoSuch) => (StatusCode::NOT_FOUND, json!({ "reason": "NOT_FOUND" })),
            Err(Refusal::TooMuch) => refused("EXCEEDS_AUTH_AMOUNT", None),
            Err(Refusal::Voided) => refused("AUTH_ALREADY_REVERSED", None),
            Err(_) => refused("NOT_VOIDABLE", None),
        }
    }

    fn search(&self, body: &Value) -> Answer {
        let query = body["query"].as_str().unwrap_or_default();
        let quoted = query.strip_prefix("clientReferenceInformation.code:\"");
        let reference = quoted.and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
        let found: Vec<Value> =
            self.books.by_reference(reference).map(transaction).into_iter().collect();
        let told = json!({ "searchId": "s1", "totalCount": found.len(), "count": found.len(),
            "_embedded": { "transactionSummaries": found } });
        (StatusCode::CREATED, told)
    }
}

impl Server for Processor {
    fn answer(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Response<Vec<u8>> {
        let (status, answer) = self.answered(now_ms, request);
        simulator::reply(status, "application/json", answer.to_string().as_bytes())
    }

    fn entries(&self) -> Vec<Entry> {
        self.books.entries().to_vec()
    }

    fn trigger(&self, case: Case) -> Option<Trigger> {
        by_number(case)
    }
}

fn is_signed(request: &http::Request<Vec<u8>>) -> bool {
    let (head, body) = (request.headers(), request.body());
    let header = |name| head.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let host = header(HOST).or(request.uri().authority().map(|host| host.as_str()));
    let (Some(host), Some(date), Some(signature)) = (host, header(DATE), header(SIGNATURE)) else {
        return false;
    };
    let digest = (!body.is_empty()).then(|| signature::digest_of(body));
    if header(MERCHANT) != Some(MERCHANT_ID) || header(DIGEST) != digest.as_deref() {
        return false;
    }
    let (parts, ()) = {
        let mut copy = http::Request::new(());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        copy.into_parts()
    };
    let lines = signature::lines(&parts, host, date, digest.as_deref(), MERCHANT_ID);
    let key = STANDARD.decode(SECRET).unwrap_or_default();
    let tag =
        STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), lines.as_bytes()));
    let names = signature::names(!body.is_empty());
    signature.ends_with(&format!(", headers=\"{names}\", signature=\"{tag}\""))
}

fn money(part: Option<&Value>) -> Option<Money> {
    let details = part?.get("amountDetails")?;
    let currency = Currency::from_code(details.get("currency")?.as_str()?)?;
    Money::parse(details.get("totalAmount")?.as_str()?, currency).ok()
}

/// The field that a request is refused for.
fn field(case: Case) -> Option<&'static str> {
    match case {
        Case::Number => Some("paymentInformation.card.number"),
        Case::Routing => Some("paymentInformation.bank.routingNumber"),
        Case::Account => Some("paymentInformation.bank.account.number"),
        _ => None,
    }
}

fn told(entry: &Entry) -> Value {
    let (status, reason) = match entry.order.case {
        Case::Approved if entry.order.bank => ("PENDING", ""),
        Case::Approved => ("AUTHORIZED", ""),
        Case::Partial => ("PARTIAL_AUTHORIZED", ""),
        Case::DeclinedHard => ("DECLINED", "STOLEN_LOST_CARD"),
        Case::Expiry => ("DECLINED", "EXPIRED_CARD"),
        Case::Cvv => ("DECLINED", "CVN_NOT_MATCH"),
        Case::Zip => ("DECLINED", "AVS_FAILED"),
        Case::Held => ("AUTHORIZED_PENDING_REVIEW", "DECISION_PROFILE_REVIEW"),
        _ => ("DECLINED", "INSUFFICIENT_FUND"),
    };
    let mut told = json!({ "id": entry.id, "status": status,
        "clientReferenceInformation": { "code": entry.order.reference } });
    if entry.is_approved() {
        let approved = Money { minor: entry.approved(), ..entry.order.total };
        told["orderInformation"] = json!({ "amountDetails": {
            "authorizedAmount": approved.decimal(), "currency": approved.currency.code() } });
        told["processorInformation"] = processor(entry);
    } else {
        told["errorInformation"] = json!({ "reason": reason, "message": "no" });
    }
    told
}

/// What a later charge names the first one by.
fn first(network: &str, amount: &str) -> String {
    format!("{network}:{amount}")
}

fn processor(entry: &Entry) -> Value {
    json!({ "approvalCode": entry.auth_code, "avs": { "code": "Y" },
        "networkTransactionId": entry.network(),
        "cardVerification": { "resultCode": "M" } })
}

/// As a search and a look at the transaction show it.
fn transaction(entry: &Entry) -> Value {
    let code = match entry.order.case {
        Case::Approved => 100,
        Case::Partial => 110,
        Case::DeclinedHard => 205,
        Case::Number | Case::Account => 231,
        Case::Expiry => 202,
        Case::Cvv => 211,
        Case::Zip => 200,
        Case::Held => 480,
        _ => 204,
    };
    let status = match (entry.voided, entry.is_approved(), entry.order.case) {
        (true, ..) if entry.order.purpose == Purpose::Sale => "VOIDED",
        (true, ..) => "REVERSED",
        (_, true, _) if entry.captured > 0 => "PENDING",
        (_, true, _) => "AUTHORIZED",
        (_, _, Case::Held) => "AUTHORIZED_PENDING_REVIEW",
        _ => "DECLINED",
    };
    let service = |name: &str| json!({ "name": name, "reasonCode": code.to_string() });
    let services = match (entry.order.bank, entry.order.purpose) {
        (true, _) => vec![service("ics_ecp_debit")],
        (false, Purpose::Sale) => vec![service("ics_auth"), service("ics_bill")],
        (false, _) => vec![service("ics_auth")],
    };
    let approved = Money { minor: entry.approved(), ..entry.order.total };
    json!({ "id": entry.id, "processorInformation": processor(entry),
        "clientReferenceInformation": { "code": entry.order.reference },
        "applicationInformation": { "status": status, "applications": services },
        "orderInformation": { "amountDetails": { "totalAmount": entry.order.total.decimal(),
            "authorizedAmount": approved.decimal(), "currency": approved.currency.code() } } })
}

fn refused(reason: &str, field: Option<&str>) -> Answer {
    let mut body = json!({ "status": "INVALID_REQUEST", "reason": reason, "message": "no" });
    if let Some(field) = field {
        body["details"] = json!([{ "field": field, "reason": "INVALID_DATA" }]);
    }
    (StatusCode::BAD_REQUEST, body)
}
