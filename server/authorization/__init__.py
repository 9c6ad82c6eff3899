"""Authorization: money operations on a card, decided under its lock and posted double-entry."""
