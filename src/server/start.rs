//! Everything a server needs, opened; or why it cannot be, for the person who starts it.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::{
    Counters, Shared, Watched, accounts, ach, bank, bogus, clock, dns, evidence, fees, fingerprint,
    gateway, media, prompts, recognizer, routes, sip, store,
};
use crate::call::Policy;
use crate::config::Config;
use crate::prompt::Library;
use crate::sip::transport::Listener;
use crate::speech;

/// Why the server does not start, in words for the person who starts it.
#[derive(Debug)]
pub struct StartError {
    pub message: String,
    /// The configuration or a file it names is at fault, not the machine.
    pub configuration: bool,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}

impl StartError {
    pub(super) fn configuration(message: impl Into<String>) -> StartError {
        StartError { message: message.into(), configuration: true }
    }

    pub(super) fn machine(message: impl Into<String>) -> StartError {
        StartError { message: message.into(), configuration: false }
    }
}

pub(super) type Opened =
    (Arc<Shared>, sip::Sip, mpsc::Receiver<sip::Offer>, Option<bogus::BogusHost>);

/// Opens everything in the order it depends on each other; what is open closes if a later one
/// fails.
pub(super) async fn open(
    mut config: Config,
    watcher: Option<mpsc::Sender<Watched>>,
) -> Result<Opened, StartError> {
    routes::passwords(&mut config.trunks).map_err(StartError::configuration)?;
    let mut library = load_prompts(&config)?;
    let synthesizer = prompts::Synthesizer::new(config.prompts.synthesis.clone());
    let said = bank::voice(&config, &mut library, &synthesizer).await;
    said.map_err(StartError::configuration)?;
    let banks = bank::banks(&config).map_err(StartError::configuration)?;
    let bins = fees::bins(&config).map_err(StartError::configuration)?;
    let directory = match &config.accounts.file {
        Some(file) => accounts::read(file, &config, None).map_err(StartError::configuration)?,
        None => {
            warn!("no [accounts] file is set: no caller can be identified");
            crate::account::Directory::default()
        }
    };
    let store = open_store(&config).await?;
    let opened = gateway::open(&config, Some(&store)).await.map_err(StartError::configuration)?;
    let takes_bank = opened.gateways.routes.all().iter().any(|route| route.takes.bank);
    bank::gateways(&config, takes_bank).map_err(StartError::configuration)?;
    gateway::keepers(&config).map_err(StartError::configuration)?;
    if opened.simulator.is_some() {
        warn!("no [gateway.settings]: a simulated gateway answers, and no money moves");
    }
    create_directory("[posting] directory", &config.posting.directory)?;
    let recording = &config.recording;
    for (key, folder) in [
        ("[recording] directory", &recording.directory),
        ("[recording] authorisations", &recording.authorisations),
    ] {
        if let Some(folder) = folder {
            create_directory(key, folder)?;
        }
    }
    let fingerprints = fingerprint::open(&config).map_err(StartError::configuration)?;
    let media = start_media(&config)?;
    let recognizers = start_recognizers(&config)?;
    let tls = config.sip.tls.clone().map(sip::tls::Tls::open).transpose();
    let tls = tls.map_err(StartError::configuration)?.map(Arc::new);
    let (sip, offers) = start_sip(&config, tls.clone()).await?;
    let routes = routes::Routes::new(locator(&sip), sip.commands());
    let policy = Policy {
        payment: Arc::new(config.payment.clone()),
        dialogue: config.dialogue.clone(),
        fingerprints: Arc::new(fingerprints),
        banks,
        bins,
        authorisations_recorded: config.recording.authorisations.is_some(),
        agent: config.agent.uri.clone(),
        speech: config.speech.offered(),
        duration_max: Duration::from_secs(60 * config.sip.call_minutes_max),
    };
    let evidences = evidence::Evidences::open(&config).map_err(StartError::configuration)?;
    let outboxes = ach::command::outboxes(&config, &store).map_err(StartError::configuration)?;
    for gateway in store.gateways_with_debits().await.unwrap_or_default() {
        if outboxes.iter().all(|outbox| outbox.id() != gateway) {
            let fault = "configuration";
            error!(fault, gateway, "debits wait for this gateway: configure it under its old id");
        }
    }
    let shared = Shared {
        policy: Arc::new(policy),
        library: Arc::new(library),
        directory: Arc::new(ArcSwap::from_pointee(directory)),
        gateways: Arc::new(opened.gateways),
        store: Arc::new(store),
        media,
        recognizers,
        commands: sip.commands(),
        routes: routes.clone(),
        tls,
        synthesizer,
        evidences: Arc::new(evidences),
        outboxes,
        watcher,
        counters: Counters::default(),
        config,
    };
    for trunk in shared.config.trunks.iter().filter(|trunk| trunk.register.is_some()) {
        tokio::spawn(routes.clone().register(Arc::new(trunk.clone())));
    }
    for trunk in shared.config.trunks.iter().filter(|trunk| trunk.options_s > 0) {
        tokio::spawn(routes.clone().watch(Arc::new(trunk.clone())));
    }
    Ok((Arc::new(shared), sip, offers, opened.simulator))
}

/// Without name servers only addresses in numbers can be called.
fn locator(sip: &sip::Sip) -> Option<dns::Locator> {
    match dns::Locator::system(sip.locals()) {
        Ok(locator) => Some(locator),
        Err(why) => {
            warn!("{why}: trunks are reached by addresses in numbers only");
            None
        }
    }
}

async fn open_store(config: &Config) -> Result<store::Store, StartError> {
    let failed = |error: store::StoreError| match error {
        store::StoreError::Open(why) => StartError::configuration(format!("[store] file: {why}")),
        other => StartError::machine(other.to_string()),
    };
    let store = store::Store::open(&config.store.file.to_string_lossy()).await.map_err(failed)?;
    let recovered = store.recover(clock::wall_ms()).await.map_err(failed)?;
    if recovered != store::Recovered::default() {
        let store::Recovered { not_charged, unknown } = recovered;
        warn!(not_charged, unknown, "payments were open when the server last stopped");
    }
    Ok(store)
}

fn load_prompts(config: &Config) -> Result<Library, StartError> {
    let library = prompts::load(&config.prompts).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        StartError::configuration(lines.join("\n"))
    })?;
    for warning in library.warnings() {
        warn!("{warning}");
    }
    Ok(library)
}

fn start_media(config: &Config) -> Result<media::Media, StartError> {
    let [first, last] = config.media.ports;
    let settings = media::Settings {
        address: config.media_address(),
        ports: first..=last,
        threads: config.media_threads(),
        recordings: media::Folders {
            calls: config.recording.directory.clone(),
            segments: config.recording.authorisations.clone(),
        },
    };
    media::Media::start(settings).map_err(|error| {
        let address = config.media_address();
        let remedy = match error.kind() {
            std::io::ErrorKind::AddrNotAvailable => {
                ": this machine has no such address; change [media] address"
            }
            _ => "",
        };
        StartError::machine(format!("media cannot start on {address}: {error}{remedy}"))
    })
}

fn start_recognizers(config: &Config) -> Result<Option<recognizer::Pool>, StartError> {
    let Some((name, path)) = config.speech.engine() else { return Ok(None) };
    let failed =
        |why: &dyn fmt::Display| StartError::configuration(format!("[speech] engine: {why}"));
    let model = path.map(std::fs::read).transpose().map_err(|error| {
        let path = path.unwrap_or(Path::new("")).display();
        failed(&format!("{path}: {error}"))
    })?;
    let engine = speech::open(name, model).map_err(|error| failed(&error))?;
    let pool = recognizer::Pool::start(engine, config.speech.threads);
    let pool = pool.map_err(|error| StartError::machine(format!("recognizer: {error}")))?;
    let fields = config.speech.offered();
    info!(engine = pool.engine(), %fields, "callers may say what they are asked for");
    Ok(Some(pool))
}

const PRODUCT: &str = concat!("ringtill/", env!("CARGO_PKG_VERSION"));

async fn start_sip(
    config: &Config,
    tls: Option<Arc<sip::tls::Tls>>,
) -> Result<(sip::Sip, mpsc::Receiver<sip::Offer>), StartError> {
    let listeners = config.sip.listen.iter().map(|listen| {
        let public = config.sip.public_address_of(listen.address);
        let ip = public.unwrap_or(listen.address.ip());
        let public = SocketAddr::new(ip, listen.address.port());
        let inner = config.sip.inner_address_of(listen.address);
        let inside = config.sip.local_networks.iter().filter_map(|net| Some((*net, inner?)));
        Listener { inside: inside.collect(), ..Listener::new(listen.transport, public) }
    });
    let settings = crate::sip::agent::Settings {
        listeners: listeners.collect(),
        trunks: config.trunks.iter().cloned().map(Arc::new).collect(),
        strangers: config.sip.unknown_sources,
        realm: config.sip.realm.clone(),
        calls_per_second: config.sip.calls_per_second,
        ..crate::sip::agent::Settings::new(config.sip.address(), PRODUCT, config.sip.calls_max)
    };
    let limits = sip::connections::Limits {
        connections_max: config.sip.connections_max,
        per_source_max: config.sip.connections_per_source,
        idle: Duration::from_secs(60 * config.sip.idle_minutes),
    };
    let listen = config.sip.listen.iter().map(|listen| listen.address).collect();
    let mut seed = [0; 32];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut seed);
    let rates = sip::Rates {
        trunks: config.trunks.iter().flat_map(|trunk| trunk.sources.iter().copied()).collect(),
        per_second: config.sip.messages_per_second,
    };
    let transports = sip::Transports { listen, tls, limits, rates };
    sip::Sip::bind(transports, settings, seed).await.map_err(|failed| {
        let remedy = match failed.error.kind() {
            std::io::ErrorKind::AddrInUse => {
                ": another SIP server has this port; stop it or change [sip] listen"
            }
            std::io::ErrorKind::AddrNotAvailable => {
                ": this machine has no such address; change [sip] listen"
            }
            std::io::ErrorKind::PermissionDenied => ": ports below 1024 need CAP_NET_BIND_SERVICE",
            _ => "",
        };
        StartError::machine(format!("{failed}{remedy}"))
    })
}

fn create_directory(key: &str, path: &Path) -> Result<(), StartError> {
    std::fs::create_dir_all(path).map_err(|error| {
        let path = path.display();
        let message = format!("{key} {path} cannot be created: {error}; name one we may write to");
        StartError::configuration(message)
    })
}
