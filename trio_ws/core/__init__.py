"""The pure heart: no Trio, no I/O, no clock, no randomness. Time, chance and new ids are arguments; each call runs to its end."""
