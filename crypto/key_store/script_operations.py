"""Issuer scripts in batches: the card keys of a batch in one call per master key, its PINs in one call.

A card's keys are in this process's memory for one batch, a PIN between two block operations. Must never let one item's
fault decide another's result, and never show a key or a PIN.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from crypto.diversification import SessionMethod, card_key_usage, odd_parity, udk_factor_of
from crypto.errors import KEY_REFUSALS
from crypto.issuer_script import ScriptCommand, ScriptContext, build_issuer_script, build_pin_change
from crypto.key_store import KeyStore
from crypto.key_store.pin_operations import PinOperations, Refusal, in_groups
from crypto.key_store.requests import EncryptedPin, IssuerScriptRequest
from crypto.keys import Cipher, Key, KeyRef, KeyUsage
from crypto.pin_block import Pin
from crypto.script_pin_block import ScriptPinBlock

_UDK_SIZE = 16


class _Parts(NamedTuple):
    """What a script is made of: each part, why there is none, or None where none was asked for."""

    udk_smi: Key | Refusal | None
    new_pin: Pin | Refusal | None
    current_pin: Pin | Refusal | None
    udk_ac: Key | Refusal | None
    udk_smc: Key | Refusal | None


class ScriptOperations:
    """Issuer scripts over a key store.

    Args:
        store: the keys.
        pins: opens the PINs that go into scripts.
    """

    def __init__(self, store: KeyStore, pins: PinOperations) -> None:
        self._store = store
        self._pins = pins

    def generate(self, requests: Sequence[IssuerScriptRequest]) -> list[bytes | Refusal]:
        """Whole commands, in order, or why there is none."""
        contexts = [_context(request) for request in requests]
        fitting = [
            request
            for request, context in zip(requests, contexts, strict=True)
            if isinstance(context, ScriptContext)
        ]
        parts = iter(self._parts(fitting))
        return [
            _script(request, context, next(parts)) if isinstance(context, ScriptContext) else context
            for request, context in zip(requests, contexts, strict=True)
        ]

    def _parts(self, requests: Sequence[IssuerScriptRequest]) -> list[_Parts]:
        pins = self._open(
            [request.new_pin for request in requests] + [request.current_pin for request in requests]
        )
        return [
            _Parts(*parts)
            for parts in zip(
                self._card_keys(requests, KeyUsage.IMK_SMI, lambda request: request.integrity_key),
                pins[: len(requests)],
                pins[len(requests) :],
                self._card_keys(requests, KeyUsage.IMK_AC, lambda request: request.cryptogram_key),
                self._card_keys(requests, KeyUsage.IMK_SMC, lambda request: request.confidentiality_key),
                strict=True,
            )
        ]

    def _open(self, pins: Sequence[EncryptedPin | None]) -> list[Pin | Refusal | None]:
        opened = iter(self._pins.open([pin for pin in pins if pin is not None]))
        return [None if pin is None else next(opened) for pin in pins]

    def _card_keys(
        self,
        requests: Sequence[IssuerScriptRequest],
        usage: KeyUsage,
        ref_of: Callable[[IssuerScriptRequest], KeyRef | None],
    ) -> list[Key | Refusal | None]:
        """Card keys under issuer master keys that their cards remember: verifying versions still write to them."""

        def derived(ref: KeyRef | None, items: Sequence[IssuerScriptRequest]) -> list[Key | Refusal]:
            assert ref is not None, "asked for those that name one"
            return self._derived(ref, usage, items)

        keys = iter(
            in_groups([request for request in requests if ref_of(request) is not None], ref_of, derived)
        )
        return [None if ref_of(request) is None else next(keys) for request in requests]

    def _derived(
        self, ref: KeyRef, usage: KeyUsage, items: Sequence[IssuerScriptRequest]
    ) -> list[Key | Refusal]:
        """The keys of cards below one master key, in one call under it; in its place what is no card number."""
        info = self._store.require_usable(ref, usage)
        factors = [_factor(udk_factor_of(info.udk_option), item) for item in items]
        well_formed = b"".join([factor for factor in factors if isinstance(factor, bytes)])
        values = self._store.encrypt_under_master(ref, well_formed) if well_formed else b""
        starts = iter(range(0, len(values), _UDK_SIZE))
        keys: list[Key | Refusal] = []
        for item, factor in zip(items, factors, strict=True):
            if not isinstance(factor, bytes):
                keys.append(factor)
                continue
            start = next(starts)
            value = values[start : start + _UDK_SIZE]
            if info.cipher is Cipher.TDES and item.session_method is SessionMethod.EMV_COMMON:
                # DES ignores parity, the VIS PIN block does not: EMV puts keys into cards with odd parity, PBOC as
                # computed.
                value = odd_parity(value)
            keys.append(Key(info.cipher, card_key_usage(usage), value))
        return keys


def _factor(factor_of: Callable[[str, str], bytes], request: IssuerScriptRequest) -> bytes | ValueError:
    try:
        return factor_of(request.pan, request.psn)
    except ValueError as error:
        return error


def _context(request: IssuerScriptRequest) -> ScriptContext | ValueError:
    """The transaction that a script answers, of a request whose parts go together."""
    try:
        _require_fitting(request)
        return ScriptContext(method=request.session_method, atc=request.atc, arqc=request.arqc)
    except ValueError as error:
        return error


def _require_fitting(request: IssuerScriptRequest) -> None:
    """
    Raises:
        ValueError: parts of a PIN change with another command, or missing from one.
    """
    if not request.command.has_data:
        parts = (
            request.confidentiality_key,
            request.new_pin,
            request.current_pin,
            request.cryptogram_key,
        )
        if any(part is not None for part in parts):
            raise ValueError("only a PIN change takes PINs, and keys for them")
        return
    if request.new_pin is None or request.confidentiality_key is None:
        raise ValueError("a PIN change needs a PIN, and a key for it")
    if request.current_pin is None:
        if request.command is ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN:
            raise ValueError("this PIN change needs the current PIN")
    elif request.cryptogram_key is None:
        raise ValueError("a current PIN goes with a cryptogram key")


def _script(request: IssuerScriptRequest, context: ScriptContext, parts: _Parts) -> bytes | Refusal:
    refusal = next((part for part in parts if isinstance(part, Exception)), None)
    if refusal is not None:
        return refusal
    udk_smi, new_pin, current_pin, udk_ac, udk_smc = parts
    assert isinstance(udk_smi, Key), "each script is authenticated"
    try:
        if not request.command.has_data:
            return build_issuer_script(request.command, context, udk_smi=udk_smi).command
        assert isinstance(new_pin, Pin), "the request fits its command"
        assert isinstance(udk_smc, Key), "the request fits its command"
        assert udk_ac is None or isinstance(udk_ac, Key), "refusals were told"
        assert current_pin is None or isinstance(current_pin, Pin), "refusals were told"
        return build_pin_change(
            context,
            udk_smi=udk_smi,
            udk_smc=udk_smc,
            pin=new_pin,
            pin_block=ScriptPinBlock.ISO_2 if udk_ac is None else ScriptPinBlock.VIS,
            udk_ac=udk_ac,
            current_pin=current_pin,
        ).command
    except (*KEY_REFUSALS, ValueError) as error:
        return error
