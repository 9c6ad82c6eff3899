"""What a scene sends: which operations, in which mix, and what of the model it cannot send yet."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from loadtests.traffic import load_traffic


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A mix of operations.

    Args:
        title: as the report shows it.
        rates: operations per second of the whole province, by name, for all that is sent.
        left_out: the same for operations of the model that the core has no RPC for.
    """

    title: str
    rates: Mapping[str, float]
    left_out: Mapping[str, float]

    @property
    def full_rate(self) -> float:
        """Operations per second of the whole province that this scene can send."""
        return sum(self.rates.values())

    @property
    def model_rate(self) -> float:
        """Operations per second of the whole province in the model, left out ones included."""
        return self.full_rate + sum(self.left_out.values())

    @property
    def shares(self) -> dict[str, float]:
        """Share of each operation in what is sent; they add up to 1."""
        return {name: rate / self.full_rate for name, rate in self.rates.items()}

    @property
    def left_out_shares(self) -> dict[str, float]:
        """Share in the whole model of each operation that is left out."""
        return {name: rate / self.model_rate for name, rate in self.left_out.items()}


def ordinary_peak_minute(possible: Collection[str]) -> Scene:
    """The busiest minute of an ordinary day.

    Args:
        possible: names of the operations that can be sent.
    """
    rates = {operation.name: operation.peak_minute for operation in load_traffic()}
    return Scene(
        title="ordinary peak minute",
        rates={name: rate for name, rate in rates.items() if name in possible},
        left_out={name: rate for name, rate in rates.items() if name not in possible},
    )
