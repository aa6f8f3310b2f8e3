//! The cnpAPI: the same `id` again is answered as the first time, marked `duplicate`.

use std::collections::HashMap;

use http::{Response, StatusCode};

use crate::gateway::Purpose;
use crate::gateway::reply::{self, Element};
use crate::gateway::simulator::{
    self, Books, Case, Entry, Order, Refusal, SECRET, Server, Trigger, by_number, judged, last4,
};
use crate::money::Money;

pub struct Processor {
    books: Books,
    /// Id of a charge -> entry. Ids are the reference.
    tokens: HashMap<String, String>,
}

impl Processor {
    pub fn new(seed: u64) -> Processor {
        let mut books = Books::new(seed, |n| format!("{}", 82_000_000_000_000_u64 + n as u64));
        books.refunds_at_once = true;
        Processor { books, tokens: HashMap::new() }
    }

    fn charge(&mut self, now_ms: i64, asked: &Element) -> String {
        let id = asked.attribute("id").unwrap_or_default().to_string();
        let bank = asked.name == "echeckSale";
        let at = |path: &[&str]| {
            let mut element = asked;
            for name in &path[..path.len() - 1] {
                element = element.child(name)?;
            }
            element.at(path[path.len() - 1])
        };
        if let Some(entry) = self.books.by_reference(&id) {
            return told(entry, true, self.tokens.get(&entry.id).map(String::as_str));
        }
        let card = at(&["card", "number"]).unwrap_or_default();
        let account = at(&["echeck", "accNum"]).unwrap_or_default();
        let token = at(&["token", "cnpToken"]).unwrap_or_default();
        let minor = at(&["amount"]).and_then(|text| text.parse().ok()).unwrap_or_default();
        let (last4, case) = match (token, bank) {
            ("", true) => (last4(account), judged(account, true)),
            ("", false) => (last4(card), judged(card, false)),
            // A number that is kept is charged with its expiry, or not at all.
            (_, false) if at(&["token", "expDate"]).is_none() => (String::new(), Case::Expiry),
            (token, _) => match self.books.kept(token) {
                Some((last4, _, case)) => (last4, case),
                None => (String::new(), Case::Number),
            },
        };
        // Who is not there charges a card that is kept, and names the charge it was kept with.
        let source = at(&["orderSource"]).unwrap_or_default();
        let alone = ["recurring", "installment"].contains(&source) && !token.is_empty();
        let named = self.books.is_first(token, at(&["originalNetworkTransactionId"]));
        let part = at(&["surchargeAmount"]).map_or(Ok(0), str::parse::<i64>);
        let part = part.is_ok_and(|part| part <= minor);
        let taken = (source == "telephone" || alone) && named && part;
        let order = Order {
            purpose: match asked.name.as_str() {
                "authorization" if minor == 0 => Purpose::Verify,
                "authorization" => Purpose::Authorize,
                _ => Purpose::Sale,
            },
            reference: id,
            total: Money::usd(minor),
            bank,
            last4,
            case: if taken { case } else { Case::DeclinedHard },
            fingerprint: self.books.fingerprint(&[card, account, token]),
        };
        let entry = self.books.charge(now_ms, order).clone();
        if entry.is_approved() && !card.is_empty() {
            let token = format!("1111{}", entry.id);
            self.books.keep(&token, &entry.order.last4, false, entry.order.case);
            self.books.keep_first(&token, &entry.network());
            self.tokens.insert(entry.id.clone(), token);
        }
        told(&entry, false, self.tokens.get(&entry.id).map(String::as_str))
    }

    fn change(&mut self, now_ms: i64, asked: &Element) -> String {
        let original = asked.at("cnpTxnId").unwrap_or_default();
        let minor = asked.at("amount").and_then(|text| text.parse().ok()).unwrap_or_default();
        let done = match asked.name.as_str() {
            "capture" => self.books.capture(now_ms, original, minor),
            "void" | "authReversal" | "echeckVoid" => self.books.void(now_ms, original),
            _ => self.books.refund(now_ms, original, minor),
        };
        let (id, code) = match done {
            Ok(entry) => (format!("9{}", entry.id), "000"),
            Err(refusal) => (
                String::from("1"),
                match refusal {
                    Refusal::NoSuch | Refusal::NotApproved => "360",
                    Refusal::AlreadyCaptured => "311",
                    Refusal::Settled => "362",
                    Refusal::TooMuch => "365",
                    Refusal::NotSettled | Refusal::Voided => "361",
                },
            ),
        };
        format!(
            "<{}Response id=\"{}\" reportGroup=\"Phone\"><cnpTxnId>{id}</cnpTxnId>\
             <response>{code}</response><message>x</message></{}Response>",
            asked.name,
            asked.attribute("id").unwrap_or_default(),
            asked.name,
        )
    }

    fn query(&self, asked: &Element) -> String {
        let entry = self.books.by_reference(asked.at("origId").unwrap_or_default());
        let (code, results) = match entry {
            None => ("151", String::new()),
            Some(entry) => {
                let undone = "<voidResponse id=\"v\"><response>000</response></voidResponse>";
                let undone = if entry.voided { undone } else { "" };
                let told = told(entry, false, None);
                ("150", format!("<results_max10>{told}{undone}</results_max10>"))
            }
        };
        format!(
            "<queryTransactionResponse id=\"q\"><response>{code}</response>{results}\
             </queryTransactionResponse>"
        )
    }
}

impl Server for Processor {
    fn answer(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Response<Vec<u8>> {
        let root = reply::xml(request.body()).filter(|root| root.name == "cnpOnlineRequest");
        let right = request.uri().path() == "/vap/communicator/online";
        let Some(root) = root.filter(|_| right) else { return said("1", "") };
        let password = root.child("authentication").and_then(|who| who.at("password"));
        if password != Some(SECRET) || root.attribute("merchantId") != Some("0180246") {
            return said("3", "");
        }
        let Some(asked) = root.children.iter().find(|child| child.name != "authentication") else {
            return said("1", "");
        };
        let answer = match asked.name.as_str() {
            "sale" | "authorization" | "echeckSale" => self.charge(now_ms, asked),
            "queryTransaction" => self.query(asked),
            "capture" | "void" | "authReversal" | "credit" | "echeckVoid" | "echeckCredit" => {
                self.change(now_ms, asked)
            }
            _ => return said("1", ""),
        };
        said("0", &answer)
    }

    fn entries(&self) -> Vec<Entry> {
        self.books.entries().to_vec()
    }

    fn trigger(&self, case: Case) -> Option<Trigger> {
        by_number(case).filter(|_| case != Case::Held)
    }
}

fn told(entry: &Entry, again: bool, token: Option<&str>) -> String {
    let name = match entry.order.purpose {
        _ if entry.order.bank => "echeckSalesResponse",
        Purpose::Sale => "saleResponse",
        _ => "authorizationResponse",
    };
    let code = match entry.order.case {
        Case::Approved => "000",
        Case::Partial => "010",
        Case::DeclinedHard => "304",
        Case::Number | Case::Account => "301",
        Case::Expiry => "305",
        Case::Cvv => "352",
        Case::Zip => "353",
        Case::Routing => "900",
        Case::DeclinedSoft | Case::Held => "110",
    };
    let mut rest = String::new();
    if entry.is_approved() {
        rest += &format!("<authCode>{}</authCode>", entry.auth_code);
        let network = entry.network();
        rest += &format!("<networkTransactionId>{network}</networkTransactionId>");
        rest += "<fraudResult><avsResult>00</avsResult>\
                 <cardValidationResult>M</cardValidationResult></fraudResult>";
    }
    if entry.order.case == Case::Partial {
        rest += &format!("<approvedAmount>{}</approvedAmount>", entry.approved());
    }
    if let Some(token) = token {
        rest += &format!("<tokenResponse><cnpToken>{token}</cnpToken></tokenResponse>");
    }
    let again = if again { " duplicate=\"true\"" } else { "" };
    format!(
        "<{name} id=\"{}\" reportGroup=\"Phone\"{again}><cnpTxnId>{}</cnpTxnId>\
         <response>{code}</response><message>x</message>{rest}</{name}>",
        entry.order.reference, entry.id,
    )
}

fn said(code: &str, answer: &str) -> Response<Vec<u8>> {
    let xml = format!(
        "<cnpOnlineResponse version=\"12.34\" response=\"{code}\" message=\"x\" \
         xmlns=\"http://www.vantivcnp.com/schema\">{answer}</cnpOnlineResponse>"
    );
    simulator::reply(StatusCode::OK, "text/xml; charset=utf-8", xml.as_bytes())
}
