"""What metrics and traces cost: join tokens of the same gateway with and without them, by turns in one run.

    .venv/bin/python -m benchmarks.observed [--quick] [--write]

All servers share one Valkey, its users and rooms. A collector on this machine takes the spans and answers at once.
There are three processes of each kind, because equal ones differ by some per cent, and many short rounds, so that all
meet the same other work of the machine. CPU is the mean of the middle half of the rounds; "neither, again" shows what
is left of such differences. `--write` puts the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvloop

from benchmarks.http import CONNECTIONS, PAGE, Rounds, Target, gateway_targets, machine, policy, rounds
from benchmarks.pages import put
from tests.servers import HOST, Installation, Service, free_port

NEITHER, PROCESSES = "neither", 3
TRACES = {"GATEWAY_TRACES": "on", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
VARIANTS = {
    NEITHER: {},
    "neither, again": {},
    "metrics": {"GATEWAY_METRICS_TOKEN": secrets.token_urlsafe(48)},
    "traces, 1 % sampled": {**TRACES, "OTEL_TRACES_SAMPLER_ARG": "0.01"},
    "traces, 5 % sampled": {**TRACES, "OTEL_TRACES_SAMPLER_ARG": "0.05"},
    "traces, all sampled": {**TRACES, "OTEL_TRACES_SAMPLER_ARG": "1"},
}
BEGIN, END = "<!-- observed: written by `python -m benchmarks.observed --write` -->\n", "<!-- end of observed -->"
_TAKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Collector:
    """Takes spans and counts their bytes."""

    def __init__(self) -> None:
        self.port = free_port()
        self.bytes = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
                )
                self.bytes += len(await reader.readexactly(length))
                writer.write(_TAKEN)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()


@contextmanager
def servers(base: Installation, collector: Collector) -> Iterator[list[Target]]:
    """Start a gateway for each variant beside a running installation; yield what to measure."""
    mint = gateway_targets(base)[0]
    running: list[Service] = []
    try:
        targets = []
        for number, (name, settings) in enumerate(list(VARIANTS.items()) * PROCESSES):
            port = free_port()
            env = {**base.env, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{collector.port}", **settings}
            log = base.folder / f"observed-{number}.log"
            command = ["serve", "--port", str(port)]
            service = Service(command, folder=base.folder, env=env, log=log, real=True)
            running.append(service)
            service.start()
            service.wait_until(lambda one=service: "Application startup complete" in one.output(), f"{name} has begun")
            assert service.process is not None
            targets.append(replace(mint, name=name, port=port, pid=service.process.pid))
        yield targets
    finally:
        for service in running:
            service.stop()


async def measure(targets: list[Target], collector: Collector, *, count: int, seconds: float) -> Rounds:
    async with await asyncio.start_server(collector.serve, HOST, collector.port):
        return await rounds(targets, count=count, seconds=seconds)


def cpu_us(found: Rounds, name: str) -> float:
    costs = sorted(cost.cpu_us for cost in found.values[name])
    quarter = len(costs) // 4
    return statistics.fmean(costs[quarter : len(costs) - quarter])


def table(found: Rounds) -> str:
    base = cpu_us(found, NEITHER)
    lines = ["| a join token with | CPU, us | ratio | p50, ms | p99, ms | MiB |", "|---|---|---|---|---|---|"]
    for name in VARIANTS:
        cost, cpu = found.median(name), cpu_us(found, name)
        lines.append(
            f"| {name} | {cpu:.0f} | {cpu / base:.2f} | {cost.p50_ms:.1f} | {cost.p99_ms:.1f} | {cost.rss_mib:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short rounds, to try the benchmark itself")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    count, seconds = (4, 0.4) if options.quick else (40, 0.4)
    collector = Collector()
    with (
        tempfile.TemporaryDirectory() as folder,
        Installation(Path(folder), policy=policy()) as base,
        servers(base, collector) as targets,
    ):
        found = uvloop.run(measure(targets, collector, count=count, seconds=seconds))
    how = f"{PROCESSES} processes of each kind, {count} rounds of {seconds:g} s, {CONNECTIONS} connections"
    report = f"{table(found)}\n\n{how}. {machine()}."
    print(report)
    print(f"the collector has received {collector.bytes / 2**20:.1f} MiB", file=sys.stderr)
    if options.write:
        put(PAGE, report, begin=BEGIN, end=END)


if __name__ == "__main__":
    main()
