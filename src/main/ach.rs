//! `ringtill ach` on the command line: its arguments, and what they ask for.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use jiff::civil::Date;
use ringtill::server::ach::command;

use super::payments::user;
use super::{exit, read_config};

#[derive(Subcommand)]
pub enum AchCommand {
    /// Writes the debits that wait into a file for the bank now, not at the next cut-off
    Write {
        /// Banking day on which accounts are debited, such as 2026-12-01; the next one unless given
        #[arg(long)]
        date: Option<Date>,
    },
    /// Takes a file from the bank in: returns (R01) and notices of change (C01)
    ///
    /// A damaged file is refused whole; one that was taken in before changes nothing. Exit code 1:
    /// something of it is about no payment here, or a person must see to it.
    Import { file: PathBuf },
    /// Debits again what came back for lack of funds (R01, R09): twice at most
    Represent {
        /// Confirmation number or reference
        payment: String,
        /// Why; kept in the ledger
        #[arg(long, default_value = "presented again")]
        why: String,
        /// Who asks for it; kept in the ledger. The user of this machine unless given
        #[arg(long)]
        by: Option<String>,
    },
    /// Lists what is not debited any more since a return
    Blocked,
    /// Lets bank accounts be debited again that were blocked by the return of a payment
    Allow {
        /// Confirmation number or reference
        payment: String,
    },
}

pub async fn run(path: &Path, command: AchCommand) -> ExitCode {
    let config = match read_config(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let mut out = std::io::stdout();
    let done = match command {
        AchCommand::Write { date } => command::write(&config, date, &mut out).await,
        AchCommand::Import { file } => command::import(&config, &file, &mut out).await,
        AchCommand::Represent { payment, why, by } => {
            let who = by.unwrap_or_else(user);
            command::represent(&config, &payment, (&who, &why), &mut out).await
        }
        AchCommand::Blocked => command::blocked(&config, &mut out).await,
        AchCommand::Allow { payment } => command::allow(&config, &payment, &mut out).await,
    };
    exit(done)
}
