"""What becomes of each operation of a batch, in memory: replayed, joined to its twin, too late, refused or decided.

Must never wait or ask anything: what it needs was read under the locks.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

from server.engine.operation import Batch, Capability, Operation, OperationKind, Outcome, StoredAnswer
from server.engine.operation_ids import OperationIds
from server.engine.request_log import (
    SwitchKey,
    answers_late_original,
    as_stored,
    differing_field,
    switch_key_of,
    tombstone_answer,
    tombstone_switch_key,
)
from server.engine.writer import BatchWriter
from server.errors import DeadlineError, OneCardError, RequestIdReusedError

# Of each operation its message, or the error it ends with.
Results: TypeAlias = list[Any]


def decide(
    operations: Sequence[Operation],
    batch: Batch,
    answers: dict[str, StoredAnswer],
    used_keys: dict[SwitchKey, OperationKind],
    *,
    writer: BatchWriter,
    ids: OperationIds,
) -> tuple[Results, list[tuple[Operation, Outcome]]]:
    """Decides each operation in order of arrival; gives the result of each, and the outcomes to write.

    ``answers`` by request id and ``used_keys`` are what is stored, and take what this batch adds; ``ids`` has two for
    each operation. No await: the working copies change in one piece.
    """
    results: Results = []
    decided: list[tuple[Operation, Outcome]] = []
    first_of: dict[str, tuple[Operation, Outcome]] = {}
    clock = asyncio.get_running_loop().time()
    for operation in operations:
        request_id = operation.request_id
        if request_id is not None:
            if request_id in answers:
                results.append(_replay(operation, answers[request_id]))
                continue
            if request_id in first_of:
                results.append(_join(operation, *first_of[request_id]))
                continue
        if operation.deadline < clock:
            results.append(DeadlineError())
            continue
        key = switch_key_of(operation)
        batch.switch_key_holder = used_keys.get(key) if key is not None else None
        batch.operation_id = ids.next
        try:
            outcome = operation.capability.decide(operation, batch)
        except OneCardError as error:
            results.append(error)
            continue
        ids.next += 1
        writer.add(operation, outcome, batch)
        if key is not None:
            used_keys.setdefault(key, operation.kind)
        if outcome.tombstone is not None:
            writer.add_tombstone(outcome.tombstone, operation, operation_id=ids.next)
            ids.next += 1
            # The original may stand later in this batch.
            answers[outcome.tombstone.request_id] = tombstone_answer(outcome.tombstone, operation)
            late_key = tombstone_switch_key(outcome.tombstone, operation)
            if late_key is not None:
                used_keys[late_key] = OperationKind.TOMBSTONE
        if request_id is not None:
            first_of[request_id] = operation, outcome
        decided.append((operation, outcome))
        results.append(outcome.message)
    return results, decided


def lacks_outcome(operations: Sequence[Operation], results: Results) -> bool:
    """Whether a money operation has no outcome: it writes no row, so no index tells whether it has one already."""
    return any(
        isinstance(result, OneCardError) and operation.money is not None
        for operation, result in zip(operations, results, strict=True)
    )


def decided_by_capability(
    decided: Sequence[tuple[Operation, Outcome]],
) -> dict[Capability, list[tuple[Operation, Outcome]]]:
    """What was decided, for each capability to persist its own."""
    groups: dict[Capability, list[tuple[Operation, Outcome]]] = defaultdict(list)
    for operation, outcome in decided:
        groups[operation.capability].append((operation, outcome))
    return groups


def _replay(operation: Operation, stored: StoredAnswer) -> Any:
    if answers_late_original(operation, stored):
        return operation.capability.replay(operation, stored.response)
    field = differing_field(operation, stored)
    return RequestIdReusedError(field) if field else operation.capability.replay(operation, stored.response)


def _join(operation: Operation, first: Operation, outcome: Outcome) -> Any:
    """Answers a twin in the same batch with the first one's outcome."""
    field = differing_field(operation, as_stored(first))
    return RequestIdReusedError(field) if field else outcome.message
