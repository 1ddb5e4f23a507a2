"""A relay for one address, TCP and UDP, that can be cut: what two processes on one machine say to each other stops."""

import asyncio
import threading
from typing import Any

from stack.processes import free_port


class Relay:
    """Forwards what arrives at `port` to another port of this machine, in a thread of its own."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.cut = False
        """Nothing passes, and TCP connections end; what UDP carried meanwhile is lost."""
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the relay does not listen")

    def sever(self) -> None:
        """Cut it."""
        self.cut = True
        self._loop.call_soon_threadsafe(self._end_connections)

    def close(self) -> None:
        """End it."""
        self.sever()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _end_connections(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", self.port))
        address = ("127.0.0.1", self.port)
        transport, _ = self._loop.run_until_complete(
            self._loop.create_datagram_endpoint(lambda: _Datagrams(self, self._target), local_addr=address)
        )
        self._ready.set()
        self._loop.run_forever()
        transport.close()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            writer.transport.abort()
            return
        try:
            onward, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(_pump(reader, back), _pump(onward, writer))
        finally:
            self._writers -= {writer, back}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    """Sends datagrams on from one socket; the gossip names whom to answer, so answers need no way back."""

    def __init__(self, relay: Relay, target: int) -> None:
        self._relay = relay
        self._target = ("127.0.0.1", target)
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, _address: Any) -> None:
        if not self._relay.cut:
            self._transport.sendto(data, self._target)
