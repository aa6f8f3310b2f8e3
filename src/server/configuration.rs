//! The configuration file: read, and checked with every file it names.

use std::path::Path;

use super::{accounts, gateway, prompts, sip};
use crate::config::Config;

/// Reads a configuration file; the error is a report for the terminal.
pub fn read_config(path: &Path) -> Result<Config, String> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!("error: {shown}: {error}\n  = help: name the configuration with -c FILE\n")
    })?;
    let beside = path.parent().unwrap_or(Path::new(""));
    Config::parse(&text, &|name| trunk_profile(name, beside)).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(|p| p.render(&shown, &text)).collect();
        format!("{}\n", all.join("\n"))
    })
}

/// Trunk profiles that come with Ringtill.
#[derive(rust_embed::Embed)]
#[folder = "sip-profiles/"]
struct Profiles;

/// A bundled profile by name, or a `.toml` file by path, relative to the configuration.
pub(super) fn trunk_profile(name: &str, beside: &Path) -> Option<String> {
    if name.ends_with(".toml") {
        return std::fs::read_to_string(beside.join(name)).ok();
    }
    let file = Profiles::get(&format!("{name}.toml"))?;
    String::from_utf8(file.data.into_owned()).ok()
}

/// Every problem with the files a configuration names; nothing is opened for use.
pub fn check(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    match prompts::load(&config.prompts) {
        Ok(_) => {}
        Err(found) => problems.extend(found.iter().map(ToString::to_string)),
    }
    if let Some(file) = &config.accounts.file
        && let Err(error) = accounts::check(file, config)
    {
        problems.push(error);
    }
    if let Some(tls) = &config.sip.tls
        && let Err(error) = sip::tls::check(tls)
    {
        problems.push(error);
    }
    if let Err(error) = gateway::check(config) {
        problems.push(error);
    }
    let folders = [
        ("[posting] directory", Some(&config.posting.directory)),
        ("[recording] directory", config.recording.directory.as_ref()),
    ];
    for (key, folder) in folders {
        if let Some(folder) = folder.filter(|folder| folder.exists() && !folder.is_dir()) {
            problems.push(format!("{key} {}: is no folder; name one", folder.display()));
        }
    }
    problems
}
