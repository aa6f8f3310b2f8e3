//! Recordings to disk on a thread of its own, so that a slow disk delays no packet. What arrives
//! here has its card data silenced already.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tracing::error;

use crate::media::recording::{interleaved, wav_header};

/// A frame of a call: 160 bytes of the caller, 160 of ours.
pub(super) type Stereo = [u8; 320];

pub(super) enum Page {
    Open(u64, String),
    Frame(u64, Box<Stereo>),
    Close(u64),
}

/// Frames that may wait for the disk: about a second of a thousand calls.
const PAGES_MAX: usize = 50_000;

pub(super) struct Recorder {
    sender: SyncSender<Page>,
}

impl Recorder {
    pub(super) fn start(directory: PathBuf) -> io::Result<Recorder> {
        fs::create_dir_all(&directory)?;
        let (sender, pages) = sync_channel(PAGES_MAX);
        thread::Builder::new().name("recorder".into()).spawn(move || write(&directory, &pages))?;
        Ok(Recorder { sender })
    }

    pub(super) fn sender(&self) -> SyncSender<Page> {
        self.sender.clone()
    }

    pub(super) fn open(&self, call: u64, name: &str) {
        let _ = self.sender.send(Page::Open(call, name.to_string()));
    }
}

/// A recording being written as `<name>.wav.part`.
struct Recording {
    file: BufWriter<File>,
    path: PathBuf,
    frames: u32,
}

/// Runs until nobody can send any more; then what is open is closed.
fn write(directory: &std::path::Path, pages: &Receiver<Page>) {
    let mut open: HashMap<u64, Recording> = HashMap::new();
    for page in pages {
        let done = match page {
            Page::Open(call, name) => Recording::create(directory.join(format!("{name}.wav")))
                .map(|recording| drop(open.insert(call, recording))),
            Page::Frame(call, frame) => match open.get_mut(&call) {
                Some(recording) => recording.add(&frame),
                None => Ok(()),
            },
            Page::Close(call) => open.remove(&call).map_or(Ok(()), Recording::close),
        };
        if let Err(error) = done {
            error!(%error, directory = %directory.display(), "a recording cannot be written");
        }
    }
    for recording in open.into_values() {
        let _ = recording.close();
    }
}

impl Recording {
    fn create(path: PathBuf) -> io::Result<Recording> {
        let mut file = BufWriter::new(File::create(path.with_extension("wav.part"))?);
        file.write_all(&wav_header(0))?;
        Ok(Recording { file, path, frames: 0 })
    }

    fn add(&mut self, frame: &Stereo) -> io::Result<()> {
        self.frames = self.frames.saturating_add(1);
        self.file.write_all(&interleaved(frame))
    }

    fn close(mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&wav_header(self.frames))?;
        self.file.flush()?;
        fs::rename(self.path.with_extension("wav.part"), &self.path)
    }
}
