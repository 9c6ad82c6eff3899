"""The search for secrets in what the core writes: that it finds each kind, wherever an instance could have left it."""

import base64
from collections.abc import Callable
from pathlib import Path

import known_secrets
import pytest
from pin_pad import OTHER, PINS, RIGHT
from running_instance import Instance

from crypto.key_store.software import SoftwareKeyStore
from server.cards.synthetic import synthetic_pan


@pytest.fixture
def store(tmp_path: Path) -> SoftwareKeyStore:
    return SoftwareKeyStore.create(tmp_path / "keys")


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "hex": lambda value: value.hex().encode(),
    "upper-case hex": lambda value: value.hex().upper().encode(),
    "spaced hex": lambda value: value.hex(" ").encode(),
    "base64": base64.b64encode,
    "repr": lambda value: repr(value).encode(),
    "half": lambda value: value[:8].hex().encode(),
    "number": lambda value: str(int.from_bytes(value)).encode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_key_is_found_in_every_spelling(store: SoftwareKeyStore, tmp_path: Path, spelling: str) -> None:
    old = store.lend(store.active("pvk")).value
    store.rotate("pvk")
    text = b'{"message":"deriving with ' + SPELLINGS[spelling](old) + b' now"}\n'
    assert known_secrets.leaks(tmp_path, {"lines": text}) == ["lines holds key pvk version 1"]
    row = {"table t": "(1,\\\\x00" + old.hex() + "00)"}
    assert known_secrets.table_leaks(tmp_path, row)[0] == "table t holds key pvk version 1"
    assert known_secrets.table_leaks(tmp_path, {"table t": "(1,\\\\x00)"}) == []


def test_pin_card_number_and_component_are_found(store: SoftwareKeyStore, tmp_path: Path) -> None:
    component = bytes(range(100, 116))
    known_secrets.remember("a component", component)
    for text in (
        f"PIN={RIGHT}.",
        f"0a{OTHER}ffff",
        f"0A{OTHER}FFFF",
        RIGHT.encode().hex(),
        f"pan {synthetic_pan(12)}",
        component.hex(),
    ):
        assert len(known_secrets.leaks(tmp_path, {"lines": text.encode()})) == 1, text
    assert known_secrets.printed_leaks(["nothing", f"a test prints {RIGHT}"])


def test_what_is_masked_encrypted_or_of_chance_is_not_taken_for_a_secret(
    store: SoftwareKeyStore, tmp_path: Path
) -> None:
    texts = [
        "6217****0128",
        *(f"0.0{pin}1" for pin in PINS),
        *(f"1{pin}" for pin in PINS),
        *(info.kcv for info in store.describe()),
        (tmp_path / "keys" / "keys.json").read_text(),
    ]
    assert known_secrets.leaks(tmp_path, {"lines": "\n".join(texts).encode()}) == []


@pytest.mark.parametrize("stream", ["output", "errors"])
def test_instance_that_wrote_a_secret_does_not_end_in_silence(
    serve: Callable[..., Instance], stream: str
) -> None:
    instance = serve()
    instance.until_ready()
    store = SoftwareKeyStore.open(instance.data_dir / "keys")
    value = store.lend(store.active("zpk-aes")).value
    with instance.written(stream).open("a") as written:
        written.write(f"debugging: {value.hex()}\n")
    with pytest.raises(AssertionError, match="key zpk-aes version 1"):
        instance.close()
    assert instance.process.poll() is not None
