//! The configuration file: read, and checked with every file it names.

use std::path::Path;

use super::{accounts, bank, evidence, fees, gateway, prompts, routes, sip};
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

/// Name and text of every bundled profile, by name.
pub(super) fn bundled_profiles() -> Vec<(String, String)> {
    let names = Profiles::iter().filter_map(|file| file.strip_suffix(".toml").map(String::from));
    let mut all: Vec<_> =
        names.filter_map(|name| Some((trunk_profile(&name, Path::new(""))?, name))).collect();
    all.sort_by(|(_, a), (_, b)| a.cmp(b));
    all.into_iter().map(|(text, name)| (name, text)).collect()
}

/// Every problem with the files a configuration names; nothing is opened for use.
pub fn check(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    match prompts::load(&config.prompts) {
        Ok(library) => problems.extend(bank::voice_problem(config, &library)),
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
    if let Err(error) = routes::passwords(&mut config.trunks.clone()) {
        problems.push(error);
    }
    problems.extend(gateway::check(config));
    problems.extend(bank::banks(config).err());
    problems.extend(fees::bins(config).err());
    problems.extend(evidence::Evidences::open(config).err());
    let folders = [
        ("[posting] directory", Some(&config.posting.directory)),
        ("[recording] directory", config.recording.directory.as_ref()),
        ("[recording] authorisations", config.recording.authorisations.as_ref()),
    ];
    for (key, folder) in folders {
        if let Some(folder) = folder.filter(|folder| folder.exists() && !folder.is_dir()) {
            problems.push(format!("{key} {}: is no folder; name one", folder.display()));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::profile::Profile;

    /// The keys that a paragraph of a profile sets, and whether a comment opens it.
    fn keys(paragraph: &str) -> (Vec<&str>, bool) {
        let lines = paragraph.lines().filter(|line| !line.starts_with([' ', ']']));
        let set = lines.filter_map(|line| match line.strip_prefix('[') {
            Some(table) => Some(table.trim_matches(['[', ']'])),
            None => line.split_once(" = ").map(|(key, _)| key).filter(|key| !key.contains('#')),
        });
        (set.collect(), paragraph.starts_with("# "))
    }

    #[test]
    fn every_bundled_profile_parses_and_explains_its_keys() {
        let all = bundled_profiles();
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        let wanted = [
            "asterisk",
            "avaya",
            "bandwidth",
            "cisco",
            "freeswitch",
            "generic",
            "genesys",
            "kamailio",
            "teams",
            "telnyx",
            "twilio",
            "voipms",
        ];
        assert_eq!(names, wanted);
        for (name, text) in &all {
            let profile = Profile::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(profile.name, *name);
            assert!(text.starts_with("# "), "{name}: the first line tells what it is for");
            let table: toml::Table = toml::from_str(text).unwrap();
            let mut explained = Vec::new();
            for paragraph in text.split("\n\n") {
                let (set, commented) = keys(paragraph);
                assert!(commented || set.is_empty(), "{name}: {set:?} without a comment");
                explained.extend(set);
            }
            for key in table.keys() {
                assert!(explained.contains(&key.as_str()), "{name}: {key} is not explained");
            }
        }
    }

    /// A network that is too wide, or none of the carrier's, would let strangers in.
    #[test]
    fn shipped_networks_are_few_and_public() {
        for (name, text) in bundled_profiles() {
            let profile = Profile::parse(&text).unwrap();
            let told = ["teams", "telnyx", "twilio"].contains(&name.as_str());
            assert_eq!(!profile.sources.is_empty(), told, "{name}: {:?}", profile.sources);
            for net in &profile.sources {
                let wide = if profile.certificates.is_empty() { 28 } else { 14 };
                assert!(net.prefix_len() >= wide, "{name}: {net}");
                assert!(!crate::sip::transport::is_private(net.addr()), "{name}: {net}");
                assert_eq!(net.trunc(), *net, "{name}: {net}");
            }
            let open = profile.trust_caller_id != crate::sip::identity::Trust::Never;
            assert!(!open, "{name}: trust is the operator's to give");
        }
    }
}
