"""A day of the card in the eleven cities, against a core of its own: ``python -m clients.demo``.

Everything goes over gRPC with mutual TLS, as banks, agencies and terminal operators would do it; only the end of one
hold is moved in the database. It must never touch an instance it did not start, and never print a key, a card number
or a name with its number.
"""
