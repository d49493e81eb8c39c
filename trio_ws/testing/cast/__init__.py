"""Who plays in a run: tabs, publishers, the server's lives, clients that misbehave, and the chaos that befalls them."""
