//! `ringtill.toml`: each module's own settings, put together. Every key has a default.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use crate::gateway::nacha;
use crate::gateway::route::Patience;
use crate::instrument::Brand;
use crate::sip::Transport;
use crate::sip::agent::Strangers;
use crate::sip::profile::Profile;
use crate::speech::Fields;
use crate::{dialogue, payment, prompt};

mod listen; // `udp:0.0.0.0:5060`
mod problem; // what is wrong, where, and what to write instead
mod read; // TOML to Config, all problems at once

pub use listen::Listen;
pub use problem::Problem;

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub sip: Sip,
    pub media: Media,
    pub recording: Recording,
    pub store: Store,
    pub accounts: Accounts,
    pub posting: Posting,
    pub prompts: prompt::Settings,
    pub dialogue: dialogue::Settings,
    pub payment: payment::Settings,
    /// In the order they are tried; never empty.
    pub gateways: Vec<Gateway>,
    pub agent: Agent,
    pub speech: Speech,
    pub log: Log,
    /// In the order of the file: the first that takes a call for its own serves it.
    pub trunks: Vec<Profile>,
}

/// `[sip]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sip {
    /// Addresses for SIP: one, or a list. Unset, nobody but this machine reaches us.
    #[serde(deserialize_with = "listen::one_or_more")]
    pub listen: Vec<Listen>,
    /// Address peers reach us at, when it differs from `listen` (NAT, or listening on all).
    pub public_address: Option<IpAddr>,
    /// Networks that reach us directly: they are told `local_address` instead.
    pub local_networks: Vec<IpNet>,
    /// Our address there; unset, the one listened on.
    pub local_address: Option<IpAddr>,
    /// What requests get that no trunk sent.
    pub unknown_sources: Strangers,
    /// What trunks with `users` are asked to authenticate for.
    pub realm: String,
    /// More calls than this are refused with 503.
    pub calls_max: usize,
    /// New calls a second, over two seconds; more are refused with 503.
    pub calls_per_second: u32,
    /// Messages a second from one address of a trunk; more are dropped unread. An address of
    /// nobody's trunk may send a twentieth of it.
    pub messages_per_second: u32,
    /// A call longer than this is ended.
    pub call_minutes_max: u64,
    /// After SIGTERM running calls may go on for this long.
    pub drain_minutes: u64,
    /// TCP and TLS connections at a time, and those of one source address among them.
    pub connections_max: usize,
    pub connections_per_source: usize,
    /// A connection without a message for this long is closed.
    pub idle_minutes: u64,
    pub tls: Option<Tls>,
}

impl Sip {
    /// The first address listened on.
    pub fn address(&self) -> SocketAddr {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        self.listen.first().map_or(nowhere, |listen| listen.address)
    }

    /// The address that peers reach a listener at; `None` when it listens on all and was told
    /// nothing. A public IPv4 address says nothing of IPv6.
    pub fn public_address_of(&self, listen: SocketAddr) -> Option<IpAddr> {
        let ip = listen.ip();
        let public = self.public_address.filter(|public| public.is_ipv4() == ip.is_ipv4());
        public.or((!ip.is_unspecified()).then_some(ip))
    }

    /// Our address for a peer inside one of `local_networks`, on this listener.
    pub fn inner_address_of(&self, listen: SocketAddr) -> Option<IpAddr> {
        let ip = listen.ip();
        let own = (!ip.is_unspecified()).then_some(ip);
        self.local_address.filter(|local| local.is_ipv4() == ip.is_ipv4()).or(own)
    }

    pub fn listens(&self, transport: Transport) -> bool {
        self.listen.iter().any(|listen| listen.transport == transport)
    }
}

/// `[sip.tls]`: files in PEM, read again on SIGHUP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Our certificate, followed by those of the authorities between it and the root.
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
    /// Who may sign the certificates of peers that connect to us. Unset, they need none.
    pub client_ca_file: Option<PathBuf>,
    /// A peer without a certificate is turned away; else it is only not known by name.
    #[serde(default)]
    pub client_required: bool,
    /// Trusted besides the system's roots when we connect to a peer.
    pub ca_file: Option<PathBuf>,
}

impl Default for Sip {
    fn default() -> Sip {
        Sip {
            listen: vec![Listen::udp(SocketAddr::from(([127, 0, 0, 1], 5060)))],
            public_address: None,
            local_networks: Vec::new(),
            local_address: None,
            unknown_sources: Strangers::Refuse,
            realm: "ringtill".into(),
            calls_max: 500,
            calls_per_second: 1_000,
            messages_per_second: 10_000,
            call_minutes_max: 30,
            drain_minutes: 15,
            connections_max: 1_000,
            connections_per_source: 100,
            idle_minutes: 10,
            tls: None,
        }
    }
}

/// `[media]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Media {
    /// Address RTP is received on, not a wildcard; the SIP address unless set.
    pub address: Option<IpAddr>,
    /// First and last UDP port for RTP; two ports a call.
    pub ports: [u16; 2],
    /// Unset: one for each 2,500 of `calls_max`.
    pub threads: Option<usize>,
    /// New calls are refused with 503 while turns are later than so many milliseconds; 0: only
    /// while the threads themselves have too much to do.
    pub late_ms: u64,
}

impl Default for Media {
    fn default() -> Media {
        Media { address: None, ports: [20_000, 29_999], threads: None, late_ms: 10 }
    }
}

/// `[recording]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recording {
    /// Calls are recorded here, card data silenced. Unset: nothing is recorded.
    pub directory: Option<PathBuf>,
    /// What callers say to authorise a debit is recorded here, a file each, whether calls are
    /// recorded or not. Unset: it is not recorded.
    pub authorisations: Option<PathBuf>,
    /// They are sealed with this key (AES-256-GCM). Unset: they are as readable as the folder.
    pub authorisations_key: Option<KeyFile>,
    /// Years they are kept.
    pub authorisations_years: u32,
}

/// As long as Nacha wants authorisations to be kept.
pub const AUTHORISATIONS_YEARS_MIN: u32 = 2;

impl Default for Recording {
    fn default() -> Recording {
        Recording {
            directory: None,
            authorisations: None,
            authorisations_key: None,
            authorisations_years: AUTHORISATIONS_YEARS_MIN,
        }
    }
}

/// `[store]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// SQLite file of the ledger.
    pub file: PathBuf,
    /// Key of the fingerprints that stand for cards and accounts in the ledger. Unset: one is
    /// made in `<file>.key`.
    pub fingerprint_key: Option<KeyFile>,
}

/// A secret in a file of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    pub file: PathBuf,
}

impl Default for Store {
    fn default() -> Store {
        Store { file: "ringtill.db".into(), fingerprint_key: None }
    }
}

/// `[accounts]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accounts {
    /// The account CSV; read at start and again on SIGHUP. Rejected rows are listed beside it in
    /// `<name>.rej.csv`.
    pub file: Option<PathBuf>,
}

/// `[posting]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Posting {
    /// Reconciliation files are written here.
    pub directory: PathBuf,
    pub interval_s: u64,
}

impl Default for Posting {
    fn default() -> Posting {
        Posting { directory: "posting".into(), interval_s: 60 }
    }
}

/// `[gateway]`, or `[[gateway]]` for each of several.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// What the ledger and the logs call it; `name` unless set.
    pub id: Option<String>,
    /// Which processor's dialect: see [`crate::gateway::NAMES`].
    pub name: String,
    /// `[gateway.settings]`: the dialect's own keys. A value may be `{ file = "..." }` or
    /// `{ env = "..." }`. Unset with `bogus`: the simulator inside this process.
    pub settings: Option<toml::Table>,
    /// File with further trusted certificates (PEM).
    pub ca_file: Option<PathBuf>,
    /// Brands charged here; unset: all.
    #[serde(deserialize_with = "payment::settings::brands_if_any")]
    pub cards: Option<Vec<Brand>>,
    /// Whether bank accounts are debited here; unset: if it can.
    pub bank: Option<bool>,
    /// With `[payment.saved]`, whether cards are kept here; unset: yes.
    pub save: Option<bool>,
    /// No answer within this time is an unknown outcome; unset: `payment.gateway_limit_ms`.
    pub limit_ms: Option<u64>,
    /// After so many charges in a row that got no answer it is left alone for `rest_s`.
    pub failures_max: u32,
    pub rest_s: u64,
}

impl Gateway {
    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.name)
    }

    /// The simulator inside this process.
    pub fn is_simulated(&self) -> bool {
        self.name == "bogus" && self.settings.is_none()
    }

    pub fn takes_card(&self, brand: Brand) -> bool {
        let takes = self.cards.as_ref().is_none_or(|cards| cards.contains(&brand));
        takes && self.name != nacha::NAME
    }
}

impl Default for Gateway {
    fn default() -> Gateway {
        let Patience { failures_max, rest } = Patience::default();
        Gateway {
            id: None,
            name: "bogus".into(),
            settings: None,
            ca_file: None,
            cards: None,
            bank: None,
            save: None,
            limit_ms: None,
            failures_max,
            rest_s: rest.as_secs(),
        }
    }
}

/// `[agent]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// SIP URI callers are transferred to.
    pub uri: Option<String>,
}

/// `[speech]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Speech {
    /// What understands callers who say what they are asked for; `off`: they key it.
    pub engine: String,
    /// Threads it runs on.
    pub threads: usize,
    /// What may be said; without it what the engine understands well enough.
    pub fields: Option<Vec<String>>,
}

impl Default for Speech {
    fn default() -> Speech {
        Speech { engine: "off".into(), threads: 1, fields: None }
    }
}

impl Speech {
    /// Name of the engine and the file of its model; `None`: callers only key.
    pub fn engine(&self) -> Option<(&str, Option<&Path>)> {
        match self.engine.split_once(':') {
            _ if self.engine == "off" => None,
            Some((name, model)) => Some((name, Some(Path::new(model)))),
            None => Some((&self.engine, None)),
        }
    }

    /// What callers may say.
    pub fn offered(&self) -> Fields {
        let Some((engine, _)) = self.engine() else { return Fields::NONE };
        let Some(fields) = &self.fields else { return Fields::proven(engine) };
        let named = fields.iter().filter_map(|name| Fields::named(name));
        named.fold(Fields::NONE, Fields::and)
    }
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,ringtill::sip=debug`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: "info".into(), format: LogFormat::Text }
    }
}

/// Calls that one media thread serves: a third of a core's work with all listened to for tones,
/// so that its turns stay on time when many calls key at once.
const CALLS_PER_THREAD: usize = 1_250;

impl Config {
    /// How many media threads there are to be.
    pub fn media_threads(&self) -> usize {
        self.media.threads.unwrap_or(self.sip.calls_max.div_ceil(CALLS_PER_THREAD))
    }

    /// Reads a configuration. `profile` finds a trunk profile's TOML by name or path.
    pub fn parse(
        text: &str,
        profile: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, Vec<Problem>> {
        read::config(text, profile)
    }

    /// Whether a gateway charges fees and nothing else.
    pub fn is_fee_gateway(&self, gateway: &Gateway) -> bool {
        let apart = self.payment.fee_mode == payment::FeeMode::TwoMid;
        apart && self.payment.fee_gateway.as_deref() == Some(gateway.id())
    }

    /// The longest that a charge may be without an answer.
    pub fn gateway_limit(&self) -> Duration {
        let own = self.gateways.iter().filter_map(|gateway| gateway.limit_ms);
        let most = own.chain([self.payment.gateway_limit_ms]).max();
        Duration::from_millis(most.unwrap_or_default())
    }

    /// Where RTP is received.
    pub fn media_address(&self) -> IpAddr {
        self.media.address.unwrap_or(self.sip.address().ip())
    }

    /// Where peers send their audio: behind NAT the public address, else the media address.
    pub fn public_media_address(&self) -> Option<IpAddr> {
        self.sip.public_address.or(self.media.address).or(self.public_address())
    }

    /// Where a peer sends its audio: one inside our own networks is told the inner address.
    pub fn media_address_for(&self, peer: IpAddr, contact: IpAddr) -> IpAddr {
        let inside = self.sip.local_networks.iter().any(|net| net.contains(&peer));
        let told = if inside { self.media.address } else { self.public_media_address() };
        told.unwrap_or(contact)
    }

    /// What we write in Contact; `None` when listening on all addresses and told nothing.
    pub fn public_address(&self) -> Option<IpAddr> {
        self.sip.public_address_of(self.sip.address())
    }
}

/// Without a `[[trunk]]` only this machine may call.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[cfg(test)]
mod tests;
