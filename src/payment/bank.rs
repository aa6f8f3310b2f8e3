//! The bank account, field by field; `*` goes back one field, and only a wrong field is asked
//! again. The account number is asked for twice, for no checksum vouches for it: each time it may
//! be keyed or said.

use std::sync::Arc;

use super::{Banks, Desk, Leave, Line, Settings, phrases};
use crate::account::Account;
use crate::dialogue::grammar::Menu;
use crate::dialogue::{Extent, Field, Grammar, ReadBack, Reject, Voice};
use crate::gateway::Fixable;
use crate::instrument::{AccountKind, BankAccount, Debit, HolderKind, Method, RoutingNumber};
use crate::prompt::Prompt;
use crate::secret::Secret;
use crate::speech;

/// Pairs of account numbers that do not match before the agent takes over.
const PAIRS_MAX: usize = 3;

/// Whether this caller may pay from a bank account, if the biller lets them: by phone it is
/// authorised by who calls us, and by name. Nacha wants a relationship before a consumer is called
/// for it.
pub(super) fn is_offered(desk: &Desk, account: &Account) -> bool {
    desk.settings.bank.is_some()
        && account.may.pay_by_bank
        && (desk.caller_placed || account.may.be_called)
        && desk.routes.all().iter().any(|route| route.takes.bank)
        && holder(account).is_some()
        && account.id.bytes().any(|b| b.is_ascii_digit())
}

/// Whose account it is: of the biller's customer, as the biller knows them.
fn holder(account: &Account) -> Option<String> {
    let names = [&account.name_first, &account.name_last];
    let names: Vec<&str> = names.into_iter().flatten().map(|name| name.trim()).collect();
    let whole = names.join(" ").trim().to_string();
    (!whole.is_empty()).then_some(whole)
}

/// What is known of an account so far.
#[derive(Default)]
pub(super) struct Draft {
    routing: Option<RoutingNumber>,
    kind: Option<AccountKind>,
    number: Option<Secret<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Routing,
    Kind,
    Number,
}

impl Draft {
    /// An account whose `field` the gateway did not like.
    pub(super) fn without(debit: Debit, field: Fixable) -> Draft {
        let mut draft = Draft::from(debit);
        match field {
            Fixable::Routing => draft.routing = None,
            Fixable::Account => draft.number = None,
            _ => return Draft::default(),
        }
        draft
    }

    /// A complete account, one field back from the end.
    pub(super) fn back(debit: Debit) -> Draft {
        Draft { number: None, ..Draft::from(debit) }
    }

    fn from(debit: Debit) -> Draft {
        let number = Secret::new(debit.account.expose().to_string());
        let (routing, kind) = (debit.account.routing, debit.account.kind);
        Draft { routing: Some(routing), kind: Some(kind), number: Some(number) }
    }

    /// The first field that is asked for and not known.
    fn missing(&self, settings: &Settings) -> Option<Part> {
        asked(settings).find(|part| match part {
            Part::Routing => self.routing.is_none(),
            Part::Kind => self.kind.is_none(),
            Part::Number => self.number.is_none(),
        })
    }

    /// Forgets the field before the missing one; false at the routing number.
    fn step_back(&mut self, settings: &Settings) -> bool {
        let missing = self.missing(settings);
        match asked(settings).take_while(|part| Some(*part) != missing).last() {
            None => return false,
            Some(Part::Routing) => self.routing = None,
            Some(Part::Kind) => self.kind = None,
            Some(Part::Number) => self.number = None,
        }
        true
    }
}

/// A biller who takes one kind of account does not ask for it.
fn asked(settings: &Settings) -> impl Iterator<Item = Part> {
    let choice = kinds(settings).len() > 1;
    let all = [Part::Routing, Part::Kind, Part::Number];
    all.into_iter().filter(move |part| *part != Part::Kind || choice)
}

fn kinds(settings: &Settings) -> &[AccountKind] {
    settings.bank.as_ref().map_or(&[], |bank| &bank.accounts)
}

/// Asks for what the draft lacks. [`Leave::Back`]: the caller went back past the routing number.
pub(super) async fn take(
    line: &mut Line,
    desk: &Desk,
    account: &Account,
    mut draft: Draft,
) -> Result<Debit, Leave> {
    loop {
        match ask_next(line, desk, &mut draft).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(Leave::Back) if draft.step_back(&desk.settings) => {}
            Err(leave) => return Err(leave),
        }
    }
    let kind = draft.kind.or(kinds(&desk.settings).first().copied()).ok_or(Leave::Failed)?;
    let Draft { routing: Some(routing), number: Some(number), .. } = draft else {
        return Err(Leave::Failed);
    };
    let bank = BankAccount::parse(routing, number.expose(), kind).ok_or(Leave::Failed)?;
    let holder = holder(account).ok_or(Leave::Failed)?.into();
    Ok(Debit { account: bank, holder, holder_kind: HolderKind::Personal })
}

/// Asks for the first missing field; false when none is missing.
async fn ask_next(line: &mut Line, desk: &Desk, draft: &mut Draft) -> Result<bool, Leave> {
    match draft.missing(&desk.settings) {
        None => return Ok(false),
        Some(Part::Routing) => {
            let grammar = Routing { banks: desk.banks.clone() };
            let field = Field::number("routing", "routing.ask", grammar).help("routing.ask_help");
            let field = field.spoken(Voice {
                field: speech::Field::Routing,
                read_back: ReadBack::LastFour,
                prompt: "routing.say",
            });
            let routing = line.ask(&field.sensitive()).await?;
            read_back(line, desk, &routing).await;
            draft.routing = Some(routing);
        }
        Some(Part::Kind) => {
            let menu = ('1'..='9').zip(kinds(&desk.settings).iter().copied()).collect();
            let (ask, say) = match kinds(&desk.settings).first() {
                Some(AccountKind::Savings) => {
                    ("bank.savings_or_checking", "bank.savings_or_checking_say")
                }
                _ => ("bank.checking_or_savings", "bank.checking_or_savings_say"),
            };
            let field = Field::menu("kind", phrases([ask]), Menu(menu)).spoken(Voice {
                field: speech::Field::Digit,
                read_back: ReadBack::Never,
                prompt: say,
            });
            draft.kind = Some(line.ask(&field).await?);
        }
        Some(Part::Number) => draft.number = Some(number(line).await?),
    }
    Ok(true)
}

/// The bank by its name, or the number by its end: callers hear a slip of theirs.
async fn read_back(line: &mut Line, desk: &Desk, routing: &RoutingNumber) {
    let named = desk.banks.as_ref().and_then(|banks| banks.name(routing)).and_then(sayable);
    let prompts = match named {
        Some(name) if line.name(&name).await => {
            vec![Prompt::Phrase("routing.bank"), Prompt::Name(name)]
        }
        _ => {
            let ending = routing.as_str()[5..].to_string();
            vec![Prompt::Phrase("routing.ending"), Prompt::Digits(ending)]
        }
    };
    line.say(prompts).await;
}

/// A bank's name as a voice can say it, of letters and what joins them.
fn sayable(name: &str) -> Option<String> {
    let name = name.replace('&', " and ");
    let name = name.split(',').next().unwrap_or_default();
    let kept: String = name.chars().filter(|c| c.is_alphabetic() || " -'.".contains(*c)).collect();
    let words: Vec<&str> = kept.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The account number, twice.
async fn number(line: &mut Line) -> Result<Secret<String>, Leave> {
    let voice = |read_back, prompt| {
        let (min, max) = LENGTHS;
        Voice { field: speech::Field::Digits { min, max }, read_back, prompt }
    };
    let first = Field::number("bank_account", "bank.account_ask", AccountNumber);
    let first = first.spoken(voice(ReadBack::Ending, "bank.account_say"));
    let first = first.help("bank.account_ask_help").sensitive();
    let again = Field::number("bank_account_again", "bank.account_again", AccountNumber);
    // What is heard now must be what was taken before.
    let again = again.spoken(voice(ReadBack::Later, "bank.account_again_say")).sensitive();
    for _ in 0..PAIRS_MAX {
        let keyed = loop {
            let keyed = line.ask(&first).await?;
            match line.ask(&again).await {
                Err(Leave::Back) => {}
                answer => break (keyed, answer?),
            }
        };
        if keyed.0.expose() == keyed.1.expose() {
            return Ok(keyed.0);
        }
        line.tell(phrases(["bank.mismatch"])).await;
    }
    Err(Leave::Failed)
}

/// Nine digits with the checksum of the American Bankers Association; of a bank that is known,
/// where banks are.
#[derive(Clone)]
struct Routing {
    banks: Option<Arc<Banks>>,
}

impl Grammar for Routing {
    type Value = RoutingNumber;

    fn extent(&self, keys: &str) -> Extent {
        if keys.len() < 9 { Extent::Short } else { Extent::Full }
    }

    fn parse(&self, keys: &str) -> Result<RoutingNumber, Reject> {
        let routing = RoutingNumber::parse(keys).ok_or(Reject("routing.invalid"))?;
        match &self.banks {
            Some(banks) if banks.name(&routing).is_none() => Err(Reject("routing.unknown")),
            _ => Ok(routing),
        }
    }
}

/// The least and most digits of an account number.
const LENGTHS: (u8, u8) = (4, 17);

/// So many digits, leading zeros kept: `#` or a silence ends them.
#[derive(Clone)]
struct AccountNumber;

impl Grammar for AccountNumber {
    type Value = Secret<String>;

    fn extent(&self, keys: &str) -> Extent {
        let (min, max) = (usize::from(LENGTHS.0), usize::from(LENGTHS.1));
        match keys.len() {
            len if len < min => Extent::Short,
            len if len < max => Extent::Enough,
            _ => Extent::Full,
        }
    }

    fn parse(&self, keys: &str) -> Result<Secret<String>, Reject> {
        let right = (usize::from(LENGTHS.0)..=usize::from(LENGTHS.1)).contains(&keys.len());
        right.then(|| Secret::new(keys.to_string())).ok_or(Reject("bank.account_invalid"))
    }
}

/// Card or bank account.
pub(super) async fn choose(line: &mut Line) -> Result<Method, Leave> {
    let menu = Menu(vec![('1', Method::Card), ('2', Method::Bank)]);
    let field = Field::menu("method", phrases(["method.ask"]), menu).spoken(Voice {
        field: speech::Field::Digit,
        read_back: ReadBack::Never,
        prompt: "method.say",
    });
    line.ask(&field).await
}
