//! `ringtill gateway test` against the simulators, right and wrong.

use std::fs;
use std::path::Path;

use ringtill::config::Config;
use ringtill::gateway;
use ringtill::gateway::simulator::SECRET;
use ringtill::server::verify;

use super::host::{Host, Wire};

/// The example's settings as a file would have them, reaching `base`, the secret in a file.
fn config(name: &str, base: &str, ca: &Path, secret: &Path) -> Config {
    let mut table: toml::Table = gateway::example(name).unwrap().parse().unwrap();
    let key = if table.contains_key("url") { "url" } else { "base_url" };
    table.insert(key.into(), base.into());
    for key in gateway::secrets(name) {
        if !table.contains_key(*key) {
            continue;
        }
        let pointer = toml::Table::from_iter([("file".to_string(), secret_text(secret))]);
        table.insert((*key).into(), pointer.into());
    }
    let mut gateway = toml::Table::new();
    gateway.insert("name".into(), name.into());
    gateway.insert("ca_file".into(), secret_text(ca));
    gateway.insert("settings".into(), table.into());
    let whole = toml::Table::from_iter([("gateway".to_string(), gateway.into())]);
    let generic = |_: &str| Some(String::from("name = \"generic\""));
    Config::parse(&whole.to_string(), &generic).unwrap_or_else(|problems| {
        panic!("{name}: {problems:?}");
    })
}

fn secret_text(path: &Path) -> toml::Value {
    toml::Value::String(path.to_str().unwrap().into())
}

async fn told(config: &Config) -> (bool, String) {
    let mut out = Vec::new();
    let good = verify::test(config, None, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    for private in [SECRET, "4111111111111111", "999,"] {
        assert!(!text.contains(private), "{text}");
    }
    (good, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_what_is_right_and_whose_fault_is_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, other) = (folder.path().join("ca.pem"), folder.path().join("other.pem"));
    let (secret, wrong) = (folder.path().join("key"), folder.path().join("wrong"));
    fs::write(&secret, SECRET).unwrap();
    fs::write(&wrong, "d3JvbmctLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0=").unwrap();
    for name in gateway::NAMES {
        let host = Host::start(gateway::simulator(name, 1).unwrap(), "127.0.0.1").await;
        let stranger = Host::start(gateway::simulator(name, 1).unwrap(), "127.0.0.1").await;
        fs::write(&ca, &host.certificate).unwrap();
        fs::write(&other, &stranger.certificate).unwrap();
        let config = |base: &str, ca: &Path, secret: &Path| config(name, base, ca, secret);

        let (good, text) = told(&config(&host.base(), &ca, &secret)).await;
        assert!(good, "{name}: {text}");
        assert!(text.contains("connected") && text.contains("verified for 127.0.0.1"), "{text}");
        assert!(text.contains("HTTP 20"), "{text}");
        let taken: i64 = host.simulator.lock().unwrap().entries().iter().map(|e| e.captured).sum();
        assert_eq!(taken, 0, "{name}: money moved");

        if !gateway::secrets(name).is_empty() {
            let (good, text) = told(&config(&host.base(), &ca, &wrong)).await;
            assert!(!good && text.contains("fault      yours"), "{name}: {text}");
        }
        let (good, text) = told(&config(&host.base(), &other, &secret)).await;
        assert!(!good && text.contains("nothing was sent"), "{name}: {text}");
        assert!(text.contains("fault      the network's"), "{name}: {text}");

        host.next(Wire::ErrorAfter);
        let (good, text) = told(&config(&host.base(), &ca, &secret)).await;
        assert!(!good && text.contains("fault      the gateway's"), "{name}: {text}");

        let base = host.base();
        drop(host);
        let (good, text) =
            told(&config(&base.replace("127.0.0.1", "127.0.0.9"), &ca, &secret)).await;
        assert!(!good && text.contains("fault      the network's"), "{name}: {text}");
    }
}
