"""The keys of the admin API: where they come from, how they are compared, and how often one may be wrong about them."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeAlias

from ..addresses import network_of
from ..core.limits import KeyedBuckets
from ..errors import InvalidConfig
from ..files import FromFiles

ApiKeys: TypeAlias = str | Callable[[], Iterable[str]]
"""One key; or what tells those that are good now, as `KeyFile.current` does."""

WRONG_RATE: Final = 0.2
WRONG_BURST: Final = 20
"""How many wrong keys an address may give, a second and at once. Then none of its keys is looked at for a while."""

MAX_ADDRESSES: Final = 10_000

MAX_KEYS: Final = 16
"""How many keys may be good at once."""


class KeyFile(FromFiles[tuple[str, ...]]):
    """Keys in a file, one a line: several, while one takes the place of another. See `FromFiles`.

    Args:
      file: the file; UTF-8. Blanks around a key are none of it, and empty lines are left out.

    Raises:
      InvalidConfig: it can't be read, holds no key, or more than `MAX_KEYS`.
    """

    def __init__(self, file: str | Path) -> None:
        self._file = Path(file)
        super().__init__("API key file", self._file)

    def _make(self) -> tuple[str, ...]:
        try:
            lines = self._file.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            raise InvalidConfig("it is no UTF-8") from None
        keys = tuple(line.strip() for line in lines if line.strip())
        if not 1 <= len(keys) <= MAX_KEYS:
            raise InvalidConfig(f"it must hold 1 to {MAX_KEYS} keys, one a line")
        return keys


def is_key(given: bytes, keys: ApiKeys) -> bool:
    """Whether `given` is one of `keys`. It takes the same time for whatever is given, also of another length."""
    digest = hashlib.sha256(given).digest()
    good = [keys] if isinstance(keys, str) else keys()
    same = [hmac.compare_digest(digest, hashlib.sha256(key.encode()).digest()) for key in good]
    return any(same)


class Guesses:
    """Wrong keys, counted for each address, so that nobody can try many.

    An address that has given a right key is looked at whatever else comes from it: somebody behind the same proxy can't
    lock it out.
    """

    def __init__(self) -> None:
        self._wrong = KeyedBuckets[str](WRONG_RATE, WRONG_BURST, MAX_ADDRESSES)
        self._right: OrderedDict[str, None] = OrderedDict()

    def wait(self, address: str, now: float) -> int:
        """In how many whole seconds a key of `address` is looked at; 0 if it is now."""
        network = network_of(address)
        return 0 if network in self._right else math.ceil(self._wrong.wait(network, now))

    def right(self, address: str) -> None:
        """`address` has given a right key."""
        network = network_of(address)
        self._right[network] = None
        self._right.move_to_end(network)
        if len(self._right) > MAX_ADDRESSES:
            self._right.popitem(last=False)

    def wrong(self, address: str, now: float) -> int:
        """`address` has given a wrong one. Returns: after how many seconds it may try again; 0 for at once."""
        network = network_of(address)
        if self._wrong.take(network, now):
            return 0
        return math.ceil(self._wrong.wait(network, now))
