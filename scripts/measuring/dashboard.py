"""What the dashboard weighs, and how soon it shows something."""

from __future__ import annotations

import httpx
from loopback.server import serving

from trio_ws.admin.pages import DASHBOARD

from .browser import chromium
from .times import show

SHOWN = """new Promise((done) => {
  const look = () => /\\d/.test(document.querySelector(".tile .figure")?.textContent ?? "")
    ? done(performance.now()) : setTimeout(look, 1);
  look();
})"""


def measure(loads: int = 10) -> None:
    """Weigh what is served, and have Chromium open the page so often, each time with an empty cache."""
    with serving("--store", "memory") as server, chromium() as browser:
        for name, coding in (("raw", "identity"), ("compressed", "gzip")):
            with httpx.Client(base_url=server.http, headers={"accept-encoding": coding}) as client:
                sizes = []
                for path in DASHBOARD:
                    with client.stream("GET", path) as answer:
                        sizes.append(sum(map(len, answer.iter_raw())))
            print(f"{'weight, ' + name:40} {sum(sizes) / 1024:6.1f} KiB in {len(sizes)} files")
        times = []
        for _ in range(loads):
            page = browser.new_context().new_page()
            page.goto(server.http, wait_until="commit")
            times.append(page.evaluate(SHOWN) / 1000)
            page.context.close()
    show("opening to first figures", times)
