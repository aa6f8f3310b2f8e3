//! `ringtill ach`: files for the bank written now, files from it taken in, what follows of them.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use jiff::civil::Date;

use super::news;
use super::{Account, Outbox};
use crate::ach::Code;
use crate::ach::returned::BYTES_MAX;
use crate::config::Config;
use crate::instrument::looks_like_card;
use crate::money::Money;
use crate::server::clock;
use crate::server::payments::{find, open, time, written};
use crate::server::store::Store;

/// Every configured gateway `nacha` with its files.
pub fn outboxes(config: &Config, store: &Store) -> Result<Vec<Outbox>, String> {
    let accounts = Account::all(config)?;
    if accounts.is_empty() {
        return Ok(Vec::new());
    }
    let bank = config.payment.bank.as_ref();
    let zone = bank
        .map(|bank| bank.zone.clone())
        .ok_or("[payment.bank] is missing: its time_zone tells which day a file is of")?;
    let outbox = |account| Outbox::new(account, zone.clone(), store.clone());
    Ok(accounts.into_iter().map(outbox).collect())
}

/// Writes all that waits; on which day accounts are debited, the next banking day unless given.
pub async fn write(
    config: &Config,
    effective: Option<Date>,
    out: &mut impl Write,
) -> Result<bool, String> {
    let store = open(config).await?;
    let outboxes = outboxes(config, &store)?;
    if outboxes.is_empty() {
        return Err("no gateway `nacha` is configured: nothing is debited by files".into());
    }
    let mut count = 0;
    for outbox in &outboxes {
        let now_ms = clock::wall_ms();
        for file in outbox.write(now_ms + 1, effective, now_ms).await? {
            count += 1;
            let path = file.path.display();
            let holds = file.holds.map_or(String::new(), |(debits, cents)| {
                let total = Money::usd(i64::try_from(cents).unwrap_or(i64::MAX));
                format!(": {debits} debits, {total}")
            });
            line(out, &format!("{path}{holds}"))?;
        }
    }
    if count == 0 {
        line(out, "nothing waits to be debited")?;
    }
    store.close().await;
    Ok(true)
}

/// Takes a file from the bank in and prints what it says; false: something of it is about nothing
/// that the ledger has, or is for a person.
pub async fn import(config: &Config, file: &Path, out: &mut impl Write) -> Result<bool, String> {
    let wrong = |why: String| format!("{}: {why}", file.display());
    let length = fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if length > BYTES_MAX {
        return Err(wrong(format!("it has {length} bytes: is this a file of returns?")));
    }
    let bytes = zeroize::Zeroizing::new(fs::read(file).map_err(|e| wrong(e.to_string()))?);
    let accounts = Account::all(config)?;
    let store = open(config).await?;
    let report = news::take(&store, &accounts, &bytes, clock::wall_ms()).await;
    let report = report.map_err(|why| wrong(format!("{why}. Nothing of it was taken in")))?;
    store.close().await;
    for told in &report.lines {
        line(out, told)?;
    }
    line(out, &report.summary())?;
    Ok(report.unmatched == 0)
}

/// Has a debit that came back for lack of funds made again.
pub async fn represent(
    config: &Config,
    payment: &str,
    (who, why): (&str, &str),
    out: &mut impl Write,
) -> Result<bool, String> {
    if looks_like_card(why) || looks_like_card(who) {
        return Err("what you write is kept: leave the card number out".into());
    }
    let accounts = Account::all(config)?;
    let store = open(config).await?;
    let Some((intent, ..)) = find(&store, payment).await? else { return none(payment, out) };
    let account =
        accounts.iter().find(|account| *account.id == *intent.gateway).ok_or_else(|| {
            format!("it was debited by `{}`, which is no gateway `nacha` here", intent.gateway)
        })?;
    let seal = |old: &str, sealed: &str, new: &str| {
        let receiver = account.unseal(old, sealed)?;
        account.seal(new, &receiver)
    };
    let done = store.represent(&intent, (who, why), seal, clock::wall_ms()).await;
    let attempt = done.map_err(|error| error.to_string())??;
    store.close().await;
    let (name, most) = (&intent.confirmation, crate::ach::code::AGAIN_MAX);
    line(out, &format!("{name} is debited again in the next file ({attempt} of {most} times)"))?;
    Ok(true)
}

/// Prints what may not be debited.
pub async fn blocked(config: &Config, out: &mut impl Write) -> Result<bool, String> {
    let store = open(config).await?;
    for block in store.blocks().await.map_err(|error| error.to_string())? {
        let reason = Code::parse(&block.code).map_or("", Code::reason);
        let what = if block.any { "any bank account" } else { "the bank account" };
        let (at, account) = (time(block.at_ms), &block.account_id);
        let told = format!(
            "{at}  account {account} of {}: {what} of payment {}  {}, {reason}",
            block.biller, block.name, block.code
        );
        line(out, &told)?;
    }
    Ok(true)
}

/// Lifts what the return of a payment has blocked; false if it has blocked nothing.
pub async fn allow(config: &Config, payment: &str, out: &mut impl Write) -> Result<bool, String> {
    let store = open(config).await?;
    let Some((intent, ..)) = find(&store, payment).await? else { return none(payment, out) };
    let lifted = store.lift_blocks(&intent.id).await.map_err(|error| error.to_string())?;
    store.close().await;
    let told = match lifted {
        0 => format!("{} blocks nothing: see `ringtill ach blocked`", intent.confirmation),
        _ => format!("bank accounts of account {} may be debited again", intent.account_id),
    };
    line(out, &told)?;
    Ok(lifted > 0)
}

fn none(payment: &str, out: &mut impl Write) -> Result<bool, String> {
    line(out, &format!("no payment has the confirmation number or reference {payment}"))?;
    Ok(false)
}

fn line(out: &mut impl Write, text: &str) -> Result<(), String> {
    let done: io::Result<()> = writeln!(out, "{text}");
    written(done)
}
