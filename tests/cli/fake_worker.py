"""A worker that is cheap to start, and does what its plan says: `python -S fake_worker.py PLAN`.

It speaks both protocols that a real one is started with. It answers each connection with its process id, and writes
what befalls it to PLAN.log, a line each. PLAN is a file with one word, read at the start:

  serve    ready at once; drains on SIGTERM
  slow     as serve, and its drain waits until a second SIGTERM, which ends it with 143
  die      ends at once, with 3
  wrong    ends at once, with 2
  mute     never ready
  hang     ready, and then never heard of again
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys


def tell(text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(text.encode(), "\0" + os.environ["NOTIFY_SOCKET"][1:])


def main() -> None:
    with open(sys.argv[1]) as file:
        plan = file.read().strip()

    def log(text: str) -> None:
        with open(sys.argv[1] + ".log", "a") as file:
            file.write(f"{os.getpid()} {text}\n")

    log(f"{plan} of {' '.join(sys.argv[2:])}")
    if plan in ("die", "wrong"):
        sys.exit({"die": 3, "wrong": 2}[plan])
    assert os.environ["LISTEN_PID"] == str(os.getpid())
    names = os.environ["LISTEN_FDNAMES"].split(":")
    assert len(names) == int(os.environ["LISTEN_FDS"])
    ws = socket.socket(fileno=3 + names.index("ws"))
    assert socket.socket(fileno=3 + names.index("admin")).getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ws.setblocking(False)
    waker, woken = socket.socketpair()
    for end in (waker, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: log(signal.Signals(number).name))
    if plan != "mute":
        tell("READY=1\nSTATUS=serving")
    terms = 0
    with selectors.DefaultSelector() as selector:
        selector.register(ws, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(0.05):
                if key.fileobj is woken:
                    terms += woken.recv(100).count(signal.SIGTERM)
                else:
                    try:
                        connected, _ = ws.accept()
                    except BlockingIOError:
                        continue
                    with connected:
                        connected.sendall(str(os.getpid()).encode())
            if terms == 1 and plan != "slow":
                log("drained")
                os._exit(0)
            if terms == 2:
                os._exit(143)
            if plan not in ("hang", "mute"):
                tell("WATCHDOG=1")


main()
