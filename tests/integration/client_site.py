"""The typed clients on the core under test: a participant's channel, and cards with chips as a bureau makes them."""

import contextlib
from collections.abc import AsyncIterator

from core_under_test import Core

from clients.channel import ClientCredentials, OneCardChannel
from clients.demo.residents import Bureau, Resident
from clients.retry import RetryPolicy
from clients.service_client import OneCardClient
from server.development_ca import issue_participant_certificate


@contextlib.asynccontextmanager
async def client_of(
    core: Core, participant_id: str = "bank-01", *, retry: RetryPolicy | None = None
) -> AsyncIterator[OneCardClient]:
    """A participant's client over connections of its own."""
    issue_participant_certificate(core.data_dir, participant_id)
    credentials = ClientCredentials.of_participant(core.data_dir, participant_id)
    async with OneCardChannel(core.address, credentials, channels=2, deadline_s=20.0, retry=retry) as channel:
        yield OneCardClient(channel)


def resident_of(core: Core) -> Resident:
    """The holder of a card that no test has used, with its chip."""
    return Bureau(core.data_dir).produce(core.card().n)[1]
