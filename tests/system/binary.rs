//! Starts `ringtill serve` in a folder of its own and stops it again.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use jiff::ToSpan;

use crate::ports::free_port;

pub const RINGTILL: &str = env!("CARGO_BIN_EXE_ringtill");

pub const ACCOUNTS: &str = "\
account_id,name_first,name_last,phone1,verify_zip,amount_due,due_date
1001,James,Walker,+13175550123,46201,321.72,2026-12-05
1002,Maria,Lopez,+13175550144,46204,88.10,2026-12-01
";

/// A running server; killed when dropped.
pub struct Binary {
    pub folder: tempfile::TempDir,
    pub port: u16,
    child: Child,
    lines: Receiver<String>,
    pub log: Vec<String>,
}

/// Held while a test runs.
#[must_use]
pub enum Turn {
    BesideOthers { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

static TURNS: RwLock<()> = RwLock::new(());

/// For what takes as long as people take to pay, and next to nothing of the processor.
pub fn beside_others() -> Turn {
    Turn::BesideOthers { _guard: TURNS.read().unwrap_or_else(PoisonError::into_inner) }
}

/// For what keeps the machine busy, or must not be late.
pub fn alone() -> Turn {
    Turn::Alone { _guard: TURNS.write().unwrap_or_else(PoisonError::into_inner) }
}

impl Binary {
    /// Starts with `more` added to the configuration, and waits until it takes calls.
    pub fn start(log_level: &str, more: &str) -> Binary {
        Binary::start_with(ACCOUNTS, log_level, more)
    }

    /// The same with an account file of the test's own.
    pub fn start_with(accounts: &str, log_level: &str, more: &str) -> Binary {
        Binary::start_listening(&[], accounts, log_level, more)
    }

    /// The same, listening by further transports (`tcp`, `tls`) on the same port.
    pub fn start_listening(
        transports: &[&str],
        accounts: &str,
        log_level: &str,
        more: &str,
    ) -> Binary {
        Binary::launch(accounts, |folder, port| {
            let address = format!("\"127.0.0.1:{port}\"");
            let also = transports.iter().map(|name| format!(", \"{name}:127.0.0.1:{port}\""));
            let all = format!("[{address}{}]", also.collect::<String>());
            config(folder, port, log_level, more).replacen(&address, &all, 1)
        })
    }

    /// By UDP and TCP, with further keys in `[sip]`.
    pub fn start_sip(log_level: &str, sip: &str, more: &str) -> Binary {
        Binary::launch(ACCOUNTS, |folder, port| {
            let udp = format!("\"127.0.0.1:{port}\"\n");
            let both = format!("[\"udp:127.0.0.1:{port}\", \"tcp:127.0.0.1:{port}\"]\n{sip}\n");
            config(folder, port, log_level, more).replacen(&udp, &both, 1)
        })
    }

    /// With all of the configuration made by the test, from the folder and the port.
    pub fn launch(accounts: &str, config: impl FnOnce(&Path, u16) -> String) -> Binary {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        fs::write(folder.path().join("accounts.csv"), accounts).expect("written");
        let config = config(folder.path(), port);
        fs::write(folder.path().join("ringtill.toml"), config).expect("written");
        let (child, lines) = spawn(folder.path());
        let mut binary = Binary { folder, port, child, lines, log: Vec::new() };
        binary.wait_for("taking calls");
        binary
    }

    /// SIGKILL: it has no chance to write or say anything.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("a child");
    }

    /// Starts again where it was, and waits until it takes calls.
    pub fn start_again(&mut self) {
        (self.child, self.lines) = spawn(self.folder.path());
        self.wait_for("taking calls");
    }

    /// Reads the log until a line contains `part`.
    pub fn wait_for(&mut self, part: &str) -> String {
        let until = deadline(Duration::from_secs(60));
        loop {
            let left = until.saturating_duration_since(now());
            let line = self
                .lines
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("`{part}` is not in the log:\n{}", self.log.join("\n")));
            self.log.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Reads the log until `count` lines of it, read before or not, contain `part`.
    pub fn wait_for_lines(&mut self, count: usize, part: &str) {
        while self.lines_with(part) < count {
            self.wait_for(part);
        }
    }

    /// How many lines of the log so far contain `part`.
    pub fn lines_with(&mut self, part: &str) -> usize {
        self.log.extend(self.lines.try_iter());
        self.log.iter().filter(|line| line.contains(part)).count()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `TERM`, `HUP` and the like.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(told.success());
    }

    /// SIGTERM, then waits for the end; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.exit()
    }

    /// Waits for the end; the exit code.
    pub fn exit(&mut self) -> Option<i32> {
        let until = deadline(Duration::from_secs(60));
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                self.log.extend(self.lines.iter());
                return status.code();
            }
            assert!(now() < until, "it does not stop:\n{}", self.log.join("\n"));
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything below its folder, as bytes.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        files(self.folder.path())
    }
}

fn spawn(folder: &Path) -> (Child, Receiver<String>) {
    let mut child = Command::new(RINGTILL)
        .args(["serve", "-c", "ringtill.toml"])
        .current_dir(folder)
        .stderr(Stdio::piped())
        .stdout(File::create(folder.join("stdout")).expect("created"))
        .spawn()
        .expect("the binary starts");
    let (send, lines) = mpsc::channel();
    let stderr = child.stderr.take().expect("piped");
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    (child, lines)
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            // One that is gone again was a temporary name.
            let bytes = fs::read(&path);
            all.extend(bytes.ok().map(|bytes| (path, bytes)));
        }
    }
    all
}

/// Takes calls however late this machine makes its media.
pub fn config(folder: &Path, port: u16, log_level: &str, more: &str) -> String {
    let folder = folder.display();
    format!(
        "[sip]\nlisten = \"127.0.0.1:{port}\"\n\n[media]\nports = [31000, 31999]\nlate_ms = 0\n\n\
         [store]\nfile = \"{folder}/ledger.db\"\n\n[accounts]\nfile = \"{folder}/accounts.csv\"\n\n\
         [posting]\ndirectory = \"{folder}/posting\"\ninterval_s = 1\n\n\
         [recording]\ndirectory = \"{folder}/recordings\"\n\n\
         [payment]\nbiller = \"testco\"\nfee = \"2.00\"\n\
         duplicate_window_minutes = 0\n\
         velocity = {{ caller_attempts = 0, account_attempts = 0 }}\n\n[log]\nlevel = \"{log_level}\"\n\n\
         [[trunk]]\nname = \"loopback\"\nsources = [\"127.0.0.1/32\"]\ntrust_caller_id = true\n\n\
         {more}"
    )
}

/// November in five years, as a card says it: cards in tests must not expire.
#[allow(clippy::disallowed_methods)]
pub fn expiry() -> String {
    let today = jiff::Timestamp::try_from(std::time::SystemTime::now()).expect("a time");
    let later = today.to_zoned(jiff::tz::TimeZone::UTC).date() + 5.years();
    format!("11{:02}", later.year() % 100)
}

/// The day it will be by UTC in so many days.
#[allow(clippy::disallowed_methods)]
pub fn in_days(days: i64) -> jiff::civil::Date {
    let today = jiff::Timestamp::try_from(std::time::SystemTime::now()).expect("a time");
    today.to_zoned(jiff::tz::TimeZone::UTC).date() + days.days()
}

#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

/// A wait on a socket with a time limit, begun again when the machine was paused meanwhile: such
/// waits, alone of all, end with "interrupted" then.
pub fn uninterrupted<T>(mut wait: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match wait() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

pub fn deadline(limit: Duration) -> Instant {
    now() + limit
}
