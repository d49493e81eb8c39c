"""How Hypothesis runs here: without a deadline for one example, since a busy machine is no bug."""

from hypothesis import settings

settings.register_profile("core", deadline=None)
settings.load_profile("core")
