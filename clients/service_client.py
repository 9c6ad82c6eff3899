"""One typed method for each RPC of the core; a test compares them with the protos by reflection.

Requests go out as the caller built them. What a bank or an agency makes of them is in their own modules.
"""

from clients.services.authorization import AuthorizationClient
from clients.services.card_authentication import CardAuthenticationClient
from clients.services.cards import CardClient
from clients.services.cryptography import CryptographyClient
from clients.services.identity import IdentityClient
from clients.services.keys import KeyClient
from clients.services.rules import RuleClient
from clients.services.settlement import SettlementClient


class OneCardClient(
    AuthorizationClient,
    CardAuthenticationClient,
    IdentityClient,
    CardClient,
    CryptographyClient,
    KeyClient,
    RuleClient,
    SettlementClient,
):
    """Every RPC of the core over one channel. Each method raises ``OneCardCallError`` when there is no answer."""
