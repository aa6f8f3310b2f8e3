//! Debits that wait go into files for the bank. A file is fixed in the ledger before a byte is
//! written and always has the same bytes, so that a crash at any point leads to the same file, and
//! a debit is in one file and no other.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::civil::{Date, DateTime};

use super::disk::{self, Disk, Machine};
use super::{Account, private};
use crate::ach::calendar::{banking_day_after, banking_day_until, is_banking_day};
use crate::ach::{Entry, File};
use crate::payment::Zone;
use crate::server::store::Store;
use crate::server::store::ach::{Fixed, Wanted};

/// Files of one gateway.
pub struct Outbox {
    account: Account,
    /// Where the biller is.
    zone: Zone,
    store: Store,
    disk: Arc<dyn Disk>,
}

/// A file that is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub path: PathBuf,
    /// Debits and cents in it; unknown of one that a crash had left unfinished in place.
    pub holds: Option<(usize, u64)>,
}

impl Outbox {
    pub fn new(account: Account, zone: Zone, store: Store) -> Outbox {
        Outbox { account, zone, store, disk: Arc::new(Machine) }
    }

    #[cfg(test)]
    pub fn on(self, disk: Arc<dyn Disk>) -> Outbox {
        Outbox { disk, ..self }
    }

    pub fn id(&self) -> &str {
        &self.account.id
    }

    /// What was written down before the last cut-off that has passed, in files; called again and
    /// again, it writes nothing twice.
    pub async fn write_due(&self, now_ms: i64) -> Result<Vec<Written>, String> {
        let cut_off = last_cut_off(self.zone.civil(now_ms), self.account.settings.cut_off);
        let before_ms = cut_off.and_then(|at| self.zone.instant(at));
        match before_ms {
            Some(before_ms) => self.write(before_ms, None, now_ms).await,
            None => Err("there is no banking day before this one".into()),
        }
    }

    /// What was written down before `before_ms`, in files that are debited on `effective`, the next
    /// banking day unless given.
    pub async fn write(
        &self,
        before_ms: i64,
        effective: Option<Date>,
        now_ms: i64,
    ) -> Result<Vec<Written>, String> {
        let created = self.zone.civil(now_ms);
        let effective = effective_day(created.date(), effective)?;
        private(&self.account.settings.directory)?;
        let wanted = Wanted {
            gateway: &self.account.id,
            originator: &self.account.settings.originator,
            before_ms,
            created: created.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
            effective: effective.to_string(),
        };
        let mut written = Vec::new();
        let mut lock = None;
        loop {
            // Without anything to write there is nothing to lock, nor a folder to make.
            if lock.is_none() {
                let waits = self.store.has_debits(&self.account.id, before_ms).await;
                if !waits.map_err(|error| error.to_string())? {
                    return Ok(written);
                }
                let folder = self.account.settings.directory.clone();
                lock = Some(self.blocking(move |disk| disk::lock(disk, &folder)).await?);
            }
            let fixed = self.store.fix_debits(&wanted).await.map_err(|error| error.to_string())?;
            let Some(fixed) = fixed else { return Ok(written) };
            written.push(self.deliver(&fixed, now_ms).await?);
        }
    }

    async fn deliver(&self, fixed: &Fixed, now_ms: i64) -> Result<Written, String> {
        let folder = self.account.settings.directory.clone();
        let name = fixed.name(&self.account.id).ok_or("the file has no day")?;
        let path = folder.join(&name);
        let mut holds = None;
        if !fixed.placed {
            let file = self.file(fixed)?;
            holds = Some((file.entries.len(), file.total()));
            let (folder, name, bytes) = (folder.clone(), name.clone(), file.write());
            self.blocking(move |disk| disk::place(disk, &folder, &name, &bytes)).await?;
            let placed = self.store.file_placed(fixed.id, now_ms).await;
            placed.map_err(|error| error.to_string())?;
        }
        self.blocking(move |disk| disk::done(disk, &folder, &name)).await?;
        self.store.file_done(fixed.id, now_ms).await.map_err(|error| error.to_string())?;
        Ok(Written { path, holds })
    }

    /// The file that the ledger has fixed: always the same.
    fn file(&self, fixed: &Fixed) -> Result<File, String> {
        let entries = fixed.debits.iter().map(|debit| {
            Ok(Entry {
                receiver: self.account.unseal(&debit.id, &debit.sealed)?,
                cents: debit.cents,
                id: debit.name.clone(),
                account_id: debit.account_id.clone(),
                sequence: debit.sequence,
                again: debit.again,
            })
        });
        let wrong = |error: jiff::Error| format!("file {} in the ledger: {error}", fixed.id);
        Ok(File {
            originator: fixed.originator.clone(),
            created: fixed.created.parse().map_err(wrong)?,
            modifier: fixed.modifier,
            effective: fixed.effective.parse().map_err(wrong)?,
            entries: entries.collect::<Result<_, String>>()?,
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Disk) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let disk = self.disk.clone();
        let done = tokio::task::spawn_blocking(move || work(&*disk)).await;
        done.map_err(|error| error.to_string())?
    }
}

/// The latest cut-off of a banking day that is not in the future.
fn last_cut_off(now: DateTime, cut_off: jiff::civil::Time) -> Option<DateTime> {
    let today = now.date();
    let day = if now.time() >= cut_off { today } else { today.yesterday().ok()? };
    Some(banking_day_until(day)?.to_datetime(cut_off))
}

/// The day accounts are debited: a banking day in the future.
fn effective_day(today: Date, wanted: Option<Date>) -> Result<Date, String> {
    let next = banking_day_after(today).ok_or("there is no banking day after this one")?;
    match wanted {
        None => Ok(next),
        Some(day) if day < next => {
            Err(format!("{day} is too early: the next banking day is {next}"))
        }
        Some(day) if !is_banking_day(day) => {
            let after = banking_day_after(day).unwrap_or(next);
            Err(format!("{day} is no banking day (Federal Reserve): the next one is {after}"))
        }
        Some(day) => Ok(day),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn cut_offs_are_those_of_banking_days() {
        let cut_off = jiff::civil::time(16, 30, 0, 0);
        for (now, want) in [
            (date(2026, 11, 25).at(16, 30, 0, 0), date(2026, 11, 25)),
            (date(2026, 11, 25).at(16, 29, 59, 0), date(2026, 11, 24)),
            // Thanksgiving, and the weekend after it.
            (date(2026, 11, 26).at(20, 0, 0, 0), date(2026, 11, 25)),
            (date(2026, 11, 28).at(12, 0, 0, 0), date(2026, 11, 27)),
            (date(2026, 11, 30).at(8, 0, 0, 0), date(2026, 11, 27)),
        ] {
            assert_eq!(last_cut_off(now, cut_off), Some(want.to_datetime(cut_off)), "{now}");
        }
    }

    #[test]
    fn accounts_are_debited_on_a_banking_day_in_the_future() {
        let saturday = date(2026, 11, 28);
        assert_eq!(effective_day(saturday, None), Ok(date(2026, 11, 30)));
        assert_eq!(effective_day(saturday, Some(date(2026, 12, 1))), Ok(date(2026, 12, 1)));
        for (day, want) in [
            (saturday, "too early: the next banking day is 2026-11-30"),
            (date(2026, 11, 29), "too early"),
            (date(2026, 12, 25), "no banking day (Federal Reserve): the next one is 2026-12-28"),
        ] {
            let why = effective_day(saturday, Some(day)).unwrap_err();
            assert!(why.contains(want), "{why}");
        }
    }
}
