"""PINs in batches: opened, translated, drawn, and turned into what they are verified against.

PIN blocks of one key and format go through one block operation. A PIN is in this process's memory between two of them
and nowhere else; nothing here gives one away. Must never let one item's fault decide another's result.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TypeVar

from crypto.blocks import block_size
from crypto.dukpt_host import DukptHost
from crypto.dukpt_tdes import DukptKeyUse
from crypto.errors import (
    KEY_REFUSALS,
    CryptoError,
    KeyUsageError,
    PinBlockInvalidError,
    PinTranslationRefusedError,
)
from crypto.key_store import KeyStore
from crypto.key_store.requests import EncryptedPin, IssuedPin, PinIssue, PinReferences, PinTranslation
from crypto.keys import Key, KeyRef, KeyUsage
from crypto.pin_block import (
    Pin,
    PinBlockFormat,
    cipher_of,
    decrypt_pin_block,
    decrypt_pin_blocks,
    encrypt_pin_blocks,
    require_translation,
    translate_pin_blocks,
)
from crypto.pin_verification import Ibm3624Layout, generate_pin_offsets, issue_random_pin

# Over the rightmost 16 digits, in which any two cards of one bank differ: a profile of this project.
REFERENCE_LAYOUT = Ibm3624Layout(decimalisation="0123456789012345")
REFERENCE_PAN_DIGITS = 16
Refusal = CryptoError | ValueError

Item = TypeVar("Item")
Group = TypeVar("Group", bound=Hashable)
Result = TypeVar("Result")


class PinOperations:
    """PIN operations over a key store.

    Args:
        store: the keys.
        dukpt_host: the host side of a BDK; raises a key error for one that is none.
        pvk_name: name of the key that PINs are verified under, usage ``PIN_VERIFICATION_IBM3624``.
    """

    def __init__(self, store: KeyStore, *, dukpt_host: Callable[[KeyRef], DukptHost], pvk_name: str) -> None:
        self._store = store
        self._dukpt_host = dukpt_host
        self._pvk_name = pvk_name

    def open(self, pins: Sequence[EncryptedPin]) -> list[Pin | Refusal]:
        """The PINs, in order, or why one is none."""

        def opened(
            group: tuple[KeyRef, bool, PinBlockFormat], items: Sequence[EncryptedPin]
        ) -> list[Pin | Refusal]:
            ref, is_dukpt, layout = group
            if is_dukpt:
                return self._open_dukpt(ref, items)
            self._require_zone(ref, layout)
            blocks = [(pin.block, pin.pan) for pin in items]
            return [
                *decrypt_pin_blocks(partial(self._store.decrypt_under_master, ref), blocks, format=layout)
            ]

        return in_groups(pins, lambda pin: (pin.key, bool(pin.ksn), pin.format), opened)

    def translate(self, translations: Sequence[PinTranslation]) -> list[bytes | Refusal]:
        """The blocks under the other key, in order, or why there is none."""

        def translated(
            group: tuple[KeyRef, bool, PinBlockFormat, KeyRef, PinBlockFormat],
            items: Sequence[PinTranslation],
        ) -> list[bytes | Refusal]:
            ref, is_dukpt, layout, target, target_layout = group
            require_translation(source_format=layout, target_format=target_layout)
            self._require_zone(target, target_layout, generating=True)
            encrypt = partial(self._store.encrypt_under_master, target)
            sources = [item.source for item in items]
            if is_dukpt:
                return self._seal(self._open_dukpt(ref, sources), sources, encrypt, target_layout)
            self._require_zone(ref, layout)
            return [
                *translate_pin_blocks(
                    partial(self._store.decrypt_under_master, ref),
                    encrypt,
                    [(pin.block, pin.pan) for pin in sources],
                    source_format=layout,
                    target_format=target_layout,
                )
            ]

        return in_groups(
            translations,
            lambda t: (t.source.key, bool(t.source.ksn), t.source.format, t.target_key, t.target_format),
            translated,
        )

    def references(self, pins: Sequence[EncryptedPin]) -> list[PinReferences | Refusal]:
        """What each PIN is verified against, under every usable version of the verification key."""
        opened = self.open(pins)
        readable = [(pin, item.pan) for pin, item in zip(opened, pins, strict=True) if isinstance(pin, Pin)]
        references = iter(self._references(readable))
        return [next(references) if isinstance(pin, Pin) else pin for pin in opened]

    def issue(self, issues: Sequence[PinIssue]) -> list[IssuedPin | Refusal]:
        """Random PINs, each encrypted and with what it is verified against; never in a format of no card."""

        def issued(
            group: tuple[KeyRef, PinBlockFormat], items: Sequence[PinIssue]
        ) -> list[IssuedPin | Refusal]:
            ref, layout = group
            self._require_zone(ref, layout, generating=True)
            if layout is PinBlockFormat.ISO_1:
                return [ValueError("a PIN is issued in a format that binds it to its card")] * len(items)
            drawn = [_drawn(item) for item in items]
            pins = [(pin, item.pan) for pin, item in zip(drawn, items, strict=True) if isinstance(pin, Pin)]
            blocks = encrypt_pin_blocks(partial(self._store.encrypt_under_master, ref), pins, format=layout)
            done = iter(
                [
                    block if isinstance(block, ValueError) else _issued(block, references)
                    for block, references in zip(blocks, self._references(pins), strict=True)
                ]
            )
            return [next(done) if isinstance(pin, Pin) else pin for pin in drawn]

        return in_groups(issues, lambda issue: (issue.key, issue.format), issued)

    def _require_zone(self, ref: KeyRef, layout: PinBlockFormat, *, generating: bool = False) -> None:
        require = self._store.require_generating if generating else self._store.require_usable
        info = require(ref, KeyUsage.PIN_ENCRYPTION)
        if info.cipher is not cipher_of(layout):
            raise KeyUsageError(f"format {layout.value} does not go with {info.cipher.value}")

    def _open_dukpt(self, ref: KeyRef, pins: Sequence[EncryptedPin]) -> list[Pin | Refusal]:
        """Each block under a key of its own: the terminal's, for one transaction."""
        keys = self._dukpt_host(ref).working_keys([(pin.ksn, DukptKeyUse.PIN) for pin in pins])
        opened: list[Pin | Refusal] = []
        for pin, key in zip(pins, keys, strict=True):
            if not isinstance(key, Key):
                opened.append(key)
                continue
            try:
                opened.append(decrypt_pin_block(key, pin.block, pan=pin.pan, format=pin.format))
            except (KeyUsageError, PinBlockInvalidError) as error:
                opened.append(error)
        return opened

    def _seal(
        self,
        opened: Sequence[Pin | Refusal],
        sources: Sequence[EncryptedPin],
        encrypt: Callable[[bytes], bytes],
        layout: PinBlockFormat,
    ) -> list[bytes | Refusal]:
        readable = [
            (pin, item.pan) for pin, item in zip(opened, sources, strict=True) if isinstance(pin, Pin)
        ]
        blocks = iter(encrypt_pin_blocks(encrypt, readable, format=layout))
        return [next(blocks) if isinstance(pin, Pin) else pin for pin in opened]

    def _references(self, pins: Sequence[tuple[Pin, str]]) -> list[PinReferences | Refusal]:
        if not pins:
            return []
        try:
            active = self._store.active(self._pvk_name)
            cards = [(pin, pan[-REFERENCE_PAN_DIGITS:]) for pin, pan in pins]
            refs = self._store.usable(self._pvk_name)
            by_version = {}
            for ref in refs:
                info = self._store.require_usable(ref, KeyUsage.PIN_VERIFICATION_IBM3624)
                encrypt = partial(self._store.encrypt_under_master, ref)
                by_version[ref.version] = generate_pin_offsets(
                    encrypt, cards, size=block_size(info.cipher), layout=REFERENCE_LAYOUT
                )
        except KEY_REFUSALS as error:
            return [error] * len(pins)
        references: list[PinReferences | Refusal] = []
        for n in range(len(pins)):
            offsets = {version: of_version[n] for version, of_version in by_version.items()}
            failure = next((offset for offset in offsets.values() if isinstance(offset, ValueError)), None)
            good = {version: offset for version, offset in offsets.items() if isinstance(offset, str)}
            references.append(failure or PinReferences(by_version=good, active_version=active.version))
        return references


def in_groups(
    items: Sequence[Item],
    group_of: Callable[[Item], Group],
    work: Callable[[Group, Sequence[Item]], list[Result | Refusal]],
) -> list[Result | Refusal]:
    """Results of ``work`` over groups of items, in the items' order.

    A key's refusal is that of its whole group; a store that is gone is told of all.
    """
    groups: dict[Group, list[int]] = {}
    for position, item in enumerate(items):
        groups.setdefault(group_of(item), []).append(position)
    results: dict[int, Result | Refusal] = {}
    for group, positions in groups.items():
        try:
            done = work(group, [items[position] for position in positions])
        except (*KEY_REFUSALS, PinTranslationRefusedError) as error:
            done = [error] * len(positions)
        results.update(zip(positions, done, strict=True))
    return [results[position] for position in range(len(items))]


def _drawn(issue: PinIssue) -> Pin | ValueError:
    try:
        return issue_random_pin(length=issue.length)
    except ValueError as error:
        return error


def _issued(block: bytes, references: PinReferences | Refusal) -> IssuedPin | Refusal:
    if not isinstance(references, PinReferences):
        return references
    return IssuedPin(block=block, references=references)
