//! What is special about each trunk profile, played by SIPp against the real binary: all at once,
//! each from a loopback address of its own, told apart by nothing but `sources`.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::binary::{ACCOUNTS, Binary, beside_others, deadline, now};
use crate::ports::{free_media_port_at, free_port};

/// One run of a scenario: profile, address it calls from, further arguments, and what must come of
/// it.
struct Run {
    profile: &'static str,
    address: &'static str,
    arguments: &'static [&'static str],
    /// By what the caller is identified, if at all.
    identified: Option<&'static str>,
}

const fn run(profile: &'static str, address: &'static str) -> Run {
    Run { profile, address, arguments: &[], identified: None }
}

const BY_NUMBER: Option<&str> = Some("caller id");
const BY_ACCOUNT: Option<&str> = Some("account and ZIP");

/// The numbers are those of the interop problems that `sip::agent` has tests of.
const RUNS: [Run; 13] = [
    // 14: REGISTER, challenged and found too brief. It waits for ours, so it starts first.
    Run { identified: BY_NUMBER, ..run("voipms", "127.0.1.5") },
    // 14: OPTIONS for any number.
    run("generic", "127.0.1.1"),
    // 4: 422 and Min-SE.
    Run { identified: BY_NUMBER, ..run("twilio", "127.0.1.2") },
    Run {
        arguments: &["-key", "verstat", "TN-Validation-Passed"],
        identified: BY_NUMBER,
        ..run("telnyx", "127.0.1.3")
    },
    // Attestation B, and a number that its network disowns: callers like any other.
    Run { arguments: &["-key", "verstat", "TN-Validation-Passed-B"], ..run("telnyx", "127.0.1.3") },
    Run { arguments: &["-key", "verstat", "TN-Validation-Failed"], ..run("telnyx", "127.0.1.3") },
    // 11 and 15: several m= lines; an asserted number under an anonymous From.
    Run { identified: BY_NUMBER, ..run("bandwidth", "127.0.1.4") },
    // 10: a key by INFO. Replaces.
    run("asterisk", "127.0.1.6"),
    // 1, 2 and 9: late offer with a duplicate ACK, hold and unhold, all on one TCP connection.
    Run { arguments: &["-t", "t1"], identified: BY_NUMBER, ..run("cisco", "127.0.1.8") },
    // 4 and 15: refreshes by UPDATE and re-INVITE; User-to-User.
    Run { identified: BY_ACCOUNT, ..run("avaya", "127.0.1.9") },
    // 13: REFER with NOTIFYs to the end and beyond.
    run("genesys", "127.0.1.10"),
    // 15: 183 and PRACK.
    run("freeswitch", "127.0.1.7"),
    // 8: route set.
    run("kamailio", "127.0.1.11"),
];

/// As an operator would write them.
const TRUNKS: &str = r#"
[agent]
uri = "sip:agents@127.0.1.10:5999"

[[trunk]]
sources = ["127.0.1.1/32"]

[[trunk]]
profile = "twilio"
sources = ["127.0.1.2/32"]
trust_caller_id = "attested"

[[trunk]]
profile = "telnyx"
sources = ["127.0.1.3/32"]
trust_caller_id = "validated"

[[trunk]]
profile = "bandwidth"
sources = ["127.0.1.4/32"]
trust_caller_id = true

[[trunk]]
profile = "voipms"
sources = ["127.0.1.5/32"]
trust_caller_id = true
account = { username = "100234_ringtill", password = "loopback-secret" }
[trunk.register]
registrar = "sip:127.0.1.5:REGISTRAR"
address = "sip:100234_ringtill@127.0.1.5"
expires_s = 300

[[trunk]]
profile = "asterisk"
sources = ["127.0.1.6/32"]

[[trunk]]
profile = "freeswitch"
sources = ["127.0.1.7/32"]

[[trunk]]
profile = "cisco"
sources = ["127.0.1.8/32"]
trust_caller_id = true

[[trunk]]
profile = "avaya"
sources = ["127.0.1.9/32"]

[[trunk]]
profile = "genesys"
sources = ["127.0.1.10/32"]

[[trunk]]
profile = "kamailio"
sources = ["127.0.1.11/32"]
latch = "strict"  # as with RTPEngine beside it: SIPp sends no audio
"#;

#[test]
fn each_profile_serves_what_is_special_about_its_trunk() {
    if !crate::sipp::is_here() {
        return;
    }
    let _turn = beside_others();
    let registrar = free_port();
    let trunks = TRUNKS.replace("REGISTRAR", &registrar.to_string());
    let mut binary = Binary::start_listening(&["tcp"], ACCOUNTS, "info", &trunks);
    let start = |run: &Run| {
        let port = if run.profile == "voipms" { registrar } else { free_port() };
        Sipp::start(run, &binary, port)
    };
    let running: Vec<Sipp> = RUNS.iter().map(start).collect();
    let failed: Vec<String> = running.into_iter().filter_map(Sipp::failure).collect();
    let code = binary.stop();
    let log = binary.log.join("\n");
    assert!(failed.is_empty(), "{}\n{log}", failed.join("\n\n"));
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("registered trunk=\"voipms\""), "{log}");
    for profile in RUNS.map(|run| run.profile) {
        let wanted: Vec<_> = RUNS.iter().filter(|run| run.profile == profile).collect();
        let identified = |by: &str| {
            let wanted = wanted.iter().filter(|run| run.identified == Some(by)).count();
            assert_eq!(
                calls(&binary.log, profile, &format!("by=\"{by}\"")),
                wanted,
                "{profile}: {by}\n{log}"
            );
        };
        assert_eq!(calls(&binary.log, profile, "call ended"), wanted.len(), "{profile}\n{log}");
        ["caller id", "account and ZIP"].into_iter().for_each(identified);
    }
}

/// How many of the trunk's calls have a line with `part` in it.
fn calls(log: &[String], trunk: &str, part: &str) -> usize {
    let of = |line: &str| {
        let id = line.split("call=\"").nth(1).and_then(|rest| rest.split('"').next());
        id.map(String::from)
    };
    let trunk = format!("trunk=\"{trunk}\"");
    let ids = log.iter().filter(|line| line.contains(&trunk)).filter_map(|line| of(line));
    ids.filter(|id| log.iter().any(|line| line.contains(part) && of(line).as_ref() == Some(id)))
        .count()
}

/// A running SIPp.
pub struct Sipp {
    name: String,
    folder: std::path::PathBuf,
    child: Child,
}

impl Sipp {
    fn start(run: &Run, binary: &Binary, port: u16) -> Sipp {
        let scenario = format!("{}.xml", run.profile);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sipp").join(&scenario);
        let folder = binary.path(&format!("sipp-{}-{port}", run.profile));
        std::fs::create_dir(&folder).expect("a folder");
        let address: IpAddr = run.address.parse().expect("an address");
        let child = Command::new("sipp")
            .arg(format!("127.0.0.1:{}", binary.port))
            .arg("-sf")
            .arg(file)
            .args(["-i", &address.to_string(), "-mi", &address.to_string()])
            .args(["-p", &port.to_string(), "-mp", &free_media_port_at(run.address).to_string()])
            .args(["-s", "pay", "-m", "1", "-l", "1", "-nostdin", "-timeout", "40"])
            .args(["-timeout_error", "-trace_err", "-trace_msg"])
            .args(run.arguments)
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sipp runs");
        Sipp { name: run.profile.into(), folder, child }
    }

    /// Waits for the end; what went wrong, with the messages.
    fn failure(mut self) -> Option<String> {
        let until = deadline(Duration::from_secs(60));
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if now() >= until {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut files = crate::binary::files(&self.folder);
        files.sort();
        let all: Vec<_> = files.iter().map(|(_, text)| String::from_utf8_lossy(text)).collect();
        (!status.success()).then(|| format!("{}: {status}\n{}", self.name, all.join("\n")))
    }
}
