//! The ledger as people search it.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::row::read;
use super::{Store, StoreError};
use crate::ledger::{Intent, State};
use crate::money::Money;

/// Which payments are wanted; what is unset does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// It is paid, by itself or with others.
    pub account: Option<String>,
    /// Name of a state.
    pub state: Option<String>,
    /// Begun then or later, and before. Unix milliseconds.
    pub from_ms: Option<i64>,
    pub until_ms: Option<i64>,
    pub limit: Option<u32>,
    /// Cards that were verified, too: no payments.
    pub verifications: bool,
}

impl Store {
    /// Payments that fit, newest first, each with what was given back of it.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<(Intent, State, Money)>, StoreError> {
        let query = "select * from intent where ($1 = '' or account_id = $1 \
                         or exists (select 1 from allocation where intent_id = intent.id \
                             and allocation.account_id = $1)) \
                     and ($2 = '' or state = $2) and created_ms >= $3 and created_ms < $4 \
                     and ($6 <> 0 or fee_kind <> 'verification') \
                     order by created_ms desc, id desc limit $5";
        let rows = sqlx::query(query)
            .bind(filter.account.clone().unwrap_or_default())
            .bind(filter.state.clone().unwrap_or_default())
            .bind(filter.from_ms.unwrap_or(i64::MIN))
            .bind(filter.until_ms.unwrap_or(i64::MAX))
            .bind(filter.limit.map_or(i64::MAX, i64::from))
            .bind(i64::from(filter.verifications))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(whole).collect()
    }

    /// The payment with this confirmation number or reference.
    pub async fn find(&self, wanted: &str) -> Result<Option<(Intent, State, Money)>, StoreError> {
        let query = sqlx::query("select * from intent where confirmation = $1 or id = $1");
        let row = query.bind(wanted).fetch_optional(&self.pool).await?;
        row.map(|row| whole(&row)).transpose()
    }
}

fn whole(row: &AnyRow) -> Result<(Intent, State, Money), StoreError> {
    let (intent, state) = read(row)?;
    let undone = Money::new(row.try_get("undone_minor")?, intent.amount.currency);
    Ok((intent, state, undone))
}
