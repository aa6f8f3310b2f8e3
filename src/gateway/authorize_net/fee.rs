//! What an Authorize.Net charge says of its fee: told, not paid out apart.

use crate::gateway::Charge;
use crate::gateway::body::Object;

/// The convenience fee in a field of ours, the surcharge in theirs.
pub(super) fn fees(all: &mut Object<'_>, charge: &Charge<'_>) {
    if let Some(fee) = charge.convenience_fee() {
        user_field(all, "convenienceFee", &fee.decimal());
    }
    if let Some(surcharge) = charge.surcharge() {
        all.object("surcharge", |part| {
            part.text("amount", &surcharge.decimal());
            part.text("description", "Credit card surcharge");
        });
    }
}

fn user_field(all: &mut Object<'_>, name: &str, value: &str) {
    all.object("userFields", |fields| {
        fields.list("userField", |list| {
            list.object(|field| {
                field.text("name", name);
                field.text("value", value);
            });
        });
    });
}
