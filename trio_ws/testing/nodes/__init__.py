"""Several nodes on one store, in simulation: they die, leave, are cut off and lose what they tell each other."""
