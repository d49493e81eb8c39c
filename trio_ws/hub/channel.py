"""One user's mailbox as a Trio channel to publish into: `trio.abc.SendChannel`, closing as memory channels close."""

from __future__ import annotations

import attrs
import trio

from ..event import Draft
from .publisher import Publisher
from .receipt import Receipt


@attrs.frozen(kw_only=True)
class ChannelStatistics:
    """What `PublishChannel.statistics` tells, in the words of Trio's memory channels.

    Attributes:
      current_buffer_used: events that the mailbox holds and that have not settled.
      max_buffer_size: `max_events_per_user`.
      tasks_waiting_send: publishers that wait for room.
      open_send_channels: channels to this user, clones included.
    """

    current_buffer_used: int
    max_buffer_size: int
    tasks_waiting_send: int
    open_send_channels: int


class PublishChannel(trio.abc.SendChannel[Draft]):
    """Publishes to one user. Made by `Hub.channel`; a channel may be cloned, and each clone is closed by itself."""

    def __init__(self, publisher: Publisher, user: str) -> None:
        self._publisher = publisher
        self._user = user
        self._closed = False
        publisher.channels[user] = publisher.channels.get(user, 0) + 1

    async def send(self, value: Draft) -> None:
        """Publish `value`; waits while the mailbox is full of critical events. As `Hub.publish` on cancellation.

        Raises:
          trio.ClosedResourceError: this channel was closed.
          trio.BrokenResourceError: the hub has ended.
          InvalidEvent: a field of `value` is out of its bounds, or the payload has no JSON form.
          HubClosed: the hub drains, or ended while this waited.
        """
        await self.publish(value)

    async def publish(self, value: Draft) -> Receipt:
        """As `send`, and gives the receipt."""
        self._check()
        return await self._publisher.publish_draft(self._user, value)

    def send_nowait(self, value: Draft) -> Receipt:
        """Publish `value` now.

        Raises:
          trio.WouldBlock: the mailbox is full of critical events.
        """
        self._check()
        return self._publisher.publish_draft_nowait(self._user, value)

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._publisher.engine.closed:
            raise trio.BrokenResourceError("the hub has ended")

    def clone(self) -> PublishChannel:
        """Another channel to the same user.

        Raises:
          trio.ClosedResourceError: this one was closed.
        """
        if self._closed:
            raise trio.ClosedResourceError
        return PublishChannel(self._publisher, self._user)

    def close(self) -> None:
        """Close this channel. What was published stays published; closing twice is fine."""
        if not self._closed:
            self._closed = True
            left = self._publisher.channels[self._user] - 1
            if left:
                self._publisher.channels[self._user] = left
            else:
                del self._publisher.channels[self._user]

    async def aclose(self) -> None:
        """As `close`; a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> PublishChannel:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def statistics(self) -> ChannelStatistics:
        """A snapshot of what the mailbox holds."""
        box = self._publisher.engine.buffer.mailboxes.get(self._user)
        used = sum(e.weight for e in box.entries.values() if not e.settled) if box is not None else 0
        return ChannelStatistics(
            current_buffer_used=used,
            max_buffer_size=self._publisher.engine.config.max_events_per_user,
            tasks_waiting_send=self._publisher.engine.room.line(self._user),
            open_send_channels=self._publisher.channels.get(self._user, 0),
        )
