"""nginx and Caddy as child processes, with the very files of docs/deploying: only ports and paths are others."""

from __future__ import annotations

import datetime
import ipaddress
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DEPLOYING = Path(__file__).resolve().parents[2] / "docs" / "deploying"

Ports: TypeAlias = int | Sequence[int]
UPSTREAM: Final = "server 127.0.0.1:%d max_fails=1 fail_timeout=1s;"


def several(ports: Ports) -> Sequence[int]:
    """One port, or those of several nodes, as several."""
    return [ports] if isinstance(ports, int) else ports


def replaced(name: str, changes: dict[str, str]) -> str:
    """A file of docs/deploying, with each key of `changes` replaced; one that is not there is a failure."""
    text = (DEPLOYING / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


def free_port() -> int:
    """A port of the loopback that nobody listens on, below those that the system gives to whoever connects: else a
    test in another process might have it in between."""
    while True:
        port = random.randrange(10_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and localhost that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, key_file = directory / "certificate.pem", directory / "certificate.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, key_file


@attrs.define(kw_only=True)
class Proxy:
    """A proxy as a child process.

    Attributes:
      clients, backends: the ports of its two sides.
      trust: a context that believes its certificate.
      command, environment: how it is started.
      reload: how it is told to read its configuration again; None for SIGHUP.
      log: where it logs calls.
    """

    clients: int
    backends: int
    trust: ssl.SSLContext
    command: list[str]
    environment: dict[str, str] | None = None
    reload: list[str] | None = None
    log: Path
    _process: trio.Process | None = None

    @property
    def ws(self) -> str:
        """Where clients connect."""
        return f"wss://localhost:{self.clients}/ws"

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        devnull = subprocess.DEVNULL
        self._process = await trio.lowlevel.open_process(
            self.command, stdout=devnull, stderr=devnull, env=self.environment
        )
        with trio.fail_after(30):
            while True:
                assert self._process.poll() is None, f"{self.command} ended"
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", self.clients)).aclose()
                except OSError:
                    await trio.sleep(0.02)
                else:
                    return

    async def stop(self) -> None:
        """End it, as its service manager would; connections through it are cut."""
        if self._process is None:
            return
        with trio.CancelScope(shield=True):
            self._process.terminate()
            with trio.move_on_after(5):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()

    async def read_again(self) -> None:
        """Have it read its configuration again."""
        assert self._process is not None
        if self.reload is None:
            self._process.send_signal(signal.SIGHUP)
        else:
            await trio.run_process(
                self.reload, capture_stdout=True, capture_stderr=True, env=self.environment
            )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """It runs while the block does."""
        try:
            await self.start()
            yield self
        finally:
            await self.stop()


@asynccontextmanager
async def nginx(
    directory: Path, ws: Ports, admin: Ports, *, changes: dict[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """nginx before a server whose ports are `ws` and `admin`, or several nodes; `changes` to its file besides."""
    program = found("nginx")
    pem, key = make_certificate(directory)
    clients, backends = free_port(), free_port()
    log = directory / "access.log"
    text = replaced(
        "nginx.conf",
        {
            "listen 443 ssl": f"listen 127.0.0.1:{clients} ssl",
            "listen 10.0.0.1:8443 ssl": f"listen 127.0.0.1:{backends} ssl",
            "allow 10.0.0.0/8": "allow 127.0.0.0/8",
            "server_name events.example.com": "server_name localhost",
            "server_name events.internal": "server_name localhost",
            "/etc/ssl/events.example.com.pem": str(pem),
            "/etc/ssl/events.example.com.key": str(key),
            "/etc/ssl/events.internal.pem": str(pem),
            "/etc/ssl/events.internal.key": str(key),
            "/var/log/nginx/trio-ws.log": str(log),
            UPSTREAM % 8765: "\n    ".join(UPSTREAM % port for port in several(ws)),
            UPSTREAM % 8766: "\n    ".join(UPSTREAM % port for port in several(admin)),
        },
    )
    for old, new in (changes or {}).items():
        assert old in text, f"nginx.conf has no {old!r}"
        text = text.replace(old, new)
    (directory / "site.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    own = "\n".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
    (directory / "main.conf").write_text(
        f"{'user root;' if os.getuid() == 0 else ''}\npid {directory}/pid;\nworker_processes 1;\ndaemon off;\n"
        f"error_log stderr;\nevents {{ worker_connections 128; }}\n"
        f"http {{\n{own}\naccess_log off;\ninclude {directory}/site.conf;\n}}\n"
    )
    command = [program, "-p", str(directory), "-e", "stderr", "-c", str(directory / "main.conf")]
    trust = ssl.create_default_context(cafile=str(pem))
    proxy = Proxy(clients=clients, backends=backends, trust=trust, command=command, log=log)
    async with proxy.running():
        yield proxy


@asynccontextmanager
async def caddy(
    directory: Path, ws: Ports, admin: Ports, *, changes: dict[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """Caddy, as `nginx`."""
    program = found("caddy")
    pem, key = make_certificate(directory)
    clients, backends, control = free_port(), free_port(), free_port()
    text = replaced(
        "Caddyfile",
        {
            "{$SITE:events.example.com} {": f"https://localhost:{clients} {{\n\ttls {pem} {key}",
            "{$INNER_SITE:events.internal}:8443 {": f"https://localhost:{backends} {{",
            "tls internal": f"tls {pem} {key}",
            "{$BACKENDS:10.0.0.0/8}": "127.0.0.0/8",
        },
    )
    for old, new in (changes or {}).items():
        assert old in text, f"Caddyfile has no {old!r}"
        text = text.replace(old, new)
    log = directory / "access.log"
    file = directory / "Caddyfile"
    file.write_text(f"{{\n\tadmin 127.0.0.1:{control}\n\tauto_https disable_redirects\n}}\n{text}")
    config = ["--config", str(file), "--adapter", "caddyfile"]
    proxy = Proxy(
        clients=clients,
        backends=backends,
        trust=ssl.create_default_context(cafile=str(pem)),
        command=[program, "run", *config],
        environment={
            **os.environ,
            "XDG_DATA_HOME": str(directory),
            "XDG_CONFIG_HOME": str(directory),
            "NODES": " ".join(f"127.0.0.1:{port}" for port in several(ws)),
            "ADMIN_NODES": " ".join(f"127.0.0.1:{port}" for port in several(admin)),
        },
        reload=[program, "reload", *config, "--force", "--address", f"127.0.0.1:{control}"],
        log=log,
    )
    async with proxy.running():
        yield proxy


def found(program: str) -> str:
    """Where a program is; without it the test is skipped."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        pytest.skip(f"SKIPPED, and nothing was shown: there is no {program} here (apt-get install {program})")
    return path
