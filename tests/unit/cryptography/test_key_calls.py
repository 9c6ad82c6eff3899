"""The key store is asked without stopping the event loop, and what it refuses as a whole is one operating error."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from crypto.errors import KeyStoreExistsError, KeyStoreUnavailableError, KeyUsageError
from crypto.key_store import KeyStore
from server.errors import UnavailableError
from server.key_calls import KeyCalls


class StoreStandIn:
    """A key store of which only the way it is asked matters."""

    def __init__(self, *, is_blocking: bool) -> None:
        self.is_blocking = is_blocking


@pytest.fixture(params=[False, True], ids=["at once", "blocking"])
def keys(request: pytest.FixtureRequest) -> Iterator[KeyCalls]:
    calls = KeyCalls(cast(KeyStore, StoreStandIn(is_blocking=request.param)))
    yield calls
    calls.close()


async def test_answer_is_given_through(keys: KeyCalls) -> None:
    assert await keys.ask(lambda: 17) == 17


@pytest.mark.parametrize("error", [KeyStoreUnavailableError, KeyStoreExistsError])
async def test_store_that_does_not_answer_is_unavailable_and_may_be_asked_again(
    keys: KeyCalls, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    def gone() -> Any:
        raise error("the slot of 70318264 is gone")

    with pytest.raises(UnavailableError) as refusal:
        await keys.ask(gone)
    assert refusal.value.reason == "KEY_STORE_UNAVAILABLE"
    assert refusal.value.retry_delay_ms > 0
    # What a driver says may hold anything: it reaches neither the caller nor the log.
    assert "70318264" not in str(refusal.value) + caplog.text
    assert refusal.value.__cause__ is None
    assert error.__name__ in caplog.text


async def test_refusal_of_one_key_is_not_that_of_the_store(keys: KeyCalls) -> None:
    def misused() -> Any:
        raise KeyUsageError("for something else")

    with pytest.raises(KeyUsageError):
        await keys.ask(misused)


async def test_slow_store_does_not_stop_the_event_loop_and_is_asked_by_one_thread() -> None:
    keys = KeyCalls(cast(KeyStore, StoreStandIn(is_blocking=True)))
    may_answer, asked = threading.Event(), threading.Event()
    threads: list[int] = []

    def slow() -> int:
        asked.set()
        assert may_answer.wait(10)
        threads.append(threading.get_ident())
        return len(threads)

    answers = [asyncio.ensure_future(keys.ask(slow)) for _ in range(5)]
    await asyncio.to_thread(asked.wait, 10)
    # The loop turns while the store holds its thread.
    assert not any(answer.done() for answer in answers)
    may_answer.set()
    assert await asyncio.gather(*answers) == [1, 2, 3, 4, 5]
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    keys.close()


async def test_what_holds_up_a_card_goes_before_what_a_bank_asks_in_frames() -> None:
    keys = KeyCalls(cast(KeyStore, StoreStandIn(is_blocking=True)))
    may_answer, asked = threading.Event(), threading.Event()
    order: list[str] = []

    def slow() -> None:
        asked.set()
        assert may_answer.wait(10)

    held = asyncio.ensure_future(keys.ask(slow))
    await asyncio.to_thread(asked.wait, 10)
    frames = [asyncio.ensure_future(keys.ask(lambda: order.append("frame"))) for _ in range(3)]
    gone = asyncio.ensure_future(keys.ask(lambda: order.append("gone")))
    await asyncio.sleep(0)
    card = asyncio.ensure_future(keys.ask(lambda: order.append("card"), first=True))
    await asyncio.sleep(0)
    gone.cancel()
    may_answer.set()
    await asyncio.gather(held, card, *frames)
    # Who hung up while waiting has no turn, and takes none from the others.
    assert order == ["card", "frame", "frame", "frame"]
    assert await keys.ask(lambda: 5) == 5
    keys.close()


async def test_store_in_the_process_is_asked_at_once() -> None:
    keys = KeyCalls(cast(KeyStore, StoreStandIn(is_blocking=False)))
    assert await keys.ask(threading.get_ident) == threading.get_ident()
    keys.close()
