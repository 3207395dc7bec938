"""Connections that wait for a message. When there are too many, who has waited longest makes room for who comes."""

import asyncio


class Idle:
    """Those of one port."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Transport, None] = {}  # in the order in which they began to

    def waits(self, transport: asyncio.Transport) -> None:
        """Told when a connection is new, or its latest message has its answer."""
        self._waiting.pop(transport, None)
        self._waiting[transport] = None

    def works(self, transport: asyncio.Transport) -> None:
        """Told when a head is complete, or the connection has ended. Half a head is still waiting."""
        self._waiting.pop(transport, None)

    def make_room(self) -> bool:
        """End the connection that has waited longest; False when all of them work."""
        transport = next(iter(self._waiting), None)
        if transport is None:
            return False
        self.works(transport)
        transport.abort()
        return True
