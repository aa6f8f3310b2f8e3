//! The world: the only place with sockets, files, threads, tokio and the clock.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

pub mod ach; // debits to the bank by file
mod admission; // no new calls while media is late
pub mod accounts; // the account file: read, reported on, swapped
mod bank; // what paying from a bank account needs
pub mod bogus; // the simulator behind real HTTPS
mod call_task; // one call
pub mod cards; // `ringtill cards`
pub mod clock; // the one place that asks what time it is
pub mod configuration; // the configuration file, read and checked
pub mod console; // calls as a person may watch them
pub mod dns; // where SIP URIs are reached
pub mod demo; // `ringtill demo`
pub mod dial; // the scripted caller on real sockets
pub mod dtmf; // which keys a recording holds
pub mod evidence; // authorisations of debits on disk
pub mod explain; // which trunk takes a request, and why
pub mod later; // what callers have arranged for later
mod key_file; // keys of the operator's
mod fees; // what the way fees are charged needs of gateways
mod fingerprint; // the key of the ledger's fingerprints
pub mod gateway; // the configured gateways, opened
pub mod http_client; // requests to gateways
pub mod listen; // what is said in a recording
#[cfg(feature = "headset")]
pub mod headset; // this machine's microphone and loudspeaker
#[cfg(feature = "headset")]
pub mod talk; // a call, or an answer, in person
mod log; // lines for the operator, and what never gets into them
pub mod media; // the media threads
pub mod pairs; // bills whose fee is a charge of its own
pub mod payments; // `ringtill payments`
pub mod recognizer; // what callers say, on threads of its own
pub mod prompts; // the voice: bundled and own files, the synthesis command
pub mod routes; // where requests of ours go
pub mod reconcile; // `ringtill reconcile`
pub mod resolver; // payments without a definitive answer
mod seal; // what is kept sealed
pub mod sip; // the SIP core
pub mod start; // everything a server needs, opened
pub mod store; // the ledger on disk
pub mod verify; // `ringtill gateway test`

pub use configuration::{check, read_config};
pub use log::start_log;
pub use start::StartError;

use crate::call::{Policy, Telling};
use crate::config::Config;
use crate::prompt::Library;

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    sip: sip::Sip,
    /// Ends when the SIP core has stopped.
    accepting: JoinHandle<()>,
    tasks: [JoinHandle<()>; 7],
    /// The simulated gateway, when the configuration asks for it.
    simulator: Option<bogus::BogusHost>,
}

/// What every call task uses.
struct Shared {
    config: Config,
    policy: Arc<Policy>,
    library: Arc<Library>,
    directory: Arc<ArcSwap<crate::account::Directory>>,
    gateways: Arc<gateway::Gateways>,
    store: Arc<store::Store>,
    media: media::Media,
    /// Where callers may say what they are asked for.
    recognizers: Option<recognizer::Pool>,
    commands: sip::Commands,
    routes: routes::Routes,
    tls: Option<Arc<sip::tls::Tls>>,
    synthesizer: prompts::Synthesizer,
    evidences: Arc<evidence::Evidences>,
    outboxes: Vec<ach::Outbox>,
    watcher: Option<mpsc::Sender<Watched>>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    calls_now: AtomicUsize,
    calls: AtomicU64,
    calls_aborted: AtomicU64,
    unwatched: AtomicU64,
}

/// Something a watcher of calls is told.
pub struct Watched {
    pub call: String,
    pub telling: Telling,
}

impl Shared {
    fn watch(&self, watched: Watched) {
        let Some(watcher) = &self.watcher else { return };
        if watcher.try_send(watched).is_err() {
            self.counters.unwatched.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Server {
    /// Opens everything, recovers the ledger and takes calls. `watcher` is told what happens on
    /// them, as far as it keeps up.
    pub async fn start(
        config: Config,
        watcher: Option<mpsc::Sender<Watched>>,
    ) -> Result<Server, StartError> {
        let (shared, sip, offers, simulator) = start::open(config, watcher).await?;
        let accepting = tokio::spawn(accept(shared.clone(), offers));
        let tasks = [
            tokio::spawn(resolve(shared.clone())),
            tokio::spawn(post_regularly(shared.clone())),
            tokio::spawn(sweep_regularly(shared.clone())),
            tokio::spawn(debit_regularly(shared.clone())),
            tokio::spawn(admission::watch_media(shared.clone())),
            tokio::spawn(checkpoint_regularly(shared.clone())),
            tokio::spawn(charge_later(shared.clone())),
        ];
        Ok(Server { shared, sip, accepting, tasks, simulator })
    }

    pub fn sip_address(&self) -> SocketAddr {
        self.sip.local()
    }

    pub fn store(&self) -> &store::Store {
        &self.shared.store
    }

    /// What has been made of callers who spoke.
    pub fn recognized(&self) -> Option<recognizer::Totals> {
        self.shared.recognizers.as_ref().map(recognizer::Pool::totals)
    }

    pub fn library(&self) -> &Arc<Library> {
        &self.shared.library
    }

    pub fn simulator(&self) -> Option<&bogus::BogusHost> {
        self.simulator.as_ref()
    }

    pub fn calls_now(&self) -> usize {
        self.shared.counters.calls_now.load(Ordering::Relaxed)
    }

    /// Writes what has become final to the biller's file now; its path when there was anything.
    pub async fn post(&self) -> Result<Option<PathBuf>, String> {
        post(&self.shared).await
    }

    /// Reads the account file again; the accounts in use stay when it cannot be taken.
    pub async fn reload_accounts(&self) {
        let shared = self.shared.clone();
        // A large file takes seconds, and nobody's call may wait for it.
        let reload = tokio::task::spawn_blocking(move || {
            let Some(file) = &shared.config.accounts.file else { return };
            let directory = &shared.directory;
            let previous = directory.load().len();
            match accounts::read(file, &shared.config, Some(previous)) {
                Ok(read) => directory.store(Arc::new(read)),
                Err(error) => error!(fault = "account file", "{error}; the accounts in use stay"),
            }
        });
        if reload.await.is_err() {
            error!(fault = "ringtill", "the account file was not read; the accounts in use stay");
        }
    }

    /// Reads the TLS certificates again; new connections get them. Those in use stay when they
    /// cannot be used.
    pub async fn reload_certificates(&self) {
        let Some(tls) = self.shared.tls.clone() else { return };
        match tokio::task::spawn_blocking(move || tls.reload()).await {
            Ok(Ok(())) => info!("TLS certificates read again"),
            Ok(Err(why)) => error!(fault = "certificate", "{why}; the certificates in use stay"),
            Err(_) => error!(fault = "ringtill", "the TLS certificates were not read again"),
        }
    }

    /// Refuses new calls from now on: 503 to INVITE and OPTIONS.
    pub async fn drain(&self) {
        if self.shared.commands.send(crate::sip::Command::Drain).await.is_err() {
            warn!("the SIP core has stopped already");
        }
    }

    /// Waits until no call runs, or `limit` has passed; true when all calls have ended.
    pub async fn drained(&self, limit: Duration) -> bool {
        drained(&self.shared, limit).await
    }

    /// Serves until SIGTERM or SIGINT, then drains for at most `drain`.
    pub async fn serve_until_told(mut self, drain: Duration) -> ExitCode {
        let Ok(mut told) = Told::new() else {
            error!("this machine lets us hear no signals");
            return ExitCode::FAILURE;
        };
        for (transport, address) in self.sip.locals() {
            info!(sip = %format_args!("{transport}:{address}"), "taking calls");
        }
        loop {
            tokio::select! {
                word = told.next() => match word {
                    Word::Stop => break,
                    Word::Reload => {
                        self.reload_certificates().await;
                        self.reload_accounts().await;
                    }
                },
                _ = &mut self.accepting => {
                    error!(fault = "ringtill", "the SIP core has stopped: no call can come in");
                    self.stop().await;
                    return ExitCode::FAILURE;
                }
            }
        }
        self.drain().await;
        info!(calls = self.calls_now(), "draining: running calls finish, new ones get 503");
        tokio::select! {
            ended = self.drained(drain) => if !ended {
                warn!(calls = self.calls_now(), "drain time is over: calls are ended");
            },
            () = told.told_to_stop() => warn!(calls = self.calls_now(), "told twice: calls are ended"),
        }
        tokio::select! {
            () = self.stop() => {}
            () = told.told_to_stop() => {
                warn!("told again: charges under way are looked up at the next start");
            }
        }
        ExitCode::SUCCESS
    }

    /// Stops: calls are hung up, charges under way get their answer, what is final is posted,
    /// sockets close. A charge that has no answer by then is looked up at the next start.
    pub async fn stop(self) {
        let Server { shared, sip, accepting, tasks, simulator: _simulator } = self;
        sip.shutdown(HANG_UP).await;
        let answer = shared.config.gateway_limit();
        if !drained(&shared, answer + CONCLUDE).await {
            let calls = shared.counters.calls_now.load(Ordering::Relaxed);
            warn!(calls, "charges under way are looked up at the next start");
        }
        if let Err(error) = post(&shared).await {
            error!("{error}");
        }
        accepting.abort();
        tasks.iter().for_each(JoinHandle::abort);
        shared.store.close().await;
        if let Some(recognized) = shared.recognizers.as_ref().map(recognizer::Pool::totals) {
            let recognizer::Totals { answers, late, longest } = recognized;
            info!(answers, late, longest_ms = longest.as_millis() as u64, "callers spoke");
        }
        let counters = &shared.counters;
        info!(
            calls = counters.calls.load(Ordering::Relaxed),
            aborted = counters.calls_aborted.load(Ordering::Relaxed),
            unwatched = counters.unwatched.load(Ordering::Relaxed),
            "stopped"
        );
    }
}

/// How long calls that end by themselves have when we stop.
const HANG_UP: Duration = Duration::from_secs(2);
/// What a call needs beyond the gateway's answer to write it down.
const CONCLUDE: Duration = Duration::from_secs(15);

async fn drained(shared: &Shared, limit: Duration) -> bool {
    let wait = async {
        while shared.counters.calls_now.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(limit, wait).await.is_ok()
}

/// What the operator tells a running server.
struct Told {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

enum Word {
    Stop,
    Reload,
}

impl Told {
    fn new() -> std::io::Result<Told> {
        Ok(Told {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Word {
        tokio::select! {
            _ = self.terminate.recv() => Word::Stop,
            _ = self.interrupt.recv() => Word::Stop,
            _ = self.hangup.recv() => Word::Reload,
        }
    }

    async fn told_to_stop(&mut self) {
        while !matches!(self.next().await, Word::Stop) {}
    }
}

/// Gives each offered call a task; a panic in it ends that call alone.
async fn accept(shared: Arc<Shared>, mut offers: mpsc::Receiver<sip::Offer>) {
    while let Some(offer) = offers.recv().await {
        shared.counters.calls.fetch_add(1, Ordering::Relaxed);
        shared.counters.calls_now.fetch_add(1, Ordering::Relaxed);
        let shared = shared.clone();
        tokio::spawn(async move {
            let task = tokio::spawn(call_task::run(shared.clone(), offer));
            if let Err(failed) = task.await
                && failed.is_panic()
            {
                shared.counters.calls_aborted.fetch_add(1, Ordering::Relaxed);
                error!(fault = "ringtill", "a call was aborted by a defect; it is counted");
            }
            shared.counters.calls_now.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn resolve(shared: Arc<Shared>) {
    resolver::Resolver::new(shared.store.clone(), shared.gateways.clone()).run().await;
}

async fn checkpoint_regularly(shared: Arc<Shared>) {
    /// Twenty payments a second leave a megabyte.
    const INTERVAL: Duration = Duration::from_secs(1);
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Err(error) = shared.store.checkpoint().await {
            warn!(%error, "the ledger's log is not brought into its file");
        }
    }
}

/// Charges what callers have arranged for later.
async fn charge_later(shared: Arc<Shared>) {
    let accounts = (shared.directory.clone(), shared.config.accounts.file.clone());
    match later::Scheduler::new(shared.store.clone(), accounts, &shared.config.payment) {
        Some(scheduler) => scheduler.run(shared.gateways.clone()).await,
        None => {
            let left = shared.store.active_arrangements(&shared.config.payment.biller).await;
            if let Ok(arrangements @ 1..) = left {
                let fault = "configuration";
                error!(fault, arrangements, "they are not charged: [payment.later] is not set");
            }
        }
    }
}

async fn post_regularly(shared: Arc<Shared>) {
    let every = Duration::from_secs(shared.config.posting.interval_s.max(1));
    loop {
        tokio::time::sleep(every).await;
        if let Err(error) = post(&shared).await {
            error!("{error}");
        }
    }
}

/// Writes files for the bank once their cut-off has passed.
async fn debit_regularly(shared: Arc<Shared>) {
    const EVERY: Duration = Duration::from_secs(20);
    while !shared.outboxes.is_empty() {
        for outbox in &shared.outboxes {
            let gateway = outbox.id();
            match outbox.write_due(clock::wall_ms()).await {
                Ok(files) => files.iter().for_each(|file| {
                    let debits = file.holds.map_or(0, |(debits, _)| debits);
                    info!(gateway, file = %file.path.display(), debits, "file for the bank written");
                }),
                Err(error) => error!(gateway, "debits could not be written for the bank: {error}"),
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Deletes authorisations that have been kept long enough.
async fn sweep_regularly(shared: Arc<Shared>) {
    const EVERY: Duration = Duration::from_secs(3_600);
    loop {
        let evidences = shared.evidences.clone();
        let swept = tokio::task::spawn_blocking(move || evidences.sweep(clock::wall_ms())).await;
        match swept {
            Ok(Ok(0)) => {}
            Ok(Ok(files)) => info!(files, "authorisations whose time was up were deleted"),
            Ok(Err(error)) => error!("[recording] authorisations: {error}"),
            Err(_) => error!(fault = "ringtill", "old authorisations were not deleted"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn post(shared: &Shared) -> Result<Option<PathBuf>, String> {
    let directory = &shared.config.posting.directory;
    let biller = &shared.config.payment.biller;
    let posted = shared.store.post(directory, biller, clock::wall_ms()).await;
    let posted = posted.map_err(|error| {
        format!("the reconciliation file could not be written to {}: {error}", directory.display())
    })?;
    if let Some(path) = &posted {
        info!(file = %path.display(), "reconciliation file written");
    }
    Ok(posted)
}

#[cfg(test)]
mod tests;
