//! SIPp as many callers with the scenarios it brings along, as a caller whose keys come by INFO,
//! and as a trunk that takes a REFER or refuses it. All at a time, against one server.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use super::{Program, payments};
use crate::binary::{ACCOUNTS, Binary, beside_others, expiry};
use crate::ports::{free_media_port_at, free_port_at};
use crate::sipp;

/// Where the caller's trunk takes a REFER, where it refuses, and where the agent is.
const REFERS: &str = "127.0.0.4";
const REFUSES: &str = "127.0.0.5";
const AGENT: &str = "127.0.0.7";
/// Sound that SIPp's `uac_pcap` plays.
const SOUND: &str = "/usr/share/sip-tester";

const CALLS: usize = 200;

#[test]
fn sipp_calls_in_numbers_by_info_and_with_transfers() {
    if !sipp::is_here() {
        return;
    }
    let _turn = beside_others();
    let agent_port = free_port_at(AGENT);
    let trunks = format!(
        "[agent]\nuri = \"sip:agent@callcenter.test\"\n\n\
         [[trunk]]\nname = \"refers\"\nsources = [\"{REFERS}/32\"]\ntrust_caller_id = true\n\n\
         [[trunk]]\nname = \"refuses\"\nsources = [\"{REFUSES}/32\"]\ntrust_caller_id = true\n\
         proxy = \"sip:{AGENT}:{agent_port}\"\n"
    );
    let mut ringtill = Binary::start_listening(&[], ACCOUNTS, "info", &trunks);
    std::fs::write(ringtill.path("pay_info.xml"), pay_info()).expect("written");

    let mut agent = sipp(&ringtill, AGENT, agent_port, &["-sf", &ours("agent.xml"), "-m", "1"]);
    let uac = |ip: &str, arguments: &[&str]| {
        let server = format!("127.0.0.1:{}", ringtill.port);
        let arguments = [&[server.as_str(), "-s", "pay"], arguments].concat();
        sipp(&ringtill, ip, free_port_at(ip), &arguments)
    };
    let calls = CALLS.to_string();
    let mut running = vec![
        uac("127.0.0.1", &["-sf", "pay_info.xml", "-m", "1"]),
        uac(REFERS, &["-sf", &ours("refer_accepted.xml"), "-m", "1"]),
        uac(REFUSES, &["-sf", &ours("refer_refused.xml"), "-m", "1"]),
        uac("127.0.0.1", &["-sn", "uac", "-r", "50", "-m", &calls]),
    ];
    let sounds = Path::new(SOUND).join("g711a.pcap").exists();
    if sounds {
        std::os::unix::fs::symlink(SOUND, ringtill.path("pcap")).expect("linked");
        running.push(uac("127.0.0.1", &["-sn", "uac_pcap", "-m", "1"]));
    }
    for caller in &mut running {
        caller.expect_success();
    }
    agent.expect_success();

    let all = CALLS + running.len() - 1;
    ringtill.wait_for_lines(all, ": call ended ");
    ringtill.wait_for_lines(all, ": media closed ");
    assert_eq!(ringtill.lines_with("outcome=Transferred"), 2, "{}", ringtill.log.join("\n"));
    assert_eq!(ringtill.lines_with(": calling the agent "), 1);
    if sounds {
        expect_sound(&ringtill);
    }
    assert_eq!(ringtill.stop(), Some(0), "{}", ringtill.log.join("\n"));
    assert_eq!(payments(&ringtill), [("1001".to_string(), 32_172)]);
}

/// The one caller that sends sound sends eight seconds of it, and a key at the end.
fn expect_sound(ringtill: &Binary) {
    let received = |line: &String| {
        let count = line.split("received: ").nth(1)?.split(',').next()?;
        count.parse().ok()
    };
    let packets: Vec<u32> = ringtill.log.iter().filter_map(received).collect();
    let heard = packets.iter().filter(|count| **count >= 200).count();
    assert_eq!(heard, 1, "{packets:?}");
}

fn sipp(ringtill: &Binary, ip: &str, port: u16, arguments: &[&str]) -> Program {
    let media_port = free_media_port_at(ip);
    let mut command = Command::new("sipp");
    command
        .args(arguments)
        .args(["-i", ip, "-mi", ip, "-p", &port.to_string()])
        .args(["-mp", &media_port.to_string()])
        .args(["-nostdin", "-timeout", "80", "-timeout_error"])
        .current_dir(ringtill.folder.path());
    Program::start(command)
}

fn ours(scenario: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sipp").join(scenario);
    file.display().to_string()
}

/// The scenario with an INFO for each key; the card must still be good on the day of the test.
fn pay_info() -> String {
    let text = std::fs::read_to_string(ours("pay_info.xml")).expect("a scenario");
    let consent = text.rfind("  <pause").map(|end| &text[..end]).expect("a pause");
    let info = consent.rfind("  <send retrans").map(|info| &consent[info..]).expect("an INFO");
    let keys = format!("14111111111111111#{}12346201", expiry());
    let mut all = String::new();
    for (at, key) in keys.chars().enumerate() {
        let one = info.replace("CSeq: 40 ", &format!("CSeq: {} ", at + 2));
        write!(all, "{}", one.replace("Signal=1", &format!("Signal={key}"))).expect("text");
    }
    text.replace("  KEYS\n", &all)
}
