//! The thread that writes recordings: `<name>.wav.part` while the call runs, `<name>.wav` once
//! it is complete.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::media::recording::{Stereo, interleaved, wav_header};

/// Frames that may wait for the disk: a second of 160 calls.
const TAKES_MAX: usize = 8192;

pub struct Recorder {
    takes: Option<SyncSender<Take>>,
    thread: Option<JoinHandle<()>>,
}

pub enum Take {
    Open { call: u64, name: String },
    Frame { call: u64, stereo: Box<Stereo> },
    Close { call: u64 },
}

/// A call's way to the recorder.
pub struct Recording {
    pub call: u64,
    pub takes: SyncSender<Take>,
}

impl Recorder {
    pub fn start(directory: PathBuf) -> io::Result<Recorder> {
        fs::create_dir_all(&directory).map_err(|error| {
            let about = format!("recording directory {}: {error}", directory.display());
            io::Error::new(error.kind(), about)
        })?;
        let (takes, inbox) = sync_channel(TAKES_MAX);
        let thread = std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || write_all(&directory, &inbox))?;
        Ok(Recorder { takes: Some(takes), thread: Some(thread) })
    }

    /// `None` when the recorder is too far behind: the call is not recorded.
    pub fn open(&self, call: u64, name: &str) -> Option<Recording> {
        let takes = self.takes.clone()?;
        let name = file_name(name);
        if takes.try_send(Take::Open { call, name }).is_err() {
            tracing::warn!("a call is not recorded: the recorder does not keep up with the disk");
            return None;
        }
        Some(Recording { call, takes })
    }
}

impl Drop for Recorder {
    /// Waits until everything is written. The media threads, who record, have ended before.
    fn drop(&mut self) {
        self.takes.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the recorder thread panicked");
        }
    }
}

/// A file being written.
struct Wav {
    path: PathBuf,
    file: BufWriter<File>,
    frames: u32,
}

fn write_all(directory: &Path, inbox: &Receiver<Take>) {
    let mut files: HashMap<u64, Wav> = HashMap::new();
    while let Ok(take) = inbox.recv() {
        let done = match take {
            Take::Open { call, name } => Wav::create(directory, &name).map(|wav| {
                files.insert(call, wav);
            }),
            Take::Frame { call, stereo } => match files.get_mut(&call) {
                Some(wav) => wav.write(&stereo).inspect_err(|_| {
                    files.remove(&call);
                }),
                None => Ok(()),
            },
            Take::Close { call } => files.remove(&call).map_or(Ok(()), Wav::finish),
        };
        if let Err(error) = done {
            tracing::error!(directory = %directory.display(), %error, "a recording is incomplete");
        }
    }
    for (_, wav) in files {
        if let Err(error) = wav.finish() {
            tracing::error!(directory = %directory.display(), %error, "a recording is incomplete");
        }
    }
}

impl Wav {
    fn create(directory: &Path, name: &str) -> io::Result<Wav> {
        let path = directory.join(format!("{name}.wav"));
        let mut file = BufWriter::new(File::create(part(&path))?);
        file.write_all(&wav_header(0))?;
        Ok(Wav { path, file, frames: 0 })
    }

    fn write(&mut self, stereo: &Stereo) -> io::Result<()> {
        self.frames += 1;
        self.file.write_all(&interleaved(stereo))
    }

    fn finish(mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&wav_header(self.frames))?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(part(&self.path), &self.path)
    }
}

fn part(path: &Path) -> PathBuf {
    path.with_extension("wav.part")
}

/// A name that is one file in one directory, whatever a peer put into a Call-ID.
fn file_name(name: &str) -> String {
    const LEN_MAX: usize = 120;
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_@.".contains(c) { c } else { '_' };
    let name: String = name.chars().take(LEN_MAX).map(safe).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "call".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_directory() {
        assert_eq!(file_name("a84b4c@host-1.example"), "a84b4c@host-1.example");
        assert_eq!(file_name("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(file_name("..."), "call");
        assert_eq!(file_name(&"x/".repeat(500)).len(), 120);
    }

    #[test]
    fn a_recording_is_complete_once_it_has_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(directory.path().join("new")).unwrap();
        let recording = recorder.open(1, "call/1").unwrap();
        for nth in 0..50u8 {
            let stereo = Box::new([nth; 320]);
            recording.takes.send(Take::Frame { call: 1, stereo }).unwrap();
        }
        // A frame of a call nobody opened is nobody's.
        recording.takes.send(Take::Frame { call: 9, stereo: Box::new([0; 320]) }).unwrap();
        recording.takes.send(Take::Close { call: 1 }).unwrap();
        drop(recording);
        drop(recorder);
        let bytes = fs::read(directory.path().join("new/call_1.wav")).unwrap();
        assert_eq!(bytes.len(), 58 + 50 * 320);
        assert_eq!(bytes[..58], wav_header(50));
        assert_eq!(bytes[58 + 49 * 320], 49);
        assert_eq!(fs::read_dir(directory.path().join("new")).unwrap().count(), 1);
    }

    #[test]
    fn a_call_cut_off_by_shutdown_keeps_what_was_recorded() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(directory.path().into()).unwrap();
        let recording = recorder.open(1, "cut").unwrap();
        recording.takes.send(Take::Frame { call: 1, stereo: Box::new([7; 320]) }).unwrap();
        drop(recording);
        drop(recorder);
        assert_eq!(fs::read(directory.path().join("cut.wav")).unwrap().len(), 58 + 320);
    }

    #[test]
    fn a_directory_that_cannot_be_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Recorder::start(file.path().join("sub")).err().unwrap();
        assert!(error.to_string().contains("recording directory"), "{error}");
    }
}
