"""What must hold: a run as it is seen from outside (`record`, `sight`), and a class for each invariant."""
