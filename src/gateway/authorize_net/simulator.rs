//! Authorize.Net as its documents describe it, with the triggers of its sandbox: ZIP 46282 is
//! declined, other ZIPs and security codes 900 to 904 give their results, accounts are declined
//! above 100 dollars only there and not here, where the tables of all simulators hold.
//!
//! Members out of the order of the XSD are refused, as the real one does.

use std::fmt;

use http::{Response, StatusCode};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::gateway::simulator::{
    self, Books, Case, Entry, Order, Refusal, SECRET, Server, Trigger, by_number, judged, last4,
};
use crate::gateway::{Purpose, reply};
use crate::money::{Currency, Money};

pub struct Processor {
    books: Books,
}

/// Members that may stand in an object, in the order they must stand.
const ORDERS: [(&str, &[&str]); 6] = [
    ("createTransactionRequest", &["merchantAuthentication", "refId", "transactionRequest"]),
    ("merchantAuthentication", &["name", "transactionKey"]),
    (
        "transactionRequest",
        &[
            "transactionType",
            "amount",
            "currencyCode",
            "payment",
            "profile",
            "solution",
            "callId",
            "terminalNumber",
            "authCode",
            "refTransId",
            "splitTenderId",
            "order",
            "lineItems",
            "tax",
            "duty",
            "shipping",
            "taxExempt",
            "poNumber",
            "customer",
            "billTo",
            "shipTo",
            "customerIP",
            "cardholderAuthentication",
            "retail",
            "employeeId",
            "transactionSettings",
            "userFields",
            "surcharge",
            "surcharge",
            "merchantDescriptor",
            "subMerchant",
            "tip",
            "processingOptions",
            "subsequentAuthInformation",
        ],
    ),
    ("subsequentAuthInformation", &["originalNetworkTransId", "originalAuthAmount", "reason"]),
    ("creditCard", &["cardNumber", "expirationDate", "cardCode"]),
    (
        "bankAccount",
        &["accountType", "routingNumber", "accountNumber", "nameOnAccount", "echeckType"],
    ),
];

/// A document whose objects keep their order.
enum Ordered {
    Object(Vec<(String, Ordered)>),
    List(Vec<Ordered>),
    Other,
}

impl Ordered {
    /// The first member that stands where it may not.
    fn misplaced(&self, name: &str) -> Option<String> {
        match self {
            Ordered::Other => None,
            Ordered::List(items) => items.iter().find_map(|item| item.misplaced("")),
            Ordered::Object(members) => {
                let order = ORDERS.iter().find(|(of, _)| *of == name).map(|(_, order)| *order);
                let mut next = 0;
                for (member, _) in members.iter().filter(|_| order.is_some()) {
                    let order = order.unwrap_or_default();
                    match order[next..].iter().position(|allowed| allowed == member) {
                        Some(at) => next += at + 1,
                        None => return Some(member.clone()),
                    }
                }
                members.iter().find_map(|(member, value)| value.misplaced(member))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ordered, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Ordered;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Ordered::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Ordered, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Ordered::List(items))
    }

    fn visit_str<E>(self, _: &str) -> Result<Ordered, E> {
        Ok(Ordered::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Ordered, E> {
        Ok(Ordered::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Ordered, E> {
        Ok(Ordered::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Ordered, E> {
        Ok(Ordered::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Ordered, E> {
        Ok(Ordered::Other)
    }

    fn visit_unit<E>(self) -> Result<Ordered, E> {
        Ok(Ordered::Other)
    }
}

impl Processor {
    pub fn new(seed: u64) -> Processor {
        Processor { books: Books::new(seed, |n| format!("{}", 60_000_000_000_u64 + n as u64)) }
    }

    fn transaction(&mut self, now_ms: i64, request: &Value) -> Response<Vec<u8>> {
        let id = text(request, "/refId").to_string();
        let asked = &request["transactionRequest"];
        let original = text(asked, "/refTransId");
        let minor = amount(asked).map_or(0, |money| money.minor);
        let changed = match text(asked, "/transactionType") {
            "priorAuthCaptureTransaction" => {
                self.books.capture(now_ms, original, minor).map(|e| e.id.clone())
            }
            "voidTransaction" => self.books.void(now_ms, original).map(|e| e.id.clone()),
            "refundTransaction" => {
                let known = self.books.by_id(original).map(|e| e.order.last4.clone());
                let given = last4(
                    text(asked, "/payment/creditCard/cardNumber")
                        .max(text(asked, "/payment/bankAccount/accountNumber")),
                );
                match known {
                    Some(known) if known != given => Err(Refusal::NoSuch),
                    _ => self.books.refund(now_ms, original, minor).map(|e| e.id.clone()),
                }
            }
            _ => return self.charge(now_ms, &id, asked),
        };
        match changed {
            Ok(done) => said(
                &id,
                json!({ "responseCode": "1", "transId": done,
                "messages": [{ "code": "1", "description": "This transaction has been approved." }] }),
            ),
            Err(refusal) => said(
                &id,
                error(match refusal {
                    Refusal::NoSuch => "16",
                    Refusal::NotApproved | Refusal::NotSettled => "54",
                    Refusal::AlreadyCaptured => "311",
                    Refusal::Settled => "16",
                    Refusal::TooMuch => "55",
                    Refusal::Voided => "310",
                }),
            ),
        }
    }

    fn charge(&mut self, now_ms: i64, id: &str, asked: &Value) -> Response<Vec<u8>> {
        let Some(order) = self.order(asked) else { return refused(id, "E00003") };
        let Some(order) = order else { return refused(id, "E00040") };
        let window = asked.pointer("/transactionSettings/setting/0/settingValue");
        let window = window.and_then(Value::as_str).and_then(|text| text.parse().ok());
        if self.books.same(now_ms, order.fingerprint, window.unwrap_or(120)).is_some() {
            return said(id, error("11"));
        }
        let zip = text(asked, "/billTo/zip").to_string();
        let code = text(asked, "/payment/creditCard/cardCode").to_string();
        let save = asked.pointer("/profile/createProfile") == Some(&Value::Bool(true));
        let entry = self.books.charge(now_ms, order).clone();
        let mut answer = told(&entry, &zip, &code);
        if save && entry.is_approved() {
            let (customer, payment) = (format!("9{}", entry.id), format!("8{}", entry.id));
            let order = &entry.order;
            let token = format!("{customer}/{payment}");
            self.books.keep(&token, &order.last4, order.bank, order.case);
            self.books.keep_first(&token, &first(&entry.network(), &order.total.decimal()));
            answer["profile"] = json!({
                "customerProfileId": customer, "customerPaymentProfileId": payment });
        }
        said(id, answer)
    }

    /// `None`: not understood; `Some(None)`: a profile nobody has.
    fn order(&self, asked: &Value) -> Option<Option<Order>> {
        let total = amount(asked)?;
        // A surcharge is a part of it.
        let part = text(asked, "/surcharge/amount");
        let part = Money::parse(if part.is_empty() { "0" } else { part }, total.currency).ok()?;
        if part.minor > total.minor {
            return None;
        }
        let card = text(asked, "/payment/creditCard/cardNumber");
        let account = text(asked, "/payment/bankAccount/accountNumber");
        let customer = text(asked, "/profile/customerProfileId");
        let (number, bank, case) = if !customer.is_empty() {
            let payment = text(asked, "/profile/paymentProfile/paymentProfileId");
            let token = format!("{customer}/{payment}");
            let Some((last4, bank, case)) = self.books.kept(&token) else { return Some(None) };
            let at = |name: &str| text(asked, &format!("/subsequentAuthInformation/{name}"));
            let given = first(at("originalNetworkTransId"), at("originalAuthAmount"));
            let given = Some(given).filter(|given| given != ":");
            let named = self.books.is_first(&token, given.as_deref());
            (last4, bank, if named { case } else { Case::DeclinedSoft })
        } else if !account.is_empty() {
            let tel = text(asked, "/payment/bankAccount/echeckType") == "TEL";
            (last4(account), true, tel.then(|| judged(account, true))?)
        } else {
            let moto = text(asked, "/retail/marketType") == "1";
            (last4(card), false, (moto && !card.is_empty()).then(|| judged(card, false))?)
        };
        let declined = text(asked, "/billTo/zip") == "46282" && !bank;
        Some(Some(Order {
            purpose: match text(asked, "/transactionType") {
                "authCaptureTransaction" => Purpose::Sale,
                _ if total.minor == 0 => Purpose::Verify,
                _ => Purpose::Authorize,
            },
            reference: text(asked, "/order/invoiceNumber").to_string(),
            total,
            bank,
            last4: number,
            case: if declined { Case::DeclinedSoft } else { case },
            fingerprint: self.books.fingerprint(&[
                card,
                account,
                customer,
                &total.decimal(),
                text(asked, "/order/invoiceNumber"),
                text(asked, "/transactionType"),
            ]),
        }))
    }

    fn list(&self, now_ms: i64, settled: bool) -> Response<Vec<u8>> {
        let rows = self.books.entries().iter().filter(|e| e.is_settled(now_ms) == settled);
        let rows: Vec<Value> = rows
            .map(|entry| {
                json!({ "transId": entry.id, "submitTimeUTC": "2026-06-01T00:00:00Z",
                "transactionStatus": status(entry, now_ms),
                "invoiceNumber": entry.order.reference,
                "accountNumber": format!("XXXX{}", entry.order.last4) })
            })
            .collect();
        listed(&json!({ "totalNumInResultSet": rows.len(), "transactions": rows }))
    }

    fn details(&self, now_ms: i64, id: &str) -> Response<Vec<u8>> {
        let Some(entry) = self.books.by_id(id) else { return refused("", "E00040") };
        let amount = Money { minor: entry.approved(), ..entry.order.total };
        listed(&json!({ "transaction": {
            "transId": entry.id, "transactionStatus": status(entry, now_ms),
            "responseCode": 1, "responseReasonCode": reason(entry.order.case).parse().unwrap_or(1),
            "authCode": entry.auth_code, "AVSResponse": "Y", "cardCodeResponse": "M",
            "order": { "invoiceNumber": entry.order.reference },
            "authAmount": amount.decimal().parse::<f64>().unwrap_or_default(),
        } }))
    }
}

impl Server for Processor {
    fn answer(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Response<Vec<u8>> {
        let ordered = serde_json::from_slice::<Ordered>(request.body()).ok();
        let whole = reply::json(request.body());
        let (Some(ordered), Some(whole)) = (ordered, whole) else { return refused("", "E00003") };
        if ordered.misplaced("").is_some() || request.uri().path() != "/xml/v1/request.api" {
            return refused("", "E00003");
        }
        let Some((name, asked)) = whole.as_object().and_then(|all| all.iter().next()) else {
            return refused("", "E00003");
        };
        if text(asked, "/merchantAuthentication/transactionKey") != SECRET {
            return refused("", "E00007");
        }
        match name.as_str() {
            "createTransactionRequest" => self.transaction(now_ms, asked),
            "getUnsettledTransactionListRequest" => self.list(now_ms, false),
            "getTransactionListRequest" => self.list(now_ms, true),
            "getSettledBatchListRequest" => {
                let some = self.books.entries().iter().any(|entry| entry.is_settled(now_ms));
                let batches = if some { json!([{ "batchId": "501" }]) } else { json!([]) };
                listed(&json!({ "batchList": batches }))
            }
            "getTransactionDetailsRequest" => self.details(now_ms, text(asked, "/transId")),
            _ => refused("", "E00003"),
        }
    }

    fn entries(&self) -> Vec<Entry> {
        self.books.entries().to_vec()
    }

    fn trigger(&self, case: Case) -> Option<Trigger> {
        match case {
            Case::DeclinedSoft => Some(Trigger { zip: Some("46282"), ..Trigger::default() }),
            case => by_number(case),
        }
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What a later charge names the first one by.
fn first(network: &str, amount: &str) -> String {
    format!("{network}:{amount}")
}

fn amount(asked: &Value) -> Option<Money> {
    let currency = Currency::from_code(text(asked, "/currencyCode"))?;
    Money::parse(text(asked, "/amount"), currency).ok()
}

fn status(entry: &Entry, now_ms: i64) -> &'static str {
    match entry.order.case {
        _ if entry.voided => "voided",
        Case::Held => "FDSPendingReview",
        _ if !entry.is_approved() => "declined",
        _ if entry.is_settled(now_ms) => "settledSuccessfully",
        _ if entry.captured > 0 => "capturedPendingSettlement",
        _ => "authorizedPendingCapture",
    }
}

fn reason(case: Case) -> &'static str {
    match case {
        Case::Approved | Case::Partial => "1",
        Case::DeclinedSoft => "2",
        Case::DeclinedHard => "4",
        Case::Number => "6",
        Case::Expiry => "7",
        Case::Cvv => "65",
        Case::Zip => "27",
        Case::Routing => "9",
        Case::Account => "10",
        Case::Held => "252",
    }
}

fn told(entry: &Entry, zip: &str, code: &str) -> Value {
    let avs = match zip {
        "46201" => "A",
        "46203" => "E",
        "46204" => "G",
        "46205" => "N",
        "46207" => "R",
        "46217" => "Z",
        _ => "Y",
    };
    let cvv = match code {
        "" => "",
        "901" => "N",
        "902" => "S",
        "903" => "U",
        "904" => "P",
        _ => "M",
    };
    let mut answer = json!({ "responseCode": "1", "authCode": entry.auth_code,
        "avsResultCode": avs, "cvvResultCode": cvv, "transId": entry.id, "testRequest": "0",
        "networkTransId": entry.network(),
        "accountNumber": format!("XXXX{}", entry.order.last4) });
    if entry.order.case == Case::Partial {
        let money = |minor| Money { minor, ..entry.order.total }.decimal();
        answer["prePaidCard"] = json!({ "requestedAmount": money(entry.order.total.minor),
            "approvedAmount": money(entry.approved()), "balanceOnCard": "0.00" });
    }
    let why = json!([{ "errorCode": reason(entry.order.case), "errorText": "no" }]);
    match entry.order.case {
        Case::Approved | Case::Partial => {
            answer["messages"] = json!([{ "code": "1", "description": "approved" }]);
        }
        Case::Held => {
            answer["responseCode"] = "4".into();
            answer["messages"] = json!([{ "code": "252", "description": "held" }]);
        }
        Case::DeclinedSoft | Case::DeclinedHard | Case::Zip | Case::Cvv => {
            answer["responseCode"] = "2".into();
            answer["errors"] = why;
        }
        _ => {
            answer["responseCode"] = "3".into();
            answer["transId"] = "0".into();
            answer["errors"] = why;
        }
    }
    answer
}

fn error(reason: &str) -> Value {
    json!({ "responseCode": "3", "transId": "0",
        "errors": [{ "errorCode": reason, "errorText": "no" }] })
}

fn said(id: &str, answer: Value) -> Response<Vec<u8>> {
    let good = answer["responseCode"] == "1" || answer["responseCode"] == "4";
    let (result, code) = if good { ("Ok", "I00001") } else { ("Error", "E00027") };
    marked(&json!({ "transactionResponse": answer, "refId": id,
        "messages": { "resultCode": result, "message": [{ "code": code, "text": "" }] } }))
}

fn refused(id: &str, code: &str) -> Response<Vec<u8>> {
    let mut answer = json!({ "messages": { "resultCode": "Error",
        "message": [{ "code": code, "text": "refused" }] } });
    if !id.is_empty() {
        answer["refId"] = id.into();
    }
    marked(&answer)
}

fn listed(answer: &Value) -> Response<Vec<u8>> {
    let mut answer = answer.clone();
    answer["messages"] = json!({ "resultCode": "Ok",
        "message": [{ "code": "I00001", "text": "Successful." }] });
    marked(&answer)
}

/// Every answer begins with a byte order mark.
fn marked(answer: &Value) -> Response<Vec<u8>> {
    let body = [b"\xef\xbb\xbf", answer.to_string().as_bytes()].concat();
    simulator::reply(StatusCode::OK, "application/json; charset=utf-8", &body)
}

#[cfg(test)]
mod tests {
    use super::super::short;
    use super::*;

    #[test]
    fn members_out_of_order_are_refused() {
        let order = |text: &str| serde_json::from_str::<Ordered>(text).unwrap().misplaced("");
        let good = r#"{"createTransactionRequest":{"merchantAuthentication":{"name":"a",
            "transactionKey":"b"},"refId":"1","transactionRequest":{"transactionType":"x",
            "amount":"1","payment":{"creditCard":{"cardNumber":"1","cardCode":"2"}},
            "order":{"invoiceNumber":"1"},"retail":{"marketType":"1"}}}}"#;
        assert_eq!(order(good), None);
        for (from, to, wrong) in [
            (
                "\"name\":\"a\",\n            \"transactionKey\":\"b\"",
                "\"transactionKey\":\"b\",\"name\":\"a\"",
                "name",
            ),
            (
                "\"cardNumber\":\"1\",\"cardCode\":\"2\"",
                "\"cardCode\":\"2\",\"cardNumber\":\"1\"",
                "cardNumber",
            ),
            ("\"amount\":\"1\",", "", ""),
            ("\"retail\":{\"marketType\":\"1\"}", "\"amount\":\"1\"", "amount"),
            ("\"amount\":\"1\"", "\"surprise\":\"1\"", "surprise"),
        ] {
            assert!(good.contains(from), "{from}");
            let found = order(&good.replacen(from, to, 1));
            assert_eq!(found.unwrap_or_default(), wrong, "{to}");
        }
        assert_eq!(short("a").len(), 20);
        assert_ne!(short("a"), short("b"));
    }
}
