"""A personalisation bureau over any backend, for virtual cards: production stores give no card key away."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from crypto.diversification import city_region, complemented, ss_card_factor
from crypto.key_store.checks import CardKeys
from crypto.key_store.listed_store import ListedKeyStore
from crypto.key_store.pkcs11_token import Pkcs11KeyStore
from crypto.key_store.token_settings import TokenMode
from crypto.keys import Key, KeyRef, KeyUsage


@contextlib.contextmanager
def handing_out_card_keys(store: ListedKeyStore) -> Iterator[ListedKeyStore]:
    """The store, in batch mode if it is a token's in strict mode, from which card keys do not come."""
    if not isinstance(store, Pkcs11KeyStore):
        yield store
        return
    connection = store._connection
    settings = connection.settings
    connection.settings = replace(settings, mode=TokenMode.BATCH)
    try:
        yield store
    finally:
        connection.settings = settings


class Bureau:
    """What ``crypto_virtual_card`` asks of a store, made of the primitives that every backend has."""

    def __init__(self, store: ListedKeyStore) -> None:
        self._store = store
        self.active = store.active

    def personalise(
        self, *, imk: KeyRef, ss_master: KeyRef, pan: str, psn: str, region: str, atr_historical_bytes: bytes
    ) -> CardKeys:
        with handing_out_card_keys(self._store) as store:
            cipher = store.require_generating(ss_master, KeyUsage.SS_AUTHENTICATION_PROVINCE).cipher
            factor = complemented(ss_card_factor(atr_historical_bytes))
            card_key = store.encrypt_under_city(ss_master, city_region(region), factor)
            return CardKeys(
                udk_ac=store.diversify_udks(imk, [(pan, psn)])[0],
                ss_authentication=Key(cipher, KeyUsage.SS_AUTHENTICATION_CARD, card_key),
            )
