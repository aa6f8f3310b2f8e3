//! Gateways as the simulators expect them, and what is charged.

use std::sync::Arc;

use ringtill::gateway::simulator::{SECRET, Trigger};
use ringtill::gateway::{
    self, Act, Approval, Charge, Exchange, Found, Gateway, Initiator, Lookup, Modification,
    Modified, Purpose, Search, Simulator, Verdict,
};
use ringtill::instrument::{
    AccountKind, BankAccount, Card, Cvv, Debit, Expiry, HolderKind, Instrument, Last4, Method, Pan,
    RoutingNumber, Saved, Token,
};
use ringtill::money::Money;

/// 2026-06-01T00:00:00Z
pub const NOW: i64 = 1_780_272_000_000;
pub const REFERENCE: &str = "0197284f-2c00-7a41-8d53-6f0f2f6f3f01";

/// The example's settings with `line` on top, secrets put in, reaching `base` if there is one.
pub fn open(name: &str, line: &str, base: Option<&str>, secret: &str) -> Arc<dyn Gateway> {
    let mut table: toml::Table = gateway::example(name).unwrap().parse().unwrap();
    table.extend(line.parse::<toml::Table>().unwrap());
    for (key, value) in &mut table {
        let pointer = value
            .as_table()
            .is_some_and(|t| t.len() == 1 && (t.contains_key("file") || t.contains_key("env")));
        assert_eq!(
            pointer,
            gateway::secrets(name).contains(&key.as_str()),
            "{name}: {key} must be pointed to in the example if, and only if, it is a secret"
        );
        if pointer {
            *value = toml::Value::String(secret.into());
        }
    }
    if let Some(base) = base {
        let key = if table.contains_key("url") { "url" } else { "base_url" };
        table.insert(key.into(), toml::Value::String(base.into()));
    }
    gateway::open(name, table).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn opened(name: &str, line: &str) -> Arc<dyn Gateway> {
    open(name, line, None, SECRET)
}

/// Something to charge.
pub enum Paid {
    Card(Card),
    Bank(Debit),
    Token(Saved),
}

impl Paid {
    pub fn instrument(&self) -> Instrument<'_> {
        match self {
            Paid::Card(card) => Instrument::Card(card),
            Paid::Bank(debit) => Instrument::Bank(debit),
            Paid::Token(saved) => Instrument::Token(saved),
        }
    }

    pub fn last4(&self) -> Last4 {
        match self {
            Paid::Card(card) => card.pan.last4(),
            Paid::Bank(debit) => debit.account.last4(),
            Paid::Token(_) => Last4::parse("1111").unwrap(),
        }
    }
}

pub fn card(number: &str, cvv: Option<&str>, zip: Option<&str>) -> Paid {
    let pan = Pan::parse(number).unwrap();
    let cvv = cvv.map(|cvv| Cvv::parse(cvv, pan.brand()).unwrap());
    Paid::Card(Card { pan, expiry: expiry(), cvv, zip: zip.map(|zip| zip.to_string().into()) })
}

pub fn account(number: &str, kind: AccountKind, holder_kind: HolderKind) -> Paid {
    let routing = RoutingNumber::parse("021000021").unwrap();
    let account = BankAccount::parse(routing, number, kind).unwrap();
    let holder = "Jane Müller & Sons".to_string().into();
    Paid::Bank(Debit { account, holder, holder_kind })
}

pub fn expiry() -> Expiry {
    Expiry::parse("0930", jiff::civil::date(2026, 6, 1)).unwrap()
}

pub fn token(text: &str, method: Method) -> Paid {
    let expiry = (method == Method::Card).then(expiry);
    Paid::Token(Saved { token: Token::parse(text).unwrap(), method, expiry, cvv: None })
}

pub fn visa() -> Paid {
    card("4111111111111111", Some("987"), Some("46201"))
}

pub fn checking() -> Paid {
    account("000123456789", AccountKind::Checking, HolderKind::Personal)
}

pub fn charge<'a>(purpose: Purpose, reference: &'a str, paid: &'a Paid) -> Charge<'a> {
    let verify = purpose == Purpose::Verify;
    Charge {
        purpose,
        reference,
        total: Money::usd(if verify { 0 } else { 20_200 }),
        fee: Money::usd(if verify { 0 } else { 200 }),
        surcharge: false,
        instrument: paid.instrument(),
        account_id: "44-71 \"B\"",
        save: false,
        initiator: Initiator::Customer,
        at_ms: NOW,
    }
}

pub fn modification<'a>(act: Act, original: &'a str, minor: i64, paid: &Paid) -> Modification<'a> {
    Modification {
        act,
        reference: "0197284f-2c00-7a41-8d53-6f0f2f6f3f02",
        original,
        purpose: if act == Act::Capture { Purpose::Authorize } else { Purpose::Sale },
        amount: Money::usd(minor),
        method: paid.instrument().method(),
        last4: paid.last4(),
        at_ms: NOW,
    }
}

pub fn lookup(purpose: Purpose, reference: &str, method: Method) -> Lookup<'_> {
    let total = Money::usd(if purpose == Purpose::Verify { 0 } else { 20_200 });
    Lookup { purpose, reference, total, method, started_ms: NOW, at_ms: NOW, step: String::new() }
}

/// What a simulator is to be asked so that a case comes up.
pub struct Asked {
    pub paid: Paid,
    pub total: Money,
}

pub fn asked(trigger: Trigger) -> Asked {
    let number = trigger.number;
    let paid = match trigger.bank {
        true => {
            account(number.unwrap_or("000123456789"), AccountKind::Checking, HolderKind::Personal)
        }
        false => card(
            number.unwrap_or("4111111111111111"),
            Some(trigger.cvv.unwrap_or("987")),
            Some(trigger.zip.unwrap_or("46201")),
        ),
    };
    Asked { paid, total: Money::usd(trigger.minor.unwrap_or(20_200)) }
}

/// A gateway and its processor, without a network between them.
pub struct Pair {
    pub gateway: Arc<dyn Gateway>,
    pub simulator: Simulator,
    pub now_ms: i64,
}

impl Pair {
    pub fn new(name: &str, line: &str) -> Pair {
        let (gateway, simulator) = (
            open(name, line, Some("https://gateway.example"), SECRET),
            gateway::simulator(name, 1),
        );
        Pair { gateway, simulator: simulator.unwrap(), now_ms: NOW }
    }

    pub fn exchange(&mut self, request: gateway::Request) -> Exchange {
        self.simulator.exchange(self.now_ms, request)
    }

    pub fn charge(&mut self, charge: &Charge<'_>) -> Verdict {
        let charge = Charge { at_ms: self.now_ms, ..*charge };
        match self.gateway.charge(&charge) {
            Ok(request) => {
                let exchange = self.exchange(request);
                self.gateway.verdict(&charge, &exchange)
            }
            Err(cannot) => cannot.into(),
        }
    }

    /// The token of an approved charge that saves.
    pub fn keep(&mut self, charge: &Charge<'_>, approval: &Approval) -> Option<Token> {
        match self.gateway.keep(charge, approval) {
            Some(request) => {
                let exchange = self.exchange(request);
                self.gateway.kept(approval, &exchange)
            }
            None => approval.token.clone(),
        }
    }

    pub fn modify(&mut self, change: &Modification<'_>) -> Modified {
        let change = Modification { at_ms: self.now_ms, ..*change };
        match self.gateway.modify(&change) {
            Ok(request) => {
                let exchange = self.exchange(request);
                self.gateway.modified(&change, &exchange)
            }
            Err(cannot) => Modified::Config(cannot.0.into()),
        }
    }

    pub fn find(&mut self, lookup: Lookup<'_>) -> Found {
        let gateway = self.gateway.clone();
        let mut search = Search::new(&*gateway, Lookup { at_ms: self.now_ms, ..lookup });
        while let Some(request) = search.request() {
            search.answered(&self.exchange(request));
        }
        search.found()
    }

    /// Approved charges that still stand.
    pub fn standing(&self) -> usize {
        let entries = self.simulator.entries();
        entries.iter().filter(|entry| entry.is_approved() && !entry.voided).count()
    }
}

pub fn approved(verdict: &Verdict) -> Result<&Approval, String> {
    match verdict {
        Verdict::Approved(approval) => Ok(approval),
        other => Err(format!("{other:?} instead of an approval")),
    }
}

pub fn ensure(right: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if right { Ok(()) } else { Err(why()) }
}
