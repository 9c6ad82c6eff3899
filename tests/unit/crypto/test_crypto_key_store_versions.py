"""Keys change under a running server: what it holds follows, over every backend, and no version is lost between."""

import dataclasses

import pytest
from crypto_virtual_card import make_check
from key_store_bureau import Bureau

from crypto.card_code import CardCodeUse
from crypto.errors import CardCodeInvalidError, KeyNotFoundError, KeyStateError, SealBrokenError
from crypto.keys import KeyRef, KeyState, KeyUsage


@pytest.fixture
def store(changing_store):
    return changing_store


@pytest.fixture
def other(other_store):
    return other_store


def issue(codes):
    return codes.issue(card_alias=bytes(8), use=CardCodeUse.PAYMENT, issued_at_s=1)


def test_objects_handed_out_follow_a_rotation(store, other):
    codes, challenges = store.card_codes(KeyRef("card-code", 1)), store.challenges(KeyRef("challenge", 1))
    sealer = store.sealer(KeyRef("sealing", 1))
    code, column = issue(codes), sealer.seal(b"name", column="cards.name", row_id="1")
    token = challenges.issue(participant="bank", issued_at_s=1).token
    for name in ("card-code", "challenge", "sealing"):
        other.rotate(name)
    assert issue(codes)[:3] == code[:3]
    assert store.refresh()
    new_code, new_column = issue(codes), sealer.seal(b"name", column="cards.name", row_id="1")
    assert codes.open(code).key_version == 1
    assert codes.open(new_code).key_version == 2
    assert (column[0], new_column[0]) == (1, 2)
    for sealed in (column, new_column):
        assert sealer.open(sealed, column="cards.name", row_id="1") == b"name"
    challenges.open(token, participant="bank")
    other.challenges(KeyRef("challenge", 2)).open(
        challenges.issue(participant="bank", issued_at_s=1).token, participant="bank"
    )


def test_what_another_process_made_under_a_new_version_opens_before_the_next_refresh(store, other):
    codes, sealer = store.card_codes(KeyRef("card-code", 1)), store.sealer(KeyRef("sealing", 1))
    code = issue(other.card_codes(other.rotate("card-code").ref))
    column = other.sealer(other.rotate("sealing").ref).seal(b"name", column="cards.name", row_id="1")
    assert codes.open(code).key_version == 2
    assert sealer.open(column, column="cards.name", row_id="1") == b"name"


def test_objects_handed_out_issue_nothing_without_an_active_version(store):
    codes = store.card_codes(KeyRef("card-code", 1))
    code = issue(codes)
    # Nobody retires such a key; a list that was put together by hand may lack an active version.
    ref = KeyRef("card-code", 1)
    info, material = store._list.entry(ref)
    verify_only = dataclasses.replace(info, state=KeyState.VERIFY_ONLY)
    store._list.change(lambda keys: keys.update({ref: (verify_only, material)}))
    assert codes.open(code).key_version == 1
    with pytest.raises(KeyStateError, match="no active"):
        issue(codes)
    store.schedule_destruction(KeyRef("card-code", 1), 1)
    store.destroy_due(1)
    with pytest.raises(CardCodeInvalidError, match="unknown version"):
        codes.open(code)


def test_an_unknown_version_is_looked_for_once_in_what_another_process_wrote(store, other):
    ref = other.rotate("imk-ac-sm4").ref
    assert store.require_usable(ref, KeyUsage.IMK_AC).state is KeyState.ACTIVE
    with pytest.raises(KeyNotFoundError):
        store.require_usable(KeyRef("imk-ac-sm4", 3), KeyUsage.IMK_AC)


def test_refresh_reads_only_a_list_that_another_process_wrote(store, other):
    assert not store.refresh()
    store.rotate("sealing")
    assert not store.refresh()
    assert other.refresh()
    assert not other.refresh()


def test_a_list_that_cannot_be_read_leaves_the_keys_in_force(store, other, tmp_path):
    check = make_check(Bureau(store), "sm4")
    path = tmp_path / "keys" / "keys.json"
    path.write_text(path.read_text().replace('"state": "ACTIVE"', '"state": "VERIFY_ONLY"'))
    with pytest.raises(SealBrokenError):
        store.refresh()
    assert store.verify_arqcs([check])[0] is not None
    with pytest.raises(KeyNotFoundError):
        store.require_usable(KeyRef("imk-ac-sm4", 2), KeyUsage.IMK_AC)
