"""One run of wrk: keep-alive connections, each with one request under way at a time.

Needs Debian's ``wrk``. A Lua script gives method and body, and prints what was counted as one line of JSON.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import BenchmarkError, output_of, pinned

GRACE_S = 45.0
_HEADERS = {"User-Agent": "curl/8.5.0", "Accept": "*/*"}
"""What curl sends beside Host: a proxy pays for each field."""

_DONE = """
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests":%d,"duration_us":%d,"bad":%d,"p50_us":%d,"p99_us":%d}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Request:
    """What every connection sends again and again."""

    path: str
    method: str = "GET"
    body_bytes: int = 0
    tenants: int = 0
    """If not 0, ``{}`` in the path becomes 0, 1, 2 … up to this number, and begins again."""
    unlike: bool = False
    """A number is added to the path and sent as a header, another in each request."""

    def script(self) -> str:
        """The Lua text for wrk."""
        lines = [f'wrk.method = "{self.method}"']
        lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in _HEADERS.items()]
        if self.body_bytes:
            lines.append('wrk.headers["Content-Type"] = "application/json"')
            lines.append(f'wrk.body = "[" .. string.rep("1", {self.body_bytes - 2}) .. "]"')
        if self.tenants:
            before, _, after = self.path.partition("{}")
            lines += [
                "local n = -1",
                "function request()",
                f"  n = (n + 1) % {self.tenants}",
                f'  return wrk.format(nil, "{before}" .. n .. "{after}")',
                "end",
            ]
        if self.unlike:
            lines += [
                "local n, path = 0, nil",
                "function request()",
                "  path = path or wrk.path",
                "  n = n + 1",
                '  wrk.headers["X-Request-Id"] = "job-" .. n',
                '  return wrk.format(nil, path .. "/" .. n)',
                "end",
            ]
        return "\n".join(lines) + _DONE


@dataclass(frozen=True)
class Loaded:
    """What came of one run."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        """Requests completed in a second."""
        return self.requests / self.seconds


def parse(output: str) -> Loaded:
    """The figures from what wrk and our script print.

    :raises BenchmarkError: no figures, no request, or any that failed: those could be cheaper than real ones.
    """
    line = next((line for line in reversed(output.splitlines()) if line.startswith("{")), None)
    if line is None:
        raise BenchmarkError(f"wrk printed no figures: {output.strip()[-200:]}")
    figures = json.loads(line)
    if figures["bad"] or not figures["requests"]:
        raise BenchmarkError(f"{figures['bad']} of {figures['requests']} requests failed")
    return Loaded(
        requests=figures["requests"],
        seconds=figures["duration_us"] / 1e6,
        p50_ms=figures["p50_us"] / 1000,
        p99_ms=figures["p99_us"] / 1000,
    )


def wrk() -> str | None:
    """Where the load generator is."""
    return shutil.which("wrk")


def run(
    base_url: str, request: Request, *, connections: int, seconds: int, cores: Sequence[int], folder: Path
) -> Loaded:
    """Load ``base_url`` for whole seconds.

    :raises BenchmarkError: wrk is missing or fails, or a request did.
    """
    path = wrk()
    if path is None:
        raise BenchmarkError("wrk is missing")
    script = folder / "load.lua"
    script.write_text(request.script())
    url = base_url + request.path.replace("{}", "0")
    command = [path, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script), url]
    return parse(output_of(pinned(command, cores), timeout_s=seconds + GRACE_S))
