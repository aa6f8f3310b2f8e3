//! A second after its call has ended the server's memory holds nothing of a card: every page it may
//! write to is read from outside and searched. The gateway is in this process, so that what is
//! found is the server's own.
//!
//! `RINGTILL_TESTS_PAYMENTS` says how many cards are paid with (8), eight at a time.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use ringtill::dial::script::Keying;
use ringtill::gateway::bogus::Simulator;
use ringtill::media::Method;
use ringtill::server::bogus::BogusHost;
use tokio::runtime::Runtime;

use super::*;
use crate::binary::config;
use crate::caller::Line;

const KEY: &str = "sk_bogus_memory";
const AT_ONCE: usize = 8;

/// A card of nobody that passes every check.
struct Paid {
    number: String,
    cvv: String,
}

impl Paid {
    fn nth(nth: usize) -> Paid {
        // Digits that differ from card to card, and from what programs count with.
        let body = format!("4{:014}", 40_718_293_554_617_u64 + 7_919_003 * nth as u64);
        let weigh = |(at, digit): (usize, u8)| {
            let value = u32::from(digit - b'0') << ((at + 1) % 2);
            value / 10 + value % 10
        };
        let sum: u32 = body.bytes().rev().enumerate().map(weigh).sum();
        Paid {
            number: format!("{body}{}", (10 - sum % 10) % 10),
            cvv: format!("{:03}", 611 + nth % 300),
        }
    }

    fn pay(&self, port: u16, nth: usize) {
        let script = format!(
            "hear-start greet.hello, key 1, hear-start card.ask, key {}#, hear-start expiry.ask,
             key {}, hear-start cvv.ask_three, key {}, hear-start consent.accept 60, key 1,
             hear result.approved 60, hangup",
            self.number,
            expiry(),
            self.cvv
        );
        let method = if nth.is_multiple_of(2) { Method::Events } else { Method::InBand };
        let keying = Keying { method, ..Keying::default() };
        let mut line = Line::place(port, &phone(nth), &script, keying);
        let ended = line.run();
        assert!(ended.is_ok(), "{ended:?}\n{}", line.log());
    }
}

fn phone(nth: usize) -> String {
    format!("+1317555{:04}", 1_000 + nth)
}

fn accounts(count: usize) -> String {
    let row = |nth: usize| {
        format!("{},James,Walker,{},46201,10.00,2030-12-01\n", 3_000 + nth, phone(nth))
    };
    let rows: String = (0..count).map(row).collect();
    format!("account_id,name_first,name_last,phone1,verify_zip,amount_due,due_date\n{rows}")
}

#[test]
fn memory_is_clean_a_second_after_the_call() {
    let _turn = beside_others();
    let payments = std::env::var("RINGTILL_TESTS_PAYMENTS");
    let payments: usize = payments.map_or(8, |text| text.parse().expect("a number"));
    let runtime = Runtime::new().expect("a runtime");
    let host = runtime.block_on(BogusHost::start(Simulator::new(KEY, 5))).expect("a gateway");
    let mut binary = Binary::launch(&accounts(payments), |folder, port| {
        fs::write(folder.join("ca.pem"), &host.certificate_pem).expect("written");
        let gateway = format!(
            "[gateway]\nname = \"bogus\"\nca_file = \"ca.pem\"\n\
             [gateway.settings]\nbase_url = \"{}\"\napi_key = \"{KEY}\"\n",
            host.base_url()
        );
        config(folder, port, "info", &gateway)
            .replace("biller = \"testco\"", "biller = \"testco\"\nzip = false")
    });
    let mut found = Vec::new();
    for first in (0..payments).step_by(AT_ONCE) {
        let some: Vec<usize> = (first..payments.min(first + AT_ONCE)).collect();
        let port = binary.port;
        thread::scope(|scope| {
            for nth in &some {
                scope.spawn(move || Paid::nth(*nth).pay(port, *nth));
            }
        });
        binary.wait_for_lines(first + some.len(), "call ended");
        thread::sleep(Duration::from_secs(1));
        let pages = Pages::read(binary.pid());
        let last4 = Paid::nth(first).number[12..].to_string();
        // What may be kept is there, so that a search that finds nothing has looked.
        assert!(pages.hold(last4.as_bytes()), "no trace of the payment in {} bytes", pages.len());
        found.extend(some.iter().flat_map(|nth| pages.traces(&Paid::nth(*nth))));
    }
    assert_eq!(host.sales().len(), payments);
    assert!(found.is_empty(), "in the server's memory:\n{}", found.join("\n"));
    assert_eq!(binary.stop(), Some(0));
}

/// What a process may write to, as it was at one moment.
struct Pages(Vec<(String, Vec<u8>)>);

impl Pages {
    fn read(pid: u32) -> Pages {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its maps");
        let memory = File::open(format!("/proc/{pid}/mem")).expect("its memory");
        let read = |line: &str| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).expect("hex"));
            if !rest.starts_with("rw") || rest.contains("/dev/") {
                return None;
            }
            let mut bytes = vec![0; usize::try_from(to - from).expect("fits")];
            memory.read_exact_at(&mut bytes, from).ok()?;
            let name = rest.split_whitespace().nth(4).unwrap_or("anonymous");
            Some((format!("{name} {from:x}"), bytes))
        };
        let all: Vec<_> = maps.lines().filter_map(read).collect();
        assert!(all.iter().any(|(name, _)| name.starts_with("[heap]")), "no heap was read");
        Pages(all)
    }

    fn len(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    fn hold(&self, pattern: &[u8]) -> bool {
        self.0.iter().any(|(_, bytes)| positions(bytes, pattern).next().is_some())
    }

    /// Where and in which form a card is found; never the card.
    fn traces(&self, card: &Paid) -> Vec<String> {
        let values: Vec<u8> = card.number.bytes().map(|digit| digit - b'0').collect();
        let packed = |values: &[u8]| -> Vec<u8> {
            values.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        };
        let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            card.number.encode_utf16().flat_map(order).collect()
        };
        let forms = [
            ("ASCII, JSON or URL", card.number.clone().into_bytes()),
            ("a byte a digit", values.clone()),
            ("UTF-16, little endian", utf16(u16::to_le_bytes)),
            ("UTF-16, big endian", utf16(u16::to_be_bytes)),
            ("BCD", packed(&values)),
            ("BCD at half a byte", packed(&values[1..])),
            ("the code as JSON", format!("\"cvv\":\"{}\"", card.cvv).into_bytes()),
            ("the code in a form", format!("cvv={}", card.cvv).into_bytes()),
        ];
        let mut found = Vec::new();
        for (place, bytes) in &self.0 {
            for (form, pattern) in &forms {
                let at = positions(bytes, pattern);
                found.extend(at.map(|at| format!("{place}+{at:x}: {form}{}", around(bytes, at))));
            }
            for first in [card.number.as_bytes(), &values] {
                found.extend(
                    strided(bytes, first).map(|(at, stride)| {
                        format!("{place}+{at:x}: a digit every {stride} bytes")
                    }),
                );
            }
        }
        found
    }
}

fn positions<'a>(bytes: &'a [u8], pattern: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = pattern[0];
    let starts = bytes.iter().enumerate().filter(move |(_, byte)| **byte == first);
    starts.map(|(at, _)| at).filter(move |at| bytes[*at..].starts_with(pattern))
}

/// Digits that stand in fields of a queue's entries, or of a list's.
fn strided<'a>(bytes: &'a [u8], digits: &'a [u8]) -> impl Iterator<Item = (usize, usize)> + 'a {
    const STRIDE_MAX: usize = 128;
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == digits[0]);
    starts.flat_map(move |(at, _)| {
        let fits = move |stride: &usize| {
            let mut rest = (1..).map(|nth| bytes.get(at + nth * stride));
            digits[1..].iter().all(|digit| rest.next().flatten() == Some(digit))
        };
        (3..=STRIDE_MAX).filter(fits).map(move |stride| (at, stride))
    })
}

/// The letters around, digits masked: what wrote it is often named there.
fn around(bytes: &[u8], at: usize) -> String {
    let near = &bytes[at.saturating_sub(80)..(at + 80).min(bytes.len())];
    let shown = |byte: &u8| match byte {
        b'0'..=b'9' => '#',
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    };
    format!(" in `{}`", near.iter().map(shown).collect::<String>())
}
