"""Cryptography: what a hardware security module does for a bank's core, and the PIN of a card under its lock."""
