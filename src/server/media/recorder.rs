//! The thread that writes recordings and their segments: `<name>.wav.part` while they run,
//! `<name>.wav` once they are complete.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use crate::media::SegmentId;
use crate::media::recording::{Recorded, Stereo, interleaved, wav_header};

/// Frames that may wait for the disk: a second of 160 calls.
const TAKES_MAX: usize = 8192;

/// Where recordings go.
#[derive(Clone, Default)]
pub struct Folders {
    /// Of whole calls.
    pub calls: Option<PathBuf>,
    /// Of segments.
    pub segments: Option<PathBuf>,
}

pub struct Recorder {
    takes: Option<SyncSender<Take>>,
    thread: Option<JoinHandle<()>>,
    folders: Folders,
}

pub enum Take {
    /// Before all else of a call. `whole`: not its segments alone.
    Open {
        call: u64,
        name: String,
        whole: bool,
    },
    Frame {
        call: u64,
        recorded: Box<Recorded>,
    },
    Close {
        call: u64,
    },
}

/// A call's way to the recorder.
pub struct Recording {
    call: u64,
    name: String,
    whole: bool,
    segments: bool,
    takes: SyncSender<Take>,
    /// The recorder knows of the call.
    opened: bool,
    /// What was written last belonged to a segment.
    in_segment: bool,
}

impl Recorder {
    pub fn start(folders: Folders) -> io::Result<Recorder> {
        for directory in [&folders.calls, &folders.segments].into_iter().flatten() {
            fs::create_dir_all(directory).map_err(|error| {
                let about = format!("recording directory {}: {error}", directory.display());
                io::Error::new(error.kind(), about)
            })?;
        }
        let (takes, inbox) = sync_channel(TAKES_MAX);
        let files = Files { folders: folders.clone(), calls: HashMap::new() };
        let thread = std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || files.write_all(&inbox))?;
        Ok(Recorder { takes: Some(takes), thread: Some(thread), folders })
    }

    /// A call's way here. With `whole` all of it is written, given a folder for that, and in any
    /// case its segments, given one for those.
    pub fn open(&self, call: u64, name: &str, whole: bool) -> Option<Recording> {
        let takes = self.takes.clone()?;
        Some(Recording {
            call,
            name: file_name(name),
            whole: whole && self.folders.calls.is_some(),
            segments: self.folders.segments.is_some(),
            takes,
            opened: false,
            in_segment: false,
        })
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

impl Recording {
    /// Whether all of the call is to be written.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Passes a frame on: whether that was possible, or nobody wants it.
    pub fn write(&mut self, recorded: Recorded) -> bool {
        let wanted = self.whole || self.segments && (recorded.segment.is_some() || self.in_segment);
        if !wanted {
            // A segment without a folder is lost.
            return recorded.segment.is_none();
        }
        if !self.opened {
            let (call, name, whole) = (self.call, self.name.clone(), self.whole);
            self.opened = self.takes.try_send(Take::Open { call, name, whole }).is_ok();
        }
        let in_segment = recorded.segment.is_some();
        let frame = Take::Frame { call: self.call, recorded: Box::new(recorded) };
        let written = self.opened && self.takes.try_send(frame).is_ok();
        if written {
            self.in_segment = in_segment;
        }
        written
    }

    /// The call is over: false if that must be said again.
    pub fn close(&self) -> bool {
        if !self.opened {
            return true;
        }
        let end = self.takes.try_send(Take::Close { call: self.call });
        !matches!(end, Err(TrySendError::Full(_)))
    }

    /// The same, waiting until there is room.
    pub fn close_waiting(self) {
        let _ = self.takes.send(Take::Close { call: self.call });
    }
}

/// The name of a segment's file without its ending, given that of the call.
pub fn segment_name(call: &str, segment: SegmentId) -> String {
    format!("{call}-{}", segment.0)
}

/// What is being written.
struct Files {
    folders: Folders,
    calls: HashMap<u64, CallFiles>,
}

struct CallFiles {
    name: String,
    whole: Option<Wav>,
    segment: Option<(SegmentId, Wav)>,
    /// The segment that was begun last, whether its file could be made or not.
    begun: Option<SegmentId>,
}

struct Wav {
    path: PathBuf,
    file: BufWriter<File>,
    frames: u32,
}

impl Files {
    fn write_all(mut self, inbox: &Receiver<Take>) {
        while let Ok(take) = inbox.recv() {
            match take {
                Take::Open { call, name, whole } => self.open(call, name, whole),
                Take::Frame { call, recorded } => {
                    if let Some(files) = self.calls.get_mut(&call) {
                        files.write(&self.folders, &recorded);
                    }
                }
                Take::Close { call } => self.calls.remove(&call).into_iter().for_each(|f| f.end()),
            }
        }
        self.calls.into_values().for_each(CallFiles::end);
    }

    fn open(&mut self, call: u64, name: String, whole: bool) {
        let folder = self.folders.calls.as_deref().filter(|_| whole);
        let whole = folder.and_then(|folder| told(folder, Wav::create(folder, &name)));
        self.calls.insert(call, CallFiles { name, whole, segment: None, begun: None });
    }
}

impl CallFiles {
    fn write(&mut self, folders: &Folders, recorded: &Recorded) {
        if recorded.segment != self.begun {
            self.begun = recorded.segment;
            finish(self.segment.take().map(|(_, wav)| wav));
            if let (Some(id), Some(folder)) = (recorded.segment, &folders.segments) {
                let wav = Wav::create(folder, &segment_name(&self.name, id));
                self.segment = told(folder, wav).map(|wav| (id, wav));
            }
        }
        let stereo = &recorded.stereo;
        self.whole = self.whole.take().and_then(|wav| wav.with(stereo));
        self.segment = self.segment.take().and_then(|(id, wav)| Some((id, wav.with(stereo)?)));
    }

    fn end(self) {
        finish(self.whole);
        finish(self.segment.map(|(_, wav)| wav));
    }
}

fn finish(wav: Option<Wav>) {
    if let Some(wav) = wav {
        let path = wav.path.clone();
        told(&path, wav.finish());
    }
}

/// Says what went wrong with a recording.
fn told<T>(path: &Path, done: io::Result<T>) -> Option<T> {
    done.inspect_err(
        |error| tracing::error!(path = %path.display(), %error, "a recording is incomplete"),
    )
    .ok()
}

impl Wav {
    fn create(directory: &Path, name: &str) -> io::Result<Wav> {
        let path = directory.join(format!("{name}.wav"));
        if path.try_exists()? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, path.display().to_string()));
        }
        let mut file = BufWriter::new(File::create_new(part(&path))?);
        file.write_all(&wav_header(0))?;
        Ok(Wav { path, file, frames: 0 })
    }

    /// With a frame more; `None` if the disk refused it.
    fn with(mut self, stereo: &Stereo) -> Option<Wav> {
        self.frames += 1;
        let written = self.file.write_all(&interleaved(stereo));
        told(&self.path, written).map(|()| self)
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

    fn folders(calls: Option<PathBuf>, segments: Option<PathBuf>) -> Folders {
        Folders { calls, segments }
    }

    fn frame(sound: u8, segment: Option<u16>) -> Recorded {
        Recorded { stereo: [sound; 320], segment: segment.map(SegmentId) }
    }

    /// What there is in a folder: names, and the first byte of each frame.
    fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|entry| {
                let bytes = fs::read(entry.path()).unwrap();
                let frames = (bytes.len() - 58) / 320;
                assert_eq!(bytes[..58], wav_header(frames as u32));
                let sounds = bytes[58..].iter().step_by(320).copied().collect();
                (entry.file_name().into_string().unwrap(), sounds)
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_recording_is_complete_once_it_has_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let new = directory.path().join("new");
        let recorder = Recorder::start(folders(Some(new.clone()), None)).unwrap();
        let mut recording = recorder.open(1, "call/1", true).unwrap();
        assert!((0..50).all(|nth| recording.write(frame(nth, None))));
        // A frame of a call nobody opened is nobody's.
        let recorded = Box::new(frame(0, None));
        recording.takes.send(Take::Frame { call: 9, recorded }).unwrap();
        assert!(recording.close());
        drop((recording, recorder));
        assert_eq!(contents(&new), [("call_1.wav".into(), (0..50).collect())]);
    }

    #[test]
    fn a_call_cut_off_by_shutdown_keeps_what_was_recorded() {
        let directory = tempfile::tempdir().unwrap();
        let both = folders(Some(directory.path().into()), Some(directory.path().into()));
        let recorder = Recorder::start(both).unwrap();
        let mut recording = recorder.open(1, "cut", true).unwrap();
        assert!(recording.write(frame(7, Some(3))));
        drop((recording, recorder));
        let files = ["cut-3.wav", "cut.wav"].map(|name| (name.to_string(), vec![7]));
        assert_eq!(contents(directory.path()), files);
    }

    #[test]
    fn segments_have_files_of_their_own_beside_the_call_or_without_it() {
        for whole in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let [calls, segments] = ["calls", "segments"].map(|name| directory.path().join(name));
            let folders = folders(whole.then(|| calls.clone()), Some(segments.clone()));
            let recorder = Recorder::start(folders).unwrap();
            let mut recording = recorder.open(1, "a", true).unwrap();
            assert_eq!(recording.is_whole(), whole);
            let marks = [None, Some(1), Some(1), None, None, Some(2), Some(3), Some(3)];
            for (nth, segment) in (0..).zip(marks) {
                assert!(recording.write(frame(nth, segment)));
            }
            assert!(recording.close());
            drop((recording, recorder));
            let expected = [("a-1.wav", vec![1, 2]), ("a-2.wav", vec![5]), ("a-3.wav", vec![6, 7])];
            assert_eq!(contents(&segments), expected.map(|(name, of)| (name.to_string(), of)));
            assert_eq!(calls.exists(), whole);
            if whole {
                assert_eq!(contents(&calls), [("a.wav".into(), (0..8).collect())]);
            }
        }
    }

    #[test]
    fn a_segment_is_never_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(folders(None, Some(directory.path().into()))).unwrap();
        let mut recording = recorder.open(1, "a", false).unwrap();
        for (nth, segment) in (0..).zip([Some(1), None, Some(1), None, Some(2)]) {
            assert!(recording.write(frame(nth, segment)));
        }
        drop((recording, recorder));
        let files = [("a-1.wav", vec![0]), ("a-2.wav", vec![4])];
        assert_eq!(contents(directory.path()), files.map(|(name, of)| (name.to_string(), of)));
    }

    #[test]
    fn what_finds_no_room_or_no_folder_is_told() {
        let (takes, inbox) = sync_channel(4);
        let mut recording = Recording {
            call: 1,
            name: "a".into(),
            whole: true,
            segments: true,
            takes,
            opened: false,
            in_segment: false,
        };
        let written: Vec<bool> = (0..5).map(|nth| recording.write(frame(nth, Some(1)))).collect();
        // One place goes to the opening.
        assert_eq!(written, [true, true, true, false, false]);
        assert!(!recording.close(), "to be said again");
        assert!(matches!(inbox.try_recv(), Ok(Take::Open { .. })));
        assert!(recording.close());
        (recording.whole, recording.segments) = (false, false);
        assert!(recording.write(frame(0, None)), "nobody wants it");
        assert!(!recording.write(frame(0, Some(2))), "a segment without a folder is lost");
    }

    #[test]
    fn a_directory_that_cannot_be_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sub = || Some(file.path().join("sub"));
        for folders in [folders(sub(), None), folders(None, sub())] {
            let error = Recorder::start(folders).err().unwrap();
            assert!(error.to_string().contains("recording directory"), "{error}");
        }
    }
}
