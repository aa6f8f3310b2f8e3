//! NMI, and the many gateways sold under other names on its platform: forms, answered by forms;
//! lookups are answered in XML.
//!
//! Cards are flagged as telephone orders (`industry=moto`), accounts carry `sec_code=TEL`. There is
//! no idempotency: `dup_seconds` makes the platform refuse the same card and amount for a while,
//! whatever the `orderid`, so that "duplicate" may mean another payment.

use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::body::Form;
use super::reply::{self, Element};
use super::settings::{address, credential, secret};
use super::simulator::form;
use super::{
    Act, Approval, Cannot, Capabilities, Charge, Dialect, Exchange, Fixable, Found, Gateway,
    Initiator, Lookup, Modification, Modified, Operation, Purpose, Repeat, Request, Series,
    Simulator, Verdict,
};
use crate::instrument::{AccountKind, HolderKind, Instrument, Method, Token};
use crate::money::Money;
use crate::secret::Secret;

pub mod simulator; // the platform

pub struct Nmi {
    base_url: String,
    security_key: Secret<String>,
    dup_seconds: u32,
    processor_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    base_url: String,
    #[serde(deserialize_with = "secret")]
    security_key: Secret<String>,
    #[serde(default = "twenty_minutes")]
    dup_seconds: u32,
    processor_id: Option<String>,
}

fn twenty_minutes() -> u32 {
    1_200
}

impl Dialect for Nmi {
    type Settings = Settings;

    const SECRETS: &'static [&'static str] = &["security_key"];

    const EXAMPLE: &'static str = "\
base_url = \"https://secure.nmi.com\"   # or the host your reseller gave you; sandbox.nmi.com to test
security_key = { file = \"/etc/ringtill/nmi.key\" }
dup_seconds = 1200              # the same card and amount is refused for this long
# processor_id = \"acmebank1\"    # one of several merchant accounts under the key
";

    fn open(settings: Settings) -> Result<Nmi, String> {
        credential("security_key", settings.security_key.expose())?;
        if !(60..=7_862_400).contains(&settings.dup_seconds) {
            return Err("dup_seconds: write 60 to 7862400".into());
        }
        Ok(Nmi {
            base_url: address("base_url", &settings.base_url, false)?,
            security_key: settings.security_key,
            dup_seconds: settings.dup_seconds,
            processor_id: settings.processor_id,
        })
    }

    fn simulator(seed: u64) -> Simulator {
        Simulator::new(Box::new(simulator::Platform::new(seed)))
    }
}

const SHOWN: &[&str] = &[
    "type",
    "amount",
    "currency",
    "orderid",
    "order_id",
    "order_description",
    "payment",
    "dup_seconds",
    "industry",
    "sec_code",
    "account_type",
    "account_holder_type",
    "customer_vault",
    "initiated_by",
    "stored_credential_indicator",
    "transactionid",
    "processor_id",
];

impl Gateway for Nmi {
    fn name(&self) -> &'static str {
        "nmi"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: &Operation::ALL,
            bank: true,
            tokens: true,
            verify_keeps: true,
            token_cvv: true,
            surcharge: true,
            repeat: Repeat::Refuses { window_s: self.dup_seconds },
        }
    }

    fn charge(&self, charge: &Charge<'_>) -> Result<Request, Cannot> {
        self.capabilities().allow(charge)?;
        let bank = charge.instrument.method() == Method::Bank;
        if bank && charge.purpose != Purpose::Sale {
            return Err(Cannot("an account can only be debited, not verified or authorised"));
        }
        Ok(self.transact(|form| {
            form.field(
                "type",
                match charge.purpose {
                    Purpose::Verify => "validate",
                    Purpose::Sale => "sale",
                    Purpose::Authorize => "auth",
                },
            );
            if charge.purpose != Purpose::Verify {
                form.field("amount", &charge.total.decimal());
            }
            if let Some(surcharge) = charge.surcharge() {
                form.field("surcharge", &surcharge.decimal());
            }
            form.field("currency", charge.total.currency.code());
            form.field("orderid", charge.reference);
            form.field("order_description", charge.account_id);
            form.some("processor_id", self.processor_id.as_deref());
            instrument(form, &charge.instrument);
            if charge.save {
                form.field("customer_vault", "add_customer");
            }
            let kept = matches!(charge.instrument, Instrument::Token(_));
            if charge.save || kept {
                stored(form, charge.initiator, kept);
            }
            form.field("dup_seconds", &self.dup_seconds.to_string());
        }))
    }

    fn verdict(&self, charge: &Charge<'_>, exchange: &Exchange) -> Verdict {
        match exchange.response() {
            Ok(response) => read(Some(charge.reference), charge.save, response),
            Err(silence) => silence.into(),
        }
    }

    fn modify(&self, change: &Modification<'_>) -> Result<Request, Cannot> {
        Ok(self.transact(|form| {
            form.field(
                "type",
                match change.act {
                    Act::Capture => "capture",
                    Act::Void => "void",
                    Act::Refund => "refund",
                },
            );
            form.field("transactionid", change.original);
            if change.act != Act::Void {
                form.field("amount", &change.amount.decimal());
            }
            if change.method == Method::Bank {
                form.field("payment", "check");
            }
        }))
    }

    fn modified(&self, _: &Modification<'_>, exchange: &Exchange) -> Modified {
        let response = match exchange.response() {
            Ok(response) => response,
            Err(silence) => return silence.into(),
        };
        match read(None, false, response) {
            // A capture, void or refund is rejected for its state: too late, too much, no such.
            Verdict::Unknown(why) if why.starts_with(REJECTED) => Modified::Refused(why),
            verdict => verdict.into(),
        }
    }

    fn lookup(&self, lookup: &Lookup<'_>) -> Result<Request, Cannot> {
        let mut form = Form::new();
        form.field("security_key", self.security_key.expose());
        form.field("order_id", lookup.reference);
        Ok(self.request("/api/query.php", form))
    }

    fn found(&self, lookup: &Lookup<'_>, exchange: &Exchange) -> Found {
        let Ok(response) = exchange.response() else { return Found::NotYet };
        let document = reply::xml(response.body());
        let Some(document) = document.filter(|root| {
            let answer = root.name == "nm_response" && root.child("error_response").is_none();
            answer && response.status() == StatusCode::OK
        }) else {
            return Found::NotYet;
        };
        let charges: Vec<&Element> =
            document.all("transaction").filter(|one| charged(one).is_some()).collect();
        let alive: Vec<&&Element> =
            charges.iter().filter(|one| one.at("condition") != Some("failed")).collect();
        match (&alive[..], charges.last()) {
            ([], None) if document.child("transaction").is_none() => Found::Absent,
            ([], None) => Found::NotYet,
            ([], Some(failed)) => transaction(lookup, failed),
            ([one], _) => transaction(lookup, one),
            // Charged twice under one order: a person must look.
            _ => Found::NotYet,
        }
    }
}

const REJECTED: &str = "rejected by the gateway";

impl Nmi {
    fn transact(&self, fields: impl FnOnce(&mut Form)) -> Request {
        let mut form = Form::new();
        form.field("security_key", self.security_key.expose());
        fields(&mut form);
        self.request("/api/transact.php", form)
    }

    fn request(&self, path: &str, form: Form) -> Request {
        let request = http::Request::post(format!("{}{path}", self.base_url))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let (head, ()) = request.body(()).expect("the address was checked at open").into_parts();
        Request { head, body: form.into_bytes(), shown: SHOWN }
    }
}

/// Who begins it: the first time and on a call it is the customer.
fn stored(form: &mut Form, initiator: Initiator<'_>, kept: bool) {
    let merchant = matches!(initiator, Initiator::Merchant { .. });
    form.field("initiated_by", if merchant { "merchant" } else { "customer" });
    form.field("stored_credential_indicator", if kept { "used" } else { "stored" });
    if let Initiator::Merchant { series, first } = initiator {
        let first = Some(first.reference).filter(|first| !first.is_empty());
        form.some("initial_transaction_id", first);
        match series {
            Series::Once => {}
            Series::Recurring => drop(form.field("billing_method", "recurring")),
            Series::Instalment => drop(form.field("billing_method", "installment")),
        }
    }
}

fn instrument(form: &mut Form, instrument: &Instrument<'_>) {
    match instrument {
        Instrument::Card(card) => {
            let (month, year) = (card.expiry.expose_month(), card.expiry.expose_year() % 100);
            let expiry = Zeroizing::new(format!("{month:02}{year:02}"));
            form.field("payment", "creditcard");
            form.field("industry", "moto");
            form.field("ccnumber", card.pan.expose());
            form.field("ccexp", &expiry);
            form.some("cvv", card.cvv.as_ref().map(|cvv| cvv.expose()));
            form.some("zip", card.zip.as_ref().map(|zip| zip.as_str()));
        }
        Instrument::Bank(debit) => {
            form.field("payment", "check");
            form.field("sec_code", "TEL");
            form.field("checkname", &debit.holder);
            form.field("checkaba", debit.account.routing.as_str());
            form.field("checkaccount", debit.account.expose());
            form.field(
                "account_holder_type",
                match debit.holder_kind {
                    HolderKind::Personal => "personal",
                    HolderKind::Business => "business",
                },
            );
            form.field(
                "account_type",
                match debit.account.kind {
                    AccountKind::Checking => "checking",
                    AccountKind::Savings => "savings",
                },
            );
        }
        Instrument::Token(saved) => {
            match saved.method {
                Method::Card => form.field("industry", "moto"),
                Method::Bank => form.field("payment", "check").field("sec_code", "TEL"),
            };
            form.field("customer_vault_id", saved.token.expose());
            form.some("cvv", saved.cvv.as_ref().map(|cvv| cvv.expose()));
        }
    }
}

/// An answer of `transact.php`; `reference` if it must name one.
fn read(reference: Option<&str>, save: bool, response: &http::Response<Vec<u8>>) -> Verdict {
    if response.status() != StatusCode::OK {
        return reply::by_status(response.status());
    }
    let Ok(text) = std::str::from_utf8(response.body()) else {
        return Verdict::Unknown("an answer that is no text".into());
    };
    let answer = form(text.trim());
    let at = |name: &str| answer.get(name).map(String::as_str).unwrap_or_default();
    // The platform repeats no order of a request it rejected.
    if reference.is_some_and(|ours| !at("orderid").is_empty() && at("orderid") != ours) {
        return Verdict::Unknown("an answer to another request".into());
    }
    let kept = |name: &str| reply::identifier(at(name));
    match (at("response"), at("response_code")) {
        ("1", "100") => match kept("transactionid") {
            Some(gateway_reference) => Verdict::Approved(Approval {
                gateway_reference,
                auth_code: kept("authcode").unwrap_or_default(),
                avs: kept("avsresponse"),
                cvv: kept("cvvresponse"),
                partial: None,
                token: Token::parse(at("customer_vault_id")).filter(|_| save),
                network: None,
            }),
            None => Verdict::Unknown("an approval without a transaction".into()),
        },
        ("2" | "3", code) => declined(at("response"), code, at("responsetext")),
        _ => Verdict::Unknown("an answer without a response code".into()),
    }
}

fn declined(response: &str, code: &str, text: &str) -> Verdict {
    match code {
        "220" | "221" | "222" => Verdict::Fixable(Fixable::Number),
        "223" => Verdict::DeclinedSoft,
        "224" => Verdict::Fixable(Fixable::Expiry),
        "225" => Verdict::Fixable(Fixable::Cvv),
        "250" | "251" | "252" | "253" | "261" | "262" => Verdict::DeclinedHard,
        "300" => rejected(text),
        "400" | "420" | "421" => Verdict::Unknown(format!("processor error {code}")),
        "410" | "411" | "460" | "461" | "440" | "441" => {
            Verdict::Config(format!("response code {code}"))
        }
        "430" => Verdict::Duplicate { original: None },
        // Declined by the issuer, whatever the finer reason.
        code if response == "2" && code.starts_with('2') && code.len() == 3 => {
            Verdict::DeclinedSoft
        }
        code => Verdict::Unknown(format!("response code {code}")),
    }
}

/// Rejected before it was processed; why stands in the text alone.
fn rejected(text: &str) -> Verdict {
    let lower = text.to_ascii_lowercase();
    let says = |words: &str| lower.contains(words);
    match () {
        // The number it gives is that of the rejection, not of the original.
        () if says("duplicate transaction") => Verdict::Duplicate { original: None },
        () if says("invalid credit card number") => Verdict::Fixable(Fixable::Number),
        () if says("expiration date") => Verdict::Fixable(Fixable::Expiry),
        () if says("routing") || says("invalid aba") => Verdict::Fixable(Fixable::Routing),
        () if says("invalid account number") => Verdict::Fixable(Fixable::Account),
        () if says("invalid customer vault") => Verdict::DeclinedHard,
        () if says("authentication failed") || says("not enabled") || says("not allowed") => {
            Verdict::Config("the gateway does not let us: check security_key and services".into())
        }
        () => Verdict::Unknown(REJECTED.into()),
    }
}

/// The action that charged, if the transaction is a charge.
fn charged(transaction: &Element) -> Option<&Element> {
    transaction
        .all("action")
        .find(|action| matches!(action.at("action_type"), Some("sale" | "auth" | "validate")))
}

fn transaction(lookup: &Lookup<'_>, transaction: &Element) -> Found {
    let Some(action) = charged(transaction) else { return Found::NotYet };
    if transaction.at("order_id") != Some(lookup.reference) {
        return Found::NotYet;
    }
    let done = action.at("success") == Some("1");
    match (transaction.at("condition").unwrap_or_default(), lookup.purpose) {
        ("pendingsettlement" | "complete", _) | ("pending", Purpose::Authorize) if done => {}
        ("complete" | "pending", Purpose::Verify) if done => {}
        ("failed", _) if !done => {
            let code = action.at("response_code").unwrap_or_default();
            let text = action.at("response_text").unwrap_or_default();
            let response = if code.starts_with('2') { "2" } else { "3" };
            return match declined(response, code, text) {
                Verdict::Unknown(_) | Verdict::Config(_) => Found::NotYet,
                verdict => Found::Settled(verdict),
            };
        }
        _ => return Found::NotYet,
    }
    let amount =
        action.at("amount").and_then(|text| Money::parse(text, lookup.total.currency).ok());
    let id = transaction.at("transaction_id").and_then(reply::identifier);
    match (id, amount) {
        (Some(gateway_reference), Some(amount)) if amount.minor <= lookup.total.minor => {
            let kept = |name: &str| transaction.at(name).and_then(reply::identifier);
            Found::Settled(Verdict::Approved(Approval {
                gateway_reference,
                auth_code: kept("authorization_code").unwrap_or_default(),
                avs: kept("avs_response"),
                cvv: kept("csc_response"),
                partial: Some(amount).filter(|part| part.minor < lookup.total.minor),
                ..Approval::default()
            }))
        }
        _ => Found::NotYet,
    }
}
