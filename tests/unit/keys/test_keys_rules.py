"""Who may do what with keys, and when: every state, every kind, and which reason comes first."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from crypto.keys import Cipher, Exportability, KeyInfo, KeyState, KeyUsage, UdkOption
from server.errors import (
    MalformedFieldError,
    NotFoundError,
    NotGrantedError,
    OneCardError,
    StateConflictError,
)
from server.keys import rules, shapes
from server.keys.details import audit_text
from server.keys.rules import Change, ChangeKind, ChangeState, Proposal
from server.keys.shapes import KeyName, NewVersion

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NEW = NewVersion(
    usage=KeyUsage.IMK_AC,
    cipher=Cipher.SM4,
    size=16,
    exportability=Exportability.NON_EXPORTABLE,
    udk_option=UdkOption.A,
)


def change(**facts: object) -> Change:
    return Change(
        **{
            "change_id": "c",
            "change_number": 1,
            "kind": ChangeKind.GENERATE,
            "key_name": "imk",
            "key_version": 0,
            "components_needed": 0,
            "components_given": 0,
            "state": ChangeState.PROPOSED,
            "justification": "why",
            "request": b"",
            "details": (),
            "under_version": 0,
            "proposed_by": "one",
            "proposed_at": NOON,
            "decided_by": "",
            "decided_at": None,
            "now": NOON,
            **facts,
        }
    )


def key(version: int = 1, **facts: object) -> KeyInfo:
    return KeyInfo(
        **{
            "name": "imk",
            "version": version,
            "usage": KeyUsage.IMK_AC,
            "cipher": Cipher.SM4,
            "kcv": "ABCDEF",
            "state": KeyState.ACTIVE,
            **facts,
        }
    )


KBPK = key(name="kbpk", usage=KeyUsage.KEY_BLOCK_PROTECTION)


def proposal(kind: ChangeKind, version: int = 1, **facts: object) -> Proposal:
    return Proposal(kind=kind, key=KeyName(name="imk", version=version), **facts)


def reason_of(function: object, *arguments: object, **options: object) -> str:
    """Empty when it is admitted."""
    try:
        function(*arguments, **options)
    except OneCardError as error:
        return error.reason
    return ""


def test_the_proposer_never_approves_whatever_the_state() -> None:
    for state in ChangeState:
        with pytest.raises(NotGrantedError) as refusal:
            rules.require_approver(change(state=state), "one")
        assert refusal.value.reason == "SECOND_PERSON_REQUIRED"


ENDED = [state for state in ChangeState if state not in (ChangeState.PROPOSED, ChangeState.APPROVED)]


@pytest.mark.parametrize("state", ENDED)
def test_a_change_that_has_ended_is_neither_approved_nor_rejected(state: ChangeState) -> None:
    with pytest.raises(StateConflictError, match=state.value.lower()):
        rules.require_approver(change(state=state), "two")
    with pytest.raises(StateConflictError):
        rules.require_undecided(change(state=state))


def test_an_approved_change_is_completed_however_late_and_not_rejected() -> None:
    approved = change(state=ChangeState.APPROVED, decided_by="two", now=NOON + timedelta(days=9))
    for participant in ("two", "three"):
        rules.require_approver(approved, participant)
    with pytest.raises(StateConflictError, match="approved"):
        rules.require_undecided(approved)
    with pytest.raises(StateConflictError):
        rules.require_component_from(approved, "three", [])


def test_a_change_waits_for_less_than_24_hours() -> None:
    day = timedelta(hours=24)
    rules.require_approver(change(now=NOON + day - timedelta(microseconds=1)), "two")
    with pytest.raises(StateConflictError, match="expired"):
        rules.require_approver(change(now=NOON + day), "two")
    # It may still be rejected, until the housekeeper has ended it.
    rules.require_undecided(change(now=NOON + 9 * day))


@pytest.mark.parametrize(("given", "reason"), [(0, "KEY_CHANGE_STATE"), (1, "KEY_CHANGE_STATE"), (2, "")])
def test_an_import_is_approved_with_all_its_components(given: int, reason: str) -> None:
    waiting = change(components_needed=2, components_given=given)
    assert reason_of(rules.require_approver, waiting, "two") == reason


@pytest.mark.parametrize(
    ("facts", "participant", "givers", "reason"),
    [
        ({"components_needed": 2}, "one", [], ""),
        ({"components_needed": 2}, "two", ["one"], ""),
        ({"components_needed": 0}, "one", [], "KEY_CHANGE_STATE"),
        ({"components_needed": 2, "state": ChangeState.REJECTED}, "one", [], "KEY_CHANGE_STATE"),
        ({"components_needed": 2, "now": NOON + timedelta(days=1)}, "one", [], "KEY_CHANGE_STATE"),
        ({"components_needed": 2}, "one", ["one"], "SECOND_PERSON_REQUIRED"),
        # A change that is complete is complete for everybody, also for who brought one.
        ({"components_needed": 2}, "one", ["one", "two"], "KEY_CHANGE_STATE"),
        ({"components_needed": 2}, "three", ["one", "two"], "KEY_CHANGE_STATE"),
    ],
)
def test_components_come_from_different_operators(
    facts: dict[str, object], participant: str, givers: list[str], reason: str
) -> None:
    assert reason_of(rules.require_component_from, change(**facts), participant, givers) == reason


def test_only_the_approver_of_a_done_change_is_told_again() -> None:
    done = change(state=ChangeState.EXECUTED, decided_by="two", decided_at=NOON)
    assert rules.is_told_again(done, "two")
    for state in (ChangeState.APPROVED, ChangeState.FAILED):
        assert not rules.is_told_again(change(state=state, decided_by="two", decided_at=NOON), "two")
    assert not rules.is_told_again(done, "three")
    assert not rules.is_told_again(change(state=ChangeState.REJECTED, decided_by="two"), "two")


def test_an_approval_is_told_again_for_ten_minutes() -> None:
    late = NOON + timedelta(minutes=10)
    for now, is_told in ((late - timedelta(microseconds=1), True), (late, False)):
        done = change(state=ChangeState.EXECUTED, decided_by="two", decided_at=NOON, now=now)
        assert rules.is_told_again(done, "two") is is_told


STATES = (KeyState.PRE_ACTIVE, KeyState.ACTIVE, KeyState.VERIFY_ONLY, KeyState.DESTROYED)


@pytest.mark.parametrize(
    ("kind", "admitted", "admitted_when_doomed"),
    [
        (ChangeKind.ACTIVATE, {KeyState.PRE_ACTIVE}, set()),
        (ChangeKind.RETIRE, {KeyState.ACTIVE}, {KeyState.ACTIVE}),
        (ChangeKind.DESTROY, {KeyState.PRE_ACTIVE, KeyState.VERIFY_ONLY}, set()),
        (
            ChangeKind.CANCEL_DESTRUCTION,
            set(),
            {KeyState.PRE_ACTIVE, KeyState.ACTIVE, KeyState.VERIFY_ONLY},
        ),
        (ChangeKind.ROTATE, {KeyState.ACTIVE}, {KeyState.ACTIVE}),
    ],
)
def test_each_state_admits_its_steps_only(
    kind: ChangeKind, admitted: set[KeyState], admitted_when_doomed: set[KeyState]
) -> None:
    for destroy_at_s, states in ((None, admitted), (1, admitted_when_doomed)):
        for state in STATES:
            infos = [key(state=state, destroy_at_s=destroy_at_s)]
            expected = "" if state in states else "KEY_STATE"
            assert reason_of(rules.require_possible, proposal(kind), infos) == expected, state


def test_a_key_that_is_not_there_is_unknown() -> None:
    for kind in (ChangeKind.ACTIVATE, ChangeKind.RETIRE, ChangeKind.DESTROY, ChangeKind.CANCEL_DESTRUCTION):
        with pytest.raises(NotFoundError):
            rules.require_possible(proposal(kind, version=2), [key()])
    with pytest.raises(NotFoundError):
        rules.require_possible(proposal(ChangeKind.ROTATE), [key(name="other")])


@pytest.mark.parametrize(
    ("infos", "reason"),
    [
        ([], ""),
        ([key()], ""),
        ([key(usage=KeyUsage.IMK_SMI)], "KEY_USAGE"),
        ([key(cipher=Cipher.AES)], "KEY_USAGE"),
        # A name keeps its usage also when its versions are gone.
        ([key(usage=KeyUsage.IMK_SMI, state=KeyState.DESTROYED)], "KEY_USAGE"),
        ([key(version=254)], ""),
        ([key(version=255, state=KeyState.DESTROYED)], "KEY_STATE"),
    ],
)
def test_a_name_stands_for_one_usage_and_255_versions(infos: list[KeyInfo], reason: str) -> None:
    for kind in (ChangeKind.GENERATE, ChangeKind.IMPORT_COMPONENTS):
        assert reason_of(rules.require_possible, proposal(kind, 0, new=NEW), infos) == reason


@pytest.mark.parametrize(
    "usage", [KeyUsage.BLIND_INDEX, KeyUsage.REQUEST_DIGEST, KeyUsage.IDENTIFICATION_CODE]
)
def test_keys_of_stored_look_up_values_have_one_version(usage: KeyUsage) -> None:
    infos = [key(usage=usage)]
    for kind in (ChangeKind.ROTATE, ChangeKind.RETIRE):
        assert reason_of(rules.require_possible, proposal(kind), infos) == "KEY_STATE"
    assert reason_of(rules.require_fitting, "imk", usage, Cipher.SM4, infos) == "KEY_STATE"
    assert reason_of(rules.require_fitting, "new", usage, Cipher.SM4, infos) == ""


@pytest.mark.parametrize("usage", [KeyUsage.SEALING, KeyUsage.CHALLENGE, KeyUsage.CARD_CODE])
def test_keys_that_the_core_works_under_are_rotated_and_not_retired(usage: KeyUsage) -> None:
    infos = [key(usage=usage)]
    with pytest.raises(StateConflictError, match="rotate it"):
        rules.require_possible(proposal(ChangeKind.RETIRE), infos)
    assert reason_of(rules.require_possible, proposal(ChangeKind.ROTATE), infos) == ""


def test_the_names_that_the_core_works_under_are_not_retired() -> None:
    names = {"pvk"} | {
        f"{name}-{suffix}" for name in ("imk-ac", "ss-auth") for suffix in ("sm4", "tdes", "aes")
    }
    assert names == rules.CORE_KEY_NAMES
    for name in names:
        wanted = Proposal(kind=ChangeKind.RETIRE, key=KeyName(name=name, version=1))
        assert reason_of(rules.require_possible, wanted, [key(name=name)]) == "KEY_STATE"


@pytest.mark.parametrize("state", [KeyState.PRE_ACTIVE, KeyState.VERIFY_ONLY])
def test_a_sealing_key_is_not_destroyed(state: KeyState) -> None:
    infos = [key(usage=KeyUsage.SEALING, state=state)]
    assert reason_of(rules.require_possible, proposal(ChangeKind.DESTROY), infos) == "KEY_IN_USE"


@pytest.mark.parametrize("usage", sorted(shapes.NOT_ADMINISTERED, key=lambda usage: usage.value))
def test_derived_keys_are_not_administered(usage: KeyUsage) -> None:
    for kind in (ChangeKind.RETIRE, ChangeKind.ROTATE):
        infos = [key(usage=usage)]
        assert reason_of(rules.require_possible, proposal(kind), infos) == "KEY_USAGE"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, ""),
        ({"state": KeyState.VERIFY_ONLY}, ""),
        ({"state": KeyState.DESTROYED}, "KEY_STATE"),
        ({"exportability": Exportability.NON_EXPORTABLE}, "KEY_USAGE"),
        ({"exportability": Exportability.SENSITIVE}, "KEY_USAGE"),
    ],
)
def test_only_exportable_keys_leave(facts: dict[str, object], reason: str) -> None:
    infos = [key(**{"exportability": Exportability.EXPORTABLE, **facts}), KBPK]
    export = proposal(ChangeKind.EXPORT_BLOCK, under=KeyName(name="kbpk", version=0))
    assert reason_of(rules.require_possible, export, infos) == reason


@pytest.mark.parametrize(
    ("kind", "version", "kbpk", "reason"),
    [
        (ChangeKind.EXPORT_BLOCK, 1, KBPK, ""),
        (ChangeKind.EXPORT_BLOCK, 1, key(name="kbpk"), "KEY_USAGE"),
        (ChangeKind.EXPORT_BLOCK, 0, key(name="other"), "KEY_UNKNOWN"),
        (ChangeKind.EXPORT_BLOCK, 2, KBPK, "KEY_UNKNOWN"),
        (ChangeKind.IMPORT_BLOCK, 0, KBPK, ""),
    ],
)
def test_a_block_needs_a_protection_key(kind: ChangeKind, version: int, kbpk: KeyInfo, reason: str) -> None:
    infos = [key(exportability=Exportability.EXPORTABLE), kbpk]
    wanted = proposal(kind, under=KeyName(name="kbpk", version=version))
    assert reason_of(rules.require_possible, wanted, infos) == reason


@pytest.mark.parametrize(("kind", "reason"), [("EXPORT_BLOCK", "KEY_STATE"), ("IMPORT_BLOCK", "")])
def test_a_protection_key_that_verifies_only_still_opens_blocks(kind: str, reason: str) -> None:
    kbpk = key(name="kbpk", usage=KeyUsage.KEY_BLOCK_PROTECTION, state=KeyState.VERIFY_ONLY)
    infos = [key(exportability=Exportability.EXPORTABLE), kbpk]
    wanted = proposal(ChangeKind(kind), under=KeyName(name="kbpk", version=1))
    assert reason_of(rules.require_possible, wanted, infos) == reason


def test_a_protecting_key_is_pinned_to_the_version_that_is_active() -> None:
    infos = [key(name="kbpk", usage=KBPK.usage, state=KeyState.VERIFY_ONLY), replace(KBPK, version=2)]
    infos.append(key(exportability=Exportability.EXPORTABLE))
    for kind in (ChangeKind.EXPORT_BLOCK, ChangeKind.IMPORT_BLOCK):
        wanted = proposal(kind, under=KeyName(name="kbpk", version=0))
        assert rules.pinned(wanted, infos) == replace(wanted, under=KeyName(name="kbpk", version=2))
    assert rules.pinned(proposal(ChangeKind.ROTATE), infos) == proposal(ChangeKind.ROTATE)


@pytest.mark.parametrize("version", [0, 1])
def test_no_key_leaves_under_itself(version: int) -> None:
    infos = [key(usage=KeyUsage.KEY_BLOCK_PROTECTION, exportability=Exportability.EXPORTABLE)]
    wanted = proposal(ChangeKind.EXPORT_BLOCK, under=KeyName(name="imk", version=version))
    with pytest.raises(MalformedFieldError) as refusal:
        rules.pinned(wanted, infos)
    assert refusal.value.field == "export_block.under"


def test_the_audit_tells_the_check_value_of_the_key_that_there_is() -> None:
    details = ["usage=IMK_AC", "kcv=000000"]
    assert audit_text(ChangeKind.RETIRE, details) == "RETIRE usage=IMK_AC kcv=000000"
    assert audit_text(ChangeKind.RETIRE, details, kcv="ABCDEF") == "RETIRE kcv=ABCDEF usage=IMK_AC"


def shaped(usage: str, cipher: Cipher, size: int = 0, option: UdkOption | None = None) -> NewVersion:
    return shapes.new_version(
        "key",
        usage=usage,
        cipher=cipher,
        size=size,
        exportability=Exportability.NON_EXPORTABLE,
        udk_option=option,
    )


@pytest.mark.parametrize("usage", list(KeyUsage))
def test_every_usage_is_administered_or_named_as_not(usage: KeyUsage) -> None:
    fields = set()
    for cipher in Cipher:
        try:
            shaped(usage.value, cipher)
            fields.add("")
        except MalformedFieldError as error:
            fields.add(error.field)
    assert fields == ({"key.usage"} if usage in shapes.NOT_ADMINISTERED else {"", "key.cipher"})


@pytest.mark.parametrize(
    ("cipher", "size", "expected"),
    [
        (Cipher.SM4, 0, 16),
        (Cipher.TDES, 16, 16),
        (Cipher.AES, 0, 16),
        (Cipher.AES, 24, 24),
        (Cipher.AES, 32, 32),
        (Cipher.SM4, 32, None),
        (Cipher.TDES, 24, None),
        (Cipher.AES, 20, None),
    ],
)
def test_lengths_go_with_the_cipher(cipher: Cipher, size: int, expected: int | None) -> None:
    if expected is None:
        with pytest.raises(MalformedFieldError) as refusal:
            shaped("DATA_ENCRYPTION", cipher, size)
        assert refusal.value.field == "key.key_bytes"
    else:
        assert shaped("DATA_ENCRYPTION", cipher, size).size == expected


def test_an_option_is_for_issuer_master_keys() -> None:
    assert shaped("IMK_SMC", Cipher.TDES, option=UdkOption.B).udk_option is UdkOption.B
    assert shaped("IMK_AC", Cipher.TDES).udk_option is UdkOption.A
    with pytest.raises(MalformedFieldError) as refusal:
        shaped("BDK", Cipher.TDES, option=UdkOption.A)
    assert refusal.value.field == "key.card_key_option"


@pytest.mark.parametrize("name", ["", "-a", "a-", "a--b", "1a", "A", "a_b", "a" * 49, "a\n", "ａ"])
def test_names_of_new_keys_are_words_with_hyphens(name: str) -> None:
    with pytest.raises(MalformedFieldError):
        shapes.new_name("name", name)


def test_longest_name_is_taken() -> None:
    assert shapes.new_name("name", "a" * 48) == "a" * 48


@pytest.mark.parametrize("text", ["", "ABCDE", "ABCDEG", "ABCDEF0", "ABCDEF\n"])
def test_check_values_are_six_hexadecimal_digits(text: str) -> None:
    with pytest.raises(MalformedFieldError):
        shapes.check_value("kcv", text)
    assert shapes.check_value("kcv", "abcdef") == "ABCDEF"
