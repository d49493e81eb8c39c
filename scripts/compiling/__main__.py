"""Compiles the modules of the hot path with mypyc, from the same sources: in place, into a directory, or into a wheel.

`scripts/compile` is its command. For wheels it is a build hook of hatchling, off unless HATCH_BUILD_HOOK_ENABLE_CUSTOM
is set (see docs/performance.md).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # as a command it needs no hatchling
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parents[2]
GROUP = "trio_ws"
"""The modules share one library, of this name and `__mypyc`, beside the package."""

# What is hot and synchronous. Not the frames, which have to be structs of msgspec, nor what the public may subclass or
# patch (the hub), nor coroutines where a close or a traceback counts (the server's).
MODULES = (
    "core/books",
    "core/buffer",
    "core/confirmations",
    "core/deltas",
    "core/entry",
    "core/flight",
    "core/gaps",
    "core/histogram",
    "core/journal",
    "core/ledger",
    "core/mailbox",
    "core/payload",
    "core/remembered",
    "core/rest",
    "core/retention",
    "core/session",
    "core/timers",
    "core/track",
    "core/wire",
    "hub/acceptance",
    "hub/attachment",
    "hub/engine",
    "hub/flusher",
    "hub/intake",
    "hub/parcel",
    "server/lane",
)

NATIVES = ("core/entry", "core/journal", "hub/parcel")
"""Those of them whose structs become native classes: see natives.py."""


def libraries(root: Path) -> list[Path]:
    """What was compiled into `root`."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return [*root.glob(f"*__mypyc{suffix}"), *root.glob(f"trio_ws/*/*{suffix}")]


def clean(root: Path) -> None:
    """Leave the pure package in `root`."""
    for library in libraries(root):
        library.unlink()


def check_compiler() -> None:
    """End the program where there is no C compiler, and say what to install."""
    name = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(name) is None:
        sys.exit(
            f"There is no C compiler ({name}), and a compiled build needs one: on Debian and Ubuntu the package gcc, "
            "on macOS the Xcode command line tools; or name one by CC. Without it the package does the same, slower."
        )


def compile_into(root: Path, target: Path) -> None:
    """Compile the modules of the package in `root`, and put what comes out into `target`, by their places there.

    In a process of its own: mypyc takes over the process that it runs in.
    """
    check_compiler()
    command = [sys.executable, __file__, "--worker", os.fspath(target)]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\nThe modules could not be compiled.")


def work(target: Path) -> None:
    """Compile a copy of what is in the current directory."""
    from mypyc.build import mypycify
    from natives import with_natives
    from setuptools import Distribution

    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(
            "trio_ws", Path(scratch, "trio_ws"), ignore=shutil.ignore_patterns("__pycache__", "*.so")
        )
        shutil.copy("pyproject.toml", scratch)
        os.chdir(scratch)
        for module in NATIVES:
            path = Path(f"trio_ws/{module}.py")
            path.write_text(with_natives(path.read_text(), module))
        sources = [f"trio_ws/{module}.py" for module in MODULES]
        extensions = mypycify(
            ["--follow-imports=silent", "--no-warn-unreachable", *sources],
            group_name=GROUP,
            target_dir=scratch,
            opt_level="3",
            debug_level="0",
        )
        build = Distribution({"name": GROUP, "ext_modules": extensions}).get_command_obj("build_ext")
        build.build_lib, build.build_temp = os.fspath(target), scratch
        build.ensure_finalized()
        build.run()


SEEDS = """
from trio_ws import COMPILED
from trio_ws.testing.scenario import simulate
print(COMPILED)
for level, seeds in (("message", 12), ("wire", 3)):
    for seed in range(seeds):
        run = simulate(seed, level=level)
        print(level, seed, run.trace_hash, run.wire_hash, run.violations)
"""


def check() -> None:
    """Test that the compiled package does what the pure one does, in a copy; ends the program where it does not.

    The tests of the core and of the hub run on it, and simulations, whose traces must be those of the pure package to
    the byte. Planted bugs are for the pure package: a compiled class can't be patched.
    """
    check_compiler()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copy(ROOT / "pyproject.toml", copy)
        for part in ("trio_ws", "tests", "scripts"):
            shutil.copytree(
                ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
            )

        def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, *arguments]
            environment = os.environ | {"PYTHONPATH": folder}
            return subprocess.run(command, cwd=copy, env=environment, text=True, check=True, **options)

        pure = run("-c", SEEDS, stdout=subprocess.PIPE).stdout.splitlines()
        compile_into(copy, copy)
        compiled = run("-c", SEEDS, stdout=subprocess.PIPE).stdout.splitlines()
        if (pure[0], compiled[0]) != ("False", "True"):
            sys.exit(f"Not one pure and one compiled package were compared, but {pure[0]} and {compiled[0]}.")
        for one, other in zip(pure[1:], compiled[1:], strict=True):
            if one != other:
                sys.exit(f"A simulation came out otherwise.\npure:     {one}\ncompiled: {other}")
        print(f"{len(pure) - 1} simulations are the same to the byte", flush=True)
        run("-m", "pytest", "tests/core", "tests/hub", "-m", "not pure", "-p", "no:cacheprovider")


class CustomBuildHook(BuildHookInterface):
    """Puts compiled modules beside their sources into a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; what comes out is for this Python, on this kind of machine."""
        if version == "editable":
            raise RuntimeError("an editable install is compiled in place, by scripts/compile")
        self._target = Path(tempfile.mkdtemp())
        compile_into(Path(self.root), self._target)
        build_data.update(pure_python=False, infer_tag=True)
        for library in libraries(self._target):
            build_data["force_include"][os.fspath(library)] = os.fspath(library.relative_to(self._target))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is made."""
        shutil.rmtree(self._target, ignore_errors=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="scripts/compile", description="Compile the hot path, in place.")
    parser.add_argument("--clean", action="store_true", help="back to the pure package")
    parser.add_argument(
        "--check", action="store_true", help="test in a copy that the compiled package does the same"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout, or a copy of one")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked.worker)
    elif asked.check:
        check()
    else:
        clean(asked.root)
        if not asked.clean:
            compile_into(asked.root, asked.root)


if __name__ == "__main__":
    main()
