"""A lab's steps, one after the other: each is done, and becomes a row of `events` with its outcome.

Belongs here: what each kind of step does, through the resources. Doesn't belong here: how a target does it
(resources/cluster_*.py), or how load is applied (resources/load_*.py).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from assets.common import publish
from lab_pipelines.catalog.prices import Priority, UnitPrice
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Variant
from lab_pipelines.catalog.steps import (
    AnyStep,
    ApplyStep,
    CollectLogsStep,
    FireAlertStep,
    IdleStep,
    LoadStep,
    ObserveStep,
    ReclaimsStep,
    RestartStep,
    StartStep,
    StopStep,
)
from lab_pipelines.client_errors import client_errors, faults
from lab_pipelines.load_plan import load_plan
from lab_pipelines.reclaims import draw_spells, load_reclaim_facts, scenarios_of
from lab_pipelines.rows.capacity_spells import spell_rows
from lab_pipelines.rows.common import Row
from lab_pipelines.rows.events import cold_start_events, event_row, log_rows
from lab_pipelines.rows.load import client_error_rows, request_rows, stage_rows
from resources import alerting, manifests
from resources.billing import Billing
from resources.cluster import Cluster, ClusterError, Progress, Session
from resources.load_generator import LoadGenerator
from resources.telemetry import Telemetry
from resources.warehouse import Warehouse

LAST_SCRAPE_TIMEOUT_S = 75.0
"""Ours scrapes several times a second; somebody else's Prometheus may do so once a minute."""

_HOLDS: dict[str, Callable[[float, float], bool]] = {"above": operator.gt, "below": operator.lt, "equals": operator.eq}


class Done(NamedTuple):
    """How a step ended. `said` is for a person, `detail` for `events`."""

    outcome: Literal["ok", "failed", "skipped"]
    said: str
    detail: Mapping[str, Any]


@dataclass
class Walk:
    """One variant's way through the lab's steps. `stages` collects the rows of `load_stages`."""

    spec: LabSpec
    variant: Variant
    session: Session
    cluster: Cluster
    load_generator: LoadGenerator
    telemetry: Telemetry
    billing: Billing
    warehouse: Warehouse
    progress: Progress
    stages: list[Row]

    def all(self) -> list[Row]:
        """Do every step; the rows of their events. What a step published stays, whatever happens to the next."""
        return [self._do(step) for step in self.spec.steps_of(self.variant.id)]

    def _do(self, step: AnyStep) -> Row:
        started_at = self.cluster.now()
        self.cluster.renew(self.session)
        done = self._one(step) if step.can_be_done_on(self.session.target) else self._skipped(step)
        event = event_row(
            self.session,
            step.kind,
            step.name,
            started_at=started_at,
            ended_at=self.cluster.now(),
            outcome=done.outcome,
            detail=done.detail,
        )
        self._publish("events", [event], part=step.name)
        if not isinstance(step, LoadStep):  # a load has told of its own progress
            self.progress(f"{step.name}: {done.said}")
        return event

    def _one(self, step: AnyStep) -> Done:
        match step:
            case LoadStep():
                done = self._load(step)
            case ApplyStep():
                done = self._apply(step)
            case ObserveStep():
                done = self._observe(step)
            case RestartStep():
                self.cluster.stop(self.session, self.spec.stack.component(step.component))
                done = self._start(step, [step.values], restart=True)
            case StopStep():
                self.cluster.stop(self.session, self.spec.stack.component(step.component))
                done = Done("ok", f"{step.component} is stopped", {"component": step.component})
            case StartStep():
                done = self._start(step, [], restart=False)
            case CollectLogsStep():
                done = self._collect_logs(step)
            case FireAlertStep():
                done = self._fire_alert(step)
            case IdleStep():
                self.cluster.idle(self.session, step.duration_s)
                done = Done("ok", f"no load for {step.duration_s:g} s", {"duration_s": step.duration_s})
            case ReclaimsStep():
                done = self._reclaims(step)
        return done

    def _skipped(self, step: AnyStep) -> Done:
        places = ", ".join(step.targets or [])
        said = f"skipped: it can be done on {places}, but not on {self.session.target}"
        return Done("skipped", said, {"targets": step.targets})

    def _reclaims(self, step: ReclaimsStep) -> Done:
        # The longest on this SKU: the first of its sessions waited for the node too, as a replica that comes back does.
        cold_start_s = max(
            sum(phase.duration_s for phase in one.phases)
            for one in self.cluster.sessions(self.spec.id)
            if one.sku == self.session.sku
        )
        nodes: dict[Priority, int] = {"on_demand": step.on_demand, "spot": step.spot}
        prices: dict[Priority, UnitPrice | None] = {
            priority: self.billing.node_hour_price(self.session.sku, priority)
            for priority, count in nodes.items()
            if count
        }
        drawn = [
            (scenario, draw_spells(step.on_demand, step.spot, scenario, cold_start_s=cold_start_s, months=step.months))
            for scenario in scenarios_of(step, load_reclaim_facts())
        ]
        published = [
            row
            for position, (scenario, spells) in enumerate(drawn)
            for row in spell_rows(
                self.session, step, scenario, spells, position=position, cold_start_s=cold_start_s, prices=prices
            )
        ]
        self._publish("capacity_spells", published, part=step.name)
        detail = {
            "cold_start_s": cold_start_s,
            "prices": {name: price.model_dump(mode="json") if price else None for name, price in prices.items()},
            "scenarios": [scenario.name for scenario, _ in drawn],
        }
        return Done("ok", f"{len(drawn)} scenarios of {step.months} months, {len(published)} spells", detail)

    def _load(self, step: LoadStep) -> Done:
        session = self.session
        pace = self.spec.paces[session.pace]
        plan = load_plan(session, step, pace, address=self.load_generator.address)
        result = self.load_generator.run(
            plan,
            workdir=self.cluster.run_folder(session.run_id, session.lab) / session.visit / step.name,
            environ=self.cluster.marker(session.lab),
            progress=self.progress,
        )
        stages = stage_rows(session, plan, result)
        errors = client_errors(plan, result, self.spec.error_budget.client, judge_share=pace.baseline)
        over = faults(errors)
        self._publish("requests", request_rows(session, plan, result, faults=over), part=step.name)
        self._publish("load_stages", stages, part=step.name)
        self._publish("client_errors", client_error_rows(session, plan, errors), part=step.name)
        for stage, reasons in over.items():
            self.progress(f"{step.name}: stage {stage}: {'; '.join(reasons)}; none of its requests is valid")
        self.stages += stages
        # The counters' last growth must be on record before a later step adds to them, or resets them.
        if not self.telemetry.wait_for_scrape(
            session.prometheus_url,
            selector=session.metric_selector,
            after=self.cluster.now(),
            timeout_s=LAST_SCRAPE_TIMEOUT_S,
        ):
            self.progress(
                f"{step.name}: Prometheus did not scrape every target within {LAST_SCRAPE_TIMEOUT_S:.0f} s of the "
                "load's end; series may be gaps"
            )
        return Done("ok", f"{len(result.requests)} requests", {"requests": len(result.requests), "stages": len(stages)})

    def _apply(self, step: ApplyStep) -> Done:
        outcome = self.cluster.apply(self.session, step, progress=self.progress)
        as_expected, said = manifests.judge(step, outcome)
        return Done("ok" if as_expected else "failed", said, outcome.model_dump())

    def _observe(self, step: ObserveStep) -> Done:
        until, session = step.until, self.session
        compare = _HOLDS[until.comparison]
        waited = self.telemetry.wait_until(
            session.prometheus_url,
            until.promql,
            lambda value: compare(value, until.value),
            selector=session.metric_selector,
            within_s=step.within_s,
            time_scale=session.time_scale,
        )
        detail = {"value": waited.value, "waited_s": waited.waited_s}
        if waited.held:
            return Done("ok", f"holds after {waited.waited_s:.1f} s", detail)
        return Done(
            "failed",
            f"not {until.comparison} {until.value:g} within {step.within_s:g} s; last seen: {waited.value}",
            detail,
        )

    def _start(self, step: RestartStep | StartStep, overrides: list[dict[str, Any]], *, restart: bool) -> Done:
        component = self.spec.stack.component(step.component)
        phases = self.cluster.start(
            self.session,
            component,
            [self.variant.values.get(component.name, {}), *overrides],
            restart=restart,
            progress=self.progress,
        )
        self._publish("events", cold_start_events(self.session, phases, step=step.name), part=f"{step.name}.cold-start")
        cold_start_s = sum(phase.duration_s for phase in phases)
        return Done("ok", f"{component.name} is up again", {"component": component.name, "cold_start_s": cold_start_s})

    def _collect_logs(self, step: CollectLogsStep) -> Done:
        lines = self.cluster.log_lines(self.session, step.component)
        self._publish("log_lines", log_rows(self.session, step.component, lines), part=step.name)
        return Done("ok", f"{len(lines)} lines of {step.component}", {"component": step.component, "lines": len(lines)})

    def _fire_alert(self, step: FireAlertStep) -> Done:
        session = self.session
        caused_at = self.cluster.now()
        with ThreadPoolExecutor(1) as background:
            cause = background.submit(self._do, step.cause)
            timeline = alerting.await_alert(
                session.prometheus_url,
                Path(self._notifications()),
                step.alert,
                since=caused_at,
                within_wall_s=step.within_s / session.time_scale,
            )
            cause.result()
        seconds = {
            f"{name}_s": (at - caused_at).total_seconds() * session.time_scale if at else None
            for name, at in timeline._asdict().items()
        }
        detail = {"alert": step.alert, **seconds}
        if timeline.notified_at is None:
            return Done("failed", f"{step.alert} was not notified within {step.within_s:g} s", detail)
        return Done("ok", f"{step.alert} was notified {seconds['notified_at_s']:.0f} s after its cause began", detail)

    def _notifications(self) -> str:
        """Where the receiver of this stack's alerts writes them down."""
        for endpoint in self.session.endpoints:
            if endpoint.kind == "monitoring" and endpoint.log is not None:
                return endpoint.log
        raise ClusterError(f"{self.spec.id} fires alerts, and its stack has no component of kind monitoring")

    def _publish(self, table: str, published: list[Row], *, part: str) -> None:
        # One file per step, so a step that is done stays done whatever happens to the next.
        if published:
            publish(self.warehouse, table, published, self.session, part=part)
