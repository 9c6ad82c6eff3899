"""The traffic model: operations per second of the whole province, by operation.

Source of ``traffic.json``: the project's own model of Jiangxi. Public facts behind it: 45.02 M residents (2024),
45.91 M cards issued (2020), 36,000 hospitals and pharmacies; national: 1.104 bn electronic cards, 50 bn uses of them
since 2018, 6.8 outpatient visits per head and year, 54.3 transactions per bank card and year. Modelled, because not
public: 306 M outpatient visits a year at most, 9.5 M pensioners. Peak hour = day volume × peak-day factor (1.5 to
3.0) × share of the hour (11 to 17 %) / 3600; peak minute = that × 1.5 to 1.8, reversals × 3. To be replaced by
measured figures where an operator has them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FILE: Final = Path(__file__).with_name("traffic.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationTraffic:
    """How often one operation is asked for, per second.

    Args:
        name: of the operation, as scenes call it.
        mean: over the whole day.
        peak_hour: mean of the busiest hour.
        peak_minute: mean of the busiest minute.
    """

    name: str
    mean: float
    peak_hour: float
    peak_minute: float


def load_traffic() -> tuple[OperationTraffic, ...]:
    """Every operation of the model."""
    operations = json.loads(_FILE.read_text(encoding="utf-8"))["operations"]
    return tuple(OperationTraffic(**operation) for operation in operations)
