"""Keys and tokens for tests: one key of each kind, made once."""

from __future__ import annotations

import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

SECRET = "a secret of more than thirty-two bytes"


def private_key(algorithm: str, name: str = "") -> Any:
    """A private key for `algorithm`; another for each `name`."""
    return _made(algorithm, name)


@cache
def _made(algorithm: str, name: str) -> Any:
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(65537, 2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case "weak":
            return rsa.generate_private_key(65537, 1024)
    raise ValueError(algorithm)


def pem(algorithm: str, name: str = "") -> bytes:
    """The public key in PEM."""
    return bytes(
        private_key(algorithm, name)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def jwk(algorithm: str, name: str, **more: Any) -> dict[str, Any]:
    """The public key as one of a set."""
    described: dict[str, Any] = json.loads(
        jwt.get_algorithm_by_name(algorithm).to_jwk(private_key(algorithm, name).public_key())
    )
    return {**described, "kid": name, "use": "sig", **more}


def token(key: Any = SECRET, algorithm: str = "HS256", *, kid: str | None = None, **claims: Any) -> str:
    """A token for ada that is good for a minute, with other `claims`; None leaves one out."""
    now = time.time()
    body = {"sub": "ada", "exp": now + 60, "iat": now, **claims}
    return jwt.encode(
        {name: value for name, value in body.items() if value is not None},
        key,
        algorithm,
        headers=None if kid is None else {"kid": kid},
    )
