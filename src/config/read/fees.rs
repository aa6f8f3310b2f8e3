//! Fees: where they are charged, and what they go together with.

use super::Reader;
use crate::config::Config;
use crate::gateway::nacha;
use crate::instrument::Brand;
use crate::payment::FeeMode;
use crate::payment::surcharge::{MOST, MOST_VISA};

impl Reader<'_> {
    pub(super) fn check_fees(&mut self, config: &Config) {
        let payment = &config.payment;
        self.check_surcharge(config);
        if payment.fee_mode == FeeMode::TwoMid {
            return self.check_two_mid(config);
        }
        for (key, set) in [
            ("fee_gateway", payment.fee_gateway.is_some()),
            ("payee", payment.payee.is_some()),
            ("fee_payee", payment.fee_payee.is_some()),
        ] {
            if set {
                let message = format!("payment.{key}: the fee is no charge of its own");
                let instead = "leave it out, or write fee_mode = \"two_mid\"";
                self.note("payment", key, &message, instead);
            }
        }
    }

    fn check_surcharge(&mut self, config: &Config) {
        let payment = &config.payment;
        let Some(surcharge) = &payment.surcharge else { return };
        let mut note = |message: &str, instead: &str| {
            self.note("payment", "surcharge", message, instead);
        };
        let visa = surcharge.cards.contains(&Brand::Visa);
        if surcharge.percent > if visa { MOST_VISA } else { MOST } {
            let message = match visa {
                true => "payment.surcharge.percent: Visa allows 3 percent at most",
                false => "payment.surcharge.percent: card networks allow 4 percent at most",
            };
            note(message, "write less; without visa in `cards`, 4 at most");
        }
        if surcharge.percent == 0 {
            note("payment.surcharge.percent: that is nothing", "remove [payment.surcharge]");
        }
        if payment.has_card_fees() {
            let message = "a payment has a convenience fee or a surcharge, not both";
            note(message, "remove [payment.surcharge], or `fee` and `card_fees`");
        }
        if !payment.zip {
            let message = "whether a surcharge is allowed depends on the card's billing ZIP";
            note(message, "write zip = true in [payment]");
        }
    }

    fn check_two_mid(&mut self, config: &Config) {
        let payment = &config.payment;
        if !payment.has_fees() {
            let message = "fees are charged by themselves, and there is none";
            self.note("payment", "fee_mode", message, "add fee = \"2.00\", or leave fee_mode out");
        }
        let ids: Vec<&str> = config.gateways.iter().map(|gateway| gateway.id()).collect();
        let Some(wanted) = &payment.fee_gateway else {
            let message = "nothing says which gateway charges the fee";
            let instead = "add fee_gateway = \"ID\" to [payment], the id of a [[gateway]] that \
                           charges fees and nothing else";
            return self.note("payment", "fee_mode", message, instead);
        };
        match config.gateways.iter().find(|gateway| gateway.id() == wanted) {
            None => {
                let message = format!("payment.fee_gateway: no gateway has the id `{wanted}`");
                let instead = format!("there are {}: write one, or add it", ids.join(", "));
                self.note("payment", "fee_gateway", &message, &instead);
            }
            Some(gateway) if gateway.name == nacha::NAME => {
                let message = "payment.fee_gateway: this one charges no cards";
                self.note("payment", "fee_gateway", message, "name one that does");
            }
            Some(gateway) => {
                let untaken = payment.cards.iter().find(|brand| !gateway.takes_card(**brand));
                if let Some(brand) = untaken {
                    let message = format!(
                        "payment.fee_gateway: `{wanted}` takes no {}, and callers may pay with it",
                        brand.name()
                    );
                    let instead = "add it to the `cards` of that gateway, or list payment.cards \
                                   without it";
                    self.note("payment", "fee_gateway", &message, instead);
                }
            }
        }
        let bank_fee = payment.bank.as_ref().map(|bank| bank.fee.as_ref().unwrap_or(&payment.fee));
        if bank_fee.is_some_and(|fee| fee.may_be_due()) {
            let message = "an authorisation is of one debit, and fee_mode \"two_mid\" makes two";
            let instead = "add fee = \"0.00\" to [payment.bank]: bank accounts pay no fee then";
            self.note("payment", "bank", message, instead);
        }
        if payment.saved.is_some() {
            let message = "a kept card is one gateway's, and fee_mode \"two_mid\" charges at two";
            let instead = "remove [payment.saved], or write fee_mode = \"ledger\" or \"single\"";
            self.note("payment", "saved", message, instead);
        }
    }
}
