"""What `ws` on Node costs, alone; and where Node's packages are."""

from __future__ import annotations

import json
import shutil
import subprocess

from ..processes import ROOT
from . import Command, Peer

CACHE = ROOT / ".bench"
PACKAGES = {"socket.io": "4.8.4", "ws": "8.23.0"}


def install() -> None:
    """Put Node's packages into `CACHE`, with npm, unless these are there; RuntimeError where that can't be."""
    if all((CACHE / "node_modules" / name / "package.json").exists() for name in PACKAGES):
        return
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise RuntimeError("node and npm are not installed")
    CACHE.mkdir(exist_ok=True)
    (CACHE / "package.json").write_text(json.dumps({"private": True, "dependencies": PACKAGES}))
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=CACHE,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"npm install failed: {done.stderr.strip()[-500:]}")


def versions(*names: str) -> str:
    """What is installed of `names`, and of Node."""
    install()
    found = [
        f"{name} {json.loads((CACHE / 'node_modules' / name / 'package.json').read_text())['version']}"
        for name in names
    ]
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return ", ".join([*found, f"node {node.stdout.strip()}"])


def script(name: str, *arguments: object) -> Command:
    """The command that runs a server of `servers/` on Node."""
    return ["node", str(ROOT / "scripts/benchmarks/servers" / name), *map(str, arguments)]


ENVIRONMENT = {"NODE_PATH": str(CACHE / "node_modules")}

PEERS = [
    Peer(
        name="ws-node",
        client="session:JsonAck",
        server=lambda port, _: script("ws.js", port),
        environment=ENVIRONMENT,
        version=lambda: versions("ws"),
        reliability="none: acks are counted, nothing is kept, nothing is sent again",
    )
]
