//! Files put in place so that they are there whole or not at all, each step a call that a test can
//! have fail.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::super::clock;

/// The steps that may fail.
pub trait Disk: Send + Sync + 'static {
    /// A folder that only we can read.
    fn folder(&self, path: &Path) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)
    }

    /// A file that only we can read, with these bytes and none of before.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Makes what was done in it survive a power cut.
    fn sync(&self, folder: &Path) -> io::Result<()> {
        match cfg!(unix) {
            true => File::open(folder)?.sync_all(),
            false => Ok(()),
        }
    }
}

/// The machine's.
pub struct Machine;

impl Disk for Machine {}

/// Another `ringtill` may write files at the same time.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Keeps others from writing files here until it is dropped.
pub fn lock(disk: &dyn Disk, folder: &Path) -> Result<File, String> {
    let wrong = |error: io::Error| {
        format!("cannot write to {}: {error}; make it writable for us alone", folder.display())
    };
    disk.folder(folder).map_err(wrong)?;
    super::private(folder)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(folder.join(".lock")).map_err(wrong)?;
    let until = clock::now() + LOCK_LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(wrong(error)),
            Err(TryLockError::WouldBlock) if clock::now() >= until => {
                return Err(format!("{}: another ringtill writes here", folder.display()));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_POLL),
        }
    }
}

/// Puts the file in place. What stands there already with the same bytes stays; anything else
/// under its name is never overwritten.
pub fn place(disk: &dyn Disk, folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let path = folder.join(name);
    match fs::read(&path) {
        Ok(present) if present != bytes => {
            let path = path.display();
            return Err(format!("{path} exists with other content; move it away"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    }
    let temporary = folder.join(format!("{name}.tmp"));
    let written = disk
        .write(&temporary, bytes)
        .and_then(|()| disk.rename(&temporary, &path))
        .and_then(|()| disk.sync(folder));
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Tells whoever takes files to the bank that this one is whole: `<name>.done`. A file that is gone
/// was taken by them.
pub fn done(disk: &dyn Disk, folder: &Path, name: &str) -> Result<(), String> {
    if !folder.join(name).exists() {
        return Ok(());
    }
    let path = folder.join(format!("{name}.done"));
    let written = disk.write(&path, b"").and_then(|()| disk.sync(folder));
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))
}
