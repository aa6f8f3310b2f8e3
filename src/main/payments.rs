//! `ringtill payments` on the command line: its arguments, and what they ask for.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use ringtill::ledger::Undo;
use ringtill::server::store::{Decision, Filter};
use ringtill::server::{evidence, payments};

use super::{exit, read_config};

#[derive(Subcommand)]
pub enum PaymentsCommand {
    /// Lists payments, newest first
    List {
        /// Of this account alone
        #[arg(long)]
        account: Option<String>,
        /// In this state alone, such as approved, posted, declined, unknown, held, manual
        #[arg(long)]
        state: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Cards that were verified to be kept, too: nothing was charged for that
        #[arg(long)]
        verifications: bool,
    },
    /// Shows one payment with all its steps, voids and refunds
    Show {
        /// Confirmation number or reference
        payment: String,
    },
    /// Shows what the holder of a bank account has authorised, and writes its recording
    ///
    /// The recording is opened with [recording] authorisations_key and compared with its SHA-256.
    Authorisation {
        /// Confirmation number or reference
        payment: String,
        /// WAV file to write, which must not be there yet
        #[arg(long, value_name = "FILE")]
        wav: PathBuf,
    },
    /// Undoes a payment that has not settled
    Void {
        #[command(flatten)]
        reason: Reason,
        /// Although somebody let it stand without its fee (`waive`)
        #[arg(long)]
        waived: bool,
    },
    /// Pays back a payment that has settled, or a part of it
    Refund {
        #[command(flatten)]
        reason: Reason,
        /// Part to pay back, such as 12.50; all that is left unless given
        #[arg(long)]
        amount: Option<String>,
        /// Although somebody let it stand without its fee (`waive`)
        #[arg(long)]
        waived: bool,
    },
    /// Lets a bill stand whose fee, a charge of its own, was not charged
    ///
    /// Where such a bill would be voided ([payment] fee_failure) and could not be.
    Waive {
        #[command(flatten)]
        reason: Reason,
    },
    /// Writes down what you found at the gateway of a payment that is unknown, held or manual
    ///
    /// Nothing is sent. What you say is approved is in the next reconciliation file.
    Settle {
        #[command(flatten)]
        reason: Reason,
        /// What became of it
        #[arg(long = "as", value_enum)]
        outcome: Settled,
        /// What the gateway calls it; needed for one that is approved
        #[arg(long)]
        gateway_reference: Option<String>,
        /// Authorisation code, if there is one
        #[arg(long)]
        code: Option<String>,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Settled {
    /// The gateway has taken the money
    Approved,
    /// The gateway has refused it
    Declined,
    /// The gateway has never had it
    NotCharged,
}

#[derive(clap::Args)]
pub struct Reason {
    /// Confirmation number or reference
    payment: String,
    /// Why; kept in the ledger
    #[arg(long)]
    why: String,
    /// Who asks for it; kept in the ledger. The user of this machine unless given
    #[arg(long)]
    by: Option<String>,
}

impl Reason {
    fn wish(self, act: Undo, amount: Option<String>, waived: bool) -> payments::Wish {
        let who = self.who();
        payments::Wish { act, payment: self.payment, amount, waived, who, why: self.why }
    }

    fn found(self, decision: Decision) -> payments::Found {
        let who = self.who();
        payments::Found { payment: self.payment, decision, who, why: self.why }
    }

    fn who(&self) -> String {
        self.by.clone().unwrap_or_else(user)
    }
}

/// The user of this machine.
pub fn user() -> String {
    let names = ["SUDO_USER", "USER", "LOGNAME"];
    let named = |name| std::env::var(name).ok().filter(|n: &String| !n.is_empty());
    names.into_iter().find_map(named).unwrap_or_else(|| "unknown".into())
}

pub async fn run(path: &Path, command: PaymentsCommand) -> ExitCode {
    let config = match read_config(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let mut out = std::io::stdout();
    let done = match command {
        PaymentsCommand::List { account, state, limit, verifications } => {
            let limit = Some(limit);
            let all = Filter::default();
            let filter = Filter { account, state, limit, verifications, ..all };
            payments::list(&config, &filter, &mut out).await
        }
        PaymentsCommand::Show { payment } => payments::show(&config, &payment, &mut out).await,
        PaymentsCommand::Authorisation { payment, wav } => {
            evidence::export(&config, &payment, &wav, &mut out).map(|()| true)
        }
        PaymentsCommand::Void { reason, waived } => {
            payments::undo(&config, reason.wish(Undo::Void, None, waived), &mut out).await
        }
        PaymentsCommand::Refund { reason, amount, waived } => {
            payments::undo(&config, reason.wish(Undo::Refund, amount, waived), &mut out).await
        }
        PaymentsCommand::Waive { reason } => {
            let who = reason.who();
            payments::waive(&config, &reason.payment, (&who, &reason.why), &mut out).await
        }
        PaymentsCommand::Settle { reason, outcome, gateway_reference, code } => {
            let decision = match outcome {
                Settled::Approved => Decision::Approved { gateway_reference, auth_code: code },
                Settled::Declined => Decision::Declined,
                Settled::NotCharged => Decision::NotCharged,
            };
            payments::settle(&config, reason.found(decision), &mut out).await
        }
    };
    exit(done)
}
