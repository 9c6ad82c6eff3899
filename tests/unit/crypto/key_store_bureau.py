"""A personalisation bureau over any backend, for virtual cards: production stores give no card key away."""

from crypto.diversification import city_region, complemented, ss_card_factor
from crypto.key_store.checks import CardKeys
from crypto.key_store.listed_store import ListedKeyStore
from crypto.keys import Key, KeyRef, KeyUsage


class Bureau:
    """What ``crypto_virtual_card`` asks of a store, made of the primitives that every backend has."""

    def __init__(self, store: ListedKeyStore) -> None:
        self._store = store
        self.active = store.active

    def personalise(
        self, *, imk: KeyRef, ss_master: KeyRef, pan: str, psn: str, region: str, atr_historical_bytes: bytes
    ) -> CardKeys:
        cipher = self._store.require_generating(ss_master, KeyUsage.SS_AUTHENTICATION_PROVINCE).cipher
        factor = complemented(ss_card_factor(atr_historical_bytes))
        card_key = self._store.encrypt_under_city(ss_master, city_region(region), factor)
        return CardKeys(
            udk_ac=self._store.diversify_udks(imk, [(pan, psn)])[0],
            ss_authentication=Key(cipher, KeyUsage.SS_AUTHENTICATION_CARD, card_key),
        )
