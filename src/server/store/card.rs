//! Cards that callers have kept, and what happened to them.

use sqlx::any::AnyRow;
use sqlx::{Any, Row as _, Transaction};

use super::{Store, StoreError, arrangement};
use crate::instrument::{Brand, Expiry, Fingerprint, Last4, Token};
use crate::ledger::card::{Consent, FirstCharge, KEPT_ANEW, SavedCard};
use crate::ledger::journal::masked;
use crate::ledger::{Recorded, Wallet};

/// A card as people look at it: never its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub account_id: String,
    pub gateway: String,
    pub brand: String,
    pub last4: String,
    pub expiry: (u16, u8),
    pub created_ms: i64,
    /// The payment it was kept with.
    pub payment: String,
}

/// Cards handed out at once.
const CARDS_MAX: i64 = 1_000;

impl Store {
    /// What is kept for an account.
    pub async fn wallet(&self, biller: &str, account_id: &str) -> Result<Wallet, StoreError> {
        let query = "select * from card where biller = $1 and account_id = $2 and dropped_ms = 0 \
                     order by created_ms desc, id desc limit 10";
        let rows = sqlx::query(query).bind(biller).bind(account_id).fetch_all(&self.reader).await?;
        let mut cards = Vec::new();
        for row in &rows {
            let consent = self.consent_of(row).await?;
            cards.push(read(row, consent)?);
        }
        Ok(Wallet { cards, arrangements: self.arrangements(biller, account_id).await? })
    }

    /// The card of this id, if it may be charged.
    pub async fn card(&self, id: &str) -> Result<Option<SavedCard>, StoreError> {
        let query = sqlx::query("select * from card where id = $1 and dropped_ms = 0").bind(id);
        let Some(row) = query.fetch_optional(&self.reader).await? else { return Ok(None) };
        let consent = self.consent_of(&row).await?;
        read(&row, consent).map(Some)
    }

    async fn consent_of(&self, row: &AnyRow) -> Result<Consent, StoreError> {
        let id: String = row.try_get("id")?;
        let query = "select * from card_event where card_id = $1 and event = 'kept'";
        let kept = sqlx::query(query).bind(id).fetch_one(&self.reader).await?;
        let said: String = kept.try_get("detail")?;
        // Phrases of a version that knew others are of no use to this one.
        let known = |id: &&'static str| said.split(' ').any(|part| part == *id);
        Ok(Consent {
            said: crate::payment::CARD_TERMS.into_iter().filter(known).collect(),
            at_ms: kept.try_get("at_ms")?,
            call_id: kept.try_get("call_id")?,
            payment: kept.try_get("payment")?,
        })
    }

    /// Cards of a biller that may be charged, of one account or all, newest first.
    pub async fn cards(
        &self,
        biller: &str,
        account_id: Option<&str>,
    ) -> Result<Vec<Listed>, StoreError> {
        let query = "select card.*, card_event.payment from card join card_event \
                     on card_event.card_id = card.id and card_event.event = 'kept' \
                     where dropped_ms = 0 and biller = $3 and ($1 = '' or account_id = $1) \
                     order by created_ms desc, id desc limit $2";
        let query = sqlx::query(query).bind(account_id.unwrap_or_default());
        let query = query.bind(CARDS_MAX).bind(biller);
        query.fetch_all(&self.pool).await?.iter().map(listed).collect()
    }

    pub(super) async fn keep_card(
        &self,
        card: &SavedCard,
        now_ms: i64,
    ) -> Result<Recorded, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let query = "select id from card where biller = $1 and account_id = $2 and gateway = $3 \
                     and fingerprint = $4 and dropped_ms = 0";
        let same = sqlx::query(query)
            .bind(&card.biller)
            .bind(&card.account_id)
            .bind(&card.gateway)
            .bind(card.fingerprint.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        let same: Option<String> = same.map(|row| row.try_get("id")).transpose()?;
        let same = same.filter(|id| *id != card.id);
        if let Some(id) = &same {
            dropped(&mut tx, id, ("", KEPT_ANEW), now_ms).await?;
        }
        let inserted = sqlx::query(INSERT)
            .bind(&card.id)
            .bind(&card.biller)
            .bind(&card.account_id)
            .bind(&card.gateway)
            .bind(card.token.expose())
            .bind(card.brand.name())
            .bind(card.last4.as_str())
            .bind(i64::from(card.expiry.expose_year()))
            .bind(i64::from(card.expiry.expose_month()))
            .bind(card.fingerprint.to_string())
            .bind(card.issuer.map_or(String::new(), |tag| tag.to_string()))
            .bind(card.created_ms)
            .bind(&card.first.reference)
            .bind(&card.first.network)
            .bind(card.first.total_minor)
            .execute(&mut *tx)
            .await;
        match inserted {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                tx.rollback().await?;
                return Ok(Recorded::Conflict);
            }
            other => other?,
        };
        let Consent { said, at_ms, call_id, payment } = &card.consent;
        sqlx::query(EVENT)
            .bind(&card.id)
            .bind("kept")
            .bind(*at_ms)
            .bind("")
            .bind(said.join(" "))
            .bind(call_id)
            .bind(payment)
            .execute(&mut *tx)
            .await?;
        if let Some(id) = &same {
            arrangement::change_card(&mut tx, [id, &card.id]).await?;
        }
        tx.commit().await?;
        Ok(Recorded::Stored)
    }

    pub(super) async fn drop_card(
        &self,
        card: &str,
        (who, why): (&str, &str),
        now_ms: i64,
    ) -> Result<Recorded, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        if !dropped(&mut tx, card, (&masked(who), &masked(why)), now_ms).await? {
            tx.rollback().await?;
            return Ok(Recorded::Illegal);
        }
        arrangement::without_card(&mut tx, card, now_ms).await?;
        tx.commit().await?;
        Ok(Recorded::Stored)
    }
}

/// Marks a card as dropped and wipes its token; false if it was dropped before.
async fn dropped(
    tx: &mut Transaction<'_, Any>,
    card: &str,
    (who, why): (&str, &str),
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let query = "update card set dropped_ms = $2, token = '' where id = $1 and dropped_ms = 0";
    let done = sqlx::query(query).bind(card).bind(now_ms.max(1)).execute(&mut **tx).await?;
    if done.rows_affected() != 1 {
        return Ok(false);
    }
    sqlx::query(EVENT)
        .bind(card)
        .bind("dropped")
        .bind(now_ms)
        .bind(who)
        .bind(why)
        .bind("")
        .bind("")
        .execute(&mut **tx)
        .await?;
    Ok(true)
}

const INSERT: &str = "\
insert into card (id, biller, account_id, gateway, token, brand, last4, expiry_year, expiry_month, \
    fingerprint, issuer, created_ms, dropped_ms, first_reference, first_network, first_minor) \
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, $13, $14, $15)";

const EVENT: &str = "\
insert into card_event (card_id, position, event, at_ms, who, detail, call_id, payment) \
select $1, coalesce(max(position), 0) + 1, $2, $3, $4, $5, $6, $7 from card_event \
where card_id = $1";

fn read(row: &AnyRow, consent: Consent) -> Result<SavedCard, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let id = text("id")?;
    let foreign = |what: &str| {
        StoreError::Database(format!("card {id} has a {what} this version does not know"))
    };
    let brand = text("brand")?;
    let brand = Brand::ALL.into_iter().find(|known| known.name() == brand);
    let (year, month): (i64, i64) = (row.try_get("expiry_year")?, row.try_get("expiry_month")?);
    let expiry = u16::try_from(year).ok().zip(u8::try_from(month).ok());
    let issuer = match text("issuer")? {
        empty if empty.is_empty() => None,
        letters => Some(Fingerprint::parse(&letters).ok_or_else(|| foreign("issuer"))?),
    };
    Ok(SavedCard {
        biller: text("biller")?,
        account_id: text("account_id")?,
        gateway: text("gateway")?,
        token: Token::parse(&text("token")?).ok_or_else(|| foreign("token"))?,
        brand: brand.ok_or_else(|| foreign("brand"))?,
        last4: Last4::parse(&text("last4")?).ok_or_else(|| foreign("last4"))?,
        expiry: expiry
            .and_then(|(year, month)| Expiry::kept(year, month))
            .ok_or_else(|| foreign("expiry"))?,
        fingerprint: Fingerprint::parse(&text("fingerprint")?)
            .ok_or_else(|| foreign("fingerprint"))?,
        issuer,
        consent,
        first: FirstCharge {
            reference: text("first_reference")?,
            network: text("first_network")?,
            total_minor: row.try_get("first_minor")?,
        },
        created_ms: row.try_get("created_ms")?,
        id,
    })
}

fn listed(row: &AnyRow) -> Result<Listed, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let (year, month): (i64, i64) = (row.try_get("expiry_year")?, row.try_get("expiry_month")?);
    Ok(Listed {
        id: text("id")?,
        account_id: text("account_id")?,
        gateway: text("gateway")?,
        brand: text("brand")?,
        last4: text("last4")?,
        expiry: (year as u16, month as u8),
        created_ms: row.try_get("created_ms")?,
        payment: text("payment")?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::store;
    use super::*;
    use crate::ledger::journal::Journal;
    use crate::ledger::{Entry, sample};
    use sqlx::{Connection as _, Executor as _};

    const NOW: i64 = 1_780_272_000_000;

    fn keep(n: u64, letter: &str) -> Entry {
        Entry::Keep(Box::new(sample::card(n, letter)))
    }

    fn forget(n: u64) -> Entry {
        let (who, why) = ("ann".into(), "lost 4111111111111111".into());
        Entry::Drop { card: format!("card-{n}"), who, why }
    }

    #[tokio::test]
    async fn cards_are_kept_and_dropped_as_the_journal_does() {
        let directory = tempfile::tempdir().unwrap();
        let (store, mut journal) = (store(&directory).await, Journal::new());
        let entries = [
            keep(1, "a"),
            keep(2, "b"),
            keep(1, "c"),
            forget(9),
            // The same card again: the first token is wiped.
            keep(3, "a"),
            forget(1),
            forget(2),
            forget(2),
            keep(4, "b"),
        ];
        let mut told = Vec::new();
        for entry in entries {
            let recorded = store.record(entry.clone(), NOW).await;
            assert_eq!(recorded, journal.record(entry.clone()), "{entry:?}");
            told.push(recorded == Recorded::Stored);
            let wallet = store.wallet("acme-water", "A1").await.unwrap();
            assert_eq!(Some(wallet), journal.wallet("acme-water", "A1"), "{entry:?}");
        }
        assert_eq!(told, [true, true, false, false, true, false, true, false, true]);
        assert_eq!(store.wallet("acme-water", "A2").await.unwrap(), Wallet::default());
        assert_eq!(store.wallet("other", "A1").await.unwrap(), Wallet::default());
        let listed = store.cards("acme-water", Some("A1")).await.unwrap();
        let ids: Vec<&str> = listed.iter().map(|card| &*card.id).collect();
        assert_eq!(ids, ["card-4", "card-3"]);
        assert_eq!((listed[0].expiry, &*listed[0].payment), ((2030, 9), "intent-4"));
        assert_eq!(store.cards("acme-water", None).await.unwrap().len(), 2);
        assert_eq!(store.cards("other", None).await.unwrap(), []);
        assert_eq!(store.cards("acme-water", Some("A2")).await.unwrap(), []);
        // What is dropped has no token any more, and who dropped it is known.
        let query = "select token, who, detail from card join card_event on card_id = id \
                     where event = 'dropped' order by id";
        let rows = sqlx::query(query).fetch_all(&store.pool).await.unwrap();
        let rows: Vec<[String; 3]> = rows.iter().map(|r| [0, 1, 2].map(|n| r.get(n))).collect();
        assert_eq!(rows, [["", "", KEPT_ANEW], ["", "ann", "lost ***"]]);
    }

    /// A ledger of before knows what its cards were kept with by their payments.
    #[tokio::test]
    async fn cards_of_before_are_kept_with_their_payments() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("ledger.db");
        let mut old = super::super::tests::of_version(8, place.to_str().unwrap()).await;
        for (n, payment) in [(1, "i1"), (2, "")] {
            let sql = format!(
                "insert into card values ('card-{n}', 'acme-water', 'A1', 'bogus', 'tok', 'visa', \
                 '1111', 2030, 9, '{0}', '', {n}, 0); \
                 insert into card_event values ('card-{n}', 1, 'kept', 1, '', '', 'call', '{payment}')",
                ["a", "b"][n - 1].repeat(32),
            );
            old.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        }
        let sql = "insert into intent (id, confirmation, biller, account_id, amount_minor, \
                   fee_minor, currency, brand, last4, gateway, call_id, created_ms, state, detail, \
                   gateway_reference, auth_code, avs, cvv, unknown_ms, lookups, lookup_ms, \
                   approved_minor, file_sequence) \
                   values ('i1', '1', 'acme-water', 'A1', 32172, 200, 'USD', 'visa', \
                   '1111', 'bogus', 'call', 1, 'approved', '', 'sale_1', 'A', '', '', 0, 0, \
                   0, 32372, 0)";
        old.execute(sql).await.unwrap();
        old.close().await.unwrap();
        let store = Store::open(place.to_str().unwrap()).await.unwrap();
        let first = store.card("card-1").await.unwrap().unwrap().first;
        let (reference, network) = ("sale_1".into(), String::new());
        assert_eq!(first, FirstCharge { reference, network, total_minor: 32_372 });
        assert_eq!(store.card("card-2").await.unwrap().unwrap().first, FirstCharge::default());
    }

    #[tokio::test]
    async fn a_disk_that_fails_keeps_all_of_a_card_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        assert_eq!(store.record(keep(1, "a"), NOW).await, Recorded::Stored);
        let before = store.wallet("acme-water", "A1").await.unwrap();
        for (table, write) in [("card", "insert"), ("card", "update"), ("card_event", "insert")] {
            let trigger = format!(
                "create trigger fault before {write} on {table} begin \
                 select raise(abort, 'disk I/O error (injected)'); end"
            );
            store.pool.execute(sqlx::AssertSqlSafe(trigger)).await.unwrap();
            let again = store.record(keep(2, "a"), NOW).await;
            assert!(matches!(again, Recorded::Failed(_)), "{table} {write}: {again:?}");
            if table == "card_event" {
                let forgotten = store.record(forget(1), NOW).await;
                assert!(matches!(forgotten, Recorded::Failed(_)), "{forgotten:?}");
            }
            store.pool.execute("drop trigger fault").await.unwrap();
            assert_eq!(store.wallet("acme-water", "A1").await.unwrap(), before, "{table} {write}");
        }
        assert_eq!(store.record(keep(2, "a"), NOW).await, Recorded::Stored);
        store.close().await;
        let store = super::super::tests::store(&directory).await;
        let wallet = store.wallet("acme-water", "A1").await.unwrap();
        assert_eq!(wallet.cards, [sample::card(2, "a")], "after a restart");
    }
}
