//! `ringtill cards` on the command line.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use ringtill::server::cards;

use super::payments::user;
use super::{exit, read_config};

#[derive(Subcommand)]
pub enum CardsCommand {
    /// Lists kept cards, newest first: brand, last four digits, expiry, and who keeps them
    List {
        /// Of this account alone
        account: Option<String>,
    },
    /// Has cards of an account charged no more
    ///
    /// Callers are not offered them any more, and their tokens are wiped from the ledger. The
    /// gateway still has them: delete them there too.
    Delete {
        account: String,
        /// Only the one that ends in these four digits
        #[arg(long)]
        ending: Option<String>,
        /// Why; kept in the ledger
        #[arg(long)]
        why: String,
        /// Who asks for it; kept in the ledger. The user of this machine unless given
        #[arg(long)]
        by: Option<String>,
    },
}

pub async fn run(path: &Path, command: CardsCommand) -> ExitCode {
    let config = match read_config(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let mut out = std::io::stdout();
    exit(match command {
        CardsCommand::List { account } => cards::list(&config, account.as_deref(), &mut out).await,
        CardsCommand::Delete { account, ending, why, by } => {
            let deletion = cards::Deletion { account, ending, who: by.unwrap_or_else(user), why };
            cards::delete(&config, deletion, &mut out).await
        }
    })
}
