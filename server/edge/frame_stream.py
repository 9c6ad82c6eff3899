"""Frames on a bidi stream: several worked on at once, answered in order, each under the caller's present grants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from server.edge.caller import Participant

FRAMES_IN_FLIGHT_MAX = 8

Frame = TypeVar("Frame")
Answer = TypeVar("Answer")


async def answer_frames(
    frames: AsyncIterator[Frame],
    answer: Callable[[Frame, Participant], Awaitable[Answer]],
    *,
    caller: Participant,
    rpc_class: str,
    renew: Callable[[Participant], Participant],
) -> AsyncIterator[Answer]:
    """Yields the answer of each frame; ``answer`` gets the frame and the caller as it is when the frame arrives.

    ``renew`` gives a caller's present grants: a stream lives long, and what was granted when it began may be withdrawn
    since.

    Raises:
        OneCardError: the stream is refused as a whole, or a frame is malformed.
    """
    waiting: asyncio.Queue[asyncio.Task[Answer] | None] = asyncio.Queue()
    places = asyncio.Semaphore(FRAMES_IN_FLIGHT_MAX)

    async def read() -> None:
        try:
            async for frame in frames:
                await places.acquire()
                current = renew(caller)
                current.require_rpc_class(rpc_class)
                waiting.put_nowait(asyncio.ensure_future(answer(frame, current)))
        finally:
            waiting.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await waiting.get()) is not None:
            answered = await task
            places.release()
            yield answered
        await reader
    finally:
        reader.cancel()
        # What the engine has taken of them commits all the same.
        while not waiting.empty():
            if (unanswered := waiting.get_nowait()) is not None:
                unanswered.cancel()
