"""The order a suite gives to the generator process, and the result it gets back: plain values over a pipe."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.tally import Tally

TURN_US_MIN: Final = 2_000


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files of a client: who it is, and whom it trusts."""

    ca: Path
    certificate: Path
    key: Path
    server_name: str = "localhost"

    @classmethod
    def from_values(cls, values: dict[str, str]) -> TlsFiles:
        """From plain values, as they come over the pipe."""
        paths = {name: Path(values[name]) for name in ("ca", "certificate", "key")}
        return cls(**paths, server_name=values["server_name"])


@dataclass(frozen=True, kw_only=True)
class GeneratorJob:
    """What to send, over how many connections, for how long."""

    kind: Literal["unary", "frames"]
    port: int
    method: str
    """Path of the RPC, for instance ``/onecard.v1.AuthorizationService/Authorize``."""
    tls: tuple[TlsFiles, ...]
    """Whom the connections belong to, in turn."""
    payload_file: Path
    cycles: bool = False
    """Begin the payload file again at its end: only for a server that stores nothing."""
    connections: int = 8
    streams: int = 1
    """Streams per connection, for frames."""
    in_flight: int = 16
    """Calls per connection, or frames per stream; with a rate, the most of them."""
    rate_per_s: float | None = None
    """Calls fall due at this mean rate, whatever the server does; None keeps ``in_flight`` open. Unary only."""
    seed: int = 1
    """Of the times at which calls fall due."""
    warmup_s: float = 2.0
    seconds: float = 10.0
    worker_pids: tuple[int, ...] = ()
    turn_us_min: int = TURN_US_MIN
    """Least time between two looks at the sockets. Many answers per look keep the generator cheap; the time
    is part of the measured latency."""

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> GeneratorJob:
        """From the line of :meth:`to_json`."""
        values: dict[str, Any] = json.loads(line)
        return cls(
            **values
            | {
                "tls": tuple(TlsFiles.from_values(files) for files in values["tls"]),
                "payload_file": Path(values["payload_file"]),
                "worker_pids": tuple(values["worker_pids"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class GeneratorResult:
    """What the generator has seen."""

    seconds: float
    """Measured time between the two ends of the clock."""
    exhausted: bool
    """True when the prepared payloads ended before the clock did."""
    cpu_s: float
    """The generator's own CPU within the measured time."""
    measured: Tally
    whole: Tally
    """Warm-up, measured time and drain together: what must agree with the books."""
    unanswered: int = 0
    """Calls still open when the drain gave up."""
    connections_per_worker: dict[int, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """As one line."""
        values = {
            "seconds": self.seconds,
            "exhausted": self.exhausted,
            "cpu_s": self.cpu_s,
            "measured": self.measured.to_json(),
            "whole": self.whole.to_json(),
            "unanswered": self.unanswered,
            "connections_per_worker": list(self.connections_per_worker.items()),
        }
        return json.dumps(values)

    @classmethod
    def from_json(cls, line: str) -> GeneratorResult:
        """From the line of :meth:`to_json`."""
        values: dict[str, Any] = json.loads(line)
        return cls(
            **values
            | {
                "measured": Tally.from_json(values["measured"]),
                "whole": Tally.from_json(values["whole"]),
                "connections_per_worker": dict(values["connections_per_worker"]),
            }
        )
