"""The pure heart: no Trio, no I/O, no clock, no chance. Time and new ids are arguments; each call runs to its end."""
