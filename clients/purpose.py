"""Why personal data are asked for: a published catalogue item and its version."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Purpose:
    """A catalogue item, 1 to 32 characters, and its version, at least 1."""

    catalogue_item: str
    catalogue_item_version: int = 1


CARD_APPLICATION = Purpose("card.apply")
CARD_LOSS = Purpose("card.loss")
CARD_STATUS = Purpose("card.status")
CARD_PIN = Purpose("card.pin")
CARD_TOKEN = Purpose("card.token")
CARD_CODE = Purpose("card.code")
COUNTER_IDENTITY = Purpose("identity.counter")
MEDICAL_VISIT = Purpose("medical.visit")
BENEFIT_PAYOUT = Purpose("benefit.payout")
