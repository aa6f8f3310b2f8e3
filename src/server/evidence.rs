//! Authorisations of debits on disk: the recording, sealed if there is a key, and beside it what
//! was authorised. They are durable before anything is debited, and deleted when their time is up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::clock;
use super::media::segment_name;
use super::seal::{self, Key, Purpose};
use crate::call::Kept;
use crate::config::{Config, Recording};
use crate::media::recording::WAV_HEADER_LEN;
use crate::payment::authorisation::SIGNATURE;

/// Sound is held back for a fifth of a second, then its file gets its name.
const FILE_LIMIT: Duration = Duration::from_secs(5);
const FILE_POLL: Duration = Duration::from_millis(20);
/// Bytes of a recording of one second.
const SECOND: usize = 2 * 8_000;

/// Where authorisations are kept.
pub struct Evidences {
    /// `None`: written notices are sent instead.
    folder: Option<PathBuf>,
    key: Option<Key>,
    years: u32,
}

impl Evidences {
    pub fn open(config: &Config) -> Result<Evidences, String> {
        let Recording { authorisations, authorisations_key, authorisations_years, .. } =
            &config.recording;
        let key = authorisations_key.as_ref().map(|key| {
            let file = &key.file;
            Key::read(file, Purpose::Authorisations)
                .map_err(|why| format!("[recording] authorisations_key {}: {why}", file.display()))
        });
        let key = key.transpose()?;
        Ok(Evidences { folder: authorisations.clone(), key, years: *authorisations_years })
    }

    /// Keeps what shows that a debit was authorised on the call whose recordings have this name.
    pub async fn keep(&self, call: &str, kept: &Kept) -> Result<(), String> {
        let (folder, segment) = match (&self.folder, kept.segment) {
            (Some(folder), Some(segment)) => (folder.clone(), segment),
            (None, None) => return Ok(()),
            _ => return Err("the authorisation was not recorded".into()),
        };
        let name = segment_name(call, segment);
        let wav = folder.join(format!("{name}.wav"));
        // It is kept already if another gateway was tried first.
        let sidecar = folder.join(format!("{name}.json"));
        let until = clock::now() + FILE_LIMIT;
        while !wav.exists() && !sidecar.exists() {
            if clock::now() >= until {
                return Err(format!("{} was not written in time", wav.display()));
            }
            tokio::time::sleep(FILE_POLL).await;
        }
        let sound_min = kept.length.saturating_sub(Duration::from_secs(1));
        let facts = facts(kept);
        let (key, years) = (self.key.clone(), self.years);
        let write = move || write(&folder, &name, key.as_ref(), sound_min, facts, years);
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|error| error.to_string())?
    }

    /// Deletes what has been kept long enough, and recordings that nobody signed.
    pub fn sweep(&self, now_ms: i64) -> io::Result<usize> {
        self.folder.as_deref().map_or(Ok(0), |folder| sweep(folder, now_ms))
    }
}

/// `ringtill payments authorisation`: prints what was authorised and writes the recording, opened
/// and compared with its sum, to `wav`.
pub fn export(
    config: &Config,
    payment: &str,
    wav: &Path,
    out: &mut impl Write,
) -> Result<(), String> {
    let evidences = Evidences::open(config)?;
    let folder =
        evidences.folder.ok_or("[recording] authorisations is not set: nothing is kept")?;
    let found = find(&folder, payment).map_err(|error| format!("{}: {error}", folder.display()))?;
    let Some((sidecar, facts)) = found else {
        let folder = folder.display();
        return Err(format!("{folder}: no authorisation of a payment `{payment}` is kept here"));
    };
    let sound = sound(&sidecar, &facts, evidences.key.as_ref())?;
    let wrong = |error: io::Error| format!("{}: {error}", wav.display());
    let mut file = OpenOptions::new().write(true).create_new(true).open(wav).map_err(wrong)?;
    file.write_all(&sound).map_err(wrong)?;
    writeln!(out, "{}", pretty(&facts)?).map_err(|error| error.to_string())
}

/// The facts of the payment with this confirmation number or reference, and their file.
fn find(folder: &Path, payment: &str) -> io::Result<Option<(PathBuf, Value)>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let Ok(facts) = serde_json::from_slice::<Value>(&fs::read(&path)?) else { continue };
        if facts["confirmation"] == payment || facts["reference"] == payment {
            return Ok(Some((path, facts)));
        }
    }
    Ok(None)
}

fn sound(sidecar: &Path, facts: &Value, key: Option<&Key>) -> Result<Vec<u8>, String> {
    let sealed = facts["recording"]["sealed"] == true;
    let path = match sealed {
        true => sidecar.with_extension(format!("wav{}", seal::ENDING)),
        false => sidecar.with_extension("wav"),
    };
    let wrong = |why: String| format!("{}: {why}", path.display());
    let bytes = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
    let wav = match (sealed, key) {
        (false, _) => bytes,
        (true, None) => return Err(wrong("sealed: set [recording] authorisations_key".into())),
        (true, Some(key)) => {
            let name = sidecar.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            key.open(name, &bytes).map_err(wrong)?.to_vec()
        }
    };
    let sum = hex(digest::digest(&digest::SHA256, &wav).as_ref());
    if facts["recording"]["sha256"] != sum.as_str() {
        return Err(wrong("it is not what was signed: its SHA-256 differs".into()));
    }
    Ok(wav)
}

fn write(
    folder: &Path,
    name: &str,
    key: Option<&Key>,
    sound_min: Duration,
    mut facts: Value,
    years: u32,
) -> Result<(), String> {
    let path = folder.join(format!("{name}.wav"));
    let sidecar = folder.join(format!("{name}.json"));
    let wrong_facts = |error: io::Error| format!("{}: {error}", sidecar.display());
    facts["keep_years"] = years.into();
    if sidecar.exists() {
        // The same authorisation for the next gateway, after one that certainly did not debit.
        let kept: Value = serde_json::from_slice(&fs::read(&sidecar).map_err(wrong_facts)?)
            .map_err(|error| format!("{}: {error}", sidecar.display()))?;
        facts["recording"] = kept["recording"].clone();
        let mut before = kept["not_charged"].as_array().cloned().unwrap_or_default();
        before.push(kept["reference"].clone());
        facts["not_charged"] = before.into();
        return durable(&sidecar, pretty(&facts)?.as_bytes()).map_err(wrong_facts);
    }
    let wrong = |error: io::Error| format!("{}: {error}", path.display());
    let wav = fs::read(&path).map_err(wrong)?;
    let heard_ms = wav.len().saturating_sub(WAV_HEADER_LEN) * 1_000 / SECOND;
    if (heard_ms as u128) < sound_min.as_millis() {
        return Err(format!("{}: only {heard_ms} ms were recorded", path.display()));
    }
    let mut file = format!("{name}.wav");
    if let Some(key) = key {
        file.push_str(seal::ENDING);
        let sealed = key.seal(name, &wav)?;
        durable(&folder.join(&file), &sealed).map_err(wrong)?;
    }
    facts["recording"] = json!({
        "file": file,
        "sha256": hex(digest::digest(&digest::SHA256, &wav).as_ref()),
        "sealed": key.is_some(),
        "milliseconds": heard_ms,
    });
    durable(&sidecar, pretty(&facts)?.as_bytes()).map_err(wrong_facts)?;
    if key.is_some() {
        fs::remove_file(&path).map_err(wrong)?;
    }
    Ok(())
}

fn pretty(facts: &Value) -> Result<String, String> {
    serde_json::to_string_pretty(facts).map_err(|error| error.to_string())
}

/// What was authorised, by whom and how, for whoever has to show it.
fn facts(kept: &Kept) -> Value {
    let evidence = &kept.evidence;
    let authorisation = &evidence.authorisation;
    json!({
        "version": 1,
        "standard_entry_class": "TEL",
        "entry": "single",
        "reference": evidence.reference,
        "confirmation": evidence.confirmation,
        "call": evidence.call_id,
        "authorised": authorisation.given.to_string(),
        "signed": authorisation.signed,
        "signed_ms": authorisation.signed_ms,
        "signed_by": format!("key {SIGNATURE}"),
        "debit_on_or_after": authorisation.debit_from.to_string(),
        "company": authorisation.company,
        "phone": authorisation.phone,
        "account_id": authorisation.account_id,
        "holder": authorisation.holder,
        "bank_account": {
            "kind": authorisation.kind.name(),
            "ending": authorisation.last4.as_str(),
        },
        "amount": authorisation.amount.decimal(),
        "fee": authorisation.fee.decimal(),
        "total": authorisation.total.decimal(),
        "currency": authorisation.total.currency.code(),
        "said": kept.words,
    })
}

/// Writes a file whole or not at all, and on the disk when this returns.
fn durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    // The name is in the folder, which is a file of its own.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Recordings without a signature are none's evidence; they are left for a day all the same.
const UNSIGNED_MS: i64 = 24 * 3_600_000;
/// A leap year, so that two years are never less.
const YEAR_MS: i64 = 366 * 24 * 3_600_000;

fn sweep(folder: &Path, now_ms: i64) -> io::Result<usize> {
    let mut deleted = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let due = if let Some(stem) = name.strip_suffix(".json") {
            let recordings = [format!("{stem}.wav"), format!("{stem}.wav{}", seal::ENDING)];
            let due = kept_until_ms(&path)?.is_some_and(|until| until <= now_ms);
            // The sound first: what is left without its facts is found by nobody.
            for recording in recordings.iter().filter(|_| due) {
                deleted += usize::from(remove(&folder.join(recording))?);
            }
            due
        } else {
            let stem = name.split(".wav").next().filter(|stem| stem.len() < name.len());
            let unsigned = stem.is_some_and(|stem| !folder.join(format!("{stem}.json")).exists());
            unsigned && modified_ms(&path)?.is_some_and(|at| at + UNSIGNED_MS <= now_ms)
        };
        if due {
            deleted += usize::from(remove(&path)?);
        }
    }
    Ok(deleted)
}

/// `None`: not written by us.
fn kept_until_ms(path: &Path) -> io::Result<Option<i64>> {
    let Ok(facts) = serde_json::from_slice::<Value>(&fs::read(path)?) else { return Ok(None) };
    let years = facts["keep_years"].as_i64();
    let signed = facts["signed_ms"].as_i64();
    Ok(signed.zip(years).map(|(signed, years)| signed + years.max(2) * YEAR_MS))
}

/// `None`: deleted meanwhile, with its facts.
fn modified_ms(path: &Path) -> io::Result<Option<i64>> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    let since = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(i64::try_from(since.as_millis()).ok())
}

/// Whether there was such a file.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
