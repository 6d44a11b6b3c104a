"""Telemetry of a rehearsal: the same questions to a real Prometheus, whose blocks hold the virtual scrapes.

Belongs here: what differs from asking a Prometheus that scrapes while time passes. Doesn't belong here: the questions
(telemetry.py), how blocks are made (prometheus_blocks.py).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from string import Template
from typing import TYPE_CHECKING

from resources.rehearsals import SCHEME, rehearsal_at
from resources.telemetry import Telemetry, Waited, ask_range

if TYPE_CHECKING:
    from prometheus_api_client import PrometheusConnect

SETTLE_S = 0.002
"""Virtual seconds around a scrape, above a timestamp's millisecond."""
LOOK_EVERY_S = 1.0
"""Virtual seconds between two looks at a condition that is waited for."""


class RehearsalTelemetry(Telemetry):
    """Asks the Prometheus of the session's rehearsal."""

    def wait_for_scrape(self, prometheus_url: str, *, selector: str, after: datetime, timeout_s: float) -> bool:
        """The scrape that is waited for is made when it is asked for.

        It comes after the engine's last step, and what happens next comes after it: else a counter's base for the next
        step would be the scrape before, and that step would count what this one did.

        The load is over, so this is the time to begin with its blocks: they are there when it is asked about.
        """
        rehearsal = rehearsal_at(prometheus_url)
        world = rehearsal.world
        world.advance(max(world.now_s, world.ended_s) + SETTLE_S)
        world.scrape()
        world.advance(world.now_s + SETTLE_S)
        rehearsal.keep_series()
        return True

    def wait_until(
        self,
        prometheus_url: str,
        promql: str,
        holds: Callable[[float], bool],
        *,
        selector: str,
        within_s: float,
        time_scale: float,
    ) -> Waited:
        """Let `within_s` pass, and find the first moment of it at which the condition held.

        The world's clock then stands at the end of the time: nothing else happens in a rehearsal while it waits.
        """
        world = rehearsal_at(prometheus_url).world
        began_s = world.now_s
        while world.advance(began_s + within_s):
            pass
        asked = Template(promql).substitute(selector=selector)
        client = self._client(prometheus_url)
        series = ask_range(client, asked, start_s=began_s, end_s=world.now_s, step_s=LOOK_EVERY_S)
        samples = series[0] if len(series) == 1 else []
        for sample in samples:
            if holds(sample.value):
                return Waited(held=True, waited_s=sample.at - began_s, value=sample.value)
        return Waited(held=False, waited_s=within_s, value=samples[-1].value if samples else None)

    def _client(self, url: str) -> PrometheusConnect:
        return super()._client(rehearsal_at(url).prometheus_url() if url.startswith(SCHEME) else url)
