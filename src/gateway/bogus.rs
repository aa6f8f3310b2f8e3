//! The in-tree gateway: an API of our own making that behaves as real ones do, so that everything
//! can be tried and tested without one.
//!
//! JSON over HTTPS, `Authorization: Bearer <api key>`. Amounts are whole minor units.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/sales`, `Idempotency-Key: <reference>` | reference, amount, fee, surcharge (the fee is one), currency, account, channel, save, initiator, and card, bank or saved | 200 the sale, 402 the sale declined, held or to be corrected |
//! | `GET /v1/sales?reference=<reference>` | | 200 `{"sales":[...]}`, empty when never processed |
//! | `POST /v1/sales/<id>/void` | `{}` | 200 the sale, 409 once it has settled |
//! | `POST /v1/sales/<id>/refund` | amount, currency | 200 the sale, 409 before it has settled |
//!
//! With `"save": true` an approved sale has a `token`, which is charged as `saved` (token, cvv); one
//! that was deleted is declined with code `no_such_token` and retry `never`. With `initiator`
//! (`once`, `recurring` or `instalment`) the merchant charges it, and nobody is on the phone.
//!
//! Void and refund have an `Idempotency-Key` too: what took effect is answered as it was.
//!
//! A sale: `id, reference, status, amount, currency, last4`, and by status
//! `approved` (auth_code, avs, cvv), `declined` (code, retry: `never`, `other` or `fix`; with `fix`
//! the field: `number`, `expiry`, `cvv`, `zip`, `routing`, `account`), `held` (code), `processing`,
//! `voided`, `refunded`.
//! Errors are `{"error": "<code>"}` with 400, 401, 404, 409, 429 (nothing was processed) or
//! 5xx (anything may have been).

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode, Uri};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use super::body::encoded;
use super::reply;
use super::{
    Act, Approval, Cannot, Capabilities, Charge as Asked, Dialect, Exchange, Fixable, Found,
    Gateway, Initiator, Lookup, Modification, Modified, Operation, Purpose, Repeat, Request,
    Series, Verdict,
};
use crate::instrument::{HolderKind, Instrument, Method as Paid, Token};
use crate::secret::Secret;

pub mod charge; // a sale in the simulator's books; the trigger cards
pub mod simulator; // the other side: what answers these requests; the trigger totals

pub use charge::{Charge, Outcome};
pub use simulator::{Action, Fault, Simulator};

/// The client's side of the dialect.
pub struct Bogus {
    /// `https://host:port`, no slash at the end.
    base_url: String,
    authorization: HeaderValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `https://host[:port]`.
    pub base_url: String,
    #[serde(deserialize_with = "secret")]
    pub api_key: Secret<String>,
}

fn secret<'de, D: Deserializer<'de>>(text: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(text).map(Secret::new)
}

impl Bogus {
    fn request(&self, method: Method, path: &str, body: Zeroizing<Vec<u8>>) -> Request {
        let (head, ()) = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_url))
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(())
            .expect("the base was checked at open and the path is percent-encoded")
            .into_parts();
        Request { head, body, shown: SHOWN }
    }
}

impl Dialect for Bogus {
    type Settings = Settings;

    // The demonstration has a key that everybody knows.
    const SECRETS: &'static [&'static str] = &[];

    const EXAMPLE: &'static str = "\
base_url = \"https://127.0.0.1:8443\"
api_key = \"sk_bogus_demo\"
";

    fn open(settings: Settings) -> Result<Bogus, String> {
        let base_url = settings.base_url.trim_end_matches('/').to_string();
        let uri: Uri = base_url.parse().map_err(|_| wrong_base(&base_url))?;
        let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
        if uri.scheme_str() != Some("https") || uri.authority().is_none() || !bare {
            return Err(wrong_base(&base_url));
        }
        let bearer = Zeroizing::new(format!("Bearer {}", settings.api_key.expose()));
        let mut authorization = HeaderValue::from_str(&bearer)
            .map_err(|_| "api_key: write the key in plain ASCII, on one line".to_string())?;
        authorization.set_sensitive(true);
        Ok(Bogus { base_url, authorization })
    }

    fn simulator(seed: u64) -> super::Simulator {
        super::Simulator::new(Box::new(Simulator::new("sk_bogus_demo", seed)))
    }
}

fn wrong_base(given: &str) -> String {
    format!("base_url: `{given}` is no HTTPS address; write https://host or https://host:port")
}

impl Gateway for Bogus {
    fn name(&self) -> &'static str {
        "bogus"
    }

    fn splits_fees(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: &[
                Operation::Verify,
                Operation::Sale,
                Operation::Void,
                Operation::Refund,
                Operation::Lookup,
            ],
            bank: true,
            tokens: true,
            verify_keeps: true,
            token_cvv: true,
            surcharge: true,
            repeat: Repeat::Replays,
        }
    }

    fn charge(&self, sale: &Asked<'_>) -> Result<Request, Cannot> {
        self.capabilities().allow(sale)?;
        let (with, length) = match sale.instrument {
            Instrument::Card(card) => {
                let zip = card.zip.as_ref().map(|zip| zip.as_str());
                let card = CardBody {
                    number: card.pan.expose(),
                    exp_month: card.expiry.expose_month(),
                    exp_year: card.expiry.expose_year(),
                    cvv: card.cvv.as_ref().map(|cvv| cvv.expose()),
                    zip,
                };
                (With::Card(card), zip.map_or(0, str::len))
            }
            Instrument::Bank(debit) => {
                let bank = BankBody {
                    entry_class: "TEL",
                    routing: debit.account.routing.as_str(),
                    number: debit.account.expose(),
                    kind: debit.account.kind.name(),
                    holder: &debit.holder,
                    business: debit.holder_kind == HolderKind::Business,
                };
                (With::Bank(bank), debit.holder.len())
            }
            Instrument::Token(saved) if saved.method == Paid::Bank => {
                return Err(Cannot("this gateway keeps cards alone"));
            }
            Instrument::Token(saved) => {
                let cvv = saved.cvv.as_ref().map(|cvv| cvv.expose());
                let token = saved.token.expose();
                (With::Saved(SavedBody { token, cvv }), token.len())
            }
        };
        let of_card = matches!(with, With::Card(_));
        if sale.save && !of_card {
            return Err(Cannot("this gateway keeps cards alone"));
        }
        let verify = sale.purpose == Purpose::Verify;
        if verify && !of_card {
            return Err(Cannot("this gateway verifies cards alone"));
        }
        let variable = sale.reference.len() + sale.account_id.len() + length;
        let network_id = match sale.initiator {
            Initiator::Merchant { first, .. } => first.network(),
            Initiator::Customer => None,
        };
        let variable = variable + network_id.map_or(0, str::len);
        let initiator = match sale.initiator {
            Initiator::Customer => None,
            Initiator::Merchant { series: Series::Once, .. } => Some("once"),
            Initiator::Merchant { series: Series::Recurring, .. } => Some("recurring"),
            Initiator::Merchant { series: Series::Instalment, .. } => Some("instalment"),
        };
        let body = SaleBody {
            reference: sale.reference,
            amount: sale.total.minor,
            fee: sale.fee.minor,
            surcharge: sale.surcharge,
            currency: sale.total.currency.code(),
            account: sale.account_id,
            channel: "telephone",
            verify,
            save: sale.save,
            initiator,
            network_id,
            with,
        };
        let mut request = self.request(Method::POST, "/v1/sales", json(&body, variable));
        if let Ok(key) = HeaderValue::from_str(&encoded(sale.reference)) {
            request.head.headers.insert("idempotency-key", key);
        }
        Ok(request)
    }

    fn verdict(&self, sale: &Asked<'_>, exchange: &Exchange) -> Verdict {
        let response = match exchange.response() {
            Ok(response) => response,
            Err(silence) => return silence.into(),
        };
        let status = response.status();
        match status {
            StatusCode::OK | StatusCode::PAYMENT_REQUIRED => {
                match serde_json::from_slice::<SaleReply>(response.body()) {
                    Ok(reply) => match reply.verdict() {
                        Verdict::Approved(approval) if !sale.save => {
                            Verdict::Approved(Approval { token: None, ..approval })
                        }
                        verdict => verdict,
                    },
                    Err(_) => Verdict::Unknown(format!("HTTP {status} with an unreadable body")),
                }
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Verdict::Config(format!("HTTP {status}: check api_key"))
            }
            StatusCode::TOO_MANY_REQUESTS => Verdict::NotSent("the gateway is busy".into()),
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => {
                Verdict::Config(format!("HTTP {status}: the gateway does not know this request"))
            }
            other => Verdict::Unknown(format!("HTTP {other}")),
        }
    }

    fn modify(&self, change: &Modification<'_>) -> Result<Request, Cannot> {
        self.capabilities().allow_operation(change.act.into())?;
        let sale = encoded(change.original);
        let mut request = match change.act {
            Act::Refund => {
                let body = RefundBody {
                    amount: change.amount.minor,
                    currency: change.amount.currency.code(),
                };
                self.request(Method::POST, &format!("/v1/sales/{sale}/refund"), json(&body, 0))
            }
            _ => {
                let path = format!("/v1/sales/{sale}/void");
                self.request(Method::POST, &path, Zeroizing::new(b"{}".to_vec()))
            }
        };
        if let Ok(key) = HeaderValue::from_str(&encoded(change.reference)) {
            request.head.headers.insert("idempotency-key", key);
        }
        Ok(request)
    }

    fn modified(&self, _: &Modification<'_>, exchange: &Exchange) -> Modified {
        let response = match exchange.response() {
            Ok(response) => response,
            Err(silence) => return silence.into(),
        };
        match (response.status(), serde_json::from_slice::<SaleReply>(response.body())) {
            (StatusCode::OK, Ok(reply)) if ["voided", "refunded"].contains(&&*reply.status) => {
                Modified::Done(reply.id)
            }
            (StatusCode::TOO_MANY_REQUESTS, _) => Modified::NotSent("the gateway is busy".into()),
            (status, _) if status.is_client_error() => Modified::Refused(format!("HTTP {status}")),
            (status, _) => Modified::Unknown(format!("HTTP {status}")),
        }
    }

    fn lookup(&self, lookup: &Lookup<'_>) -> Result<Request, Cannot> {
        let path = format!("/v1/sales?reference={}", encoded(lookup.reference));
        Ok(self.request(Method::GET, &path, Zeroizing::new(Vec::new())))
    }

    fn found(&self, _: &Lookup<'_>, exchange: &Exchange) -> Found {
        let Exchange::Response(response) = exchange else { return Found::NotYet };
        if response.status() != StatusCode::OK {
            return Found::NotYet;
        }
        let Ok(reply) = serde_json::from_slice::<LookupReply>(response.body()) else {
            return Found::NotYet;
        };
        match &reply.sales[..] {
            [] => Found::Absent,
            [sale] => match sale.verdict() {
                Verdict::Unknown(_) => Found::NotYet,
                verdict => Found::Settled(verdict),
            },
            // Two sales under one idempotency key: a person must look.
            _ => Found::NotYet,
        }
    }
}

#[derive(Serialize)]
struct SaleBody<'a> {
    reference: &'a str,
    amount: i64,
    fee: i64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    surcharge: bool,
    currency: &'a str,
    account: &'a str,
    channel: &'a str,
    /// Nothing is charged.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    verify: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    save: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_id: Option<&'a str>,
    #[serde(flatten)]
    with: With<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum With<'a> {
    Card(CardBody<'a>),
    Bank(BankBody<'a>),
    Saved(SavedBody<'a>),
}

#[derive(Serialize)]
struct SavedBody<'a> {
    token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cvv: Option<&'a str>,
}

#[derive(Serialize)]
struct BankBody<'a> {
    entry_class: &'a str,
    routing: &'a str,
    number: &'a str,
    kind: &'a str,
    holder: &'a str,
    business: bool,
}

#[derive(Serialize)]
struct CardBody<'a> {
    number: &'a str,
    exp_month: u8,
    exp_year: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    cvv: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zip: Option<&'a str>,
}

#[derive(Serialize)]
struct RefundBody<'a> {
    amount: i64,
    currency: &'a str,
}

#[derive(Deserialize)]
struct SaleReply {
    id: String,
    status: String,
    auth_code: Option<String>,
    avs: Option<String>,
    cvv: Option<String>,
    code: Option<String>,
    retry: Option<String>,
    field: Option<String>,
    token: Option<String>,
    network_id: Option<String>,
}

#[derive(Deserialize)]
struct LookupReply {
    sales: Vec<SaleReply>,
}

impl SaleReply {
    fn verdict(&self) -> Verdict {
        let code = self.code.clone().unwrap_or_default();
        match (self.status.as_str(), self.retry.as_deref(), self.field.as_deref()) {
            _ if self.id.is_empty() || self.id.len() > ID_MAX => {
                Verdict::Unknown("an answer without a usable id".into())
            }
            ("approved" | "refunded", ..) => Verdict::Approved(Approval {
                gateway_reference: self.id.clone(),
                auth_code: self.auth_code.clone().unwrap_or_default(),
                avs: self.avs.clone(),
                cvv: self.cvv.clone(),
                token: self.token.as_deref().and_then(Token::parse),
                network: self.network_id.as_deref().and_then(reply::identifier),
                ..Approval::default()
            }),
            ("declined", Some("never"), _) => Verdict::DeclinedHard,
            ("declined", Some("other"), _) => Verdict::DeclinedSoft,
            ("declined", Some("fix"), Some("number")) => Verdict::Fixable(Fixable::Number),
            ("declined", Some("fix"), Some("expiry")) => Verdict::Fixable(Fixable::Expiry),
            ("declined", Some("fix"), Some("cvv")) => Verdict::Fixable(Fixable::Cvv),
            ("declined", Some("fix"), Some("zip")) => Verdict::Fixable(Fixable::Zip),
            ("declined", Some("fix"), Some("routing")) => Verdict::Fixable(Fixable::Routing),
            ("declined", Some("fix"), Some("account")) => Verdict::Fixable(Fixable::Account),
            // Declined for a reason newer than this code: another card may do.
            ("declined", ..) => Verdict::DeclinedSoft,
            ("held", ..) => Verdict::Held(code),
            // `processing` is unfinished, and `voided` is nothing a sale should find.
            (status, ..) => Verdict::Unknown(format!("the sale is {status}")),
        }
    }
}

/// What may be logged of a body.
const SHOWN: &[&str] = &[
    "reference",
    "amount",
    "fee",
    "surcharge",
    "currency",
    "account",
    "channel",
    "verify",
    "save",
];

/// Longest sale id that is believed.
const ID_MAX: usize = 64;

/// JSON written straight into one zeroed-on-drop allocation. `variable` is the number of bytes in
/// strings of no fixed length, which escaping can make six times as long.
fn json(value: &impl Serialize, variable: usize) -> Zeroizing<Vec<u8>> {
    let capacity = 512 + 6 * variable;
    let mut body = Zeroizing::new(Vec::with_capacity(capacity));
    serde_json::to_writer(&mut *body, value).expect("plain structs go into a Vec");
    // Growing would have left a copy of the card behind.
    debug_assert!(body.len() <= capacity, "{} of {capacity}", body.len());
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Purpose;
    use crate::instrument::{Card, Cvv, Expiry, Pan};
    use crate::money::Money;

    fn gateway() -> Bogus {
        let base_url = "https://gateway.example:8443/".into();
        Bogus::open(Settings { base_url, api_key: Secret::new("sk_test".into()) }).unwrap()
    }

    fn card() -> Card {
        let pan = Pan::parse("4111111111111111").unwrap();
        let cvv = Cvv::parse("123", pan.brand());
        let expiry = Expiry::parse("0930", jiff::civil::date(2026, 6, 1)).unwrap();
        Card { pan, expiry, cvv, zip: Some("46201".to_string().into()) }
    }

    fn charge<'a>(card: &'a Card, reference: &'a str) -> Asked<'a> {
        Asked {
            purpose: Purpose::Sale,
            reference,
            total: Money::usd(20_200),
            fee: Money::usd(200),
            surcharge: false,
            instrument: Instrument::Card(card),
            account_id: "4471 \"B\"",
            save: false,
            initiator: Initiator::Customer,
            at_ms: 0,
        }
    }

    #[test]
    fn the_body_with_the_card_never_grows() {
        let mut card = card();
        card.zip = Some("\u{1}".repeat(200).into());
        let account = "\u{2}".repeat(3000);
        let sale = Asked {
            total: Money::usd(i64::MAX),
            fee: Money::usd(i64::MIN),
            account_id: &account,
            ..charge(&card, "r")
        };
        let body = gateway().charge(&sale).unwrap().body;
        assert!(body.len() > 19_000 && body.capacity() == 512 + 6 * 3201);
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        for base in ["http://gateway.example", "gateway.example", "https://", "https://h/path"] {
            let settings = Settings { base_url: base.into(), api_key: Secret::new("k".into()) };
            let why = Bogus::open(settings).err().expect(base);
            assert!(why.contains("write https://host"), "{why}");
        }
    }

    #[test]
    fn each_answer_has_its_verdict() {
        let verdict = |status: u16, body: &str| {
            let response = http::Response::builder().status(status);
            let response = response.body(body.as_bytes().to_vec()).unwrap();
            gateway().verdict(&charge(&card(), "r"), &Exchange::Response(response))
        };
        let declined = |rest: &str| {
            verdict(402, &format!(r#"{{"id":"s","status":"declined","code":"x"{rest}}}"#))
        };
        assert_eq!(declined(r#","retry":"never""#), Verdict::DeclinedHard);
        assert_eq!(declined(r#","retry":"other""#), Verdict::DeclinedSoft);
        assert_eq!(declined(""), Verdict::DeclinedSoft);
        for (field, fixable) in [
            ("number", Fixable::Number),
            ("expiry", Fixable::Expiry),
            ("cvv", Fixable::Cvv),
            ("zip", Fixable::Zip),
        ] {
            let got = declined(&format!(r#","retry":"fix","field":"{field}""#));
            assert_eq!(got, Verdict::Fixable(fixable));
        }
        let held = verdict(402, r#"{"id":"s","status":"held","code":"review"}"#);
        assert_eq!(held, Verdict::Held("review".into()));
        for (status, body) in [
            (200, r#"{"id":"","status":"approved"}"#),
            (200, r#"{"id":"s","status":"processing"}"#),
            (200, r#"{"status":"approved"}"#),
            (409, r#"{"error":"idempotency_mismatch"}"#),
        ] {
            assert!(matches!(verdict(status, body), Verdict::Unknown(_)), "{status} {body}");
        }
        assert!(matches!(verdict(429, "{}"), Verdict::NotSent(_)));
    }
}
