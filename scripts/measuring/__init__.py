"""What the project promises, in figures: `scripts/measure`; and what they come to for many users: `scripts/sizing`."""
