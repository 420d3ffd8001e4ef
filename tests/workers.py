"""Two processes with torch loaded that stay and act as the ranks of one group."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection


class Pair:
    """Two processes that stay for the session and run functions as ranks 0 and 1 of one group."""

    def __init__(self) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(["torch", "stadlib.training.stages", "stadlib.world.sets"])
        pipes = [context.Pipe() for _ in range(2)]
        self._connections = [ours for ours, _ in pipes]
        self._processes = [context.Process(target=_serve, args=(theirs,)) for _, theirs in pipes]
        for process in self._processes:
            process.start()
        for _, theirs in pipes:
            theirs.close()

    def run(self, function: Callable, *arguments: object) -> list:
        """Run ``function(*arguments)`` in both, in today's environment; return both results."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for rank, connection in enumerate(self._connections):
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            connection.send(({**os.environ, **group, **ranks}, function, arguments))
        answers = [connection.recv() for connection in self._connections]
        for _, error in answers:
            assert error is None, error
        return [result for result, _ in answers]

    def close(self) -> None:
        """End both."""
        for connection in self._connections:
            connection.send(None)
            connection.close()
        for process in self._processes:
            process.join()


def _serve(connection: Connection) -> None:
    from stadlib.training import processes

    while (task := connection.recv()) is not None:
        environment, function, arguments = task
        os.environ.clear()
        os.environ.update(environment)
        try:
            with processes.group():
                answer = function(*arguments), None
        except BaseException:
            answer = None, traceback.format_exc()
        connection.send(answer)
