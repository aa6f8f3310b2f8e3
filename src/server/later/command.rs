//! `ringtill later`: what callers have arranged, and cancelling it.

use std::io::{self, Write};

use crate::config::Config;
use crate::ledger::arrangement::Kind;
use crate::ledger::{Entry, Recorded};
use crate::server::clock;
use crate::server::payments::{may_be_kept, open, time, written};
use crate::server::store::arrangement::list::Listed;

/// Prints arrangements with their payments, newest first; those that have ended too if `all`.
pub async fn list(
    config: &Config,
    account: Option<&str>,
    all: bool,
    out: &mut impl Write,
) -> Result<bool, String> {
    let store = open(config).await?;
    let biller = &config.payment.biller;
    let listed = store.list_arrangements(biller, account, all).await;
    let listed = listed.map_err(|error| error.to_string())?;
    store.close().await;
    written(listed.iter().try_for_each(|one| print(one, out)))?;
    Ok(true)
}

fn print(one: &Listed, out: &mut impl Write) -> io::Result<()> {
    let ended = one.ended.as_ref().map_or(String::new(), |(who, why)| {
        let by = if who.is_empty() { String::new() } else { format!(" by {who}") };
        format!("{by}: {why}")
    });
    writeln!(
        out,
        "{}  {}  account {}  {}  {} {}  {}{ended}",
        one.number,
        time(one.created_ms),
        one.account_id,
        one.kind.name(),
        one.brand,
        one.last4,
        one.state,
    )?;
    if one.kind == Kind::AutoPay {
        writeln!(out, "    the balance on each due date, {} at most", one.limit)?;
    }
    for each in &one.instalments {
        let total = each.amount.checked_add(each.fee).unwrap_or(each.amount);
        let total = if total.is_positive() { total.to_string() } else { "the balance".into() };
        let confirmation = each
            .confirmation
            .as_ref()
            .map_or(String::new(), |number| format!("  confirmation {number}"));
        let why = if each.detail.is_empty() { String::new() } else { format!("  {}", each.detail) };
        writeln!(out, "    {}  {total}  {}{confirmation}{why}", each.due, each.state)?;
    }
    Ok(())
}

/// What is to be charged no more.
pub struct Cancellation {
    pub number: String,
    pub who: String,
    pub why: String,
}

/// Ends an arrangement; false if there is none that can be ended.
pub async fn cancel(
    config: &Config,
    cancellation: Cancellation,
    out: &mut impl Write,
) -> Result<bool, String> {
    let Cancellation { number, who, why } = cancellation;
    may_be_kept(&[&why, &who], &why)?;
    let store = open(config).await?;
    let found = store.arrangement(&config.payment.biller, &number).await;
    let found = found.map_err(|error| error.to_string())?;
    let (done, told) = match found {
        None => (false, format!("there is no arrangement {number}")),
        Some(one) if one.state != "active" => (false, format!("{number} is {} already", one.state)),
        Some(one) => {
            let entry = Entry::Cancel { arrangement: one.id, who, why };
            match store.record(entry, clock::wall_ms()).await {
                Recorded::Stored => {
                    (true, format!("{number} is cancelled: nothing more is charged"))
                }
                Recorded::Failed(why) => return Err(why),
                Recorded::Illegal | Recorded::Conflict => (
                    false,
                    format!("a payment of {number} is being charged: try again in some minutes"),
                ),
            }
        }
    };
    store.close().await;
    written(writeln!(out, "{told}"))?;
    Ok(done)
}
