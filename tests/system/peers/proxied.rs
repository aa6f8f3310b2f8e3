//! Kamailio between callers, Ringtill and the agent: it registers us, routes calls to us and asks
//! who we are before it takes a call of ours. Calls cross from UDP to TCP there, either way.

use std::path::Path;
use std::process::Command;

use super::baresip::{Baresip, Voice};
use super::{Program, is_here};
use crate::binary::{ACCOUNTS, Binary, RINGTILL, beside_others};
use crate::caller::{JAMES, MARIA};
use crate::ports::free_port_at;

/// Where Kamailio is.
const PROXY: &str = "127.0.0.6";
/// The first sound to end may be our own prompt.
const SCRIPT: &str = "hear-start menu.amount, pause 300, key 0, hear agent.transfer, \
                      hear speech 20s, hear speech 20s, hangup";

#[test]
fn calls_by_way_of_kamailio_reach_us_and_the_agent() {
    if !is_here("kamailio", "kamailio") || !is_here("baresip", "baresip-core") {
        return;
    }
    let _turn = beside_others();
    let port = free_port_at(PROXY);
    let folder = tempfile::tempdir().expect("a folder");
    let mut kamailio = kamailio(port, folder.path());
    let mut ringtill = Binary::start_listening(&["tcp"], ACCOUNTS, "info", &trunks(port));
    let account =
        format!("<sip:agent@{PROXY}:{port}>;auth_user=agent;auth_pass=tomato;answermode=auto");
    let mut agent = Baresip::start("127.0.0.1", &account, Voice::Humming);
    for user in ["pay-udp", "pay-tcp", "agent"] {
        kamailio.wait_for_lines(1, &format!("challenged REGISTER of {user}"));
        kamailio.wait_for_lines(1, &format!("registered {user}"));
    }
    ringtill.wait_for_lines(2, ": registered ");

    let mut james = dial(&format!("sip:pay-tcp@{PROXY}:{port}"));
    let account = format!("<sip:{MARIA}@127.0.0.1;transport=tcp>;regint=0");
    let mut maria = Baresip::start("127.0.0.1", &account, Voice::Humming);
    hold_and_resume(&mut maria, &format!("sip:pay-udp@{PROXY}:{port}"), &mut kamailio);

    // James hears the agent, who hears him, and hangs up.
    for event in ["CALL_ESTABLISHED", "CALL_RTPESTAB", "CALL_CLOSED"] {
        agent.wait_for(event);
    }
    let heard = james.expect_success();
    assert!(heard.contains("s of sound we do not know"), "{heard}");
    kamailio.wait_for_lines(1, "challenged INVITE to agent");
    // His own BYE, and ours to the agent in his name.
    kamailio.wait_for_lines(2, &format!("routed BYE of {JAMES}"));

    // Maria's agent hangs up.
    maria.key("0");
    for event in ["CALL_ESTABLISHED", "CALL_RTPESTAB"] {
        agent.wait_for(event);
    }
    agent.command("hangup", "");
    maria.wait_for("CALL_CLOSED");
    kamailio.wait_for_lines(2, "challenged INVITE to agent");
    for user in ["agent", "pay-udp"] {
        kamailio.wait_for_lines(1, &format!("routed BYE of {user}"));
    }
    ringtill.wait_for_lines(2, ": call ended ");
    assert_eq!(ringtill.lines_with("outcome=Transferred"), 2, "{}", ringtill.log.join("\n"));
    assert_eq!(ringtill.stop(), Some(0), "{}", ringtill.log.join("\n"));
}

/// A call over TCP in which two re-INVITEs follow the route that the first one recorded.
fn hold_and_resume(phone: &mut Baresip, target: &str, kamailio: &mut Program) {
    phone.command("dial", target);
    phone.wait_for("CALL_ESTABLISHED");
    phone.wait_for("CALL_RTPESTAB");
    phone.wait_for("CALL_REMOTE_SDP");
    for (time, command) in [(1, "hold"), (2, "resume")] {
        phone.command(command, "");
        phone.wait_for("CALL_REMOTE_SDP");
        kamailio.wait_for_lines(time, &format!("routed INVITE of {MARIA}"));
        kamailio.wait_for_lines(time + 1, &format!("routed ACK of {MARIA}"));
    }
}

fn dial(target: &str) -> Program {
    let mut command = Command::new(RINGTILL);
    command.args(["dial", target, "--from", JAMES, "--local", "127.0.0.1", "--script", SCRIPT]);
    Program::start(command)
}

fn kamailio(port: u16, folder: &Path) -> Program {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/kamailio.cfg");
    let mut command = Command::new("kamailio");
    command.arg("-f").arg(file).args(["-DD", "-E", "-m", "32", "-Y"]).arg(folder);
    for transport in ["udp", "tcp"] {
        command.args(["-l", &format!("{transport}:{PROXY}:{port}")]);
    }
    Program::start(command)
}

/// We are registered twice, by either transport, and call the agent by the same.
fn trunks(port: u16) -> String {
    let trunk = |transport: &str| {
        format!(
            "[[trunk]]\nname = \"{transport}\"\nsources = [\"{PROXY}/32\"]\n\
             transports = [\"{transport}\"]\ntrust_caller_id = true\ntransfer = \"bridge\"\n\
             proxy = \"sip:{PROXY}:{port};transport={transport}\"\n\
             account = {{ username = \"ringtill\", password = \"tomato\" }}\n\
             [trunk.register]\nregistrar = \"sip:{PROXY}:{port};transport={transport}\"\n\
             address = \"sip:pay-{transport}@{PROXY}:{port}\"\n\n"
        )
    };
    let agent = format!("[agent]\nuri = \"sip:agent@{PROXY}:{port}\"\n\n");
    [agent, trunk("udp"), trunk("tcp")].concat()
}
