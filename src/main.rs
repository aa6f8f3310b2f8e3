//! The command line.

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use ringtill::config::Config;
use ringtill::dial::script::Keying;
use ringtill::media::Method;
use ringtill::server::{self, Server, demo, dial, dtmf, explain, listen, prompts, reconcile};
use ringtill::sip::Transport;
use ringtill::sip::offer::{Law, SrtpPolicy};
use zeroizing_alloc::ZeroAlloc;

#[path = "main/ach.rs"]
mod ach;
#[path = "main/cards.rs"]
mod cards;
#[path = "main/later.rs"]
mod later;
#[path = "main/payments.rs"]
mod payments;
#[cfg(feature = "headset")]
#[path = "main/talk.rs"]
mod talk;

use ach::AchCommand;
use cards::CardsCommand;
use later::LaterCommand;
use payments::PaymentsCommand;

/// What is freed is zeroed: keys and card data pass through queues and buffers of others, which
/// hand their memory back as it was.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// Takes payments by phone: answers SIP calls, runs the payment, charges the gateway once.
#[derive(Parser)]
#[command(version, after_help = "Try it first: ringtill demo")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows three real calls over loopback: a server, a scripted caller, a simulated gateway
    Demo(demo::Options),
    /// Takes calls until SIGTERM (running calls finish; a second SIGTERM ends them)
    ///
    /// SIGHUP reads the account file again. Exit code 78: the configuration is wrong.
    Serve {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Checks the configuration and every file it names; reports all problems at once
    ///
    /// Answers no call and touches no port. Exit code 78: something is wrong.
    Check {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Places a scripted call to any SIP server: waits for prompts, keys digits, says what it heard
    Dial(DialArguments),
    /// Tells which keys are heard in a recording: key, start, end and when it was told, in ms
    ///
    /// Hears them as on a call. The keys are printed: give it nothing a caller keyed.
    Dtmf(DtmfArguments),
    /// Tells what is said in recordings, as an answer to a field: a line of JSON each
    ///
    /// Hears it as on a call. What is said is printed: give it nothing a caller said.
    /// Exit code 1: a file could not be read; the others are told.
    Listen(ListenArguments),
    /// Calls in person, or answers the recognizer, with this machine's microphone and loudspeaker
    ///
    /// Wear a headset: what the loudspeaker says is heard by the microphone. Keys are typed, and
    /// pressed when the line is ended. Interrupt it to hang up.
    #[cfg(feature = "headset")]
    Talk(talk::Arguments),
    /// The voice: check recordings, export the script for a voice talent, render with a command
    Prompts {
        #[command(flatten)]
        file: ConfigFile,
        #[command(subcommand)]
        command: PromptsCommand,
    },
    /// The gateway: a verification with a test card, step by step
    Gateway {
        #[command(subcommand)]
        command: GatewayCommand,
    },
    /// The payments in the ledger: list, show, void, refund, settle
    ///
    /// Exit code 0: done; 1: there is no such payment, or the money does not go back.
    Payments {
        #[command(flatten)]
        file: ConfigFile,
        #[command(subcommand)]
        command: PaymentsCommand,
    },
    /// The cards that callers have had kept for their next payments: list, delete
    ///
    /// Exit code 0: done; 1: there is no such card.
    Cards {
        #[command(flatten)]
        file: ConfigFile,
        #[command(subcommand)]
        command: CardsCommand,
    },
    /// What callers have arranged to be charged later to kept cards: list, cancel
    ///
    /// Exit code 0: done; 1: there is no such arrangement, or it cannot be cancelled.
    Later {
        #[command(flatten)]
        file: ConfigFile,
        #[command(subcommand)]
        command: LaterCommand,
    },
    /// Debits by NACHA file: write, import returns, represent, blocked, allow
    Ach {
        #[command(flatten)]
        file: ConfigFile,
        #[command(subcommand)]
        command: AchCommand,
    },
    /// Compares the payments of a day: ledger, gateway, reconciliation files
    ///
    /// Prints each difference with what to do about it. Exit code 1: there are differences.
    Reconcile {
        #[command(flatten)]
        file: ConfigFile,
        /// Day the payments were begun, in UTC, such as 2026-11-28; today unless given
        date: Option<jiff::civil::Date>,
    },
    /// The trunks: why a request is taken or refused, and the profiles that come with Ringtill
    Trunk {
        #[command(subcommand)]
        command: TrunkCommand,
    },
}

#[derive(clap::Args)]
struct ConfigFile {
    /// Configuration file
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        default_value = "ringtill.toml",
        global = true
    )]
    config: PathBuf,
}

#[derive(clap::Args)]
struct DtmfArguments {
    /// WAV file: 8000 Hz, 16 bit, mono
    file: PathBuf,
    /// What was sent meanwhile, a WAV file from the same moment on: its echo is removed
    #[arg(long, value_name = "PROMPT", conflicts_with = "rtp")]
    reference: Option<PathBuf>,
    /// The file holds RTP packets instead, one a line: `<arrival_ms> <sequence> <timestamp>
    /// <marker> <payload_type> <payload>`, payload in hex or `-` for 20 ms of silence; type 101
    /// is telephone-event
    #[arg(long)]
    rtp: bool,
}

#[derive(clap::Args)]
struct ListenArguments {
    /// What was asked for
    #[arg(long, value_enum)]
    field: listen::Asked,
    /// What hears it: digits (built in), or whisper:PATH with a ggml model
    #[arg(long, default_value = "digits")]
    engine: String,
    /// WAV (PCM or G.711) or FLAC files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Subcommand)]
enum PromptsCommand {
    /// Lists missing, wrong or unused recordings
    Check,
    /// Writes every phrase with its id and note as CSV, to be read by a voice talent
    Export,
    /// Says every phrase with the command of [prompts.synthesis] into FOLDER/clips
    Render { folder: PathBuf },
}

#[derive(Subcommand)]
enum GatewayCommand {
    /// Verifies the test card 4111 1111 1111 1111 with each configured gateway; no money moves
    ///
    /// Tells what was reached, the TLS name, the verdict, AVS and CVV, and whose fault a failure
    /// is. Exit code 1: the card was not approved.
    Test {
        #[command(flatten)]
        file: ConfigFile,
        /// Only the gateway of this id
        id: Option<String>,
    },
}

fn exit(done: Result<bool, String>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => fail(&why),
    }
}

async fn reconcile_day(path: &Path, date: Option<jiff::civil::Date>) -> ExitCode {
    match read_config(path) {
        Ok(config) => exit(reconcile::run(&config, date, &mut std::io::stdout()).await),
        Err(code) => code,
    }
}

#[derive(Subcommand)]
enum TrunkCommand {
    /// Tells which trunk takes a SIP request, by which rule, and why the others do not
    ///
    /// Exit code 0: a trunk takes it; 1: none does; 2: the file holds no SIP request.
    Explain(ExplainArguments),
    /// Lists the bundled profiles
    List,
}

#[derive(clap::Args)]
struct ExplainArguments {
    #[command(flatten)]
    config: ConfigFile,
    /// File with one SIP request, such as an INVITE copied from a trace; `-` reads standard input
    file: PathBuf,
    /// Where it came from; without this its topmost Via is believed
    #[arg(long, value_name = "IP:PORT")]
    from: Option<std::net::SocketAddr>,
    /// How it came; without this its topmost Via is believed
    #[arg(long, value_enum)]
    transport: Option<TransportName>,
    /// Name in the TLS client certificate that was shown; may be repeated
    #[arg(long = "certificate", value_name = "NAME")]
    certificates: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum TransportName {
    Udp,
    Tcp,
    Tls,
}

#[derive(clap::Args)]
#[command(after_help = "\
Steps, separated by commas or line ends:
  hear PHRASE [SECONDS]        wait until a prompt of ours has been said (`speech`: any sound)
  hear-start PHRASE [SECONDS]  wait until it begins, to key into it
  key KEYS                     0-9 * # A-D
  pause MILLISECONDS
  hangup
  wait-end [SECONDS]           wait for the other side to hang up

Example:
  ringtill dial sip:pay@127.0.0.1 --from +13175550123 \\
      --script 'hear menu.amount, key 1, hear card.ask, hangup'")]
struct DialArguments {
    /// Whom to call, such as sip:pay@192.0.2.10:5060
    target: String,
    /// Our number, or a whole SIP URI
    #[arg(long)]
    from: Option<String>,
    /// Steps of the call; without any it listens until the other side hangs up
    #[arg(long, default_value = "")]
    script: String,
    /// Read the steps from a file
    #[arg(long, value_name = "FILE", conflicts_with = "script")]
    script_file: Option<PathBuf>,
    /// How keys are sent
    #[arg(long, value_enum, default_value = "rfc4733")]
    keys: KeyMethod,
    /// Length of a key in milliseconds
    #[arg(long, default_value_t = 100)]
    on_ms: u16,
    /// Pause after a key in milliseconds
    #[arg(long, default_value_t = 100)]
    off_ms: u16,
    /// Codecs to offer, preferred first
    #[arg(long, value_enum, value_delimiter = ',', default_value = "pcmu,pcma")]
    codecs: Vec<Codec>,
    /// Offer encrypted media (SRTP, keys in the SDP) and take no other
    #[arg(long)]
    srtp: bool,
    /// Header to add to the INVITE, such as 'X-Account: 1001'; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Our address, if the route to the target does not tell
    #[arg(long)]
    local: Option<std::net::IpAddr>,
    /// Hang up after this many seconds
    #[arg(long, default_value_t = 300)]
    seconds_max: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum KeyMethod {
    /// RFC 4733 telephone-events
    Rfc4733,
    /// DTMF tones in the audio
    Inband,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Codec {
    Pcmu,
    Pcma,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value'")?;
    Ok((name.trim().to_string(), value.trim().to_string()))
}

async fn call(arguments: DialArguments) -> ExitCode {
    let script = match &arguments.script_file {
        None => arguments.script,
        Some(file) => match std::fs::read_to_string(file) {
            Ok(script) => script,
            Err(error) => return fail(&format!("{}: {error}", file.display())),
        },
    };
    let method = match arguments.keys {
        KeyMethod::Rfc4733 => Method::Events,
        KeyMethod::Inband => Method::InBand,
    };
    let law = |codec: &Codec| match codec {
        Codec::Pcmu => Law::Mu,
        Codec::Pcma => Law::A,
    };
    let options = dial::Options {
        target: arguments.target,
        from: arguments.from,
        script,
        keying: Keying { method, on_ms: arguments.on_ms, off_ms: arguments.off_ms },
        srtp: if arguments.srtp { SrtpPolicy::Required } else { SrtpPolicy::Off },
        laws: arguments.codecs.iter().map(law).collect(),
        headers: arguments.headers,
        prompts: ringtill::prompt::Settings::default(),
        local: arguments.local,
        call_max: std::time::Duration::from_secs(arguments.seconds_max),
        person: None,
    };
    dial::dial(options, &mut std::io::stdout()).await
}

/// sysexits.h EX_CONFIG.
const WRONG_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("this machine gives us no threads: {error}")),
    };
    runtime.block_on(async {
        match arguments.command {
            Command::Demo(options) => Box::pin(demo::run(options)).await,
            Command::Serve { file } => serve(&file.config).await,
            Command::Check { file } => check(&file.config),
            Command::Dial(arguments) => call(arguments).await,
            Command::Dtmf(arguments) => keys(&arguments),
            Command::Listen(arguments) => said(&arguments),
            #[cfg(feature = "headset")]
            Command::Talk(arguments) => Box::pin(talk::run(arguments)).await,
            Command::Prompts { file, command } => voice(&file.config, command).await,
            Command::Gateway { command: GatewayCommand::Test { file, id } } => {
                Box::pin(verify(&file.config, id.as_deref())).await
            }
            Command::Payments { file, command } => {
                Box::pin(payments::run(&file.config, command)).await
            }
            Command::Cards { file, command } => Box::pin(cards::run(&file.config, command)).await,
            Command::Later { file, command } => Box::pin(later::run(&file.config, command)).await,
            Command::Ach { file, command } => Box::pin(ach::run(&file.config, command)).await,
            Command::Reconcile { file, date } => Box::pin(reconcile_day(&file.config, date)).await,
            Command::Trunk { command } => trunk(command),
        }
    })
}

fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}

fn read_config(path: &Path) -> Result<Config, ExitCode> {
    server::read_config(path).map_err(|report| {
        eprint!("{report}");
        ExitCode::from(WRONG_CONFIGURATION)
    })
}

async fn serve(path: &Path) -> ExitCode {
    let config = match read_config(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Err(error) = server::start_log(&config.log) {
        eprintln!("error: [log] level: {error}; write \"info\"");
        return ExitCode::from(WRONG_CONFIGURATION);
    }
    let drain = std::time::Duration::from_secs(60 * config.sip.drain_minutes);
    match Server::start(config, None).await {
        Ok(server) => server.serve_until_told(drain).await,
        Err(error) => {
            eprintln!("error: {error}");
            let code = if error.configuration { WRONG_CONFIGURATION } else { 1 };
            ExitCode::from(code)
        }
    }
}

fn check(path: &Path) -> ExitCode {
    let config = match read_config(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let problems = server::check(&config);
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    if problems.is_empty() {
        println!("{}: no problem found", path.display());
        ExitCode::SUCCESS
    } else {
        ExitCode::from(WRONG_CONFIGURATION)
    }
}

async fn verify(path: &Path, id: Option<&str>) -> ExitCode {
    let config = match read_config(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match server::verify::test(&config, id, &mut std::io::stdout()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error.to_string()),
    }
}

fn trunk(command: TrunkCommand) -> ExitCode {
    let arguments = match command {
        TrunkCommand::List => {
            print!("{}", explain::list());
            return ExitCode::SUCCESS;
        }
        TrunkCommand::Explain(arguments) => arguments,
    };
    let config = match read_config(&arguments.config.config) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let options = explain::Options {
        file: arguments.file,
        from: arguments.from,
        transport: arguments.transport.map(|name| match name {
            TransportName::Udp => Transport::Udp,
            TransportName::Tcp => Transport::Tcp,
            TransportName::Tls => Transport::Tls,
        }),
        certificates: arguments.certificates,
    };
    let (text, verdict) = explain::explain(&config, &options);
    match verdict {
        explain::Verdict::Unreadable => eprint!("{text}"),
        explain::Verdict::Taken | explain::Verdict::Unknown => print!("{text}"),
    }
    ExitCode::from(match verdict {
        explain::Verdict::Taken => 0,
        explain::Verdict::Unknown => 1,
        explain::Verdict::Unreadable => 2,
    })
}

fn keys(arguments: &DtmfArguments) -> ExitCode {
    let mut out = std::io::stdout();
    let done = match arguments.rtp {
        true => dtmf::hear_packets(&arguments.file, &mut out),
        false => dtmf::hear(&arguments.file, arguments.reference.as_deref(), &mut out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(dtmf::Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string()),
    }
}

fn said(arguments: &ListenArguments) -> ExitCode {
    let ListenArguments { field, engine, files } = arguments;
    let (mut out, mut problems) = (std::io::stdout(), std::io::stderr());
    match listen::listen(files, *field, engine, &mut out, &mut problems) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(listen::Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string()),
    }
}

async fn voice(path: &Path, command: PromptsCommand) -> ExitCode {
    // The bundled voice can be looked at without a configuration.
    let settings = if path.exists() {
        match read_config(path) {
            Ok(config) => config.prompts,
            Err(code) => return code,
        }
    } else {
        ringtill::prompt::Settings::default()
    };
    let mut out = std::io::stdout();
    let done = match command {
        PromptsCommand::Check => prompts::check(&settings, &mut out),
        PromptsCommand::Export => match prompts::export(&settings, &mut out) {
            Ok(()) => Ok(true),
            Err(problems) => {
                for problem in problems {
                    eprintln!("{problem}");
                }
                Ok(false)
            }
        },
        PromptsCommand::Render { folder } => prompts::render(&settings, &folder, &mut out).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(WRONG_CONFIGURATION),
        // A reader that has seen enough, such as `head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_named_before_or_after_what_is_to_be_done() {
        for line in [
            "ringtill payments -c x.toml list",
            "ringtill payments list -c x.toml --verifications",
            "ringtill payments list --config x.toml",
        ] {
            let arguments = Arguments::try_parse_from(line.split(' '));
            let Ok(Arguments { command: Command::Payments { file, .. } }) = arguments else {
                panic!("{line}")
            };
            assert_eq!(file.config, Path::new("x.toml"), "{line}");
        }
    }

    #[test]
    fn no_command_contradicts_itself() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
