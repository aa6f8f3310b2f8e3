//! Card and bank processors as pure request and response: no sockets here. One file each.

use std::fmt;
use std::sync::Arc;

use serde::Deserializer;
use serde::de::DeserializeOwned;

use crate::instrument::Token;

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

        /// Keys of its settings that may only point to a secret.
        pub fn secrets(name: &str) -> &'static [&'static str] {
            match name {
                $($name => <$dialect as Dialect>::SECRETS,)+
                _ => &[],
            }
        }

        /// What its settings choose between: a name each, and the line of settings.
        pub fn variants(name: &str) -> &'static [(&'static str, &'static str)] {
            match name {
                $($name => <$dialect as Dialect>::VARIANTS,)+
                _ => &[],
            }
        }

        /// Its processor, simulated.
        pub fn simulator(name: &str, seed: u64) -> Option<Simulator> {
            match name {
                $($name => Some(<$dialect as Dialect>::simulator(seed)),)+
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

pub mod request; // what a gateway is asked, and what came of asking
pub mod verdict; // what its answer means
pub mod search; // one lookup, over as many requests as it takes
pub mod route; // which gateway a charge goes to
pub mod masked; // what may be logged of a request
pub mod settings; // where a gateway is, and secrets that are real ones
pub mod body; // JSON, forms and XML, written in order into memory that is zeroed
pub mod reply; // JSON and XML, read within limits
pub mod simulator; // what simulated processors have in common
pub mod bogus; // the in-tree gateway and its stateful simulator
pub mod generic; // the Generic Pay Connector: bridges of Twilio, SignalWire, Telnyx, Hyperswitch
pub mod authorize_net; // Authorize.Net
pub mod nmi; // NMI and what is sold on its platform
pub mod stripe; // Stripe
pub mod adyen; // Adyen
pub mod worldpay_cnp; // Worldpay's cnpAPI, once Vantiv and Litle
pub mod cybersource; // CyberSource, Visa's own
pub mod nacha; // no processor: files to the operator's own bank

pub use request::{
    Act, Cannot, Capabilities, Charge, Exchange, First, Initiator, Lookup, Modification, Operation,
    Purpose, Repeat, Request, Series, Silence,
};
pub use route::{Route, Routes};
pub use search::Search;
pub use simulator::Simulator;
pub use verdict::{Approval, Fixable, Found, Modified, Verdict};

gateways! {
    "bogus" => bogus::Bogus,
    "generic" => generic::Generic,
    "authorize_net" => authorize_net::AuthorizeNet,
    "nmi" => nmi::Nmi,
    "stripe" => stripe::Stripe,
    "adyen" => adyen::Adyen,
    "worldpay_cnp" => worldpay_cnp::WorldpayCnp,
    "cybersource" => cybersource::CyberSource,
}

/// One processor's dialect: a request for each thing asked, and a reading of each answer. The
/// reading is given what was asked. A gateway that cannot do what is asked says so instead of
/// making a request.
pub trait Gateway: Send + Sync {
    fn name(&self) -> &'static str;
    fn capabilities(&self) -> Capabilities;
    /// Whether, as it is set, it pays the fee of a charge out apart from the rest.
    fn splits_fees(&self) -> bool {
        false
    }
    /// Verifies, sells or authorises.
    fn charge(&self, charge: &Charge<'_>) -> Result<Request, Cannot>;
    fn verdict(&self, charge: &Charge<'_>, exchange: &Exchange) -> Verdict;
    /// What must be sent after an approved charge that saves, before its token can be charged.
    fn keep(&self, _: &Charge<'_>, _: &Approval) -> Option<Request> {
        None
    }
    /// The token, once that is answered; `None`: nothing is kept.
    fn kept(&self, _: &Approval, _: &Exchange) -> Option<Token> {
        None
    }
    /// Captures, voids or refunds.
    fn modify(&self, modification: &Modification<'_>) -> Result<Request, Cannot>;
    fn modified(&self, modification: &Modification<'_>, exchange: &Exchange) -> Modified;
    /// Asks what became of a charge by our reference; see [`Search`].
    fn lookup(&self, lookup: &Lookup<'_>) -> Result<Request, Cannot>;
    fn found(&self, lookup: &Lookup<'_>, exchange: &Exchange) -> Found;
}

/// Gateways that keep cards, for people.
pub const KEEP_CARDS: &str = "bogus, generic (tokens = true), authorize_net, nmi, stripe, adyen, \
                              worldpay_cnp, cybersource";

/// Gateways that can split the fee off a charge, for people.
pub const SPLIT_FEES: &str = "bogus, stripe (destination), adyen (split_account), worldpay_cnp, \
                              cybersource (service_fee)";

/// Gateways that are told which part of a charge is a surcharge, for people.
pub const SURCHARGES: &str = "bogus, authorize_net, nmi, worldpay_cnp, cybersource (surcharge)";

/// Gateways that debit bank accounts, for people.
pub const DEBIT_BANKS: &str = "bogus, generic (dialects twilio and telnyx), authorize_net, nmi, \
                               worldpay_cnp, cybersource, nacha (files to your own bank)";

/// A gateway that can be named in the configuration.
pub trait Dialect: Gateway + Sized + 'static {
    /// Its table in the configuration, with `deny_unknown_fields`.
    type Settings: DeserializeOwned;
    /// Keys that may only point to a secret: `{ file = "..." }` or `{ env = "..." }`.
    const SECRETS: &'static [&'static str];
    /// Settings as an operator would write them, in TOML.
    const EXAMPLE: &'static str;
    /// Names of what the settings choose between, and the settings that choose it.
    const VARIANTS: &'static [(&'static str, &'static str)] = &[("", "")];
    /// Refuses settings that cannot work, saying what to write instead.
    fn open(settings: Self::Settings) -> Result<Self, String>;
    /// The processor itself, simulated: whatever credentials have [`simulator::SECRET`] in them
    /// and are otherwise those of the example are right.
    fn simulator(seed: u64) -> Simulator;
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
    use crate::instrument::{Card, Cvv, Expiry, Instrument, Method, Pan};
    use crate::money::Money;

    /// 2026-06-01T00:00:00Z
    const NOW: i64 = 1_780_272_000_000;

    /// The example's settings with its secrets put in.
    fn settings(name: &str) -> toml::Table {
        let mut settings: toml::Table = example(name).unwrap().parse().unwrap();
        for key in secrets(name) {
            if let Some(value) = settings.get_mut(*key) {
                *value = toml::Value::String(simulator::SECRET.into());
            }
        }
        settings
    }

    fn every_gateway() -> Vec<Arc<dyn Gateway>> {
        NAMES.iter().map(|name| open(name, settings(name)).unwrap()).collect()
    }

    fn card() -> Card {
        let pan = Pan::parse("4111111111111111").unwrap();
        let cvv = Cvv::parse("987", pan.brand());
        let expiry = Expiry::parse("0930", jiff::civil::date(2026, 6, 1)).unwrap();
        Card { pan, expiry, cvv, zip: Some("46201".to_string().into()) }
    }

    fn sale(card: &Card) -> Charge<'_> {
        Charge {
            purpose: Purpose::Sale,
            reference: "ref 1/ü",
            total: Money::usd(20_200),
            fee: Money::usd(200),
            surcharge: false,
            instrument: Instrument::Card(card),
            account_id: "A\"1",
            save: false,
            initiator: Initiator::Customer,
            at_ms: NOW,
        }
    }

    fn look_up(reference: &str) -> Lookup<'_> {
        let total = Money::usd(20_200);
        let (purpose, method, step) = (Purpose::Sale, Method::Card, String::new());
        Lookup { purpose, reference, total, method, started_ms: NOW, at_ms: NOW, step }
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
    fn those_that_debit_accounts_are_named() {
        let listed: Vec<&str> = DEBIT_BANKS.split(", ").collect();
        assert!(listed.last().is_some_and(|last| last.starts_with(nacha::NAME)));
        for (name, gateway) in NAMES.iter().zip(every_gateway()) {
            let named = listed.iter().any(|one| one.split(' ').next() == Some(name));
            let some_dialect = gateway.capabilities().bank || *name == "generic";
            assert_eq!(named, some_dialect, "{name}");
        }
    }

    #[test]
    fn those_that_keep_cards_are_named() {
        let listed: Vec<&str> = KEEP_CARDS.split(", ").collect();
        for (name, gateway) in NAMES.iter().zip(every_gateway()) {
            let named = listed.iter().any(|one| one.split(' ').next() == Some(name));
            let able = gateway.capabilities();
            assert_eq!(named, able.tokens, "{name}");
            assert!(!able.verify_keeps || (able.tokens && able.can(Operation::Verify)), "{name}");
        }
    }

    #[test]
    fn those_that_split_fees_are_named() {
        let listed: Vec<&str> = SPLIT_FEES.split(", ").collect();
        for (name, gateway) in NAMES.iter().zip(every_gateway()) {
            let named = listed.iter().find(|one| one.split(' ').next() == Some(name));
            let whatever_is_set = named.is_some_and(|one| !one.contains(' '));
            assert_eq!(gateway.splits_fees(), whatever_is_set, "{name}");
        }
    }

    #[test]
    fn those_that_are_told_of_surcharges_are_named() {
        let listed: Vec<&str> = SURCHARGES.split(", ").collect();
        for (name, gateway) in NAMES.iter().zip(every_gateway()) {
            // One that must be set to it has that behind its name.
            assert_eq!(gateway.capabilities().surcharge, listed.contains(name), "{name}");
        }
    }

    #[test]
    fn unknown_settings_are_refused() {
        for name in NAMES {
            let mut settings = settings(name);
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
            let name = gateway.name();
            let request = gateway.charge(&sale(&card)).unwrap();
            let head = format!("{:?}", request.head);
            assert!(!head.contains("4111111111111111"), "{name}");
            assert_eq!(request.head.uri.scheme_str(), Some("https"), "{name}");
            let body = String::from_utf8_lossy(&request.body);
            assert!(body.contains("4111111111111111") && body.contains("987"));
            let printed = format!("{request:?}");
            assert!(!printed.contains("4111") && !printed.contains("987"), "{name}: {printed}");
            if let Ok(lookup) = gateway.lookup(&look_up("ref 1")) {
                assert_eq!(lookup.head.uri.scheme_str(), Some("https"), "{name}");
            }
        }
    }

    #[test]
    fn only_a_definitive_answer_is_definitive() {
        let card = card();
        let (sale, lookup) = (sale(&card), look_up("r"));
        for gateway in every_gateway() {
            let name = gateway.name();
            let lost = Exchange::NoAnswer("reset".into());
            assert!(matches!(gateway.verdict(&sale, &lost), Verdict::Unknown(_)), "{name}");
            assert_eq!(gateway.found(&lookup, &lost), Found::NotYet, "{name}");
            let unsent = Exchange::NotSent("refused".into());
            assert!(matches!(gateway.verdict(&sale, &unsent), Verdict::NotSent(_)), "{name}");
            assert_eq!(gateway.found(&lookup, &unsent), Found::NotYet, "{name}");
            for status in [200, 201, 202, 204, 301, 302, 500, 502, 503, 504] {
                for body in [&b""[..], b"{", b"<html>", b"null", b"[]", b"{}", b"\xff\xfe"] {
                    let exchange = response(status, body);
                    let verdict = gateway.verdict(&sale, &exchange);
                    let text = String::from_utf8_lossy(body);
                    let unknown = matches!(verdict, Verdict::Unknown(_));
                    assert!(unknown, "{name}: {status} {text:?} gives {verdict:?}");
                    let found = gateway.found(&lookup, &exchange);
                    assert_eq!(found, Found::NotYet, "{name}: {status} {text:?}");
                }
            }
        }
    }

    #[test]
    fn our_own_mistakes_are_not_the_callers() {
        let card = card();
        for gateway in every_gateway() {
            for status in [401, 403] {
                let verdict = gateway.verdict(&sale(&card), &response(status, b"{}"));
                assert!(matches!(verdict, Verdict::Config(_)), "{}: {verdict:?}", gateway.name());
            }
        }
    }
}
