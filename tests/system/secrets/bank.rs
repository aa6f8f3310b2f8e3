//! A caller pays from a bank account: the authorisation is kept sealed beside its facts, the
//! account's number nowhere.

use std::fs;
use std::process::Command;

use super::scan::{keys_in, numbers};
use super::{Caller, library};
use crate::binary::{ACCOUNTS, Binary, RINGTILL, beside_others, config};
use crate::caller::JAMES;

const ACCOUNT: &str = "738491620583714";
const ROUTING: &str = "021000021";

const BANK: &str = "[payment.bank]\ncompany = \"Acme Water\"\nphone = \"+1 800 555 0100\"\n\
                    time_zone = \"eastern\"\nrouting_file = \"banks.csv\"\nfee = \"0.50\"\n\n\
                    [prompts]\nfolder = \"voice\"\n";

fn start() -> Binary {
    Binary::launch(ACCOUNTS, |folder, port| {
        let names = folder.join("voice/names");
        fs::create_dir_all(&names).unwrap();
        // Any recorded name will do for that of the company.
        let spoken = concat!(env!("CARGO_MANIFEST_DIR"), "/prompts/en-US/names/maria.flac");
        fs::copy(spoken, names.join("acme water.flac")).unwrap();
        fs::write(folder.join("banks.csv"), format!("{ROUTING},First Bank\n")).unwrap();
        let key = folder.join("authorisations.key");
        fs::write(&key, "k".repeat(64)).unwrap();
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let recorded = "recordings\"\nauthorisations = \"authorisations\"\n\
                        authorisations_key = { file = \"authorisations.key\" }\n";
        config(folder, port, "trace", BANK).replacen("recordings\"\n", recorded, 1)
    })
}

#[test]
fn a_debit_is_authorised_kept_and_leaves_no_account_number() {
    let _turn = beside_others();
    let mut binary = start();
    let script = format!(
        "hear-start greet.hello, key 1, hear-start method.ask, key 2,
         hear-start routing.ask, key 091000019, hear-start routing.unknown, key {ROUTING},
         hear-start routing.ending, hear-start bank.checking_or_savings, key 1,
         hear-start bank.account_ask, key {ACCOUNT}#, hear-start bank.account_again, key 1111#,
         hear-start bank.mismatch, hear-start bank.account_ask, key {ACCOUNT}#,
         hear-start bank.account_again, key {ACCOUNT}#, hear-start authorisation.today, key 1,
         hear authorisation.sign 60, key 1, hear result.submitted 60,
         hear-start result.confirmation, hangup"
    );
    let [stdout, stderr] = Caller::dial(&binary, JAMES, "inband", &script).end(&binary);
    binary.wait_for("call ended");
    binary.wait_for_lines(1, "reconciliation file written");
    let mut searched = binary.files();
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
    searched.extend(binary.files());
    searched.push(("the log".into(), binary.log.join("\n").into_bytes()));
    searched.extend([("stdout".into(), stdout), ("stderr".into(), stderr)]);
    let found: Vec<String> = searched
        .iter()
        .flat_map(|(place, bytes)| numbers(&place.display().to_string(), bytes, ACCOUNT))
        .collect();
    assert!(found.is_empty(), "an account number was found:\n{}", found.join("\n"));
    expect_posted(&binary);
    expect_evidence(&binary);
}

/// The ledger and its file know kind and last four digits.
fn expect_posted(binary: &Binary) {
    let files = binary.files();
    let posted = files.iter().filter(|(path, _)| path.starts_with(binary.path("posting")));
    let text: String =
        posted.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect();
    assert!(text.contains(",322.22,") && text.contains("bank,checking,3714"), "{text}");
}

fn expect_evidence(binary: &Binary) {
    let folder = binary.path("authorisations");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let [json, sealed] = &names[..] else { panic!("{names:?}") };
    assert!(json.ends_with("-1.json") && sealed.ends_with("-1.wav.sealed"), "{names:?}");
    let facts: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join(json)).unwrap()).unwrap();
    let said = facts["said"].as_str().unwrap();
    assert!(said.contains("you authorize Acme Water to make a one-time"), "{said}");
    assert!(said.contains("of $322.22") && said.contains("ending in 3714"), "{said}");
    assert_eq!(facts["holder"], "James Walker");
    let confirmation = facts["confirmation"].as_str().unwrap();
    let wav = binary.path("evidence.wav");
    let exported = Command::new(RINGTILL)
        .args(["payments", "authorisation", confirmation, "--wav"])
        .arg(&wav)
        .current_dir(binary.folder.path())
        .output()
        .unwrap();
    assert!(exported.status.success(), "{exported:?}");
    let wav = fs::read(&wav).unwrap();
    assert_eq!(keys_in(&wav).map(|keys| keys.len()), [0, 0], "keys are heard");
    let ours: Vec<u8> = wav[58..].iter().skip(1).step_by(2).copied().collect();
    for id in ["authorisation.debit", "authorisation.revoke", "authorisation.sign"] {
        let sound = &library().clip(id).expect("a phrase").mu;
        let begins = sound.iter().position(|code| code & 0x7f < 0x50).expect("a sound");
        let heard = ours.windows(400).any(|part| part == &sound[begins..begins + 400]);
        assert!(heard, "{id} is not in the evidence");
    }
}
