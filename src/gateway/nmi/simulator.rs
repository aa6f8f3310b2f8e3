//! The NMI platform with the triggers of its test mode: an amount below 1.00 is declined, security
//! code 999 matches, ZIP 77777 matches.

use std::collections::HashMap;

use http::{Response, StatusCode};

use crate::gateway::Purpose;
use crate::gateway::simulator::{
    self, Books, Case, Entry, Order, Refusal, SECRET, Server, Trigger, by_number, form, judged,
    last4,
};
use crate::money::{Currency, Money};

pub struct Platform {
    books: Books,
}

type Fields = HashMap<String, String>;

impl Platform {
    pub fn new(seed: u64) -> Platform {
        let mut books = Books::new(seed, |n| format!("{}", 9_000_000_000_u64 + n as u64));
        books.refunds_at_once = true;
        Platform { books }
    }

    fn transact(&mut self, now_ms: i64, fields: &Fields) -> Response<Vec<u8>> {
        let at = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        if at("security_key") != SECRET {
            return rejected("Authentication Failed");
        }
        let id = at("transactionid");
        let minor = Money::parse(at("amount"), Currency::USD).map_or(0, |money| money.minor);
        let changed = match at("type") {
            "capture" => self.books.capture(now_ms, id, minor).map(|entry| entry.id.clone()),
            "void" => self.books.void(now_ms, id).map(|entry| entry.id.clone()),
            "refund" => self.books.refund(now_ms, id, minor).map(|entry| entry.id.clone()),
            _ => return self.charge(now_ms, fields),
        };
        match changed {
            Ok(id) => said("1", "SUCCESS", "100", &[("transactionid", &id), ("type", at("type"))]),
            Err(refusal) => rejected(match refusal {
                Refusal::NoSuch => "Transaction not found REFID:1",
                Refusal::AlreadyCaptured => "Only pending transactions can be captured REFID:1",
                Refusal::TooMuch => "Amount may not exceed the transaction balance REFID:1",
                _ => "The specified transaction is in the wrong state REFID:1",
            }),
        }
    }

    fn charge(&mut self, now_ms: i64, fields: &Fields) -> Response<Vec<u8>> {
        let at = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let Some(order) = self.order(fields) else { return rejected("Invalid Customer Vault Id") };
        let window = at("dup_seconds").parse().unwrap_or(0);
        let verify = order.purpose == Purpose::Verify;
        if !verify && self.books.same(now_ms, order.fingerprint, window).is_some() {
            return rejected("Duplicate transaction REFID:3150951931");
        }
        match order.case {
            Case::Number => return rejected("Invalid Credit Card Number REFID:3150951932"),
            Case::Routing => return rejected("Invalid ABA number REFID:3150951933"),
            Case::Account => return rejected("Invalid account number REFID:3150951934"),
            _ => {}
        }
        let entry = self.books.charge(now_ms, order).clone();
        let vault = format!("7{}", entry.id);
        let save = at("customer_vault") == "add_customer" && entry.is_approved();
        if save {
            let order = &entry.order;
            self.books.keep(&vault, &order.last4, order.bank, order.case);
            self.books.keep_first(&vault, &entry.id);
        }
        let (response, code, text) = outcome(&entry);
        let cvv = match at("cvv") {
            "" => "",
            "999" => "M",
            _ => "N",
        };
        let avs = if at("zip") == "77777" { "Z" } else { "N" };
        let mut rest = vec![
            ("authcode", if response == "1" { entry.auth_code.as_str() } else { "" }),
            ("transactionid", &entry.id),
            ("avsresponse", avs),
            ("cvvresponse", cvv),
            ("orderid", &entry.order.reference),
            ("type", at("type")),
        ];
        if save {
            rest.push(("customer_vault_id", &vault));
        }
        said(response, text, code, &rest)
    }

    /// `None` for a vault nobody has.
    fn order(&self, fields: &Fields) -> Option<Order> {
        let at = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let currency = Currency::from_code(at("currency")).unwrap_or(Currency::USD);
        let total = Money::parse(at("amount"), currency).unwrap_or(Money::new(0, currency));
        let bank = at("payment") == "check";
        let number = if bank { at("checkaccount") } else { at("ccnumber") };
        let vault = at("customer_vault_id");
        let (last4, bank, mut case) = match vault {
            "" => (last4(number), bank, judged(number, bank)),
            vault => self.books.kept(vault)?,
        };
        let flagged = if bank { at("sec_code") == "TEL" } else { at("industry") == "moto" };
        let verify = at("type") == "validate";
        let surcharge = fields.get("surcharge").map_or("0", String::as_str);
        let part = Money::parse(surcharge, currency).is_ok_and(|part| part.minor <= total.minor);
        let first = fields.get("initial_transaction_id").map(String::as_str);
        if !part || !self.books.is_first(vault, first) || !flagged || (!verify && total.minor < 100)
        {
            case = Case::DeclinedSoft;
        }
        Some(Order {
            purpose: match at("type") {
                "validate" => Purpose::Verify,
                "auth" => Purpose::Authorize,
                _ => Purpose::Sale,
            },
            reference: at("orderid").to_string(),
            total,
            bank,
            last4,
            case,
            fingerprint: self.books.fingerprint(&[number, vault, at("amount"), at("type")]),
        })
    }

    fn query(&self, fields: &Fields) -> Response<Vec<u8>> {
        let at = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let mut found = String::new();
        if at("security_key") != SECRET {
            found = "<error_response>Invalid security key REFID:1</error_response>".into();
        }
        let ours = self.books.entries().iter().filter(|e| e.order.reference == at("order_id"));
        for entry in ours.filter(|_| at("security_key") == SECRET) {
            found += &transaction(entry);
        }
        let xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<nm_response>\n{found}</nm_response>\n"
        );
        simulator::reply(StatusCode::OK, "text/xml; charset=utf-8", xml.as_bytes())
    }
}

impl Server for Platform {
    fn answer(&mut self, now_ms: i64, request: &http::Request<Vec<u8>>) -> Response<Vec<u8>> {
        let fields = form(&String::from_utf8_lossy(request.body()));
        match request.uri().path() {
            "/api/transact.php" => self.transact(now_ms, &fields),
            "/api/query.php" => self.query(&fields),
            _ => simulator::reply(StatusCode::NOT_FOUND, "text/html", b"<html>"),
        }
    }

    fn entries(&self) -> Vec<Entry> {
        self.books.entries().to_vec()
    }

    fn trigger(&self, case: Case) -> Option<Trigger> {
        match case {
            Case::DeclinedSoft => Some(Trigger { minor: Some(99), ..Trigger::default() }),
            // Neither is a distinct answer of this platform.
            Case::Held | Case::Partial | Case::Zip => None,
            case => by_number(case),
        }
    }
}

/// `response`, `response_code` and `responsetext`.
fn outcome(entry: &Entry) -> (&'static str, &'static str, &'static str) {
    match entry.order.case {
        Case::Approved => ("1", "100", "SUCCESS"),
        Case::DeclinedHard => ("2", "252", "Stolen card"),
        Case::Expiry => ("2", "224", "Invalid expiration date"),
        Case::Cvv => ("2", "225", "Invalid card security code"),
        _ => ("2", "202", "Insufficient funds"),
    }
}

fn transaction(entry: &Entry) -> String {
    let (response, code, text) = outcome(entry);
    let condition = match entry {
        entry if entry.voided => "canceled",
        entry if !entry.is_approved() => "failed",
        entry if entry.captured > 0 => "pendingsettlement",
        entry if entry.order.purpose == Purpose::Verify => "complete",
        _ => "pending",
    };
    let kind = match entry.order.purpose {
        Purpose::Verify => "validate",
        Purpose::Sale => "sale",
        Purpose::Authorize => "auth",
    };
    format!(
        "<transaction>\n<transaction_id>{}</transaction_id>\n<transaction_type>cc</transaction_type>\n\
         <condition>{condition}</condition>\n<order_id>{}</order_id>\n\
         <authorization_code>{}</authorization_code>\n<avs_response>N</avs_response>\n\
         <csc_response>M</csc_response>\n<action>\n<amount>{}</amount>\n\
         <action_type>{kind}</action_type>\n<success>{}</success>\n\
         <response_text>{text}</response_text>\n<response_code>{code}</response_code>\n\
         </action>\n</transaction>\n",
        entry.id,
        entry.order.reference,
        entry.auth_code,
        entry.order.total.decimal(),
        u8::from(response == "1"),
    )
}

fn rejected(text: &str) -> Response<Vec<u8>> {
    said("3", text, "300", &[("authcode", ""), ("transactionid", ""), ("type", "")])
}

/// `response_code` stands last.
fn said(response: &str, text: &str, code: &str, rest: &[(&str, &str)]) -> Response<Vec<u8>> {
    let mut body = format!("response={response}&responsetext={}", text.replace(' ', "+"));
    for (name, value) in rest {
        body += &format!("&{name}={value}");
    }
    body += &format!("&response_code={code}");
    simulator::reply(StatusCode::OK, "text/html; charset=UTF-8", body.as_bytes())
}
