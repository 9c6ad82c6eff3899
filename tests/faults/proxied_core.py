"""A core whose database lies behind a proxy that fails on demand."""

from dataclasses import dataclass

from core_under_test import Core
from integration.running_instance import Instance
from tcp_proxy import TcpProxy


@dataclass(frozen=True)
class ProxiedCore:
    """The core, the proxy before its database, and the process."""

    core: Core
    proxy: TcpProxy
    instance: Instance
