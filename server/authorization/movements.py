"""Movements of money on working copies, with their postings: no wallet ever below zero.

What a wallet cannot pay although it must (a forced advice, a credit that is taken back after the money was spent) comes
from the participant's suspense account, and so is on the record as what the participant has to collect.
"""

from server.authorization.operations import MoneyOperation
from server.engine.operation import Account, Posting


def available(account: Account | None) -> int:
    """Available money in 分; a wallet without a row is empty."""
    return account.available_minor if account is not None else 0


def take(
    operation: MoneyOperation,
    account: Account | None,
    amount_minor: int,
    *,
    to_account_id: int,
    suspense_minor: int = 0,
) -> tuple[Posting, ...]:
    """Takes an amount, 1 or more, from a wallet as far as it is available, and the rest from the suspense account.

    ``suspense_minor`` of it are the suspense account's in any case.
    """
    from_wallet = min(amount_minor - suspense_minor, available(account))
    postings: tuple[Posting, ...] = ()
    if from_wallet > 0:
        assert account is not None, "an empty wallet gives nothing"
        account.posted_minor -= from_wallet
        account.changed = True
        postings = (Posting(account.account_id, to_account_id, from_wallet),)
    else:
        from_wallet = 0
    if (rest := amount_minor - from_wallet) > 0:
        postings = (*postings, Posting(operation.suspense_account_id, to_account_id, rest))
    return postings


def give(
    operation: MoneyOperation,
    account: Account,
    amount_minor: int,
    *,
    from_account_id: int,
    suspense_minor: int = 0,
) -> tuple[Posting, ...]:
    """Gives an amount, 1 or more, back: first ``suspense_minor`` of it to the suspense account, then to the wallet."""
    to_suspense = min(amount_minor, suspense_minor)
    postings: tuple[Posting, ...] = ()
    if to_suspense:
        postings = (Posting(from_account_id, operation.suspense_account_id, to_suspense),)
    if (rest := amount_minor - to_suspense) > 0:
        account.posted_minor += rest
        account.changed = True
        postings = (*postings, Posting(from_account_id, account.account_id, rest))
    return postings
