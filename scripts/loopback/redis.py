"""Real Redis servers of one's own, on the loopback: started, killed, paused and restarted as often as one likes.

For the tests (tests/redis/servers.py) and the scripts. Nothing here knows trio_ws. What was started ends with the
process that started it, whatever becomes of that. The environment variable REDIS_SERVER names another program than the
`redis-server` of this machine: another version, or Valkey's.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import hiredis
import trio

PROGRAM: Final = os.environ.get("REDIS_SERVER", "redis-server")
"""What is run, as a server and as a sentinel."""
PATIENCE: Final = 20.0
"""Seconds for what takes some milliseconds on a machine that has nothing else to do."""
BUS: Final = 10_000
"""How far above its port the server of a cluster listens for the others."""
QUICK: Final = ("down-after-milliseconds", 400), ("failover-timeout", 3000), ("parallel-syncs", 1)
"""How soon sentinels take a primary for dead."""
LIVELY: Final = ("info-period", 100), ("publish-period", 100)
"""How often sentinels look and tell, in milliseconds: their own periods, of up to 10 s, are long for a test."""


class Refused(Exception):
    """The server's answer was an error."""


def installed() -> bool:
    """Whether there is a redis-server here."""
    return shutil.which(PROGRAM) is not None


def speaks_tls() -> bool:
    """Whether that redis-server was built with TLS."""
    # It does not start in either case: what it says first is that it knows no TLS, or that it has no certificate.
    told = subprocess.run([PROGRAM, "--port", "0", "--tls-port", "1"], capture_output=True, check=False)
    return b"Failed to configure TLS" in told.stdout


_held: list[int] = []
"""File descriptors of sockets that hold ports."""


def free_port() -> int:
    """A port of the loopback that nobody else is given while this process lives, below those that the system gives to
    whoever connects. Neither is the one 10,000 above, where the server of a cluster speaks with the others."""
    while True:
        port = random.randrange(10_000, 22_000)
        held = [socket.socket(), socket.socket()]
        try:
            for one, number in zip(held, (port, port + BUS), strict=True):
                one.bind(("127.0.0.1", number))
        except OSError:
            for one in held:
                one.close()
            continue
        for one in held:
            # From now on only who says so too, as servers do, may bind it; who asks for a free port does not.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _held.append(one.detach())
        return port


class RedisServer:
    """One redis-server, or a sentinel, that keeps its port and its data from one life to the next.

    Args:
      directory: for its data, its log and its socket; made where there is none.
      aof: when what it was told is on the disk: ``"always"``, ``"everysec"``, ``"no"``; None keeps nothing.
      password: what clients must say.
      tls: files of a certificate and its key; `port` speaks TLS then.
      options: further ones, as in redis.conf: ``{"maxmemory": "10mb", "replicaof": "127.0.0.1 7000"}``.
      sentinel: it is one.

    Attributes:
      port: where it listens, on 127.0.0.1.
      socket: the path of its Unix socket, or None for a sentinel.
      url: the same, as trio_ws has it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        aof: str | None = None,
        password: str | None = None,
        tls: tuple[Path, Path] | None = None,
        options: dict[str, Any] | None = None,
        sentinel: bool = False,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.socket = None if sentinel else directory / "redis.sock"
        self._password, self._tls, self._sentinel = password, tls, sentinel
        self._process: subprocess.Popen[bytes] | None = None
        self._options: dict[str, Any] = {"bind": "127.0.0.1", "daemonize": "no", "logfile": directory / "log"}
        self._options["dir"] = directory
        if not sentinel:
            self._options |= {
                "unixsocket": self.socket,
                "repl-diskless-sync-delay": 0,
                "save": '""',
                "appendonly": "yes" if aof else "no",
            }
            self._options |= {"appendfsync": aof} if aof else {}
        self._options |= {"requirepass": password, "masterauth": password} if password else {}
        self._options |= options or {}

    @property
    def url(self) -> str:
        """How a client names it."""
        secret = f":{self._password}@" if self._password else ""
        return f"{'rediss' if self._tls else 'redis'}://{secret}127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Of this life; None between two."""
        return None if self._process is None else self._process.pid

    # -- from life to death

    async def start(self) -> None:
        """Begin a life, and wait until it answers: with what earlier ones have left on the disk."""
        self.spawn()
        await self.wait_ready()

    def spawn(self) -> None:
        """Begin a life; it does not answer yet."""
        assert self._process is None, "it runs"
        path = self.directory / "redis.conf"
        # A sentinel writes what it has learnt into its own file, which holds from the second life on.
        if not (self._sentinel and path.exists()):
            port = {"tls-port": self.port, "port": 0} if self._tls else {"port": self.port}
            if self._tls:
                port |= {
                    "tls-cert-file": self._tls[0],
                    "tls-key-file": self._tls[1],
                    "tls-auth-clients": "no",
                }
            lines = [f"{name} {value}" for name, value in (port | self._options).items()]
            path.write_text("\n".join(lines) + "\n")
        command = ["setpriv", "--pdeathsig", "KILL", PROGRAM, str(path)]
        self._process = subprocess.Popen(
            [*command, "--sentinel"] if self._sentinel else command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for those who started it
        )

    async def wait_ready(self) -> None:
        """Wait until it answers, its data loaded."""

        async def answers() -> bool:
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"{PROGRAM} has ended: {(self.directory / 'log').read_text()[-500:]}")
            return await self.call("PING") == b"PONG"

        await until(answers)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def stop(self) -> None:
        """End it in order, with SIGTERM."""
        if self._process is not None:
            self._process.terminate()
            with trio.fail_after(PATIENCE):
                while self._process.poll() is None:  # noqa: ASYNC110
                    await trio.sleep(0.005)
            self._process = None

    async def lose_power(self, seconds: float) -> None:
        """Kill it in so many seconds, and leave on the disk what was there before them, as where its machine loses
        power, and the system had not written yet what came last. It keeps an append-only file."""
        files = *self.directory.glob("appendonlydir/*.incr.aof"), *self.directory.glob("appendonly.aof")
        path = max(files, key=lambda path: path.stat().st_mtime)
        size = path.stat().st_size
        await trio.sleep(seconds)
        self.kill()
        os.truncate(path, size)

    async def restart(self) -> None:
        """Kill it and start it again, with what it has on the disk."""
        self.kill()
        await self.start()

    def pause(self) -> None:
        """Have it stand still (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it go on (SIGCONT)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    # -- by its own protocol

    async def call(self, *words: str | bytes | float) -> Any:
        """One command, on a connection of its own.

        Raises:
          Refused: it has answered with an error.
          OSError: it can't be reached, or hangs up.
          trio.TooSlowError: it does not answer within 2 s.
        """
        with trio.fail_after(2):
            stream = await self._connected()
            async with stream:
                if self._password:
                    await _asked(stream, "AUTH", self._password)
                return await _asked(stream, *words)

    async def configure(self, **options: object) -> None:
        """``CONFIG SET``, with ``_`` for ``-``."""
        for name, value in options.items():
            await self.call("CONFIG", "SET", name.replace("_", "-"), str(value))

    async def info(self) -> dict[str, str]:
        """What ``INFO everything`` tells."""
        lines = (await self.call("INFO", "everything")).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    async def wait_info(self, **wanted: object) -> None:
        """Wait until ``INFO`` says so."""

        async def says() -> bool:
            told = await self.info()
            return all(told.get(name) == str(value) for name, value in wanted.items())

        await until(says)

    async def _connected(self) -> trio.abc.Stream:
        if not self._tls:
            return await trio.open_tcp_stream("127.0.0.1", self.port)
        context = ssl.create_default_context(cafile=str(self._tls[0]))
        return await trio.open_ssl_over_tcp_stream("127.0.0.1", self.port, ssl_context=context)

    async def __aenter__(self) -> RedisServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()


class Sentinels:
    """A primary, a replica, and three sentinels that make the replica primary soon after the primary has died.

    Args:
      directory: for all of them.
      name: how they call the primary.
      options: for both servers, as `RedisServer` takes them.
    """

    def __init__(self, directory: Path, name: str = "events", **options: Any) -> None:
        self.name = name
        self.primary = RedisServer(directory / "primary", **options)
        more = {**options.pop("options", {}), "replicaof": f"127.0.0.1 {self.primary.port}"}
        self.replica = RedisServer(directory / "replica", options=more, **options)
        watched = f"{name} 127.0.0.1 {self.primary.port} 2"
        told: dict[str, Any] = {"sentinel monitor": watched}
        told |= {f"sentinel {what} {name}": value for what, value in QUICK}
        self.sentinels = [
            RedisServer(directory / f"sentinel{n}", options=told, sentinel=True) for n in range(3)
        ]

    @property
    def url(self) -> str:
        """How a client names them."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/{self.name}"

    async def wait_primary(self, server: RedisServer) -> None:
        """Wait until all sentinels call it the primary, and it says so itself."""
        port = str(server.port).encode()

        async def agreed() -> bool:
            told = [
                await one.call("SENTINEL", "get-master-addr-by-name", self.name) for one in self.sentinels
            ]
            return all(address[1] == port for address in told)

        await until(agreed)
        await server.wait_info(role="master")

    async def __aenter__(self) -> Sentinels:
        await self.primary.start()
        await self.replica.start()
        await self.replica.wait_info(master_link_status="up")
        for sentinel in self.sentinels:
            await sentinel.start()
            try:
                for what, milliseconds in LIVELY:
                    await sentinel.call("SENTINEL", "DEBUG", what, milliseconds)
            except (
                Refused
            ):  # before Redis 7 they keep their periods, and ask once a second whether who is there lives
                await sentinel.call("SENTINEL", "SET", self.name, "down-after-milliseconds", 2000)

        async def know_each_other() -> bool:
            for one in self.sentinels:
                told = await one.call("SENTINEL", "master", self.name)
                known = dict(zip(told[::2], told[1::2], strict=True))
                if (known[b"num-other-sentinels"], known[b"num-slaves"]) != (b"2", b"1"):
                    return False
            return True

        await until(know_each_other)
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in (*self.sentinels, self.replica, self.primary):
            server.kill()


class RedisCluster:
    """Three primaries that share the slots of a Redis Cluster.

    Args:
      directory: for all of them.
      replicas: each has one, which takes over from it soon after it has died.
      options: for each, as `RedisServer` takes them.

    Attributes:
      servers: all of them; the first three are the primaries of the beginning.
    """

    def __init__(self, directory: Path, *, replicas: bool = False, **options: Any) -> None:
        shared = {**options.pop("options", {}), "cluster-enabled": "yes", "cluster-node-timeout": 2000}
        self.servers = [
            RedisServer(directory / f"node{n}", options=shared, **options)
            for n in range(6 if replicas else 3)
        ]

    @property
    def url(self) -> str:
        """How a client names it."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{one.port}' for one in self.servers)}"

    async def __aenter__(self) -> RedisCluster:
        share = 16384 // 3 + 1
        for n, server in enumerate(self.servers):
            await server.start()
            await server.call("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            if n < 3:
                await server.call("CLUSTER", "ADDSLOTS", *range(n * share, min((n + 1) * share, 16384)))
        for server in self.servers[1:]:
            await self.servers[0].call("CLUSTER", "MEET", "127.0.0.1", server.port)
        await until(self.is_whole)
        for primary, replica in zip(self.servers, self.servers[3:], strict=False):
            await replica.call("CLUSTER", "REPLICATE", await primary.call("CLUSTER", "MYID"))
            await replica.wait_info(master_link_status="up")
        return self

    async def is_whole(self) -> bool:
        """Whether all servers know each other, and that there is nothing amiss."""
        told = [await server.call("CLUSTER", "INFO") for server in self.servers]
        known = b"cluster_known_nodes:%d" % len(self.servers)
        return all(b"cluster_state:ok" in one and known in one for one in told)

    async def __aexit__(self, *_: object) -> None:
        for server in self.servers:
            server.kill()


async def until(condition: Callable[[], Awaitable[bool]], patience: float = PATIENCE) -> None:
    """Wait until a condition holds; a server that can't be reached, or refuses, is one where it doesn't.

    Raises:
      trio.TooSlowError: it doesn't, within so many seconds.
    """
    with trio.fail_after(patience):
        while True:
            try:
                if await condition():
                    return
            except (OSError, trio.TooSlowError, trio.BrokenResourceError, Refused):
                pass
            await trio.sleep(0.01)


async def _asked(stream: trio.abc.Stream, *words: str | bytes | float) -> Any:
    await stream.send_all(encoded(words))
    reader = hiredis.Reader(replyError=Refused)
    while (answer := reader.gets()) is False:
        piece = await stream.receive_some()
        if not piece:
            raise ConnectionResetError("the server has hung up")
        reader.feed(piece)
    if isinstance(answer, Refused):
        raise answer
    return answer


def encoded(words: Sequence[str | bytes | float]) -> bytes:
    """A command as Redis reads it."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
