//! baresip, a soft phone, told what to do over its control connection.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PATIENCE, Program};
use crate::binary::{deadline, now, uninterrupted};
use crate::ports::{free_port_at, free_ports_at};

const MODULES: &str = "/usr/lib/baresip/modules";
/// Longer than any call of these tests: at its end baresip hangs up.
const AUDIO_S: u32 = 170;

pub struct Baresip {
    /// Where it takes calls by UDP and TCP.
    pub port: u16,
    program: Program,
    control: TcpStream,
    received: Vec<u8>,
    /// Events that nobody has waited for yet.
    events: Vec<Value>,
    _folder: TempDir,
}

impl Baresip {
    /// A phone at `ip` with this account, such as `<sip:me@host>;regint=0`. `says` is its voice.
    pub fn start(ip: &str, account: &str, says: Voice) -> Baresip {
        Baresip::trusting(ip, account, says, None)
    }

    /// The same, trusting certificates that `authority` (a file) signed, and no others.
    pub fn trusting(ip: &str, account: &str, says: Voice, authority: Option<&Path>) -> Baresip {
        let folder = tempfile::tempdir().expect("a folder");
        // It takes calls by TLS at the port after the one it is told.
        let (port, control_port) = (free_ports_at::<2>(ip), free_port_at(ip));
        let trusted = authority.map(|file| format!("sip_cafile {}\n", file.display()));
        let config = format!(
            "poll_method epoll\nnet_interface {ip}\nsip_listen {ip}:{port}\n{}call_max_calls 8\n\
             audio_source aufile,voice.wav\nstatmode_default off\nmodule_path {MODULES}\n\
             module g711.so\nmodule srtp.so\nmodule aufile.so\nmodule_tmp uuid.so\n\
             module_tmp account.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\n\
             ctrl_tcp_listen {ip}:{control_port}\n",
            trusted.unwrap_or_default()
        );
        fs::write(folder.path().join("config"), config).expect("written");
        fs::write(folder.path().join("accounts"), format!("{account}\n")).expect("written");
        fs::write(folder.path().join("voice.wav"), wave(says)).expect("written");
        let mut command = Command::new("baresip");
        command.args(["-f", "."]).current_dir(folder.path());
        let mut program = Program::start(command);
        let until = deadline(PATIENCE);
        let control = loop {
            match TcpStream::connect((ip, control_port)) {
                Ok(control) => break control,
                Err(error) => assert!(now() < until, "{error}:\n{}", program.stop()),
            }
            thread::sleep(Duration::from_millis(20));
        };
        control.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let (received, events) = (Vec::new(), Vec::new());
        Baresip { port, program, control, received, events, _folder: folder }
    }

    pub fn command(&mut self, command: &str, params: &str) {
        let text = json!({ "command": command, "params": params }).to_string();
        write!(self.control, "{}:{text},", text.len()).expect("it listens");
    }

    /// Presses keys; each takes a quarter of a second.
    pub fn key(&mut self, keys: &str) {
        self.command("sndcode", keys);
    }

    /// The next event of this kind, which may have come before; what it says.
    pub fn wait_for(&mut self, kind: &str) -> String {
        let until = deadline(PATIENCE);
        loop {
            self.read();
            if let Some(at) = self.events.iter().position(|event| event["type"] == kind) {
                let event = self.events.remove(at);
                return event["param"].as_str().unwrap_or_default().to_string();
            }
            if now() >= until {
                panic!("no {kind} from baresip: {:#?}\n{}", self.events, self.program.stop());
            }
        }
    }

    /// Ends it; what it wrote.
    pub fn stop(&mut self) -> String {
        self.program.stop()
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        match uninterrupted(|| self.control.read(&mut buffer)) {
            Ok(len) => self.received.extend(&buffer[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error}:\n{}", self.program.stop()),
        }
        while let Some(text) = self.netstring() {
            let event: Value = serde_json::from_slice(&text).expect("JSON");
            if event["event"] == true {
                self.events.push(event);
            }
        }
    }

    /// `3:abc,`
    fn netstring(&mut self) -> Option<Vec<u8>> {
        let colon = self.received.iter().position(|byte| *byte == b':')?;
        let length = std::str::from_utf8(&self.received[..colon]).expect("digits");
        let length: usize = length.trim().parse().expect("a length");
        let end = colon + 1 + length;
        if self.received.len() <= end {
            return None;
        }
        let text = self.received[colon + 1..end].to_vec();
        self.received.drain(..=end);
        Some(text)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    Silent,
    /// A second of a tone that rises and falls, then a pause: taken for somebody who speaks.
    Humming,
}

/// A WAV file, 16 bits at 8 kHz.
fn wave(voice: Voice) -> Vec<u8> {
    let samples = AUDIO_S * 8_000;
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + 2 * samples).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(8_000_u32.to_le_bytes());
    file.extend(16_000_u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend((2 * samples).to_le_bytes());
    for at in 0..samples {
        let seconds = (at % 20_000) as f32 / 8_000.0;
        let swell = if seconds < 1.0 { (seconds * std::f32::consts::PI).sin() } else { 0.0 };
        let tone = (seconds * 300.0 * std::f32::consts::TAU).sin() * swell * 8_000.0;
        let sample = if voice == Voice::Humming { tone as i16 } else { 0 };
        file.extend(sample.to_le_bytes());
    }
    file
}
