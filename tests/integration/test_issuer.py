"""An issuer that is a real HTTP server: tokens are checked with its keys, and a new key is noticed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trio

import trio_ws
from trio_ws.server import RemoteKeys, jwt_authenticator
from trio_ws.server.auth import Credentials

from ..server.tokens import jwk, private_key, token

pytestmark = pytest.mark.integration


@contextmanager
def issuer(keys: list[dict[str, Any]]) -> Iterator[str]:
    """Serves `keys`, as they are when they are asked for; gives the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"keys": keys}).encode()
            self.send_response(200)
            self.send_header("Cache-Control", "max-age=600")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_keys_over_http(algorithm: str) -> None:
    keys = [jwk(algorithm, "first")]
    with trio.fail_after(30), issuer(keys) as url:
        async with trio.open_nursery() as nursery:
            remote = RemoteKeys(url)
            nursery.start_soon(remote.run)
            authenticate = jwt_authenticator(remote)
            good = token(private_key(algorithm, "first"), algorithm, kid="first")
            identity = await authenticate(Credentials(token=good))
            assert isinstance(identity, trio_ws.Identity)
            assert identity.user == "ada"
            forged = token(private_key(algorithm, "forged"), algorithm, kid="first")
            assert await authenticate(Credentials(token=forged)) is None
            nursery.cancel_scope.cancel()


async def test_the_command_notices_a_new_key() -> None:
    from ..cli.fake_admin import finish, start

    keys = [jwk("ES256", "first")]
    with trio.fail_after(60), issuer(keys) as url:
        process = start("serve", "--store", "memory", "--port", "0", "--admin-port", "0", "--jwt-jwks", url)
        assert process.stderr is not None
        try:
            address = process.stderr.readline().decode().split()[-1]
            assert address.startswith("ws://")
            for name in ("first", "second"):
                if name == "second":
                    keys[:] = [jwk("ES256", "second")]
                    await trio.sleep(5)  # between two fetches at least
                good = token(private_key("ES256", name), "ES256", kid=name)
                async with trio_ws.connect(address, token=good) as client:
                    await client.wait_live()
            with pytest.raises(trio_ws.SessionEnded) as caught:
                old = token(private_key("ES256", "first"), "ES256", kid="first")
                async with trio_ws.connect(address, token=old) as client:
                    async for _ in client:
                        pass
            assert caught.value.code == 4401
        finally:
            process.terminate()
            status, _, err = finish(process)
        assert status == 0
        assert "eyJ" not in err
