"""Every figure that the README claims, as a command that prints a ratio against a peer."""
