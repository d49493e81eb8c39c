"""JSON Web Tokens: which keys are believed, each for which algorithms, and what a token must say.

A token never chooses how it is checked. Each key is good for the algorithms of its own kind and no others, so nobody
can have a public key taken for a shared secret, and ``none`` is no algorithm. Headers that name a key or where to get
one (``jwk``, ``jku``, ``x5u``) are ignored.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

import attrs

from ..errors import InvalidConfig
from ..files import FromFiles
from ..identity import Identity
from .auth import Authenticate, Credentials

SYMMETRIC: Final = frozenset(("HS256", "HS384", "HS512"))
ASYMMETRIC: Final = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
)
ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")
"""The algorithms that are believed unless others are named."""

LEEWAY: Final = 10.0
"""Seconds by which clocks may differ when a token's times are checked."""

MIN_RSA_BITS: Final = 2048
MIN_SECRET_BYTES: Final = 32
"""A secret that is shorter can be guessed from one token (RFC 7518, section 3.2)."""

MAX_TRIED: Final = 8
"""How many keys one token may be checked with, where it does not say which."""

HEADERS: Final = 64
"""How many headers of tokens are remembered: those of one issuer are mostly all the same."""

_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


@attrs.frozen
class Key:
    """What a signature can be checked with.

    Attributes:
      material: as PyJWT takes it.
      algorithms: what it is good for.
      kid: its name in a set of keys, if it has one.
    """

    material: Any = attrs.field(repr=False)
    algorithms: frozenset[str]
    kid: str | None = None


class Keys(Protocol):
    """Where keys are looked up."""

    async def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """The keys that a token may have been signed with, the likeliest first; none where there are none.

        Args:
          kid: the name of the key, as the token has it; it may be anything.
          algorithm: what the key has to be good for.
        """


class FixedKeys:
    """A few keys that never change; what a token calls its key does not matter.

    Args:
      keys: in the order in which they are tried.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys = tuple(keys)

    async def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """See `Keys.find`; not a checkpoint."""
        return [key for key in self.keys if algorithm in key.algorithms]


def secret_keys(secret: str) -> FixedKeys:
    """The key that is a shared secret."""
    return FixedKeys([Key(secret, SYMMETRIC)])


def public_keys(pem: bytes) -> FixedKeys:
    """The public keys in a PEM text; several, while one takes the place of another.

    Raises:
      InvalidConfig: it holds no public key, a private one, or one that is too weak or of an unknown kind.
      ImportError: PyJWT is not installed (``trio-ws[server]``).
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    keys = []
    for block in _PEM.finditer(pem):
        if b"PRIVATE" in block[1]:
            raise InvalidConfig(
                "a private key is not for a server that only checks tokens; give the public one"
            )
        try:
            if block[1] == b"CERTIFICATE":
                material: object = load_pem_x509_certificate(block[0]).public_key()
            else:
                material = load_pem_public_key(block[0])
        except Exception as exc:  # of many kinds, by the kind of key
            raise InvalidConfig(f"a public key can't be read: {type(exc).__name__}") from None
        algorithms = fitting(material)
        if not algorithms:
            raise InvalidConfig(
                f"a public key must be RSA of {MIN_RSA_BITS} bits or more, EC P-256, P-384, P-521, or Ed25519"
            )
        keys.append(Key(material, algorithms))
    if not keys:
        raise InvalidConfig("there is no public key in PEM")
    return FixedKeys(keys)


def fitting(material: object) -> frozenset[str]:
    """The algorithms that a public key of `cryptography` is good for; none where it is too weak or unknown."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    match material:
        case rsa.RSAPublicKey():
            strong = material.key_size >= MIN_RSA_BITS
            return frozenset(name for name in ASYMMETRIC if strong and name[:2] in ("RS", "PS"))
        case ec.EllipticCurvePublicKey():
            return frozenset(filter(None, [_CURVES.get(material.curve.name)]))
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return frozenset(("EdDSA",))
    return frozenset()


class PublicKeyFile(FromFiles[FixedKeys]):
    """The public keys in a PEM file that something may replace at any time, for `jwt_authenticator`.

    A connection that is open stays, whatever becomes of the key that its token was checked with.

    Args:
      file: the file; see `public_keys` for what it holds.

    Raises:
      InvalidConfig: it can't be read or used; the text says why.
    """

    def __init__(self, file: str | Path) -> None:
        self._file = Path(file)
        super().__init__("public key", self._file)

    def _make(self) -> FixedKeys:
        return public_keys(self._file.read_bytes())

    async def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """See `Keys.find`; not a checkpoint."""
        return await self.current().find(kid, algorithm)


def jwt_authenticator(
    keys: Keys | str,
    *,
    audience: str | None = None,
    issuer: str | None = None,
    algorithms: Iterable[str] = ALGORITHMS,
    leeway: float = LEEWAY,
) -> Authenticate:
    """Check JSON Web Tokens: `sub` is the user, and `exp` is required; `nbf` and `iat` count where they are there.

    Args:
      keys: where keys are looked up; or a shared secret.
      audience: what `aud` must hold; None requires that there is none.
      issuer: what `iss` must be; None takes any.
      algorithms: those that are believed, as far as the key found is good for them.
      leeway: seconds by which clocks may differ; a connection lives so much longer than its token.

    Raises:
      InvalidConfig: an algorithm is not known.
      ImportError: PyJWT is not installed (``trio-ws[server]``).
    """
    import jwt

    believed = frozenset(algorithms)
    if unknown := believed - SYMMETRIC - ASYMMETRIC:
        raise InvalidConfig(f"{', '.join(sorted(unknown))}: no algorithm that tokens are checked with here")
    where = secret_keys(keys) if isinstance(keys, str) else keys

    async def authenticate(credentials: Credentials) -> Identity | None:
        token = credentials.token
        if token is None or token.count(".") != 2:
            return None
        algorithm, kid = _claimed(token.partition(".")[0])
        if algorithm not in believed:
            return None
        for key in (await where.find(kid, algorithm))[:MAX_TRIED]:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.material,
                    algorithms=[algorithm],
                    audience=audience,
                    issuer=issuer,
                    leeway=leeway,
                    options={"require": ["exp", "sub"]},
                )
                return Identity(claims["sub"], float(claims["exp"]) + leeway, issued=_time(claims.get("iat")))
            except Exception:  # claims may be anything as well, where an issuer signs anything
                continue
        return None

    return authenticate


@lru_cache(HEADERS)
def _claimed(header: str) -> tuple[str | None, str | None]:
    """The algorithm and the name of the key that a token's header tells of, unverified; None for what it does not."""
    try:
        told = json.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4)))
        algorithm, kid = told.get("alg"), told.get("kid")
    except (AttributeError, RecursionError, ValueError):
        return None, None
    return (algorithm, kid) if isinstance(algorithm, str) and isinstance(kid, str | None) else (None, None)


def _time(claim: object) -> float | None:
    return float(claim) if isinstance(claim, int | float) and not isinstance(claim, bool) else None
