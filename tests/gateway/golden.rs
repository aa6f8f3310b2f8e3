//! Requests byte by byte, and beside each what may be logged of it. `GOLDEN=write` writes the files
//! anew, to be read before they are committed.

use std::fs;
use std::path::{Path, PathBuf};

use ringtill::gateway::simulator::SECRET;
use ringtill::gateway::{
    self, Act, Approval, Cannot, Charge, First, Gateway, Initiator, Lookup, Modification, Purpose,
    Request, Series,
};
use ringtill::instrument::{AccountKind, Brand, Cvv, HolderKind, Method, Saved, Token};
use ringtill::money::{Currency, Money};

use super::Tally;
use super::bench::*;

/// What a kept card was kept with.
fn first() -> First<'static> {
    First { reference: "60112345432", network: "016150703802094", total: Money::usd(20_200) }
}

type Made = (String, Result<Request, Cannot>);

pub fn check(name: &str, tally: &mut Tally) {
    for (variant, line) in gateway::variants(name) {
        let gateway = opened(name, line);
        for (case, made) in requests(&*gateway) {
            let mut path = folder(name).join("golden");
            if !variant.is_empty() {
                path.push(variant);
            }
            let shown = format!("{variant} golden {case}");
            match made {
                Ok(request) => {
                    let golden = compare(&path.join(format!("{case}.http")), &wire(&request));
                    tally.case(&shown, golden);
                    let masked = format!("{request:?}\n");
                    tally.case(&format!("{shown} masked"), leaks(&masked));
                    let golden = compare(&path.join(format!("{case}.masked")), &masked);
                    tally.case(&format!("{shown} masked"), golden.and(no_secret_in_head(&request)));
                }
                Err(cannot) => {
                    let text = format!("cannot: {}\n", cannot.0);
                    tally.case(&shown, compare(&path.join(format!("{case}.http")), &text));
                }
            }
        }
    }
}

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gateway").join(name)
}

/// Everything that can be asked of a gateway.
fn requests(gateway: &dyn Gateway) -> Vec<Made> {
    let savings = account("000987654321", AccountKind::Savings, HolderKind::Business);
    let amex = card("378282246310005", Some("9876"), None);
    let bare = card("5555555555554444", None, None);
    let tokens = [token("9001/9002", Method::Card), token("9001/9003", Method::Bank)];
    let with_code = Paid::Token(Saved {
        token: Token::parse("9001/9002").unwrap(),
        method: Method::Card,
        expiry: Some(crate::bench::expiry()),
        cvv: Cvv::parse("987", Brand::Visa),
    });
    let mut made = Vec::new();
    let mut ask = |case: &str, charge: Charge<'_>| {
        made.push((case.to_string(), gateway.charge(&charge)));
    };
    for (purpose, word) in
        [(Purpose::Verify, "verify"), (Purpose::Sale, "sale"), (Purpose::Authorize, "authorize")]
    {
        ask(&format!("{word}.card"), charge(purpose, REFERENCE, &visa()));
    }
    ask("sale.amex", charge(Purpose::Sale, REFERENCE, &amex));
    ask("sale.bare", charge(Purpose::Sale, REFERENCE, &bare));
    ask("sale.account", charge(Purpose::Sale, REFERENCE, &checking()));
    ask("sale.account_of_business", charge(Purpose::Sale, REFERENCE, &savings));
    ask("verify.account", charge(Purpose::Verify, REFERENCE, &checking()));
    ask("sale.token", charge(Purpose::Sale, REFERENCE, &tokens[0]));
    ask("sale.token_with_code", charge(Purpose::Sale, REFERENCE, &with_code));
    ask("sale.token_of_account", charge(Purpose::Sale, REFERENCE, &tokens[1]));
    for (series, word) in [
        (Series::Once, "once"),
        (Series::Recurring, "recurring"),
        (Series::Instalment, "instalment"),
    ] {
        let initiator = Initiator::Merchant { series, first: first() };
        let later = Charge { initiator, ..charge(Purpose::Sale, REFERENCE, &tokens[0]) };
        ask(&format!("sale.{word}"), later);
    }
    let first = First { network: "", ..first() };
    let initiator = Initiator::Merchant { series: Series::Recurring, first };
    let later = Charge { initiator, ..charge(Purpose::Sale, REFERENCE, &tokens[0]) };
    ask("sale.recurring_after_an_upgrade", later);
    let saved = visa();
    ask("sale.save", Charge { save: true, ..charge(Purpose::Sale, REFERENCE, &saved) });
    ask("verify.save", Charge { save: true, ..charge(Purpose::Verify, REFERENCE, &saved) });
    let approval = Approval { token: Token::parse("9002"), ..Approval::default() };
    let save = Charge { save: true, ..charge(Purpose::Sale, REFERENCE, &saved) };
    if let Some(keep) = gateway.keep(&save, &approval) {
        made.push(("keep".to_string(), Ok(keep)));
    }
    let mut ask = |case: &str, charge: Charge<'_>| {
        made.push((case.to_string(), gateway.charge(&charge)));
    };
    ask("sale.surcharge", Charge { surcharge: true, ..charge(Purpose::Sale, REFERENCE, &saved) });
    let yen = Money::new(20_200, Currency::JPY);
    let fee = Money::new(0, Currency::JPY);
    ask("sale.yen", Charge { total: yen, fee, ..charge(Purpose::Sale, REFERENCE, &saved) });
    for (act, word) in [(Act::Capture, "capture"), (Act::Void, "void"), (Act::Refund, "refund")] {
        for (paid, with) in [(visa(), "card"), (checking(), "account")] {
            let change = modification(act, "60112345432", 15_000, &paid);
            made.push((format!("{word}.{with}"), gateway.modify(&change)));
        }
    }
    let paid = visa();
    let void = modification(Act::Void, "60112345432", 20_200, &paid);
    let void = Modification { purpose: Purpose::Authorize, ..void };
    made.push(("void.authorization".to_string(), gateway.modify(&void)));
    for (purpose, method, case) in [
        (Purpose::Sale, Method::Card, "lookup.card"),
        (Purpose::Sale, Method::Bank, "lookup.account"),
        (Purpose::Authorize, Method::Card, "lookup.authorize"),
    ] {
        let asked: Lookup<'_> = lookup(purpose, REFERENCE, method);
        made.push((case.to_string(), gateway.lookup(&asked)));
    }
    made
}

/// The request as it goes over the wire, headers in the order they were set.
fn wire(request: &Request) -> String {
    let mut text = format!("{} {}\n", request.head.method, request.head.uri);
    for (name, value) in &request.head.headers {
        text += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    text + "\n" + std::str::from_utf8(&request.body).unwrap() + "\n"
}

const PRIVATE: [&str; 10] = [
    "4111111111111111",
    "378282246310005",
    "5555555555554444",
    "000123456789",
    "000987654321",
    "021000021",
    "9876",
    "2030",
    "9001",
    "Müller",
];

fn leaks(printed: &str) -> Result<(), String> {
    // The security code as JSON, a form and XML would have it: other numbers may have its digits.
    let code = ["\"987\"", "=987&", "=987\n", ">987<"];
    let mut private = PRIVATE.iter().chain([&SECRET]).chain(&code);
    let found = private.find(|text| printed.contains(**text));
    found.map_or(Ok(()), |text| Err(format!("{text} is shown: {printed}")))
}

/// Neither in the address nor in a header that is printed.
fn no_secret_in_head(request: &Request) -> Result<(), String> {
    let head = format!("{:?}", request.head);
    let found = PRIVATE.iter().chain([&SECRET]).find(|text| head.contains(**text));
    ensure(found.is_none(), || format!("{found:?} in {head}"))?;
    let https = request.head.uri.scheme_str() == Some("https");
    ensure(https, || format!("{} is no HTTPS address", request.head.uri))
}

fn compare(path: &Path, text: &str) -> Result<(), String> {
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let wanted =
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    ensure(wanted == text, || format!("wanted\n{wanted}\ngot\n{text}"))
}
