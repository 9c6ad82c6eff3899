"""A worker that serves settlement alone, composed as ``server/composition.py`` does; ends at SIGTERM after a drain."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import grpc

from server.composition import add_settlement
from server.database.pool import open_pool
from server.database.reader import PeriodicReader
from server.development_ca import ensure_server_certificate
from server.edge.access_line import AccessLines
from server.edge.admission import Admission
from server.edge.caller import ParticipantRegistry
from server.edge.gate import Gate
from server.edge.tls import server_credentials
from server.settings import SETTLEMENT_CONNECTIONS, Settings
from server.settlement.subscriptions import INDEXED_READS, Subscriptions

IN_FLIGHT_MAX = 300


async def serve(dsn: str, port: int, data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir, port=port)
    pool = await open_pool(settings, dsn, application_name="worker")
    settlement_pool = await open_pool(
        settings,
        dsn,
        application_name="settlement",
        connections_max=SETTLEMENT_CONNECTIONS,
        session_settings=INDEXED_READS,
    )
    registry = ParticipantRegistry(pool)
    participants = PeriodicReader("participants", registry.refresh)
    await participants.start()
    subscriptions = Subscriptions(settlement_pool)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 1)])
    files = ensure_server_certificate(data_dir, host="127.0.0.1")
    server.add_secure_port(
        f"127.0.0.1:{port}", server_credentials(files.certificate, files.key, files.authority)
    )
    gate = Gate(server, registry, Admission(in_flight_max=IN_FLIGHT_MAX), AccessLines(enabled=False))
    add_settlement(gate, settings, pool=pool, subscriptions=subscriptions)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await stopping.wait()
    gate.draining = True
    await server.stop(5)
    await subscriptions.stop()
    await participants.stop()
    await settlement_pool.close()
    await pool.close()


if __name__ == "__main__":
    facts = json.loads(sys.argv[1])
    asyncio.run(serve(facts["dsn"], facts["port"], Path(facts["data_dir"])))
