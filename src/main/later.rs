//! `ringtill later` on the command line.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use ringtill::server::later::command;

use super::payments::user;
use super::{exit, read_config};

#[derive(Subcommand)]
pub enum LaterCommand {
    /// Lists what callers have arranged, newest first, with each payment of it
    List {
        /// Of this account alone
        account: Option<String>,
        /// Those that have ended too
        #[arg(long)]
        all: bool,
    },
    /// Ends an arrangement: nothing more is charged
    Cancel {
        /// The number its caller was told
        number: String,
        /// Why; kept in the ledger
        #[arg(long)]
        why: String,
        /// Who asks for it; kept in the ledger. The user of this machine unless given
        #[arg(long)]
        by: Option<String>,
    },
}

pub async fn run(path: &Path, command: LaterCommand) -> ExitCode {
    let config = match read_config(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let mut out = std::io::stdout();
    exit(match command {
        LaterCommand::List { account, all } => {
            command::list(&config, account.as_deref(), all, &mut out).await
        }
        LaterCommand::Cancel { number, why, by } => {
            let who = by.unwrap_or_else(user);
            let cancellation = command::Cancellation { number, who, why };
            command::cancel(&config, cancellation, &mut out).await
        }
    })
}
