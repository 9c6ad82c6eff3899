"""One line for each call: who asked what of whom, masked, and how it ended.

Lines are gathered and written together, because a write for each of thousands of calls a second would cost more
than deciding them. The line is for operators; the record for the law is the access log in the database.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from server.masking import mask_identification_code, mask_identity_number, mask_pan

FLUSH_PERIOD_S = 0.2
LINES_MAX = 2_000


def _reference(reference: Any) -> str:
    which = reference.WhichOneof("reference")
    if which is None:
        return ""
    mask = {"pan": mask_pan, "identification_code": mask_identification_code}.get(which, mask_identity_number)
    return mask(getattr(reference, which))


def _paying(request: Any) -> str:
    if request.pan:
        return mask_pan(request.pan)
    if request.card_code:
        return "card_code"
    return "card_token" if request.card_token else ""


def _verified(request: Any) -> str:
    which = request.WhichOneof("credential")
    if which == "name_and_number":
        return mask_identity_number(request.name_and_number.identity_number)
    return mask_identification_code(request.chip.identification_code) if which == "chip" else which or ""


# The masked subject of a request, by RPC; one without a row logs no subject.
SUBJECTS: dict[str, Callable[[Any], str]] = {
    "/onecard.v1.AuthorizationService/Authorize": _paying,
    "/onecard.v1.AuthorizationService/RegisterCardToken": lambda request: _reference(request.card),
    **{
        f"/onecard.v1.CryptographyService/{rpc}": lambda request: mask_pan(request.pan)
        for rpc in (
            "VerifyArqc",
            "VerifyPin",
            "ChangePin",
            "IssuePin",
            "TranslatePin",
            "GenerateCardVerification",
            "VerifyCardVerification",
            "GenerateIssuerScript",
        )
    },
    "/onecard.v1.CryptographyService/UnblockPin": lambda request: _reference(request.card),
    "/onecard.v1.IdentityService/VerifyIdentity": _verified,
    "/onecard.v1.IdentityService/IssueCardCode": lambda request: _reference(request.card),
    "/onecard.v1.CardService/IssueCard": lambda request: mask_pan(request.pan),
    "/onecard.v1.CardService/GetCardStatus": lambda request: _reference(request.card),
    "/onecard.v1.CardService/ReportLoss": lambda request: _reference(request.card),
    "/onecard.v1.CardService/LiftLoss": lambda request: _reference(request.card),
    "/onecard.v1.KeyService/ExplainArqc": lambda request: mask_pan(request.pan),
}


class AccessLines:
    """Gathers lines and writes them to stderr a few times a second; past its bound it counts what it drops."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._lines: list[tuple[float, str, str, str, str, float]] = []
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_flushing(), name="access-lines")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self.flush()

    def add(self, *, method: str, caller: str, subject: str, status: str, seconds: float) -> None:
        if not self._enabled:
            return
        if len(self._lines) >= LINES_MAX:
            self._dropped += 1
            return
        self._lines.append((time.time(), method, caller, subject, status, seconds))

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        dropped, self._dropped = self._dropped, 0
        # Lines of one flush fall into one or two seconds: their texts are made once.
        seconds_text = {
            second: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            for second in {int(line[0]) for line in lines}
        }
        # The values are enumerations, participant ids and masks of digits and letters: none needs escaping.
        text = [
            f'{{"time":"{seconds_text[int(at)]}.{int(at % 1 * 1000):03d}Z","level":"info","logger":"onecard.access",'
            f'"method":"{method}","caller":"{caller}","subject":"{subject}","status":"{status}",'
            f'"ms":{seconds * 1000:.2f}}}\n'
            for at, method, caller, subject, status, seconds in lines
        ]
        if dropped:
            text.append(
                f'{{"level":"warning","logger":"onecard.access","message":"{dropped} lines dropped"}}\n'
            )
        if text:
            sys.stderr.write("".join(text))
            sys.stderr.flush()

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_PERIOD_S)
            self.flush()
