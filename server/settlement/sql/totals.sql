-- Adds up the ledger.
-- Parameters: none. Rows: one: wallets, postings, operations, posted money of wallets, balance of settlement accounts
-- by postings. Locks: none.
SELECT (SELECT count(*) FROM accounts) AS wallets,
       (SELECT count(*) FROM postings) AS postings,
       (SELECT count(*) FROM operations) AS operations,
       (SELECT coalesce(sum(posted_minor), 0)::bigint FROM accounts) AS wallets_minor,
       (SELECT coalesce(sum(CASE WHEN credit_account_id < 1000000 THEN amount_minor ELSE 0 END)
                        - sum(CASE WHEN debit_account_id < 1000000 THEN amount_minor ELSE 0 END), 0)::bigint
        FROM postings) AS settlement_minor
