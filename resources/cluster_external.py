"""An OpenAI-compatible engine that already runs somewhere: we measure it, we neither start nor stop it.

Belongs here: finding its model, checking that it answers, and a Prometheus for it where it has none.
Doesn't belong here: anything that changes the engine.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab_pipelines.catalog.fields import Overrides
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Component, Variant
from lab_pipelines.digest import canonical_digest
from resources import processes, prometheus_server
from resources.cluster import ClusterError, Endpoint, Phase, Progress, Session, StackOrder
from resources.cluster_loopback import LoopbackCluster, once_more, scrape_interval_s
from resources.first_token import first_token
from resources.prometheus_server import ScrapeTarget


class ExternalEngineCluster(LoopbackCluster):
    """Runs labs against `base_url`. Its clock is the real one, whatever the pace says."""

    base_url: str
    model: str | None
    prometheus_url: str | None
    prometheus_selector: str
    sku: str | None

    def priced_sku(self, spec: LabSpec, variant: Variant) -> str | None:
        return self.sku

    def _bring_up(self, order: StackOrder, *, environ: dict[str, str], folder: Path, progress: Progress) -> Session:
        spec, variant = order.spec, order.variant
        if [component.kind for component in spec.stack.components] != ["vllm"] or len(spec.flat_steps) != len(
            spec.load_steps
        ):
            raise ClusterError(
                f"{spec.id} does more to its stack than send load, and an engine that is not ours must stay as it is; "
                "unset LABS_OPENAI_BASE_URL to run it on this machine's own"
            )
        if variant.values:
            raise ClusterError(
                f"variant {variant.id} of {spec.id} changes the engine's configuration, and an engine that is not "
                "ours can't be changed; unset LABS_OPENAI_BASE_URL to run it on the modelled server"
            )
        requested_at = datetime.now(UTC)
        model = self.model or _first_model(self.base_url)
        token = first_token(self.base_url, model, time_scale=1.0)
        prometheus_url, selector = self.prometheus_url, self.prometheus_selector
        if prometheus_url is not None:
            _require_prometheus(prometheus_url)
        else:
            selector = f'namespace="{spec.namespace}"'
            prometheus_url = prometheus_server.start(interval_s=scrape_interval_s(1.0), folder=folder, environ=environ)
            metrics = ScrapeTarget("engine", f"{self.base_url.removesuffix('/v1')}/metrics")
            prometheus_server.announce(prometheus_url, [metrics], namespace=spec.namespace, folder=folder)
        progress(f"{model} at {self.base_url} answers; it is not ours, so it has no cold start and stays up")
        return Session(
            session_id=environ[processes.LEASE_ID_VARIABLE],
            lab=spec.id,
            variant=variant.id,
            run_id=order.run_id,
            target="local",
            engine="external",
            provenance="measured",
            pace=order.pace_name,
            time_scale=1.0,
            cold_start_time_scale=1.0,
            namespace=spec.namespace,
            model=model,
            sku=self.sku,
            nodes=spec.nodes[0].count,
            endpoints=[
                Endpoint(
                    component=spec.stack.components[0].name,
                    kind="vllm",
                    base_url=self.base_url,
                    metrics_url=None,
                    gpu_metrics_url=None,
                    log=None,
                )
            ],
            prometheus_url=prometheus_url,
            metric_selector=selector,
            engine_args=[],
            spec_digest=spec.digest,
            cost_labels=spec.cost_labels,
            values_digest=canonical_digest({}),
            requested_at=requested_at,
            ready_at=token.ended_at,
            phases=[],
        )

    # No spec that does any of what follows gets past `_bring_up`, but for walking the one variant again.

    def _switch(self, session: Session, order: StackOrder, *, progress: Progress) -> Session:
        if order.variant.id == session.variant:  # nothing of it has to be touched
            requested_at = datetime.now(UTC)
            token = first_token(self.base_url, str(session.model), time_scale=1.0)
            return once_more(session, order, requested_at=requested_at, ready_at=token.ended_at)
        raise ClusterError(
            f"variant {order.variant.id} of {order.spec.id} would need another configuration of an engine that is not "
            f"ours; choose one that leaves it as it is (LABS_VARIANT={session.variant})"
        )

    def stop(self, session: Session, component: Component) -> None:
        raise ClusterError(_NOT_OURS.format(component.name))

    def start(
        self, session: Session, component: Component, overrides: list[Overrides], *, restart: bool, progress: Progress
    ) -> list[Phase]:
        raise ClusterError(_NOT_OURS.format(component.name))

    def log_lines(self, session: Session, component: str) -> list[dict[str, Any]]:
        raise ClusterError(_NOT_OURS.format(component))


_NOT_OURS = "{} is not ours: it is neither stopped nor started here, and its log is not read"


def _first_model(base_url: str) -> str:
    try:
        with urllib.request.urlopen(f"{base_url}/models", timeout=10) as response:
            return str(json.load(response)["data"][0]["id"])
    except (urllib.error.URLError, OSError, ValueError, LookupError, TypeError) as error:
        raise ClusterError(
            f"{base_url}/models does not name a model ({error}). Is the server up, and does LABS_OPENAI_BASE_URL end "
            "in /v1? LABS_OPENAI_MODEL names a model without asking"
        ) from None


def _require_prometheus(url: str) -> None:
    """Fail before the load is applied, not after it, when its server side could not be read."""
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?query=1", timeout=10) as response:
            json.load(response)["data"]["result"]
    except (urllib.error.URLError, OSError, ValueError, LookupError, TypeError) as error:
        raise ClusterError(
            f"{url} does not answer as a Prometheus does ({error}). Is it up, and is LABS_PROMETHEUS_URL its address "
            "without /api? Unset it, and a Prometheus of our own scrapes the engine"
        ) from None
