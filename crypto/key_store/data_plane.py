"""The data plane: what a hardware security module does for a bank's core, in batches, under named keys.

Every function takes many requests and gives as many results, in order; what is wrong with one request or its key is an
error *value* in its place, a verification that is right is None. Only a store that does not answer raises,
``KeyStoreUnavailableError``, for all of them. Must never give a key or a PIN away, and never keep what was derived of
a key longer than the key.
"""

import time
from collections.abc import Sequence
from typing import TypeVar

from crypto.card_verification import generate_cvv, verify_cvv
from crypto.dukpt_host import DukptHost
from crypto.dukpt_tdes import DukptKeyUse
from crypto.errors import KEY_REFUSALS, VerificationError
from crypto.key_store import KeyStore
from crypto.key_store.checks import ArqcCheck, VerifiedArqc
from crypto.key_store.pin_operations import PinOperations, Refusal, in_groups
from crypto.key_store.requests import (
    CardVerificationCheck,
    CardVerificationRequest,
    EncryptedPin,
    IssuedPin,
    IssuerScriptRequest,
    MacCheck,
    MacRequest,
    PinIssue,
    PinReferences,
    PinTranslation,
)
from crypto.key_store.script_operations import ScriptOperations
from crypto.keys import Key, KeyRef, KeyUsage
from crypto.message_mac import MAC_USAGES, generate_message_mac, verify_message_mac

PVK_NAME = "pvk"
# Inner keys of terminals' trees that each BDK keeps: ten per busy terminal are plenty.
DUKPT_CACHE_MAX = 65_536
DUKPT_HOSTS_MAX = 64
# How long what was derived of a destroyed key may stay in memory while there are calls.
HOSTS_CHECKED_EVERY_S = 1.0

MacItem = TypeVar("MacItem", MacRequest, MacCheck)


class DataPlane:
    """The data plane over one key store. For one thread at a time."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._dukpt_hosts: dict[KeyRef, DukptHost] = {}
        self._hosts_checked_s = -HOSTS_CHECKED_EVERY_S
        self._pins = PinOperations(store, dukpt_host=self._dukpt_host, pvk_name=PVK_NAME)
        self._scripts = ScriptOperations(store, self._pins)

    def __repr__(self) -> str:
        return "DataPlane(****)"

    def verify_arqcs(self, checks: Sequence[ArqcCheck]) -> list[VerifiedArqc | Refusal | None]:
        """Checks cryptograms: able to answer the card when proven, None when not, a key error when it could not be."""
        self._drop_unusable_hosts()
        refusals: dict[KeyRef, Refusal] = {}
        for ref in {check.key for check in checks}:
            try:
                self._store.require_usable(ref, KeyUsage.IMK_AC)
            except KEY_REFUSALS as error:
                refusals[ref] = error
        verified = iter(self._store.verify_arqcs([check for check in checks if check.key not in refusals]))
        return [refusals[check.key] if check.key in refusals else next(verified) for check in checks]

    def pin_references(self, pins: Sequence[EncryptedPin]) -> list[PinReferences | Refusal]:
        """What PINs are verified against: see ``PinOperations.references``."""
        self._drop_unusable_hosts()
        return self._pins.references(pins)

    def translate_pins(self, translations: Sequence[PinTranslation]) -> list[bytes | Refusal]:
        """Moves PINs to another key and format: see ``PinOperations.translate``."""
        self._drop_unusable_hosts()
        return self._pins.translate(translations)

    def issue_pins(self, issues: Sequence[PinIssue]) -> list[IssuedPin | Refusal]:
        """Draws PINs: see ``PinOperations.issue``."""
        self._drop_unusable_hosts()
        return self._pins.issue(issues)

    def generate_macs(self, requests: Sequence[MacRequest]) -> list[bytes | Refusal]:
        """Message authentication codes, ``size`` bytes each."""

        def generated(group: tuple[KeyRef, bool], items: Sequence[MacRequest]) -> list[bytes | Refusal]:
            keys = self._mac_keys(group, items, DukptKeyUse.MAC_RESPONSE, generating=True)
            return [_generated(key, item) for key, item in zip(keys, items, strict=True)]

        self._drop_unusable_hosts()
        return in_groups(requests, lambda request: (request.key, bool(request.ksn)), generated)

    def verify_macs(self, checks: Sequence[MacCheck]) -> list[Refusal | None]:
        """None for a code that fits, ``MacInvalidError`` for one that does not."""

        def verified(group: tuple[KeyRef, bool], items: Sequence[MacCheck]) -> list[Refusal | None]:
            requests = [item.request for item in items]
            keys = self._mac_keys(group, requests, DukptKeyUse.MAC_REQUEST, generating=False)
            return [_verified(key, item) for key, item in zip(keys, items, strict=True)]

        self._drop_unusable_hosts()
        return in_groups(checks, lambda check: (check.request.key, bool(check.request.ksn)), verified)

    def generate_card_verifications(self, requests: Sequence[CardVerificationRequest]) -> list[str | Refusal]:
        """Card verification values, three digits each."""

        def generated(ref: KeyRef, items: Sequence[CardVerificationRequest]) -> list[str | Refusal]:
            cvk = self._store.open_key(ref, KeyUsage.CARD_VERIFICATION, generating=True)
            return [_card_verification(cvk, item) for item in items]

        self._drop_unusable_hosts()
        return in_groups(requests, lambda request: request.key, generated)

    def verify_card_verifications(self, checks: Sequence[CardVerificationCheck]) -> list[Refusal | None]:
        """None for a value that fits, ``CardVerificationInvalidError`` for one that does not."""

        def verified(ref: KeyRef, items: Sequence[CardVerificationCheck]) -> list[Refusal | None]:
            cvk = self._store.open_key(ref, KeyUsage.CARD_VERIFICATION)
            return [_verified_card_verification(cvk, item) for item in items]

        self._drop_unusable_hosts()
        return in_groups(checks, lambda check: check.request.key, verified)

    def generate_issuer_scripts(self, requests: Sequence[IssuerScriptRequest]) -> list[bytes | Refusal]:
        """Whole commands for cards: see ``ScriptOperations.generate``."""
        self._drop_unusable_hosts()
        return self._scripts.generate(requests)

    def _mac_keys(
        self,
        group: tuple[KeyRef, bool],
        requests: Sequence[MacRequest],
        use: DukptKeyUse,
        *,
        generating: bool,
    ) -> Sequence[Key | Refusal]:
        """The key of each request: one MAC key for all of them, or a terminal's for each."""
        ref, is_dukpt = group
        if is_dukpt:
            return self._dukpt_host(ref).working_keys([(request.ksn, use) for request in requests])
        return [self._store.open_key(ref, *MAC_USAGES, generating=generating)] * len(requests)

    def _dukpt_host(self, ref: KeyRef) -> DukptHost:
        """
        Raises:
            KeyNotFoundError, KeyUsageError, KeyStateError: no BDK that may be used; what was derived of it is dropped.
        """
        try:
            bdk = self._store.open_key(ref, KeyUsage.BDK)
        except KEY_REFUSALS:
            self._dukpt_hosts.pop(ref, None)
            raise
        host = self._dukpt_hosts.get(ref)
        if host is None:
            if len(self._dukpt_hosts) >= DUKPT_HOSTS_MAX:
                self._dukpt_hosts.clear()
            host = self._dukpt_hosts[ref] = DukptHost(bdk, cache_max=DUKPT_CACHE_MAX)
        return host

    def _drop_unusable_hosts(self) -> None:
        """Ends what was derived of keys that were destroyed since: nobody may ask for them again."""
        now_s = time.monotonic()
        if now_s - self._hosts_checked_s < HOSTS_CHECKED_EVERY_S:
            return
        self._hosts_checked_s = now_s
        for ref in list(self._dukpt_hosts):
            try:
                self._store.require_usable(ref, KeyUsage.BDK)
            except KEY_REFUSALS:
                del self._dukpt_hosts[ref]


def _generated(key: Key | Refusal, request: MacRequest) -> bytes | Refusal:
    if not isinstance(key, Key):
        return key
    try:
        return generate_message_mac(key, request.message, padding=request.padding, size=request.size)
    except (*KEY_REFUSALS, ValueError) as error:
        return error


def _verified(key: Key | Refusal, check: MacCheck) -> Refusal | None:
    if not isinstance(key, Key):
        return key
    request = check.request
    try:
        verify_message_mac(key, request.message, mac=check.mac, padding=request.padding, size=request.size)
    except (*KEY_REFUSALS, VerificationError, ValueError) as error:
        return error
    return None


def _card_verification(cvk: Key, request: CardVerificationRequest) -> str | Refusal:
    try:
        return generate_cvv(
            cvk,
            kind=request.kind,
            pan=request.pan,
            expiry=request.expiry,
            service_code=request.service_code,
        )
    except (*KEY_REFUSALS, ValueError) as error:
        return error


def _verified_card_verification(cvk: Key, check: CardVerificationCheck) -> Refusal | None:
    request = check.request
    try:
        verify_cvv(
            cvk,
            kind=request.kind,
            pan=request.pan,
            expiry=request.expiry,
            service_code=request.service_code,
            value=check.value,
        )
    except (*KEY_REFUSALS, VerificationError, ValueError) as error:
        return error
    return None
