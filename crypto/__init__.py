"""The cryptography of the social-security card: a leaf that knows nothing of the wire or the database.

It exists so that every formula of a standard lives in one pure function beside the clause it comes from, and
so that key bytes stay behind the key store: the server works with handles (``KeyRef``) and typed objects.

It must never import the server, gRPC or a database driver; never log; never put a key, a PIN or a whole card
number into an exception or a ``repr``; never answer a verification with a bool that a caller can overlook.

Reading order: ``keys``, ``blocks``, ``macs``, ``diversification``, ``cryptogram``, then ``key_store``.
"""
