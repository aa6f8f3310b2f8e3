//! The greeting: by name and balance when the trunk vouches for the caller id.

use super::{Desk, Line, Note, phrases};
use crate::account::{Account, Query};
use crate::prompt::Prompt;

/// Welcomes the caller; the account when the trusted caller id belongs to exactly one.
pub(super) async fn known(line: &mut Line, desk: &Desk) -> Option<Account> {
    line.note(Note::Step("greet"));
    let account = by_caller_id(line, desk).await;
    match &account {
        Some(account) => {
            line.note(Note::Identified { account: account.id.clone(), by: "caller id" });
            let name = account.name_first.clone().filter(|_| !desk.caller.name_withheld);
            let mut greeting = phrases(["greet.hello"]);
            match name {
                Some(name) if line.name(&name).await => greeting.push(Prompt::Name(name)),
                _ => greeting = phrases(["greet.welcome"]),
            }
            line.say(greeting).await;
        }
        None => line.say(phrases(["greet.welcome"])).await,
    }
    account
}

/// A phone shared by several accounts proves none of them.
async fn by_caller_id(line: &mut Line, desk: &Desk) -> Option<Account> {
    let number = desk.caller.number.clone().filter(|_| desk.caller.trusted)?;
    let mut found = line.lookup(Query::Phone(number)).await;
    if found.len() == 1 { found.pop() } else { None }
}
