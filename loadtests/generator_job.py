"""The order that a generator process gets, and the file in which it leaves what the core has acknowledged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from loadtests.core_calls import Acknowledgement
from server.engine.operation import OperationKind

READY: Final = "ready"
_NONE: Final = "-"


@dataclass(frozen=True, kw_only=True)
class GeneratorJob:
    """What one generator sends.

    Args:
        number: of this generator, from 0.
        generators: how many share the cards; each takes every n-th.
        data_dir: of the core: certificates, and the keys that chips are made from.
        participant: whose certificate it shows.
        port: of the core on this host.
        cards: how many the core was seeded with.
        shares: of the operations; they add up to 1.
        rate_per_s: of this generator.
        warmup_s: at the same rate before the measured time.
        seconds: measured time.
        connections: to the core.
        callers: greenlets, and so the most operations in flight.
        acknowledgement_file: is written.
    """

    number: int
    generators: int
    data_dir: Path
    participant: str
    port: int
    cards: int
    shares: dict[str, float]
    rate_per_s: float
    warmup_s: float
    seconds: float
    connections: int
    callers: int
    acknowledgement_file: Path

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> GeneratorJob:
        """From the line of :meth:`to_json`."""
        values: dict[str, Any] = json.loads(line)
        for name in ("data_dir", "acknowledgement_file"):
            values[name] = Path(values[name])
        return cls(**values)


def write_acknowledgement(file: TextIO, acknowledgement: Acknowledgement) -> None:
    """Appends one line."""
    amount = acknowledgement.amount_minor
    fields = (
        str(int(acknowledgement.kind)),
        acknowledgement.request_id or _NONE,
        str(acknowledgement.reason),
        _NONE if amount is None else str(amount),
    )
    file.write(" ".join(fields) + "\n")


def read_acknowledgements(path: Path) -> Iterator[Acknowledgement]:
    """The lines of a finished generator."""
    with path.open(encoding="ascii") as lines:
        for line in lines:
            kind, request_id, reason, amount = line.split()
            yield Acknowledgement(
                kind=OperationKind(int(kind)),
                request_id="" if request_id == _NONE else request_id,
                reason=int(reason),
                amount_minor=None if amount == _NONE else int(amount),
            )
