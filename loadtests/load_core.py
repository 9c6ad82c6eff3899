"""The core under load: the bench's, with a participant that may do all that people do with the card."""

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from benchmarks.core_cards import load_cards
from benchmarks.core_process import BenchCore, bench_core, onecard
from clients.demo.residents import BDK, MAILER_KEY
from clients.purpose import CARD_CODE, CARD_LOSS, CARD_PIN, CARD_STATUS, COUNTER_IDENTITY, MEDICAL_VISIT

PARTICIPANT: Final = "load"
_GRANTS: Final[dict[str, tuple[str, ...]]] = {
    "rpc_class": (
        "authorization",
        "card_authentication",
        "card_code",
        "card_loss",
        "card_status",
        "identity",
        "issue_pin",
        "verify_pin",
    ),
    "region": ("36",),
    "key": (BDK, MAILER_KEY),
    "catalogue_item": tuple(
        purpose.catalogue_item
        for purpose in (CARD_CODE, CARD_LOSS, CARD_PIN, CARD_STATUS, COUNTER_IDENTITY, MEDICAL_VISIT)
    ),
}
# Workers read participants and grants again every second.
_GRANTS_IN_FORCE_S: Final = 2.5


@contextlib.contextmanager
def load_core(*, workers: int, cards: int) -> Iterator[BenchCore]:
    """Starts a core with cards and the participant; stops and removes it at the end.

    Args:
        workers: worker processes.
        cards: how many, each with an opening balance that no run can spend.
    Raises:
        CoreError: it did not start.
    """
    with bench_core(workers=workers, parent_dir=None) as core:
        where = ("--data-dir", str(core.data_dir))
        onecard("participants", "add", PARTICIPANT, "--name", "Load", "--kind", "bank", *where)
        for kind, values in _GRANTS.items():
            onecard("participants", "grant", PARTICIPANT, kind, *values, *where)
        granted_at_s = time.monotonic()
        load_cards(core, count=cards)
        time.sleep(max(0.0, granted_at_s + _GRANTS_IN_FORCE_S - time.monotonic()))
        yield core
