//! Card and bank processors as pure request and response: no sockets here. One file each.

use std::fmt;
use std::sync::Arc;

use serde::Deserializer;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::instrument::Card;
use crate::money::Money;

/// The list of gateways: its name in the configuration, and the type that speaks its dialect.
macro_rules! gateways {
    ($($name:literal => $dialect:ty,)+) => {
        /// Every gateway that can be configured.
        pub const NAMES: &[&str] = &[$($name),+];

        /// Settings of the gateway `name` as an operator would write them, in TOML.
        pub fn example(name: &str) -> Option<&'static str> {
            match name {
                $($name => Some(<$dialect as Dialect>::EXAMPLE),)+
                _ => None,
            }
        }

        /// The gateway `name` with the settings an operator gave it. Errors of the deserializer
        /// are passed on as they are, so that they keep their line and column.
        pub fn open<'de, D: Deserializer<'de>>(
            name: &str,
            settings: D,
        ) -> Result<Arc<dyn Gateway>, OpenError<D::Error>> {
            match name {
                $($name => Ok(Arc::new(dialect::<$dialect, D>(settings)?)),)+
                other => Err(OpenError::UnknownName(other.to_string())),
            }
        }
    };
}

pub mod bogus; // the in-tree gateway and its stateful simulator

gateways! {
    "bogus" => bogus::Bogus,
}

/// An HTTPS request whose body may hold card data: zeroed when dropped, never logged.
pub struct Request {
    pub head: http::request::Parts,
    pub body: Zeroizing<Vec<u8>>,
}

/// What became of a request, as the HTTP client reports it.
pub enum Exchange {
    Response(http::Response<Vec<u8>>),
    /// Not one byte of the request left us: safe to send again.
    NotSent(String),
    /// Bytes left and no whole answer came back.
    NoAnswer(String),
}

/// One sale. `reference` is ours, stable over every try and lookup, and the idempotency key.
pub struct Sale<'a> {
    pub reference: &'a str,
    /// What is charged, fee included.
    pub total: Money,
    /// How much of `total` is the convenience fee.
    pub fee: Money,
    pub card: &'a Card,
    pub account_id: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    pub gateway_reference: String,
    pub auth_code: String,
    pub avs: Option<String>,
    pub cvv: Option<String>,
}

/// A field the caller can correct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fixable {
    Number,
    Expiry,
    Cvv,
    Zip,
}

/// The outcome of a request that may have moved money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Approved(Approval),
    /// Never with this card again.
    DeclinedHard,
    /// Another card or a lower amount may work.
    DeclinedSoft,
    Fixable(Fixable),
    /// Held for review by a person.
    Held(String),
    /// Certainly not processed.
    NotSent(String),
    /// No definitive answer: look up, never resend.
    Unknown(String),
    /// Our set-up is wrong (credentials, currency): no caller can fix it.
    Config(String),
}

/// What a lookup by our reference found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Settled(Verdict),
    /// The gateway is sure it never processed this reference.
    Absent,
    /// Ask again later.
    NotYet,
}

impl Found {
    /// What this proves of the sale. A verdict on the lookup itself (not sent, wrong credentials)
    /// proves nothing, and neither does absence by itself: the sale may still be on its way.
    pub fn verdict(self) -> Option<Verdict> {
        match self {
            Found::Settled(Verdict::Unknown(_) | Verdict::Config(_) | Verdict::NotSent(_)) => None,
            Found::Settled(verdict) => Some(verdict),
            Found::Absent | Found::NotYet => None,
        }
    }
}

/// What became of a void or refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reversal {
    Done,
    /// The gateway will not, e.g. a void after settlement.
    Refused(String),
    /// Certainly not processed: safe to send again.
    NotSent(String),
    /// No definitive answer.
    Unknown(String),
}

/// One processor's dialect.
pub trait Gateway: Send + Sync {
    fn name(&self) -> &'static str;
    fn sale(&self, sale: &Sale<'_>) -> Request;
    fn verdict(&self, exchange: &Exchange) -> Verdict;
    /// Asks what became of `reference`.
    fn lookup(&self, reference: &str) -> Request;
    fn found(&self, exchange: &Exchange) -> Found;
    /// Undoes an approved sale that has not settled.
    fn void(&self, gateway_reference: &str) -> Request;
    /// Pays back part or all of a settled sale.
    fn refund(&self, gateway_reference: &str, amount: Money) -> Request;
    /// Reads the answer to `void` and `refund`.
    fn reversal(&self, exchange: &Exchange) -> Reversal;
}

/// A gateway that can be named in the configuration.
pub trait Dialect: Gateway + Sized + 'static {
    /// Its table in the configuration, with `deny_unknown_fields`.
    type Settings: DeserializeOwned;
    /// Settings as an operator would write them, in TOML.
    const EXAMPLE: &'static str;
    /// Refuses settings that cannot work, saying what to write instead.
    fn open(settings: Self::Settings) -> Result<Self, String>;
}

/// Why a gateway cannot be opened; the operator's configuration is at fault.
#[derive(Debug)]
pub enum OpenError<E> {
    UnknownName(String),
    /// A key is missing, unknown or of the wrong type.
    Settings(E),
    /// The keys are there, their values cannot work.
    Refused(String),
}

impl<E: fmt::Display> fmt::Display for OpenError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::UnknownName(name) => {
                write!(f, "no gateway is called `{name}`; write one of: {}", NAMES.join(", "))
            }
            OpenError::Settings(error) => error.fmt(f),
            OpenError::Refused(why) => f.write_str(why),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for OpenError<E> {}

fn dialect<'de, G: Dialect, D: Deserializer<'de>>(settings: D) -> Result<G, OpenError<D::Error>> {
    let settings = serde::Deserialize::deserialize(settings).map_err(OpenError::Settings)?;
    G::open(settings).map_err(OpenError::Refused)
}

/// What every gateway must do, whatever its dialect.
#[cfg(test)]
mod conformance {
    use super::*;
    use crate::instrument::{Cvv, Expiry, Pan};

    fn every_gateway() -> Vec<Arc<dyn Gateway>> {
        let open = |name: &&str| {
            let settings: toml::Table = example(name).unwrap().parse().unwrap();
            open(name, settings).unwrap()
        };
        NAMES.iter().map(open).collect()
    }

    fn card() -> Card {
        let pan = Pan::parse("4111111111111111").unwrap();
        let cvv = Cvv::parse("987", pan.brand());
        let expiry = Expiry::parse("0930", jiff::civil::date(2026, 6, 1)).unwrap();
        Card { pan, expiry, cvv, zip: Some("46201".to_string().into()) }
    }

    fn sale(card: &Card) -> Sale<'_> {
        let (total, fee) = (Money::usd(20_200), Money::usd(200));
        Sale { reference: "ref 1/ü", total, fee, card, account_id: "A\"1" }
    }

    fn response(status: u16, body: &[u8]) -> Exchange {
        Exchange::Response(http::Response::builder().status(status).body(body.to_vec()).unwrap())
    }

    #[test]
    fn names_are_those_of_the_list() {
        for (name, gateway) in NAMES.iter().zip(every_gateway()) {
            assert_eq!(&gateway.name(), name);
        }
        let table = toml::Table::new();
        let error = open("bogsu", table).err().unwrap().to_string();
        assert!(error.contains("write one of: bogus"), "{error}");
    }

    #[test]
    fn unknown_settings_are_refused() {
        for name in NAMES {
            let mut settings: toml::Table = example(name).unwrap().parse().unwrap();
            settings.insert("nonsense".into(), toml::Value::Boolean(true));
            let error = open(name, settings).err().unwrap();
            assert!(matches!(error, OpenError::Settings(_)), "{name}: {error}");
            assert!(error.to_string().contains("nonsense"), "{name}: {error}");
        }
    }

    #[test]
    fn card_data_travels_in_the_body_alone() {
        let card = card();
        for gateway in every_gateway() {
            let request = gateway.sale(&sale(&card));
            let head = format!("{:?}", request.head);
            assert!(!head.contains("4111111111111111"), "{}", gateway.name());
            assert_eq!(request.head.uri.scheme_str(), Some("https"), "{}", gateway.name());
            let body = String::from_utf8_lossy(&request.body);
            assert!(body.contains("4111111111111111") && body.contains("987"));
            for other in [
                gateway.lookup("ref 1"),
                gateway.void("sale 1"),
                gateway.refund("sale 1", Money::usd(100)),
            ] {
                assert_eq!(other.head.uri.scheme_str(), Some("https"), "{}", gateway.name());
            }
        }
    }

    #[test]
    fn only_a_definitive_answer_is_definitive() {
        for gateway in every_gateway() {
            let name = gateway.name();
            let lost = Exchange::NoAnswer("reset".into());
            assert!(matches!(gateway.verdict(&lost), Verdict::Unknown(_)), "{name}");
            assert_eq!(gateway.found(&lost), Found::NotYet, "{name}");
            let unsent = Exchange::NotSent("refused".into());
            assert!(matches!(gateway.verdict(&unsent), Verdict::NotSent(_)), "{name}");
            assert_eq!(gateway.found(&unsent), Found::NotYet, "{name}");
            for status in [200, 201, 202, 204, 301, 302, 500, 502, 503, 504] {
                for body in [&b""[..], b"{", b"<html>", b"null", b"[]", b"{}", b"\xff\xfe"] {
                    let exchange = response(status, body);
                    let verdict = gateway.verdict(&exchange);
                    let text = String::from_utf8_lossy(body);
                    let unknown = matches!(verdict, Verdict::Unknown(_));
                    assert!(unknown, "{name}: {status} {text:?} gives {verdict:?}");
                    assert_eq!(
                        gateway.found(&exchange),
                        Found::NotYet,
                        "{name}: {status} {text:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn our_own_mistakes_are_not_the_callers() {
        for gateway in every_gateway() {
            for status in [401, 403] {
                let verdict = gateway.verdict(&response(status, b"{}"));
                assert!(matches!(verdict, Verdict::Config(_)), "{}: {verdict:?}", gateway.name());
            }
        }
    }
}
