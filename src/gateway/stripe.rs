//! Stripe: payment intents by forms, answered in JSON, with an `Idempotency-Key` that replays.
//!
//! Cards as telephone orders (`payment_method_options[card][moto]`), which Stripe enables on
//! request together with raw card numbers. A card that is kept is charged with
//! `setup_future_usage` and then attached to a customer of its own: without one it could not be
//! charged again. Accounts are left out: the SEC code TEL cannot be asked for. A sale is undone by
//! a refund, an authorisation by cancelling it; a lookup lists the intents of the time around the
//! charge and compares `metadata[ref]`.

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method as Verb, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::body::{Form, encoded};
use super::settings::{Environment, base_url, credential, secret, sensitive};
use super::{
    Act, Approval, Cannot, Capabilities, Charge, Dialect, Exchange, Fixable, Found, Gateway,
    Initiator, Lookup, Modification, Modified, Operation, Purpose, Repeat, Request, Simulator,
    Verdict, reply,
};
use crate::instrument::{Instrument, Method, Token};
use crate::money::Money;
use crate::secret::Secret;

pub mod simulator; // Stripe's side

pub struct Stripe {
    base_url: String,
    authorization: HeaderValue,
    /// Connected account that gets the payment, our fee kept back.
    destination: Option<String>,
    /// In whose name the payment is settled, too.
    on_behalf_of: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    environment: Option<Environment>,
    base_url: Option<String>,
    #[serde(deserialize_with = "secret")]
    secret_key: Secret<String>,
    destination: Option<String>,
    /// With `destination`: the payment is settled in its name and country.
    #[serde(default)]
    on_behalf_of: bool,
}

/// The version of the API these forms and answers are of.
const VERSION: &str = "2024-06-20";

impl Dialect for Stripe {
    type Settings = Settings;

    const SECRETS: &'static [&'static str] = &["secret_key"];

    const VARIANTS: &'static [(&'static str, &'static str)] =
        &[("", ""), ("split", "destination = \"acct_1Acme\"\non_behalf_of = true")];

    const EXAMPLE: &'static str = "\
environment = \"sandbox\"         # or \"live\"
secret_key = { file = \"/etc/ringtill/stripe.key\" }
# destination = \"acct_1Acme\"    # a connected account: it gets the payment less the fee
# on_behalf_of = true             # and is whom the customer pays, by their statement
";

    fn open(settings: Settings) -> Result<Stripe, String> {
        let live = "https://api.stripe.com";
        let base = base_url(settings.environment, settings.base_url.as_deref(), live, live)?;
        let key = settings.secret_key.expose();
        credential("secret_key", key)?;
        let of = |kind: &str| ["sk", "rk"].iter().any(|k| key.starts_with(&format!("{k}_{kind}_")));
        match settings.environment {
            Some(Environment::Live) if of("test") => {
                return Err("secret_key: it is a test key, and environment is \"live\"".into());
            }
            Some(Environment::Sandbox) if of("live") => {
                return Err("secret_key: it is a live key, and environment is \"sandbox\"".into());
            }
            _ => {}
        }
        let bearer = Zeroizing::new(format!("Bearer {key}"));
        let authorization = sensitive("secret_key", &bearer)?;
        let Settings { destination, on_behalf_of, .. } = settings;
        if on_behalf_of && destination.is_none() {
            return Err("on_behalf_of: of nobody; add destination = \"acct_...\"".into());
        }
        Ok(Stripe { base_url: base, authorization, destination, on_behalf_of })
    }

    fn simulator(seed: u64) -> Simulator {
        Simulator::new(Box::new(simulator::Api::new(seed)))
    }
}

const SHOWN: &[&str] = &[
    "amount",
    "currency",
    "confirm",
    "capture_method",
    "payment_method_data[type]",
    "payment_method_types[0]",
    "payment_method_options[card][moto]",
    "setup_future_usage",
    "metadata[ref]",
    "description",
    "application_fee_amount",
    "transfer_data[destination]",
    "on_behalf_of",
    "reverse_transfer",
    "refund_application_fee",
    "expand[0]",
    "amount_to_capture",
    "payment_intent",
    "usage",
];

impl Gateway for Stripe {
    fn name(&self) -> &'static str {
        "stripe"
    }

    fn splits_fees(&self) -> bool {
        self.destination.is_some()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: &Operation::ALL,
            bank: false,
            tokens: true,
            verify_keeps: true,
            // It would have to be made a token of its own first, by another request.
            token_cvv: false,
            surcharge: false,
            repeat: Repeat::Replays,
        }
    }

    fn charge(&self, charge: &Charge<'_>) -> Result<Request, Cannot> {
        self.capabilities().allow(charge)?;
        if charge.instrument.method() == Method::Bank {
            return Err(Cannot("only cards can be charged"));
        }
        let verify = charge.purpose == Purpose::Verify;
        let mut form = Form::new();
        if !verify {
            form.field("amount", &charge.total.minor.to_string());
            form.field("currency", &charge.total.currency.code().to_ascii_lowercase());
        }
        form.field("confirm", "true");
        if charge.purpose == Purpose::Authorize {
            form.field("capture_method", "manual");
        }
        form.field("payment_method_types[0]", "card");
        method(&mut form, &charge.instrument)?;
        match charge.initiator {
            Initiator::Customer => form.field("payment_method_options[card][moto]", "true"),
            // Nobody is there to confirm it.
            Initiator::Merchant { .. } => form.field("off_session", "true"),
        };
        if charge.save {
            form.field(if verify { "usage" } else { "setup_future_usage" }, "off_session");
        }
        form.field("description", charge.account_id);
        form.field("metadata[ref]", charge.reference);
        if let Some(destination) = self.destination.as_deref().filter(|_| !verify) {
            let fee = charge.convenience_fee().map_or(0, |fee| fee.minor);
            form.field("application_fee_amount", &fee.to_string());
            form.field("transfer_data[destination]", destination);
            if self.on_behalf_of {
                form.field("on_behalf_of", destination);
            }
        }
        let path = if verify { "/v1/setup_intents" } else { "/v1/payment_intents" };
        form.field("expand[0]", if verify { "latest_attempt" } else { "latest_charge" });
        Ok(self.post(path, charge.reference, form))
    }

    fn verdict(&self, charge: &Charge<'_>, exchange: &Exchange) -> Verdict {
        let response = match exchange.response() {
            Ok(response) => response,
            Err(silence) => return silence.into(),
        };
        let Some(json) = reply::json(response.body()) else {
            return reply::by_status(response.status());
        };
        match response.status() {
            StatusCode::OK => {
                let verdict = intent(charge.purpose, charge.reference, charge.total, &json);
                with_method(verdict, charge.save, &json)
            }
            // The customer or card was deleted there.
            status if matches!(charge.instrument, Instrument::Token(_)) && is_gone(&json) => {
                let by_us = status.is_client_error();
                if by_us { Verdict::DeclinedHard } else { refused(status, &json) }
            }
            status => refused(status, &json),
        }
    }

    fn keep(&self, charge: &Charge<'_>, approval: &Approval) -> Option<Request> {
        let method = approval.token.as_ref().filter(|_| charge.save)?;
        let mut form = Form::new();
        form.field("payment_method", method.expose());
        form.field("description", charge.account_id);
        form.field("metadata[ref]", charge.reference);
        Some(self.post("/v1/customers", &format!("{}-keep", charge.reference), form))
    }

    fn kept(&self, approval: &Approval, exchange: &Exchange) -> Option<Token> {
        let response = exchange.response().ok()?;
        let json = reply::json(response.body()).filter(|_| response.status() == StatusCode::OK)?;
        let customer = reply::kept(&json, "/id").filter(|id| !id.contains('/'))?;
        Token::parse(&format!("{customer}/{}", approval.token.as_ref()?.expose()))
    }

    fn modify(&self, change: &Modification<'_>) -> Result<Request, Cannot> {
        let original = encoded(change.original);
        let mut form = Form::new();
        let path = match (change.act, change.purpose) {
            (Act::Capture, _) => {
                form.field("amount_to_capture", &change.amount.minor.to_string());
                format!("/v1/payment_intents/{original}/capture")
            }
            (Act::Void, Purpose::Sale) => {
                form.field("payment_intent", change.original);
                self.split_back(&mut form);
                "/v1/refunds".into()
            }
            (Act::Void, _) => format!("/v1/payment_intents/{original}/cancel"),
            (Act::Refund, _) => {
                form.field("payment_intent", change.original);
                form.field("amount", &change.amount.minor.to_string());
                self.split_back(&mut form);
                "/v1/refunds".into()
            }
        };
        Ok(self.post(&path, change.reference, form))
    }

    fn modified(&self, change: &Modification<'_>, exchange: &Exchange) -> Modified {
        let response = match exchange.response() {
            Ok(response) => response,
            Err(silence) => return silence.into(),
        };
        let Some(json) = reply::json(response.body()) else {
            return reply::by_status(response.status()).into();
        };
        if response.status() == StatusCode::OK {
            return changed(change, &json);
        }
        let code = reply::kept(&json, "/error/code").unwrap_or_default();
        let kind = reply::kept(&json, "/error/type").unwrap_or_default();
        match (response.status(), kind.as_str()) {
            (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND, "invalid_request_error")
                if !code.is_empty() =>
            {
                Modified::Refused(code)
            }
            (status, _) => refused(status, &json).into(),
        }
    }

    fn lookup(&self, lookup: &Lookup<'_>) -> Result<Request, Cannot> {
        let (kind, latest) = match lookup.purpose {
            Purpose::Verify => ("setup_intents", "latest_attempt"),
            _ => ("payment_intents", "latest_charge"),
        };
        let from = lookup.started_ms / 1_000 - BEFORE_S;
        let to = lookup.started_ms / 1_000 + AFTER_S;
        let mut path = format!(
            "/v1/{kind}?created[gte]={from}&created[lte]={to}&limit=50&expand[]=data.{latest}"
        );
        if !lookup.step.is_empty() {
            path += &format!("&starting_after={}", encoded(&lookup.step));
        }
        // Brackets in a query are for RFC 3986 to be encoded.
        let path = path.replace('[', "%5B").replace(']', "%5D");
        Ok(self.request(Verb::GET, &path, Zeroizing::new(Vec::new())))
    }

    fn found(&self, lookup: &Lookup<'_>, exchange: &Exchange) -> Found {
        let Ok(response) = exchange.response() else { return Found::NotYet };
        let json = reply::json(response.body()).filter(|_| response.status() == StatusCode::OK);
        let Some(json) = json else { return Found::NotYet };
        let Some(list) = json.get("data").and_then(Value::as_array) else { return Found::NotYet };
        let ours = |one: &&Value| {
            one.pointer("/metadata/ref").and_then(Value::as_str) == Some(lookup.reference)
        };
        if let Some(found) = list.iter().find(ours) {
            return match intent(lookup.purpose, lookup.reference, lookup.total, found) {
                Verdict::Unknown(_) | Verdict::Config(_) | Verdict::NotSent(_) => Found::NotYet,
                verdict => Found::Settled(verdict),
            };
        }
        let last = list.last().and_then(|one| reply::kept(one, "/id"));
        match (json.get("has_more").and_then(Value::as_bool), last) {
            (Some(true), Some(last)) => Found::More(last),
            (Some(false), _) => Found::Absent,
            _ => Found::NotYet,
        }
    }
}

/// A charge is created no earlier and no later than this around its beginning, clocks that differ
/// and requests that dawdle included.
const BEFORE_S: i64 = 600;
const AFTER_S: i64 = 3_600;

impl Stripe {
    /// What goes back comes from those who got it.
    fn split_back(&self, form: &mut Form) {
        if self.destination.is_some() {
            form.field("reverse_transfer", "true");
            form.field("refund_application_fee", "true");
        }
    }

    fn post(&self, path: &str, key: &str, form: Form) -> Request {
        let mut request = self.request(Verb::POST, path, form.into_bytes());
        if let Ok(key) = HeaderValue::from_str(&encoded(key)) {
            request.head.headers.insert("idempotency-key", key);
        }
        request
    }

    fn request(&self, method: Verb, path: &str, body: Zeroizing<Vec<u8>>) -> Request {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_url))
            .header(AUTHORIZATION, self.authorization.clone())
            .header("stripe-version", VERSION)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let request = request.body(()).expect("the base was checked and the path is encoded");
        let (head, ()) = request.into_parts();
        Request { head, body, shown: SHOWN }
    }
}

/// A card, or one that is attached to a customer.
fn method(form: &mut Form, instrument: &Instrument<'_>) -> Result<(), Cannot> {
    match instrument {
        Instrument::Card(card) => {
            let month = Zeroizing::new(card.expiry.expose_month().to_string());
            let year = Zeroizing::new(card.expiry.expose_year().to_string());
            form.field("payment_method_data[type]", "card");
            form.field("payment_method_data[card][number]", card.pan.expose());
            form.field("payment_method_data[card][exp_month]", &month);
            form.field("payment_method_data[card][exp_year]", &year);
            form.some("payment_method_data[card][cvc]", card.cvv.as_ref().map(|cvv| cvv.expose()));
            let zip = card.zip.as_ref().map(|zip| zip.as_str());
            form.some("payment_method_data[billing_details][address][postal_code]", zip);
        }
        Instrument::Token(saved) => {
            let Some((customer, method)) = saved.token.expose().split_once('/') else {
                return Err(Cannot("the token is none of Stripe's"));
            };
            form.field("customer", customer);
            form.field("payment_method", method);
        }
        Instrument::Bank(_) => {}
    }
    Ok(())
}

/// An approval with the card's name at Stripe, which [`Gateway::keep`] makes a token of.
fn with_method(verdict: Verdict, save: bool, json: &Value) -> Verdict {
    match verdict {
        Verdict::Approved(approval) if save => {
            let id = reply::kept(json, "/payment_method");
            let token = id.filter(|id| !id.contains('/')).and_then(|id| Token::parse(&id));
            Verdict::Approved(Approval { token, ..approval })
        }
        verdict => verdict,
    }
}

fn is_gone(json: &Value) -> bool {
    let at = |pointer| json.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    at("/error/code") == "resource_missing"
        && ["customer", "payment_method"].contains(&at("/error/param"))
}

/// A payment or setup intent as it stands.
fn intent(purpose: Purpose, reference: &str, total: Money, json: &Value) -> Verdict {
    let wanted = if purpose == Purpose::Verify { "setup_intent" } else { "payment_intent" };
    let named = json.pointer("/metadata/ref").and_then(Value::as_str) == Some(reference);
    if json.get("object").and_then(Value::as_str) != Some(wanted) || !named {
        return Verdict::Unknown("an answer to another request".into());
    }
    match (json.get("status").and_then(Value::as_str).unwrap_or_default(), purpose) {
        ("succeeded", Purpose::Sale) => approval(json, "/amount_received", total),
        ("succeeded", Purpose::Verify) => approval(json, "", total),
        ("requires_capture", Purpose::Authorize) => approval(json, "/amount_capturable", total),
        // Nobody is there to answer a challenge; the intent can never be paid.
        ("requires_action", _) => Verdict::DeclinedSoft,
        ("requires_payment_method", _) => {
            let last = ["/last_payment_error", "/last_setup_error"];
            match last.iter().find_map(|at| json.pointer(at)).filter(|error| error.is_object()) {
                Some(error) => declined(error),
                None => Verdict::Unknown("an intent without a card".into()),
            }
        }
        (status, _) => Verdict::Unknown(format!("the intent is {status}")),
    }
}

fn approval(json: &Value, taken: &str, total: Money) -> Verdict {
    let Some(gateway_reference) = reply::kept(json, "/id") else {
        return Verdict::Unknown("an approval without an id".into());
    };
    let taken = match taken {
        "" => total.minor,
        taken => json.pointer(taken).and_then(Value::as_i64).unwrap_or_default(),
    };
    let currency = json.get("currency").and_then(Value::as_str).unwrap_or_default();
    let same =
        json.get("currency").is_none() || currency.eq_ignore_ascii_case(total.currency.code());
    if taken > total.minor || (taken <= 0 && total.minor > 0) || !same {
        return Verdict::Unknown(format!("an approval of {taken} {currency}"));
    }
    let details = ["/latest_charge", "/latest_attempt"].map(|latest| {
        let card = json.pointer(&format!("{latest}/payment_method_details/card"));
        card.cloned().unwrap_or_default()
    });
    let find = |pointer: &str| details.iter().find_map(|card| reply::kept(card, pointer));
    Verdict::Approved(Approval {
        gateway_reference,
        auth_code: find("/authorization_code").unwrap_or_default(),
        avs: find("/checks/address_postal_code_check"),
        cvv: find("/checks/cvc_check"),
        partial: (taken < total.minor).then_some(Money { minor: taken, ..total }),
        ..Approval::default()
    })
}

/// An answer other than 200.
fn refused(status: StatusCode, json: &Value) -> Verdict {
    let Some(error) = json.get("error") else { return reply::by_status(status) };
    let kind = error.get("type").and_then(Value::as_str).unwrap_or_default();
    let code = reply::kept(error, "/code").unwrap_or_default();
    match (status.as_u16(), kind) {
        (402, "card_error") => {
            let after = error.pointer("/payment_intent/status").and_then(Value::as_str);
            match after {
                None | Some("requires_payment_method" | "requires_action" | "canceled") => {
                    declined(error)
                }
                Some(status) => Verdict::Unknown(format!("an error, and the intent is {status}")),
            }
        }
        // The key was used for something else, or is in use: the first request counts.
        (400 | 409, "idempotency_error") => Verdict::Unknown("the idempotency key is taken".into()),
        (429, _) if code == "lock_timeout" => Verdict::Unknown("the intent is in use".into()),
        (400 | 404, "invalid_request_error") => match code.as_str() {
            "incorrect_number" | "invalid_number" => Verdict::Fixable(Fixable::Number),
            "postal_code_invalid" => Verdict::Fixable(Fixable::Zip),
            code => Verdict::Config(format!("invalid request: {code}")),
        },
        _ => reply::by_status(status),
    }
}

/// `code`, then `decline_code`, then the issuer's advice.
fn declined(error: &Value) -> Verdict {
    let at = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    if at("advice_code") == "do_not_try_again" && at("decline_code").is_empty() {
        return Verdict::DeclinedHard;
    }
    let fine = if at("code") == "card_declined" { at("decline_code") } else { at("code") };
    match fine {
        "incorrect_number" | "invalid_number" => Verdict::Fixable(Fixable::Number),
        "invalid_expiry_month" | "invalid_expiry_year" | "expired_card" => {
            Verdict::Fixable(Fixable::Expiry)
        }
        "incorrect_cvc" | "invalid_cvc" => Verdict::Fixable(Fixable::Cvv),
        "incorrect_zip" | "postal_code_invalid" | "incorrect_address" => {
            Verdict::Fixable(Fixable::Zip)
        }
        "lost_card"
        | "stolen_card"
        | "pickup_card"
        | "restricted_card"
        | "do_not_try_again"
        | "stop_payment_order"
        | "revocation_of_authorization"
        | "revocation_of_all_authorizations"
        | "fraudulent"
        | "merchant_blacklist"
        | "security_violation"
        | "invalid_account" => Verdict::DeclinedHard,
        "duplicate_transaction" => Verdict::Duplicate { original: None },
        _ if at("advice_code") == "do_not_try_again" => Verdict::DeclinedHard,
        // The issuer said no; the finer reason may be newer than this list.
        _ => Verdict::DeclinedSoft,
    }
}

/// 200 to a capture, cancellation or refund.
fn changed(change: &Modification<'_>, json: &Value) -> Modified {
    let id = reply::kept(json, "/id");
    let status = json.get("status").and_then(Value::as_str).unwrap_or_default();
    let object = json.get("object").and_then(Value::as_str).unwrap_or_default();
    match (change.act, object, status, id) {
        (Act::Capture, "payment_intent", "succeeded", Some(id)) => Modified::Done(id),
        (Act::Void, "payment_intent", "canceled", Some(id)) => Modified::Done(id),
        (Act::Refund | Act::Void, "refund", "succeeded", Some(id)) => Modified::Done(id),
        (Act::Refund | Act::Void, "refund", "pending", Some(id)) => Modified::Accepted(id),
        (Act::Refund | Act::Void, "refund", "failed" | "canceled", Some(_)) => {
            Modified::Refused(format!("the refund is {status}"))
        }
        (_, _, status, _) => Modified::Unknown(format!("status {status}")),
    }
}
