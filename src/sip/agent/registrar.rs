//! Our registrations at trunks: each one's state machine, driven over the transactions.

use std::sync::Arc;
use std::time::Instant;

use rand::Rng;

use super::super::model::{Draft, Method, Response};
use super::super::profile::Profile;
use super::super::register::{Registration, Settings, State};
use super::super::transaction::ClientId;
use super::super::transport::Peer;
use super::admission::proved;
use super::{Agent, Output};

/// One trunk at which we are registered, or want to be.
pub(super) struct Binding {
    trunk: Arc<Profile>,
    registration: Registration,
    servers: Vec<Peer>,
    pending: Option<ClientId>,
    /// As last told.
    told: Option<Registered>,
}

/// How a registration stands, for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    Yes,
    /// The last answer; `None` when there was none.
    No(Option<u16>),
}

impl Agent {
    /// Registers with a trunk and keeps it so. `servers`: where its registrar is, first choice
    /// first; again with other servers replaces the list.
    pub(super) fn register(&mut self, now: Instant, trunk: Arc<Profile>, servers: Vec<Peer>) {
        let Some(register) = &trunk.register else { return };
        let Some(first) = servers.first() else { return };
        let user = register.address.split_once(':').map_or("", |(_, rest)| rest);
        let user = user.split_once('@').map_or("ringtill", |(user, _)| user);
        let ours = self.contact(first, &trunk);
        let contact = format!("sip:{user}@{}", ours.strip_prefix("sip:").unwrap_or(&ours));
        let settings = Settings {
            registrar: register.registrar.clone(),
            aor: register.address.clone(),
            contact,
            expires_s: register.expires_s,
            servers: servers.len(),
            credentials: trunk.account.iter().filter_map(proved).collect(),
        };
        let registration = Registration::new(now, settings, self.rng.next_u64());
        self.bindings.retain(|binding| binding.trunk.name != trunk.name);
        self.bindings.push(Binding { trunk, registration, servers, pending: None, told: None });
    }

    /// Sends what is due. When we drain, registrations are given up: calls go elsewhere.
    pub(super) fn keep_registered(&mut self, now: Instant) {
        let mut bindings = std::mem::take(&mut self.bindings);
        for binding in &mut bindings {
            if self.draining {
                binding.registration.unregister(now);
            }
            while let Some(ask) = binding.registration.poll(now) {
                let Some(hop) = binding.servers.get(ask.server).or(binding.servers.first()) else {
                    break;
                };
                let branch = self.branch();
                let mut draft = Draft::request(&Method::REGISTER, &ask.uri)
                    .with("Via", self.via(&branch, hop))
                    .with("Max-Forwards", "70")
                    .with("User-Agent", &self.settings.product);
                for (name, value) in ask.headers {
                    draft = draft.with(&name, value);
                }
                let id = self.transactions.send(now, &Method::REGISTER, &branch, draft, *hop);
                binding.pending = Some(id);
            }
            let state = match binding.registration.state() {
                State::Registered { .. } => Some(Registered::Yes),
                State::Failed { status, .. } => Some(Registered::No(*status)),
                State::Unregistered => None,
            };
            if state.is_some() && state != binding.told {
                binding.told = state;
                let trunk = binding.trunk.clone();
                self.out.extend(state.map(|state| Output::Registered { trunk, state }));
            }
        }
        self.bindings = bindings;
    }

    pub(super) fn registrations_due(&self) -> Option<Instant> {
        self.bindings.iter().filter_map(|binding| binding.registration.deadline()).min()
    }

    /// The route that a trunk we are registered with wants our calls to take (RFC 3608).
    pub(super) fn service_route(&self, trunk: &Profile) -> Vec<String> {
        let binding = self.bindings.iter().find(|binding| binding.trunk.name == trunk.name);
        binding.map(|binding| binding.registration.service_route().to_vec()).unwrap_or_default()
    }

    /// Whether a response belongs to a REGISTER of ours.
    pub(super) fn registered(&mut self, now: Instant, id: ClientId, response: &Response) -> bool {
        let Some(binding) = self.bindings.iter_mut().find(|one| one.pending == Some(id)) else {
            return false;
        };
        if response.status >= 200 {
            binding.pending = None;
            binding.registration.answered(now, response.status, &response.headers);
        }
        true
    }

    /// The same for a REGISTER that got no answer.
    pub(super) fn unregistered(&mut self, now: Instant, id: ClientId) -> bool {
        let Some(binding) = self.bindings.iter_mut().find(|one| one.pending == Some(id)) else {
            return false;
        };
        binding.pending = None;
        binding.registration.unanswered(now);
        true
    }
}
