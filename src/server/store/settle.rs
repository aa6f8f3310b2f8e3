//! Payments whose outcome a person knows: what they found out is written down in their name.

use super::row::{move_noted, read};
use super::{Store, StoreError};
use crate::gateway::Approval;
use crate::ledger::State;
use crate::ledger::journal::{masked, may_follow};

/// What a person says became of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The gateway has taken the money; its reference, if the ledger does not have it, and code.
    Approved { gateway_reference: Option<String>, auth_code: Option<String> },
    /// The gateway has refused it.
    Declined,
    /// The gateway has never had it.
    NotCharged,
}

impl Store {
    /// Settles a payment that is unknown, held or left to a person. `Err` inside: why not, in words
    /// for who asked.
    pub async fn settle(
        &self,
        id: &str,
        decision: &Decision,
        note: &str,
        now_ms: i64,
    ) -> Result<Result<State, String>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let query = sqlx::query("select * from intent where id = $1").bind(id);
        let Some(row) = query.fetch_optional(&mut *tx).await? else {
            return Ok(Err("there is no such payment".into()));
        };
        let (_, from) = read(&row)?;
        let note = masked(note);
        let to = match decided(&from, decision, &note) {
            Ok(to) => to,
            Err(why) => return Ok(Err(why)),
        };
        if !move_noted(&mut tx, id, &to, &note, now_ms).await? {
            return Ok(Err("somebody settled it meanwhile: see `payments show`".into()));
        }
        tx.commit().await?;
        Ok(Ok(to))
    }
}

/// The state a decision leads to, or why it cannot be.
fn decided(from: &State, decision: &Decision, note: &str) -> Result<State, String> {
    match from {
        State::Unknown(_) | State::Held(..) | State::Manual => {}
        State::Consented | State::Sending => {
            return Err("a call is charging it: wait for the outcome".into());
        }
        settled => {
            return Err(format!(
                "it is {} already; a charge is undone by `payments void` or `refund`",
                settled.name()
            ));
        }
    }
    let to = match decision {
        Decision::Approved { gateway_reference, auth_code } => {
            let known = match from {
                State::Held(_, Some(approval)) => approval.clone(),
                _ => Approval::default(),
            };
            if let Some(part) = known.partial {
                return Err(format!("only {part} of it was approved: void it, and it is settled"));
            }
            let gateway_reference = gateway_reference.clone().unwrap_or(known.gateway_reference);
            if gateway_reference.is_empty() {
                return Err("say what the gateway calls it: --gateway-reference \"...\"".into());
            }
            let auth_code = auth_code.clone().unwrap_or(known.auth_code);
            State::Approved(Approval { gateway_reference, auth_code, ..known })
        }
        Decision::Declined => State::Declined(note.into()),
        Decision::NotCharged => State::NotCharged(note.into()),
    };
    match may_follow(Some(from), &to) {
        true => Ok(to),
        false => Err(format!(
            "it is {}, so the gateway has had it: settle it as approved or declined",
            from.name()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, Recorded, sample};
    use crate::money::Money;

    const NOW: i64 = 1_780_272_000_000;

    /// A payment that went through these states, and what settling it says.
    async fn settled(states: &[State], decision: Decision) -> (Result<State, String>, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("l.db").to_str().unwrap()).await.unwrap();
        let intent = sample::intent(1, "A1");
        let entry = Entry::Consent(Box::new(intent.clone()));
        assert_eq!(store.record(entry, NOW).await, Recorded::Stored);
        for to in states {
            let entry = Entry::Move { id: intent.id.clone(), to: to.clone() };
            assert_eq!(store.record(entry, NOW).await, Recorded::Stored);
        }
        let done = store.settle(&intent.id, &decision, "by ann: seen 4111111111111111", NOW + 9);
        (done.await.unwrap(), store)
    }

    fn approved(reference: Option<&str>) -> Decision {
        let gateway_reference = reference.map(String::from);
        Decision::Approved { gateway_reference, auth_code: Some("C1".into()) }
    }

    fn unknown() -> Vec<State> {
        vec![State::Sending, State::Unknown("lost".into())]
    }

    #[tokio::test]
    async fn what_a_person_found_is_kept_with_their_name() {
        let (done, store) = settled(&unknown(), approved(Some("g7"))).await;
        let Ok(State::Approved(approval)) = done else { panic!("{done:?}") };
        assert_eq!((&*approval.gateway_reference, &*approval.auth_code), ("g7", "C1"));
        let id = sample::intent(1, "A1").id;
        let history = store.history(&id).await.unwrap();
        let last = ("approved".into(), "by ann: seen ***".into(), NOW + 9);
        assert_eq!(history.last(), Some(&last));
        let kept = store.intent(&id).await.unwrap().unwrap().1;
        assert_eq!(kept.approval().map(|a| &*a.gateway_reference), Some("g7"));

        let manual = [unknown(), vec![State::Manual]].concat();
        for (states, decision, name) in [
            (unknown(), Decision::NotCharged, "not_charged"),
            (manual.clone(), Decision::Declined, "declined"),
            (manual, approved(Some("g1")), "approved"),
            (
                vec![State::Sending, State::Held("review".into(), None)],
                Decision::Declined,
                "declined",
            ),
        ] {
            let (done, _) = settled(&states, decision).await;
            assert_eq!(done.unwrap().name(), name);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused_with_the_reason() {
        let held = |approval| vec![State::Sending, State::Held("review".into(), approval)];
        let part = Approval { partial: Some(Money::usd(5)), ..sample::approval() };
        for (states, decision, why) in [
            (vec![], Decision::NotCharged, "a call is charging it"),
            (vec![State::Sending], approved(Some("g")), "a call is charging it"),
            (unknown(), approved(None), "--gateway-reference"),
            (held(None), Decision::NotCharged, "the gateway has had it"),
            (held(Some(part)), approved(Some("g")), "void it"),
            (
                vec![State::Sending, State::Declined("no".into())],
                approved(Some("g")),
                "declined already",
            ),
        ] {
            let (done, _) = settled(&states, decision).await;
            let error = done.unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
        // What the ledger knows need not be said again.
        let (done, _) = settled(&held(Some(sample::approval())), approved(None)).await;
        let known = sample::approval().gateway_reference;
        assert_eq!(done.unwrap().approval().map(|a| a.gateway_reference.clone()), Some(known));
    }
}
