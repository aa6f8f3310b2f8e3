//! Debits without a processor: each is written down by this server and goes to the operator's bank
//! in a file (`ach`). Its requests never leave the process; they have the shape of the others' so
//! that the payment is the same.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST nacha://file/debits/<reference>` | the receiver, encoded | 201 the debit, 200 if it was there; 403 the account may not be debited |
//! | `GET nacha://file/debits/<reference>` | | 200 the debit, 410 if it was voided, 404 when there is none |
//! | `DELETE nacha://file/debits/<our name for it>` | | 200 if it is in no file, 409 otherwise |
//!
//! The answer's body is our name for the debit, or the reason.

use http::{Method, StatusCode};
use zeroize::Zeroizing;

use super::{
    Act, Approval, Cannot, Capabilities, Charge, Exchange, Found, Gateway, Lookup, Modification,
    Modified, Operation, Repeat, Request, Verdict,
};
use crate::ach::Receiver;
use crate::ach::file::CENTS_MAX;
use crate::instrument::{BankAccount, Instrument, RoutingNumber};
use crate::money::Currency;

/// Its name in the configuration; not among [`super::NAMES`], for no processor speaks it.
pub const NAME: &str = "nacha";

/// Why nothing is refunded: TEL has no credits.
pub const NO_REFUND: &str = "a debit that went to the bank is not refunded by a file: TEL only \
     debits. Pay the money back by check or another credit; one that was wrong (twice, or another \
     amount or person) your bank can reverse within five banking days of its settlement";

/// The gateway `nacha`.
pub struct Nacha;

impl Gateway for Nacha {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            operations: &[Operation::Sale, Operation::Void, Operation::Lookup],
            bank: true,
            tokens: false,
            verify_keeps: false,
            token_cvv: false,
            surcharge: false,
            repeat: Repeat::Replays,
        }
    }

    fn charge(&self, charge: &Charge<'_>) -> Result<Request, Cannot> {
        self.capabilities().allow(charge)?;
        let Instrument::Bank(debit) = charge.instrument else {
            return Err(Cannot("only bank accounts can be debited by a NACHA file"));
        };
        if charge.total.currency != Currency::USD {
            return Err(Cannot("a NACHA file holds US dollars: set payment.currency to USD"));
        }
        let cents = u64::try_from(charge.total.minor).unwrap_or_default();
        if !(1..=CENTS_MAX).contains(&cents) {
            return Err(Cannot("an entry of a NACHA file holds at most $99,999,999.99"));
        }
        let routing = RoutingNumber::parse(debit.account.routing.as_str());
        let account = routing.and_then(|routing| {
            BankAccount::parse(routing, debit.account.expose(), debit.account.kind)
        });
        let account = account.ok_or(Cannot("this account cannot be in a NACHA file"))?;
        let name = Zeroizing::new(debit.holder.to_string());
        Ok(request(Method::POST, charge.reference, Receiver { account, name }.encode()))
    }

    fn verdict(&self, _: &Charge<'_>, exchange: &Exchange) -> Verdict {
        match exchange.response() {
            Err(silence) => silence.into(),
            Ok(response) => match response.status() {
                StatusCode::OK | StatusCode::CREATED => taken(response.body()),
                StatusCode::FORBIDDEN => Verdict::DeclinedHard,
                StatusCode::CONFLICT => Verdict::NotSent(text(response.body())),
                other => Verdict::Unknown(format!("status {other}")),
            },
        }
    }

    fn modify(&self, modification: &Modification<'_>) -> Result<Request, Cannot> {
        match modification.act {
            Act::Void => {
                Ok(request(Method::DELETE, modification.original, Zeroizing::new(Vec::new())))
            }
            Act::Refund => Err(Cannot(NO_REFUND)),
            Act::Capture => Err(Cannot("a debit is not captured")),
        }
    }

    fn modified(&self, _: &Modification<'_>, exchange: &Exchange) -> Modified {
        match exchange.response() {
            Err(silence) => silence.into(),
            Ok(response) => match response.status() {
                StatusCode::OK => Modified::Done(text(response.body())),
                StatusCode::CONFLICT => Modified::Refused(text(response.body())),
                other => Modified::Unknown(format!("status {other}")),
            },
        }
    }

    fn lookup(&self, lookup: &Lookup<'_>) -> Result<Request, Cannot> {
        Ok(request(Method::GET, lookup.reference, Zeroizing::new(Vec::new())))
    }

    fn found(&self, _: &Lookup<'_>, exchange: &Exchange) -> Found {
        match exchange.response() {
            Err(_) => Found::NotYet,
            Ok(response) => match response.status() {
                StatusCode::OK => match taken(response.body()) {
                    Verdict::Unknown(_) => Found::NotYet,
                    verdict => Found::Settled(verdict),
                },
                StatusCode::NOT_FOUND => Found::Absent,
                _ => Found::NotYet,
            },
        }
    }
}

/// The debit is written down; it is submitted to the bank later.
fn taken(body: &[u8]) -> Verdict {
    match text(body) {
        none if none.is_empty() => Verdict::Unknown("an answer without a name".into()),
        gateway_reference => {
            Verdict::Approved(Approval { gateway_reference, ..Approval::default() })
        }
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// References are ours: letters, digits and dashes. Anything else of them is left out.
fn request(method: Method, reference: &str, body: Zeroizing<Vec<u8>>) -> Request {
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    let reference: String = reference.chars().filter(plain).collect();
    let (head, ()) = http::Request::builder()
        .method(method)
        .uri(format!("{NAME}://file/debits/{reference}"))
        .body(())
        .expect("letters, digits and dashes make a URI")
        .into_parts();
    Request { head, body, shown: &[] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::{Initiator, Purpose};
    use crate::instrument::{AccountKind, Debit, HolderKind, Last4, Method as Paid};
    use crate::money::Money;

    fn debit() -> Debit {
        let routing = RoutingNumber::parse("021000021").unwrap();
        let account = BankAccount::parse(routing, "738491620583714", AccountKind::Checking);
        let holder = "James Walker".to_string().into();
        Debit { account: account.unwrap(), holder, holder_kind: HolderKind::Personal }
    }

    fn charge(debit: &Debit, total: Money) -> Charge<'_> {
        Charge {
            purpose: Purpose::Sale,
            reference: "0196-a",
            total,
            fee: Money::usd(0),
            surcharge: false,
            instrument: Instrument::Bank(debit),
            account_id: "1001",
            save: false,
            initiator: Initiator::Customer,
            at_ms: 0,
        }
    }

    fn answer(status: u16, body: &str) -> Exchange {
        let body = body.as_bytes().to_vec();
        Exchange::Response(http::Response::builder().status(status).body(body).unwrap())
    }

    #[test]
    fn the_account_is_in_the_body_alone() {
        let debit = debit();
        let request = Nacha.charge(&charge(&debit, Money::usd(32_372))).unwrap();
        let shown = format!("{request:?} {:?}", request.head);
        assert!(shown.contains("POST nacha://file/debits/0196-a"), "{shown}");
        assert!(!shown.contains("7384") && !shown.contains("James"), "{shown}");
        let receiver = Receiver::decode(&request.body).unwrap();
        assert_eq!(receiver.account.expose(), "738491620583714");
    }

    #[test]
    fn what_no_file_can_hold_is_refused_with_the_reason() {
        let debit = debit();
        let refused = |total| Nacha.charge(&charge(&debit, total)).err().map(|cannot| cannot.0);
        assert_eq!(refused(Money::usd(9_999_999_999)), None);
        assert!(refused(Money::usd(10_000_000_000)).unwrap().contains("$99,999,999.99"));
        assert!(refused(Money::usd(0)).is_some());
        assert!(refused(Money::new(5, Currency::JPY)).unwrap().contains("US dollars"));
    }

    #[test]
    fn only_a_definitive_answer_is_definitive() {
        let debit = debit();
        let sale = charge(&debit, Money::usd(1));
        let verdict = |exchange| Nacha.verdict(&sale, &exchange);
        assert!(
            matches!(verdict(answer(201, "482915031")), Verdict::Approved(a) if a.gateway_reference == "482915031")
        );
        assert_eq!(verdict(answer(403, "blocked")), Verdict::DeclinedHard);
        assert!(matches!(verdict(answer(409, "settled")), Verdict::NotSent(_)));
        for lost in [answer(201, ""), answer(500, ""), Exchange::NoAnswer("disk".into())] {
            assert!(matches!(verdict(lost), Verdict::Unknown(_)));
        }
        let lookup = Lookup {
            purpose: Purpose::Sale,
            reference: "r",
            total: Money::usd(1),
            method: Paid::Bank,
            started_ms: 0,
            at_ms: 0,
            step: String::new(),
        };
        assert_eq!(Nacha.found(&lookup, &answer(404, "")), Found::Absent);
        for lost in [answer(410, "x"), answer(200, ""), answer(500, "x")] {
            assert_eq!(Nacha.found(&lookup, &lost), Found::NotYet);
        }
        let modification = |act| Modification {
            act,
            reference: "c",
            original: "482915031",
            purpose: Purpose::Sale,
            amount: Money::usd(1),
            method: Paid::Bank,
            last4: Last4::parse("3714").unwrap(),
            at_ms: 0,
        };
        assert!(Nacha.modify(&modification(Act::Refund)).err().unwrap().0.contains("reverse"));
        let void = modification(Act::Void);
        assert_eq!(Nacha.modified(&void, &answer(200, "a")), Modified::Done("a".into()));
        assert_eq!(Nacha.modified(&void, &answer(409, "b")), Modified::Refused("b".into()));
    }
}
