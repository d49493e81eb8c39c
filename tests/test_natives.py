"""What `scripts/compile` makes of a struct: a native class of the same fields, or an error."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from compiling.__main__ import NATIVES, ROOT
from compiling.natives import with_natives

from trio_ws.core import entry
from trio_ws.hub import parcel

STRUCT = "from __future__ import annotations\nimport msgspec\nclass Thing(msgspec.Struct, {}):\n    a: int\n"
PLAIN = "gc=False, eq=False"


def run(source: str, package: str = "") -> dict[str, Any]:
    """The names that a rewritten module has when it runs as Python, where its decorator does nothing."""
    names: dict[str, Any] = {
        "__name__": "rewritten",
        "__package__": package,
        "_native": lambda **_: lambda cls: cls,
    }
    exec(compile(source, "rewritten", "exec"), names)
    return names


@pytest.mark.parametrize(("module", "cls"), [(entry, entry.Entry), (parcel, parcel.Parcel)])
@pytest.mark.pure
def test_fields_stay(module: ModuleType, cls: type[msgspec.Struct]) -> None:
    rewritten = run(with_natives(Path(str(module.__file__)).read_text(), "m"), str(module.__package__))[
        cls.__name__
    ]
    parameters = inspect.signature(rewritten).parameters
    assert tuple(parameters) == cls.__struct_fields__
    given = dict.fromkeys(
        [name for name, field in parameters.items() if field.default is field.empty], "given"
    )
    one, other = rewritten(**given), cls(**given)
    assert {name: getattr(one, name) for name in parameters} == {n: getattr(other, n) for n in parameters}
    assert rewritten.__doc__ == cls.__doc__
    assert one != rewritten(**given), "compared by identity, as the struct is"
    assert one in {one}
    own = {name for name, value in vars(cls).items() if isinstance(value, property)}
    assert own == {name for name, value in vars(rewritten).items() if isinstance(value, property)}


def test_each_module_that_is_named_has_a_struct() -> None:
    for module in NATIVES:
        source = (ROOT / f"trio_ws/{module}.py").read_text()
        assert with_natives(source, module).count("@_native") >= 1


@pytest.mark.parametrize(
    "options", ["gc=False", "eq=False", "gc=False, eq=False, frozen=True", "gc=True, eq=False"]
)
def test_refuses_what_a_native_class_can_not_be(options: str) -> None:
    assert "@_native" in with_natives(STRUCT.format(PLAIN), "m")
    with pytest.raises(ValueError, match="Thing is not a plain struct"):
        with_natives(STRUCT.format(options), "m")


def test_decorated_is_refused() -> None:
    with pytest.raises(ValueError, match="not a plain struct"):
        with_natives(STRUCT.format(PLAIN).replace("class", "@final\nclass"), "m")
