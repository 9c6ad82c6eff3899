"""Purchases and deposits that never give up: each request id is sent until it has an outcome; all are kept."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from core_under_test import OPENING_BALANCE_MINOR, Caller, Core, deposit, purchase
from onecard.v1 import authorization_pb2 as pb
from virtual_card import VirtualCard

from server.settlement.reconcile import reconcile

# What tells a caller to send the same request id again, or that the outcome is unknown.
AGAIN = {"UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED"}


@dataclass
class Workload:
    """Runs on cards of its own; ``answers`` holds every response that a request id was ever given."""

    core: Core
    rng: random.Random
    cards: list[VirtualCard]
    answers: dict[str, list[pb.AuthorizeResponse]] = field(default_factory=dict)
    requests: dict[str, tuple[VirtualCard, pb.AuthorizeRequest]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    def draw(self) -> pb.AuthorizeRequest:
        card = self.rng.choice(self.cards)
        make: Callable[..., pb.AuthorizeRequest] = purchase if self.rng.random() < 0.7 else deposit
        request = make(card, self.rng.randint(1, 300_000), terminal_id=f"W{self.rng.randrange(4)}")
        self.requests[request.request_id] = card, request
        return request

    async def send(self, caller: Caller, request: pb.AuthorizeRequest, *, timeout_s: float = 5.0) -> bool:
        """One attempt; True when it was answered."""
        try:
            response = await caller.authorize(request, timeout_s=timeout_s)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            if code not in AGAIN:
                raise
            self.failures[code] = self.failures.get(code, 0) + 1
            return False
        self.answers.setdefault(request.request_id, []).append(response)
        return True

    async def run(self, callers: list[Caller], *, operations: int, stop: asyncio.Event | None = None) -> None:
        """Sends operations one after another on each caller, each until it is answered or ``stop`` is set."""

        async def keep_sending(caller: Caller) -> None:
            for _ in range(operations):
                request = self.draw()
                while not await self.send(caller, request):
                    if stop is not None and stop.is_set():
                        return
                    await asyncio.sleep(self.rng.uniform(0, 0.1))
                if stop is not None and stop.is_set():
                    return

        await asyncio.gather(*(keep_sending(caller) for caller in callers))

    async def check(self, caller: Caller) -> None:
        """Asks for every outcome again and compares all with each other and with the rows."""
        for request_id, (_, request) in self.requests.items():
            for _ in range(60):
                if await self.send(caller, request):
                    break
                await asyncio.sleep(0.2)
            seen = {answer.SerializeToString() for answer in self.answers[request_id]}
            assert len(seen) == 1, f"request {request_id} was told two outcomes"
            assert await self.core.stored(request_id) == 1
        expected = dict.fromkeys((card.pan for card in self.cards), OPENING_BALANCE_MINOR)
        for request_id, (card, request) in self.requests.items():
            if self.answers[request_id][0].response_code == "00":
                spends = request.operation == pb.OPERATION_TYPE_PURCHASE
                expected[card.pan] += -request.amount_minor if spends else request.amount_minor
        for card in self.cards:
            assert await self.core.balance_minor(card) == expected[card.pan]
            assert expected[card.pan] >= 0
        proof: Any = await reconcile(self.core.dsn)
        assert proof.clean, proof
