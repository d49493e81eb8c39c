"""Kinds of arguments that more than one command takes. What is wrong with one is one line, and exit status 2."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from .output import Failure

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class Text(click.types.StringParamType):
    """Text that can be sent: UTF-8 (an argument may be any bytes), without control characters."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text: str = super().convert(value, param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Failure(f"{_name(param)} must be UTF-8", 2) from None
        if _CONTROLS.search(text):
            raise Failure(f"{_name(param)} must not hold control characters", 2)
        return text


class Seconds(click.FloatRange):
    """A time in seconds, not NaN."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is no time.", param, ctx)
        return seconds


def _name(param: click.Parameter | None) -> str:
    """What `param` is called in the help."""
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return "an argument" if param is None else param.human_readable_name
