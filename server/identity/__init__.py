"""Identity: who stands at the counter? Yes or no, for a published purpose, and nothing more."""
