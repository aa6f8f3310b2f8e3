-- What was paid with and what was approved; who paid it, to be counted; changes to payments.
-- Fingerprints are letters (keyed HMAC-SHA-256), empty in payments of before.

alter table intent add column method text not null default 'card';
-- Of a bank account: checking or savings; `brand` is empty then.
alter table intent add column account_kind text not null default '';
alter table intent add column fingerprint text not null default '';
-- The gateway's name for the card or account, if it keeps it.
alter table intent add column token text not null default '';
-- What was approved, less than the total if the payment is held for it; 0 before.
alter table intent add column approved_minor bigint not null default 0;
-- Fingerprints of the caller's number and of the card's issuer, and the trunk of the call.
alter table intent add column caller text not null default '';
alter table intent add column issuer text not null default '';
alter table intent add column trunk text not null default '';

update intent set approved_minor = amount_minor + fee_minor where state in ('approved', 'posted');

-- One payment at a time with one card or account whose outcome is open.
drop index intent_open;
create unique index intent_open on intent (biller, account_id, fingerprint)
    where state in ('consented', 'sending', 'unknown');
create index intent_account on intent (biller, account_id, created_ms);
