//! Worldpay's cnpAPI (Vantiv): XML both ways.
//!
//! Cards and accounts with `orderSource` telephone, which for accounts is SEC code TEL; our fee is
//! the `secondaryAmount`. The `id` of a request is our reference: the same one again is answered as
//! the first time, marked `duplicate`. A lookup asks for it by `queryTransaction`.

use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::authorize_net::short;
use super::body::{self, Xml};
use super::reply::{self, Element};
use super::settings::{Environment, base_url, credential, secret};
use super::{
    Act, Approval, Cannot, Capabilities, Charge, Dialect, Exchange, Fixable, Found, Gateway,
    Initiator, Lookup, Modification, Modified, Operation, Purpose, Repeat, Request, Series,
    Simulator, Verdict,
};
use crate::instrument::{
    AccountKind, Brand, Card, Debit, Expiry, HolderKind, Instrument, Method, Token,
};
use crate::money::Money;
use crate::secret::Secret;

pub mod simulator; // the processor

pub struct WorldpayCnp {
    url: String,
    merchant_id: String,
    user: String,
    password: Secret<String>,
    report_group: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    environment: Option<Environment>,
    base_url: Option<String>,
    merchant_id: String,
    user: String,
    #[serde(deserialize_with = "secret")]
    password: Secret<String>,
    #[serde(default = "report_group")]
    report_group: String,
}

fn report_group() -> String {
    "Default Report Group".into()
}

impl Dialect for WorldpayCnp {
    type Settings = Settings;

    const SECRETS: &'static [&'static str] = &["password"];

    const EXAMPLE: &'static str = "\
environment = \"sandbox\"         # the prelive system, or \"live\"
merchant_id = \"0180246\"
user = \"ACMEWATER\"
password = { file = \"/etc/ringtill/worldpay.password\" }
report_group = \"Phone\"
";

    fn open(settings: Settings) -> Result<WorldpayCnp, String> {
        let base = base_url(
            settings.environment,
            settings.base_url.as_deref(),
            "https://transact.vantivprelive.com",
            "https://transact.vantivcnp.com",
        )?;
        credential("merchant_id", &settings.merchant_id)?;
        credential("user", &settings.user)?;
        credential("password", settings.password.expose())?;
        Ok(WorldpayCnp {
            url: format!("{base}/vap/communicator/online"),
            merchant_id: settings.merchant_id,
            user: settings.user,
            password: settings.password,
            report_group: settings.report_group,
        })
    }

    fn simulator(seed: u64) -> Simulator {
        Simulator::new(Box::new(simulator::Processor::new(seed)))
    }
}

const SHOWN: &[&str] = &[
    "version",
    "encoding",
    "xmlns",
    "merchantId",
    "id",
    "reportGroup",
    "orderId",
    "amount",
    "secondaryAmount",
    "surchargeAmount",
    "orderSource",
    "type",
    "accType",
    "cnpTxnId",
    "origId",
    "partial",
];

impl Gateway for WorldpayCnp {
    fn name(&self) -> &'static str {
        "worldpay_cnp"
    }

    fn splits_fees(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: &Operation::ALL,
            bank: true,
            tokens: true,
            verify_keeps: true,
            token_cvv: true,
            surcharge: true,
            repeat: Repeat::Replays,
        }
    }

    fn charge(&self, charge: &Charge<'_>) -> Result<Request, Cannot> {
        self.capabilities().allow(charge)?;
        let bank = charge.instrument.method() == Method::Bank;
        if bank && charge.purpose != Purpose::Sale {
            return Err(Cannot("an account can only be debited, not verified or authorised"));
        }
        if bank && matches!(charge.instrument, Instrument::Token(_)) {
            return Err(Cannot("an account's token needs its routing number"));
        }
        if charge.total.currency != crate::money::Currency::USD {
            return Err(Cannot("this gateway charges in US dollars"));
        }
        let name = match charge.purpose {
            _ if bank => "echeckSale",
            Purpose::Sale => "sale",
            Purpose::Verify | Purpose::Authorize => "authorization",
        };
        Ok(self.request(name, charge.reference, |all| {
            all.text("orderId", &short(charge.reference));
            all.text("amount", &charge.total.minor.to_string());
            if let Some(fee) = charge.convenience_fee() {
                all.text("secondaryAmount", &fee.minor.to_string());
            }
            if let Some(surcharge) = charge.surcharge() {
                all.text("surchargeAmount", &surcharge.minor.to_string());
            }
            all.text(
                "orderSource",
                match charge.initiator {
                    Initiator::Merchant { series: Series::Recurring, .. } => "recurring",
                    Initiator::Merchant { series: Series::Instalment, .. } => "installment",
                    _ => "telephone",
                },
            );
            match &charge.instrument {
                Instrument::Card(card) => card_elements(all, card),
                Instrument::Bank(debit) => account_elements(all, debit),
                Instrument::Token(saved) => all.element("token", &[], |token| {
                    token.text("cnpToken", saved.token.expose());
                    // A token is of a number alone.
                    if let Some(expiry) = &saved.expiry {
                        token.text("expDate", &month_year(expiry));
                    }
                    if let Some(cvv) = &saved.cvv {
                        token.text("cardValidationNum", cvv.expose());
                    }
                }),
            }
            // Credentials on file: kept now, used by their holder, who is on the phone, or by us. A
            // series says so by its source.
            match charge.instrument {
                Instrument::Token(_) if charge.initiator != Initiator::Customer => {
                    if matches!(charge.initiator, Initiator::Merchant { series: Series::Once, .. })
                    {
                        all.text("processingType", "merchantInitiatedCOF");
                    }
                }
                Instrument::Token(_) => all.text("processingType", "cardholderInitiatedCOF"),
                _ if charge.save && !bank => all.text("processingType", "initialCOF"),
                _ => {}
            }
            if let Initiator::Merchant { first, .. } = charge.initiator
                && let Some(id) = first.network()
            {
                all.text("originalNetworkTransactionId", id);
            }
        }))
    }

    fn verdict(&self, charge: &Charge<'_>, exchange: &Exchange) -> Verdict {
        let root = match answer(exchange) {
            Ok(root) => root,
            Err(verdict) => return *verdict,
        };
        let said = root.children.iter().find(|child| CHARGES.contains(&child.name.as_str()));
        match said {
            Some(said) if said.attribute("id") == Some(charge.reference) => {
                charged(said, charge.total, charge.save)
            }
            _ => Verdict::Unknown("an answer to another request".into()),
        }
    }

    fn modify(&self, change: &Modification<'_>) -> Result<Request, Cannot> {
        let bank = change.method == Method::Bank;
        let (name, with_amount) = match (change.act, change.purpose) {
            (Act::Capture, _) if bank => return Err(Cannot("an account is debited at once")),
            (Act::Capture, _) => ("capture", true),
            (Act::Void, _) if bank => ("echeckVoid", false),
            (Act::Void, Purpose::Sale) => ("void", false),
            (Act::Void, _) => ("authReversal", false),
            (Act::Refund, _) if bank => ("echeckCredit", true),
            (Act::Refund, _) => ("credit", true),
        };
        Ok(self.request(name, change.reference, |all| {
            all.text("cnpTxnId", change.original);
            if with_amount {
                all.text("amount", &change.amount.minor.to_string());
            }
        }))
    }

    fn modified(&self, change: &Modification<'_>, exchange: &Exchange) -> Modified {
        let root = match answer(exchange) {
            Ok(root) => root,
            Err(verdict) => return (*verdict).into(),
        };
        let said = root.children.iter().find(|said| said.attribute("id") == Some(change.reference));
        let Some(said) = said else { return Modified::Unknown("an answer to another".into()) };
        let id = said.at("cnpTxnId").and_then(reply::identifier);
        match (said.at("response").unwrap_or_default(), id) {
            ("000", Some(id)) => Modified::Done(id),
            ("001", Some(id)) => Modified::Accepted(id),
            (
                code @ ("306" | "311" | "312" | "313" | "316" | "360" | "361" | "362" | "365"
                | "366" | "367"),
                _,
            ) => Modified::Refused(format!("response {code}")),
            (code, _) => Modified::Unknown(format!("response {code}")),
        }
    }

    fn lookup(&self, lookup: &Lookup<'_>) -> Result<Request, Cannot> {
        let id = format!("q{}", short(lookup.reference));
        // Without the kind of action: a wrong one would make a charge look absent.
        Ok(self.request("queryTransaction", &id, |all| {
            all.text("origId", lookup.reference);
        }))
    }

    fn found(&self, lookup: &Lookup<'_>, exchange: &Exchange) -> Found {
        let Ok(root) = answer(exchange) else { return Found::NotYet };
        let Some(said) = root.child("queryTransactionResponse") else { return Found::NotYet };
        match said.at("response") {
            Some("000" | "150") => found(lookup, said),
            // 151 says that no transaction was found. Nothing we have read says that this proves
            // there is none, so absence is never believed here: a person decides in the end.
            _ => Found::NotYet,
        }
    }
}

impl WorldpayCnp {
    fn request(&self, name: &str, id: &str, children: impl FnOnce(&mut Xml<'_>)) -> Request {
        let root = [
            ("version", "12.34"),
            ("xmlns", "http://www.vantivcnp.com/schema"),
            ("merchantId", self.merchant_id.as_str()),
        ];
        let body = body::xml("cnpOnlineRequest", &root, |all| {
            all.element("authentication", &[], |who| {
                who.text("user", &self.user);
                who.text("password", self.password.expose());
            });
            let ours = [("id", id), ("reportGroup", self.report_group.as_str())];
            all.element(name, &ours, children);
        });
        let request =
            http::Request::post(&self.url).header(CONTENT_TYPE, "text/xml; charset=utf-8");
        let (head, ()) = request.body(()).expect("the address was checked at open").into_parts();
        Request { head, body, shown: SHOWN }
    }
}

/// `MMYY`.
fn month_year(expiry: &Expiry) -> Zeroizing<String> {
    Zeroizing::new(format!("{:02}{:02}", expiry.expose_month(), expiry.expose_year() % 100))
}

fn card_elements(all: &mut Xml<'_>, card: &Card) {
    if let Some(zip) = &card.zip {
        all.element("billToAddress", &[], |address| address.text("zip", zip));
    }
    all.element("card", &[], |all| {
        all.text(
            "type",
            match card.pan.brand() {
                Brand::Visa => "VI",
                Brand::Mastercard => "MC",
                Brand::Amex => "AX",
                Brand::Jcb => "JC",
                Brand::Diners => "DC",
                // Discover routes UnionPay.
                Brand::Discover | Brand::UnionPay => "DI",
            },
        );
        all.text("number", card.pan.expose());
        all.text("expDate", &month_year(&card.expiry));
        if let Some(cvv) = &card.cvv {
            all.text("cardValidationNum", cvv.expose());
        }
    });
}

fn account_elements(all: &mut Xml<'_>, debit: &Debit) {
    all.element("billToAddress", &[], |address| address.text("name", &debit.holder));
    all.element("echeck", &[], |all| {
        all.text(
            "accType",
            match (debit.holder_kind, debit.account.kind) {
                (HolderKind::Personal, AccountKind::Checking) => "Checking",
                (HolderKind::Personal, AccountKind::Savings) => "Savings",
                (HolderKind::Business, AccountKind::Checking) => "Corporate",
                (HolderKind::Business, AccountKind::Savings) => "Corp Savings",
            },
        );
        all.text("accNum", debit.account.expose());
        all.text("routingNum", debit.account.routing.as_str());
    });
}

const CHARGES: [&str; 3] = ["saleResponse", "authorizationResponse", "echeckSalesResponse"];

/// The document, if the request was taken at all.
fn answer(exchange: &Exchange) -> Result<Element, Box<Verdict>> {
    let response = exchange.response().map_err(|silence| Box::new(silence.into()))?;
    if response.status() != StatusCode::OK {
        return Err(Box::new(reply::by_status(response.status())));
    }
    let root = reply::xml(response.body()).filter(|root| root.name == "cnpOnlineResponse");
    let Some(root) = root else {
        return Err(Box::new(Verdict::Unknown("an answer that is no cnpOnlineResponse".into())));
    };
    Err(Box::new(match root.attribute("response") {
        Some("0") => return Ok(root),
        Some("3") => Verdict::Config("check merchant_id, user and password".into()),
        Some("4") => Verdict::NotSent("too many connections at the gateway".into()),
        Some("1" | "2" | "5") => Verdict::Config("the gateway does not take this document".into()),
        _ => Verdict::Unknown("an answer without a response code".into()),
    }))
}

fn charged(said: &Element, total: Money, save: bool) -> Verdict {
    let code = said.at("response").unwrap_or_default();
    if !["000", "010"].contains(&code) {
        return declined(code, said.name == "echeckSalesResponse");
    }
    let Some(gateway_reference) = said.at("cnpTxnId").and_then(reply::identifier) else {
        return Verdict::Unknown("an approval without a transaction".into());
    };
    let part = said.at("approvedAmount").and_then(|text| text.parse::<i64>().ok());
    let part = match (code, part) {
        ("010", Some(part)) if (1..total.minor).contains(&part) => {
            Some(Money { minor: part, ..total })
        }
        ("000", part) if part.is_none_or(|part| part == total.minor) => None,
        _ => return Verdict::Unknown("an approval of another amount".into()),
    };
    let fraud = |name: &str| said.child("fraudResult")?.at(name).and_then(reply::identifier);
    let token = said.child("tokenResponse").and_then(|token| token.at("cnpToken"));
    Verdict::Approved(Approval {
        gateway_reference,
        auth_code: said.at("authCode").and_then(reply::identifier).unwrap_or_default(),
        avs: fraud("avsResult"),
        cvv: fraud("cardValidationResult"),
        partial: part,
        token: token.filter(|_| save).and_then(Token::parse),
        network: said.at("networkTransactionId").and_then(reply::identifier),
    })
}

fn declined(code: &str, bank: bool) -> Verdict {
    match code {
        "100" | "101" | "102" | "110" | "111" | "120" | "122" | "130" | "140" | "327" | "349"
        | "350" | "351" | "950" => Verdict::DeclinedSoft,
        "303" | "304" | "307" | "328" | "501" | "951" => Verdict::DeclinedHard,
        "301" if bank => Verdict::Fixable(Fixable::Account),
        "301" | "302" | "323" => Verdict::Fixable(Fixable::Number),
        "305" | "320" => Verdict::Fixable(Fixable::Expiry),
        "352" => Verdict::Fixable(Fixable::Cvv),
        "353" => Verdict::Fixable(Fixable::Zip),
        "900" => Verdict::Fixable(Fixable::Routing),
        "321" | "330" | "335" | "340" => Verdict::Config(format!("response {code}")),
        code => Verdict::Unknown(format!("response {code}")),
    }
}

/// One charge among what was found under our reference.
fn found(lookup: &Lookup<'_>, said: &Element) -> Found {
    let results = said.child("results_max10");
    let all = results.map(|results| results.children.as_slice()).unwrap_or_default();
    let ours: Vec<&Element> = all
        .iter()
        .filter(|one| CHARGES.contains(&one.name.as_str()))
        .filter(|one| one.attribute("id") == Some(lookup.reference))
        .collect();
    let undone = all.iter().any(|one| {
        matches!(one.name.as_str(), "voidResponse" | "authReversalResponse" | "echeckVoidResponse")
    });
    match ours[..] {
        [one] if !undone => match charged(one, lookup.total, false) {
            Verdict::Unknown(_) | Verdict::Config(_) => Found::NotYet,
            verdict => Found::Settled(verdict),
        },
        // None or several under one reference, or one that was undone: a person must look.
        _ => Found::NotYet,
    }
}
