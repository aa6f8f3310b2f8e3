-- Cards that callers have kept for their next payments: tokens of the gateway that keeps the card,
-- which are good there alone. No card data: brand, last four, expiry, fingerprints.

create table card (
    id text not null primary key,
    biller text not null,
    account_id text not null,
    gateway text not null,
    -- Wiped when the card is dropped.
    token text not null,
    brand text not null,
    last4 text not null,
    expiry_year bigint not null,
    expiry_month bigint not null,
    fingerprint text not null,
    issuer text not null,
    created_ms bigint not null,
    -- 0 while it may be charged.
    dropped_ms bigint not null
);

-- A card is kept once for an account.
create unique index card_kept on card (biller, account_id, gateway, fingerprint)
    where dropped_ms = 0;
create index card_account on card (account_id, created_ms);

-- What was agreed to, and who dropped a card and why. Rows are only ever added.
create table card_event (
    card_id text not null references card (id),
    position bigint not null,
    -- kept or dropped
    event text not null,
    at_ms bigint not null,
    who text not null,
    -- kept: ids of the phrases that were said; dropped: why
    detail text not null,
    call_id text not null,
    payment text not null,
    primary key (card_id, position)
);
