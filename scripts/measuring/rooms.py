"""How large the folders of the package are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def count() -> None:
    """Lines of Python (and of what is served to browsers) in each folder of the package."""
    total: dict[str, tuple[int, int]] = {}
    for path in sorted((ROOT / "trio_ws").rglob("*")):
        if path.suffix in (".py", ".js", ".html", ".css", ".ts") and "vendor" not in path.parts:
            room = path.parent.relative_to(ROOT).as_posix() + (
                "/" if path.suffix == ".py" else f" *{path.suffix}"
            )
            files, lines = total.get(room, (0, 0))
            total[room] = files + 1, lines + len(path.read_text().splitlines())
    for room, (files, lines) in total.items():
        print(f"{room:32} {files:3} files {lines:6} lines")
    print(
        f"{'in all':32} {sum(f for f, _ in total.values()):3} files {sum(n for _, n in total.values()):6} lines"
    )
