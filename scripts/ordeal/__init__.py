"""Servers are killed again and again under load; what all who were there wrote down is held against the promises.

__main__.py     the command: `scripts/chaos`
run.py          one run of a server over a file: fault after fault, healing, the verdict
plan.py         what is done to each of its lives, drawn from the seed; faults.py does it
copies.py       copies of the database, taken while it is written, opened and checked
cluster.py      one run of several nodes over one Redis
rounds.py       what is done to them, round by round, drawn from the seed
redises.py      what they share: one Redis, a primary under sentinels, a cluster; and how it is broken
nodes.py        the nodes, their links to Redis, and the balancers; forwarder.py, what those are made of
namespaces.py   a network for each node, in which packets are lost
kept.py         what Redis holds, against what was promised
lives.py        a server's lives; nest.py, the process that they are born of
party.py        who works with the servers meanwhile, and how all get well
publishers.py   a process that publishes, and repeats what was not answered
tabs.py         a process of clients, whose sessions outlive it
journal.py      what each of them writes: a line for each thing that happened, never changed
checker.py      reads the journals, and says what was promised and is not so; evidence.py, what it reads
prove.py        another command, `scripts/prove`: the run of a real command, through connections that are cut
"""
