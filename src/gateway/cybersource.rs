//! CyberSource's REST API (Visa Acceptance): JSON, each request signed with a shared secret.
//!
//! Cards with `commerceIndicator` moto, accounts with `secCode` TEL. Captures and refunds are taken
//! in and settled in a batch. A repeat is charged again unless the processor behind it keeps our
//! `transactionId`, which is Visa's own alone. A lookup searches the transactions for our reference
//! and then reads the one it found; a new one takes minutes to be found.

use http::Response;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::body::{self, Object, encoded};
use super::settings::{Environment, base_url, credential, secret};
use super::{
    Act, Approval, Cannot, Capabilities, Charge, Dialect, Exchange, Found, Gateway, Initiator,
    Lookup, Modification, Modified, Operation, Purpose, Repeat, Request, Series, Simulator,
    Verdict, reply,
};
use crate::instrument::{AccountKind, Debit, HolderKind, Instrument, Method, Token};
use crate::money::Money;
use crate::secret::Secret;

mod signature; // what each request is signed with
mod reason; // what a reason says of a charge
pub mod simulator; // CyberSource's side

use signature::Signer;

pub struct CyberSource {
    base_url: String,
    signer: Signer,
    service_fee: bool,
    surcharge: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    environment: Option<Environment>,
    base_url: Option<String>,
    merchant_id: String,
    key_id: String,
    #[serde(deserialize_with = "secret")]
    shared_secret: Secret<String>,
    /// The account is set up for service fees: ours is told apart and paid out so.
    #[serde(default)]
    service_fee: bool,
    /// The processor behind it takes surcharges.
    #[serde(default)]
    surcharge: bool,
}

impl Dialect for CyberSource {
    type Settings = Settings;

    const SECRETS: &'static [&'static str] = &["shared_secret"];

    const VARIANTS: &'static [(&'static str, &'static str)] =
        &[("", ""), ("split", "service_fee = true"), ("surcharge", "surcharge = true")];

    const EXAMPLE: &'static str = "\
environment = \"sandbox\"         # or \"live\"
merchant_id = \"acmewater_1\"
key_id = \"08c94330-f618-42a3-b09d-e1e43be5efda\"   # of a REST shared secret key (Business Center, Key Management)
shared_secret = { file = \"/etc/ringtill/cybersource.key\" }
# service_fee = true              # the account is set up for service fees: [payment] fee is one
# surcharge = true                # the processor is FDC Nashville Global, and Fiserv allows it
";

    fn open(settings: Settings) -> Result<CyberSource, String> {
        let (sandbox, live) = ("https://apitest.cybersource.com", "https://api.cybersource.com");
        let base = settings.base_url.as_deref();
        let base_url = base_url(settings.environment, base, sandbox, live)?;
        credential("merchant_id", &settings.merchant_id)?;
        credential("key_id", &settings.key_id)?;
        credential("shared_secret", settings.shared_secret.expose())?;
        let host = base_url.trim_start_matches("https://").to_string();
        let signer =
            Signer::new(host, settings.merchant_id, settings.key_id, &settings.shared_secret)?;
        let Settings { service_fee, surcharge, .. } = settings;
        Ok(CyberSource { base_url, signer, service_fee, surcharge })
    }

    fn simulator(seed: u64) -> Simulator {
        Simulator::new(Box::new(simulator::Processor::new(seed)))
    }
}

const SHOWN: &[&str] = &[
    "code",
    "transactionId",
    "commerceIndicator",
    "capture",
    "secCode",
    "totalAmount",
    "serviceFeeAmount",
    "amount",
    "currency",
    "query",
    "limit",
    "sort",
];

/// Before this a charge that is not found may be one that searches do not show yet: they are said
/// to take minutes, and nothing found says how many at most. An hour.
const SEARCHABLE_MS: i64 = 3_600_000;
/// Transactions of one reference that are looked at: there is one, unless somebody else uses it.
const LIMIT: i64 = 20;

impl Gateway for CyberSource {
    fn name(&self) -> &'static str {
        "cybersource"
    }

    fn splits_fees(&self) -> bool {
        self.service_fee
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: &Operation::ALL,
            bank: true,
            tokens: true,
            verify_keeps: true,
            token_cvv: true,
            // Of the processors that take one without the card, the documents name one alone.
            surcharge: self.surcharge,
            repeat: Repeat::Charges,
        }
    }

    fn charge(&self, charge: &Charge<'_>) -> Result<Request, Cannot> {
        self.capabilities().allow(charge)?;
        if charge.instrument.method() == Method::Bank && charge.purpose != Purpose::Sale {
            return Err(Cannot("this gateway neither verifies nor reserves on bank accounts"));
        }
        let body = body::json(|all| {
            all.object("clientReferenceInformation", |reference| {
                reference.text("code", charge.reference);
                reference.text("transactionId", charge.reference);
            });
            all.object("processingInformation", |how| processing(how, charge));
            all.object("paymentInformation", |with| payment(with, &charge.instrument));
            all.object("orderInformation", |order| {
                let fee = charge.convenience_fee().filter(|_| self.service_fee);
                amount(order, charge.total, fee, charge.surcharge());
                bill_to(order, &charge.instrument);
            });
        });
        Ok(self.post("/pts/v2/payments", charge.at_ms, body))
    }

    fn verdict(&self, charge: &Charge<'_>, exchange: &Exchange) -> Verdict {
        match exchange.response() {
            Ok(response) => read(charge, response),
            Err(silence) => silence.into(),
        }
    }

    fn modify(&self, change: &Modification<'_>) -> Result<Request, Cannot> {
        let path = match (change.act, change.purpose) {
            (Act::Capture, _) => "captures",
            (Act::Void, Purpose::Sale) => "voids",
            // What is only reserved is let go.
            (Act::Void, Purpose::Authorize | Purpose::Verify) => "reversals",
            (Act::Refund, _) => "refunds",
        };
        let body = body::json(|all| {
            all.object("clientReferenceInformation", |reference| {
                reference.text("code", change.reference);
            });
            match path {
                "voids" => {}
                "reversals" => all.object("reversalInformation", |reversal| {
                    amount(reversal, change.amount, None, None);
                }),
                _ => {
                    all.object("orderInformation", |order| amount(order, change.amount, None, None))
                }
            }
        });
        let path = format!("/pts/v2/payments/{}/{path}", encoded(change.original));
        Ok(self.post(&path, change.at_ms, body))
    }

    fn modified(&self, change: &Modification<'_>, exchange: &Exchange) -> Modified {
        let response = match exchange.response() {
            Ok(response) => response,
            Err(silence) => return silence.into(),
        };
        let json = reply::json(response.body()).unwrap_or_default();
        let status = json.get("status").and_then(Value::as_str).unwrap_or_default();
        let reason = reply::kept(&json, "/reason").unwrap_or_default();
        let ours = json.pointer("/clientReferenceInformation/code").and_then(Value::as_str);
        match (response.status().as_u16(), status, reply::kept(&json, "/id")) {
            (201, ..) if ours.is_some_and(|code| code != change.reference) => {
                Modified::Unknown("an answer to another request".into())
            }
            (201, "VOIDED" | "REVERSED", Some(id)) if change.act == Act::Void => Modified::Done(id),
            (201, "PENDING" | "TRANSMITTED", Some(id)) if change.act != Act::Void => {
                Modified::Accepted(id)
            }
            (400, ..) => match reason.as_str() {
                "" => Modified::Unknown("HTTP 400 without a reason".into()),
                "DUPLICATE_REQUEST" => Modified::Unknown("the gateway has had the same".into()),
                "INVALID_MERCHANT_CONFIGURATION" | "NOT_SUPPORTED" => {
                    Modified::Config(format!("{reason}: ask CyberSource what the account may do"))
                }
                reason => Modified::Refused(reason.to_string()),
            },
            (404, ..) => Modified::Refused("there is no such payment".into()),
            _ => reply::by_status(response.status()).into(),
        }
    }

    fn lookup(&self, lookup: &Lookup<'_>) -> Result<Request, Cannot> {
        if let Some(id) = lookup.step.strip_prefix("transaction:") {
            return Ok(self.get(&format!("/tss/v2/transactions/{}", encoded(id)), lookup.at_ms));
        }
        // Its query language has no escape for a quote: a reference of ours has none.
        let reference = lookup.reference.replace(['"', '\\'], "");
        let body = body::json(|all| {
            all.flag("save", false);
            all.text("query", &format!("clientReferenceInformation.code:\"{reference}\""));
            all.number("offset", 0);
            all.number("limit", LIMIT);
            all.text("sort", "submitTimeUtc:desc");
        });
        Ok(self.post("/tss/v2/searches", lookup.at_ms, body))
    }

    fn found(&self, lookup: &Lookup<'_>, exchange: &Exchange) -> Found {
        let Ok(response) = exchange.response() else { return Found::NotYet };
        let Some(json) = reply::json(response.body()) else { return Found::NotYet };
        match (lookup.step.is_empty(), response.status()) {
            (true, StatusCode::OK | StatusCode::CREATED) => listed(lookup, &json),
            (false, StatusCode::OK) => details(lookup, &json),
            _ => Found::NotYet,
        }
    }
}

impl CyberSource {
    fn post(&self, path: &str, at_ms: i64, body: Zeroizing<Vec<u8>>) -> Request {
        let request = http::Request::post(format!("{}{path}", self.base_url))
            .header(CONTENT_TYPE, "application/json");
        self.signed(request, at_ms, body)
    }

    fn get(&self, path: &str, at_ms: i64) -> Request {
        let request = http::Request::get(format!("{}{path}", self.base_url));
        self.signed(request, at_ms, Zeroizing::default())
    }

    fn signed(
        &self,
        request: http::request::Builder,
        at_ms: i64,
        body: Zeroizing<Vec<u8>>,
    ) -> Request {
        let request = request.body(()).expect("the base was checked and the path is encoded");
        let (mut head, ()) = request.into_parts();
        self.signer.sign(&mut head, at_ms, &body);
        Request { head, body, shown: SHOWN }
    }
}

fn processing(how: &mut Object<'_>, charge: &Charge<'_>) {
    match charge.instrument {
        Instrument::Bank(_) => {
            how.object("bankTransferOptions", |options| options.text("secCode", "TEL"));
        }
        Instrument::Card(_) | Instrument::Token(_) => {
            how.flag("capture", charge.purpose == Purpose::Sale);
            how.text(
                "commerceIndicator",
                match charge.initiator {
                    Initiator::Merchant { series: Series::Recurring, .. } => "recurring",
                    Initiator::Merchant { series: Series::Instalment, .. } => "install",
                    _ => "moto",
                },
            );
        }
    }
    if charge.save {
        how.list("actionList", |list| list.text("TOKEN_CREATE"));
        how.list("actionTokenTypes", |list| {
            list.text("paymentInstrument");
            list.text("instrumentIdentifier");
        });
    }
    // A caller who is there and chose it begins; else the charge that the card was kept with is
    // named, with its amount for the network that wants that.
    let kept = matches!(charge.instrument, Instrument::Token(_));
    if charge.save || kept {
        how.object("authorizationOptions", |options| {
            options.object("initiator", |initiator| {
                let customer = charge.initiator == Initiator::Customer;
                initiator.text("type", if customer { "customer" } else { "merchant" });
                let name = if kept { "storedCredentialUsed" } else { "credentialStoredOnFile" };
                initiator.flag(name, true);
                if let Initiator::Merchant { first, .. } = charge.initiator
                    && let Some(id) = first.network()
                {
                    initiator.object("merchantInitiatedTransaction", |merchant| {
                        merchant.text("previousTransactionId", id);
                        merchant.text("originalAuthorizedAmount", &first.total.decimal());
                    });
                }
            });
        });
    }
}

fn payment(with: &mut Object<'_>, instrument: &Instrument<'_>) {
    match instrument {
        Instrument::Card(card) => with.object("card", |all| {
            let month = Zeroizing::new(format!("{:02}", card.expiry.expose_month()));
            let year = Zeroizing::new(card.expiry.expose_year().to_string());
            all.text("number", card.pan.expose());
            all.text("expirationMonth", &month);
            all.text("expirationYear", &year);
            all.some("securityCode", card.cvv.as_ref().map(|cvv| cvv.expose()));
        }),
        Instrument::Bank(debit) => {
            with.object("bank", |bank| {
                bank.object("account", |account| {
                    account.text("type", kind(debit));
                    account.text("number", debit.account.expose());
                });
                bank.text("routingNumber", debit.account.routing.as_str());
            });
            with.object("paymentType", |kind| kind.text("name", "CHECK"));
        }
        Instrument::Token(saved) => {
            if let Some(cvv) = &saved.cvv {
                with.object("card", |card| card.text("securityCode", cvv.expose()));
            }
            with.object("paymentInstrument", |kept| kept.text("id", saved.token.expose()));
        }
    }
}

/// Checking, savings, or a company's checking account.
fn kind(debit: &Debit) -> &'static str {
    match (debit.account.kind, debit.holder_kind) {
        (AccountKind::Checking, HolderKind::Personal) => "C",
        (AccountKind::Checking, HolderKind::Business) => "X",
        (AccountKind::Savings, _) => "S",
    }
}

fn amount(
    all: &mut Object<'_>,
    money: Money,
    service_fee: Option<Money>,
    surcharge: Option<Money>,
) {
    all.object("amountDetails", |amount| {
        amount.text("totalAmount", &money.decimal());
        amount.text("currency", money.currency.code());
        if let Some(fee) = service_fee {
            amount.text("serviceFeeAmount", &fee.decimal());
        }
        if let Some(surcharge) = surcharge {
            amount.object("surcharge", |part| part.text("amount", &surcharge.decimal()));
        }
    });
}

fn bill_to(order: &mut Object<'_>, instrument: &Instrument<'_>) {
    match instrument {
        Instrument::Card(card) => {
            if let Some(zip) = &card.zip {
                order.object("billTo", |to| {
                    to.text("postalCode", zip);
                    to.text("country", "US");
                });
            }
        }
        Instrument::Bank(debit) => order.object("billTo", |to| {
            let holder = debit.holder.trim();
            match (debit.holder_kind, holder.rsplit_once(' ')) {
                (HolderKind::Personal, Some((first, last))) => {
                    to.text("firstName", first);
                    to.text("lastName", last);
                }
                (HolderKind::Personal, None) => to.text("lastName", holder),
                (HolderKind::Business, _) => {
                    to.object("company", |company| company.text("name", holder));
                }
            }
        }),
        Instrument::Token(_) => {}
    }
}

fn read(charge: &Charge<'_>, response: &Response<Vec<u8>>) -> Verdict {
    let Some(json) = reply::json(response.body()) else {
        return reply::by_status(response.status());
    };
    let method = charge.instrument.method();
    match response.status().as_u16() {
        201 => {}
        400 => return reason::refused(&json, method),
        _ => return reply::by_status(response.status()),
    }
    let code = json.pointer("/clientReferenceInformation/code").and_then(Value::as_str);
    if code != Some(charge.reference) {
        return Verdict::Unknown("an answer to another request".into());
    }
    let why = reply::kept(&json, "/errorInformation/reason").unwrap_or_default();
    let approved = || approval(charge, &json);
    match (json.get("status").and_then(Value::as_str).unwrap_or_default(), method) {
        ("AUTHORIZED", Method::Card) => approved(),
        ("PENDING" | "TRANSMITTED", Method::Bank) => approved(),
        // Taken online, without a batch.
        ("TRANSMITTED", Method::Card) if charge.purpose == Purpose::Sale => approved(),
        ("PARTIAL_AUTHORIZED", Method::Card) => match approved() {
            Verdict::Approved(approval) if approval.partial.is_none() => {
                Verdict::Unknown("a partial approval without an amount".into())
            }
            verdict => verdict,
        },
        // The issuer reserved the money; whether it is taken a person decides.
        ("AUTHORIZED_PENDING_REVIEW" | "PENDING_REVIEW" | "AUTHORIZED_RISK_DECLINED", _) => {
            Verdict::Held(format!("held for review: {why}"))
        }
        // Nobody is there to authenticate, and without that nothing is charged.
        ("PENDING_AUTHENTICATION", _) => Verdict::DeclinedSoft,
        ("DECLINED", _) => reason::declined(&why, method),
        (status, _) => Verdict::Unknown(format!("status {status} {why}")),
    }
}

fn approval(charge: &Charge<'_>, json: &Value) -> Verdict {
    let total = charge.total;
    let Some(gateway_reference) = reply::kept(json, "/id") else {
        return Verdict::Unknown("an approval without a reference".into());
    };
    let at = |name: &str| reply::at(json, &format!("/orderInformation/amountDetails/{name}"));
    let currency = at("currency");
    let same = currency.as_deref().is_none_or(|code| code == total.currency.code());
    let said = at("authorizedAmount").or_else(|| at("totalAmount"));
    let amount = match said.map(|text| Money::parse(&text, total.currency)) {
        Some(Ok(amount)) => amount,
        None if json.get("status").and_then(Value::as_str) != Some("PARTIAL_AUTHORIZED") => total,
        _ => return Verdict::Unknown("an approval of an amount that cannot be read".into()),
    };
    if amount.minor > total.minor || (amount.minor <= 0 && total.minor > 0) || !same {
        return Verdict::Unknown(format!("an approval of {}", amount.decimal()));
    }
    let token = reply::kept(json, "/tokenInformation/paymentInstrument/id");
    Verdict::Approved(Approval {
        gateway_reference,
        partial: (amount.minor < total.minor).then_some(amount),
        token: token.filter(|_| charge.save).and_then(|token| Token::parse(&token)),
        ..processed(json)
    })
}

/// What the processor said of the card.
fn processed(json: &Value) -> Approval {
    let at = |name: &str| reply::kept(json, &format!("/processorInformation/{name}"));
    Approval {
        auth_code: at("approvalCode").unwrap_or_default(),
        avs: at("avs/code"),
        cvv: at("cardVerification/resultCode"),
        network: at("networkTransactionId").or_else(|| at("transactionId")),
        ..Approval::default()
    }
}

/// What a search found: the transaction to look at.
fn listed(lookup: &Lookup<'_>, json: &Value) -> Found {
    let count = json.get("totalCount").and_then(Value::as_i64);
    let none = Vec::new();
    let all = json.pointer("/_embedded/transactionSummaries").and_then(Value::as_array);
    let all = all.unwrap_or(&none);
    if count == Some(0) && all.is_empty() {
        let shown = lookup.at_ms - lookup.started_ms >= SEARCHABLE_MS;
        return if shown { Found::Absent } else { Found::NotYet };
    }
    let ours = |summary: &&Value| {
        let code = summary.pointer("/clientReferenceInformation/code").and_then(Value::as_str);
        code == Some(lookup.reference)
    };
    // One that charged tells more than one that was refused.
    let mut ours: Vec<&Value> = all.iter().filter(ours).collect();
    ours.sort_by_key(|summary| !reason::succeeded(summary, lookup));
    match ours.first().and_then(|summary| reply::kept(summary, "/id")) {
        Some(id) => Found::More(format!("transaction:{id}")),
        None => Found::NotYet,
    }
}

fn details(lookup: &Lookup<'_>, json: &Value) -> Found {
    let code = json.pointer("/clientReferenceInformation/code").and_then(Value::as_str);
    let Some(gateway_reference) = reply::kept(json, "/id") else { return Found::NotYet };
    if code != Some(lookup.reference) {
        return Found::NotYet;
    }
    let status = json.pointer("/applicationInformation/status").and_then(Value::as_str);
    match status.unwrap_or_default() {
        "AUTHORIZED" | "PARTIAL_AUTHORIZED" | "PENDING" | "TRANSMITTED"
            if reason::succeeded(json, lookup) =>
        {
            let at =
                |name: &str| reply::at(json, &format!("/orderInformation/amountDetails/{name}"));
            let said = at("authorizedAmount").or_else(|| at("totalAmount"));
            let amount = said.and_then(|text| Money::parse(&text, lookup.total.currency).ok());
            match amount.filter(|amount| amount.minor <= lookup.total.minor) {
                Some(amount) => Found::Settled(Verdict::Approved(Approval {
                    gateway_reference,
                    partial: Some(amount).filter(|part| part.minor < lookup.total.minor),
                    ..processed(json)
                })),
                None => Found::NotYet,
            }
        }
        "AUTHORIZED_PENDING_REVIEW" | "PENDING_REVIEW" | "AUTHORIZED_RISK_DECLINED" => {
            Found::Settled(Verdict::Held("held for review".into()))
        }
        "DECLINED" => Found::Settled(reason::by_number(json, lookup.method)),
        _ => Found::NotYet,
    }
}
