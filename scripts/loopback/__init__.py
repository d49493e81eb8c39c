"""Real servers of one's own on the loopback, to be measured, killed and cut off: for the scripts, and for the tests."""
