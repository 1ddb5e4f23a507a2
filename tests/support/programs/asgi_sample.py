"""An ASGI application with squares, a slow answer, a stream and a WebSocket, for uvicorn's workers in tests."""

import asyncio
import os
import time
from pathlib import Path

from mempressure import get_lazy_loader

get_lazy_loader()
SLOW_SECONDS = 1.0
HELD_UP = Path(os.environ.get("SAMPLE_DIR", "/nowhere"), "held-up")
"""While this file is there no worker gets to its first request."""

while HELD_UP.exists():
    time.sleep(0.02)


async def disconnected(receive):
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def app(scope, receive, send):
    """Answer /square/N with its square, else this worker's pid at once and the end later; accept any WebSocket.

    /stream is that pid again and again, for as long as the client listens.
    """
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    elif scope["path"].startswith("/square/"):
        body = b"%d" % (int(scope["path"].removeprefix("/square/")) ** 2)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
    elif scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        gone = asyncio.create_task(disconnected(receive))
        while not gone.done():
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % os.getpid(), "more_body": True})
            await asyncio.sleep(0.05)
    else:
        start = f"{os.getpid()}\n".encode()
        end = b"the end"
        headers = [(b"content-length", b"%d" % (len(start) + len(end)))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": start, "more_body": True})
        await asyncio.sleep(SLOW_SECONDS)
        await send({"type": "http.response.body", "body": end})
