"""A server is killed again and again under load; what all who were there wrote down is held against the promises.

__main__.py     the command: `scripts/chaos`
run.py          one run: the processes that take part, fault after fault, healing, the verdict
plan.py         what is done to each life of the server, drawn from the seed
lives.py        the server's lives; nest.py, the process that they are born of
publishers.py   a process that publishes, and repeats what was not answered
tabs.py         a process of clients, whose sessions outlive it
journal.py      what each of them writes: a line for each thing that happened, never changed
copies.py       copies of the database, taken while it is written, opened and checked
checker.py      reads the journals, and says what was promised and is not so; evidence.py, what it reads
"""
