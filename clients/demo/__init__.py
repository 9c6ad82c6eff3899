"""A day of the card in the eleven cities, against a core of its own: ``python -m clients.demo``.

Everything goes over gRPC with mutual TLS, as a bank, an agency and a terminal operator would do it; only the end of one
hold is moved in the database. It must never touch an instance it did not start, and never print a key, a card number or a name with its number.
"""
