"""The public keys of an issuer, as it publishes them (RFC 7517): fetched, kept, and fetched again.

One task fetches, however many connections wait for a key (`RemoteKeys.run`). It does so before what it has gets old, as
the issuer's `Cache-Control` has it, and when a token names a key that is not known: that is how a rotation is noticed
at once. How often that can be provoked is bounded. While the issuer can't be reached, what was fetched before goes on
being believed, for `MAX_STALE`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from ..config import KIB
from ..errors import RemoteError
from .tokens import Key, fitting

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

FETCH_TIMEOUT: Final = 3.0
"""Seconds for one fetch in all: less than a client has for its hello."""

MAX_BYTES: Final = 256 * KIB
MAX_KEYS: Final = 100

MIN_INTERVAL: Final = 5.0
"""Seconds between two fetches at the least, whatever tokens name."""

RETRY_INTERVAL: Final = 15.0
"""Seconds until the next fetch after one that failed."""

DEFAULT_AGE: Final = 600.0
MIN_AGE: Final = 60.0
MAX_AGE: Final = 86_400.0
"""Seconds for which keys are fresh: what the issuer says, within these bounds."""

MAX_STALE: Final = 86_400.0
"""Seconds for which keys that could not be fetched again are still believed."""

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,10})", re.IGNORECASE)
_NO_CACHE = re.compile(r"(?:^|[\s,])no-(?:store|cache)(?:$|[\s,=])", re.IGNORECASE)


class FetchFailed(RemoteError):
    """The keys could not be had; the text says why."""


@attrs.frozen
class Fetched:
    """What one fetch brought: the keys that can be used, and for how many seconds they are fresh."""

    keys: tuple[Key, ...]
    age: float


class RemoteKeys:
    """The keys behind a URL, for `jwt_authenticator`.

    ::

        keys = RemoteKeys("https://issuer.example.com/.well-known/jwks.json")
        nursery.start_soon(keys.run)

    Args:
      url: where they are; redirects are not followed.
      transport: what carries the requests; None takes the network.
    """

    def __init__(self, url: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url
        self._transport = transport
        self._keys: tuple[Key, ...] = ()
        self._stale_at = self._refresh_at = self._next_at = -float("inf")
        self._asked = trio.Event()  # a key is missing: fetch now
        self._through = trio.Event()  # this fetch, or the next, is through
        self._fetching = False

    async def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """See `Keys.find`. A checkpoint where the key is not known: it waits for a fetch, if one is due.

        Cancelling it changes nothing.
        """
        if not self._named(kid) and (self._fetching or trio.current_time() >= self._next_at):
            self._asked.set()
            await self._through.wait()
        return [key for key in self._named(kid) if algorithm in key.algorithms]

    async def run(self) -> None:
        """Fetch the keys, now and whenever they have to be fetched again, until cancelled."""
        import httpx

        # Made once: to make one reads the system's certificates, which takes a while.
        async with httpx.AsyncClient(transport=self._transport, timeout=FETCH_TIMEOUT) as client:
            while True:
                await self._refresh(client)
                with trio.move_on_at(self._refresh_at):
                    await self._asked.wait()

    def _named(self, kid: str | None) -> list[Key]:
        if trio.current_time() > self._stale_at:
            return []
        return [key for key in self._keys if kid is None or key.kid == kid]

    async def _refresh(self, client: httpx.AsyncClient) -> None:
        """One fetch; raises nothing."""
        started = trio.current_time()
        self._fetching = True
        try:
            fetched = await fetch(client, self.url)
        except Exception as error:
            unforeseen = not isinstance(error, FetchFailed)
            logger.warning("the keys at %s can't be had: %s", self.url, error, exc_info=unforeseen)
            self._refresh_at = trio.current_time() + RETRY_INTERVAL
        else:
            if not fetched.keys:
                logger.warning("there is no key at %s that can be used", self.url)
            self._keys = fetched.keys
            self._refresh_at = trio.current_time() + fetched.age
            self._stale_at = self._refresh_at + MAX_STALE
        finally:
            self._fetching = False
            self._next_at = max(started + MIN_INTERVAL, trio.current_time())
            self._asked = trio.Event()
            through, self._through = self._through, trio.Event()
            through.set()


async def fetch(client: httpx.AsyncClient, url: str) -> Fetched:
    """Fetch a set of keys.

    Raises:
      FetchFailed: it did not come in time, is too large, or is no set of keys.
    """
    import httpx

    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    body = bytearray()
    try:
        with trio.fail_after(FETCH_TIMEOUT):
            async with client.stream("GET", url, headers=headers) as response:
                if response.status_code != 200:
                    raise FetchFailed(f"HTTP {response.status_code}")
                async for (
                    chunk
                ) in response.aiter_raw():  # to its end: httpx leaves generators behind otherwise
                    body += chunk[: MAX_BYTES + 1 - len(body)]
                if len(body) > MAX_BYTES:
                    raise FetchFailed(f"over {MAX_BYTES} bytes")
    except trio.TooSlowError:
        raise FetchFailed(f"not within {FETCH_TIMEOUT:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchFailed(f"{type(error).__name__}: {error}") from None
    return Fetched(keys_in(bytes(body)), _age(response.headers.get("cache-control", "")))


def keys_in(body: bytes) -> tuple[Key, ...]:
    """The keys of a set that signatures can be checked with here; others are passed over.

    Raises:
      FetchFailed: it is no set of keys.
    """
    try:
        listed = json.loads(body)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise FetchFailed("no set of keys") from None
    if not isinstance(listed, list):
        raise FetchFailed("no set of keys")
    return tuple(key for key in map(_key, listed[:MAX_KEYS]) if key is not None)


def _key(described: Any) -> Key | None:
    """One key of a set; None for a secret one, one for another use, and one that can't be read."""
    import jwt

    if not isinstance(described, dict) or described.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    uses = described.get("key_ops")
    if described.get("use", "sig") != "sig" or not (
        uses is None or (isinstance(uses, list) and "verify" in uses)
    ):
        return None
    public = {
        name: value for name, value in described.items() if name not in ("d", "p", "q", "dp", "dq", "qi")
    }
    try:
        material = jwt.PyJWK(public).key
    except Exception:  # of many kinds
        return None
    algorithms = fitting(material)
    if "alg" in described:
        algorithms &= {described["alg"]} if isinstance(described["alg"], str) else set()
    kid = described.get("kid")
    return Key(material, algorithms, kid if isinstance(kid, str) else None) if algorithms else None


def _age(cache_control: str) -> float:
    """For how long keys are fresh."""
    said = _MAX_AGE.search(cache_control)
    age = float(said[1]) if said else MIN_AGE if _NO_CACHE.search(cache_control) else DEFAULT_AGE
    return min(max(age, MIN_AGE), MAX_AGE)
