//! Kinds of callers, and the payments of before that the ledger holds against theirs.

use std::sync::Arc;

use ringtill::account::{Account, Caller, May};
use ringtill::instrument::{AccountKind, Brand, Expiry, FingerprintKey, Last4, Means, Pan, Token};
use ringtill::ledger::card::FirstCharge;
use ringtill::ledger::{Consent, Entry, FeeFailure, Intent, Origin, SavedCard, Split, State};
use ringtill::money::Money;
use ringtill::payment::{
    BankSettings, Banks, Bins, DuplicateMatch, Fee, FeeMode, SavedSettings, Settings,
};

use crate::NOW_MS;
use crate::words::{TOKEN, approval};

/// One kind of caller.
pub struct Scene {
    pub name: &'static str,
    pub caller: Caller,
    pub settings: Settings,
    pub accounts: Vec<Account>,
    /// The account has had a payment.
    pub earlier: Option<Earlier>,
    /// Somebody can take callers over.
    pub agent: bool,
    /// Authorisations are recorded.
    pub recorded: bool,
    pub banks: Option<Arc<Banks>>,
    pub bins: Option<Arc<Bins>>,
    pub caller_placed: bool,
    pub gateways: Gateways,
    /// The account has a card, kept by this gateway.
    pub kept_at: Option<&'static str>,
    /// A payment is arranged with that card.
    pub standing: bool,
}

/// What the biller has configured: the first takes everything, the second Visa and accounts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Gateways {
    One,
    Two,
    /// The first has failed too often of late.
    FirstRests,
    /// The first, and one that charges fees alone.
    Apart,
}

/// A payment of before this call.
#[derive(Clone, Copy)]
pub enum Earlier {
    /// Open, with the card that good callers key.
    OpenSameCard,
    /// Open, with a card nobody keys.
    Open,
    /// Approved, of what good callers pay.
    Approved,
    /// The same by another card.
    ApprovedOtherCard,
    /// Approved a day and a minute ago.
    LongAgo,
    /// Some cards were refused: what is wrong with the next ones is not told.
    TriedSome,
    /// Many cards were refused: no more are tried.
    Tried,
}

const BANK: &str = "company = \"Acme Water\"\nphone = \"800 555 0100\"\ntime_zone = \"eastern\"\n";

pub fn scenes() -> Vec<Scene> {
    let settings = Settings { fee: Fee::flat(Money::usd(200)), ..Settings::default() };
    let brief = Settings { cvv: false, zip: false, declines_max: 2, ..Settings::default() };
    let number = Some("+13175550123".into());
    let known = Caller { number, trusted: true, ..Caller::default() };
    let anonymous = Caller { name_withheld: true, ..known.clone() };
    let unknown = Caller::default();
    let passed_on = Caller { account: Some("1001".into()), ..Caller::default() };
    let scene = |name, caller: &Caller, settings: &Settings, accounts: Vec<Account>| Scene {
        name,
        caller: caller.clone(),
        settings: settings.clone(),
        accounts,
        earlier: None,
        agent: true,
        recorded: true,
        banks: None,
        bins: None,
        caller_placed: true,
        gateways: Gateways::One,
        kept_at: None,
        standing: false,
    };
    let owing = account("1001", 32_172);
    let customer = Account { may: May { be_called: true, ..May::default() }, ..owing.clone() };
    let same_card = Settings { duplicate_match: DuplicateMatch::Method, ..brief.clone() };
    let paid = |name, settings: &Settings, earlier| Scene {
        earlier: Some(earlier),
        ..scene(name, &known, settings, vec![account("1001", 32_172)])
    };
    let bank: BankSettings = toml::from_str(BANK).unwrap();
    let checking = BankSettings { accounts: vec![AccountKind::Checking], ..bank.clone() };
    let bank = Settings { bank: Some(bank), ..brief.clone() };
    let checking =
        Settings { bank: Some(checking), fee: Fee::flat(Money::usd(0)), ..brief.clone() };
    let alone = Settings { cards: Vec::new(), ..checking.clone() };
    let banks = Some(Arc::new(Banks::parse("021000021,First Bank").unwrap()));
    let saving = Some(SavedSettings::default());
    let keeping = Settings { saved: saving.clone(), ..brief.clone() };
    let saving = Settings { saved: saving, declines_max: 1, ..brief.clone() };
    let twice = Settings { declines_max: 2, ..saving.clone() };
    let with_code = Settings { saved: Some(SavedSettings { cvv: true }), ..saving.clone() };
    let kept = |name, settings: &Settings| Scene {
        kept_at: Some("first"),
        ..scene(name, &known, settings, vec![account("1001", 32_172)])
    };
    let later = |text: &str| Settings {
        later: Some(toml::from_str(&format!("time_zone = \"eastern\"\n{text}")).unwrap()),
        fee: Fee::flat(Money::usd(200)),
        ..saving.clone()
    };
    let dates = later("");
    let dates_twice = Settings { declines_max: 2, ..dates.clone() };
    let plans = later("days_max = 0\nplan = { instalments_max = 2, min = \"10.00\" }");
    let autopay = later("days_max = 0\nautopay_max = \"500.00\"");
    let same_saved = Settings { duplicate_match: DuplicateMatch::Method, ..saving.clone() };
    let whole = toml::from_str("allow = \"none\"\nover = \"none\"").unwrap();
    let whole = Settings { partial: whole, declines_max: 1, ..brief.clone() };
    let surcharge = toml::from_str("percent = \"3\"\nbins = \"bins.csv\"").unwrap();
    let surcharged = Settings { surcharge: Some(surcharge), zip: true, ..brief.clone() };
    let apart = Settings {
        fee: Fee::flat(Money::usd(200)),
        fee_mode: FeeMode::TwoMid,
        fee_gateway: Some("fees".into()),
        fee_failure: FeeFailure::Void,
        payee: Some("Acme Water".into()),
        declines_max: 1,
        ..brief.clone()
    };
    let waived = Settings { fee_failure: FeeFailure::Waive, payee: None, ..apart.clone() };
    let once_more = Settings { declines_max: 2, payee: None, ..apart.clone() };
    let several = Settings { several_accounts: true, declines_max: 1, ..brief.clone() };
    let several_apart = Settings { several_accounts: true, payee: None, ..apart.clone() };
    let two_accounts =
        vec![owing.clone(), Account { phones: Vec::new(), ..account("1002", 5_000) }];
    let most = Money::usd(35_000);
    let no_room = Settings { several_accounts: true, max_payment: most, ..whole.clone() };
    let full = Settings { max_payment: Money::usd(37_172), ..several.clone() };
    let one_without_card = Account { phones: Vec::new(), ..barred(true) };
    let one_without_card = vec![owing.clone(), Account { id: "1002".into(), ..one_without_card }];
    let two_charges = |name, settings: &Settings| Scene {
        gateways: Gateways::Apart,
        agent: false,
        ..scene(name, &passed_on, settings, vec![account("1001", 32_172)])
    };
    let shared_phone = vec![owing.clone(), account("1002", 100)];
    vec![
        scene("known by caller id", &known, &settings, vec![owing.clone()]),
        Scene { agent: false, ..scene("account and ZIP", &unknown, &brief, vec![owing.clone()]) },
        scene("account passed by the contact center", &passed_on, &brief, vec![owing.clone()]),
        scene("phone shared by two accounts", &known, &brief, shared_phone),
        // Nothing is kept for who hides.
        scene("nothing due, anonymous", &anonymous, &keeping, vec![account("1001", 0)]),
        scene("by bank account", &known, &bank, vec![owing.clone()]),
        Scene {
            recorded: false,
            agent: false,
            banks,
            gateways: Gateways::Two,
            ..scene(
                "by checking account, anonymous, no fee",
                &anonymous,
                &checking,
                vec![owing.clone()],
            )
        },
        Scene {
            caller_placed: false,
            ..scene("bank account on a call of ours", &known, &bank, vec![owing.clone()])
        },
        Scene {
            caller_placed: false,
            ..scene("a customer pays on a call of ours", &known, &bank, vec![customer])
        },
        scene("no card is allowed", &known, &saving, vec![barred(true)]),
        scene("no bank account is allowed", &known, &bank, vec![barred(false)]),
        scene("bank accounts alone", &known, &alone, vec![owing.clone()]),
        Scene {
            caller_placed: false,
            ..scene("bank accounts alone on a call of ours", &known, &alone, vec![owing.clone()])
        },
        paid("by bank account, paid before", &bank, Earlier::Approved),
        Scene {
            gateways: Gateways::Two,
            ..scene("two gateways", &passed_on, &brief, vec![owing.clone()])
        },
        Scene {
            gateways: Gateways::FirstRests,
            ..scene("two gateways, one rests", &passed_on, &brief, vec![owing.clone()])
        },
        scene("a card may be kept", &known, &saving, vec![owing.clone()]),
        Scene {
            gateways: Gateways::Two,
            agent: false,
            kept_at: Some("gone"),
            ..kept("its keeper is gone, the first alone keeps cards", &saving)
        },
        Scene { agent: false, ..kept("a card is kept", &twice) },
        kept("a card is kept, with its code", &with_code),
        Scene {
            gateways: Gateways::Two,
            agent: false,
            ..kept("a card is kept by the first of two gateways", &saving)
        },
        Scene { gateways: Gateways::FirstRests, agent: false, ..kept("its keeper rests", &saving) },
        Scene {
            agent: false,
            earlier: Some(Earlier::Approved),
            ..kept("a card is kept and was charged before", &same_saved)
        },
        Scene { agent: false, ..kept("a kept card, on a later date", &dates) },
        Scene { agent: false, ..kept("a kept card, in instalments", &plans) },
        Scene { agent: false, ..kept("a kept card, then AutoPay", &autopay) },
        Scene { agent: false, standing: true, ..kept("a payment is arranged already", &dates) },
        Scene {
            agent: false,
            ..scene("a card is keyed and kept, in instalments", &known, &plans, vec![owing.clone()])
        },
        Scene {
            agent: false,
            ..scene("a card is keyed, on a later date", &known, &dates, vec![owing.clone()])
        },
        Scene {
            gateways: Gateways::Two,
            agent: false,
            ..scene("the same, and another card", &known, &dates_twice, vec![owing.clone()])
        },
        Scene {
            gateways: Gateways::FirstRests,
            agent: false,
            ..scene("the same, and who keeps cards rests", &known, &dates, vec![owing.clone()])
        },
        scene("nothing but the balance", &passed_on, &whole, vec![owing.clone()]),
        Scene {
            // The one card of these callers is a credit card, the other is not known.
            bins: Some(Arc::new(Bins::parse("411111,credit").unwrap())),
            agent: false,
            ..scene("surcharged", &passed_on, &surcharged, vec![owing.clone()])
        },
        Scene {
            agent: false,
            ..scene("two accounts at once", &known, &several, two_accounts.clone())
        },
        Scene {
            agent: false,
            ..scene("two accounts, no room for more", &known, &full, two_accounts.clone())
        },
        scene("nothing due, nothing in advance", &known, &whole, vec![account("1001", 0)]),
        Scene {
            agent: false,
            ..scene("two accounts, no room for both", &known, &no_room, two_accounts.clone())
        },
        Scene {
            agent: false,
            earlier: Some(Earlier::Approved),
            ..scene("two accounts, one paid before", &known, &several, two_accounts.clone())
        },
        Scene {
            agent: false,
            ..scene("two accounts, one without cards", &known, &several, one_without_card)
        },
        Scene {
            gateways: Gateways::Apart,
            agent: false,
            ..scene("two accounts, the fee apart", &passed_on, &several_apart, two_accounts)
        },
        two_charges("the fee apart, or nothing", &apart),
        two_charges("the fee apart, or waived", &waived),
        two_charges("the fee apart, and another card", &once_more),
        paid("open payment with the same card", &brief, Earlier::OpenSameCard),
        paid("open payment with another card", &brief, Earlier::Open),
        paid("paid before", &brief, Earlier::Approved),
        paid("paid long before", &brief, Earlier::LongAgo),
        paid("some cards refused before", &settings, Earlier::TriedSome),
        paid("many cards refused before", &settings, Earlier::Tried),
        paid("paid before with the same card", &same_card, Earlier::Approved),
        paid("paid before with another card", &same_card, Earlier::ApprovedOtherCard),
    ]
}

fn account(id: &str, due: i64) -> Account {
    Account {
        id: id.into(),
        name_first: Some("James".into()),
        name_last: None,
        phones: vec!["+13175550123".into()],
        verify_zip: Some("46201".into()),
        amount_due: Money::usd(due),
        past_due: None,
        min_payment: None,
        max_payment: None,
        due_date: None,
        may: May::default(),
    }
}

/// Whose biller takes no card from them, or nothing from their bank.
fn barred(card: bool) -> Account {
    let may = May { pay_by_card: !card, pay_by_bank: card, ..May::default() };
    Account { may, ..account("1001", 32_172) }
}

pub const EARLIER: &str = "earlier";
pub const EARLIER_CONFIRMATION: &str = "100000009";

pub fn key() -> FingerprintKey {
    FingerprintKey::new(&[9; 32]).unwrap()
}

/// The earlier payment and the states it went through.
pub fn earlier(scene: &Scene, earlier: Earlier) -> Vec<Entry> {
    if let Earlier::TriedSome | Earlier::Tried = earlier {
        let cards = if matches!(earlier, Earlier::Tried) { 6 } else { 3 };
        return (0..cards).flat_map(|nth| refused(scene, nth)).collect();
    }
    let card = match earlier {
        Earlier::Open | Earlier::ApprovedOtherCard => "4012888888881881",
        _ => "4111111111111111",
    };
    const DAY_MS: i64 = 24 * 3_600_000;
    let intent = Intent {
        id: EARLIER.into(),
        confirmation: EARLIER_CONFIRMATION.into(),
        biller: scene.settings.biller.clone(),
        account_id: scene.accounts[0].id.clone(),
        amount: scene.accounts[0].amount_due,
        allocations: Vec::new(),
        fee: Money::usd(0),
        split: Split::Total,
        means: Means::Card(Brand::Visa),
        last4: Last4::parse("1111").unwrap(),
        fingerprint: Some(key().card(&Pan::parse(card).unwrap())),
        gateway: "words".into(),
        call_id: EARLIER.into(),
        origin: Origin::default(),
        created_ms: match earlier {
            Earlier::LongAgo => NOW_MS - DAY_MS - 60_000,
            _ => NOW_MS - 60_000,
        },
    };
    let states = match earlier {
        Earlier::OpenSameCard | Earlier::Open => vec![],
        _ => vec![State::Sending, State::Approved(approval())],
    };
    let moves = states.into_iter().map(|to| Entry::Move { id: EARLIER.into(), to });
    [Entry::Consent(Box::new(intent))].into_iter().chain(moves).collect()
}

/// Cards of before this call: one that is good, kept by `gateway`, and one that has expired.
pub fn wallet(scene: &Scene, gateway: &str) -> Vec<Entry> {
    let pan = Pan::parse("4111111111111111").unwrap();
    let card = |id: &str, number: &str, (year, month)| {
        let card = SavedCard {
            id: id.into(),
            biller: scene.settings.biller.clone(),
            account_id: scene.accounts[0].id.clone(),
            gateway: gateway.into(),
            token: Token::parse(TOKEN).unwrap(),
            brand: Brand::Visa,
            last4: Last4::parse("1111").unwrap(),
            expiry: Expiry::kept(year, month).unwrap(),
            fingerprint: key().card(&Pan::parse(number).unwrap()),
            issuer: Some(key().issuer(&pan)),
            consent: Consent {
                said: Vec::new(),
                at_ms: NOW_MS,
                call_id: EARLIER.into(),
                payment: EARLIER.into(),
            },
            first: FirstCharge::default(),
            created_ms: NOW_MS - 60_000,
        };
        Entry::Keep(Box::new(card))
    };
    // It is November 2026: good today, and in months to come where something is arranged for them.
    let good = if scene.settings.later.is_some() { (2027, 11) } else { (2026, 11) };
    vec![card(KEPT, "4111111111111111", good), card("expired", "4012888888881881", (2026, 10))]
}

/// The card that is kept.
pub const KEPT: &str = "kept";

/// One of many payments for the account that were refused within the hour.
fn refused(scene: &Scene, nth: i64) -> Vec<Entry> {
    let entries = earlier(scene, Earlier::Approved);
    let id = format!("refused-{nth}");
    let again = |entry| match entry {
        Entry::Consent(mut intent) => {
            intent.id = id.clone();
            intent.confirmation = format!("20000000{nth}");
            intent.created_ms -= 60_000 * nth;
            Entry::Consent(intent)
        }
        Entry::Move { to: State::Sending, .. } => {
            Entry::Move { id: id.clone(), to: State::Sending }
        }
        Entry::Move { .. } => Entry::Move { id: id.clone(), to: State::Declined("no".into()) },
        other => other,
    };
    entries.into_iter().map(again).collect()
}
