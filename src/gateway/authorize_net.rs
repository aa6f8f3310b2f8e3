//! Authorize.Net: JSON whose members must stand in the order of its XSD, answers that begin with a
//! byte order mark.
//!
//! Cards as mail or telephone order (`marketType` 1), accounts with `echeckType` TEL. A repeat is
//! recognised by its content for `duplicate_window_s` seconds; the invoice number, which is made
//! from our reference, is part of the content. A lookup goes through the unsettled transactions,
//! then the batches settled since, to the transaction's details.

use aws_lc_rs::digest;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::body::{self, Object};
use super::settings::{Environment, base_url, credential, secret};
use super::{
    Act, Approval, Cannot, Capabilities, Charge, Dialect, Exchange, Fixable, Found, Gateway,
    Initiator, Lookup, Modification, Modified, Operation, Purpose, Repeat, Request, Simulator,
    Verdict, reply,
};
use crate::instrument::{AccountKind, Debit, HolderKind, Instrument, Method, Saved, Token};
use crate::money::Money;
use crate::secret::Secret;

mod stored; // what is said of a card that is kept
mod fee; // what is said of it
pub mod simulator; // the processor

pub struct AuthorizeNet {
    url: String,
    login: String,
    transaction_key: Secret<String>,
    duplicate_window_s: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    environment: Option<Environment>,
    base_url: Option<String>,
    login: String,
    #[serde(deserialize_with = "secret")]
    transaction_key: Secret<String>,
    #[serde(default = "window_max")]
    duplicate_window_s: u32,
}

/// The longest window Authorize.Net knows: eight hours.
const WINDOW_MAX_S: u32 = 28_800;

fn window_max() -> u32 {
    WINDOW_MAX_S
}

impl Dialect for AuthorizeNet {
    type Settings = Settings;

    const SECRETS: &'static [&'static str] = &["transaction_key"];

    const EXAMPLE: &'static str = "\
environment = \"sandbox\"         # or \"live\"
login = \"7acmeLogin\"            # Account > API Credentials & Keys
transaction_key = { file = \"/etc/ringtill/authorize_net.key\" }
duplicate_window_s = 28800      # the same invoice, card and amount is refused for this long
";

    fn open(settings: Settings) -> Result<AuthorizeNet, String> {
        let base = base_url(
            settings.environment,
            settings.base_url.as_deref(),
            "https://apitest.authorize.net",
            "https://api.authorize.net",
        )?;
        credential("login", &settings.login)?;
        credential("transaction_key", settings.transaction_key.expose())?;
        if !(60..=WINDOW_MAX_S).contains(&settings.duplicate_window_s) {
            return Err("duplicate_window_s: write 60 to 28800".into());
        }
        Ok(AuthorizeNet {
            url: format!("{base}/xml/v1/request.api"),
            login: settings.login,
            transaction_key: settings.transaction_key,
            duplicate_window_s: settings.duplicate_window_s,
        })
    }

    fn simulator(seed: u64) -> Simulator {
        Simulator::new(Box::new(simulator::Processor::new(seed)))
    }
}

const SHOWN: &[&str] = &[
    "refId",
    "transactionType",
    "amount",
    "currencyCode",
    "invoiceNumber",
    "description",
    "marketType",
    "settingName",
    "settingValue",
    "refTransId",
    "echeckType",
    "createProfile",
    "name",
    "value",
    "orderBy",
    "orderDescending",
    "limit",
    "offset",
    "batchId",
    "transId",
    "firstSettlementDate",
    "lastSettlementDate",
];

impl Gateway for AuthorizeNet {
    fn name(&self) -> &'static str {
        "authorize_net"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: &Operation::ALL,
            bank: true,
            tokens: true,
            verify_keeps: true,
            token_cvv: true,
            surcharge: true,
            repeat: Repeat::Refuses { window_s: self.duplicate_window_s },
        }
    }

    fn charge(&self, charge: &Charge<'_>) -> Result<Request, Cannot> {
        self.capabilities().allow(charge)?;
        let bank = charge.instrument.method() == Method::Bank;
        if bank && charge.purpose != Purpose::Sale {
            return Err(Cannot("an account can only be debited, not verified or authorised"));
        }
        let token = match &charge.instrument {
            Instrument::Token(saved) => {
                let ids = split(saved).ok_or(Cannot("the token is none of Authorize.Net's"))?;
                Some((ids, saved.cvv.as_ref().map(|cvv| cvv.expose())))
            }
            _ => None,
        };
        let kind = match charge.purpose {
            Purpose::Sale => "authCaptureTransaction",
            Purpose::Verify | Purpose::Authorize => "authOnlyTransaction",
        };
        Ok(self.transaction(charge.reference, kind, |all| {
            all.text("amount", &charge.total.decimal());
            all.text("currencyCode", charge.total.currency.code());
            payment(all, &charge.instrument);
            if let Some(((customer, payment), code)) = token {
                all.object("profile", |profile| {
                    profile.text("customerProfileId", customer);
                    profile.object("paymentProfile", |kept| {
                        kept.text("paymentProfileId", payment);
                        kept.some("cardCode", code);
                    });
                });
            } else if charge.save {
                all.object("profile", |profile| profile.flag("createProfile", true));
            }
            order(all, charge.reference, Some(charge.account_id));
            if charge.save {
                // A second profile under one id would be refused.
                all.object("customer", |customer| customer.text("id", &short(charge.reference)));
            }
            if let Instrument::Card(card) = &charge.instrument
                && let Some(zip) = &card.zip
            {
                all.object("billTo", |address| address.text("zip", zip));
            }
            if !bank {
                all.object("retail", |retail| retail.text("marketType", "1"));
            }
            stored::settings(all, self.duplicate_window_s, charge.initiator);
            fee::fees(all, charge);
            stored::options(all, charge, token.is_some());
        }))
    }

    fn verdict(&self, charge: &Charge<'_>, exchange: &Exchange) -> Verdict {
        match exchange.response() {
            Ok(response) => read(charge.reference, charge.total, response),
            Err(silence) => silence.into(),
        }
    }

    fn modify(&self, change: &Modification<'_>) -> Result<Request, Cannot> {
        let kind = match change.act {
            Act::Capture => "priorAuthCaptureTransaction",
            Act::Void => "voidTransaction",
            Act::Refund => "refundTransaction",
        };
        Ok(self.transaction(change.reference, kind, |all| {
            if change.act != Act::Void {
                all.text("amount", &change.amount.decimal());
                all.text("currencyCode", change.amount.currency.code());
            }
            if change.act == Act::Refund {
                let last4 = change.last4;
                all.object("payment", |payment| match change.method {
                    Method::Card => payment.object("creditCard", |card| {
                        card.text("cardNumber", last4.as_str());
                        card.text("expirationDate", "XXXX");
                    }),
                    Method::Bank => payment.object("bankAccount", |account| {
                        account.text("accountNumber", &format!("XXXX{}", last4.as_str()));
                    }),
                });
            }
            all.text("refTransId", change.original);
            if change.act == Act::Refund {
                order(all, change.reference, None);
                stored::settings(all, self.duplicate_window_s, Initiator::Customer);
            }
        }))
    }

    fn modified(&self, change: &Modification<'_>, exchange: &Exchange) -> Modified {
        match exchange.response() {
            Ok(response) => read_change(change, response),
            Err(silence) => silence.into(),
        }
    }

    fn lookup(&self, lookup: &Lookup<'_>) -> Result<Request, Cannot> {
        let (kind, rest) = lookup.step.split_once(':').unwrap_or((&lookup.step, ""));
        let (rest, page) = rest.split_once('#').unwrap_or((rest, "1"));
        Ok(match kind {
            "transaction" => self.ask("getTransactionDetailsRequest", |all| {
                all.text("transId", rest);
            }),
            "batches" => self.ask("getSettledBatchListRequest", |all| {
                all.text("firstSettlementDate", &time(lookup.started_ms - DAY_MS));
                let last = lookup.at_ms.min(lookup.started_ms + 30 * DAY_MS - DAY_MS);
                all.text("lastSettlementDate", &time(last.max(lookup.started_ms)));
            }),
            "batch" => self.ask("getTransactionListRequest", |all| {
                all.text("batchId", rest.split(',').next().unwrap_or_default());
                page_of(all, page);
            }),
            _ => {
                let page = if rest.is_empty() { page } else { rest };
                self.ask("getUnsettledTransactionListRequest", |all| page_of(all, page))
            }
        })
    }

    fn found(&self, lookup: &Lookup<'_>, exchange: &Exchange) -> Found {
        let Ok(response) = exchange.response() else { return Found::NotYet };
        if response.status() != StatusCode::OK {
            return Found::NotYet;
        }
        let json = reply::json(response.body());
        let Some(json) = json.filter(|json| result(json) == Some("Ok")) else {
            return Found::NotYet;
        };
        let (kind, rest) = lookup.step.split_once(':').unwrap_or((&lookup.step, ""));
        match kind {
            "transaction" => details(lookup, &json),
            "batches" => match batches(&json) {
                ids if ids.is_empty() => Found::Absent,
                ids => Found::More(format!("batch:{ids}")),
            },
            _ => listed(lookup, kind == "batch", rest, &json),
        }
    }
}

const DAY_MS: i64 = 24 * 3_600_000;
/// Rows of a list that are asked for at once.
const ROWS: usize = 1_000;

impl AuthorizeNet {
    fn ask(&self, name: &str, members: impl FnOnce(&mut Object<'_>)) -> Request {
        let body = body::json(|all| {
            all.object(name, |all| {
                all.object("merchantAuthentication", |who| {
                    who.text("name", &self.login);
                    who.text("transactionKey", self.transaction_key.expose());
                });
                members(all);
            });
        });
        let request = http::Request::post(&self.url).header(CONTENT_TYPE, "application/json");
        let (head, ()) = request.body(()).expect("the address was checked at open").into_parts();
        Request { head, body, shown: SHOWN }
    }

    fn transaction(
        &self,
        reference: &str,
        kind: &str,
        members: impl FnOnce(&mut Object<'_>),
    ) -> Request {
        self.ask("createTransactionRequest", |all| {
            all.text("refId", &short(reference));
            all.object("transactionRequest", |all| {
                all.text("transactionType", kind);
                members(all);
            });
        })
    }
}

/// Invoice numbers and request ids have twenty characters: a hundred bits of the reference's hash.
pub fn short(reference: &str) -> String {
    const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let hash = digest::digest(&digest::SHA256, reference.as_bytes());
    let bits =
        hash.as_ref().iter().take(16).fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    (0..20).map(|n| char::from(LETTERS[(bits >> (5 * n)) as usize & 31])).collect()
}

fn first(text: &str, len: usize) -> &str {
    text.char_indices().nth(len).map_or(text, |(at, _)| &text[..at])
}

fn payment(all: &mut Object<'_>, instrument: &Instrument<'_>) {
    match instrument {
        Instrument::Card(card) => all.object("payment", |payment| {
            payment.object("creditCard", |all| {
                let (year, month) = (card.expiry.expose_year(), card.expiry.expose_month());
                let expiry = Zeroizing::new(format!("{year}-{month:02}"));
                all.text("cardNumber", card.pan.expose());
                all.text("expirationDate", &expiry);
                all.some("cardCode", card.cvv.as_ref().map(|cvv| cvv.expose()));
            });
        }),
        Instrument::Bank(debit) => all.object("payment", |payment| {
            payment.object("bankAccount", |all| account(all, debit));
        }),
        Instrument::Token(_) => {}
    }
}

fn account(all: &mut Object<'_>, debit: &Debit) {
    all.text(
        "accountType",
        match (debit.holder_kind, debit.account.kind) {
            (HolderKind::Business, AccountKind::Checking) => "businessChecking",
            (_, AccountKind::Checking) => "checking",
            (_, AccountKind::Savings) => "savings",
        },
    );
    all.text("routingNumber", debit.account.routing.as_str());
    all.text("accountNumber", debit.account.expose());
    all.text("nameOnAccount", first(&debit.holder, 22));
    all.text("echeckType", "TEL");
}

fn order(all: &mut Object<'_>, reference: &str, description: Option<&str>) {
    all.object("order", |order| {
        order.text("invoiceNumber", &short(reference));
        order.some("description", description.map(|text| first(text, 255)));
    });
}

fn page_of(all: &mut Object<'_>, page: &str) {
    all.object("sorting", |sorting| {
        sorting.text("orderBy", "submitTimeUTC");
        sorting.text("orderDescending", "true");
    });
    all.object("paging", |paging| {
        paging.text("limit", &ROWS.to_string());
        paging.text("offset", page);
    });
}

/// Customer profile and payment profile.
fn split(saved: &Saved) -> Option<(&str, &str)> {
    let (customer, payment) = saved.token.expose().split_once('/')?;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (number(customer) && number(payment)).then_some((customer, payment))
}

fn time(ms: i64) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn result(json: &Value) -> Option<&str> {
    json.pointer("/messages/resultCode")?.as_str()
}

fn read(reference: &str, total: Money, response: &http::Response<Vec<u8>>) -> Verdict {
    if response.status() != StatusCode::OK {
        return reply::by_status(response.status());
    }
    let Some(json) = reply::json(response.body()) else {
        return Verdict::Unknown("an answer that is no JSON".into());
    };
    if json.get("refId").and_then(Value::as_str).is_some_and(|id| id != short(reference)) {
        return Verdict::Unknown("an answer to another request".into());
    }
    let Some(answer) = json.get("transactionResponse").filter(|answer| answer.is_object()) else {
        return refusal(&json);
    };
    let reason = reason(answer);
    match answer.get("responseCode").and_then(Value::as_str) {
        Some("1") if reply::at(answer, "/testRequest").as_deref() == Some("1") => {
            Verdict::Config("the account is in test mode: nothing is charged".into())
        }
        Some("1") if result(&json) == Some("Ok") => approval(answer, total),
        Some("2") => declined(&reason).unwrap_or(Verdict::DeclinedSoft),
        Some("3") => declined(&reason)
            .or_else(|| (reason.is_empty()).then(|| refusal(&json)))
            .unwrap_or_else(|| Verdict::Unknown(format!("error {reason}"))),
        Some("4") => Verdict::Held(format!("held for review, reason {reason}")),
        _ => Verdict::Unknown("an answer without a response code".into()),
    }
}

fn reason(answer: &Value) -> String {
    let error = reply::kept(answer, "/errors/0/errorCode");
    error.or_else(|| reply::kept(answer, "/messages/0/code")).unwrap_or_default()
}

fn approval(answer: &Value, total: Money) -> Verdict {
    let id = reply::kept(answer, "/transId").filter(|id| id != "0");
    let Some(gateway_reference) = id else {
        return Verdict::Unknown("an approval without a transaction".into());
    };
    let part = reply::at(answer, "/prePaidCard/approvedAmount");
    let part = part.and_then(|text| Money::parse(&text, total.currency).ok());
    let profile = |pointer: &str| reply::kept(answer, pointer);
    let token = profile("/profile/customerProfileId")
        .zip(profile("/profile/customerPaymentProfileId"))
        .and_then(|(customer, payment)| Token::parse(&format!("{customer}/{payment}")));
    Verdict::Approved(Approval {
        gateway_reference,
        auth_code: reply::kept(answer, "/authCode").unwrap_or_default(),
        avs: reply::kept(answer, "/avsResultCode"),
        cvv: reply::kept(answer, "/cvvResultCode"),
        partial: part.filter(|part| part.minor < total.minor),
        token,
        network: reply::kept(answer, "/networkTransId"),
    })
}

/// What a reason of a transaction says for certain.
fn declined(reason: &str) -> Option<Verdict> {
    Some(match reason {
        "2" | "3" | "8" | "17" | "28" | "41" | "250" | "251" | "254" | "317" => {
            Verdict::DeclinedSoft
        }
        "4" => Verdict::DeclinedHard,
        "6" | "37" | "315" => Verdict::Fixable(Fixable::Number),
        "7" | "316" => Verdict::Fixable(Fixable::Expiry),
        "9" => Verdict::Fixable(Fixable::Routing),
        "10" => Verdict::Fixable(Fixable::Account),
        "11" | "318" => Verdict::Duplicate { original: None },
        "27" | "45" | "127" => Verdict::Fixable(Fixable::Zip),
        "44" | "65" | "78" | "165" => Verdict::Fixable(Fixable::Cvv),
        "252" | "253" | "193" => Verdict::Held(format!("held for review, reason {reason}")),
        "5" | "13" => Verdict::Config(format!("reason {reason}")),
        _ => return None,
    })
}

/// What a request as a whole is refused for.
fn refusal(json: &Value) -> Verdict {
    let code = reply::kept(json, "/messages/message/0/code").unwrap_or_default();
    match (result(json), code.as_str()) {
        (Some("Error"), "E00053") => Verdict::NotSent("the gateway is busy".into()),
        (Some("Error"), "E00040") => Verdict::DeclinedHard,
        (
            Some("Error"),
            "E00002" | "E00003" | "E00004" | "E00005" | "E00006" | "E00007" | "E00008" | "E00009"
            | "E00010" | "E00011" | "E00013" | "E00014" | "E00045",
        ) => Verdict::Config(format!("{code}: check login, transaction_key and what they may do")),
        _ => Verdict::Unknown(format!("an answer without a transaction: {code}")),
    }
}

fn read_change(change: &Modification<'_>, response: &http::Response<Vec<u8>>) -> Modified {
    let total = change.amount;
    let verdict = read(change.reference, total, response);
    let json = reply::json(response.body()).unwrap_or_default();
    let reason = json.get("transactionResponse").map(reason).unwrap_or_default();
    match (verdict, reason.as_str()) {
        // "Already captured" comes as a success, of another request.
        (Verdict::Approved(_), "311") => Modified::Refused("it is captured already".into()),
        (
            Verdict::Unknown(_) | Verdict::DeclinedSoft,
            "16" | "33" | "47" | "48" | "49" | "50" | "51" | "54" | "55" | "310" | "311" | "312",
        ) => Modified::Refused(format!("reason {reason}")),
        (verdict, _) => verdict.into(),
    }
}

/// Ids of the batches, separated by commas.
fn batches(json: &Value) -> String {
    let list = json.get("batchList").and_then(Value::as_array);
    let ids = list.into_iter().flatten().filter_map(|batch| reply::kept(batch, "/batchId"));
    ids.take(super::search::STEPS_MAX).collect::<Vec<_>>().join(",")
}

/// A page of transactions, of a batch or not settled yet.
fn listed(lookup: &Lookup<'_>, in_batch: bool, rest: &str, json: &Value) -> Found {
    let rows = json.get("transactions").and_then(Value::as_array);
    let rows = rows.map(Vec::as_slice).unwrap_or_default();
    let invoice = short(lookup.reference);
    let ours: Vec<String> = rows
        .iter()
        .filter(|row| row.get("invoiceNumber").and_then(Value::as_str) == Some(&invoice))
        .filter_map(|row| reply::kept(row, "/transId"))
        .collect();
    match &ours[..] {
        [one] => return Found::More(format!("transaction:{one}")),
        [] => {}
        // One invoice, charged twice: a person must look.
        _ => return Found::NotYet,
    }
    let (ids, page) = match in_batch {
        true => rest.split_once('#').unwrap_or((rest, "1")),
        false => ("", if rest.is_empty() { "1" } else { rest }),
    };
    if rows.len() >= ROWS {
        let next = page.parse::<u32>().unwrap_or(1) + 1;
        return Found::More(match in_batch {
            true => format!("batch:{ids}#{next}"),
            false => format!("unsettled:{next}"),
        });
    }
    match (in_batch, ids.split_once(',')) {
        (false, _) => Found::More("batches:".into()),
        (true, Some((_, others))) => Found::More(format!("batch:{others}")),
        (true, None) => Found::Absent,
    }
}

fn details(lookup: &Lookup<'_>, json: &Value) -> Found {
    let Some(sale) = json.get("transaction") else { return Found::NotYet };
    let invoice = sale.pointer("/order/invoiceNumber").and_then(Value::as_str);
    if invoice != Some(&short(lookup.reference)) {
        return Found::NotYet;
    }
    let reason = reply::kept(sale, "/responseReasonCode").unwrap_or_default();
    let amount = reply::at(sale, "/authAmount").or_else(|| reply::at(sale, "/settleAmount"));
    let amount = amount.and_then(|text| Money::parse(&text, lookup.total.currency).ok());
    let status = sale.get("transactionStatus").and_then(Value::as_str).unwrap_or_default();
    match (status, lookup.purpose) {
        ("capturedPendingSettlement" | "settledSuccessfully", _)
        | ("authorizedPendingCapture", Purpose::Authorize | Purpose::Verify) => {
            let id = reply::kept(sale, "/transId");
            let (Some(gateway_reference), Some(amount)) = (id, amount) else {
                return Found::NotYet;
            };
            if amount.minor > lookup.total.minor {
                return Found::NotYet;
            }
            Found::Settled(Verdict::Approved(Approval {
                gateway_reference,
                auth_code: reply::kept(sale, "/authCode").unwrap_or_default(),
                avs: reply::kept(sale, "/AVSResponse"),
                cvv: reply::kept(sale, "/cardCodeResponse"),
                partial: Some(amount).filter(|part| part.minor < lookup.total.minor),
                ..Approval::default()
            }))
        }
        ("declined", _) => Found::Settled(declined(&reason).unwrap_or(Verdict::DeclinedSoft)),
        ("failedReview", _) => Found::Settled(Verdict::DeclinedSoft),
        ("FDSPendingReview" | "FDSAuthorizedPendingReview" | "underReview", _) => {
            Found::Settled(Verdict::Held(format!("held for review, reason {reason}")))
        }
        _ => Found::NotYet,
    }
}
