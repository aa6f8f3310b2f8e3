//! Debits as the bank takes them: one batch of those made for the first time, one of those
//! presented again. The same file always gives the same bytes.

use jiff::civil::{Date, DateTime};
use zeroize::Zeroizing;

use super::record::{BLOCK, LEN, Record};
use super::{Originator, Receiver, plain};
use crate::instrument::AccountKind;

/// One file to the bank.
pub struct File {
    pub originator: Originator,
    /// When it is made, where the biller is.
    pub created: DateTime,
    /// Tells the files of a day apart: `A` to `Z`, then `0` to `9`.
    pub modifier: char,
    /// The banking day on which accounts are debited: after the day the file is made.
    pub effective: Date,
    /// In the order of their sequence; those presented again after the others.
    pub entries: Vec<Entry>,
}

/// One debit.
pub struct Entry {
    pub receiver: Receiver,
    /// Cents, 1 to [`CENTS_MAX`].
    pub cents: u64,
    /// Ours for the payment: comes back with a return.
    pub id: String,
    /// Said where the name has no letter that a file can hold.
    pub account_id: String,
    /// The end of its trace number: 1 to [`SEQUENCE_MAX`].
    pub sequence: u64,
    /// It was returned and is presented again.
    pub again: bool,
}

/// The most that one entry can hold: $99,999,999.99.
pub const CENTS_MAX: u64 = 9_999_999_999;
/// The most that a batch and a file can hold.
pub const TOTAL_MAX: u64 = 999_999_999_999;
pub const SEQUENCE_MAX: u64 = 9_999_999;
/// Entries of a file: a bank takes far more, but nobody looks through them.
pub const ENTRIES_MAX: usize = 10_000;
const MODIFIERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// Debits only.
const SERVICE_CLASS: u64 = 225;
/// What the rules want to be said of an entry that is presented again.
pub const AGAIN: &str = "RETRY PYMT";

/// The modifier of the day's `nth` file, from 0; `None`: there can be no more that day.
pub fn modifier(nth: usize) -> Option<char> {
    MODIFIERS.chars().nth(nth)
}

/// Trace number: who originates, by eight digits, and the sequence.
pub fn trace(originator: &Originator, sequence: u64) -> String {
    format!("{}{sequence:07}", &originator.odfi[..8])
}

impl File {
    /// Its name: one for each file of an originator.
    pub fn name(id: &str, created: Date, modifier: char) -> String {
        format!("ach-{id}-{}-{modifier}.ach", created.strftime("%Y%m%d"))
    }

    /// Cents of all debits.
    pub fn total(&self) -> u64 {
        self.entries.iter().map(|entry| entry.cents).sum()
    }

    /// The whole file. Whoever makes the entries keeps to [`CENTS_MAX`] and [`TOTAL_MAX`].
    pub fn write(&self) -> Zeroizing<Vec<u8>> {
        let records = self.entries.len() + 6 + BLOCK;
        let mut out = Zeroizing::new(Vec::with_capacity(records * (LEN + 1)));
        let put = |out: &mut Vec<u8>, record: Record| out.extend(record.end().bytes());
        put(&mut out, self.header());
        let mut sum = Sum::default();
        let mut batches = 0;
        for again in [false, true] {
            let entries = self.entries.iter().filter(|entry| entry.again == again);
            let mut of_batch = Sum::default();
            for entry in entries {
                if of_batch.entries == 0 {
                    batches += 1;
                    put(&mut out, self.batch_header(batches, again));
                }
                of_batch.add(entry);
                put(&mut out, self.entry(entry));
            }
            if of_batch.entries > 0 {
                put(&mut out, self.batch_control(batches, &of_batch));
                sum.all(&of_batch);
            }
        }
        let lines = out.len() / (LEN + 1) + 1;
        put(&mut out, file_control(batches, lines.div_ceil(BLOCK), &sum));
        for _ in lines..lines.next_multiple_of(BLOCK) {
            out.extend([b'9'; LEN]);
            out.push(b'\n');
        }
        out
    }

    fn header(&self) -> Record {
        let from = &self.originator;
        let at = |what: &str| self.created.strftime(what).to_string();
        Record::new('1')
            .digits(1, 2)
            .text(&from.destination, 10)
            .text(&from.origin, 10)
            .text(&at("%y%m%d"), 6)
            .text(&at("%H%M"), 4)
            .text(&self.modifier.to_string(), 1)
            .digits(LEN as u64, 3)
            .digits(BLOCK as u64, 2)
            .digits(1, 1)
            .text(&from.destination_name, 23)
            .text(&from.origin_name, 23)
            .text("", 8)
    }

    fn batch_header(&self, number: u64, again: bool) -> Record {
        let from = &self.originator;
        Record::new('5')
            .digits(SERVICE_CLASS, 3)
            .text(&from.company_name, 16)
            .text("", 20)
            .text(&from.company_id, 10)
            .text("TEL", 3)
            .text(if again { AGAIN } else { &from.entry_description }, 10)
            .text(&self.created.strftime("%y%m%d").to_string(), 6)
            .text(&self.effective.strftime("%y%m%d").to_string(), 6)
            .text("", 3)
            .digits(1, 1)
            .text(&from.odfi, 8)
            .digits(number, 7)
    }

    fn entry(&self, entry: &Entry) -> Record {
        let account = &entry.receiver.account;
        let code = match account.kind {
            AccountKind::Checking => 27,
            AccountKind::Savings => 37,
        };
        let name = Zeroizing::new(match plain(&entry.receiver.name) {
            none if none.is_empty() => plain(&format!("ACCOUNT {}", entry.account_id)),
            name => name,
        });
        Record::new('6')
            .digits(code, 2)
            .text(account.routing.as_str(), 9)
            .text(account.expose(), 17)
            .digits(entry.cents, 10)
            .text(&entry.id, 15)
            .text(&name, 22)
            // A single entry, in the words of TEL.
            .text("S", 2)
            .digits(0, 1)
            .text(&trace(&self.originator, entry.sequence), 15)
    }

    fn batch_control(&self, number: u64, sum: &Sum) -> Record {
        Record::new('8')
            .digits(SERVICE_CLASS, 3)
            .digits(sum.entries, 6)
            .digits(sum.hash, 10)
            .digits(sum.cents, 12)
            .digits(0, 12)
            .text(&self.originator.company_id, 10)
            .text("", 25)
            .text(&self.originator.odfi, 8)
            .digits(number, 7)
    }
}

fn file_control(batches: u64, blocks: usize, sum: &Sum) -> Record {
    Record::new('9')
        .digits(batches, 6)
        .digits(blocks as u64, 6)
        .digits(sum.entries, 8)
        .digits(sum.hash, 10)
        .digits(sum.cents, 12)
        .digits(0, 12)
        .text("", 39)
}

/// What control records say.
#[derive(Default)]
struct Sum {
    entries: u64,
    /// Of the first eight digits of routing numbers; only its last ten digits count.
    hash: u64,
    cents: u64,
}

impl Sum {
    fn add(&mut self, entry: &Entry) {
        let routing = entry.receiver.account.routing.as_str();
        self.entries += 1;
        self.hash += routing[..8].parse::<u64>().unwrap_or_default();
        self.cents += entry.cents;
    }

    fn all(&mut self, other: &Sum) {
        self.entries += other.entries;
        self.hash += other.hash;
        self.cents += other.cents;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::instrument::{BankAccount, RoutingNumber};
    use jiff::civil::date;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    pub fn receiver(routing: &str, number: &str, kind: AccountKind, name: &str) -> Receiver {
        let routing = RoutingNumber::parse(routing).unwrap();
        let account = BankAccount::parse(routing, number, kind).unwrap();
        Receiver { account, name: Zeroizing::new(name.into()) }
    }

    pub fn entry(sequence: u64, receiver: Receiver, cents: u64) -> Entry {
        let id = format!("48291503{sequence}");
        Entry { receiver, cents, id, account_id: "1001".into(), sequence, again: false }
    }

    pub fn file(entries: Vec<Entry>) -> File {
        File {
            originator: super::super::settings::tests::originator(),
            created: date(2026, 11, 27).at(16, 30, 0, 0),
            modifier: 'A',
            effective: date(2026, 11, 30),
            entries,
        }
    }

    #[test]
    fn the_file_is_these_bytes() {
        let james = receiver("021000021", "738491620583714", AccountKind::Checking, "James Walker");
        let maria = receiver("011401533", "0042", AccountKind::Savings, "María López de la Torre");
        let mut again =
            entry(3, receiver("091000019", "99999", AccountKind::Checking, "王"), 8_810);
        again.again = true;
        let file = file(vec![entry(1, james, 32_372), entry(2, maria, 9_999_999_999), again]);
        // Put together by hand from the list of fields. `|` ends each record.
        let want = "\
101 09100001918004321002611271630A094101FIRST BANK             ACME WATER                     |
5225ACME WATER                          1800432100TELWATER BILL261127261130   1091000010000001|
627021000021738491620583714  0000032372482915031      JAMES WALKER          S 0091000010000001|
6370114015330042             9999999999482915032      MARIA LOPEZ DE LA TORRS 0091000010000002|
822500000200032401550100000323710000000000001800432100                         091000010000001|
5225ACME WATER                          1800432100TELRETRY PYMT261127261130   1091000010000002|
62709100001999999            0000008810482915033      ACCOUNT 1001          S 0091000010000003|
822500000100091000010000000088100000000000001800432100                         091000010000002|
9000002000001000000030012340156010000041181000000000000                                       |
9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999|
";
        let got = String::from_utf8(file.write().to_vec()).unwrap();
        for (got, want) in got.lines().zip(want.lines()) {
            assert_eq!(format!("{got}|"), want);
        }
        assert_eq!(got, want.replace('|', ""));
        assert_eq!(File::name("nacha", date(2026, 11, 27), 'A'), "ach-nacha-20261127-A.ach");
    }

    #[test]
    fn any_file_is_whole_blocks_with_right_sums() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut entries = Vec::new();
            for sequence in 1..=rng.random_range(1..40) {
                let eight: String = (0..8).map(|_| rng.random_range(0..=9).to_string()).collect();
                let routing =
                    (0..10).find_map(|check| RoutingNumber::parse(&format!("{eight}{check}")));
                let Some(routing) = routing else { continue };
                let len = rng.random_range(4..=17);
                let number: String =
                    (0..len).map(|_| rng.random_range(0..=9).to_string()).collect();
                let kind = AccountKind::ALL[rng.random_range(0..2)];
                let name: String =
                    (0..rng.random_range(0..40)).map(|_| rng.random::<char>()).collect();
                let one = receiver(routing.as_str(), &number, kind, &name);
                entries.push(entry(sequence, one, rng.random_range(1..=CENTS_MAX)));
            }
            let half = rng.random_range(0..=entries.len());
            entries[half..].iter_mut().for_each(|entry| entry.again = true);
            let hash: u64 = entries
                .iter()
                .map(|e| e.receiver.account.routing.as_str()[..8].parse::<u64>().unwrap())
                .sum();
            let (count, file) = (entries.len() as u64, file(entries));
            let total = file.total();
            let text = String::from_utf8(file.write().to_vec()).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.iter().all(|line| line.len() == LEN && line.is_ascii()), "seed {seed}");
            assert_eq!(lines.len() % BLOCK, 0, "seed {seed}");
            let control = lines.iter().find(|line| line.starts_with("90")).unwrap();
            assert_eq!(control[7..13].parse::<usize>(), Ok(lines.len() / BLOCK), "seed {seed}");
            assert_eq!(control[13..21].parse(), Ok(count), "seed {seed}");
            assert_eq!(control[21..31].parse(), Ok(hash % 10_000_000_000), "seed {seed}");
            assert_eq!(control[31..43].parse(), Ok(total), "seed {seed}");
            let traces: Vec<&str> =
                lines.iter().filter(|line| line.starts_with('6')).map(|line| &line[79..]).collect();
            assert!(traces.is_sorted(), "seed {seed}");
            // And it is a file to the reader of files.
            let read = super::super::Returned::read(text.as_bytes());
            assert_eq!(read.map(|read| read.items.len() as u64), Ok(count), "seed {seed}");
        }
    }

    #[test]
    fn a_day_has_thirty_six_files() {
        assert_eq!((modifier(0), modifier(25), modifier(26)), (Some('A'), Some('Z'), Some('0')));
        assert_eq!((modifier(35), modifier(36)), (Some('9'), None));
    }
}
