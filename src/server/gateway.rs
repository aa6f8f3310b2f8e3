//! The configured gateway, opened: its dialect, the HTTPS client that trusts it, its secrets read.

use std::sync::Arc;

use toml::{Table, Value};

use super::bank;
use super::bogus::BogusHost;
use super::http_client::HttpClient;
use crate::config::Config;
use crate::gateway::bogus::Simulator;
use crate::gateway::{self, Gateway};

pub struct Opened {
    pub gateway: Arc<dyn Gateway>,
    pub http: HttpClient,
    /// The simulator inside this process, when no gateway is configured.
    pub simulator: Option<BogusHost>,
}

/// Opens the gateway of the configuration. Errors say which key is wrong.
pub async fn open(config: &Config) -> Result<Opened, String> {
    match configured(config)? {
        Some((gateway, http)) => Ok(Opened { gateway, http, simulator: None }),
        None => simulated().await,
    }
}

/// What is wrong with the gateway's settings and the files they name.
pub fn check(config: &Config) -> Result<(), String> {
    match configured(config)? {
        Some((gateway, _)) => bank::gateway(config, &*gateway),
        None => Ok(()),
    }
}

type Configured = (Arc<dyn Gateway>, HttpClient);

fn configured(config: &Config) -> Result<Option<Configured>, String> {
    let settings = &config.gateway;
    let Some(table) = &settings.settings else { return Ok(None) };
    let table = with_secrets(table, gateway::secrets(&settings.name))?;
    let gateway = gateway::open(&settings.name, table)
        .map_err(|error| format!("[gateway.settings]: {error}"))?;
    let mut roots = Vec::new();
    if let Some(file) = &settings.ca_file {
        let pem = std::fs::read(file)
            .map_err(|error| format!("[gateway] ca_file {}: {error}", file.display()))?;
        roots.push(pem);
    }
    let http = HttpClient::new(&roots).map_err(|error| format!("[gateway] ca_file: {error}"))?;
    Ok(Some((gateway, http)))
}

/// The in-tree simulator, over real HTTPS with a certificate of its own.
async fn simulated() -> Result<Opened, String> {
    const KEY: &str = "sk_bogus_demo";
    let host = BogusHost::start(Simulator::new(KEY, rand::random()))
        .await
        .map_err(|error| format!("the simulated gateway cannot start: {error}"))?;
    let mut table = Table::new();
    table.insert("base_url".into(), Value::String(host.base_url()));
    table.insert("api_key".into(), Value::String(KEY.into()));
    let gateway = gateway::open("bogus", table).map_err(|error| error.to_string())?;
    let http =
        HttpClient::new(&[host.certificate_pem.clone().into_bytes()]).map_err(|e| e.to_string())?;
    Ok(Opened { gateway, http, simulator: Some(host) })
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
