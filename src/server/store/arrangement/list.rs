//! Arrangements as people look at them.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{currency, due_date, kind};
use crate::ledger::arrangement::Kind;
use crate::money::Money;
use crate::server::store::{Store, StoreError};

/// An arrangement with its instalments and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub number: String,
    pub account_id: String,
    pub kind: Kind,
    pub state: String,
    /// The most that is charged at a time.
    pub limit: Money,
    pub brand: String,
    pub last4: String,
    pub created_ms: i64,
    /// Who ended it, and why.
    pub ended: Option<(String, String)>,
    pub instalments: Vec<ListedInstalment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedInstalment {
    pub due: String,
    pub amount: Money,
    pub fee: Money,
    pub state: String,
    pub declines: i64,
    /// Confirmation number of its latest payment.
    pub confirmation: Option<String>,
    pub detail: String,
}

/// Arrangements handed out at once, and instalments of each.
const ARRANGEMENTS_MAX: i64 = 1_000;
const INSTALMENTS_MAX: i64 = 100;

impl Store {
    /// Arrangements of a biller, of one account or all, newest first; the ended ones too if `all`.
    pub async fn list_arrangements(
        &self,
        biller: &str,
        account_id: Option<&str>,
        all: bool,
    ) -> Result<Vec<Listed>, StoreError> {
        let query = "select arrangement.*, card.brand, card.last4 from arrangement \
                     join card on card.id = card_id where arrangement.biller = $1 \
                     and ($2 = '' or arrangement.account_id = $2) \
                     and ($3 = 1 or state = 'active') \
                     order by arrangement.created_ms desc, arrangement.id desc limit $4";
        let query = sqlx::query(query).bind(biller).bind(account_id.unwrap_or_default());
        let query = query.bind(i64::from(all)).bind(ARRANGEMENTS_MAX);
        let mut listed = Vec::new();
        for row in &query.fetch_all(&self.pool).await? {
            listed.push(self.listed(row).await?);
        }
        Ok(listed)
    }

    /// The arrangement of this number.
    pub async fn arrangement(
        &self,
        biller: &str,
        number: &str,
    ) -> Result<Option<Listed>, StoreError> {
        let query = "select arrangement.*, card.brand, card.last4 from arrangement \
                     join card on card.id = card_id \
                     where arrangement.biller = $1 and number = $2";
        let query = sqlx::query(query).bind(biller).bind(number);
        match query.fetch_optional(&self.pool).await? {
            Some(row) => Ok(Some(self.listed(&row).await?)),
            None => Ok(None),
        }
    }

    async fn listed(&self, row: &AnyRow) -> Result<Listed, StoreError> {
        let text = |column: &str| row.try_get::<String, _>(column);
        let (id, currency) = (text("id")?, currency(row)?);
        let query = "select instalment.*, coalesce(confirmation, '') as confirmation, \
                     $2 as number from instalment left join intent on intent.id = intent_id \
                     where arrangement_id = $1 order by position desc limit $3";
        let query = sqlx::query(query).bind(&id).bind(text("number")?).bind(INSTALMENTS_MAX);
        let mut instalments = Vec::new();
        for row in query.fetch_all(&self.pool).await?.iter().rev() {
            let text = |column: &str| row.try_get::<String, _>(column);
            instalments.push(ListedInstalment {
                due: due_date(row)?.to_string(),
                amount: Money::new(row.try_get("amount_minor")?, currency),
                fee: Money::new(row.try_get("fee_minor")?, currency),
                state: text("state")?,
                declines: row.try_get("declines")?,
                confirmation: Some(text("confirmation")?).filter(|number| !number.is_empty()),
                detail: text("detail")?,
            });
        }
        let query = "select who, detail from arrangement_event where arrangement_id = $1 \
                     and event in ('cancelled', 'stopped')";
        let ended = sqlx::query(query).bind(&id).fetch_optional(&self.pool).await?;
        let ended = ended.map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?)));
        Ok(Listed {
            number: text("number")?,
            account_id: text("account_id")?,
            kind: kind(row)?,
            state: text("state")?,
            limit: Money::new(row.try_get("limit_minor")?, currency),
            brand: text("brand")?,
            last4: text("last4")?,
            created_ms: row.try_get("created_ms")?,
            ended: ended.transpose()?,
            instalments,
            id,
        })
    }
}
