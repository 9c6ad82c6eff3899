"""Group commit: lock, decide, persist. Every durable decision of the core runs here.

The engine knows no capability: it knows operations, the rows they lock and the outcomes they ask for.
"""
