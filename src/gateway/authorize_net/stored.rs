//! How a transaction says that its card is kept: who begins it, and whether it is one of a series.

use super::super::{Charge, Initiator, Series};
use super::Object;

/// `transactionSettings`: within this time the same content is refused.
pub(super) fn settings(all: &mut Object<'_>, window_s: u32, initiator: Initiator<'_>) {
    all.object("transactionSettings", |settings| {
        settings.list("setting", |list| {
            list.object(|setting| {
                setting.text("settingName", "duplicateWindow");
                setting.text("settingValue", &window_s.to_string());
            });
            if let Initiator::Merchant { series: Series::Recurring | Series::Instalment, .. } =
                initiator
            {
                list.object(|setting| {
                    setting.text("settingName", "recurringBilling");
                    setting.text("settingValue", "true");
                });
            }
        });
    });
}

/// `processingOptions`: kept now, used by its holder, or used by the merchant, who names the charge
/// it was kept with. None of the reasons that may be given besides is one of ours.
pub(super) fn options(all: &mut Object<'_>, charge: &Charge<'_>, token: bool) {
    let name = match charge.initiator {
        _ if charge.save => "isFirstSubsequentAuth",
        Initiator::Merchant { .. } => "isSubsequentAuth",
        Initiator::Customer if token => "isStoredCredentials",
        Initiator::Customer => return,
    };
    all.object("processingOptions", |options| options.flag(name, true));
    if let Initiator::Merchant { first, .. } = charge.initiator
        && let Some(id) = first.network()
    {
        all.object("subsequentAuthInformation", |subsequent| {
            subsequent.text("originalNetworkTransId", id);
            subsequent.text("originalAuthAmount", &first.total.decimal());
        });
    }
}
