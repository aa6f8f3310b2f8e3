//! Programs of others as callers, registrars, proxies and agents: baresip, Kamailio, and what SIPp
//! brings along. Each is started in a folder of its own and ended by its own process.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use ringtill::ledger::State;

use crate::binary::{Binary, deadline, now};
use crate::sipp::{ledger, posted, told};

mod baresip; // a soft phone
mod baresip_pays; // in the clear, and encrypted
mod proxied; // calls by way of Kamailio
mod sipp_calls; // SIPp's own scenarios, keys by INFO, transfers

/// How long a program may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a program of a Debian package is here; a failure when it must be.
pub fn is_here(program: &str, package: &str) -> bool {
    let here = Command::new(program).arg("-h").output().is_ok();
    if !here {
        let wanted = format!("RINGTILL_TESTS_NEED_{}", program.to_uppercase());
        assert!(std::env::var_os(wanted).is_none(), "{program} is not installed ({package})");
        eprintln!("skipped: {program} is not installed (Debian: {package})");
    }
    here
}

/// A running program and what it writes; ended when dropped.
pub struct Program {
    name: String,
    child: Child,
    lines: Receiver<String>,
    log: Vec<String>,
}

impl Program {
    pub fn start(mut command: Command) -> Program {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (send, lines) = mpsc::channel();
        read_lines(child.stdout.take().expect("piped"), send.clone());
        read_lines(child.stderr.take().expect("piped"), send);
        Program { name, child, lines, log: Vec::new() }
    }

    /// Reads what it writes until `count` lines, read before or not, contain `part`.
    pub fn wait_for_lines(&mut self, count: usize, part: &str) {
        let until = deadline(PATIENCE);
        while self.log.iter().filter(|line| line.contains(part)).count() < count {
            let left = until.saturating_duration_since(now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{} does not say `{part}`:\n{}", self.name, self.log.join("\n"));
            };
            self.log.push(line);
        }
    }

    /// Waits until it ends by itself, successfully; what it wrote.
    pub fn expect_success(&mut self) -> String {
        let status = self.end(Duration::from_secs(90));
        // Its last lines come by way of threads that end with it.
        self.log.extend(self.lines.iter());
        let tail: Vec<&str> = self.log.iter().rev().take(60).rev().map(String::as_str).collect();
        assert!(
            status.is_some_and(|status| status.success()),
            "{}: {status:?}\n{}",
            self.name,
            tail.join("\n")
        );
        self.log.join("\n")
    }

    /// Tells it to end; what it wrote.
    pub fn stop(&mut self) -> String {
        let pid = self.child.id().to_string();
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        }
        if self.end(Duration::from_secs(5)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.log.extend(self.lines.iter());
        self.log.join("\n")
    }

    fn end(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = deadline(limit);
        while now() < until {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop();
    }
}

fn read_lines(output: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while matches!(output.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            line.clear();
            if lines.send(text).is_err() {
                break;
            }
        }
    });
}

/// All payments posted, as account and amount; ledger and reconciliation files tell the same.
pub fn payments(ringtill: &Binary) -> Vec<(String, i64)> {
    let log = ringtill.log.join("\n");
    let (ledger, mut rows) = (ledger(ringtill), posted(ringtill));
    assert_eq!(rows.len(), ledger.len(), "{rows:?}\n{ledger:?}\n{log}");
    let mut paid = Vec::new();
    for (intent, state) in &ledger {
        assert!(matches!(state, State::Posted(_)), "{state:?}\n{log}");
        let row = rows.iter().position(|row| row.intent == told(intent)).expect("a row");
        assert_eq!(rows.swap_remove(row).received(), intent.total());
        paid.push((intent.account_id.clone(), intent.amount.minor));
    }
    paid.sort();
    paid
}
