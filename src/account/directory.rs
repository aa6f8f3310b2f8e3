//! Accounts by number and by phone, packed so that a million of them fit in memory.

use jiff::civil::Date;

use super::{Account, May, Query};
use crate::money::{Currency, Money};

/// One biller's accounts, immutable: a new file makes a new directory.
///
/// Accounts lie one behind the other in `bytes`, sorted by [`key`]; `starts` finds them by binary
/// search. About 80 bytes an account instead of the 300 and more of an [`Account`].
pub struct Directory {
    currency: Currency,
    bytes: Vec<u8>,
    starts: Vec<u32>,
    /// (E.164 digits, place in `starts`), sorted.
    phones: Vec<(u64, u32)>,
}

impl Default for Directory {
    fn default() -> Directory {
        Directory {
            currency: Currency::USD,
            bytes: Vec::new(),
            starts: Vec::new(),
            phones: Vec::new(),
        }
    }
}

/// Bounds of a packed account: what the pusher must keep to.
pub const ID_MAX: usize = 32;
pub const NAME_MAX: usize = 64;
pub const PHONES_MAX: usize = 3;
/// More people than this behind one phone are not told apart by it.
const ANSWERS_MAX: usize = 16;

impl Directory {
    /// How many accounts it holds.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The accounts that answer `query`, at most sixteen; empty for a wrong account as for a wrong
    /// ZIP code.
    pub fn answer(&self, query: &Query) -> Vec<Account> {
        match query {
            Query::Phone(number) => {
                let Some(number) = digits(number) else { return Vec::new() };
                let first = self.phones.partition_point(|(phone, _)| *phone < number);
                let same = self.phones[first..].iter().take_while(|(phone, _)| *phone == number);
                same.take(ANSWERS_MAX).map(|(_, at)| self.account(*at as usize)).collect()
            }
            Query::Verified { account, zip } => {
                // A wrong account costs the same look at a ZIP code as a right one.
                let found = self.by_id(account);
                let on_file = found.as_ref().and_then(|account| account.verify_zip.as_deref());
                let right = same_text(on_file.unwrap_or("-----"), zip) && on_file.is_some();
                found.filter(|_| right).into_iter().collect()
            }
        }
    }

    /// The account of this number, for what needs no factor: a payment its holder has arranged.
    pub fn by_id(&self, id: &str) -> Option<Account> {
        let wanted = key(id);
        let at = self
            .starts
            .binary_search_by(|start| Packed::at(&self.bytes, *start).key().cmp(wanted.as_slice()));
        at.ok().map(|at| self.account(at))
    }

    fn account(&self, at: usize) -> Account {
        Packed::at(&self.bytes, self.starts[at]).account(self.currency)
    }

    /// Bytes of memory it takes.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.starts.len() * 4 + self.phones.len() * 16
    }
}

/// Collects accounts into a directory.
pub struct Builder {
    directory: Directory,
}

/// Two rows for one account, counted from 0 in the order they were pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    pub kept: usize,
    pub dropped: usize,
}

impl Builder {
    /// All amounts are of this currency.
    pub fn new(currency: Currency) -> Builder {
        Builder { directory: Directory { currency, ..Directory::default() } }
    }

    /// Adds an account; false when it does not fit ([`ID_MAX`], [`NAME_MAX`], [`PHONES_MAX`],
    /// 4 GB in all) and was left out.
    pub fn push(&mut self, account: &Account) -> bool {
        let names = [&account.name_first, &account.name_last];
        let fits = account.id.len() <= ID_MAX
            && names.iter().all(|name| name.as_ref().is_none_or(|name| name.len() <= NAME_MAX))
            && account.verify_zip.as_ref().is_none_or(|zip| zip.len() == ZIP_LEN)
            && account.phones.len() <= PHONES_MAX
            && account.amount_due.currency == self.directory.currency;
        let Ok(start) = u32::try_from(self.directory.bytes.len()) else { return false };
        if !fits {
            return false;
        }
        self.directory.starts.push(start);
        pack(&mut self.directory.bytes, account);
        true
    }

    /// Sorts and indexes. Of several rows for one account the first is kept.
    pub fn finish(self) -> (Directory, Vec<Duplicate>) {
        let mut directory = self.directory;
        let bytes = &directory.bytes;
        let mut order: Vec<(u32, u32)> = directory.starts.iter().copied().zip(0..).collect();
        // Stable: rows of one account stay in the order of the file.
        order
            .sort_by(|(a, _), (b, _)| Packed::at(bytes, *a).key().cmp(Packed::at(bytes, *b).key()));
        let mut duplicates = Vec::new();
        let mut sorted: Vec<(u32, u32)> = Vec::with_capacity(order.len());
        for (start, row) in order {
            match sorted.last() {
                Some((kept_start, kept))
                    if Packed::at(bytes, *kept_start).key() == Packed::at(bytes, start).key() =>
                {
                    duplicates.push(Duplicate { kept: *kept as usize, dropped: row as usize });
                }
                _ => sorted.push((start, row)),
            }
        }
        directory.starts = sorted.into_iter().map(|(start, _)| start).collect();
        let mut phones = Vec::new();
        for (start, at) in directory.starts.iter().zip(0..) {
            phones.extend(Packed::at(bytes, *start).phones().map(|phone| (phone, at)));
        }
        phones.sort_unstable();
        phones.dedup();
        directory.phones = phones;
        directory.bytes.shrink_to_fit();
        (directory, duplicates)
    }
}

/// What an account number is compared by: letters and digits alone, upper case. `00-12 a` and
/// `0012A` are one account, since a caller can key neither dash nor blank.
fn key(id: &str) -> Vec<u8> {
    let kept = id.bytes().filter(u8::is_ascii_alphanumeric);
    kept.map(|byte| byte.to_ascii_uppercase()).collect()
}

const ZIP_LEN: usize = 5;

/// Bits of the second byte of a packed account.
const HAS_ZIP: u8 = 1;
const HAS_PAST_DUE: u8 = 2;
const HAS_MIN: u8 = 4;
const HAS_MAX: u8 = 8;
const HAS_DATE: u8 = 16;
const NO_CARD: u8 = 32;
const NO_BANK: u8 = 64;
const BE_CALLED: u8 = 128;

/// key length, flags, number of phones, lengths of id, first and last name (0xFF: none), then:
/// key, phones, id, names, ZIP, amounts, date.
fn pack(out: &mut Vec<u8>, account: &Account) {
    let key = key(&account.id);
    let optional = [&account.past_due, &account.min_payment, &account.max_payment];
    let mut flags = 0;
    for (present, flag) in [
        (account.verify_zip.is_some(), HAS_ZIP),
        (account.past_due.is_some(), HAS_PAST_DUE),
        (account.min_payment.is_some(), HAS_MIN),
        (account.max_payment.is_some(), HAS_MAX),
        (account.due_date.is_some(), HAS_DATE),
        (!account.may.pay_by_card, NO_CARD),
        (!account.may.pay_by_bank, NO_BANK),
        (account.may.be_called, BE_CALLED),
    ] {
        flags |= if present { flag } else { 0 };
    }
    let texts = [Some(&account.id), account.name_first.as_ref(), account.name_last.as_ref()];
    out.extend([key.len() as u8, flags, account.phones.len() as u8]);
    out.extend(texts.map(|text| text.map_or(NONE, |text| text.len() as u8)));
    out.extend(&key);
    for phone in &account.phones {
        out.extend(digits(phone).unwrap_or_default().to_le_bytes());
    }
    for text in texts.into_iter().flatten() {
        out.extend(text.as_bytes());
    }
    if let Some(zip) = &account.verify_zip {
        out.extend(zip.as_bytes());
    }
    out.extend(account.amount_due.minor.to_le_bytes());
    for amount in optional.into_iter().flatten() {
        out.extend(amount.minor.to_le_bytes());
    }
    if let Some(date) = account.due_date {
        out.extend(date.year().to_le_bytes());
        out.extend([date.month() as u8, date.day() as u8]);
    }
}

const NONE: u8 = 0xFF;
const HEAD: usize = 6;

/// A packed account being read.
struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    fn at(bytes: &'a [u8], start: u32) -> Packed<'a> {
        Packed(&bytes[start as usize..])
    }

    fn key(&self) -> &'a [u8] {
        &self.0[HEAD..HEAD + usize::from(self.0[0])]
    }

    fn phones(&self) -> impl Iterator<Item = u64> + use<'a> {
        let start = HEAD + usize::from(self.0[0]);
        let phones = &self.0[start..start + 8 * usize::from(self.0[2])];
        phones.chunks_exact(8).map(|phone| u64::from_le_bytes(array(phone)))
    }

    fn account(&self, currency: Currency) -> Account {
        let flags = self.0[1];
        let texts = &self.0[3..HEAD];
        let mut rest = &self.0[HEAD + usize::from(self.0[0]) + 8 * usize::from(self.0[2])..];
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at(len);
            rest = left;
            taken
        };
        let mut text = |len: u8| (len != NONE).then(|| string(take(len.into())));
        let (id, name_first, name_last) = (text(texts[0]), text(texts[1]), text(texts[2]));
        let verify_zip = (flags & HAS_ZIP != 0).then(|| string(take(ZIP_LEN)));
        let mut money = || Money::new(i64::from_le_bytes(array(take(8))), currency);
        let amount_due = money();
        let past_due = (flags & HAS_PAST_DUE != 0).then(&mut money);
        let min_payment = (flags & HAS_MIN != 0).then(&mut money);
        let max_payment = (flags & HAS_MAX != 0).then(&mut money);
        let due_date = (flags & HAS_DATE != 0).then(|| take(4)).and_then(|date| {
            let year = i16::from_le_bytes(array(&date[..2]));
            Date::new(year, date[2] as i8, date[3] as i8).ok()
        });
        Account {
            id: id.unwrap_or_default(),
            name_first,
            name_last,
            phones: self.phones().map(|phone| format!("+{phone}")).collect(),
            verify_zip,
            amount_due,
            past_due,
            min_payment,
            max_payment,
            due_date,
            may: May {
                pay_by_card: flags & NO_CARD == 0,
                pay_by_bank: flags & NO_BANK == 0,
                be_called: flags & BE_CALLED != 0,
            },
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `+13175550142` as a number.
fn digits(e164: &str) -> Option<u64> {
    e164.strip_prefix('+')?.parse().ok()
}

/// Compares all bytes whatever the first difference.
fn same_text(a: &str, b: &str) -> bool {
    let differences = a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: &str, phone: &str, zip: &str) -> Account {
        Account {
            id: id.into(),
            name_first: Some("James".into()),
            name_last: None,
            phones: vec![phone.into()],
            verify_zip: Some(zip.into()),
            amount_due: Money::usd(32_172),
            past_due: Some(Money::usd(-5)),
            min_payment: None,
            max_payment: Some(Money::usd(i64::MAX)),
            due_date: Some(jiff::civil::date(2026, 6, 5)),
            may: May { pay_by_card: false, pay_by_bank: true, be_called: true },
        }
    }

    fn bare(id: &str) -> Account {
        Account {
            id: id.into(),
            name_first: None,
            name_last: None,
            phones: Vec::new(),
            verify_zip: None,
            amount_due: Money::usd(0),
            past_due: None,
            min_payment: None,
            max_payment: None,
            due_date: None,
            may: May { pay_by_bank: false, ..May::default() },
        }
    }

    fn directory(accounts: &[Account]) -> (Directory, Vec<Duplicate>) {
        let mut builder = Builder::new(Currency::USD);
        assert!(accounts.iter().all(|account| builder.push(account)));
        builder.finish()
    }

    fn verified(account: &str, zip: &str) -> Query {
        Query::Verified { account: account.into(), zip: zip.into() }
    }

    #[test]
    fn finds_by_phone_and_by_account_with_zip() {
        let james = account("0012-34", "+13175550142", "46201");
        let anna = account("0099", "+13175550142", "46202");
        let other = account("7", "+442079460000", "46203");
        let (directory, _) = directory(&[james.clone(), anna.clone(), other, bare("8")]);
        assert_eq!(directory.len(), 4);
        let by_phone = directory.answer(&Query::Phone("+13175550142".into()));
        assert_eq!(by_phone, [james.clone(), anna]);
        assert_eq!(directory.answer(&Query::Phone("+13175550143".into())), []);
        assert_eq!(directory.answer(&Query::Phone("junk".into())), []);
        assert_eq!(directory.answer(&verified("001234", "46201")), [james]);
    }

    #[test]
    fn wrong_account_and_wrong_zip_answer_alike() {
        let (directory, _) = directory(&[account("1234", "+13175550142", "46201"), bare("5678")]);
        for query in [
            verified("1234", "46202"),
            verified("1234", ""),
            verified("1234", "462011"),
            verified("1235", "46201"),
            verified("", ""),
            verified("5678", ""),
            verified("5678", "-----"),
        ] {
            assert_eq!(directory.answer(&query), []);
        }
    }

    #[test]
    fn the_first_row_of_an_account_is_kept() {
        let rows = [account("12-3", "+13175550142", "46201"), bare("9"), bare("123"), bare("1 23")];
        let (directory, duplicates) = directory(&rows);
        assert_eq!(directory.len(), 2);
        let dropped = |dropped| Duplicate { kept: 0, dropped };
        assert_eq!(duplicates, [dropped(2), dropped(3)]);
        assert_eq!(directory.answer(&verified("123", "46201"))[0].id, "12-3");
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut builder = Builder::new(Currency::USD);
        let mut foreign = bare("1");
        foreign.amount_due = Money::new(1, Currency::EUR);
        let mut nameless = bare("1");
        nameless.name_last = Some("x".repeat(NAME_MAX + 1));
        for account in [foreign, nameless, bare(&"1".repeat(ID_MAX + 1))] {
            assert!(!builder.push(&account));
        }
        assert!(builder.finish().0.is_empty());
    }

    #[test]
    fn a_hundred_thousand_accounts_take_ten_megabytes() {
        let mut builder = Builder::new(Currency::USD);
        for n in 0..100_000u64 {
            let phone = format!("+1317{:07}", n % 9_000_000 + 1_000_000);
            builder.push(&account(&format!("{n:08}"), &phone, "46201"));
        }
        let (directory, duplicates) = builder.finish();
        assert_eq!((directory.len(), duplicates.len()), (100_000, 0));
        assert!(directory.size() < 10_000_000, "{}", directory.size());
        assert_eq!(directory.answer(&verified("00077777", "46201")).len(), 1);
    }
}
