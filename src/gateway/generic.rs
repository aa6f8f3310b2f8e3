//! The Generic Pay Connector: one JSON contract that bridges written for `<Pay>` of Twilio,
//! SignalWire or Telnyx speak, and Hyperswitch's telephone orders.
//!
//! `POST <url>` with `transaction_id, method, cardnumber, cvv, expiry_month, expiry_year,
//! postal_code, amount, currency_code, description`, all text. 200 with a `charge_id` (or
//! `token_id`) and no `error_code` is done; any other status with an `error_code` is not. What the
//! code means differs from bridge to bridge: common names are known, `errors` adds to them.
//!
//! | dialect | `method` | amount | accounts |
//! |---|---|---|---|
//! | `twilio`, `telnyx` | `credit-card`, `ach-debit` | `amount` | yes |
//! | `signalwire` | `credit-card` | `chargeAmount` | no |
//! | `hyperswitch` | `charge`, `tokenize` | `amount` | no |
//!
//! With `tokens = true` the bridge keeps cards: a charge with `token_type` `reusable` is answered
//! with a `token_id` beside its `charge_id`, and a charge has that as `payment_token` instead of a
//! card, with `cvv` where it is asked for again. `token_not_found` says that it was deleted.
//!
//! With `lookup = true` the bridge must answer `GET <url>/<transaction_id>` as it answered the
//! charge, or 404 with `error_code` `not_found` if it never had it: a convention of ours.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::body::{self, Object};
use super::settings::{address, credential, secret_if_any, sensitive};
use super::{
    Approval, Cannot, Capabilities, Charge, Dialect, Exchange, Fixable, Found, Gateway, Lookup,
    Modification, Modified, Operation, Purpose, Repeat, Request, Simulator, Verdict, reply,
};
use crate::instrument::{
    AccountKind, Card, Debit, HolderKind, Instrument, Method as MethodOf, Token,
};
use crate::secret::Secret;

pub mod simulator; // a bridge

pub struct Generic {
    url: String,
    speaks: Speaks,
    authorization: Option<HeaderValue>,
    lookup: bool,
    tokens: bool,
    parameters: BTreeMap<String, String>,
    errors: BTreeMap<String, Meaning>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Speaks {
    Twilio,
    Signalwire,
    Telnyx,
    Hyperswitch,
}

/// What an `error_code` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Meaning {
    Declined,
    NeverAgain,
    Number,
    Expiry,
    Cvv,
    Zip,
    Routing,
    Account,
    Held,
    Duplicate,
    Busy,
    Setup,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The whole address charges are posted to.
    url: String,
    dialect: Speaks,
    username: Option<String>,
    #[serde(default, deserialize_with = "secret_if_any")]
    password: Option<Secret<String>>,
    #[serde(default, deserialize_with = "secret_if_any")]
    bearer: Option<Secret<String>>,
    /// The bridge answers `GET <url>/<transaction_id>`.
    #[serde(default)]
    lookup: bool,
    /// The bridge keeps cards.
    #[serde(default)]
    tokens: bool,
    /// Sent with every charge.
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    /// `error_code` of the bridge to what it means.
    #[serde(default)]
    errors: BTreeMap<String, Meaning>,
}

impl Dialect for Generic {
    type Settings = Settings;

    const SECRETS: &'static [&'static str] = &["password", "bearer"];

    const EXAMPLE: &'static str = "\
url = \"https://bridge.example.com/pay\"
dialect = \"twilio\"              # or \"signalwire\", \"telnyx\", \"hyperswitch\"
username = \"ringtill\"           # or, instead of both: bearer = { env = \"BRIDGE_TOKEN\" }
password = { file = \"/etc/ringtill/bridge.password\" }
lookup = true                   # the bridge answers GET <url>/<transaction_id>
tokens = true                   # it keeps cards: token_type reusable, payment_token
parameters = { biller = \"acme\" }
errors = { \"E-104\" = \"declined\" }
";

    const VARIANTS: &'static [(&'static str, &'static str)] = &[
        ("twilio", "dialect = \"twilio\""),
        ("signalwire", "dialect = \"signalwire\""),
        ("telnyx", "dialect = \"telnyx\""),
        ("hyperswitch", "dialect = \"hyperswitch\""),
    ];

    fn open(settings: Settings) -> Result<Generic, String> {
        let authorization = match (settings.username, settings.password, settings.bearer) {
            (Some(name), Some(password), None) => {
                credential("password", password.expose())?;
                let pair = Zeroizing::new(format!("{name}:{}", password.expose()));
                let basic = Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes())));
                Some(sensitive("password", &basic)?)
            }
            (None, None, Some(bearer)) => {
                credential("bearer", bearer.expose())?;
                let bearer = Zeroizing::new(format!("Bearer {}", bearer.expose()));
                Some(sensitive("bearer", &bearer)?)
            }
            (None, None, None) => None,
            _ => return Err("write username and password, or bearer, or none of them".into()),
        };
        Ok(Generic {
            url: address("url", &settings.url, true)?,
            speaks: settings.dialect,
            authorization,
            lookup: settings.lookup,
            tokens: settings.tokens,
            parameters: settings.parameters,
            errors: settings.errors,
        })
    }

    fn simulator(seed: u64) -> Simulator {
        Simulator::new(Box::new(simulator::Bridge::new(seed)))
    }
}

const SHOWN: &[&str] = &[
    "transaction_id",
    "method",
    "amount",
    "chargeAmount",
    "currency_code",
    "description",
    "token_type",
    "bank_account_type",
];

impl Gateway for Generic {
    fn name(&self) -> &'static str {
        "generic"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: match self.lookup {
                true => &[Operation::Verify, Operation::Sale, Operation::Lookup],
                false => &[Operation::Verify, Operation::Sale],
            },
            bank: matches!(self.speaks, Speaks::Twilio | Speaks::Telnyx),
            tokens: self.tokens,
            verify_keeps: self.tokens,
            token_cvv: self.tokens,
            surcharge: false,
            // Nothing in the contract says otherwise.
            repeat: Repeat::Charges,
        }
    }

    fn charge(&self, charge: &Charge<'_>) -> Result<Request, Cannot> {
        self.capabilities().allow(charge)?;
        if let Instrument::Token(saved) = charge.instrument
            && saved.method == MethodOf::Bank
        {
            return Err(Cannot("this gateway keeps cards alone"));
        }
        let body = body::json(|all| self.members(all, charge));
        Ok(self.request(Method::POST, &self.url, body))
    }

    fn verdict(&self, charge: &Charge<'_>, exchange: &Exchange) -> Verdict {
        match exchange.response() {
            Ok(response) => match self.read(charge.purpose, response) {
                Verdict::Approved(approval) if charge.save => {
                    let json = reply::json(response.body()).unwrap_or_default();
                    let token = reply::kept(&json, "/token_id").and_then(|id| Token::parse(&id));
                    Verdict::Approved(Approval { token, ..approval })
                }
                verdict => verdict,
            },
            Err(silence) => silence.into(),
        }
    }

    fn modify(&self, change: &Modification<'_>) -> Result<Request, Cannot> {
        self.capabilities().allow_operation(change.act.into())?;
        Err(Cannot("the contract has no way to undo a charge"))
    }

    fn modified(&self, _: &Modification<'_>, exchange: &Exchange) -> Modified {
        match exchange.response() {
            Ok(_) => Modified::Unknown("an answer to what was never asked".into()),
            Err(silence) => silence.into(),
        }
    }

    fn lookup(&self, lookup: &Lookup<'_>) -> Result<Request, Cannot> {
        self.capabilities().allow_operation(Operation::Lookup)?;
        let url = format!("{}/{}", self.url, body::encoded(lookup.reference));
        Ok(self.request(Method::GET, &url, Zeroizing::new(Vec::new())))
    }

    fn found(&self, lookup: &Lookup<'_>, exchange: &Exchange) -> Found {
        let Ok(response) = exchange.response() else { return Found::NotYet };
        let code = reply::json(response.body()).and_then(|json| reply::kept(&json, "/error_code"));
        if response.status() == StatusCode::NOT_FOUND && code.as_deref() == Some("not_found") {
            return Found::Absent;
        }
        match self.read(lookup.purpose, response) {
            Verdict::Unknown(_) | Verdict::Config(_) | Verdict::NotSent(_) => Found::NotYet,
            verdict => Found::Settled(verdict),
        }
    }
}

impl Generic {
    fn request(&self, method: Method, url: &str, body: Zeroizing<Vec<u8>>) -> Request {
        let mut builder = http::Request::builder().method(method).uri(url);
        if let Some(authorization) = &self.authorization {
            builder = builder.header(AUTHORIZATION, authorization.clone());
        }
        let builder = builder.header(CONTENT_TYPE, "application/json");
        let request = builder.body(()).expect("the address was checked at open");
        let (head, ()) = request.into_parts();
        Request { head, body, shown: SHOWN }
    }

    fn members(&self, all: &mut Object<'_>, charge: &Charge<'_>) {
        let verify = charge.purpose == Purpose::Verify;
        let method = match (self.speaks, &charge.instrument) {
            (Speaks::Hyperswitch, _) if verify => "tokenize",
            (Speaks::Hyperswitch, _) => "charge",
            (_, Instrument::Bank(_)) => "ach-debit",
            _ => "credit-card",
        };
        all.text("transaction_id", charge.reference);
        all.text("method", method);
        match &charge.instrument {
            Instrument::Card(card) => card_members(all, card),
            Instrument::Bank(debit) => bank_members(all, debit),
            Instrument::Token(saved) => {
                all.text("payment_token", saved.token.expose());
                all.some("cvv", saved.cvv.as_ref().map(|cvv| cvv.expose()));
            }
        }
        let total = if verify { "0.00".to_string() } else { charge.total.decimal() };
        let amount = if self.speaks == Speaks::Signalwire { "chargeAmount" } else { "amount" };
        all.text(amount, &total);
        all.text("currency_code", charge.total.currency.code());
        all.text("description", charge.account_id);
        if charge.save {
            all.text("token_type", "reusable");
        } else if self.speaks != Speaks::Hyperswitch {
            all.text("token_type", "one-time");
        }
        if !self.parameters.is_empty() {
            all.object("parameters", |all| {
                self.parameters.iter().for_each(|(name, value)| all.text(name, value));
            });
        }
    }

    fn read(&self, purpose: Purpose, response: &http::Response<Vec<u8>>) -> Verdict {
        let status = response.status();
        let Some(json) = reply::json(response.body()) else {
            return match reply::by_status(status) {
                // Without the contract's body nobody knows who answered.
                Verdict::NotSent(why) => Verdict::Unknown(why),
                verdict => verdict,
            };
        };
        let charge_id = reply::kept(&json, "/charge_id");
        let id = match purpose {
            Purpose::Verify => charge_id.or_else(|| reply::kept(&json, "/token_id")),
            _ => charge_id,
        };
        let error = json.get("error_code").is_some_and(|code| !code.is_null());
        match (status, id, reply::kept(&json, "/error_code")) {
            (StatusCode::OK, Some(gateway_reference), _) if !error => Verdict::Approved(Approval {
                gateway_reference,
                auth_code: reply::kept(&json, "/auth_code").unwrap_or_default(),
                ..Approval::default()
            }),
            (status, None, Some(code)) if status.is_client_error() => self.meaning(status, &code),
            (status, ..) => match reply::by_status(status) {
                Verdict::NotSent(why) => Verdict::Unknown(why),
                verdict => verdict,
            },
        }
    }

    fn meaning(&self, status: StatusCode, code: &str) -> Verdict {
        let known = KNOWN.iter().find(|(name, _)| *name == code).map(|(_, meaning)| *meaning);
        match self.errors.get(code).copied().or(known) {
            Some(Meaning::Declined) => Verdict::DeclinedSoft,
            Some(Meaning::NeverAgain) => Verdict::DeclinedHard,
            Some(Meaning::Number) => Verdict::Fixable(Fixable::Number),
            Some(Meaning::Expiry) => Verdict::Fixable(Fixable::Expiry),
            Some(Meaning::Cvv) => Verdict::Fixable(Fixable::Cvv),
            Some(Meaning::Zip) => Verdict::Fixable(Fixable::Zip),
            Some(Meaning::Routing) => Verdict::Fixable(Fixable::Routing),
            Some(Meaning::Account) => Verdict::Fixable(Fixable::Account),
            Some(Meaning::Held) => Verdict::Held(code.into()),
            Some(Meaning::Duplicate) => Verdict::Duplicate { original: None },
            Some(Meaning::Busy) => Verdict::NotSent("the bridge is busy".into()),
            Some(Meaning::Setup) => Verdict::Config(format!("the bridge says {code}")),
            None => match reply::by_status(status) {
                Verdict::Config(why) => Verdict::Config(why),
                _ => Verdict::Unknown(format!(
                    "HTTP {status} with error_code {code}: add it to errors"
                )),
            },
        }
    }
}

/// Codes that bridges commonly pass on from the processor behind them.
const KNOWN: [(&str, Meaning); 23] = [
    ("card_declined", Meaning::Declined),
    ("declined", Meaning::Declined),
    ("do_not_honor", Meaning::Declined),
    ("insufficient_funds", Meaning::Declined),
    ("lost_card", Meaning::NeverAgain),
    ("stolen_card", Meaning::NeverAgain),
    ("pickup_card", Meaning::NeverAgain),
    ("account_closed", Meaning::NeverAgain),
    ("token_not_found", Meaning::NeverAgain),
    ("incorrect_number", Meaning::Number),
    ("invalid_number", Meaning::Number),
    ("expired_card", Meaning::Expiry),
    ("invalid_expiry", Meaning::Expiry),
    ("incorrect_cvc", Meaning::Cvv),
    ("invalid_cvv", Meaning::Cvv),
    ("incorrect_zip", Meaning::Zip),
    ("invalid_routing_number", Meaning::Routing),
    ("invalid_account_number", Meaning::Account),
    ("under_review", Meaning::Held),
    ("duplicate_transaction", Meaning::Duplicate),
    ("rate_limited", Meaning::Busy),
    ("unauthorized", Meaning::Setup),
    ("currency_not_supported", Meaning::Setup),
];

fn card_members(all: &mut Object<'_>, card: &Card) {
    let month = Zeroizing::new(format!("{:02}", card.expiry.expose_month()));
    let year = Zeroizing::new(format!("{:02}", card.expiry.expose_year() % 100));
    all.text("cardnumber", card.pan.expose());
    all.some("cvv", card.cvv.as_ref().map(|cvv| cvv.expose()));
    all.text("expiry_month", &month);
    all.text("expiry_year", &year);
    all.some("postal_code", card.zip.as_ref().map(|zip| zip.as_str()));
}

fn bank_members(all: &mut Object<'_>, debit: &Debit) {
    all.text("bank_routing_number", debit.account.routing.as_str());
    all.text("bank_account_number", debit.account.expose());
    all.text(
        "bank_account_type",
        match (debit.holder_kind, debit.account.kind) {
            (HolderKind::Personal, AccountKind::Checking) => "consumer-checking",
            (HolderKind::Personal, AccountKind::Savings) => "consumer-savings",
            (HolderKind::Business, AccountKind::Checking) => "commercial-checking",
            (HolderKind::Business, AccountKind::Savings) => "commercial-savings",
        },
    );
    all.text("bank_account_name", &debit.holder);
}
