//! `[gateway]` or `[[gateway]]`: read, and checked against each other and what callers pay with.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Reader, is_short_name};
use crate::ach;
use crate::config::{Config, Gateway, Problem};
use crate::gateway::{self, nacha};

impl<'t> Reader<'t> {
    /// Each gateway, or the simulated one.
    pub(super) fn gateways(&mut self) -> Vec<Gateway> {
        let Some(value) = self.table.get("gateway").cloned() else {
            return vec![Gateway::default()];
        };
        let Some(all) = value.get_ref().as_array() else { return vec![self.section("gateway")] };
        if all.is_empty() {
            let problem = Problem::new(Some(value.span()), "nothing could be charged");
            self.problems.push(problem.instead("leave `gateway` out, or write [[gateway]]"));
            return vec![Gateway::default()];
        }
        let all: Vec<_> = all.iter().cloned().collect();
        all.iter().map(|one| self.gateway(one)).collect()
    }

    fn gateway(&mut self, one: &Spanned<DeValue<'t>>) -> Gateway {
        let table: Option<&DeTable<'t>> = one.get_ref().as_table();
        let Some(table) = table.cloned() else {
            let problem = Problem::new(Some(one.span()), "a gateway is a section");
            self.problems.push(problem.instead("write [[gateway]] on a line of its own"));
            return Gateway::default();
        };
        self.keys("gateway", &table, one)
    }

    pub(super) fn check_gateways(&mut self, config: &Config) {
        let several = config.gateways.len() > 1;
        for (index, one) in config.gateways.iter().enumerate() {
            let named = if several { format!("gateway `{}`: ", one.id()) } else { String::new() };
            let mut note = |key: &str, message: &str, instead: &str| {
                self.note_gateway(index, key, &format!("{named}{message}"), instead);
            };
            if !gateway::NAMES.contains(&&*one.name) && one.name != nacha::NAME {
                let known = [gateway::NAMES, &[nacha::NAME]].concat().join(", ");
                note("name", "no such gateway", &format!("use one of: {known}"));
            }
            if let Some(example) = gateway::example(&one.name)
                && one.settings.is_none()
                && (several || one.name != "bogus")
            {
                let instead = format!("add [gateway.settings]\n{example}");
                note("name", "this gateway needs its settings", &instead);
            }
            if !is_short_name(&one.id().replace('_', "-")) {
                let instead = "use 1 to 32 letters, digits, `-` and `_`";
                note("id", "the ledger and the logs keep this name", instead);
            }
            let before = &config.gateways[..index];
            if before.iter().any(|other| other.id() == one.id()) {
                let instead = "give each an id of its own: id = \"...\"";
                note("id", "another one has the same id", instead);
            }
            if one.limit_ms.is_some_and(|limit| !(1_000..=60_000).contains(&limit)) {
                let instead = "leave it out for payment.gateway_limit_ms";
                note("limit_ms", "gateway.limit_ms must be 1000 to 60000", instead);
            }
            if !(1..=1_000).contains(&one.failures_max) {
                let instead = "leave it out for the default";
                note("failures_max", "gateway.failures_max must be 1 to 1000", instead);
            }
            if !(1..=3_600).contains(&one.rest_s) {
                let instead = "leave it out for the default";
                note("rest_s", "gateway.rest_s must be 1 to 3600", instead);
            }
        }
        self.check_files(config);
        let bills = config.gateways.iter().filter(|gateway| !config.is_fee_gateway(gateway));
        let taken = |brand| bills.clone().any(|gateway| gateway.takes_card(brand));
        let untaken = config.payment.cards.iter().find(|brand| !taken(**brand));
        if let Some(brand) = untaken {
            let name = brand.name();
            let message = format!("no gateway takes {name}, and callers may pay with it");
            let instead = "add it to the `cards` of one, or list payment.cards without it; \
                           cards = [] takes bank accounts alone";
            self.note_gateway(0, "cards", &message, instead);
        }
    }

    /// Gateways that debit by files: their settings are ours, and told by line.
    fn check_files(&mut self, config: &Config) {
        let ours = config.gateways.iter().enumerate();
        for (index, one) in ours.filter(|(_, one)| one.name == nacha::NAME) {
            let named = format!("gateway `{}`: ", one.id());
            if config.payment.bank.is_none() {
                let message = format!("{named}it debits bank accounts, and nobody may pay by one");
                let instead = "add [payment.bank] with company, phone and time_zone";
                self.note_gateway(index, "name", &message, instead);
            }
            if one.cards.is_some() {
                let message = format!("{named}it debits bank accounts alone");
                self.note_gateway(index, "cards", &message, "leave `cards` out");
            }
            let Some(settings) = &one.settings else {
                let instead = format!("add [gateway.settings]\n{}", ach::settings::EXAMPLE);
                let message = format!("{named}this gateway needs its settings");
                self.note_gateway(index, "name", &message, &instead);
                continue;
            };
            for wrong in ach::Settings::read(settings).err().into_iter().flatten() {
                let message = format!("{named}{}", wrong.what);
                self.note_setting(index, wrong.key, &message, wrong.instead);
            }
        }
    }

    /// A problem with a key of its settings.
    fn note_setting(&mut self, index: usize, key: &str, message: &str, instead: &str) {
        let settings =
            self.written_gateway(index).and_then(|one| one.get_ref().as_table()?.get("settings"));
        let value = settings.and_then(|all| all.get_ref().as_table()?.get(key));
        let span = value.or(settings).map(Spanned::span);
        self.problems.push(Problem::new(span, message).instead(instead));
    }

    fn written_gateway(&self, index: usize) -> Option<&Spanned<DeValue<'t>>> {
        let whole = self.table.get("gateway")?;
        match whole.get_ref().as_array() {
            Some(all) => all.get(index),
            None => Some(whole),
        }
    }

    /// A problem with the gateway of this place in the list.
    fn note_gateway(&mut self, index: usize, key: &str, message: &str, instead: &str) {
        let whole = self.table.get("gateway");
        let one = self.written_gateway(index);
        let value = one.and_then(|one| one.get_ref().as_table()?.get(key)).or(one).or(whole);
        let span = value.map(Spanned::span);
        self.problems.push(Problem::new(span, message).instead(instead));
    }
}
