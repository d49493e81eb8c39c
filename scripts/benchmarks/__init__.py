"""The benchmarks of the project: `scripts/bench --help`; docs/performance.md says how to read what they print.

    compare       the scenarios A to G, against this server and its peers, interleaved in one run
    crowd         5,000 connections at one event a second
    growth        cost per event as connections and mailboxes grow
    neighbours    what slow and stuck clients cost the others
    resume        CPU of a new connection and of a resumed one
    micro         the parts of the core, one by one, under pyperf

What those share, from the top down:

    scenarios     what is done to a system in a scenario, and what is measured of it
    processes     a server (or broker and publisher) and a load generator as processes, pinned to cores, and their CPU
    peers/        each system under test: how its server is started, and its client's protocol
    servers/      the servers, one small program each, on the workload of `workload.py` or `workload.js`
    loadgen       the client process: `Session`s of `session.py` over the connections of `dialing.py`
    report        results as tables, with ratios and goals
"""
