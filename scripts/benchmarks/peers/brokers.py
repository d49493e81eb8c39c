"""Brokers that speak to browsers: Mosquitto and NATS. Neither pip nor npm has them: they run where installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from ..processes import module
from ..session import Load, Session
from . import Peer


class Mqtt(Session):
    """MQTT 3.1.1: a persistent session with a subscription of QoS 1."""

    subprotocol = "mqtt"
    binary = True

    def __init__(self, load: Load, index: int) -> None:
        super().__init__(load, index)
        self._unread = b""

    def url(self, port: int) -> str:
        return f"ws://127.0.0.1:{port}/mqtt"

    def opened(self) -> None:
        self._unread = b""
        name = self.user.encode()
        body = b"\x00\x04MQTT\x04\x00\x02\x58" + len(name).to_bytes(2, "big") + name
        self.send(b"\x10" + bytes((len(body),)) + body)

    def message(self, data: bytes) -> None:
        data = self._unread + data
        at, answers = 0, b""
        while (packet := _packet(data, at)) is not None:
            body, end = packet
            answers += self._handle(data[at], data[body:end])
            at = end
        self._unread = data[at:]
        if answers:
            self.send(answers)

    def _handle(self, head: int, body: bytes) -> bytes:
        """Take one packet; what is to be answered."""
        kind = head >> 4
        if kind == 3:  # PUBLISH
            topic = 2 + int.from_bytes(body[:2], "big")
            self.event(body[topic + 2 :])
            return b"\x40\x02" + body[topic : topic + 2]
        if kind == 9:  # SUBACK
            self.ready()
        if kind == 2:  # CONNACK
            assert body[1] == 0, body
            if body[0] & 1:  # the session is there still, with its subscription
                self.ready()
            else:
                subject = b"ev/all" if self.load.topic == "all" else b"ev/" + self.user.encode()
                asked = b"\x00\x01" + len(subject).to_bytes(2, "big") + subject + b"\x01"
                return b"\x82" + bytes((len(asked),)) + asked
        return b""


def _packet(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the body of the MQTT packet at `at` begins and ends; None where it is not all there."""
    size = shift = 0
    for body in range(at + 1, min(at + 5, len(data))):
        size |= (data[body] & 127) << shift
        shift += 7
        if data[body] < 128:
            end = body + 1 + size
            return (body + 1, end) if end <= len(data) else None
    return None


class Nats(Session):
    """JetStream: a durable push consumer for each user, which acks each event."""

    binary = True

    def __init__(self, load: Load, index: int) -> None:
        super().__init__(load, index)
        self._unread = b""
        self._created = False
        self._greeted = False

    def url(self, port: int) -> str:
        return f"ws://127.0.0.1:{port}/"

    def opened(self) -> None:
        self._unread, self._greeted = b"", False

    def _hello(self) -> None:
        connect = {
            "verbose": False,
            "pedantic": False,
            "lang": "bench",
            "version": "1",
            "headers": True,
            "no_responders": True,
        }
        words = f"CONNECT {json.dumps(connect)}\r\nSUB d.{self.user} 2\r\n"
        if self._created:
            words += "PING\r\n"
        else:
            consumer = {
                "durable_name": self.user,
                "deliver_subject": f"d.{self.user}",
                "filter_subject": "ev.all" if self.load.topic == "all" else f"ev.{self.user}",
                "ack_policy": "explicit",
                "ack_wait": 30_000_000_000,
                "deliver_policy": "all",
                "max_ack_pending": 256,
                "replay_policy": "instant",
            }
            asked = json.dumps({"stream_name": "EV", "config": consumer})
            words += (
                f"SUB _INBOX.{self.user} 1\r\n"
                f"PUB $JS.API.CONSUMER.DURABLE.CREATE.EV.{self.user} _INBOX.{self.user} {len(asked)}\r\n{asked}\r\n"
            )
        self.send(words.encode())

    def message(self, data: bytes) -> None:
        unread, at = self._unread + data, 0
        answers: list[bytes] = []
        while (end := unread.find(b"\r\n", at)) >= 0:
            line = unread[at:end]
            if line.startswith(b"MSG "):
                words = line.split()
                size = int(words[-1])
                if len(unread) < end + 4 + size:
                    break
                body, at = unread[end + 2 : end + 2 + size], end + 4 + size
                if words[2] == b"2":
                    self.event(body)
                    answers.append(b"PUB %b 4\r\n+ACK\r\n" % words[3])
                else:
                    assert b'"error"' not in body, body
                    self._created = True
                    self.ready()
                continue
            at = end + 2
            if line.startswith(b"INFO ") and not self._greeted:
                self._greeted = True
                self._hello()
            elif line == b"PING":
                answers.append(b"PONG\r\n")
            elif line == b"PONG":
                self.ready()
            elif line.startswith(b"-ERR"):
                raise RuntimeError(line)
        self._unread = unread[at:]
        if answers:
            self.send(b"".join(answers))


def _prepare_mosquitto(port: int, folder: Path) -> None:
    """Write its configuration: its limits as far away as ours."""
    (folder / "db").mkdir()
    (folder / "mosquitto.conf").write_text(
        f"allow_anonymous true\nlistener {port + 1} 127.0.0.1\n"
        f"listener {port} 127.0.0.1\nprotocol websockets\n"
        f"persistence true\npersistence_location {folder}/db/\nautosave_interval 1800\n"
        "max_inflight_messages 256\nmax_queued_messages 0\nset_tcp_nodelay true\n"
        "log_dest stderr\nlog_type error\nlog_type warning\nconnection_messages false\n"
        + ("user root\n" if Path.home() == Path("/root") else "")
    )


def _prepare_nats(port: int, folder: Path) -> None:
    (folder / "nats.conf").write_text(
        f'listen: "127.0.0.1:{port + 1}"\njetstream {{ store_dir: "{folder}/js" }}\n'
        f'websocket {{ listen: "127.0.0.1:{port}"\n no_tls: true }}\n'
    )


def _find(program: str) -> str:
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise RuntimeError(f"{program} is not installed (on Debian and Ubuntu: apt install {program})")
    return path


def _version_of(program: str, option: str) -> str:
    done = subprocess.run([_find(program), option], capture_output=True, text=True)
    return (done.stdout or done.stderr).splitlines()[0].strip()


PEERS = [
    Peer(
        name="mosquitto",
        client="peers.brokers:Mqtt",
        server=lambda _, folder: [_find("mosquitto"), "-c", str(folder / "mosquitto.conf")],
        prepare=_prepare_mosquitto,
        publisher=lambda port, _: module("servers.publisher", "mqtt", port + 1),
        version=lambda: _version_of("mosquitto", "-h"),
        recovers=True,
        reliability="QoS 1 with a persistent session: queued in memory, written to disk at the end",
    ),
    Peer(
        name="nats-js",
        client="peers.brokers:Nats",
        server=lambda _, folder: [_find("nats-server"), "-c", str(folder / "nats.conf")],
        prepare=_prepare_nats,
        publisher=lambda port, _: module("servers.publisher", "nats", port + 1),
        version=lambda: _version_of("nats-server", "--version"),
        recovers=True,
        reliability="JetStream, each event acked and in a file (synced every 2 minutes); redelivery after 30 s",
    ),
]
