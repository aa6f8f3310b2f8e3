//! The configured gateways, opened: dialects, HTTPS clients that trust them, secrets read.

use std::sync::Arc;
use std::time::Duration;

use toml::{Table, Value};

use super::ach::{Account, Desk};
use super::bank;
use super::bogus::BogusHost;
use super::fees;
use super::http_client::{Connections, HttpClient};
use super::store::Store;
use crate::config::{self, Config};
use crate::gateway::bogus::Simulator;
use crate::gateway::route::{Patience, Takes};
use crate::gateway::{self, Exchange, Gateway, KEEP_CARDS, Request, Route, Routes, nacha};

/// The gateways of the configuration, in its order.
pub struct Gateways {
    pub routes: Arc<Routes>,
    /// One for each route.
    clients: Vec<Client>,
}

/// How a gateway is reached.
pub enum Client {
    Https(HttpClient),
    /// In this process: debits go to the bank in files. Without a ledger nothing is debited.
    Files(Option<Box<Desk>>),
}

impl Client {
    pub async fn send(&self, request: Request, limit: Duration) -> Exchange {
        match self {
            Client::Https(client) => client.send(request, limit).await,
            Client::Files(None) => Exchange::NotSent("no ledger is open".into()),
            Client::Files(Some(desk)) => {
                let answered = tokio::time::timeout(limit, desk.answer(request)).await;
                answered.unwrap_or_else(|_| Exchange::NoAnswer("the ledger is busy".into()))
            }
        }
    }
}

impl Gateways {
    /// One gateway, reached by this client.
    pub fn one(gateway: Arc<dyn Gateway>, client: HttpClient) -> Gateways {
        Gateways { routes: Arc::new(Routes::one(gateway)), clients: vec![Client::Https(client)] }
    }

    /// Sends to the gateway of this id.
    pub async fn send(&self, id: &str, request: Request, limit: Duration) -> Exchange {
        match self.client(id) {
            Some(client) => client.send(request, limit).await,
            None => Exchange::NotSent(format!("no gateway `{id}` is configured")),
        }
    }

    /// `None`: no such gateway.
    pub fn client(&self, id: &str) -> Option<&Client> {
        let index = self.routes.all().iter().position(|route| &*route.id == id)?;
        self.clients.get(index)
    }
}

pub struct Opened {
    pub gateways: Gateways,
    /// The simulator inside this process, when no gateway is configured.
    pub simulator: Option<BogusHost>,
}

/// Opens the gateways of the configuration. Errors say which key is wrong.
pub async fn open(config: &Config, store: Option<&Store>) -> Result<Opened, String> {
    let mut simulator = None;
    let (mut routes, mut clients) = (Vec::new(), Vec::new());
    for settings in &config.gateways {
        let (gateway, client) = if settings.is_simulated() {
            let (host, gateway, client) = simulated().await?;
            simulator = Some(host);
            (gateway, Client::Https(client))
        } else {
            configured(settings, store)?
        };
        routes.push(route(config, settings, gateway)?);
        clients.push(client);
    }
    let routes = Arc::new(Routes::new(routes));
    Ok(Opened { gateways: Gateways { routes, clients }, simulator })
}

/// The gateway that charged what the ledger has under this id, to undo it or to ask about it.
pub fn of_payment(config: &Config, id: &str, store: &Store) -> Result<Configured, String> {
    match config.gateways.iter().find(|settings| settings.id() == id) {
        Some(settings) if settings.is_simulated() => {
            Err("the simulated gateway lives inside the server and forgets: configure \
                 [gateway.settings]"
                .into())
        }
        Some(settings) => configured(settings, Some(store)),
        None => Err(format!("it was charged by `{id}`, which is not configured: add that one")),
    }
}

/// What is wrong with the gateways' settings and the files they name.
pub fn check(config: &Config) -> Vec<String> {
    let real = config.gateways.iter().filter(|settings| !settings.is_simulated());
    let opened = real.map(|settings| {
        configured(settings, None).and_then(|(gateway, _)| route(config, settings, gateway))
    });
    let opened: Vec<Result<Route, String>> = opened.collect();
    let wrong = |route: &Result<Route, String>| route.as_ref().err().cloned();
    let mut problems: Vec<String> = opened.iter().filter_map(wrong).collect();
    let simulated = config.gateways.iter().filter(|settings| settings.is_simulated());
    let takes_bank = opened.iter().flatten().any(|route| route.takes.bank)
        || simulated.into_iter().any(|settings| settings.bank != Some(false));
    if problems.is_empty() {
        problems.extend(bank::gateways(config, takes_bank).err());
        problems.extend(keepers(config).err());
    }
    problems
}

pub type Configured = (Arc<dyn Gateway>, Client);

fn configured(settings: &config::Gateway, store: Option<&Store>) -> Result<Configured, String> {
    if settings.name == nacha::NAME {
        let account = Account::open(settings)?;
        let desk = store.map(|store| Box::new(Desk::new(account, store.clone())));
        return Ok((Arc::new(nacha::Nacha), Client::Files(desk)));
    }
    let none = Table::new();
    let table = settings.settings.as_ref().unwrap_or(&none);
    let of = |error: &dyn std::fmt::Display| format!("gateway `{}`: {error}", settings.id());
    let table = with_secrets(table, gateway::secrets(&settings.name)).map_err(|why| of(&why))?;
    let gateway = gateway::open(&settings.name, table)
        .map_err(|error| of(&format!("[gateway.settings]: {error}")))?;
    let mut roots = Vec::new();
    if let Some(file) = &settings.ca_file {
        let pem = std::fs::read(file)
            .map_err(|error| of(&format!("ca_file {}: {error}", file.display())))?;
        roots.push(pem);
    }
    let http = HttpClient::new(&roots, Connections::to(&*gateway))
        .map_err(|error| of(&format!("ca_file: {error}")))?;
    Ok((gateway, Client::Https(http)))
}

/// What goes to this gateway, and for how long it is waited for.
fn route(
    config: &Config,
    settings: &config::Gateway,
    gateway: Arc<dyn Gateway>,
) -> Result<Route, String> {
    let able = Takes::all(&*gateway);
    if settings.bank == Some(true) && !able.bank {
        return Err(format!(
            "gateway `{}`: `{}` debits no bank accounts; leave `bank` out",
            settings.id(),
            settings.name
        ));
    }
    let save = keeps(config, settings, &*gateway)?;
    fees::charged_at(config, settings, &*gateway)?;
    let limit_ms = settings.limit_ms.unwrap_or(config.payment.gateway_limit_ms);
    let patience = Patience {
        failures_max: settings.failures_max,
        rest: Duration::from_secs(settings.rest_s),
    };
    let takes = Takes {
        cards: match settings.name == nacha::NAME {
            true => Vec::new(),
            false => settings.cards.clone().unwrap_or(able.cards),
        },
        bank: settings.bank.unwrap_or(able.bank),
        save,
    };
    // No bill goes to the gateway of the fees.
    let takes = match config.is_fee_gateway(settings) {
        true => Takes { cards: Vec::new(), bank: false, save: false },
        false => takes,
    };
    let mut route = Route::new(settings.id(), gateway).patience(patience);
    route.takes = takes;
    route.limit = Duration::from_millis(limit_ms);
    Ok(route)
}

/// Whether cards are kept there; an error if they are to be and cannot.
fn keeps(
    config: &Config,
    settings: &config::Gateway,
    gateway: &dyn Gateway,
) -> Result<bool, String> {
    let Some(saved) = config.payment.saved.as_ref().filter(|_| settings.save != Some(false)) else {
        return Ok(false);
    };
    let able = gateway.capabilities();
    let why = match saved.cvv {
        _ if !able.tokens => "keeps no cards",
        true if !able.token_cvv => "takes no security code ([payment.saved] cvv) with one it keeps",
        _ => return Ok(true),
    };
    Err(format!(
        "gateway `{}`: [payment.saved] is set, and `{}` {why}; write save = false to it, and cards \
         that are to be kept are charged elsewhere: {KEEP_CARDS}",
        settings.id(),
        settings.name
    ))
}

/// With `[payment.saved]` somebody must keep cards.
pub fn keepers(config: &Config) -> Result<(), String> {
    let anybody = config.gateways.iter().any(|settings| settings.save != Some(false));
    match config.payment.saved.is_none() || anybody {
        true => Ok(()),
        false => {
            Err("[payment.saved] is set, and every gateway has save = false: leave one of them \
                      out"
            .into())
        }
    }
}

/// The in-tree simulator, over real HTTPS with a certificate of its own.
async fn simulated() -> Result<(BogusHost, Arc<dyn Gateway>, HttpClient), String> {
    const KEY: &str = "sk_bogus_demo";
    let host = BogusHost::start(Simulator::new(KEY, rand::random()))
        .await
        .map_err(|error| format!("the simulated gateway cannot start: {error}"))?;
    let mut table = Table::new();
    table.insert("base_url".into(), Value::String(host.base_url()));
    table.insert("api_key".into(), Value::String(KEY.into()));
    let gateway = gateway::open("bogus", table).map_err(|error| error.to_string())?;
    let roots = [host.certificate_pem.clone().into_bytes()];
    let http = HttpClient::new(&roots, Connections::to(&*gateway)).map_err(|e| e.to_string())?;
    Ok((host, gateway, http))
}

/// `{ file = "..." }` and `{ env = "..." }` replaced by what they point at: the keys of `secrets`
/// may stand there in no other way.
fn with_secrets(table: &Table, secrets: &[&str]) -> Result<Table, String> {
    let mut resolved = Table::new();
    for (key, value) in table {
        let value = match value {
            Value::String(_) if secrets.contains(&key.as_str()) => {
                return Err(format!(
                    "[gateway.settings] {key}: write {{ file = \"...\" }} or {{ env = \"...\" }}: \
                     secrets stay out of the configuration"
                ));
            }
            Value::Table(pointer) if pointer.len() == 1 => pointed_at(key, pointer)?,
            other => other.clone(),
        };
        resolved.insert(key.clone(), value);
    }
    Ok(resolved)
}

fn pointed_at(key: &str, pointer: &Table) -> Result<Value, String> {
    let at = |kind: &str| pointer.get(kind).and_then(Value::as_str);
    let text = match (at("file"), at("env")) {
        (Some(file), _) => std::fs::read_to_string(file)
            .map_err(|error| format!("[gateway.settings] {key}: {file}: {error}"))?,
        (_, Some(name)) => std::env::var(name)
            .map_err(|_| format!("[gateway.settings] {key}: ${name} is not set"))?,
        _ => return Ok(Value::Table(pointer.clone())),
    };
    Ok(Value::String(text.trim_end_matches(['\r', '\n']).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let profile = |name: &str| super::super::configuration::trunk_profile(name, "".as_ref());
        check(&Config::parse(text, &profile).unwrap_or_else(|problems| panic!("{problems:?}")))
    }

    #[test]
    fn gateways_that_keep_no_cards_are_refused_where_cards_are_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sk_test_1").unwrap();
        let key = file.path().display();
        let stripe = format!(
            "[gateway.settings]\nenvironment = \"sandbox\"\nsecret_key = {{ file = \"{key}\" }}\n"
        );
        let bridge = "[gateway.settings]\nurl = \"https://b.example\"\ndialect = \"twilio\"\n";
        let with = |saved: &str, name: &str, save: &str, settings: &str| {
            problems(&format!("{saved}[gateway]\nname = \"{name}\"\n{save}{settings}"))
        };
        let saved = "[payment.saved]\n";
        let code = "[payment.saved]\ncvv = true\n";
        let nothing: Vec<String> = Vec::new();
        assert_eq!(with("", "generic", "", bridge), nothing);
        assert_eq!(with(saved, "generic", "", &format!("{bridge}tokens = true\n")), nothing);
        assert_eq!(with(saved, "stripe", "", &stripe), nothing);
        assert_eq!(problems(code), nothing);
        let why = with(saved, "generic", "", bridge).join("\n");
        assert!(why.contains("`generic` keeps no cards; write save = false"), "{why}");
        let why = with(code, "stripe", "", &stripe).join("\n");
        assert!(why.contains("`stripe` takes no security code"), "{why}");
        let why = with(saved, "generic", "save = false\n", bridge).join("\n");
        assert!(why.contains("every gateway has save = false"), "{why}");
    }

    #[test]
    fn secrets_are_read_from_where_they_are_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sk_live_1\n").unwrap();
        let path = file.path().display();
        let table: Table =
            format!("api_key = {{ file = \"{path}\" }}\nurl = \"x\"").parse().unwrap();
        let resolved = with_secrets(&table, &["api_key"]).unwrap();
        assert_eq!(resolved["api_key"].as_str(), Some("sk_live_1"));
        assert_eq!(resolved["url"].as_str(), Some("x"));
        let missing: Table = "api_key = { env = \"RINGTILL_NO_SUCH\" }".parse().unwrap();
        let why = with_secrets(&missing, &["api_key"]).unwrap_err();
        assert!(why.contains("$RINGTILL_NO_SUCH is not set"), "{why}");
        let plain: Table = "api_key = \"sk_live_1\"".parse().unwrap();
        let why = with_secrets(&plain, &["api_key"]).unwrap_err();
        assert!(why.contains("api_key: write { file") && !why.contains("sk_live_1"), "{why}");
    }
}
