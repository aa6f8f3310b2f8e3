//! The command line.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use ringtill::config::Config;
use ringtill::server::{self, Server, prompts};

/// Takes card payments by phone: answers SIP calls, runs the payment, charges the gateway once.
#[derive(Parser)]
#[command(version, about, after_help = "Try it first: ringtill demo")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows two real calls over loopback: a server, a scripted caller, a simulated gateway
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
    Dial(dial::Options),
    /// The voice: check recordings, export the script for a voice talent, render with a command
    Prompts {
        #[command(flatten)]
        file: ConfigFile,
        #[command(subcommand)]
        command: PromptsCommand,
    },
}

#[derive(clap::Args)]
struct ConfigFile {
    /// Configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "ringtill.toml")]
    config: PathBuf,
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
            Command::Demo(options) => demo::run(options).await,
            Command::Serve { file } => serve(&file.config).await,
            Command::Check { file } => check(&file.config),
            Command::Dial(options) => dial::run(options).await,
            Command::Prompts { file, command } => voice(&file.config, command).await,
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
