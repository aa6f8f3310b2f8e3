//! The voice in the world: bundled and own files, the synthesis command, `ringtill prompts`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rust_embed::Embed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::media::Clip;
use crate::prompt::catalog::{Problem, Severity};
use crate::prompt::library::Layer;
use crate::prompt::synthesis::{self, Cache, OUTPUT_BYTES_MAX};
use crate::prompt::{Library, Settings};

/// Clips larger than this are not read from an operator's folder.
const FILE_BYTES_MAX: u64 = 20 << 20;
const FILES_MAX: usize = 20_000;
/// Samples per second of rendered prompts.
const RENDER_RATE: u32 = 16_000;

#[derive(Embed)]
#[folder = "prompts/"]
struct Bundled;

/// Loads the bundled voice with the operator's own files over it. Takes a fifth of a second
/// unoptimised.
pub fn load(settings: &Settings) -> Result<Library, Vec<Problem>> {
    let mut layers = vec![bundled(&settings.language)];
    if layers[0].files.is_empty() {
        let what = format!("no voice is bundled for `{}`: use en-US", settings.language);
        return Err(vec![Problem::error("prompts.language", None, what)]);
    }
    if let Some(folder) = &settings.folder {
        let origin = folder.display().to_string();
        let mut files = BTreeMap::new();
        if let Err(error) = read(folder, "", &mut files) {
            return Err(vec![Problem::error(&origin, None, format!("cannot be read: {error}"))]);
        }
        layers.push(Layer { origin, files });
    }
    Library::load(&settings.language, &layers)
}

fn bundled(language: &str) -> Layer {
    let origin = format!("prompts/{language}");
    let prefix = format!("{language}/");
    let file = |path: Cow<'static, str>| {
        let name = path.strip_prefix(&prefix)?.to_string();
        Some((name, Bundled::get(&path)?.data))
    };
    Layer { origin, files: Bundled::iter().filter_map(file).collect() }
}

fn read(
    folder: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, Cow<'static, [u8]>>,
) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let metadata = std::fs::metadata(entry.path())?;
        let described = |error: &str| io::Error::other(format!("{prefix}{name}: {error}"));
        if metadata.is_dir() && prefix.is_empty() {
            read(&entry.path(), &format!("{name}/"), files)?;
        } else if metadata.is_file() {
            if metadata.len() > FILE_BYTES_MAX || files.len() == FILES_MAX {
                return Err(described("too large, or too many files"));
            }
            let bytes = std::fs::read(entry.path()).map_err(|e| described(&e.to_string()))?;
            files.insert(format!("{prefix}{name}"), Cow::Owned(bytes));
        }
    }
    Ok(())
}

/// Says names nobody has recorded, with the operator's command.
pub struct Synthesizer {
    settings: Option<synthesis::Settings>,
    running: Semaphore,
    cache: Mutex<Cache>,
}

/// Why a command gave no sound. The text, a person's name, is never part of it.
#[derive(Debug)]
enum Failure {
    NotStarted(io::Error),
    TimedOut,
    Failed(std::process::ExitStatus),
    Unusable(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::NotStarted(error) => write!(f, "cannot be started: {error}"),
            Failure::TimedOut => write!(f, "took longer than synthesis.timeout_ms"),
            Failure::Failed(status) => write!(f, "ended with {status}"),
            Failure::Unusable(why) => write!(f, "what it wrote {why}"),
        }
    }
}

impl Synthesizer {
    pub fn new(settings: Option<synthesis::Settings>) -> Synthesizer {
        let (running, cached) =
            settings.as_ref().map_or((0, 0), |s| (s.concurrent_max, s.cached_max));
        Synthesizer {
            settings,
            running: Semaphore::new(running),
            cache: Mutex::new(Cache::new(cached)),
        }
    }

    /// The name as a clip, within the time limit; `None` when there is no command, it fails, or
    /// the text is no name: then use the wording without a name.
    pub async fn name(&self, name: &str) -> Option<Clip> {
        let settings = self.settings.as_ref()?;
        let text = synthesis::sayable(name)?;
        if let Some(clip) = self.cache().clip(&text) {
            return Some(clip);
        }
        match self.say(settings, &text).await {
            Ok(clip) => {
                self.cache().keep(&text, clip.clone());
                Some(clip)
            }
            Err(failure) => {
                tracing::warn!(program = settings.command[0], %failure, "synthesis of a name");
                None
            }
        }
    }

    /// The name of the operator's company as a clip; why not, if not.
    pub async fn company(&self, name: &str) -> Result<Clip, String> {
        let settings = self.settings.as_ref().ok_or("is not set")?;
        if name.starts_with('-') || name.contains(['<', '>']) {
            return Err("is given names that begin with no dash and have no `<` or `>`".into());
        }
        self.say(settings, name).await.map_err(|failure| failure.to_string())
    }

    async fn say(&self, settings: &synthesis::Settings, text: &str) -> Result<Clip, Failure> {
        let limit = Duration::from_millis(settings.timeout_ms);
        let said = timeout(limit, async {
            // The permit is given back when this future is dropped at the limit, and the
            // command is killed with it.
            let _permit = self.running.acquire().await.ok();
            output(settings, text).await
        });
        let said = said.await.unwrap_or(Err(Failure::TimedOut));
        said.and_then(|wav| {
            synthesis::clip(wav).map_err(|error| Failure::Unusable(error.to_string()))
        })
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the command for `text`; dropping the future kills it.
async fn output(settings: &synthesis::Settings, text: &str) -> Result<Vec<u8>, Failure> {
    let missing = || Failure::NotStarted(io::Error::other("synthesis.command is empty"));
    let invocation = settings.invocation(text).ok_or_else(missing)?;
    let mut child = Command::new(&invocation.program)
        .args(&invocation.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(Failure::NotStarted)?;
    let input = child.stdin.take().zip(invocation.input);
    let feed = async {
        if let Some((mut pipe, text)) = input {
            // A command that does not read its input is judged by its output.
            let _ = pipe.write_all(text.as_bytes()).await;
        }
    };
    let mut sound = Vec::new();
    let stdout = child.stdout.take();
    let collect = async {
        match stdout {
            Some(pipe) => pipe.take(OUTPUT_BYTES_MAX as u64 + 1).read_to_end(&mut sound).await,
            None => Ok(0),
        }
    };
    let (_, collected) = tokio::join!(feed, collect);
    collected.map_err(|error| Failure::Unusable(format!("cannot be read: {error}")))?;
    if sound.len() > OUTPUT_BYTES_MAX {
        return Err(Failure::Unusable("is too long".into()));
    }
    let status = child.wait().await.map_err(Failure::NotStarted)?;
    if status.success() { Ok(sound) } else { Err(Failure::Failed(status)) }
}

/// `ringtill prompts check`: every problem on a line. True when the voice can be used.
pub fn check(settings: &Settings, out: &mut dyn Write) -> io::Result<bool> {
    let (problems, phrases) = match load(settings) {
        Ok(library) => (library.warnings().to_vec(), library.catalog().entries().len()),
        Err(problems) => (problems, 0),
    };
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    let synthesis = settings.synthesis.iter().flat_map(synthesis::Settings::problems);
    let synthesis: Vec<_> = synthesis.collect();
    for (key, what) in &synthesis {
        writeln!(out, "error: prompts.synthesis.{key}: {what}")?;
    }
    let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
    let errors = errors + synthesis.len();
    let warnings = problems.len() + synthesis.len() - errors;
    if errors == 0 {
        let language = &settings.language;
        writeln!(out, "{language}: {phrases} phrases and pieces, {warnings} warnings")?;
    } else {
        writeln!(out, "{errors} errors, {warnings} warnings")?;
    }
    Ok(errors == 0)
}

/// `ringtill prompts export`: the script for the voice talent as CSV: id, text, note.
pub fn export(settings: &Settings, out: &mut dyn Write) -> Result<(), Vec<Problem>> {
    let library = load(settings)?;
    let mut rows = csv::Writer::from_writer(out);
    let failed = |error: csv::Error| vec![Problem::error("export", None, error.to_string())];
    rows.write_record(["id", "text", "note"]).map_err(failed)?;
    for entry in library.catalog().entries() {
        rows.write_record([&entry.id, &entry.text, &entry.note]).map_err(failed)?;
    }
    rows.flush().map_err(|error| vec![Problem::error("export", None, error.to_string())])
}

/// `ringtill prompts render FOLDER`: says every phrase with the operator's command into
/// `FOLDER/clips/<id>.wav`, levelled and trimmed. Goes on after a failure and lists them all; true
/// when there was none.
pub async fn render(settings: &Settings, folder: &Path, out: &mut dyn Write) -> io::Result<bool> {
    let Some(synthesis) = &settings.synthesis else {
        writeln!(out, "error: prompts.synthesis is not set: say which command speaks")?;
        return Ok(false);
    };
    let library = match load(settings) {
        Ok(library) => library,
        Err(problems) => {
            for problem in problems {
                writeln!(out, "{problem}")?;
            }
            return Ok(false);
        }
    };
    let clips = folder.join("clips");
    tokio::fs::create_dir_all(&clips).await?;
    let limit = Duration::from_millis(synthesis.timeout_ms) * 10;
    let mut failures = 0;
    for entry in library.catalog().entries() {
        let said = timeout(limit, output(synthesis, &entry.text)).await;
        let said = said.unwrap_or(Err(Failure::TimedOut)).and_then(|wav| {
            let samples = synthesis::samples(wav, RENDER_RATE);
            samples.map_err(|error| Failure::Unusable(error.to_string()))
        });
        match said {
            Ok(samples) => {
                let file = clips.join(format!("{}.wav", entry.id));
                tokio::fs::write(file, wav(&samples, RENDER_RATE)).await?;
            }
            Err(failure) => {
                failures += 1;
                writeln!(out, "error: {}: {} {failure}", entry.id, synthesis.command[0])?;
                if matches!(failure, Failure::NotStarted(_)) {
                    return Ok(false);
                }
            }
        }
    }
    let rendered = library.catalog().entries().len() - failures;
    writeln!(out, "{rendered} clips in {}, {failures} failed", clips.display())?;
    Ok(failures == 0)
}

/// A WAV file of 16-bit mono PCM.
fn wav(samples: &[i16], rate: u32) -> Vec<u8> {
    let bytes = samples.len() as u32 * 2;
    let mut file = Vec::with_capacity(44 + samples.len() * 2);
    file.extend(b"RIFF");
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(rate.to_le_bytes());
    file.extend((rate * 2).to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(bytes.to_le_bytes());
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::Prompt;

    fn command(argv: &[&str], timeout_ms: u64) -> synthesis::Settings {
        synthesis::Settings {
            command: argv.iter().map(|part| (*part).to_string()).collect(),
            timeout_ms,
            concurrent_max: 2,
            cached_max: 10,
        }
    }

    /// A program that writes a tone as WAV, counts its runs and checks what it was told to say.
    fn speaker(folder: &Path) -> Vec<String> {
        let tone: Vec<i16> =
            (0..8_000).map(|n| if n / 10 % 2 == 0 { 3_000 } else { -3_000 }).collect();
        std::fs::write(folder.join("tone.wav"), wav(&tone, 16_000)).unwrap();
        let script =
            format!("read -r name; echo \"$name\" >> {0}/said; cat {0}/tone.wav", folder.display());
        ["sh", "-c", &script].map(String::from).to_vec()
    }

    #[test]
    fn the_bundled_voice_loads_without_a_warning() {
        let library = load(&Settings::default()).unwrap();
        assert_eq!(library.warnings(), []);
        assert!(library.catalog().entries().len() > 250);
    }

    #[tokio::test]
    async fn a_name_is_said_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let settings =
            synthesis::Settings { command: speaker(folder.path()), ..command(&[], 5_000) };
        let synthesizer = Synthesizer::new(Some(settings));
        let clip = synthesizer.name("XANTHIPPE").await.unwrap();
        assert!((4_000..4_700).contains(&clip.mu.len()), "{}", clip.mu.len());
        assert!(synthesizer.name("Xanthippe").await.is_some());
        assert!(synthesizer.name("$(reboot)").await.is_none());
        let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
        assert_eq!(said, "Xanthippe\n");
    }

    #[tokio::test]
    async fn a_command_that_fails_leaves_the_name_out() {
        for (argv, why) in [
            (vec!["/nonexistent/speaker"], "cannot be started"),
            (vec!["sh", "-c", "exit 3"], "exit status: 3"),
            (vec!["sh", "-c", "echo hello"], "not readable"),
            (vec!["head", "-c", "9000000", "/dev/zero"], "is too long"),
        ] {
            let settings = command(&argv, 3_000);
            let failure = timeout(Duration::from_secs(5), output(&settings, "James")).await;
            let failure = match failure.unwrap() {
                Ok(wav) => synthesis::clip(wav).err().unwrap().to_string(),
                Err(failure) => failure.to_string(),
            };
            assert!(failure.contains(why), "{argv:?}: {failure}");
            assert!(Synthesizer::new(Some(settings)).name("James").await.is_none());
        }
        assert!(Synthesizer::new(None).name("James").await.is_none());
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_at_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let late = folder.path().join("late");
        let script = format!("sleep 0.6; : > {}", late.display());
        let settings = command(&["sh", "-c", &script], 100);
        assert!(Synthesizer::new(Some(settings)).name("James").await.is_none());
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert!(!late.exists(), "the command went on after the limit");
    }

    #[tokio::test]
    async fn a_rendered_folder_is_a_voice_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let synthesis =
            command(&speaker(folder.path()).iter().map(String::as_str).collect::<Vec<_>>(), 9_000);
        let settings = Settings { synthesis: Some(synthesis), ..Settings::default() };
        let voice = folder.path().join("voice");
        let mut told = Vec::new();
        let whole = render(&settings, &voice, &mut told).await.unwrap();
        assert!(whole, "{}", String::from_utf8_lossy(&told));
        let own = Settings { folder: Some(voice.clone()), ..Settings::default() };
        let library = load(&own).unwrap();
        assert_eq!(library.warnings(), []);
        let clips = library.clips(&[Prompt::Phrase("greet.welcome")], &|_| None);
        assert!((4_000..4_700).contains(&clips[0].mu.len()), "{}", clips[0].mu.len());
        std::fs::write(voice.join("clips/bye.wav"), "x").unwrap();
        let mut told = Vec::new();
        assert!(check(&own, &mut told).unwrap());
        let told = String::from_utf8(told).unwrap();
        assert!(
            told.contains("clips/bye.wav: is never used") && told.contains("1 warnings"),
            "{told}"
        );
    }

    #[test]
    fn export_is_the_script_of_the_voice_talent() {
        let mut csv = Vec::new();
        export(&Settings::default(), &mut csv).unwrap();
        let csv = String::from_utf8(csv).unwrap();
        assert!(csv.starts_with("id,text,note\ngreet.welcome,Thank you for calling"), "{csv}");
        assert!(csv.contains("\nday.31,thirty-first,After the month.\n"));
    }
}
