"""The callers of the core: typed clients of every RPC, a virtual chip card, and a day of the province.

``errors`` and ``retry`` say what may be asked again; ``channel`` does it; ``service_client`` has one method per RPC,
from a module per service in ``services``;
``bank``, ``terminal``, ``agency``, ``benefit_office`` and ``operator`` speak the words of their trade; ``holds``,
``reversals`` and ``look_up`` are for what takes more than one call. Nothing here imports the server,
except ``demo``, which borrows its synthetic people.
"""
