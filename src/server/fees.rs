//! What the way fees are charged needs of the gateways.

use crate::config::{Config, Gateway as Settings};
use crate::gateway::{Gateway, Operation, SPLIT_FEES};
use crate::ledger::FeeFailure;
use crate::payment::FeeMode;

/// Refuses a gateway that cannot do its part, and says which can.
pub fn charged_at(
    config: &Config,
    settings: &Settings,
    gateway: &dyn Gateway,
) -> Result<(), String> {
    let payment = &config.payment;
    let (id, name) = (settings.id(), &settings.name);
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
