"""Structs of msgspec as native classes, in the sources that `scripts/compile` compiles.

msgspec's structs are the cheapest objects that Python has, and stay so where they are compiled: mypyc reads a field of
one like that of any foreign object, by its name. A native class of mypyc's holds its fields where C finds them. So a
copy of the source is compiled in which

    class Entry(msgspec.Struct, gc=False, eq=False):
        id: str
        first: int = 0

has become a class with an `__init__`, which the garbage collector leaves alone (mypyc: "acyclic") and which is compared
by identity, as it was. Everything else in the class stays.
"""

from __future__ import annotations

import ast

OPTIONS = {"gc": False, "eq": False}
"""What a struct has to say of itself: the native class can't be otherwise."""

_HEAD = """
from typing import TYPE_CHECKING as _TYPES
if _TYPES:  # mypyc reads the decorator, and never calls it
    from mypy_extensions import mypyc_attr as _native
"""


def with_natives(source: str, name: str) -> str:
    """A module's source, its structs as native classes.

    Args:
      name: of the module, for errors.

    Raises:
      ValueError: a struct is of another kind than this can turn into a native class.
    """
    tree = ast.parse(source)
    lines = source.splitlines(keepends=True)
    for cls in reversed([node for node in tree.body if isinstance(node, ast.ClassDef) and _is_struct(node)]):
        options = {option.arg: ast.literal_eval(option.value) for option in cls.keywords}
        if options != OPTIONS or len(cls.bases) != 1 or cls.decorator_list:
            raise ValueError(f"{name}: {cls.name} is not a plain struct with {OPTIONS}")
        fields = [node for node in cls.body if isinstance(node, ast.AnnAssign)]
        if not all(isinstance(field.target, ast.Name) for field in fields):
            raise ValueError(f"{name}: {cls.name} has a field without a name")
        for field in reversed(fields):
            del lines[field.lineno - 1 : field.end_lineno]
        lines.insert(fields[0].lineno - 1, _init(fields))
        lines[cls.lineno - 1] = f"@_native(acyclic=True)\nclass {cls.name}:\n"
    after = max(node.end_lineno or 0 for node in tree.body if _is_future(node))
    lines.insert(after, _HEAD)
    return "".join(lines)


def _init(fields: list[ast.AnnAssign]) -> str:
    """An `__init__` that takes the fields in their order, under their names."""
    names = [ast.unparse(field.target) for field in fields]
    arguments = ", ".join(ast.unparse(field) for field in fields)
    body = "".join(f"        self.{name} = {name}\n" for name in names)
    return f"    def __init__(self, {arguments}) -> None:\n{body}"


def _is_struct(cls: ast.ClassDef) -> bool:
    return any(ast.unparse(base) == "msgspec.Struct" for base in cls.bases)


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
