-- What callers have arranged for later with their kept cards, and each payment of it.

create table arrangement (
    id text not null primary key,
    number text not null unique,
    biller text not null,
    account_id text not null,
    card_id text not null references card (id),
    -- once, autopay, plan
    kind text not null,
    currency text not null,
    -- The most that is charged at a time, fees included.
    limit_minor bigint not null,
    call_id text not null,
    agreed_ms bigint not null,
    created_ms bigint not null,
    -- active, done, cancelled, stopped
    state text not null
);

-- One of a kind for an account.
create unique index arrangement_active on arrangement (biller, account_id, kind)
    where state = 'active';
create index arrangement_card on arrangement (card_id) where state = 'active';
create index arrangement_autopay on arrangement (id) where state = 'active' and kind = 'autopay';
create index arrangement_created on arrangement (biller, created_ms);

create table instalment (
    arrangement_id text not null references arrangement (id),
    position bigint not null,
    -- The day where the biller is, ISO 8601.
    due text not null,
    -- Of autopay 0 until it is charged.
    amount_minor bigint not null,
    fee_minor bigint not null,
    -- waiting, paid, skipped, failed, void
    state text not null,
    -- Attempts that have come to an end, and those of them that were declined.
    attempt bigint not null,
    declines bigint not null,
    -- When this attempt is due, and when it is looked at next.
    planned_ms bigint not null,
    next_ms bigint not null,
    -- The payment of this attempt; empty before it.
    intent_id text not null,
    -- Why it is what it is, for people.
    detail text not null,
    primary key (arrangement_id, position)
);

create index instalment_next on instalment (next_ms) where state = 'waiting';
create unique index instalment_due on instalment (arrangement_id, due);

-- What was agreed to, what became of it, who ended it and why. Rows are only ever added.
create table arrangement_event (
    arrangement_id text not null references arrangement (id),
    position bigint not null,
    -- agreed, paid, declined, skipped, not_charged, failed, done, cancelled, stopped
    event text not null,
    at_ms bigint not null,
    who text not null,
    -- agreed: ids of the phrases that were said; else why
    detail text not null,
    primary key (arrangement_id, position)
);
