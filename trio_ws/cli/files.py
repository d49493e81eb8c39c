"""What a server reads from files that may be replaced while it runs: certificates and keys."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio

from ..errors import InvalidConfig
from ..files import FromFiles
from ..settings import Settings
from .output import Failure

if TYPE_CHECKING:
    from ..admin.keys import ApiKeys, KeyFile
    from ..server.tls import Certificates
    from ..server.tokens import PublicKeyFile

T = TypeVar("T")


@attrs.frozen
class Files:
    """Each is read again when it changes, and all are on SIGHUP; None for what the settings don't name."""

    certificates: Certificates | None
    admin_certificates: Certificates | None
    api_keys: KeyFile | None
    public_keys: PublicKeyFile | None

    async def reload_on_hangup(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Read them again on each SIGHUP, until cancelled. Without any, the signal means what it always did."""
        files: list[FromFiles[Any]] = [
            file for file in attrs.astuple(self, recurse=False) if file is not None
        ]
        if not files:
            task_status.started()
            return
        with trio.open_signal_receiver(signal.SIGHUP) as hangups:
            task_status.started()
            async for _ in hangups:
                for file in files:
                    file.reload()


def open_files(settings: Settings) -> Files:
    """Read what `settings` name.

    Raises:
      Failure: a file can't be read or used.
    """
    from ..admin.keys import KeyFile
    from ..server.tls import Certificates
    from ..server.tokens import PublicKeyFile

    admin_key = settings.admin_tls_key
    pem = None if settings.insecure else settings.jwt_public_key
    return Files(
        _opened(settings.tls_cert, lambda cert: Certificates(cert, settings.tls_key)),
        _opened(settings.admin_tls_cert, lambda cert: Certificates(cert, admin_key)),
        _opened(settings.api_key_file, KeyFile),
        _opened(pem, PublicKeyFile),
    )


def api_keys(settings: Settings, file: KeyFile | None) -> ApiKeys | None:
    """The keys that the admin API takes, if it asks for any."""
    key = settings.api_key
    if file is None:
        return key
    return file.current if key is None else lambda: (key, *file.current())


def _opened(name: str | None, read: Callable[[str], T]) -> T | None:
    try:
        return None if name is None else read(name)
    except InvalidConfig as exc:
        raise Failure(str(exc), 2) from None
