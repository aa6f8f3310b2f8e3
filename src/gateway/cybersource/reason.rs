//! What CyberSource's reasons say of a charge: words in the answer to it, numbers in a search.

use serde_json::Value;

use crate::gateway::{Fixable, Lookup, Purpose, Verdict, reply};
use crate::instrument::Method;

/// `errorInformation.reason` of a charge that was processed and declined.
pub fn declined(reason: &str, method: Method) -> Verdict {
    match reason {
        "EXPIRED_CARD" => Verdict::Fixable(Fixable::Expiry),
        "CVN_NOT_MATCH" | "INVALID_CVN" | "CV_FAILED" => Verdict::Fixable(Fixable::Cvv),
        "AVS_FAILED" => Verdict::Fixable(Fixable::Zip),
        "INVALID_ACCOUNT" | "ACH_VERIFICATION_FAILED" => number(method),
        "STOLEN_LOST_CARD"
        | "BLOCKED_BY_CARDHOLDER"
        | "BLACKLISTED_CUSTOMER"
        | "SUSPENDED_ACCOUNT"
        | "SCORE_EXCEEDS_THRESHOLD"
        | "DECISION_PROFILE_REJECT"
        | "CUSTOMER_WATCHLIST_MATCH"
        | "ADDRESS_COUNTRY_WATCHLIST_MATCH"
        | "EMAIL_COUNTRY_WATCHLIST_MATCH"
        | "IP_COUNTRY_WATCHLIST_MATCH" => Verdict::DeclinedHard,
        "DECISION_PROFILE_REVIEW" => Verdict::Held("held for review".into()),
        "INVALID_MERCHANT_CONFIGURATION" => wrong(reason),
        // The processor had a fault: what came of it is not known.
        "PROCESSOR_ERROR" | "PROCESSOR_TIMEOUT" => Verdict::Unknown(reason.into()),
        "DUPLICATE_REQUEST" => Verdict::Duplicate { original: None },
        "" => Verdict::Unknown("declined without a reason".into()),
        // The issuer said no; the finer reason may be newer than this list.
        _ => Verdict::DeclinedSoft,
    }
}

/// A request that was refused with HTTP 400: not processed.
pub fn refused(json: &Value, method: Method) -> Verdict {
    let reason = reply::kept(json, "/reason").unwrap_or_default();
    match reason.as_str() {
        "MISSING_FIELD" | "INVALID_DATA" => {
            let details = json.get("details").and_then(Value::as_array);
            let field = details.and_then(|all| all.first()?.get("field")?.as_str());
            // A card that is not kept there any more.
            if field.is_some_and(|field| field.starts_with("paymentInformation.paymentInstrument"))
            {
                return Verdict::DeclinedHard;
            }
            match field.and_then(|field| fixable(field, method)) {
                Some(field) => Verdict::Fixable(field),
                None => wrong(&reason),
            }
        }
        "INVALID_CARD" => Verdict::Fixable(Fixable::Number),
        "CARD_TYPE_NOT_ACCEPTED" => Verdict::DeclinedSoft,
        "DUPLICATE_REQUEST" => Verdict::Duplicate { original: None },
        "PROCESSOR_UNAVAILABLE" => Verdict::NotSent("the processor cannot be reached".into()),
        "" => Verdict::Unknown("HTTP 400 without a reason".into()),
        reason => wrong(reason),
    }
}

fn wrong(reason: &str) -> Verdict {
    Verdict::Config(format!("{reason}: check merchant_id and what the account may do"))
}

fn number(method: Method) -> Verdict {
    Verdict::Fixable(match method {
        Method::Card => Fixable::Number,
        Method::Bank => Fixable::Account,
    })
}

/// The field the caller can correct, by its path in the request.
fn fixable(field: &str, method: Method) -> Option<Fixable> {
    let (_, last) = field.rsplit_once('.').unwrap_or(("", field));
    match (last, method) {
        ("number", Method::Card) if field.contains("card") => Some(Fixable::Number),
        ("expirationMonth" | "expirationYear", _) => Some(Fixable::Expiry),
        ("securityCode", _) => Some(Fixable::Cvv),
        ("postalCode", _) => Some(Fixable::Zip),
        ("routingNumber", _) => Some(Fixable::Routing),
        ("number", Method::Bank) if field.contains("account") => Some(Fixable::Account),
        _ => None,
    }
}

/// The service a lookup asks for, as searches call it.
fn service(lookup: &Lookup<'_>) -> &'static str {
    match (lookup.method, lookup.purpose) {
        (Method::Bank, _) => "ics_ecp_debit",
        (Method::Card, Purpose::Sale) => "ics_bill",
        (Method::Card, Purpose::Authorize | Purpose::Verify) => "ics_auth",
    }
}

/// Whether the service asked for was done; a sale that was only authorised took nothing.
pub fn succeeded(transaction: &Value, lookup: &Lookup<'_>) -> bool {
    services(transaction).any(|done| {
        let code = reply::at(done, "/reasonCode");
        done["name"] == service(lookup) && matches!(code.as_deref(), Some("100" | "110"))
    })
}

fn services(transaction: &Value) -> impl Iterator<Item = &Value> {
    let all = transaction.pointer("/applicationInformation/applications");
    all.and_then(Value::as_array).into_iter().flatten()
}

/// What the first service that did not succeed says of a declined charge.
pub fn by_number(transaction: &Value, method: Method) -> Verdict {
    let codes = services(transaction).filter_map(|done| reply::at(done, "/reasonCode"));
    let code = codes.into_iter().find(|code| code != "100").unwrap_or_default().into_owned();
    match code.as_str() {
        "200" => Verdict::Fixable(Fixable::Zip),
        "202" => Verdict::Fixable(Fixable::Expiry),
        "209" | "211" | "230" => Verdict::Fixable(Fixable::Cvv),
        "231" => number(method),
        "205" | "221" | "222" | "481" => Verdict::DeclinedHard,
        "201" | "203" | "204" | "207" | "208" | "210" | "220" | "232" | "233" | "475" | "476" => {
            Verdict::DeclinedSoft
        }
        "480" => Verdict::Held("held for review".into()),
        code => Verdict::Unknown(format!("reason {code}")),
    }
}
