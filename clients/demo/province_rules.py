"""The rules of the demonstration's province: which merchant is of which trade, and for how long a hold runs."""

import json
import uuid
from pathlib import Path
from typing import Any, Final

import asyncpg

from clients.demo.core_process import TERMINAL_OPERATOR, DemoCore
from server.settings import socket_dsn

HOSPITAL, SUPERMARKET, HOTEL = "HOSPITAL", "SUPERMARKET", "HOTEL"
PETROL, BUS = "PETROL", "BUS"
# Merchant category codes of ISO 18245.
CATEGORIES: Final = {HOSPITAL: "8062", SUPERMARKET: "5411", HOTEL: "7011", PETROL: "5542", BUS: "4131"}
HOLD_RULE: Final = {"day_count_max": 200, "capture_tolerance_percent": 15, "hold_days": 30}
_APPROVE: Final = """
INSERT INTO rule_changes
    (change_id, rule_kind, subject, content, state, justification, proposed_by, decided_by, decided_at, version)
SELECT $1, $2, $3, $4::jsonb, 'APPROVED', 'demonstration', 'demo-operator-a', 'demo-operator-b', clock_timestamp(),
       max(version) + 1
FROM rule_changes
"""


async def register_merchants(core: DemoCore) -> None:
    """Tells the core the trades of the terminal operator's merchants."""
    await _approve(
        core,
        *(
            ("merchant", f"{TERMINAL_OPERATOR}/{merchant_id}", {"category": category})
            for merchant_id, category in CATEGORIES.items()
        ),
    )


async def set_hold_days(core: DemoCore, hold_days: int) -> None:
    """How long new holds run, in the whole province."""
    await _approve(core, ("limit", "pre_authorization", {**HOLD_RULE, "hold_days": hold_days}))


async def _approve(core: DemoCore, *rules: tuple[str, str, dict[str, Any]]) -> None:
    connection = await asyncpg.connect(socket_dsn(Path(core.facts()["socket_dir"])))
    try:
        for kind, subject, content in rules:
            await connection.execute(_APPROVE, uuid.uuid4(), kind, subject, json.dumps(content))
    finally:
        await connection.close()
