"""The pytest plug-in: the fixture `simulation`, and the marker that says for how many seeds a test is run.

    @pytest.mark.simulate(seeds=50)
    async def test_my_app(simulation):
        async with simulation.open_hub() as hub:
            ...

Each seed is a test of its own: its fixtures are fresh, `-x`, `--lf` and `-n` mean what they always mean, and a failure
is replayed by its name. What the simulator needs is imported with the first such test.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import pytest

if TYPE_CHECKING:
    from .simulation import Simulation

LINES = 40
"""How much of a trace a failure shows."""

_world = pytest.StashKey["Simulation"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options to choose seeds."""
    group = parser.getgroup("trio_ws", "simulations by trio_ws")
    group.addoption(
        "--simulate-seeds", type=int, metavar="N", help="run each simulated test with N seeds, from 0 on"
    )
    group.addoption(
        "--simulate-seed",
        type=int,
        action="append",
        metavar="SEED",
        help="run each simulated test with this seed; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    """What `--markers` shows."""
    config.addinivalue_line(
        "markers",
        "simulate(seeds=1, timeout=3600): run an async test that takes `simulation` on simulated time, once for each "
        "seed: of so many from 0 on, or of a list. It may take `timeout` simulated seconds.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a seed."""
    if "simulation" not in metafunc.fixturenames:
        if metafunc.definition.get_closest_marker("simulate") is not None:
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: a simulated test takes `simulation`")
        return
    seeds = _seeds(metafunc)
    metafunc.parametrize("simulation", seeds, indirect=True, ids=[f"seed{seed}" for seed in seeds])


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have simulated tests run by the simulator; to others who run async functions they are plain ones."""
    if isinstance(item, pytest.Function) and "simulation" in item.fixturenames:
        item.obj = _simulated(item, item.obj)


@pytest.fixture
def simulation(request: pytest.FixtureRequest) -> Simulation:
    """A `trio_ws.testing.Simulation` that has not begun; the test itself is what runs in it."""
    from .simulation import Simulation

    request.node.stash[_world] = world = Simulation(request.param)
    return world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show with a failure how to replay it, and what has led to it."""
    report = yield
    world = item.stash.get(_world, None)
    if world is not None and report.when == "call" and report.failed:
        report.sections.append(("simulation", _story(item, world)))
    return report


def _seeds(metafunc: pytest.Metafunc) -> Sequence[int]:
    """The seeds of a test: those of the command line, or else of its marker."""
    config = metafunc.config
    if config.getoption("simulate_seed"):
        return list(dict.fromkeys(config.getoption("simulate_seed")))
    marker = metafunc.definition.get_closest_marker("simulate")
    seeds = config.getoption("simulate_seeds")
    if seeds is None:
        seeds = _arguments(marker)[0]
    return range(seeds) if isinstance(seeds, int) else list(seeds)


def _arguments(marker: pytest.Mark | None) -> tuple[int | Sequence[int], float]:
    """The marker's seeds and timeout."""

    def simulate(
        seeds: int | Sequence[int] = 1, timeout: float = 3600.0
    ) -> tuple[int | Sequence[int], float]:
        return seeds, timeout

    try:
        return simulate() if marker is None else simulate(*marker.args, **marker.kwargs)
    except TypeError as error:
        raise pytest.UsageError(f"pytest.mark.{error}") from None


def _simulated(item: pytest.Function, function: Callable[..., Any]) -> Callable[..., None]:
    """What pytest calls in the place of `function`."""

    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        __tracebackhide__ = True
        if not inspect.iscoroutinefunction(function):
            pytest.fail("a test that takes `simulation` must be an async function", pytrace=False)
        from .determinism import run_simulation

        timeout = _arguments(item.get_closest_marker("simulate"))[1]
        run_simulation(item.stash[_world], lambda _: function(**arguments), timeout=timeout)

    return run


def _story(item: pytest.Item, world: Simulation) -> str:
    """What a failure says: its seed, the command that replays it, and the end of the trace."""
    name = item.nodeid.replace("'", "'\\''")
    text = [
        f"seed {world.seed}, at {world.clock.current_time():.6f} simulated seconds; to replay it:",
        f"    pytest '{name}' --simulate-seed={world.seed}",
        f"options: {_options(item, world)}",
    ]
    if world.network.faults:
        text.append(
            "faults: " + ", ".join(f"{count} {kind}" for kind, count in sorted(world.network.faults.items()))
        )
    if world.sometimes.counts:
        text.append(
            "reached: " + ", ".join(f"{count} {name}" for name, count in world.sometimes.counts.items())
        )
    if len(world.trace):
        text += ["", world.trace.tail(LINES)]
    return "\n".join(text)


def _options(item: pytest.Item, world: Simulation) -> str:
    """What there is besides the seed: of the marker, and of the network as it was in the end."""
    options = {"timeout": _arguments(item.get_closest_marker("simulate"))[1]}
    options |= attrs.asdict(world.network.conditions)
    return " ".join(f"{name}={value}" for name, value in options.items())
