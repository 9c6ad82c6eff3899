"""Two operators renew the issuer master key while the province goes on: cards made under the old version stay good."""

from onecard.v1 import keys_pb2 as pb

from clients.demo.callers import Callers
from clients.demo.residents import IMK, Resident
from clients.demo.scorecard import Scorecard, refusal_of
from clients.key_custodian import KeyCustodian, key_reference
from clients.terminal import Terminal

TITLE = "keys"
AMOUNT_MINOR = 100


async def play(scorecard: Scorecard, callers: Callers, resident: Resident) -> None:
    """Proposes alone, approves by two, buys with a card of the version before, and explains a wrong cryptogram."""
    first, second = (KeyCustodian(client.channel) for client in callers.operators)
    change = await first.rotate(IMK, why="yearly renewal")
    alone = await refusal_of(first.approve(change.change_id))
    expected = "PERMISSION_DENIED SECOND_PERSON_REQUIRED"
    scorecard.event(TITLE, f"one person alone: {alone}", expected=expected, got=alone)
    approved = await second.approve(change.change_id)
    key = approved.key
    text = f"{IMK} version {key.version} is active, check value {key.kcv}"
    got = (key.version, pb.KeyLifeState.Name(key.state))
    scorecard.event(TITLE, text, expected=(2, "KEY_LIFE_STATE_ACTIVE"), got=got)
    terminal = Terminal(callers.terminals, terminal_id="KEYS0001")
    answer = await terminal.purchase(resident.chip, amount_minor=AMOUNT_MINOR)
    text = "a card of version 1 still buys"
    scorecard.event(TITLE, text, expected="00", got=answer.response_code)
    chip = resident.chip.sign(amount_minor=AMOUNT_MINOR, transaction_date="260101")
    explained = await first.explain(
        key_reference(IMK, 2),
        pan=resident.chip.pan,
        psn=resident.chip.psn,
        chip=chip,
        amount_minor=AMOUNT_MINOR,
    )
    differing = sorted(set(explained.fitting) - set(explained.expected))
    text = f"why a cryptogram is wrong: {', '.join(differing)}"
    scorecard.event(TITLE, text, expected=True, got=f"key={IMK}/1" in differing)
