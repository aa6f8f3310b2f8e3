-- The ledger, in the SQL that SQLite and PostgreSQL share: ids are text, times are Unix
-- milliseconds, amounts are minor units, absent texts are empty. No card data: brand and last four.

create table intent (
    id text not null primary key,
    confirmation text not null unique,
    biller text not null,
    account_id text not null,
    amount_minor bigint not null,
    fee_minor bigint not null,
    currency text not null,
    brand text not null,
    last4 text not null,
    gateway text not null,
    call_id text not null,
    created_ms bigint not null,
    state text not null,
    detail text not null,
    gateway_reference text not null,
    auth_code text not null,
    avs text not null,
    cvv text not null,
    -- Since when the outcome is unknown, lookups made, and when the next one is due.
    unknown_ms bigint not null,
    lookups bigint not null,
    lookup_ms bigint not null,
    -- The reconciliation file it is in; 0 while in none.
    file_sequence bigint not null
);

-- One payment at a time whose outcome is open.
create unique index intent_open on intent (biller, account_id)
    where state in ('consented', 'sending', 'unknown');
create index intent_lookup on intent (lookup_ms) where state = 'unknown';
create index intent_file on intent (biller, file_sequence, created_ms);

-- Every state an intent has been in. Rows are only ever added.
create table step (
    intent_id text not null references intent (id),
    position bigint not null,
    state text not null,
    detail text not null,
    at_ms bigint not null,
    primary key (intent_id, position)
);

-- Reconciliation files: fixed first, then written; 0 until the file is in place.
create table posting (
    biller text not null,
    sequence bigint not null,
    created_ms bigint not null,
    written_ms bigint not null,
    primary key (biller, sequence)
);
