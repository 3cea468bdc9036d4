"""The engine of the flow store: chDB through clickhouse-connect, so that the SQL is also that of a ClickHouse cluster.

One process owns the engine's folder, and each of its threads has a client of its own (see `loop.py`); nothing else in
Cellwall imports chDB, which hangs after a fork. Two tables: `flows`, as reported, and `edges`, hourly sums by key,
reporter, side, process, verdict and rules, which a materialised view keeps. The token of an insert is known to both, so
that one that died half-way is completed by repeating it. Into the SQL go only the constants below,
numbers and hexadecimal digits; records travel as data.
"""

# ruff: noqa: S608

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellwall.controller.store.flows.columns import COLUMNS, KEY, PROCESS

REMEMBERED = 10_000
"""Among how many inserts (per day that they touch) one is recognised."""

_TYPES = {
    "source": "FixedString(16)",
    "destination": "FixedString(16)",
    "protocol": "UInt8",
    "port": "UInt16",
    "side": "UInt8",
    "reporter": "LowCardinality(String)",
    "outcome": "UInt8",
    "would": "UInt8",
    "rules": "Array(LowCardinality(String))",
    **dict.fromkeys(PROCESS, "LowCardinality(String)"),
    "revision": "UInt64",
    "connections": "UInt64",
    "packets": "UInt64",
    "bytes": "UInt64",
    "first_seen": "Float64",
    "last_seen": "Float64",
    "standing": "UInt8",
}
_SUMS = {
    "revision": "max",
    "connections": "sum",
    "packets": "sum",
    "bytes": "sum",
    "first_seen": "min",
    "last_seen": "max",
    "standing": "min",
}
_SETTINGS = f"non_replicated_deduplication_window = {REMEMBERED}, fsync_after_insert = 1, fsync_part_directory = 1"
_KEY = ", ".join(KEY)
_PROCESS = ", ".join(PROCESS)
_SAME = f"{_KEY}, side, reporter, outcome, would, rules, {_PROCESS}"
_ORDER = f"{_KEY}, side, reporter, outcome, would, rules, {_PROCESS}"
_COUNTS = "sum(connections), sum(packets), sum(bytes), min(first_seen), max(last_seen), min(standing)"
# Of several records of one end, the last one seen names the verdict; the rest of the tuple breaks ties.
_RANK = f"(last_seen, revision, outcome, would, rules, reporter, {_PROCESS})"
_LATEST = ", ".join(f"argMax({column}, {_RANK})" for column in ("reporter", "outcome", "would", "rules"))
_POINT = "toUInt32(toUInt32(protocol) * 65536 + port)"
_WHO = f"reinterpretAsUInt64(substring(MD5(concatWithSeparator('\\0', {_PROCESS})), 1, 8))"
_KNOWN = " OR ".join(f"{column} != ''" for column in PROCESS)

SCHEMA = (
    f"""CREATE TABLE IF NOT EXISTS flows ({", ".join(f"{name} {kind}" for name, kind in _TYPES.items())},
        day Date MATERIALIZED toDate(toUInt32(last_seen), 'UTC'))
        ENGINE = MergeTree PARTITION BY day ORDER BY (destination, source, protocol, port, last_seen)
        SETTINGS {_SETTINGS}""",
    f"""CREATE TABLE IF NOT EXISTS edges (day Date, hour UInt32, {
        ", ".join(
            f"{name} SimpleAggregateFunction({_SUMS[name]}, {kind})" if name in _SUMS else f"{name} {kind}"
            for name, kind in _TYPES.items()
        )
    }) ENGINE = AggregatingMergeTree PARTITION BY day
        ORDER BY (destination, source, protocol, port, side, reporter, outcome, would, rules, {_PROCESS}, hour)
        SETTINGS {_SETTINGS}""",
    f"""CREATE MATERIALIZED VIEW IF NOT EXISTS edges_feed TO edges AS
        SELECT toDate(hour * 3600, 'UTC') AS day, hour, {_SAME}, {
        ", ".join(f"{how}(f.{name}_) AS {name}" for name, how in _SUMS.items())
    } FROM (SELECT toUInt32(intDiv(toUInt32(last_seen), 3600)) AS hour, {_SAME}, {
        ", ".join(f"{name} AS {name}_" for name in _SUMS)
    } FROM flows) AS f GROUP BY hour, {_SAME}""",
)


class Engine:
    """One thread's way into the flow tables under a folder; takes and gives plain values only."""

    def __init__(self, folder: Path) -> None:
        import clickhouse_connect

        path = str(folder.absolute())
        self._client: Any = clickhouse_connect.get_client(interface="chdb", path=path)  # pyright: ignore[reportUnknownMemberType]

    def prepare(self) -> None:
        """Make the tables that are not there yet."""
        for statement in SCHEMA:
            self._client.command(statement)
        # Tables of an earlier version have other settings.
        for table in ("flows", "edges"):
            self._client.command(f"ALTER TABLE {table} MODIFY SETTING {_SETTINGS}")

    def close(self) -> None:
        """Let go of the engine."""
        self._client.close()

    def insert(self, columns: list[list[Any]], token: str) -> None:
        """Keep the records of `columns`; a `token` given before changes nothing."""
        settings = {"insert_deduplication_token": token, "deduplicate_blocks_in_dependent_materialized_views": 1}
        types = [_TYPES[name] for name in COLUMNS]
        self._client.insert("flows", columns, COLUMNS, column_type_names=types, column_oriented=True, settings=settings)

    def flows(self, query: dict[str, Any]) -> list[list[Any]]:
        """Give the ends of one page of merged flows: two consecutive rows where both ends reported."""
        asked = ("outcome", "would")
        having = ["1", *(f"max({name}_) = {int(query[name])}" for name in asked if query[name] is not None)]
        if query["after"] is not None:
            seen, *key = query["after"]
            seen = float(seen)
            place = f"({_hex(key[0])}, {_hex(key[1])}, {int(key[2])}, {int(key[3])})"
            having.append(f"(max(last_seen_) < {seen!r} OR (max(last_seen_) = {seen!r} AND ({_KEY}) > {place}))")
        names = ", ".join(f"{name}_" for name in COLUMNS[4:])
        return self._columns(
            f"""SELECT {_KEY}, end.1, end.2, end.3, end.4, end.5, end.6, end.7, end.8, end.9, end.10, end.11, end.12,
                end.13, end.14, end.15, end.16 FROM (
            SELECT {_KEY}, max(last_seen_) AS seen, arraySort(groupArray(tuple({names}))) AS ends FROM (
                SELECT {_KEY}, side AS side_, argMax(reporter, {_RANK}) AS reporter_, argMax(outcome, {_RANK}) AS
                outcome_, argMax(would, {_RANK}) AS would_, argMax(rules, {_RANK}) AS rules_,
                argMaxIf(({_PROCESS}), {_RANK}, {_KNOWN}) AS process, process.1 AS name_, process.2 AS user_,
                process.3 AS unit_, process.4 AS exe_, argMax(revision, {_RANK}) AS revision_,
                sum(connections) AS connections_, sum(packets) AS packets_, sum(bytes) AS bytes_,
                min(first_seen) AS first_seen_, max(last_seen) AS last_seen_, min(standing) AS standing_
                FROM flows WHERE {_where(query)} GROUP BY {_KEY}, side)
            GROUP BY {_KEY} HAVING {" AND ".join(having)} ORDER BY seen DESC, {_KEY} LIMIT {int(query["limit"])})
            ARRAY JOIN ends AS end ORDER BY seen DESC, {_KEY}, end.1"""
        )

    def edges(self, since: int, until: int | None) -> list[list[Any]]:
        """Give the sums of the hours from `since` until just before `until`, both numbers of hours."""
        return self._columns(f"{_edges(since, until)} ORDER BY {_ORDER}")

    def tuples(self, since: int) -> list[list[Any]]:
        """Give the distinct flows since an hour."""
        return self._columns(
            f"""SELECT {_KEY}, side, {_LATEST}, {_PROCESS}, argMax(revision, {_RANK}), {_COUNTS}
                FROM ({_edges(since, None)}) GROUP BY {_KEY}, side, {_PROCESS} ORDER BY {_KEY}, side, {_PROCESS}"""
        )

    def tuples_of(self, since: int, keys: list[tuple[bytes, bytes, int, int]]) -> list[list[Any]]:
        """Give the distinct flows since an hour that have one of `keys`; of these there are few."""
        return self._columns(
            f"""SELECT {_KEY}, side, {_LATEST}, {_PROCESS}, argMax(revision, {_RANK}), {_COUNTS}
                FROM ({_edges(since, None, _among(keys))}) GROUP BY {_KEY}, side, {_PROCESS}
                ORDER BY {_KEY}, side, {_PROCESS}"""
        )

    def keys(self, since: int) -> list[bytes]:
        """Give the distinct keys since an hour, as columns: source, destination, point, flows, connections.

        Of a key, as many flows as processes opened it; what egress let through arrives at ingress."""
        found = self._client.query_arrow(
            f"""SELECT source, destination, toUInt32(toUInt32(protocol) * 65536 + port) AS point,
                toUInt64(greatest(1, countIf(side = 0))) AS flows,
                toUInt64(if(flows > 1, sumIf(all, side = 0), greatest(sumIf(all, side = 0),
                    sumIf(all, side = 0 AND refused = 1) + sumIf(all, side = 1)))) AS connections
                FROM (SELECT {_KEY}, side, {_PROCESS}, sum(connections) AS all, argMax(outcome, {_RANK}) AS refused
                    FROM ({_edges(since, None)}) GROUP BY {_KEY}, side, {_PROCESS})
                GROUP BY {_KEY}"""
        )
        return [_raw(found.column(at)) for at in range(5)]

    def key_parts(self, since: int) -> list[bytes]:
        """Give what `keys` is made of, as columns: see `parts.KEY_PARTS`."""
        found = self._client.query_arrow(
            f"""SELECT source, destination, {_POINT} AS point, side, who, toUInt64(sum(all)) AS connections,
                argMax(refused, seen_) AS refused, max(seen_) AS seen
                FROM (SELECT {_KEY}, side, if(side = 0, {_WHO}, 0) AS who, sum(connections) AS all,
                    argMax(outcome, {_RANK}) AS refused, max(last_seen) AS seen_
                    FROM ({_edges(since, None)}) GROUP BY {_KEY}, side, {_PROCESS})
                GROUP BY {_KEY}, side, who"""
        )
        return [_raw(found.column(at)) for at in range(8)]

    def series_parts(self, since: float, until: float, step_s: float) -> list[bytes]:
        """Give what `series` is made of, as columns: see `parts.SERIES_PARTS`."""
        found = self._client.query_arrow(
            f"""SELECT source, destination, {_POINT} AS point, side,
                toInt64(floor((last_seen - {since!r}) / {step_s!r})) AS step, toUInt64(sum(connections)),
                toUInt64(sumIf(connections, outcome = 1)), toUInt64(sumIf(connections, outcome = 0 AND would = 1))
                FROM flows WHERE last_seen >= {since!r} AND last_seen < {until!r} GROUP BY step, {_KEY}, side"""
        )
        return [_raw(found.column(at)) for at in range(8)]

    def series(self, since: float, until: float, step_s: float) -> list[list[Any]]:
        """Give per step: its number, and the allowed, denied and would-be-denied connections."""
        return self._columns(
            f"""SELECT step, sum(allowed), sum(denied), sum(least(doubtful, allowed)) FROM (
            SELECT step, {_KEY}, sumIf(refused, side = 0) AS refused_out, sum(refused) AS denied,
                greatest(sumIf(all, side = 0), refused_out + sumIf(all, side = 1)) AS total,
                total - denied AS allowed, max(would) AS doubtful FROM (
            SELECT toInt64(floor((last_seen - {since!r}) / {step_s!r})) AS step, {_KEY}, side, sum(connections) AS all,
                sumIf(connections, outcome = 1) AS refused, sumIf(connections, outcome = 0 AND would = 1) AS would
                FROM flows WHERE last_seen >= {since!r} AND last_seen < {until!r} GROUP BY step, {_KEY}, side)
            GROUP BY step, {_KEY}) GROUP BY step ORDER BY step"""
        )

    def count(self) -> int:
        """Count the records."""
        return int(self._columns("SELECT count() FROM flows")[0][0])

    def prune(self, day: int) -> int:
        """Drop the days before `day`, a number of days since the epoch; gives how many records went."""
        gone = int(self._columns(f"SELECT count() FROM flows WHERE day < toDate({day})")[0][0])
        tables, days = self._columns(
            f"""SELECT DISTINCT table, partition FROM system.parts WHERE active AND database = currentDatabase()
                AND table IN ('flows', 'edges') AND toDate(partition) < toDate({day})"""
        ) or ([], [])
        for table, partition in zip(tables, days, strict=True):
            self._client.command(f"ALTER TABLE {table} DROP PARTITION '{partition}'")
        return gone

    def _columns(self, sql: str) -> list[list[Any]]:
        # The tables' addresses are bytes, not text.
        found = self._client.query(sql, query_formats={"FixedString": "bytes"}).result_columns
        return [list(column) for column in found]


def _raw(column: Any) -> bytes:
    """Give the bytes of a column of values of one width."""
    whole = column.combine_chunks()
    if not len(whole):
        return b""
    width = whole.type.bit_width // 8
    start = whole.offset * width
    return bytes(memoryview(whole.buffers()[1])[start : start + len(whole) * width])


def _edges(since: int, until: int | None, among: str = "") -> str:
    end = f"AND hour < {int(until)}" if until is not None else ""
    end += f" AND {among}" if among else ""
    sums = ", ".join(f"{how}(e.{name}) AS {name}" for name, how in _SUMS.items())
    return f"SELECT {_SAME}, {sums} FROM edges AS e WHERE hour >= {int(since)} {end} GROUP BY {_SAME}"


def _among(keys: list[tuple[bytes, bytes, int, int]]) -> str:
    asked = ", ".join(f"({_hex(one)}, {_hex(other)}, {int(by)}, {int(at)})" for one, other, by, at in keys)
    return f"({_KEY}) IN ({asked})"


def _where(query: dict[str, Any]) -> str:
    parts = [f"last_seen >= {float(query['since'])!r}"]
    if query["until"] is not None:
        parts.append(f"last_seen < {float(query['until'])!r}")
    for column in ("source", "destination"):
        ranges = [f"({column} >= {_hex(first)} AND {column} <= {_hex(last)})" for first, last in query[column]]
        if ranges:
            parts.append(f"({' OR '.join(ranges)})")
    if query["ports"] is not None:
        line = "(toUInt32(protocol) * 65536 + port)"
        spans = [f"({line} BETWEEN {int(first)} AND {int(last)})" for first, last in query["ports"]]
        parts.append(f"({' OR '.join(spans) or '0'})")
    if query.get("keys"):
        parts.append(_among(query["keys"]))
    return " AND ".join(parts)


def _hex(packed: bytes) -> str:
    return f"unhex('{packed.hex()}')"
