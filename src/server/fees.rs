//! What fees and surcharges need of the world: gateways that can do their part, and the operator's
//! file of whose cards are credit cards.

use std::sync::Arc;

use crate::config::{Config, Gateway as Settings};
use crate::gateway::{Gateway, Operation, SPLIT_FEES, SURCHARGES};
use crate::ledger::FeeFailure;
use crate::payment::surcharge::bins::FILE_BYTES_MAX;
use crate::payment::{Bins, FeeMode};

/// Refuses a gateway that cannot do its part, and says which can.
pub fn charged_at(
    config: &Config,
    settings: &Settings,
    gateway: &dyn Gateway,
) -> Result<(), String> {
    let payment = &config.payment;
    let (id, name) = (settings.id(), &settings.name);
    if let Some(surcharge) = &payment.surcharge
        && surcharge.cards.iter().any(|brand| settings.takes_card(*brand))
        && !gateway.capabilities().surcharge
    {
        return Err(format!(
            "gateway `{id}`: [payment.surcharge] is set, and `{name}` cannot be told which part of \
             a charge is one, as the card networks want; those that can: {SURCHARGES}. Charge the \
             surcharged cards there (`cards`), or remove [payment.surcharge]"
        ));
    }
    match payment.fee_mode {
        FeeMode::Ledger => Ok(()),
        FeeMode::Single if !payment.has_fees() || gateway.splits_fees() => Ok(()),
        FeeMode::Single => Err(format!(
            "gateway `{id}`: [payment] fee_mode = \"single\", and `{name}` as it is set here splits \
             no fee off; those that do: {SPLIT_FEES}. Or write fee_mode = \"ledger\" or \"two_mid\""
        )),
        FeeMode::TwoMid if config.is_fee_gateway(settings) => Ok(()),
        FeeMode::TwoMid => match gateway.capabilities().can(Operation::Void) {
            _ if payment.fee_failure == FeeFailure::Waive => Ok(()),
            true => Ok(()),
            false => Err(format!(
                "gateway `{id}`: [payment] fee_failure = \"void\", and `{name}` has no void; write \
                 fee_failure = \"waive\", or charge elsewhere"
            )),
        },
    }
}

/// The operator's file of whose cards are credit cards, if there is one.
pub fn bins(config: &Config) -> Result<Option<Arc<Bins>>, String> {
    let Some(surcharge) = &config.payment.surcharge else { return Ok(None) };
    let file = &surcharge.bins;
    let wrong = |why: String| format!("[payment.surcharge] bins {}: {why}", file.display());
    let length = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(wrong(format!("it has {length} bytes: is this the list of cards?")));
    }
    let text = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let bins = Bins::parse(&String::from_utf8_lossy(&text)).map_err(|bad| {
        let lines: Vec<String> = bad.iter().map(ToString::to_string).collect();
        wrong(format!("\n  {}", lines.join("\n  ")))
    })?;
    Ok(Some(Arc::new(bins)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::gateway::check;

    fn config(text: &str) -> Config {
        let profile = |name: &str| super::super::configuration::trunk_profile(name, "".as_ref());
        Config::parse(text, &profile).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    /// Gateways `main`, and `fees` if there are two.
    fn gateways(key: &std::path::Path, main: &str, more: &str, two: bool) -> String {
        let key = format!("{{ file = \"{}\" }}", key.display());
        let settings = match main {
            "generic" => "url = \"https://b.example\"\ndialect = \"twilio\"\n".to_string(),
            "stripe" => format!("environment = \"sandbox\"\nsecret_key = {key}\n"),
            "nmi" => format!("base_url = \"https://n.example\"\nsecurity_key = {key}\n"),
            _ => "base_url = \"https://g.example\"\napi_key = \"k\"\n".to_string(),
        };
        let fees = "[[gateway]]\nname = \"bogus\"\nid = \"fees\"\n[gateway.settings]\n\
                    base_url = \"https://g.example\"\napi_key = \"k\"\n";
        let main = format!("[[gateway]]\nname = \"{main}\"\n[gateway.settings]\n{settings}{more}");
        if two { format!("{main}{fees}") } else { main }
    }

    #[test]
    fn gateways_that_cannot_do_their_part_are_refused_with_those_that_can() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sk_test_1").unwrap();
        let told = |payment: &str, main: &str, more: &str, two| {
            let gateways = gateways(file.path(), main, more, two);
            check(&config(&format!("[payment]\nfee = \"2.00\"\n{payment}{gateways}"))).join("\n")
        };
        let single = "fee_mode = \"single\"\n";
        assert_eq!(told(single, "bogus", "", false), "");
        assert_eq!(told(single, "stripe", "destination = \"acct_1\"\n", false), "");
        for main in ["stripe", "generic", "nmi"] {
            let why = told(single, main, "", false);
            assert!(why.contains("splits no fee off; those that do: bogus, stripe"), "{why}");
            assert_eq!(told("", main, "", false), "");
        }
        let two = "fee_mode = \"two_mid\"\nfee_gateway = \"fees\"\n";
        assert_eq!(told(two, "nmi", "", true), "");
        let why = told(two, "generic", "", true);
        assert!(why.contains("`generic` has no void; write fee_failure = \"waive\""), "{why}");
        let waive = format!("{two}fee_failure = \"waive\"\n");
        assert_eq!(told(&waive, "generic", "", true), "");
    }

    #[test]
    fn a_surcharge_needs_gateways_that_are_told_and_a_file_that_can_be_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "411111,credit\n").unwrap();
        let name = file.path().display().to_string();
        let surcharge = format!("[payment.surcharge]\npercent = \"3\"\nbins = \"{name}\"\n");
        let at = |main| config(&format!("{surcharge}{}", gateways(file.path(), main, "", false)));
        assert_eq!(check(&at("nmi")), Vec::<String>::new());
        let why = check(&at("generic")).join("\n");
        assert!(why.contains("cannot be told which part") && why.contains("nmi"), "{why}");
        let config = at("bogus");
        assert_eq!(bins(&config).unwrap().unwrap().len(), 1);
        std::fs::write(file.path(), "bin,funding\n411111,gold\n").unwrap();
        let why = bins(&config).unwrap_err();
        assert!(why.contains("[payment.surcharge] bins") && why.contains("line 2: the"), "{why}");
    }
}
