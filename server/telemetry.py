"""Metrics of workers and the housekeeper, added up over all processes by the metrics page.

Each process writes into memory-mapped files of one directory, which the supervisor names in the environment
before ``prometheus_client`` is first imported; the supervisor itself must not import this module. Label
values are enumerations (methods, response codes, reasons), never anything a caller sent.
"""

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

SECONDS_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
OPERATIONS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

RPCS = Counter("onecard_rpc", "Calls ended, by method and gRPC status.", ["method", "status"])
RPC_SECONDS = Histogram("onecard_rpc_seconds", "Time to answer a call.", ["method"], buckets=SECONDS_BUCKETS)
DECISIONS = Counter(
    "onecard_decisions",
    "Outcomes answered, replays included, by operation and response code.",
    ["operation", "response_code"],
)
BATCH_OPERATIONS = Histogram(
    "onecard_batch_operations", "Operations in one database transaction.", buckets=OPERATIONS_BUCKETS
)
BATCH_SECONDS = Histogram(
    "onecard_batch_seconds", "Time of one batch, from lock to commit.", buckets=SECONDS_BUCKETS
)
QUEUE_OPERATIONS = Gauge(
    "onecard_queue_operations", "Operations waiting for a batch, all workers.", multiprocess_mode="livesum"
)
REFUSALS = Counter("onecard_refusals", "Calls refused before a decision, by reason.", ["reason"])
CRYPTOGRAPHY = Counter(
    "onecard_cryptographic_operations",
    "Operations of CryptographyService that keep nothing, by outcome.",
    ["operation", "outcome"],
)
SUBSCRIPTIONS = Gauge(
    "onecard_subscriptions", "Open subscriptions to events, all workers.", multiprocess_mode="livesum"
)
EVENTS_SENT = Counter("onecard_events_sent", "Events sent to subscriptions.")
HOUSEKEEPING_JOBS = Counter(
    "onecard_housekeeping_jobs", "Runs of housekeeping jobs, by outcome.", ["job", "outcome"]
)
RULE_CHANGES = Counter("onecard_rule_changes", "Steps of changes of rules, by kind.", ["kind", "step"])
RULES_UNREADABLE = Gauge(
    "onecard_rules_unreadable", "Rules in force that a worker cannot read.", multiprocess_mode="livemax"
)
RULES_REFRESH_SECONDS = Histogram(
    "onecard_rules_refresh_seconds", "Time in which a worker took changed rules.", buckets=SECONDS_BUCKETS
)


# Binding a label set costs more than counting: each is bound once. The sets are finite by construction.
@cache
def rpc_counter(method: str, status: str) -> Counter:
    return RPCS.labels(method, status)


@cache
def rpc_seconds(method: str) -> Histogram:
    return RPC_SECONDS.labels(method)


@cache
def decision_counter(operation: str, response_code: str) -> Counter:
    return DECISIONS.labels(operation, response_code)


@cache
def refusal_counter(reason: str) -> Counter:
    return REFUSALS.labels(reason)


@cache
def cryptography_counter(operation: str, outcome: str) -> Counter:
    return CRYPTOGRAPHY.labels(operation, outcome)


@cache
def rules_version() -> Gauge:
    """The least of all workers: one that lags behind shows. Made by the first who asks: a process without rules,
    such as the housekeeper, would count as version 0."""
    return Gauge(
        "onecard_rules_version",
        "Version of the rules that the most backward worker follows.",
        multiprocess_mode="livemin",
    )


@cache
def housekeeping_counter(job: str, outcome: str) -> Counter:
    return HOUSEKEEPING_JOBS.labels(job, outcome)
