"""The browser client as an npm package: a bundler takes it, and its types are true."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ..npm import MODULES, need_packages, run

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "trio_ws" / "admin" / "static"
pytestmark = pytest.mark.integration

USE = """
import { AguiEncoder, type AguiEvent } from "trio-ws-client/agui";
import { connect, type Client, type Event, type Gap, type Options, type Snapshot, type Status } from "trio-ws-client";
import { answer, cancelRun, ended, foldRuns, type Run } from "trio-ws-client/runs";

interface Events { tool_completed: { run: number; ok: boolean }; text: { text: string } }

const options: Options = { token: async () => "t", from: "pending", key: null, attempts: 3 };
const c: Client<Events> = connect<Events>("wss://example.com/ws", options);
const off: () => void = c.on("tool_completed", async (e) => { const ok: boolean = e.payload.ok; void ok; });
c.on("*", (e: Event) => e.seq.toFixed());
c.on("gap", (g: Gap) => { const reset: boolean = g.reason === "reset"; void reset; });
c.on("state", (s: Status) => {
  if (s.state === "catching_up") return void (s.done / s.total);
  if (s.state === "offline") return void s.retryAt?.toFixed();
  if (s.state === "ended") return void s.code.toFixed();
});
const sent: Promise<void> = c.send("stop", { run: 7 });
const encoder = new AguiEncoder("r1", { thread: "t1" });
c.on("*", (e) => encoder.encode(e).forEach((told: AguiEvent) => void told.type.length));
void sent; off(); c.close(); void c.figures.acked;
connect("/ws", { from: "snapshot" }).on("snapshot", (s: Snapshot) => s.run.length + s.seq);
const runs: ReadonlyMap<string, Run> = foldRuns(c, { onChange: (run) => void run.text.length, kept: 3 });
for (const run of runs.values()) if (!ended(run)) void cancelRun(c, run.run).then(() => run.progress?.toFixed());
const answered: Promise<void> = answer(c, "q1", "yes"); void answered;

// @ts-expect-error the payload of that type has no such field
c.on("text", (e) => e.payload.run);
// @ts-expect-error no such start
connect("/ws", { from: "yesterday" });
// @ts-expect-error a state tells `done` only while it catches up
c.on("state", (s) => s.done);
// @ts-expect-error what is folded is only to be read
runs.clear();
// @ts-expect-error figures are read only
c.figures = undefined;
"""  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has installed the package from its folder."""
    need_packages()
    folder = tmp_path_factory.mktemp("project")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    run("npm", "install", "--no-audit", "--no-fund", "--install-links", STATIC, cwd=folder)
    assert sorted(file.name for file in (folder / "node_modules" / "trio-ws-client").iterdir()) == [
        "agui.d.ts",
        "agui.js",
        "client.d.ts",
        "client.js",
        "package.json",
        "runs.d.ts",
        "runs.js",
    ]
    return folder


def test_node_imports_it_by_its_name(project: Path) -> None:
    code = "import { connect } from 'trio-ws-client'; console.log(typeof connect)"
    assert run("node", "--input-type=module", "-e", code, cwd=project) == "function\n"


def test_the_encoder_for_agui_is_a_module_of_its_own(project: Path) -> None:
    code = "import { AguiEncoder } from 'trio-ws-client/agui'; console.log(new AguiEncoder('r').thread)"
    assert run("node", "--input-type=module", "-e", code, cwd=project) == "r\n"


def test_a_bundler_takes_it(project: Path) -> None:
    (project / "app.js").write_text("import { connect } from 'trio-ws-client'; console.log(typeof connect);")
    esbuild = MODULES / ".bin" / "esbuild"
    run(esbuild, "app.js", "--bundle", "--minify", "--format=esm", "--outfile=bundle.js", cwd=project)
    assert run("node", "bundle.js", cwd=project) == "function\n"
    assert len(gzip.compress((project / "bundle.js").read_bytes())) < 4.5 * 1024


def test_runs_are_a_module_of_their_own(project: Path) -> None:
    code = "import { foldRuns } from 'trio-ws-client/runs'; console.log(typeof foldRuns)"
    assert run("node", "--input-type=module", "-e", code, cwd=project) == "function\n"


def test_what_nobody_uses_is_left_out(project: Path) -> None:
    (project / "none.js").write_text("import { connect } from 'trio-ws-client'; console.log('alone');")
    esbuild = MODULES / ".bin" / "esbuild"
    assert len(run(esbuild, "none.js", "--bundle", "--minify", "--format=esm", cwd=project)) < 100


@pytest.mark.parametrize(("module", "resolution"), [("esnext", "bundler"), ("nodenext", "nodenext")])
def test_the_types_are_true(project: Path, module: str, resolution: str) -> None:
    (project / "use.ts").write_text(USE)
    tsc = MODULES / "typescript" / "bin" / "tsc"
    options = ("--strict", "--noEmit", "--target", "es2022", "--lib", "es2022,dom")
    run("node", tsc, *options, "--module", module, "--moduleResolution", resolution, "use.ts", cwd=project)
