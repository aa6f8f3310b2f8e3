//! A gateway whose replies are words, so that a test can write them.

use std::sync::Arc;

use ringtill::gateway::route::{Patience, Takes};
use ringtill::gateway::{
    self, Act, Approval, Cannot, Capabilities, Charge, Exchange, Fixable, Found, Gateway, Lookup,
    Modification, Modified, Operation, Purpose, Repeat, Route, Routes, Verdict,
};
use ringtill::instrument::{Brand, HolderKind, Instrument, Last4, Token};
use zeroize::Zeroizing;

use super::NOW_MS;
use super::scenes::Gateways;

/// The bank account that every caller keys in the end.
pub const ACCOUNT: &str = "12345678901";

/// What every card is called that is kept.
pub const TOKEN: &str = "tok_visa";

/// See above.
pub struct Words;

impl Gateway for Words {
    fn name(&self) -> &'static str {
        "words"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: &[Operation::Verify, Operation::Sale, Operation::Void, Operation::Lookup],
            bank: true,
            tokens: true,
            verify_keeps: true,
            token_cvv: true,
            surcharge: true,
            repeat: Repeat::Replays,
        }
    }

    fn charge(&self, sale: &Charge<'_>) -> Result<gateway::Request, Cannot> {
        let mut how = if sale.save { " save" } else { "" };
        let (kind, last4) = match sale.instrument {
            Instrument::Card(card) => {
                assert!(card.pan.expose().len() >= 13);
                (card.pan.brand().name(), card.pan.last4())
            }
            Instrument::Bank(debit) => {
                assert_eq!(debit.holder_kind, HolderKind::Personal, "TEL is for consumers");
                assert_eq!(debit.holder.as_str(), "James");
                assert_eq!(debit.account.expose(), ACCOUNT);
                (debit.account.kind.name(), debit.account.last4())
            }
            Instrument::Token(saved) => {
                assert!(!sale.save && saved.token.expose() == TOKEN, "not a token of ours");
                how = if saved.cvv.is_some() { " token+cvv" } else { " token" };
                (Brand::Visa.name(), Last4::parse("1111").unwrap())
            }
        };
        let (reference, minor) = (sale.reference, sale.total.minor);
        let word = match sale.purpose {
            Purpose::Verify => "verify",
            _ => "sale",
        };
        assert!(word == "sale" || (minor == 0 && how == " save"), "verified for nothing");
        Ok(request(&format!("{word} {reference} {minor} {kind} {}{how}", last4.as_str())))
    }

    fn verdict(&self, sale: &Charge<'_>, exchange: &Exchange) -> Verdict {
        match word(exchange) {
            Verdict::Approved(approval) if sale.save => {
                Verdict::Approved(Approval { token: Token::parse(TOKEN), ..approval })
            }
            verdict => verdict,
        }
    }

    /// As those do that keep a card by a request of its own.
    fn keep(&self, sale: &Charge<'_>, _: &Approval) -> Option<gateway::Request> {
        Some(request(&format!("keep {}", sale.reference)))
    }

    fn kept(&self, approval: &Approval, exchange: &Exchange) -> Option<Token> {
        let approved = matches!(word(exchange), Verdict::Approved(_));
        approval.token.clone().filter(|_| approved)
    }

    fn modify(&self, change: &Modification<'_>) -> Result<gateway::Request, Cannot> {
        assert_eq!(change.act, Act::Void, "the script refunds nothing");
        Ok(request(&format!("void {} {}", change.reference, change.original)))
    }

    fn modified(&self, _: &Modification<'_>, exchange: &Exchange) -> Modified {
        match exchange.response() {
            Ok(response) if response.body() == b"voided" => Modified::Done("v1".into()),
            Ok(_) => Modified::Refused("too late".into()),
            Err(silence) => silence.into(),
        }
    }

    fn lookup(&self, lookup: &Lookup<'_>) -> Result<gateway::Request, Cannot> {
        Ok(request(&format!("lookup {}", lookup.reference)))
    }

    fn found(&self, _: &Lookup<'_>, exchange: &Exchange) -> Found {
        match exchange {
            Exchange::Response(response) if response.body() == b"absent" => Found::Absent,
            Exchange::Response(_) => match word(exchange) {
                Verdict::Unknown(_) => Found::NotYet,
                verdict => Found::Settled(verdict),
            },
            _ => Found::NotYet,
        }
    }
}

/// The gateways of a biller, new ones.
pub fn routes(which: Gateways) -> Routes {
    let patience = Patience { failures_max: 1, ..Patience::default() };
    let first = Route::new("first", Arc::new(Words));
    let mut second = Route::new("second", Arc::new(Words));
    second.takes = Takes { cards: vec![Brand::Visa], bank: true, save: false };
    match which {
        Gateways::One => Routes::new(vec![first]),
        Gateways::Two => Routes::new(vec![first, second]),
        Gateways::Apart => {
            let mut fees = Route::new("fees", Arc::new(Words));
            fees.takes = Takes { cards: Vec::new(), bank: false, save: false };
            Routes::new(vec![first, fees])
        }
        Gateways::FirstRests => {
            let first = first.patience(patience);
            first.report(&Exchange::NoAnswer("closed".into()), NOW_MS - 1);
            Routes::new(vec![first, second])
        }
    }
}

fn word(exchange: &Exchange) -> Verdict {
    let response = match exchange.response() {
        Ok(response) => response,
        Err(silence) => return silence.into(),
    };
    match response.body().as_slice() {
        b"approved" => Verdict::Approved(approval()),
        b"hard" => Verdict::DeclinedHard,
        b"soft" => Verdict::DeclinedSoft,
        b"cvv" => Verdict::Fixable(Fixable::Cvv),
        b"zip" => Verdict::Fixable(Fixable::Zip),
        b"number" => Verdict::Fixable(Fixable::Number),
        b"routing" => Verdict::Fixable(Fixable::Routing),
        b"account" => Verdict::Fixable(Fixable::Account),
        b"held" => Verdict::Held("review".into()),
        b"config" => Verdict::Config("wrong key".into()),
        b"busy" => Verdict::NotSent("come back later".into()),
        _ => Verdict::Unknown("unreadable answer".into()),
    }
}

fn request(body: &str) -> gateway::Request {
    let (head, ()) = http::Request::post("https://gateway.invalid/").body(()).unwrap().into_parts();
    gateway::Request { head, body: Zeroizing::new(body.as_bytes().to_vec()), shown: &[] }
}

pub fn approval() -> Approval {
    let gateway_reference = "g1".to_string();
    Approval { gateway_reference, auth_code: "A1".into(), ..Approval::default() }
}

pub fn response(body: &str) -> Exchange {
    Exchange::Response(http::Response::new(body.as_bytes().to_vec()))
}
