"""Reasons and response codes: those of the wire, one code for each, and none that no test asks for."""

from onecard.v1 import authorization_pb2
from test_decision_precedence import CAUSES

from server.authorization.answers import ARCS
from server.authorization.rules import APPROVALS, FORCED_OVER, RESPONSE_CODES, Reason

CODES = {
    "00": "APPROVED FORCED_POST REVERSAL_PARKED",
    "03": "MERCHANT_INVALID",
    "05": "REVERSED_IN_ADVANCE CARD_CODE_INVALID CARD_CODE_EXPIRED CARD_CODE_USED CRYPTOGRAM_INVALID ATC_REPLAYED",
    "10": "PARTIALLY_APPROVED",
    "12": "ORIGINAL_NOT_ELIGIBLE HOLD_NOT_PENDING HOLD_EXPIRED",
    "14": "UNKNOWN_CARD CARD_TOKEN_UNKNOWN CARD_CANCELLED DESTINATION_UNAVAILABLE",
    "25": "ORIGINAL_NOT_FOUND",
    "41": "CARD_LOST CARD_TEMPORARILY_LOST",
    "51": "INSUFFICIENT_FUNDS",
    "54": "CARD_EXPIRED",
    "55": "PIN_REQUIRED WRONG_PIN",
    "57": "CARD_SEALED NO_PIN WALLET_NOT_ALLOWED",
    "58": "TERMINAL_NOT_PERMITTED",
    "61": "TRANSACTION_AMOUNT_LIMIT DAY_AMOUNT_LIMIT MONTH_AMOUNT_LIMIT",
    "62": "APPLICATION_LOCKED",
    "64": "ORIGINAL_AMOUNT_EXCEEDED",
    "65": "DAY_COUNT_LIMIT MONTH_COUNT_LIMIT VELOCITY_LIMIT",
    "75": "PIN_TRIES_EXCEEDED",
    "94": "DUPLICATE_TRANSMISSION ORIGINAL_ALREADY_UNDONE",
    "97": "TERMINAL_UNKNOWN",
    "A0": "MESSAGE_MAC_INVALID",
    "A7": "PIN_BLOCK_INVALID",
}
# Of PINs, card codes, tokens and message MACs, which have decisions and tests of their own.
OF_CREDENTIALS = {
    Reason.MESSAGE_MAC_INVALID,
    Reason.CARD_TOKEN_UNKNOWN,
    Reason.CARD_CODE_INVALID,
    Reason.CARD_CODE_EXPIRED,
    Reason.CARD_CODE_USED,
    Reason.NO_PIN,
    Reason.PIN_TRIES_EXCEEDED,
    Reason.PIN_BLOCK_INVALID,
    Reason.WRONG_PIN,
}


def test_every_reason_has_the_response_code_of_the_table() -> None:
    table = {name: code for code, names in CODES.items() for name in names.split()}
    assert table == {reason.name: RESPONSE_CODES[reason] for reason in Reason}


def test_reasons_and_their_order_are_those_of_the_wire() -> None:
    wire = [value for value in authorization_pb2.DecisionReason.DESCRIPTOR.values if value.number]
    assert [(value.name, value.number) for value in wire] == [
        (f"DECISION_REASON_{reason.name}", int(reason)) for reason in Reason
    ]


def test_every_decline_has_a_cause_in_the_tests_of_precedence() -> None:
    caused = {reason for _, causes in CAUSES.values() for reason in causes}
    assert caused == set(Reason) - APPROVALS - OF_CREDENTIALS


def test_a_card_can_be_answered_with_every_response_code() -> None:
    assert sorted({code.encode() for code in CODES}) == ARCS


def test_approvals_are_never_forced_over_and_doubts_neither() -> None:
    doubts = {
        Reason.REVERSED_IN_ADVANCE,
        Reason.DUPLICATE_TRANSMISSION,
        Reason.UNKNOWN_CARD,
        Reason.CRYPTOGRAM_INVALID,
        Reason.ATC_REPLAYED,
        Reason.ORIGINAL_NOT_FOUND,
        Reason.ORIGINAL_NOT_ELIGIBLE,
        Reason.ORIGINAL_ALREADY_UNDONE,
    }
    assert not (APPROVALS | doubts) & FORCED_OVER
