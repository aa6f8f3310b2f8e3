-- Debits that go to the operator's bank in NACHA files, and what the bank says of them.

create table ach_entry (
    id text not null primary key,
    intent_id text not null references intent (id),
    -- 0: the debit; 1 and 2: presented again after a return.
    attempt bigint not null,
    gateway text not null,
    -- waiting, filed, void, returned
    state text not null,
    -- Whose account: AES-256-GCM, base64. Empty once a file in place holds it; of a return that may
    -- be presented again as the bank sent it back.
    sealed text not null,
    created_ms bigint not null,
    -- The file it is in, with its sequence and trace number there; 0 and empty while in none.
    file_id bigint not null,
    sequence bigint not null,
    trace text not null,
    return_code text not null,
    returned_ms bigint not null
);

create unique index ach_entry_attempt on ach_entry (intent_id, attempt);
create index ach_entry_waiting on ach_entry (gateway, created_ms) where state = 'waiting';
create index ach_entry_file on ach_entry (file_id);
create index ach_entry_trace on ach_entry (trace);

-- Files for the bank: fixed first, then put in place, then told to be whole (`.done`).
create table ach_file (
    id bigint not null primary key,
    gateway text not null,
    -- Civil times where the biller is, ISO 8601.
    created text not null,
    day text not null,
    effective text not null,
    modifier text not null,
    -- Who originates, as JSON: a changed configuration changes no file that was begun.
    originator text not null,
    placed_ms bigint not null,
    done_ms bigint not null
);

create unique index ach_file_name on ach_file (gateway, day, modifier);
create index ach_file_open on ach_file (gateway, id) where done_ms = 0;

-- What may not be debited: a bank account by its fingerprint, or (empty) any of a customer.
create table ach_block (
    biller text not null,
    account_id text not null,
    fingerprint text not null,
    code text not null,
    intent_id text not null,
    at_ms bigint not null,
    primary key (biller, account_id, fingerprint)
);
create index ach_block_fingerprint on ach_block (fingerprint);

-- What notices of change say of a bank account; sealed as entries are.
create table ach_correction (
    fingerprint text not null primary key,
    code text not null,
    gateway text not null,
    sealed text not null,
    intent_id text not null,
    at_ms bigint not null
);
