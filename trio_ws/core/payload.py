"""Payloads: what a publisher hands over, and the JSON that it becomes, once, to be spliced into frames.

Two paths lead to JSON. The *fast* one takes what needs no thought: bytes that are JSON already, a str, and
dicts, lists and scalars of the plain built-in types. The *slow* one takes everything else: cattrs breaks it
down (attrs classes, dataclasses, enums, sets, mappings, paths, subclasses of plain types), msgspec renders
what is left over (datetimes, UUIDs, decimals, bytes as base64, its own structs). Both give the same bytes
in every process: sets are sorted. Most payloads are plain *and* small: `encode_small` does those in one walk.

An encoded payload is one JSON text in UTF-8 without space around it. `append_all` and `truncate` work on it
as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
import cattrs
import msgspec

from ..config import KIB
from ..errors import InvalidEvent

MAX_DEPTH: Final = 128
"""How deeply arrays and objects may be nested: beyond real use, below what any parser bears."""

_TAKEN_BY_JSON: Final = 16
"""How many times its size a JSON text takes when it is decoded: what a list of very short texts does."""

SMALL: Final = 8 * KIB
"""Bytes, about, up to which a payload is encoded at sight."""

_SMALL_DEPTH = 16
_SURVEY_NODES = 512
_SCALAR_SIZE = 6
_SCALARS = frozenset((str, int, float, bool, type(None)))
_PLAIN = _SCALARS | {dict, list, tuple}
_BYTES_LIKE = (bytes, bytearray, memoryview)  # a tuple: a union would be made anew at each check
_TEXT_LIKE = (str, *_BYTES_LIKE)
_SPACE = b" \t\r\n"

_dumps = msgspec.json.Encoder().encode
_loads = msgspec.json.Decoder().decode
_load_text = msgspec.json.Decoder(str).decode
_load_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


# --- To JSON -----------------------------------------------------------------------------------------


def encode(payload: object) -> bytes:
    """The JSON of `payload`, in UTF-8.

    Args:
      payload: bytes-like (one JSON text, taken as it is), or any value that has a JSON form; see the top of
        this file. Keys of dicts may be what msgspec makes a string of: str, numbers, enums, dates, UUIDs.

    Raises:
      InvalidEvent: with `field` "payload": it has no JSON form, or one that not every client could read
        (NaN and infinities, lone surrogates, integers of thousands of digits, nesting beyond `MAX_DEPTH`,
        cycles). Nothing else is raised, whatever a class of the caller's does.
    """
    return encode_by_path(payload)[0]


def encode_by_path(payload: object) -> tuple[bytes, bool]:
    """As `encode`, and whether it took the fast path."""
    try:
        if isinstance(payload, _BYTES_LIKE):
            return _ready(bytes(payload).strip(_SPACE)), True
        try:
            encoded = _dumps(payload)
            fast = _is_plain(payload)
        except TypeError:
            fast = False
        if not fast:
            payload = msgspec.to_builtins(_converter.unstructure(payload), enc_hook=_unstructure_leaf)
            encoded = _dumps(payload)
        _check(payload, encoded)
    except InvalidEvent:
        raise
    except RecursionError:
        raise _invalid(f"is nested more than {MAX_DEPTH} deep, or holds itself") from None
    except UnicodeError:
        raise _invalid("holds half of a surrogate pair, which no JSON text can") from None
    except Exception as error:
        # A property, a hook or a mapping of the caller's may raise anything.
        raise _invalid(f"has no JSON form ({type(error).__name__}: {error!s:.200})") from error
    return encoded, fast


def encode_small(payload: object) -> bytes | None:
    """The JSON of a plain payload of at most about `SMALL` bytes; None where it takes `encode_by_path` to tell.

    One walk over the values shows that there is nothing to refuse, nor to send to a worker thread: that is a
    quarter of what the checks cost one by one.
    """
    value = payload if type(payload) is dict else (payload,)
    try:
        return _dumps(payload) if _room_left(value, SMALL, 0) >= 0 else None
    except Exception:  # a key that is no text, half of a surrogate pair, a number of 10,000 digits
        return None


def _room_left(value: Any, room: int, depth: int) -> int:
    """What of `room` (bytes, about) a plain container leaves; below 0 where something in it needs a closer look."""
    room -= _SCALAR_SIZE * len(value)
    if room < 0 or depth == _SMALL_DEPTH:
        return -1
    if type(value) is dict:
        for key in value:
            room -= len(key)
        value = value.values()
    for child in value:
        kind = type(child)
        if kind is str:
            room -= len(child)
        elif kind is int or kind is bool or child is None:
            continue
        elif kind is float:
            if child - child != 0:  # NaN or an infinity
                return -1
        elif kind is dict or kind is list or kind is tuple:
            room = _room_left(child, room, depth + 1)
        else:
            return -1
    return room


def _ready(encoded: bytes) -> bytes:
    try:
        decode(encoded)
    except ValueError as error:
        raise _invalid(str(error)) from None
    return encoded


def is_large(payload: object, limit: int) -> bool:
    """Whether encoding `payload` may give more than `limit` bytes, or take long enough for a thread.

    An estimate at a bounded price, which raises nothing: after some hundred values within values it stops,
    and calls large what it has not seen through.
    """
    size, budget = 0, _SURVEY_NODES
    rest: list[object] = [payload]
    try:
        while rest:
            value = rest.pop()
            if isinstance(value, _TEXT_LIKE):
                size += len(value) + 2
            elif type(value) in _SCALARS:
                size += _SCALAR_SIZE
            else:
                children = _children(value)
                size += 2 + 2 * len(children)
                if size <= limit and _SCALARS.issuperset(map(type, children)):
                    size += _SCALAR_SIZE * len(children) + sum([len(c) for c in children if type(c) is str])
                else:
                    rest += children
                    budget -= len(children)
            if size > limit or budget < 0:
                return True
    except Exception:  # out of a class of the caller's: `encode` will say what is wrong
        return True
    return False


def _children(value: object) -> Sequence[Any]:
    """What `value` holds."""
    if type(value) is list or type(value) is tuple:
        return value
    if type(value) is dict or isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, Collection):
        return list(value)
    names = getattr(type(value), "__struct_fields__", None)
    return [getattr(value, name) for name in names or _field_names(type(value))]


def _is_plain(value: object) -> bool:
    """Whether nothing but plain built-in types is in `value`, which is known to be finite: it was encoded."""
    if type(value) in _SCALARS or (type(value) is dict and _SCALARS.issuperset(map(type, value.values()))):
        return True
    level = [value]
    while level:
        if not _PLAIN.issuperset(map(type, level)):
            return False
        level = _inside(level)
    return True


def _check(payload: object, encoded: bytes) -> None:
    """Refuse what plain types may hold and not every client could read; `encoded` tells where not to look."""
    if b"null" in encoded:  # also what msgspec makes of NaN and the infinities, in silence
        where = _find_no_number(payload)
        if where is not None:
            raise _invalid(f"holds a NaN or an infinity{where}: JSON has no such number")
    if encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH and _is_too_deep(payload):
        raise _invalid(f"is nested more than {MAX_DEPTH} deep")


def _find_no_number(value: object, where: str = "") -> str | None:
    """Where in a plain value the first NaN or infinity is: "" for the value itself; None if there is none."""
    if type(value) is float:
        return None if math.isfinite(value) else where
    pairs: Iterable[tuple[object, object]] = ()
    if type(value) is dict:
        pairs = value.items()
    elif type(value) is list or type(value) is tuple:
        pairs = enumerate(value)
    for key, child in pairs:
        if type(child) not in _HARMLESS:
            found = _find_no_number(child, "")
            if found is not None:
                return f" at [{key!r:.40}]{found.removeprefix(' at ')}"
    return None


_HARMLESS = _SCALARS - {float}


def _is_too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for child in _inside(level) if type(child) not in _SCALARS]
        if not level:
            return False
    return any(type(child) in _PLAIN for child in level)


def _inside(level: Iterable[object]) -> list[Any]:
    """What the dicts, lists and tuples of one level hold."""
    found: list[Any] = []
    for value in level:
        if type(value) is dict:
            found += value.values()
        elif type(value) is list or type(value) is tuple:
            found += value
    return found


def _invalid(what: str) -> InvalidEvent:
    return InvalidEvent(f"payload {what}", field="payload")


# --- The slow path -----------------------------------------------------------------------------------


def _field_names(cls: type) -> list[str]:
    """The fields of an attrs class or a dataclass, in the order of definition; none for other classes."""
    if attrs.has(cls):
        return [field.name for field in attrs.fields(cls)]
    return [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def _has_fields(cls: Any) -> bool:
    return isinstance(cls, type) and (attrs.has(cls) or dataclasses.is_dataclass(cls))


def _is_set(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, set | frozenset)


def _unstructure_fields(value: Any) -> dict[str, Any]:
    # By what each value is, not by how its field is annotated: a subclass keeps the fields that it adds.
    return {name: _converter.unstructure(getattr(value, name)) for name in _field_names(type(value))}


def _unstructure_set(value: Iterable[object]) -> list[Any]:
    return sorted((_converter.unstructure(item) for item in value), key=_dumps)


def _unstructure_scalar(value: Any) -> Any:
    """The plain value beneath a subclass, whatever the subclass makes of itself; bool is one of int's."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    return int.__int__(value) if isinstance(value, int) else float.__float__(value)


def _unstructure_leaf(value: object) -> Any:
    """What msgspec came upon within one of its structs, and can't render."""
    found = _converter.unstructure(value)
    if found is value:
        raise TypeError(f"{type(value).__qualname__} is of no type that can be encoded")
    return found


_converter = cattrs.Converter()
_converter.register_unstructure_hook_func(_has_fields, _unstructure_fields)
_converter.register_unstructure_hook_func(_is_set, _unstructure_set)
for _base in (str, int, float):
    _converter.register_unstructure_hook(_base, _unstructure_scalar)


# --- From JSON, and on JSON --------------------------------------------------------------------------


def require_memory(size: int) -> None:
    """Raise MemoryError where what a JSON text of this size holds might not fit into the memory that is left.

    msgspec 0.22 does not see that it was given no memory for a text, and the process would die of that.
    """
    bytes(_TAKEN_BY_JSON * size + 4096)


def decode(encoded: bytes | msgspec.Raw) -> Any:
    """The value of one JSON text in UTF-8.

    Raises:
      ValueError: it is none, or holds what another parser may choke on: nesting beyond `MAX_DEPTH`, numbers
        out of range, lone surrogates. The message goes on from the word "payload", and quotes nothing.
    """
    text = bytes(encoded)
    require_memory(len(text))
    try:
        value = _loads(text)
    except RecursionError:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep") from None
    except UnicodeError:
        raise ValueError("is not UTF-8") from None
    except msgspec.ValidationError:
        raise ValueError("holds a number out of range") from None
    except msgspec.DecodeError:
        raise ValueError("is not JSON") from None
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _is_too_deep(value):
        raise ValueError(f"is nested more than {MAX_DEPTH} deep")
    return value


def truncate(encoded: bytes, limit: int) -> bytes | None:
    """An encoded payload made to fit `limit` bytes by cutting text at its end; None where that can't be done.

    A text is cut; of an object the longest top-level texts are, to one length, and everything else is left
    as it is. A cut never falls within a character or an escape.
    """
    require_memory(len(encoded))
    if encoded.startswith(b'"'):
        return _cut(_load_text(encoded), limit)
    if not encoded.startswith(b"{"):
        return None
    fields = {_dumps(key): bytes(raw) for key, raw in _load_fields(encoded).items()}
    texts = sorted((len(raw) for raw in fields.values() if raw.startswith(b'"')), reverse=True)
    # The longest `count` texts are cut to the room that all else leaves for them: the water level.
    spare = limit - len(_object(fields))
    level = 0
    for count, longest in enumerate(texts, 1):
        spare += longest
        level = max(spare, 0) // count
        if count == len(texts) or level >= texts[count]:
            break
    for key, raw in fields.items():
        if raw.startswith(b'"') and len(raw) > level:
            cut = _cut(_load_text(raw), level)
            if cut is None:
                return None
            fields[key] = cut
    whole = _object(fields)
    return whole if len(whole) <= limit else None


def _cut(text: str, limit: int) -> bytes | None:
    """The JSON of as much of `text` as fits `limit` bytes."""
    low, high = 0, min(len(text), max(limit, 0))  # a character takes a byte or more
    while low < high:
        middle = (low + high + 1) // 2
        if len(_dumps(text[:middle])) <= limit:
            low = middle
        else:
            high = middle - 1
    cut = _dumps(text[:low])
    return cut if len(cut) <= limit else None


def joinable(a: bytes, b: bytes) -> bool:
    """Whether `append_all` of these loses nothing: both are texts, or both are objects."""
    return a[:1] == b[:1] and a[:1] in (b'"', b"{")


def append_all(encoded: Sequence[bytes]) -> bytes:
    """Encoded deltas, at least one, as one: texts are concatenated; in objects, text fields of one name are.

    Of fields that are no text, or of payloads of another shape, the later value is taken; `joinable` tells
    beforehand.
    """
    last = encoded[-1]
    if len(encoded) == 1:
        return last
    shapes = {part[:1] for part in encoded}
    if shapes == {b'"'}:
        return _text(encoded)
    if shapes != {b"{"}:
        return last
    fields: dict[str, list[bytes]] = {}
    for part in encoded:
        for key, raw in _load_fields(part).items():
            values = fields.setdefault(key, [])
            values.append(bytes(raw))
            if not (values[-1].startswith(b'"') and values[0].startswith(b'"')):
                del values[:-1]
    return _object(
        {_dumps(key): _text(values) if len(values) > 1 else values[0] for key, values in fields.items()}
    )


def _text(parts: Sequence[bytes]) -> bytes:
    return b'"%b"' % b"".join([part[1:-1] for part in parts])


def _object(fields: dict[bytes, bytes]) -> bytes:
    return b"{%b}" % b",".join([b"%b:%b" % field for field in fields.items()])
