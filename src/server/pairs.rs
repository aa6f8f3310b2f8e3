//! Bills whose fee was to be a charge of its own, and whose call did not see to both: each is given
//! back or stands without its fee, as the biller wants.

use std::collections::HashSet;
use std::future::Future;

use tracing::{error, info};

use super::resolver::modification;
use super::store::change::Begun;
use super::store::pair::{Due, PERSON, Pair};
use super::store::{Store, StoreError};
use crate::gateway::{Exchange, Request, Route, Routes};
use crate::ledger::{Change, Progress, Undo};
use crate::payment::{VOIDED_BY, VOIDED_FOR};

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Pairs whose end was noted.
    pub ended: usize,
    /// Bills whose void was sent.
    pub voided: usize,
}

/// Sees to every pair that no call sees to any more, at `now_ms` (Unix), sending by `send`.
pub async fn step<F: Future<Output = Exchange>>(
    store: &Store,
    routes: &Routes,
    now_ms: i64,
    mut send: impl FnMut(&Route, Request) -> F,
) -> Result<Round, StoreError> {
    let mut round = Round::default();
    // One that gives no answer is not asked again in this round: others wait behind it.
    let mut silent = HashSet::new();
    for pair in store.pairs_due(now_ms).await? {
        match pair.due(now_ms) {
            Due::Nothing => {}
            Due::Note(end) => {
                if end == PERSON {
                    error!(
                        payment = pair.bill.confirmation,
                        "its fee was not charged and it cannot be voided: `ringtill payments \
                         refund` or `waive`"
                    );
                }
                store.end_pair(&pair.bill, end).await?;
                round.ended += 1;
            }
            Due::Void if silent.contains(&pair.bill.gateway) => {}
            Due::Void => {
                let voided = void(store, routes, &pair, now_ms, &mut send).await?;
                round.voided += usize::from(voided.is_some());
                if matches!(voided, Some(Progress::Unknown(_) | Progress::NotSent(_))) {
                    silent.insert(pair.bill.gateway);
                }
            }
        }
    }
    Ok(round)
}

/// What became of the void of a bill, if it was begun.
async fn void<F: Future<Output = Exchange>>(
    store: &Store,
    routes: &Routes,
    pair: &Pair,
    now_ms: i64,
    send: &mut impl FnMut(&Route, Request) -> F,
) -> Result<Option<Progress>, StoreError> {
    let Some(route) = routes.by_id(&pair.bill.gateway) else {
        error!(gateway = pair.bill.gateway, "a bill is to be voided there: configure it");
        return Ok(None);
    };
    let change = Change {
        id: uuid::Uuid::now_v7().to_string(),
        intent_id: pair.bill.id.clone(),
        act: Undo::Void,
        amount: pair.bill.amount,
        who: VOIDED_BY.into(),
        why: VOIDED_FOR.into(),
        created_ms: now_ms,
    };
    let change = match store.begin_change(change, None, false).await? {
        Begun::Stored(change) => change,
        // Somebody was faster.
        Begun::Refused(_) => return Ok(None),
    };
    let asked = modification(&change, &pair.bill, &pair.bill_state, now_ms);
    let progress: Progress = match route.gateway.modify(&asked) {
        Ok(request) => {
            let exchange = send(route, request).await;
            route.gateway.modified(&asked, &exchange).into()
        }
        Err(cannot) => Progress::Refused(cannot.0.into()),
    };
    let (payment, state) = (&pair.bill.confirmation, progress.name());
    info!(payment, state, "its fee was not charged: voided");
    store.progress(&change, &progress, now_ms).await?;
    Ok(Some(progress))
}

#[cfg(test)]
mod tests;
