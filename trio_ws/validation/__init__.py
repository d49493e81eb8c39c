"""What `trio-ws validate` runs: load, faults and absences against real server processes, and the report of it.

`run.py` goes through the phases of `phases.py`, on both sides (`arm.py`) at once, and leaves everything in `Findings`.
`measures.py` makes figures of that, `requirements.py` judges them, `report.py` tells it.
"""
