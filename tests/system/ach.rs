//! A biller without a gateway: a caller pays from a bank account, the debit goes to the bank in a
//! file, comes back, and the biller is told. The account's number is in that file and nowhere else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::binary::{ACCOUNTS, Binary, RINGTILL, beside_others, config};
use crate::caller::JAMES;
use crate::secrets::{Caller, numbers};

const ACCOUNT: &str = "738491620583714";
const ROUTING: &str = "021000021";

const SETTINGS: &str = "\
[payment.bank]
company = \"Acme Water\"
phone = \"+1 800 555 0100\"
time_zone = \"eastern\"
written_notice = true

[prompts]
folder = \"voice\"

[[gateway]]
name = \"bogus\"
id = \"cards\"
bank = false
[gateway.settings]
base_url = \"https://127.0.0.1:9\"
api_key = \"sk_cards\"

[[gateway]]
name = \"nacha\"
[gateway.settings]
odfi_routing = \"091000019\"
immediate_destination_name = \"First Bank\"
immediate_origin = \"1800432100\"
company_id = \"1800432100\"
company_name = \"Acme Water\"
entry_description = \"Water Bill\"
cut_off = \"23:59\"
directory = \"ach\"
account_key = { file = \"ach.key\" }
";

fn start() -> Binary {
    Binary::launch(ACCOUNTS, |folder, port| {
        let names = folder.join("voice/names");
        fs::create_dir_all(&names).unwrap();
        let spoken = concat!(env!("CARGO_MANIFEST_DIR"), "/prompts/en-US/names/maria.flac");
        fs::copy(spoken, names.join("acme water.flac")).unwrap();
        let key = folder.join("ach.key");
        fs::write(&key, "k".repeat(64)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        config(folder, port, "trace", SETTINGS)
    })
}

/// A command with its exit code and everything it printed.
fn run(binary: &Binary, arguments: &[&str]) -> (Option<i32>, String) {
    let done =
        Command::new(RINGTILL).args(arguments).current_dir(binary.folder.path()).output().unwrap();
    (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
}

/// James pays his balance from his account; `result` is what he hears then. What was printed.
fn pay(binary: &mut Binary, result: &str) -> Vec<u8> {
    let script = format!(
        "hear-start greet.hello, key 1, hear-start method.ask, key 2,
         hear-start routing.ask, key {ROUTING}, hear-start bank.checking_or_savings, key 1,
         hear-start bank.account_ask, key {ACCOUNT}#, hear-start bank.account_again, key {ACCOUNT}#,
         hear-start authorisation.today, hear-start authorisation.sign 60, key 1,
         hear-start {result} 60, pause 500, hangup"
    );
    let [stdout, stderr] = Caller::dial(binary, JAMES, "rfc4733", &script).end(binary);
    [stdout, stderr].concat()
}

fn files(binary: &Binary, ending: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(binary.path("ach")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> =
        all.filter(|path| path.extension().is_some_and(|e| e == ending)).collect();
    all.sort();
    all
}

/// The bank's answer to an entry of our file.
fn back(entry: &str, code: &str) -> String {
    let (trace, amount, id) = (&entry[79..94], &entry[29..39], &entry[39..54]);
    let receiver = &entry[12..29];
    let hash = 9_100_001;
    let lines = [
        format!(
            "101{:>10}{:>10}2612020900A094101{:<23}{:<23}{:8}",
            "1800432100", "091000019", "ACME WATER", "FIRST BANK", ""
        ),
        format!(
            "5225{:<16}{:20}1800432100TEL{:<10}261127261202336102100002{:07}",
            "ACME WATER", "", "WATER BILL", 1
        ),
        format!(
            "626091000019{receiver}{amount}{id}{:<22}S 1{:015}",
            "JAMES WALKER", 21_000_020_000_001u64
        ),
        format!("799{code}{trace}{:6}02100002{:44}{:015}", "", "", 21_000_020_000_001u64),
        format!("8225000002{hash:010}00{amount}{:012}1800432100{:25}02100002{:07}", 0, "", 1),
        format!("9{:06}{:06}{:08}{hash:010}00{amount}{:012}{:39}", 1, 1, 2, 0, ""),
    ];
    lines.join("\r\n") + "\r\n"
}

#[test]
fn a_debit_goes_to_the_bank_in_a_file_and_comes_back() {
    let _turn = beside_others();
    let mut binary = start();
    let mut printed = pay(&mut binary, "result.submitted");
    binary.wait_for("call ended");
    let mut searched = binary.files();
    assert!(!binary.path("ach").exists(), "a file was written before the cut-off");

    // Killed with the debit waiting: it is there again, and in one file.
    binary.kill();
    binary.start_again();
    let (code, told) = run(&binary, &["ach", "write"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(".ach: 1 debits, $323.72"), "{told}");
    let (code, told) = run(&binary, &["ach", "write"]);
    assert!(code == Some(0) && told.contains("nothing waits"), "{told}");
    let written = files(&binary, "ach");
    assert_eq!((written.len(), files(&binary, "done").len()), (1, 1));
    let text = fs::read_to_string(&written[0]).unwrap();
    let entry = text.lines().nth(2).unwrap().to_string();
    assert!(entry.starts_with(&format!("627{ROUTING}{ACCOUNT}  0000032372")), "{text}");
    let mode = fs::metadata(&written[0]).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let number = entry[39..54].trim().to_string();

    binary.wait_for_lines(1, "reconciliation file written");
    let (code, told) = run(&binary, &["reconcile"]);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = run(&binary, &["payments", "void", &number, "--why", "late"]);
    assert!(code != Some(0) && told.contains("ask the bank"), "{told}");
    let (code, told) = run(&binary, &["payments", "refund", &number, "--why", "late"]);
    assert!(code != Some(0) && told.contains("TEL only debits"), "{told}");

    // A damaged file first, then the whole one, then that again.
    fs::write(binary.path("back"), back(&entry, "R02").replace("R02", "Q02")).unwrap();
    let (code, told) = run(&binary, &["ach", "import", "back"]);
    assert!(code == Some(1) && told.contains("line 4, column 4: expected a reason"), "{told}");
    fs::write(binary.path("back"), back(&entry, "R02")).unwrap();
    let (code, told) = run(&binary, &["ach", "import", "back"]);
    assert!(code == Some(0) && told.contains("R02, account closed"), "{told}");
    assert!(told.contains("1 returns, 0 notices"), "{told}");
    let (code, told) = run(&binary, &["ach", "import", "back"]);
    assert!(code == Some(0) && told.contains("0 returns") && told.contains("1 known"), "{told}");
    fs::write(binary.path("back"), back(&entry, "R02").replace(&entry[79..94], "091000019999999"))
        .unwrap();
    let (code, told) = run(&binary, &["ach", "import", "back"]);
    assert!(code == Some(1) && told.contains("no debit has its trace number"), "{told}");
    fs::remove_file(binary.path("back")).unwrap();

    binary.wait_for_lines(2, "reconciliation file written");
    let (code, told) = run(&binary, &["reconcile"]);
    assert_eq!(code, Some(0), "{told}");
    let (_, told) = run(&binary, &["payments", "show", &number]);
    assert!(told.contains("$323.72 given back") && told.contains("R02"), "{told}");

    // The same account is refused from now on.
    printed.extend(pay(&mut binary, "result.debit_refused"));
    binary.wait_for_lines(2, "call ended");
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
    let posted: String = binary
        .files()
        .into_iter()
        .filter(|(path, _)| path.starts_with(binary.path("posting")))
        .map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned())
        .collect();
    assert!(
        posted.contains(",321.72,2.00,323.72,USD,bank,checking,3714,returned,R02,nacha,"),
        "{posted}"
    );

    searched.extend(binary.files());
    searched.push(("the log".into(), binary.log.join("\n").into_bytes()));
    searched.push(("what was printed".into(), printed));
    let files = searched.iter().filter(|(path, _)| path != &written[0]);
    let found: Vec<String> = files
        .flat_map(|(place, bytes)| numbers(&place.display().to_string(), bytes, ACCOUNT))
        .collect();
    assert!(found.is_empty(), "an account number was found:\n{}", found.join("\n"));
    let (place, bytes) = searched.iter().find(|(path, _)| path == &written[0]).unwrap();
    assert!(!numbers(&place.display().to_string(), bytes, ACCOUNT).is_empty());
}

#[test]
fn wrong_settings_are_told_by_line_with_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        fs::write(folder.path().join("ringtill.toml"), text).unwrap();
        let done = Command::new(RINGTILL).arg("check").current_dir(folder.path()).output().unwrap();
        (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    };
    let gateways = SETTINGS.replace("[prompts]\nfolder = \"voice\"\n", "");
    for (from, to, want) in [
        ("cut_off = \"23:59\"", "cut_off = \"late\"", "write a time of day such as"),
        ("091000019\"", "091000010\"", "the nine digits of the bank"),
        ("account_key = { file = \"ach.key\" }", "", "account_key = { file = \"ach.key\" }"),
        ("name = \"nacha\"", "name = \"nacha\"\ncards = [\"visa\"]", "leave `cards` out"),
        ("cut_off", "cut_of", "`cut_of` is no key"),
    ] {
        let text = gateways.replacen(from, to, 1);
        let (code, told) = check(&text);
        assert_eq!(code, Some(78), "{told}");
        assert!(told.contains(want), "{told}");
        // What is not there is told where it should be.
        let wrong = to.lines().last().unwrap_or("[gateway.settings]");
        let lines = text.lines().enumerate().filter(|(_, line)| line.contains(wrong));
        let at = lines.map(|(at, _)| at + 1).last().unwrap();
        let at = if want.ends_with("no key") { told.find("ringtill.toml:").unwrap() } else { at };
        assert!(want.ends_with("no key") || told.contains(&format!("toml:{at}:")), "{at}: {told}");
    }
    let (code, told) = check(&gateways);
    assert!(code == Some(78) && told.contains("account_key ach.key: No such file"), "{told}");
    fs::write(folder.path().join("ach.key"), "k".repeat(64)).unwrap();
    let key = folder.path().join("ach.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(folder.path().join("ach")).unwrap();
    let directory = folder.path().join("ach");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o750)).unwrap();
    let (_, told) = check(&gateways);
    assert!(told.contains("others may read it: `chmod 700` it"), "{told}");
}
