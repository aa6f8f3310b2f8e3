-- Fees that are charges of their own, and what else a fee may be.

-- The bill whose fee an intent is; empty: it is no such fee.
alter table intent add column fee_of text not null default '';
-- Of a bill: its fee, charged by itself, and what is done if that fails (void, waive).
alter table intent add column fee_apart_minor bigint not null default 0;
alter table intent add column fee_failure text not null default '';
-- What its fee is: empty, a convenience fee; or surcharge.
alter table intent add column fee_kind text not null default '';
-- Of a bill: due, charged, waived, given_back, or person if one must decide.
alter table intent add column fee_end text not null default '';

-- A fee is as open as its bill.
drop index intent_open;
create unique index intent_open on intent (biller, account_id, fingerprint)
    where fee_of = '' and state in ('consented', 'sending', 'unknown');
create index intent_unsettled on intent (state) where state in ('consented', 'sending', 'unknown');

-- A bill has one fee.
create unique index intent_fee on intent (fee_of) where fee_of <> '';
create index intent_pair on intent (created_ms)
    where fee_end = 'due' and state in ('approved', 'posted');
