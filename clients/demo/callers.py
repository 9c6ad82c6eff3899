"""The participants of the demonstration, each with its own certificate and connections."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from clients.channel import ClientCredentials, OneCardChannel
from clients.demo.core_process import AGENCY, BANK, FUND, OPERATORS, TERMINAL_OPERATOR, DemoCore
from clients.service_client import OneCardClient

# Enough that no worker is left without one: connections fall on workers by chance.
CHANNELS = 8


@dataclass(frozen=True)
class Callers:
    """Clients of the participants; two of them look after keys and rules."""

    bank: OneCardClient
    agency: OneCardClient
    terminals: OneCardClient
    fund: OneCardClient
    operators: tuple[OneCardClient, OneCardClient]


@contextlib.asynccontextmanager
async def connected(core: DemoCore) -> AsyncIterator[Callers]:
    """The participants' clients, each over its own connections and under its own certificate."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for participant in (BANK, AGENCY, TERMINAL_OPERATOR, FUND, *OPERATORS):
            credentials = ClientCredentials.of_participant(core.data_dir, participant)
            channel = OneCardChannel(core.address, credentials, channels=CHANNELS)
            clients.append(OneCardClient(await stack.enter_async_context(channel)))
        bank, agency, terminals, fund, first, second = clients
        yield Callers(bank, agency, terminals, fund, (first, second))
