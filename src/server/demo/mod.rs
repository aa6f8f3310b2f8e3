//! `ringtill demo`: a server on loopback and scripted callers who pay three bills over real SIP and
//! RTP, by keys and by voice, shown as it happens.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::mpsc;

use super::console::Console;
use super::dial::{self, Call};
use super::{Server, Watched, clock, read_config};
use crate::config::Log;
use crate::dial::phone::Report;
use crate::dial::script::{Keying, Script};
use crate::gateway::bogus;
use crate::ledger::reconcile::{self, Status};
use crate::ledger::{Intent, State};
use crate::media::{Clip, Method};
use crate::money::Money;
use crate::sip::offer::{Law, SrtpPolicy};

/// Options of `ringtill demo`.
#[derive(clap::Args)]
pub struct Options {
    /// Keep serving after the calls, until Ctrl-C
    #[arg(long)]
    stay: bool,
    /// Where configuration, accounts, ledger, recordings and reconciliation files are left
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
}

/// Where softphones look for a SIP server.
const SIP_PORT: u16 = 5060;

const ACCOUNTS: &str = include_str!("accounts.csv");
const JAMES: &str = include_str!("james.script");
const STRANGER: &str = include_str!("stranger.script");
const AIKO: &str = include_str!("aiko.script");

/// What Aiko says: a synthetic voice, see `voice/render`.
const VOICE: [(&str, &[u8]); 6] = [
    ("two", include_bytes!("voice/two.flac")),
    ("amount", include_bytes!("voice/amount.flac")),
    ("yes", include_bytes!("voice/yes.flac")),
    ("card", include_bytes!("voice/card.flac")),
    ("expiry", include_bytes!("voice/expiry.flac")),
    ("zip", include_bytes!("voice/zip.flac")),
];

/// One call of the demo and what must come of it.
struct Scene {
    title: &'static str,
    from: &'static str,
    script: &'static str,
    keying: Keying,
    account: &'static str,
    amount: Money,
}

fn scenes() -> [Scene; 3] {
    let keys = |method| Keying { method, on_ms: 80, off_ms: 80 };
    [
        Scene {
            title: "1. James calls from a number we know, keys as RFC 4733 events",
            from: "+13175550123",
            script: JAMES,
            keying: keys(Method::Events),
            account: "1001",
            amount: Money::usd(32_172),
        },
        Scene {
            title: "2. A caller we do not know, keys as tones in the audio, one mistyped card",
            from: "+13175550199",
            script: STRANGER,
            keying: keys(Method::InBand),
            account: "1002",
            amount: Money::usd(4_500),
        },
        Scene {
            title: "3. Aiko says what she is asked for, and keys what nobody around her should hear",
            from: "+13175550167",
            script: AIKO,
            keying: keys(Method::Events),
            account: "1003",
            amount: Money::usd(2_000),
        },
    ]
}

/// Runs the demo; success only if all payments were approved, posted and reconciled.
pub async fn run(options: Options) -> ExitCode {
    match Box::pin(play(&options)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nthe demo did not end well: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn play(options: &Options) -> Result<(), String> {
    let stamp = || PathBuf::from(format!("demo-{}", clock::file_stamp()));
    let folder = options.directory.clone().unwrap_or_else(stamp);
    // Warnings and errors only: what happens is told by the console.
    super::start_log(&Log { level: "warn".into(), ..Log::default() })?;
    let (watcher, watched) = mpsc::channel(1_024);
    let server = start(&folder, watcher).await?;
    let console = Console::new(clock::now(), std::io::stdout().is_terminal());
    println!("Ringtill takes calls on sip:pay@{}", server.sip_address());
    tokio::spawn(show(watched, Console::new(clock::now(), std::io::stdout().is_terminal())));
    for scene in scenes() {
        println!("{}", console.heading(scene.title));
        Box::pin(place(&server, scene)).await?;
    }
    let posted = post_all(&server, &folder.join("posting")).await?;
    let problems = reconcile(&server, &posted).await?;
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    tell_what_next(&server, &folder, &posted, &console);
    if options.stay {
        println!("\nStill taking calls on sip:pay@{} until Ctrl-C.", server.sip_address());
        server.serve_until_told(Duration::from_secs(60)).await;
    } else {
        server.stop().await;
    }
    Ok(())
}

/// Starts on the SIP port, or on any other when somebody has it.
async fn start(folder: &Path, watcher: mpsc::Sender<Watched>) -> Result<Server, String> {
    let config = read_config(&write_files(folder, SIP_PORT)?)?;
    if let Ok(server) = Server::start(config, Some(watcher.clone())).await {
        return Ok(server);
    }
    let config = read_config(&write_files(folder, 0)?)?;
    let server = Server::start(config, Some(watcher)).await.map_err(|error| error.to_string())?;
    write_files(folder, server.sip_address().port())?;
    Ok(server)
}

/// A configuration and accounts that can be used after the demo as they are.
fn write_files(folder: &Path, port: u16) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(failed)?;
    let folder = folder.canonicalize().map_err(failed)?;
    let config = include_str!("ringtill.toml")
        .replace("{port}", &port.to_string())
        .replace("{folder}", &folder.display().to_string());
    let file = folder.join("ringtill.toml");
    std::fs::write(folder.join("accounts.csv"), ACCOUNTS).map_err(failed)?;
    std::fs::write(&file, config).map_err(failed)?;
    Ok(file)
}

async fn show(mut watched: mpsc::Receiver<Watched>, console: Console) {
    while let Some(Watched { telling, .. }) = watched.recv().await {
        if let Some(line) = console.line(clock::now(), &telling) {
            println!("{line}");
        }
    }
}

async fn place(server: &Server, scene: Scene) -> Result<(), String> {
    let library = server.library();
    let script = Script::parse(scene.script, &|id| dial::knows(library, id));
    let mut script = script.map_err(|error| error.to_string())?;
    script.load(said)?;
    let call = Call {
        target: format!("sip:pay@{}", server.sip_address()),
        from: Some(scene.from.into()),
        headers: Vec::new(),
        prompts: dial::indexes(library, &[Law::Mu]),
        script,
        keying: scene.keying,
        srtp: SrtpPolicy::Off,
        local: None,
        call_max: Duration::from_secs(150),
        person: None,
    };
    let quiet = &mut |_: Duration, _: &Report| {};
    Box::pin(dial::place(call, quiet)).await.map_err(|error| format!("the caller: {error}"))?;
    // The money side may end after the caller's.
    if !server.drained(Duration::from_secs(60)).await {
        return Err("the call did not end".into());
    }
    Ok(())
}

/// A sound of the demo's voice.
fn said(name: &str) -> Result<Clip, String> {
    let found = VOICE.iter().find(|(known, _)| *known == name);
    let (_, bytes) = found.ok_or_else(|| format!("nobody says `{name}`"))?;
    dial::sound((*bytes).into()).map_err(|error| format!("{name}: {error}"))
}

/// Posts what is left; all files of the folder.
async fn post_all(server: &Server, folder: &Path) -> Result<Vec<PathBuf>, String> {
    while server.post().await?.is_some() {}
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "csv")).collect();
    files.sort();
    Ok(files)
}

/// Ledger, gateway and reconciliation file, three ways; what does not agree.
async fn reconcile(server: &Server, files: &[PathBuf]) -> Result<Vec<String>, String> {
    let ledger = server.store().intents().await.map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    for file in files {
        let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        rows.extend(reconcile::read(&bytes).map_err(|e| e.to_string())?.rows);
    }
    let sales: Vec<bogus::Charge> = match server.simulator() {
        Some(host) => host.sales(),
        None => Vec::new(),
    };
    let mut problems = Vec::new();
    for scene in scenes() {
        let found = ledger.iter().find(|(intent, _)| intent.account_id == scene.account);
        match found {
            Some((intent, state @ State::Posted(_))) if intent.amount == scene.amount => {
                let wanted = reconcile::Row::of(intent, state);
                problems.extend(compare(intent, &wanted, &rows, &sales));
            }
            Some((_, state)) => problems.push(format!("{}: {state:?}", scene.account)),
            None => problems.push(format!("{}: not in the ledger", scene.account)),
        }
    }
    if sales.len() != ledger.len() || rows.len() != ledger.len() {
        problems.push("ledger, gateway and file do not hold the same number of payments".into());
    }
    Ok(problems)
}

/// Each of the rows wanted of an approved payment is in the file once, and the gateway charged it
/// once.
fn compare(
    intent: &Intent,
    wanted: &[reconcile::Row],
    rows: &[reconcile::Row],
    sales: &[bogus::Charge],
) -> Option<String> {
    let approved = |row: &&reconcile::Row| row.status == Status::Approved;
    let found = |wanted: &reconcile::Row| {
        rows.iter().filter(approved).filter(|row| row.intent == wanted.intent).count()
    };
    let in_file: usize = wanted.iter().map(found).sum();
    let each_once = !wanted.is_empty() && wanted.iter().all(|wanted| found(wanted) == 1);
    let charged = |sale: &&bogus::Charge| {
        sale.reference == intent.id
            && sale.outcome == bogus::Outcome::Approved
            && Some(sale.total) == intent.amount.checked_add(intent.fee)
    };
    let at_gateway = sales.iter().filter(charged).count();
    (!each_once || at_gateway != 1)
        .then(|| format!("{}: {at_gateway} at the gateway, {in_file} in the file", intent.id))
}

fn tell_what_next(server: &Server, folder: &Path, posted: &[PathBuf], console: &Console) {
    let address = server.sip_address();
    let shown = folder.display();
    // As it was called: `cargo run` does not put it on the path.
    let ringtill = std::env::args().next().unwrap_or_else(|| "ringtill".into());
    println!("{}", console.heading("All payments approved, posted and reconciled."));
    println!("  recordings      {shown}/recordings   (card data is silence)");
    for file in posted {
        println!("  reconciliation  {}", file.display());
    }
    println!("  ledger          {shown}/ledger.db");
    println!("{}", console.heading("Try next"));
    println!("  {ringtill} serve -c {shown}/ringtill.toml");
    println!("  a softphone:    call sip:pay@{address}, UDP, no registration, PCMU, DTMF RFC 2833");
    println!("                  account 1003, ZIP 46220, card 4111 1111 1111 1111, any later date");
    println!(
        "  {ringtill} dial sip:pay@{address} --from +13175550123 --script \"hear menu.amount\""
    );
    println!("  sipp {address} -sf tests/sipp/uac_hangup.xml -i 127.0.0.1 -p 5070 -m 1");
}
