//! `ringtill cards`: what callers have kept for their next payments, and deleting it.

use std::io::{self, Write};

use super::clock;
use super::payments::{may_be_kept, open, time, written};
use crate::config::Config;
use crate::ledger::{Entry, Recorded};

/// Prints the cards that may be charged, newest first.
pub async fn list(
    config: &Config,
    account: Option<&str>,
    out: &mut impl Write,
) -> Result<bool, String> {
    let store = open(config).await?;
    let cards =
        store.cards(&config.payment.biller, account).await.map_err(|error| error.to_string())?;
    let print = |out: &mut dyn Write| -> io::Result<()> {
        for card in &cards {
            let (year, month) = card.expiry;
            writeln!(
                out,
                "{}  account {}  {} {}  {month:02}/{year}  {}  {}",
                time(card.created_ms),
                card.account_id,
                card.brand,
                card.last4,
                card.gateway,
                card.id,
            )?;
        }
        Ok(())
    };
    written(print(out))?;
    Ok(true)
}

/// Cards that are to be charged no more.
pub struct Deletion {
    pub account: String,
    /// Last four digits; all of the account's unless given.
    pub ending: Option<String>,
    pub who: String,
    pub why: String,
}

/// Deletes cards of an account, and prints which; false if it has none.
pub async fn delete(
    config: &Config,
    deletion: Deletion,
    out: &mut impl Write,
) -> Result<bool, String> {
    let Deletion { account, ending, who, why } = deletion;
    may_be_kept(&[&why, &who], &why)?;
    if account.trim().is_empty() {
        return Err("whose cards? Write the number of an account".into());
    }
    let store = open(config).await?;
    let mut cards = store
        .cards(&config.payment.biller, Some(&account))
        .await
        .map_err(|error| error.to_string())?;
    cards.retain(|card| ending.as_ref().is_none_or(|ending| card.last4 == *ending));
    let biller = &config.payment.biller;
    let arranged = store.list_arrangements(biller, Some(&account), false).await;
    let arranged = arranged.map_err(|error| error.to_string())?;
    for card in &cards {
        let (who, why) = (who.clone(), why.clone());
        let entry = Entry::Drop { card: card.id.clone(), who, why };
        match store.record(entry, clock::wall_ms()).await {
            // Somebody was faster: it is deleted all the same.
            Recorded::Stored | Recorded::Illegal => {}
            Recorded::Conflict => return Err("the ledger did not take it: try again".into()),
            Recorded::Failed(why) => return Err(why),
        }
        written(writeln!(
            out,
            "{} ending {} is charged no more; `{}` still has it: delete it there too",
            card.brand, card.last4, card.gateway
        ))?;
    }
    for one in arranged {
        let now =
            store.arrangement(biller, &one.number).await.map_err(|error| error.to_string())?;
        if now.is_some_and(|now| now.state != "active") {
            let (number, kind) = (one.number, one.kind.name());
            let charging = store.is_charging(&one.id).await.map_err(|error| error.to_string())?;
            let then = match charging {
                true => "one payment is on its way: `ringtill later list --all` tells of it",
                false => "nothing more is charged",
            };
            written(writeln!(out, "{number} ({kind}) is stopped: {then}"))?;
        }
    }
    store.close().await;
    if cards.is_empty() {
        written(writeln!(out, "no such card is kept for account {account}"))?;
    }
    Ok(!cards.is_empty())
}
