-- Voids and refunds: who asked, why, and what became of them.

create table change (
    id text not null primary key,
    intent_id text not null references intent (id),
    act text not null,
    amount_minor bigint not null,
    who text not null,
    why text not null,
    created_ms bigint not null,
    state text not null,
    detail text not null,
    state_ms bigint not null,
    lookups bigint not null,
    lookup_ms bigint not null,
    -- The reconciliation file it is in; 0 while in none.
    file_sequence bigint not null
);

-- One at a time for a payment.
create unique index change_open on change (intent_id) where state in ('sending', 'unknown', 'manual');
create index change_intent on change (intent_id, created_ms);
create index change_file on change (file_sequence);

-- What voids and refunds have given back.
alter table intent add column undone_minor bigint not null default 0;
