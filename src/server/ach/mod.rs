//! The gateway `nacha` in this process: debits are written down sealed, go to the bank in files,
//! and what the bank sends back is taken in.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Response};
use zeroize::Zeroizing;

use super::clock;
use super::seal::{Key, Purpose};
use super::store::ach::Debited;
use super::store::{Store, StoreError};
use crate::ach::Receiver;
use crate::ach::settings::Settings;
use crate::config::{self, Config};
use crate::gateway::{Exchange, Request, nacha};

pub mod command; // `ringtill ach`
pub mod disk; // files put in place, one step after the other
pub mod news; // what the bank sends back, taken in
pub mod outbox; // files for the bank

pub use outbox::Outbox;

/// A configured gateway `nacha`, with its key.
#[derive(Clone)]
pub struct Account {
    /// What the ledger calls it.
    pub id: Arc<str>,
    pub settings: Settings,
    key: Key,
}

impl Account {
    pub fn open(gateway: &config::Gateway) -> Result<Account, String> {
        let of = |why: String| format!("gateway `{}`: [gateway.settings] {why}", gateway.id());
        let table = gateway.settings.clone().unwrap_or_default();
        let settings = Settings::read(&table).map_err(|wrong| {
            let all: Vec<_> = wrong.iter().map(|w| format!("{}; {}", w.what, w.instead)).collect();
            of(all.join("\n  "))
        })?;
        let file = &settings.account_key;
        let key = Key::read(file, Purpose::Accounts)
            .map_err(|why| of(format!("account_key {}: {why}", file.display())))?;
        private(&settings.directory).map_err(of)?;
        Ok(Account { id: gateway.id().into(), settings, key })
    }

    /// All that are configured; what is wrong with one is wrong.
    pub fn all(config: &Config) -> Result<Vec<Account>, String> {
        let ours = config.gateways.iter().filter(|gateway| gateway.name == nacha::NAME);
        ours.map(Account::open).collect()
    }

    fn seal(&self, name: &str, receiver: &Receiver) -> Result<String, String> {
        Ok(STANDARD.encode(self.key.seal(name, &receiver.encode())?))
    }

    fn unseal(&self, name: &str, sealed: &str) -> Result<Receiver, String> {
        let wrong = |why: &str| {
            let file = self.settings.account_key.display();
            format!("gateway `{}`: account_key {file}: a debit cannot be opened: {why}", self.id)
        };
        let sealed = STANDARD.decode(sealed).map_err(|_| wrong("it was changed"))?;
        let plain = self.key.open(name, &sealed).map_err(|why| wrong(&why))?;
        Receiver::decode(&plain).ok_or_else(|| wrong("it is no account"))
    }
}

/// Files with account numbers are for us and whoever takes them to the bank.
fn private(folder: &Path) -> Result<(), String> {
    let shown = folder.display();
    match std::fs::metadata(folder) {
        Err(_) => Ok(()),
        Ok(found) if !found.is_dir() => Err(format!("directory {shown}: is no folder; name one")),
        #[cfg(unix)]
        Ok(found) if std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o077 != 0 => {
            Err(format!("directory {shown}: others may read it: `chmod 700` it"))
        }
        Ok(_) => Ok(()),
    }
}

/// Answers the requests of [`nacha::Nacha`].
#[derive(Clone)]
pub struct Desk {
    account: Account,
    store: Store,
}

impl Desk {
    pub fn new(account: Account, store: Store) -> Desk {
        Desk { account, store }
    }

    /// Whatever fails may have been written all the same: then nobody answers.
    pub async fn answer(&self, request: Request) -> Exchange {
        let Request { head, body, .. } = request;
        let Some(reference) = head.uri.path().strip_prefix("/debits/") else {
            return reply(404, "");
        };
        match head.method {
            Method::POST => self.debit(reference, body).await,
            Method::GET => self.look_up(reference).await,
            Method::DELETE => match self.store.take_out(reference).await {
                Ok(Ok(name)) => reply(200, &name),
                Ok(Err(why)) => reply(409, why),
                Err(error) => Exchange::NoAnswer(error.to_string()),
            },
            _ => reply(404, ""),
        }
    }

    async fn debit(&self, reference: &str, body: Zeroizing<Vec<u8>>) -> Exchange {
        let Some(mut receiver) = Receiver::decode(&body) else {
            return Exchange::NotSent("this is no bank account".into());
        };
        let account = &self.account;
        let seal = |corrected: Option<(String, String)>| {
            // What its bank has said of this account holds, not what the caller knows of it.
            if let Some((fingerprint, sealed)) = corrected {
                match account.unseal(&fingerprint, &sealed) {
                    Ok(corrected) => receiver.account = corrected.account,
                    // With another key than it was sealed with. The bank corrects it once more.
                    Err(why) => tracing::error!(
                        reference,
                        fault = "configuration",
                        "a correction by the bank cannot be opened, the account is debited as it \
                         was keyed: {why}"
                    ),
                }
            }
            account.seal(reference, &receiver)
        };
        match self.store.debit(&account.id, reference, seal, clock::wall_ms()).await {
            Ok(Debited::Stored(name, true)) => reply(201, &name),
            Ok(Debited::Stored(name, false)) => reply(200, &name),
            Ok(Debited::Blocked(code)) => {
                tracing::info!(reference, code, "the account is blocked since a return");
                reply(403, &code)
            }
            Ok(Debited::Refused(why)) => reply(409, why),
            // It was not sealed, so nothing was written.
            Err(StoreError::File(why)) => Exchange::NotSent(why),
            Err(error) => Exchange::NoAnswer(error.to_string()),
        }
    }

    async fn look_up(&self, reference: &str) -> Exchange {
        match self.store.debits(reference).await {
            Err(error) => Exchange::NoAnswer(error.to_string()),
            Ok(debits) => match debits.first() {
                None => reply(404, ""),
                Some(debit) if debit.state == "void" => reply(410, &debit.name),
                Some(debit) => reply(200, &debit.name),
            },
        }
    }
}

fn reply(status: u16, body: &str) -> Exchange {
    let built = Response::builder().status(status).body(body.as_bytes().to_vec());
    built.map_or_else(|error| Exchange::NoAnswer(error.to_string()), Exchange::Response)
}

#[cfg(test)]
mod tests;
