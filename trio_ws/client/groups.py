"""Exceptions that leave a nursery of ours, as its caller should see them."""

from __future__ import annotations

import trio


def sole_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception that the group is about: tasks that were cancelled on the way add nothing to it.

    A group that the caller's own code raised is one exception here and stays as it is. Where several tasks failed by
    themselves it is the whole group. Raise it outside of the `except` block, so that it doesn't gain the group as
    its context.
    """
    errors = [error for error in group.exceptions if not isinstance(error, trio.Cancelled)]
    if len(errors) == 1:
        return errors[0]
    return group if errors else group.exceptions[0]
