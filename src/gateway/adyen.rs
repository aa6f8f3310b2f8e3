//! Adyen's Checkout API: JSON, an API key in a header, an `Idempotency-Key` that replays.
//!
//! Cards with `shopperInteraction` Moto. Whether a charge is captured at once is set by
//! `captureDelayHours`. Captures, cancellations and refunds are taken in and decided later: the
//! outcome comes by webhook. There is no lookup by our reference: a charge whose answer is lost is
//! found again by repeating it under its key while the card is still at hand, or by hand.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::body::{self, List, Object, encoded};
use super::settings::{Environment, address, credential, secret, sensitive};
use super::{
    Act, Approval, Cannot, Capabilities, Charge, Dialect, Exchange, Fixable, Found, Gateway,
    Initiator, Lookup, Modification, Modified, Operation, Purpose, Repeat, Request, Series,
    Simulator, Verdict, reply,
};
use crate::instrument::{Instrument, Method, Token};
use crate::money::Money;
use crate::secret::Secret;

pub mod simulator; // Adyen's side

pub struct Adyen {
    /// With the version, without a slash at its end.
    base_url: String,
    api_key: HeaderValue,
    merchant_account: String,
    /// Balance account that gets the payment, our fee kept back.
    split_account: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    environment: Option<Environment>,
    /// Live, Adyen gives each company a host of its own.
    base_url: Option<String>,
    #[serde(deserialize_with = "secret")]
    api_key: Secret<String>,
    merchant_account: String,
    split_account: Option<String>,
}

impl Dialect for Adyen {
    type Settings = Settings;

    const SECRETS: &'static [&'static str] = &["api_key"];

    const VARIANTS: &'static [(&'static str, &'static str)] =
        &[("", ""), ("split", "split_account = \"BA00000000000000000000001\"")];

    const EXAMPLE: &'static str = "\
environment = \"sandbox\"         # or \"live\", with base_url = \"https://<prefix>-checkout-live.adyenpayments.com\"
api_key = { file = \"/etc/ringtill/adyen.key\" }
merchant_account = \"AcmeWaterUS\"
# split_account = \"BA00000000000000000000001\"   # a balance account: it gets the payment less the fee
";

    fn open(settings: Settings) -> Result<Adyen, String> {
        let base = match (settings.environment, settings.base_url.as_deref()) {
            (_, Some(given)) => format!("{}/checkout", address("base_url", given, false)?),
            (Some(Environment::Sandbox), None) => "https://checkout-test.adyen.com".to_string(),
            (Some(Environment::Live), None) => {
                return Err("base_url: write the address of your live endpoint, \
                            https://<prefix>-checkout-live.adyenpayments.com"
                    .into());
            }
            (None, None) => return Err("environment: write \"sandbox\" or \"live\"".into()),
        };
        credential("api_key", settings.api_key.expose())?;
        credential("merchant_account", &settings.merchant_account)?;
        Ok(Adyen {
            base_url: format!("{base}/v71"),
            api_key: sensitive("api_key", settings.api_key.expose())?,
            merchant_account: settings.merchant_account,
            split_account: settings.split_account,
        })
    }

    fn simulator(seed: u64) -> Simulator {
        Simulator::new(Box::new(simulator::Checkout::new(seed)))
    }
}

const SHOWN: &[&str] = &[
    "merchantAccount",
    "currency",
    "value",
    "reference",
    "shopperInteraction",
    "type",
    "captureDelayHours",
    "recurringProcessingModel",
    "storePaymentMethod",
];

impl Gateway for Adyen {
    fn name(&self) -> &'static str {
        "adyen"
    }

    fn splits_fees(&self) -> bool {
        self.split_account.is_some()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: &[
                Operation::Verify,
                Operation::Sale,
                Operation::Authorize,
                Operation::Capture,
                Operation::Void,
                Operation::Refund,
            ],
            // `ach` takes accounts, but nothing found says that it flags TEL.
            bank: false,
            tokens: true,
            verify_keeps: true,
            token_cvv: true,
            surcharge: false,
            repeat: Repeat::Replays,
        }
    }

    fn charge(&self, charge: &Charge<'_>) -> Result<Request, Cannot> {
        self.capabilities().allow(charge)?;
        if charge.instrument.method() == Method::Bank {
            return Err(Cannot("this gateway debits no bank accounts"));
        }
        let verify = charge.purpose == Purpose::Verify;
        let body = body::json(|all| {
            all.text("merchantAccount", &self.merchant_account);
            amount(all, charge.total);
            all.text("reference", charge.reference);
            all.object("paymentMethod", |method| payment_method(method, &charge.instrument));
            let kept = matches!(charge.instrument, Instrument::Token(_));
            all.text("shopperInteraction", if kept { "ContAuth" } else { "Moto" });
            if let Instrument::Card(card) = &charge.instrument
                && let Some(zip) = &card.zip
            {
                all.object("billingAddress", |address| {
                    address.text("postalCode", zip);
                    address.text("country", "US");
                    // Required, and not known: Adyen's word for that.
                    for name in ["street", "houseNumberOrName", "city"] {
                        address.text(name, "Unknown");
                    }
                });
            }
            if charge.save || kept {
                all.text("shopperReference", charge.account_id);
                all.text(
                    "recurringProcessingModel",
                    match charge.initiator {
                        Initiator::Customer => "CardOnFile",
                        Initiator::Merchant { series: Series::Once, .. } => "UnscheduledCardOnFile",
                        Initiator::Merchant { .. } => "Subscription",
                    },
                );
            }
            if charge.save {
                all.flag("storePaymentMethod", true);
            }
            if charge.purpose == Purpose::Sale {
                all.number("captureDelayHours", 0);
            }
            if let Some(account) = self.split_account.as_deref().filter(|_| !verify) {
                all.list("splits", |list| splits(list, charge, account));
            }
            if charge.purpose == Purpose::Authorize {
                all.object("additionalData", |data| data.text("manualCapture", "true"));
            }
        });
        Ok(self.request("/payments", charge.reference, body))
    }

    fn verdict(&self, charge: &Charge<'_>, exchange: &Exchange) -> Verdict {
        match exchange.response() {
            Ok(response) => read(charge, response),
            Err(silence) => silence.into(),
        }
    }

    fn modify(&self, change: &Modification<'_>) -> Result<Request, Cannot> {
        let path = match change.act {
            Act::Capture => "captures",
            // Cancels what is not captured, and pays back what is.
            Act::Void => "reversals",
            Act::Refund => "refunds",
        };
        let body = body::json(|all| {
            all.text("merchantAccount", &self.merchant_account);
            if change.act != Act::Void {
                amount(all, change.amount);
            }
            all.text("reference", change.reference);
        });
        let path = format!("/payments/{}/{path}", encoded(change.original));
        Ok(self.request(&path, change.reference, body))
    }

    fn modified(&self, _: &Modification<'_>, exchange: &Exchange) -> Modified {
        let response = match exchange.response() {
            Ok(response) => response,
            Err(silence) => return silence.into(),
        };
        let json = reply::json(response.body()).unwrap_or_default();
        let received = json.get("status").and_then(Value::as_str) == Some("received");
        match (response.status().as_u16(), reply::kept(&json, "/pspReference")) {
            (200 | 201, Some(reference)) if received => Modified::Accepted(reference),
            (422, _) => match reply::kept(&json, "/errorCode") {
                Some(code) if code == "704" => Modified::Unknown("it is being processed".into()),
                Some(code) => Modified::Refused(format!("error {code}")),
                None => Modified::Unknown("HTTP 422 without a reason".into()),
            },
            _ => failed(response.status(), &json).into(),
        }
    }

    fn lookup(&self, _: &Lookup<'_>) -> Result<Request, Cannot> {
        Err(Cannot("this gateway cannot be asked what became of a charge"))
    }

    fn found(&self, _: &Lookup<'_>, _: &Exchange) -> Found {
        Found::NotYet
    }
}

impl Adyen {
    fn request(&self, path: &str, key: &str, body: Zeroizing<Vec<u8>>) -> Request {
        let request = http::Request::post(format!("{}{path}", self.base_url))
            .header("x-api-key", self.api_key.clone())
            .header(CONTENT_TYPE, "application/json");
        let request = request.body(()).expect("the base was checked and the path is encoded");
        let (mut head, ()) = request.into_parts();
        if let Ok(key) = HeaderValue::from_str(&encoded(key)) {
            head.headers.insert("idempotency-key", key);
        }
        Request { head, body, shown: SHOWN }
    }
}

fn amount(all: &mut Object<'_>, money: Money) {
    all.object("amount", |amount| {
        amount.text("currency", money.currency.code());
        amount.number("value", money.minor);
    });
}

/// The payment to its account, the fee to the platform: together the whole amount.
fn splits(list: &mut List<'_>, charge: &Charge<'_>, account: &str) {
    let fee = charge.convenience_fee().map_or(0, |fee| fee.minor);
    let rest = charge.total.minor - fee;
    list.object(|split| {
        split.text("type", "BalanceAccount");
        split.text("account", account);
        split.object("amount", |amount| amount.number("value", rest));
        split.text("reference", charge.reference);
    });
    if fee > 0 {
        list.object(|split| {
            split.text("type", "Commission");
            split.object("amount", |amount| amount.number("value", fee));
            split.text("reference", &format!("{}-fee", charge.reference));
        });
    }
}

fn payment_method(all: &mut Object<'_>, instrument: &Instrument<'_>) {
    all.text("type", "scheme");
    match instrument {
        Instrument::Card(card) => {
            let month = Zeroizing::new(format!("{:02}", card.expiry.expose_month()));
            let year = Zeroizing::new(card.expiry.expose_year().to_string());
            all.text("number", card.pan.expose());
            all.text("expiryMonth", &month);
            all.text("expiryYear", &year);
            all.some("cvc", card.cvv.as_ref().map(|cvv| cvv.expose()));
        }
        Instrument::Token(saved) => {
            all.text("storedPaymentMethodId", saved.token.expose());
            all.some("cvc", saved.cvv.as_ref().map(|cvv| cvv.expose()));
        }
        Instrument::Bank(_) => {}
    }
}

fn read(charge: &Charge<'_>, response: &Response<Vec<u8>>) -> Verdict {
    let Some(json) = reply::json(response.body()) else {
        return reply::by_status(response.status());
    };
    if response.status() != StatusCode::OK {
        return failed(response.status(), &json);
    }
    if json.get("merchantReference").and_then(Value::as_str) != Some(charge.reference) {
        return Verdict::Unknown("an answer to another request".into());
    }
    let code = reply::kept(&json, "/refusalReasonCode").unwrap_or_default();
    match json.get("resultCode").and_then(Value::as_str).unwrap_or_default() {
        "Authorised" => approval(charge, &json),
        "PartiallyAuthorised" => match approval(charge, &json) {
            Verdict::Approved(approval) if approval.partial.is_none() => {
                Verdict::Unknown("a partial approval without an amount".into())
            }
            verdict => verdict,
        },
        "Refused" => refused(&code).unwrap_or(Verdict::DeclinedSoft),
        "Cancelled" => Verdict::DeclinedSoft,
        // The acquirer had a fault: most errors decide nothing.
        "Error" => refused(&code).unwrap_or_else(|| Verdict::Unknown(format!("error {code}"))),
        // Nobody is there to answer a challenge, and without one nothing is charged.
        "RedirectShopper" | "ChallengeShopper" | "IdentifyShopper" => Verdict::DeclinedSoft,
        result => Verdict::Unknown(format!("result {result}")),
    }
}

fn approval(charge: &Charge<'_>, json: &Value) -> Verdict {
    let total = charge.total;
    let Some(gateway_reference) = reply::kept(json, "/pspReference") else {
        return Verdict::Unknown("an approval without a reference".into());
    };
    let value = json.pointer("/amount/value").and_then(Value::as_i64).unwrap_or(total.minor);
    let currency = json.pointer("/amount/currency").and_then(Value::as_str);
    let same = currency.is_none_or(|code| code == total.currency.code());
    if value > total.minor || (value <= 0 && total.minor > 0) || !same {
        return Verdict::Unknown(format!("an approval of {value}"));
    }
    let data = |name: &str| reply::kept(json, &format!("/additionalData/{name}"));
    let token = data("tokenization.storedPaymentMethodId")
        .or_else(|| data("recurring.recurringDetailReference"));
    Verdict::Approved(Approval {
        gateway_reference,
        auth_code: data("authCode").unwrap_or_default(),
        avs: data("avsResultRaw").or_else(|| data("avsResult")),
        cvv: data("cvcResultRaw").or_else(|| data("cvcResult")),
        partial: (value < total.minor).then_some(Money { minor: value, ..total }),
        token: token.filter(|_| charge.save).and_then(|token| Token::parse(&token)),
        network: None,
    })
}

/// What a `refusalReasonCode` says for certain.
fn refused(code: &str) -> Option<Verdict> {
    Some(match code {
        // Refused, referral, not supported, not enough, not permitted, limits, PIN, not submitted.
        "2" | "3" | "7" | "10" | "12" | "13" | "15" | "17" | "18" | "19" | "23" | "25" | "27"
        | "28" | "29" | "38" | "39" | "42" => Verdict::DeclinedSoft,
        // Blocked, fraud, cancelled with the card, revoked, closed.
        "5" | "14" | "16" | "20" | "22" | "26" | "31" | "33" | "34" | "35" | "36" | "44" | "45"
        | "46" => Verdict::DeclinedHard,
        "6" => Verdict::Fixable(Fixable::Expiry),
        "8" => Verdict::Fixable(Fixable::Number),
        "24" => Verdict::Fixable(Fixable::Cvv),
        "32" => Verdict::Fixable(Fixable::Zip),
        _ => return None,
    })
}

/// An answer other than 200, with Adyen's `errorCode` if it has one.
fn failed(status: StatusCode, json: &Value) -> Verdict {
    let code = reply::kept(json, "/errorCode").unwrap_or_default();
    match (status.as_u16(), code.as_str()) {
        (422, "101" | "102") => Verdict::Fixable(Fixable::Number),
        (422, "103") => Verdict::Fixable(Fixable::Cvv),
        (422, "129" | "130" | "140" | "141" | "153") => Verdict::Fixable(Fixable::Expiry),
        // The key is in use: the first request counts.
        (422, "704") | (_, "704") => Verdict::Unknown("it is being processed".into()),
        (422, "800" | "803") => Verdict::DeclinedHard,
        (400 | 422, code) if !code.is_empty() => {
            Verdict::Config(format!("error {code}: check merchant_account and what it may do"))
        }
        _ => reply::by_status(status),
    }
}
