"""Before the lock: each capability asks the key store once for all of its operations.

Must never touch the database, and never leave an operation without either being prepared or being settled.
"""

import logging
import uuid
from collections import defaultdict
from collections.abc import Sequence

from server.engine.operation import Capability, Operation, reject
from server.errors import InternalError, OneCardError

log = logging.getLogger(__name__)


async def prepare(operations: Sequence[Operation]) -> None:
    """Has the key store asked for those that are not yet prepared; raises what a capability raises."""
    unprepared = [operation for operation in operations if not operation.prepared]
    for capability, own in by_capability(unprepared).items():
        await capability.prepare(own)
    for operation in unprepared:
        operation.prepared = True


async def prepare_or_settle(operations: Sequence[Operation]) -> None:
    """Prepares, in halves where that fails, until the one bad operation stands alone and gets its error."""
    try:
        await prepare(operations)
    except Exception as error:
        if len(operations) == 1:
            reject(operations, as_operating_error(error))
            return
        middle = len(operations) // 2
        await prepare_or_settle(operations[:middle])
        await prepare_or_settle(operations[middle:])


def as_operating_error(error: Exception) -> OneCardError:
    """The error as callers may see it: what is not ours becomes an incident id, and the log has the rest."""
    if isinstance(error, OneCardError):
        return error
    incident_id = uuid.uuid4().hex
    log.error("internal error incident=%s", incident_id, exc_info=error)
    return InternalError(incident_id)


def by_capability(operations: Sequence[Operation]) -> dict[Capability, list[Operation]]:
    """Operations by who decides them, in their order."""
    groups: dict[Capability, list[Operation]] = defaultdict(list)
    for operation in operations:
        groups[operation.capability].append(operation)
    return groups
