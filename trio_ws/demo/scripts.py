"""What the simulated agents do: a handful of runs that are told again and again."""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen
class Call:
    """One use of a tool: what it prints, line by line, and how it ends. Where it is `measured`, each line is so much
    of the whole."""

    tool: str
    input: str
    output: tuple[str, ...]
    summary: str
    ok: bool = True
    measured: bool = False


@attrs.frozen
class Ask:
    """A question to the user, and what the agent makes of each answer, or of none within `timeout` seconds."""

    prompt: str
    replies: dict[str, str]
    otherwise: str
    timeout: float = 30.0

    @property
    def choices(self) -> list[str]:
        return list(self.replies)


@attrs.frozen
class Script:
    """One run: thoughts, calls, questions, runs of helpers, and the answer that is streamed."""

    agent: str
    task: str
    steps: tuple[str | Call | Ask | Script, ...]
    answer: str

    @property
    def title(self) -> str:
        return f"{self.agent}: {self.task}"


SCRIPTS: Final = (
    Script(
        "Researcher",
        "Why did sign-ups drop on Tuesday?",
        (
            "Sign-ups are counted in two places. I compare the funnel with the raw events first.",
            Call(
                "query_warehouse",
                "select step, count(*) from funnel where day = '2025-03-11' group by step",
                (
                    "landing      18,204\n",
                    "form_opened   6,911\n",
                    "form_sent     1,120\n",
                    "confirmed     1,088\n",
                ),
                "4 rows in 0.8 s",
            ),
            "People open the form and don't send it. That smells like the client, not like marketing.",
            Call(
                "read_deploys",
                "web, 10 to 12 March",
                (
                    "09:12  web 2025.3.10  rolled out\n",
                    "14:40  web 2025.3.11  rolled out\n",
                    "14:52  alerts quiet\n",
                ),
                "2 deploys",
            ),
        ),
        "The drop begins at 14:41, a minute after web 2025.3.11. That release validates phone numbers "
        "before the country is chosen, so the form refuses every number that is not American. 83 % of those "
        "who opened the form left there. Rolling back brings them back at once; the proper fix is to "
        "validate on submit.",
    ),
    Script(
        "Engineer",
        "Make the flaky checkout test reliable",
        (
            "It fails about once in thirty runs. I run it until it does.",
            Call(
                "run_tests",
                "pytest tests/test_checkout.py --count 60 -x",
                tuple(f"run {n:2d} {'.' * 12} ok\n" for n in range(1, 9))
                + ("run  9 .....F  assert cart.total == 42\n",),
                "failed in run 9",
                ok=False,
            ),
            "The total is read before the discount has arrived: a race between two requests.",
            Call(
                "edit_file",
                "tests/test_checkout.py",
                (
                    "-    cart = client.cart()\n",
                    "+    cart = client.wait_for_cart(discounts=1)\n",
                    "     assert cart.total == 42\n",
                ),
                "1 line changed",
            ),
            Script(
                "Tester",
                "Run the checkout tests until I can trust them",
                (
                    Call(
                        "run_tests",
                        "pytest tests/test_checkout.py --count 60",
                        tuple(f"runs {n:2d} to {n + 9:2d} {'.' * 10} ok\n" for n in range(1, 61, 10)),
                        "60 passed in 41 s",
                        measured=True,
                    ),
                ),
                "60 of 60 passed, the slowest in 0.9 s.",
            ),
            Ask(
                "The fix is one line in a test. Shall I merge it?",
                {
                    "Merge it": "Merged. The branch is gone, the test stays.",
                    "Leave it to me": "Good. The branch waits for a person to look at it.",
                },
                "Nobody was there to decide, so the branch waits.",
            ),
        ),
        "The test read the cart before its discount was applied. It now waits for the discount instead of "
        "hoping for it, and passed 60 times in a row. The application was right all along; nothing but the "
        "test has changed.",
    ),
    Script(
        "Travel desk",
        "Three days in Lisbon in May, by train where it makes sense",
        (
            "From Madrid there is no direct train by day any more. I look at what is left.",
            Call(
                "search_connections",
                "Madrid to Lisboa, 14 May, arrive before 20:00",
                (
                    "train  2 changes  9 h 40   €52\n",
                    "bus    direct     8 h 10   €39\n",
                    "plane  direct     1 h 25   €61\n",
                ),
                "3 connections",
            ),
            Call(
                "search_hotels",
                "Alfama or Graça, 3 nights, quiet",
                (
                    "Casa do Largo     €94   9.2\n",
                    "Graça Terrace     €118  9.0\n",
                    "Pátio Velho       €81   8.7\n",
                ),
                "3 of 41 match",
            ),
            Ask(
                "Which of the three shall I hold until tonight?",
                {
                    "Casa do Largo": "Held: Casa do Largo, a room to the court.",
                    "Graça Terrace": "Held: Graça Terrace, with the view.",
                    "Pátio Velho": "Held: Pátio Velho, the least expensive.",
                },
                "No word from you: I hold none of them, and all are free until six.",
            ),
        ),
        "Fly out on the morning of the 14th and take the slow train home on the 17th: the stretch along the "
        "Tejo is worth the day. Casa do Largo is the quiet one; ask for a room to the court.",
    ),
    Script(
        "Data keeper",
        "Bring the customer table into the new region",
        (
            "41,300 rows, no downtime. I copy in batches and compare at the end.",
            Call(
                "copy_rows",
                "customers, batches of 5,000",
                tuple(f"{min(n * 5000, 41300):6,d} of 41,300\n" for n in range(1, 10)),
                "41,300 rows in 5.2 s",
                measured=True,
            ),
            Call(
                "compare",
                "customers: checksum by month",
                ("2023  12 of 12 equal\n", "2024  12 of 12 equal\n", "2025   3 of  3 equal\n"),
                "no difference",
            ),
            Ask(
                "Both are equal. Where shall writes go now?",
                {
                    "To the new region": "Switched. The old region only reads from here on.",
                    "To both": "To both, then, until you say otherwise.",
                },
                "Without a word I change nothing: writes go to both.",
            ),
        ),
        "All 41,300 rows are in the new region and equal to the last byte. The old copy stays for thirty days.",
    ),
)
