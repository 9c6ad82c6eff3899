"""The life of keys over every backend: what administration does, repeats, and is refused."""

import dataclasses

import pytest
from crypto_virtual_card import make_check
from key_store_bureau import Bureau

from crypto.errors import (
    KeyNotFoundError,
    KeyStateError,
    KeyUsageError,
)
from crypto.key_store.diagnosis import ArqcFinding
from crypto.key_store.lifecycle import VERSION_MAX
from crypto.keys import Cipher, Exportability, Key, KeyRef, KeyState, KeyUsage, UdkOption

ALGORITHMS = pytest.mark.parametrize("algorithm", ["sm4", "tdes", "aes"])
MASTER = bytes(range(1, 17))


@pytest.fixture
def store(changing_store):
    return changing_store


@pytest.fixture
def other(other_store):
    return other_store


def state_of(store, ref):
    return next(info.state for info in store.describe() if info.ref == ref)


@pytest.mark.parametrize(
    ("cipher", "usage", "size"),
    [
        (Cipher.AES, KeyUsage.IMK_AC, 32),
        (Cipher.AES, KeyUsage.BDK, 24),
        (Cipher.TDES, KeyUsage.PIN_ENCRYPTION, None),
        (Cipher.SM4, KeyUsage.PIN_VERIFICATION_PVV, None),
        (Cipher.HMAC_SM3, KeyUsage.MAC_HMAC_SM3, None),
    ],
)
def test_a_generated_key_generates_nothing_until_it_is_activated(store, cipher, usage, size):
    info = store.generate("bank-a", cipher=cipher, usage=usage, size=size)
    assert (info.ref, info.state, info.cipher, info.usage) == (
        KeyRef("bank-a", 1),
        KeyState.PRE_ACTIVE,
        cipher,
        usage,
    )
    for require in (store.require_usable, store.require_generating):
        with pytest.raises(KeyStateError):
            require(info.ref, usage)
    with pytest.raises(KeyStateError, match="no active"):
        store.active("bank-a")
    activated = store.activate(info.ref)
    assert activated == dataclasses.replace(info, state=KeyState.ACTIVE)
    assert store.activate(info.ref) == activated
    assert store.require_generating(info.ref, usage) == activated
    assert store.active("bank-a") == info.ref


def test_activation_puts_the_version_before_aside_in_one_step(store, other):
    first = store.active("zpk-aes")
    second = store.generate("zpk-aes", cipher=Cipher.AES, usage=KeyUsage.PIN_ENCRYPTION)
    assert second.version == 2
    assert store.active("zpk-aes") == first
    store.activate(second.ref)
    assert (state_of(store, first), state_of(store, second.ref)) == (KeyState.VERIFY_ONLY, KeyState.ACTIVE)
    assert store.usable("zpk-aes") == [first, second.ref]
    store.require_usable(first, KeyUsage.PIN_ENCRYPTION)
    with pytest.raises(KeyStateError, match="may not generate"):
        store.require_generating(first, KeyUsage.PIN_ENCRYPTION)
    with pytest.raises(KeyStateError):
        store.activate(first)
    assert other.refresh()
    assert other.describe() == store.describe()


@ALGORITHMS
def test_after_rotation_the_old_version_only_verifies(store, algorithm):
    name = f"imk-ac-{algorithm}"
    old = make_check(Bureau(store), algorithm)
    info = store.rotate(name)
    assert (info.ref, info.state) == (KeyRef(name, 2), KeyState.ACTIVE)
    assert store.active(name) == info.ref
    new = make_check(Bureau(store), algorithm)
    assert new.arqc != old.arqc
    assert all(store.verify_arqcs([old, new]))
    old.key = new.key
    assert store.verify_arqcs([old]) == [None]


def test_a_rotated_key_is_of_the_kind_of_its_predecessor(store):
    first = store.generate(
        "imk-b",
        cipher=Cipher.AES,
        usage=KeyUsage.IMK_AC,
        size=32,
        udk_option=UdkOption.B,
        exportability=Exportability.EXPORTABLE,
    )
    store.activate(first.ref)
    second = store.rotate("imk-b", change_id="c2")
    assert (second.udk_option, second.exportability) == (UdkOption.B, Exportability.EXPORTABLE)
    assert len(store.open_to_export(second.ref).value) == 32


def test_a_change_that_is_executed_again_changes_nothing(store, other):
    kind = {"cipher": Cipher.TDES, "usage": KeyUsage.PIN_ENCRYPTION}
    key = Key(Cipher.TDES, KeyUsage.PIN_ENCRYPTION, MASTER)
    for change in (
        lambda at: at.generate("bank-a", **kind, change_id="change-1"),
        lambda at: at.install("bank-a", key, change_id="change-2"),
        lambda at: at.activate(KeyRef("bank-a", 2)),
        lambda at: at.rotate("bank-a", change_id="change-3"),
        lambda at: at.retire(KeyRef("bank-a", 3)),
        lambda at: at.schedule_destruction(KeyRef("bank-a", 2), 1_000),
        lambda at: at.cancel_destruction(KeyRef("bank-a", 2)),
    ):
        info = change(store)
        keys = store.describe()
        assert change(store) == info
        assert change(other) == info
        assert store.describe() == other.describe() == keys
    # Also after the version it brought has moved on.
    assert store.generate("bank-a", **kind, change_id="change-1").version == 1
    assert store.rotate("bank-a", change_id="change-3").version == 3
    assert [info.change_id for info in store.describe() if info.name == "bank-a"] == [
        "change-1",
        "change-2",
        "change-3",
    ]


def test_a_change_id_never_stands_for_two_keys(store):
    store.install("bank-a", Key(Cipher.AES, KeyUsage.PIN_ENCRYPTION, MASTER), change_id="one")
    with pytest.raises(KeyStateError, match="another key"):
        store.install("bank-a", Key(Cipher.AES, KeyUsage.PIN_ENCRYPTION, MASTER[::-1]), change_id="one")
    with pytest.raises(KeyStateError, match="another key"):
        store.generate("bank-a", cipher=Cipher.AES, usage=KeyUsage.IMK_AC, change_id="one")


def test_all_versions_of_a_name_are_of_one_kind(store):
    for cipher, usage in ((Cipher.AES, KeyUsage.IMK_AC), (Cipher.SM4, KeyUsage.IMK_SMI)):
        with pytest.raises(KeyUsageError, match="imk-ac-sm4 is SM4 for IMK_AC"):
            store.generate("imk-ac-sm4", cipher=cipher, usage=usage)
        with pytest.raises(KeyUsageError, match="imk-ac-sm4 is SM4 for IMK_AC"):
            store.install("imk-ac-sm4", Key(cipher, usage, MASTER))


def test_a_malformed_name_is_refused(store):
    for name in ("", "Bank", "bank_a", "-bank", "bank-", "bank--a", "1bank", "b" * 49, "bank\n", "银行"):
        with pytest.raises(ValueError, match="lower-case words"):
            store.generate(name, cipher=Cipher.SM4, usage=KeyUsage.IMK_AC)


def test_a_name_may_have_48_characters_and_255_versions(store):
    info = store.generate("b" * 48, cipher=Cipher.SM4, usage=KeyUsage.MAC_CMAC)
    ref = KeyRef(info.name, VERSION_MAX)
    last = dataclasses.replace(info, version=VERSION_MAX)
    store._list.change(lambda keys: keys.setdefault(ref, (last, keys[info.ref][1])))
    with pytest.raises(KeyStateError, match="used up"):
        store.generate("b" * 48, cipher=Cipher.SM4, usage=KeyUsage.MAC_CMAC)


def test_a_key_of_a_wrong_size_or_usage_is_never_made(store):
    keys = store.describe()
    with pytest.raises(ValueError, match="length"):
        store.generate("bank-a", cipher=Cipher.AES, usage=KeyUsage.IMK_AC, size=17)
    with pytest.raises(KeyUsageError):
        store.generate("bank-a", cipher=Cipher.AES, usage=KeyUsage.CARD_CODE)
    with pytest.raises(ValueError, match="change id"):
        store.generate("bank-a", cipher=Cipher.AES, usage=KeyUsage.IMK_AC, change_id="c" * 65)
    store.refresh()
    assert store.describe() == keys


@pytest.mark.parametrize("name", ["blind-index", "request-digest", "identification-code"])
def test_keys_that_stored_values_are_found_by_are_never_rotated(store, name):
    keys = store.describe()
    info = next(info for info in keys if info.name == name)
    for change in (
        lambda: store.rotate(name),
        lambda: store.generate(name, cipher=info.cipher, usage=info.usage),
        lambda: store.retire(info.ref),
    ):
        with pytest.raises(KeyStateError, match="would no longer be found"):
            change()
    assert store.describe() == keys


@pytest.mark.parametrize("name", ["sealing", "challenge", "card-code"])
def test_keys_that_always_have_an_active_version_are_rotated_and_not_retired(store, name):
    ref = store.active(name)
    with pytest.raises(KeyStateError, match="rotate it instead"):
        store.retire(ref)
    assert store.active(name) == ref
    assert store.rotate(name).version == 2


@ALGORITHMS
def test_a_destroyed_key_proves_nothing(store, other, algorithm):
    check = make_check(Bureau(store), algorithm)
    store.retire(check.key)
    assert store.schedule_destruction(check.key, 1_000).destroy_at_s == 1_000
    assert store.destroy_due(999) == []
    assert store.verify_arqcs([check])[0] is not None
    (destroyed,) = store.destroy_due(1_000)
    assert (destroyed.ref, destroyed.state) == (check.key, KeyState.DESTROYED)
    assert store.destroy_due(1_000) == []
    assert store.verify_arqcs([check]) == [None]
    assert store.explain_arqc(check).finding is ArqcFinding.KEY_IN_WRONG_STATE
    other.refresh()
    assert other.verify_arqcs([check]) == [None]
    with pytest.raises(KeyStateError):
        store.open_key(check.key, KeyUsage.IMK_AC)
    with pytest.raises(KeyStateError, match="no active"):
        store.active(check.key.name)
    assert store.generate(check.key.name, cipher=destroyed.cipher, usage=destroyed.usage).version == 2


def test_what_generates_is_never_destroyed_and_what_is_to_be_destroyed_never_generates(store):
    ref = store.active("zpk-tdes")
    for change in (lambda: store.schedule_destruction(ref, 1), lambda: store.cancel_destruction(ref)):
        with pytest.raises(KeyStateError, match="is ACTIVE"):
            change()
    new = store.generate("zpk-tdes", cipher=Cipher.TDES, usage=KeyUsage.PIN_ENCRYPTION)
    store.schedule_destruction(new.ref, 1_000)
    with pytest.raises(KeyStateError, match="cancel that first"):
        store.activate(new.ref)
    assert store.cancel_destruction(new.ref).destroy_at_s is None
    assert store.destroy_due(1_000) == []
    store.activate(new.ref)


def test_a_planned_destruction_keeps_its_first_date(store):
    ref = store.active("zpk-sm4")
    store.retire(ref)
    store.schedule_destruction(ref, 1_000)
    assert store.schedule_destruction(ref, 2_000).destroy_at_s == 1_000


def test_a_key_never_steps_back_in_its_life(store):
    ref = store.active("mac-sm4")
    store.retire(ref)
    with pytest.raises(KeyStateError, match="is VERIFY_ONLY"):
        store.activate(ref)
    with pytest.raises(KeyStateError, match="no active"):
        store.rotate("mac-sm4")
    store.schedule_destruction(ref, 1)
    store.destroy_due(1)
    for change in (store.activate, store.retire, store.cancel_destruction):
        with pytest.raises(KeyStateError, match="is DESTROYED"):
            change(ref)
    for change in (store.activate, store.retire, store.cancel_destruction):
        with pytest.raises(KeyNotFoundError):
            change(KeyRef("mac-sm4", 7))


@ALGORITHMS
def test_pin_blocks_decrypt_under_a_pin_encryption_key_alone(store, algorithm):
    ref, blocks = store.active(f"zpk-{algorithm}"), bytes(range(64))
    encrypted = store.encrypt_under_master(ref, blocks)
    assert encrypted != blocks
    assert store.decrypt_under_master(ref, encrypted) == blocks
    with pytest.raises(KeyUsageError):
        store.decrypt_under_master(store.active(f"imk-ac-{algorithm}"), encrypted)


def test_a_key_opens_for_its_usages_only(store):
    ref = store.active("mac-sm4")
    assert store.open_key(ref, KeyUsage.MAC_ALGORITHM_1, KeyUsage.MAC_CMAC).usage is KeyUsage.MAC_CMAC
    with pytest.raises(KeyUsageError, match="is for MAC_CMAC, not MAC_ALGORITHM_1 or BDK"):
        store.open_key(ref, KeyUsage.MAC_ALGORITHM_1, KeyUsage.BDK)
    store.retire(ref)
    store.open_key(ref, KeyUsage.MAC_CMAC)
    with pytest.raises(KeyStateError, match="may not generate"):
        store.open_key(ref, KeyUsage.MAC_CMAC, generating=True)


def test_an_installed_key_is_the_one_that_was_given(store):
    for usage in (KeyUsage.KEY_BLOCK_PROTECTION, KeyUsage.MAC_CMAC):
        name = f"given-{usage.value.lower().replace('_', '-')}"
        key = Key(Cipher.AES, usage, MASTER)
        info = store.install(name, key, exportability=Exportability.SENSITIVE)
        assert (info.kcv, info.state, info.exportability) == (
            key.kcv(),
            KeyState.PRE_ACTIVE,
            Exportability.SENSITIVE,
        )
        store.activate(info.ref)
        assert store.open_key(info.ref, usage) == key
