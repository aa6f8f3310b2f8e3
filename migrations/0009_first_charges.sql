-- The charge or verification that a card was kept with: charges by the merchant name it to the card
-- networks.

-- The gateway's reference.
alter table card add column first_reference text not null default '';
-- The card network's transaction id; empty if the gateway told none, or nobody asked for it.
alter table card add column first_network text not null default '';
-- Zero if the card was only verified.
alter table card add column first_minor bigint not null default 0;

update card set
    first_reference = coalesce((select gateway_reference from card_event
        join intent on intent.id = card_event.payment
        where card_event.card_id = card.id and card_event.event = 'kept'), ''),
    first_minor = coalesce((select approved_minor from card_event
        join intent on intent.id = card_event.payment
        where card_event.card_id = card.id and card_event.event = 'kept'), 0);

-- `intent.fee_kind` may also be verification: nothing is charged, a card is verified to be kept.
