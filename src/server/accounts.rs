//! The account file: read, reported on, swapped whole.

use std::path::Path;

use tracing::{info, warn};

use crate::account::Directory;
use crate::account::csv::{self, FileError, Options, Rejected};
use crate::config::Config;

/// Reads the file; rows that cannot be taken are listed in `<name>.rej.csv` beside it.
pub fn read(path: &Path, config: &Config, previous: Option<usize>) -> Result<Directory, String> {
    let shown = path.display();
    let import = parse(path, config, previous)?.map_err(|error| {
        if let FileError::Held { rejected, .. } = &error {
            report(path, rejected);
        }
        format!("{shown}: {error}")
    })?;
    let (accounts, rejected) = (import.directory.len(), import.rejected_rows);
    info!(file = %shown, accounts, rejected, "accounts read");
    if rejected > 0 {
        warn!(file = %shown, "{rejected} rows rejected, the first: {}", import.rejected[0]);
        report(path, &import.rejected);
    }
    Ok(import.directory)
}

/// What is wrong with the file or its rows, without writing or taking anything.
pub fn check(path: &Path, config: &Config) -> Result<(), String> {
    let shown = path.display();
    let import = parse(path, config, None)?.map_err(|error| format!("{shown}: {error}"))?;
    if import.rejected.is_empty() {
        return Ok(());
    }
    let rows: Vec<String> = import.rejected.iter().map(|row| format!("{shown}: {row}")).collect();
    Err(rows.join("\nerror: "))
}

type Parsed = Result<csv::Import, FileError>;

fn parse(path: &Path, config: &Config, previous: Option<usize>) -> Result<Parsed, String> {
    let bytes = std::fs::read(path).map_err(|error| {
        format!("{}: {error}; [accounts] file must name the biller's CSV", path.display())
    })?;
    let country = config.trunks.first().map_or("US".into(), |trunk| trunk.country.clone());
    let options = Options { country, currency: config.payment.currency(), previous };
    Ok(csv::parse(&bytes, &options))
}

fn report(path: &Path, rejected: &[Rejected]) {
    let report = path.with_extension("rej.csv");
    if let Err(error) = std::fs::write(&report, csv::report(rejected)) {
        warn!("{}: the row report could not be written: {error}", report.display());
    }
}
