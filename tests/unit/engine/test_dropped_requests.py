"""What the series say of a request whose client leaves while a step that concerns it is under way."""

from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.engine.drafts import accepted_drafts
from lab_pipelines.engine.observer import StepObserver
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.engine.vllm_metrics import VllmMetrics
from lab_pipelines.rehearsal.world import VirtualRequest
from resources import chart_values

VALUES = "helm-values/lab04/vllm.yaml"


def shown(metrics: VllmMetrics, name: str) -> float:
    """The sum of a name's series on the server's page."""
    samples = [line.rpartition(" ") for line in metrics.render().decode().splitlines() if not line.startswith("#")]
    values = [float(value) for series, _, value in samples if series.partition("{")[0] == name]
    assert values, f"{name} is not on the page"
    return sum(values)


def test_a_request_dropped_during_its_prefill_has_no_first_token_in_log_or_histogram() -> None:
    arguments = chart_values.vllm_arguments(chart_values.load_values(REPO_ROOT / VALUES), source=VALUES)
    model = EngineModel.of(arguments, "T4", 1)
    engine = model.engine(accepted_drafts(model, lambda request: request.text, seed=1))
    metrics = VllmMetrics(model.args, model.memory, time_scale=1.0)
    observer: StepObserver[VirtualRequest] = StepObserver(engine, metrics)
    dropped, kept = (VirtualRequest(64, 8, arrived_s=0.0, request_id=name) for name in ("dropped", "kept"))
    engine.add(dropped)
    engine.add(kept)

    step = engine.step()
    assert list(step.prefilled) == [dropped, kept]
    assert engine.abort(dropped)
    observer.aborted(dropped)
    observer.step(step, 0.0, 2.0)

    assert dropped.first_token_s is None  # what its log line is written from
    assert kept.first_token_s == 2.0
    assert shown(metrics, "vllm:time_to_first_token_seconds_count") == 1
    assert shown(metrics, "vllm:time_to_first_token_seconds_sum") == 2.0
    assert shown(metrics, "vllm:generation_tokens_total") == 1
    assert shown(metrics, "vllm:prompt_tokens_total") == 64
