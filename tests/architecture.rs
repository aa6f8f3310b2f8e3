//! The rules of the layout: a module uses only modules declared above it in `lib.rs`, and only
//! `server` and `main` name tokio, sockets, files, threads or the clock. Textual, line by line:
//! a macro could slip past it, a reader would not.

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 100;

/// Names that only the world may use.
const WORLD: [&str; 17] = [
    "tokio::",
    "reqwest::",
    "sqlx::",
    "hyper::",
    "std::fs",
    "File::open",
    "std::net::UdpSocket",
    "TcpStream",
    "TcpListener",
    "socket2::",
    "std::thread",
    "thread::spawn",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "std::process::Command",
];

struct Source {
    path: PathBuf,
    /// The top-level module it belongs to.
    module: String,
    text: String,
}

impl Source {
    /// Whole files of tests, declared under `#[cfg(test)]` by their parent.
    fn is_test(&self) -> bool {
        self.path
            .components()
            .any(|part| matches!(part.as_os_str().to_str(), Some("tests.rs" | "tests")))
    }
}

#[test]
fn modules_use_only_what_is_declared_above_them() {
    let order = declared_order();
    let rank = |module: &str| order.iter().position(|name| name == module);
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module != "main") {
        let own = rank(&source.module).unwrap_or_else(|| panic!("{:?}: not declared", source.path));
        for (line, used) in crate_uses(&source.text) {
            match rank(&used) {
                Some(other) if other <= own => {}
                Some(_) => wrong.push(format!(
                    "{}:{line}: `{}` uses `{used}`, which is declared below it",
                    source.path.display(),
                    source.module
                )),
                None => wrong.push(format!(
                    "{}:{line}: `crate::{used}` is no module: name one, without braces",
                    source.path.display()
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_server_touches_the_world() {
    let mut wrong = Vec::new();
    let world = |source: &Source| source.module == "server" || source.module == "main";
    let pure = |source: &&Source| !world(source) && !source.is_test();
    for source in sources().iter().filter(pure) {
        for (number, line) in code_lines(&source.text) {
            for name in WORLD.iter().filter(|name| line.contains(**name)) {
                wrong.push(format!("{}:{number}: `{name}`", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "only `server` may name these:\n{}", wrong.join("\n"));
}

#[test]
fn files_open_with_a_description_and_stay_readable() {
    let mut wrong = Vec::new();
    for Source { path, text, .. } in sources() {
        let path = path.display();
        if !text.starts_with("//! ") {
            wrong.push(format!("{path}: opens without `//!`"));
        }
        if text.lines().count() > LINES_MAX {
            wrong.push(format!("{path}: more than {LINES_MAX} lines: split it by meaning"));
        }
        // A table or a format in a comment is as wide as it is; what is quoted stays whole.
        let table = |line: &str| line.trim_start().starts_with("//") && line.contains(['|', '<']);
        let wide = |line: &str| table(line) || line.contains('"') || line.ends_with('\\');
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !wide(line)) {
            if line.chars().count() > COLUMNS_MAX {
                wrong.push(format!("{path}:{}: more than {COLUMNS_MAX} columns", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The test that finds nothing must be able to find something.
#[test]
fn the_rules_can_be_broken() {
    let uses = crate_uses("use crate::server::{a, b};\nuse crate::{sip, rtp};\n// crate::call\n");
    let expected = [(1, "server".to_string()), (2, "sip".into()), (2, "rtp".into())];
    assert_eq!(uses, expected);
    assert_eq!(code_lines("let now = Instant::now();\n#[cfg(test)]\nInstant::now()").count(), 1);
}

fn declared_order() -> Vec<String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod "));
    modules.filter_map(|rest| rest.split(';').next()).map(String::from).collect()
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(source(&path));
            }
        }
    }
    sources.retain(|source| source.module != "lib");
    sources
}

fn source(path: &Path) -> Source {
    let relative = path.strip_prefix(root().join("src")).expect("under src");
    let first = relative.components().next().expect("a name").as_os_str().to_string_lossy();
    let module = first.trim_end_matches(".rs").to_string();
    let text = fs::read_to_string(path).expect("readable");
    Source { path: Path::new("src").join(relative), module, text }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Modules named after `crate::`, with their line. `use crate::{a, b::c}` names `a` and `b`.
fn crate_uses(text: &str) -> Vec<(usize, String)> {
    let mut uses = Vec::new();
    for (number, line) in code_lines(text) {
        for rest in line.split("crate::").skip(1) {
            let names = match rest.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap_or_default(),
                None => rest,
            };
            let one = !rest.starts_with('{');
            for name in names.split(',').take(if one { 1 } else { usize::MAX }) {
                let end = |c: char| !(c.is_alphanumeric() || c == '_');
                let name = name.trim().split(end).next().unwrap_or_default();
                uses.push((number, name.to_string()));
            }
        }
    }
    uses
}

/// Lines of code before the tests at the foot, numbered from 1, comments left out.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.find("#[cfg(test)]").unwrap_or(text.len());
    let lines = text[..tests].lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}
