//! Account number and ZIP. A wrong account and a wrong ZIP sound the same.

use super::{Desk, Leave, Line, Note, phrases};
use crate::account::{Account, Query};
use crate::dialogue::grammar::{AccountNumber, ZipCode};
use crate::dialogue::{Field, ReadBack, Voice};
use crate::speech;

/// Authenticates a caller we do not know; the account number may have come with the call.
pub(super) async fn caller(line: &mut Line, desk: &Desk) -> Result<Account, Leave> {
    authenticate(line, desk, desk.caller.account.clone()).await
}

/// Authenticates for another account than the one on the table.
pub(super) async fn other_account(line: &mut Line, desk: &Desk) -> Result<Account, Leave> {
    authenticate(line, desk, None).await
}

/// Digits of an account number that is said: fewer are heard in any noise, more in none.
const SPOKEN_MIN: u8 = 3;
const SPOKEN_MAX: usize = speech::DIGITS_MAX;

async fn authenticate(
    line: &mut Line,
    desk: &Desk,
    mut known: Option<String>,
) -> Result<Account, Leave> {
    line.note(Note::Step("authenticate"));
    let len_max = desk.settings.account_len_max;
    let account = Field::number("account", "account.ask", AccountNumber { len_max });
    let account = account.help("account.ask_help").masked().spoken(Voice {
        field: speech::Field::Digits { min: SPOKEN_MIN, max: len_max.min(SPOKEN_MAX) as u8 },
        read_back: ReadBack::Always,
        prompt: "account.say",
    });
    let zip = Field::number("verify", "zip.verify_ask", ZipCode).masked().spoken(Voice {
        field: speech::Field::Zip,
        read_back: ReadBack::Always,
        prompt: "zip.verify_say",
    });
    let mut tries = 0;
    while tries < desk.settings.authentications_max {
        let number = match known.take() {
            Some(number) => number,
            None => line.ask(&account).await?,
        };
        let zip = match line.ask(&zip).await {
            Err(Leave::Back) => continue,
            answer => answer?,
        };
        let query = Query::Verified { account: number, zip: zip.to_string() };
        if let Some(account) = line.lookup(query).await.pop() {
            line.note(Note::Identified { account: account.id.clone(), by: "account and ZIP" });
            return Ok(account);
        }
        tries += 1;
        line.tell(phrases(["account.not_found"])).await;
    }
    Err(Leave::Failed)
}
