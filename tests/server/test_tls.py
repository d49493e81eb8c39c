"""Certificates that are replaced while the server runs."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509

from trio_ws.errors import InvalidConfig
from trio_ws.files import LOOK_INTERVAL
from trio_ws.server.tls import Certificates

from .certificates import write_certificate


@pytest.fixture
def clock(autojump_clock: Any) -> Any:
    return autojump_clock


async def serial(certificates: Certificates) -> int:
    """The serial number of the certificate that a client is shown now."""
    theirs, ours = trio.testing.memory_stream_pair()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    server = trio.SSLStream(ours, certificates.current(), server_side=True)
    client = trio.SSLStream(theirs, context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        await client.do_handshake()
    shown = client.getpeercert(binary_form=True)
    assert isinstance(shown, bytes)
    return x509.load_der_x509_certificate(shown).serial_number


async def test_what_changes_is_read_again(clock: Any, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(cert, key, serial=11)
    certificates = Certificates(cert, key)
    assert await serial(certificates) == 11
    write_certificate(cert, key, serial=12)
    await trio.sleep(LOOK_INTERVAL)
    assert await serial(certificates) == 12


async def test_one_file_for_both(clock: Any, tmp_path: Path) -> None:
    write_certificate(tmp_path / "both.pem", serial=5)
    assert await serial(Certificates(tmp_path / "both.pem")) == 5


async def test_what_is_half_replaced_leaves_the_old_one(
    clock: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(cert, key, serial=1)
    certificates = Certificates(cert, key)
    write_certificate(tmp_path / "c", tmp_path / "k", serial=2)
    (tmp_path / "c").replace(cert)
    await trio.sleep(LOOK_INTERVAL)
    assert await serial(certificates) == 1
    assert "the old one stays" in caplog.text
    (tmp_path / "k").replace(key)
    await trio.sleep(LOOK_INTERVAL)
    assert await serial(certificates) == 2


async def test_what_is_gone_leaves_it_too(clock: Any, tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    write_certificate(cert, serial=1)
    certificates = Certificates(cert)
    cert.unlink()
    await trio.sleep(LOOK_INTERVAL)
    assert await serial(certificates) == 1
    assert not certificates.reload()
    cert.write_text("nonsense")
    await trio.sleep(LOOK_INTERVAL)
    assert await serial(certificates) == 1


def test_what_can_t_be_used_is_told(tmp_path: Path) -> None:
    cert, key, other = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "other.pem"
    with pytest.raises(InvalidConfig, match="no such file"):
        Certificates(cert)
    write_certificate(cert, key)
    write_certificate(tmp_path / "c2", other)
    with pytest.raises(InvalidConfig, match="mismatch"):
        Certificates(cert, other)
    cert.write_text("nonsense")
    with pytest.raises(InvalidConfig, match="can't be used"):
        Certificates(cert, key)


async def test_old_versions_of_tls_are_not_spoken(tmp_path: Path) -> None:
    write_certificate(tmp_path / "both.pem")
    assert Certificates(tmp_path / "both.pem").current().minimum_version >= ssl.TLSVersion.TLSv1_2
