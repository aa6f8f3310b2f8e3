-- Payments for several accounts: what of them is for each.

-- The same as JSON, for who reads the intent: [["<account_id>", <amount_minor>], ...]; empty: it is
-- for its one account.
alter table intent add column accounts text not null default '';

-- Of those alone; the first is `intent.account_id`. Rows are only ever added.
create table allocation (
    intent_id text not null references intent (id),
    position bigint not null,
    biller text not null,
    account_id text not null,
    amount_minor bigint not null,
    primary key (intent_id, position)
);
create unique index allocation_account on allocation (biller, account_id, intent_id);
