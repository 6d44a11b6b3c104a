"""The GPU serving reference: the metrics of Phase 2 on one page, for any vLLM in any namespace.

Belongs here: the choice of panels, those that no lab has, and what narrows all of them to a model and its pods.
Doesn't belong here: panels that labs show as well (llm.py, gpu.py, pods.py).
"""

from __future__ import annotations

import re

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana import llm, pods
from dashboards.grafana.gpu import gpu_section, memory_busy
from dashboards.grafana.panels import PROMETHEUS, PanelBuilder, PromQL, lines, number, quantiles
from dashboards.grafana.shell import SCALED_TIME, Section, around, numbered
from lab_pipelines.catalog.prices import load_prices

UID = "gpu-serving"
MODEL, POD = 'model_name=~"$model"', 'pod=~"$pod"'
WITHOUT_MODEL = ("vllm:cache_config_info", "vllm:lora_requests_info")
"""Series of vLLM's that don't say which model they are of."""
TTFT_BOUNDS, TPOT_BOUNDS = ("2.5", "0.25", "0.5", "0.75", "7.5"), ("0.075", "0.025", "0.05", "0.15", "0.3")
"""Bounds of vLLM's histograms, in seconds, written as its page writes them; the first is chosen. They are the nearest
to the labs' own objective for interactive work, 2 s and 0.08 s, that a histogram can answer for."""

_RATE = "[$__rate_interval]"
_REQUESTS = f"sum(rate(vllm:request_success_total{{$NS}}{_RATE}))"
_OUTPUT = f"sum(rate(vllm:generation_tokens_total{{$NS}}{_RATE}))"
_NODES = "count(count by (Hostname) (DCGM_FI_DEV_GPU_UTIL{$NS}))"
_USD_PER_HOUR = f"$usd_per_node_hour * $share_of_node * {_NODES}"


def build() -> Dashboard:
    made = around(
        "GPU serving reference",
        uid=UID,
        about=f"Everything that Phase 2 looks at, for one model and its pods. {SCALED_TIME} Costs per token are a "
        "price per stack hour over a rate: multiply them by it.",
        tags=["lab", "gpu-serving"],
        namespaces_of="vllm:num_requests_running",
        namespace="lab-06",
    )
    for variable in _variables():
        made = made.with_variable(variable)
    return narrowed(numbered(made, _sections()))


def narrowed(made: Dashboard) -> Dashboard:
    """The dashboard with every series of its panels narrowed to the chosen pods, and vLLM's to the chosen model."""
    for panel in made.panels or []:
        for target in getattr(panel, "targets", None) or []:
            target.expr = re.sub(r"([A-Za-z_:][A-Za-z0-9_:]*)\{(namespace=)", _narrow, target.expr)
    return made


def _narrow(selector: re.Match[str]) -> str:
    series, rest = selector.groups()
    of_model = series.startswith("vllm:") and series not in WITHOUT_MODEL
    return f"{series}{{{f'{MODEL},' if of_model else ''}{POD},{rest}"


def _variables() -> list[builders.QueryVariable | builders.CustomVariable | builders.TextBoxVariable]:
    price = load_prices().unit_price("Standard_NC4as_T4_v3", "eastus")
    return [
        _of_series("model", "Model", "model_name"),
        _of_series("pod", "Pod", "pod"),
        _bound("ttft_le", "TTFT within, s", TTFT_BOUNDS),
        _bound("tpot_le", "TPOT within, s", TPOT_BOUNDS),
        builders.TextBoxVariable("usd_per_node_hour")
        .label("USD per node-hour")
        .description("What one node costs, e.g. as `labs prices show` says; a T4 node's list price unless changed.")
        .default_value(f"{price.usd:f}"),
        builders.TextBoxVariable("share_of_node")
        .label("Share of the node")
        .description("Which part of the node these pods pay for, from 0 to 1; 1 where they have it for themselves.")
        .default_value("1"),
    ]


def _of_series(name: str, label: str, of: str) -> builders.QueryVariable:
    """A choice among the values of a label of the engine's; all unless one is chosen, also where there is no label."""
    series = 'vllm:num_requests_running{namespace="$namespace"}'
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query({"query": f"label_values({series}, {of})", "refId": name})
        .current(models.VariableOption(text="All", value="$__all"))
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def _bound(name: str, label: str, bounds: tuple[str, ...]) -> builders.CustomVariable:
    return (
        builders.CustomVariable(name)
        .label(label)
        .values(",".join(bounds))
        .current(models.VariableOption(text=bounds[0], value=bounds[0]))
        .multi(False)
        .include_all(False)
    )


def _sections() -> list[Section]:
    gpu = gpu_section()
    return [
        Section("At a glance", _glance()),
        Section("Latency", [llm.ttft(), llm.inter_token_latency(), _tpot(), llm.end_to_end(), llm.where_time_goes()]),
        Section(
            "Throughput and batch",
            [llm.throughput(), llm.queue(), _why_waiting(), llm.tokens_per_step(), _steps(), _lengths()],
        ),
        Section(
            "KV cache",
            [
                llm.kv_cache(),
                llm.finished_and_preempted(),
                llm.prefix_cache(),
                _tokens_by_source(),
                _offloaded(),
                llm.kv_cache_as_sized(),
            ],
        ),
        Section("Speculative decoding and LoRA", [_accepted_share(), _accepted_by_position(), _adapters()]),
        Section(gpu.title, [*gpu.panels, _energy(), memory_busy(), _links()]),
        Section("Cost", [_usd_per_hour(), _usd_per_1k()]),
        Section("Cold start", [pods.ready(), pods.from_creation_to_ready(), llm.age()]),
        Section("Errors", [llm.answers(), llm.refusals(), _finished_badly(), pods.restarts()]),
    ]


def _within(series: str, variable: str) -> str:
    """The share of requests within a bound of the histogram."""
    return f'sum(rate({series}_bucket{{$NS,le="${variable}"}}{_RATE})) / (sum(rate({series}_count{{$NS}}{_RATE})) > 0)'


_TTFT_WITHIN = _within("vllm:time_to_first_token_seconds", "ttft_le")
_TPOT_WITHIN = _within("vllm:request_time_per_output_token_seconds", "tpot_le")


def _glance() -> list[PanelBuilder]:
    return [
        number("Requests finished", "Per second, for whatever reason they finished.", PromQL(_REQUESTS), unit="reqps"),
        number(
            "First token in time",
            "Share of the requests whose first token came within the chosen bound.",
            PromQL(_TTFT_WITHIN),
            unit="percentunit",
        ),
        number(
            "Tokens in time",
            "Share of the requests whose mean time per token after the first was within the chosen bound.",
            PromQL(_TPOT_WITHIN),
            unit="percentunit",
        ),
        number(
            "Goodput, at least",
            "Requests per second that kept both bounds, whichever requests broke which: two histograms can't say "
            "whether the same ones broke both, so this is the lower end. The client's records say it exactly.",
            PromQL(f"{_REQUESTS} * clamp_min({_TTFT_WITHIN} + {_TPOT_WITHIN} - 1, 0)"),
            unit="reqps",
        ),
        number("Output tokens/s", "Tokens generated.", PromQL(_OUTPUT), unit="short"),
        number(
            "USD per 1K output tokens, now",
            "What the nodes cost at this moment over what they generate. Nothing while nothing is generated: an idle "
            "node's tokens have no price.",
            PromQL(f"{_USD_PER_HOUR} / 3.6 / ({_OUTPUT} > 0)"),
            unit="currencyUSD",
        ),
    ]


def _tpot() -> PanelBuilder:
    return lines(
        "Time per output token",
        "Mean of each request after its first token, so a stall within a request is spread over all of its tokens.",
        *quantiles("vllm:request_time_per_output_token_seconds", 0.5, 0.95),
        unit="s",
    )


def _why_waiting() -> PanelBuilder:
    return lines(
        "Why requests wait",
        "For room in the batch or the cache (capacity), or put off by something else (deferred).",
        PromQL("sum by (reason) (vllm:num_requests_waiting_by_reason{$NS})", "{{reason}}"),
        unit="short",
        stacked=True,
    )


def _steps() -> PanelBuilder:
    return lines(
        "Engine steps",
        "Per second. Fewer steps of more tokens: the batch grows. Fewer steps of as many: the GPU is slower.",
        PromQL(f"sum(rate(vllm:iteration_tokens_total_count{{$NS}}{_RATE}))", "steps/s"),
        unit="short",
    )


def _lengths() -> PanelBuilder:
    return lines(
        "Lengths of requests",
        "Mean tokens of prompts and of answers. A load that changes here explains a latency that changes above.",
        *(
            PromQL(
                f"sum(rate(vllm:request_{part}_tokens_sum{{$NS}}{_RATE})) / "
                f"sum(rate(vllm:request_{part}_tokens_count{{$NS}}{_RATE}))",
                name,
            )
            for part, name in (("prompt", "prompt"), ("generation", "answer"))
        ),
        unit="short",
    )


def _tokens_by_source() -> PanelBuilder:
    return lines(
        "Prompt tokens by source",
        "Computed, found in the GPU's own cache, or fetched from outside: host memory where KV offloading is on.",
        PromQL(f"sum by (source) (rate(vllm:prompt_tokens_by_source_total{{$NS}}{_RATE}))", "{{source}} tokens/s"),
        unit="short",
        stacked=True,
        width=12,
    )


def _offloaded() -> PanelBuilder:
    return lines(
        "KV offloading hit rate",
        "Share of the tokens looked up in the host's memory that were there. Empty while offloading is off.",
        PromQL(
            f"sum(rate(vllm:external_prefix_cache_hits_total{{$NS}}{_RATE})) / "
            f"(sum(rate(vllm:external_prefix_cache_queries_total{{$NS}}{_RATE})) > 0)",
            "hits",
        ),
        unit="percentunit",
        maximum=1,
        width=12,
    )


def _accepted_share() -> PanelBuilder:
    return lines(
        "Draft tokens accepted",
        "Share of the proposed tokens that the model took. Empty while speculation is off.",
        PromQL(
            f"sum(rate(vllm:spec_decode_num_accepted_tokens_total{{$NS}}{_RATE})) / "
            f"(sum(rate(vllm:spec_decode_num_draft_tokens_total{{$NS}}{_RATE})) > 0)",
            "accepted",
        ),
        unit="percentunit",
        maximum=1,
    )


def _accepted_by_position() -> PanelBuilder:
    return lines(
        "Accepted by position",
        "Share of the drafts whose first, second, … token was taken. Where it falls to nothing a draft is too long.",
        PromQL(
            f"sum by (position) (rate(vllm:spec_decode_num_accepted_tokens_per_pos_total{{$NS}}{_RATE})) / "
            f"ignoring (position) group_left () (sum(rate(vllm:spec_decode_num_drafts_total{{$NS}}{_RATE})) > 0)",
            "position {{position}}",
        ),
        unit="percentunit",
        maximum=1,
    )


def _adapters() -> PanelBuilder:
    return lines(
        "LoRA adapters",
        "Seconds since a step of the engine last had just these adapters' requests running and waiting: the line at "
        "zero is what it does now, and an engine at rest has none there. Empty while LoRA is off.",
        PromQL(
            "time() - max by (running_lora_adapters, waiting_lora_adapters, max_lora) (vllm:lora_requests_info{$NS})",
            "running {{running_lora_adapters}}, waiting {{waiting_lora_adapters}}, at most {{max_lora}}",
        ),
        unit="s",
    )


def _energy() -> PanelBuilder:
    return lines(
        "Energy per output token",
        "Draw of the boards over tokens generated, idle draw included. Other parts of the node are not in it.",
        PromQL(
            f"sum(rate(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{$NS}}{_RATE})) / 1000 / ({_OUTPUT} > 0)",
            "joules per token",
        ),
        unit="joule",
    )


def _links() -> PanelBuilder:
    return lines(
        "Sent over PCIe",
        "What a GPU sends to the others and to the host: the price of tensor parallelism where there is no NVLink.",
        PromQL("max by (gpu, pod) (DCGM_FI_PROF_PCIE_TX_BYTES{$NS})", "GPU {{gpu}} {{pod}}"),
        unit="Bps",
    )


def _usd_per_hour() -> PanelBuilder:
    return lines(
        "Node cost",
        "USD per hour: nodes on which the GPUs are, times the price and the share that are set above.",
        PromQL(_USD_PER_HOUR, "USD per hour"),
        unit="currencyUSD",
        width=12,
    )


def _usd_per_1k() -> PanelBuilder:
    return lines(
        "USD per 1K tokens",
        "Node cost over tokens, of output alone and of prompts with it. The record is the FinOps sheet's, which has "
        "the waiting and the cold start in it.",
        PromQL(f"{_USD_PER_HOUR} / 3.6 / ({_OUTPUT} > 0)", "output"),
        PromQL(
            f"{_USD_PER_HOUR} / 3.6 / ({_OUTPUT} + sum(rate(vllm:prompt_tokens_total{{$NS}}{_RATE})) > 0)",
            "prompts and output",
        ),
        unit="currencyUSD",
        logarithmic=True,
        width=12,
    )


def _finished_badly() -> PanelBuilder:
    return lines(
        "Requests that didn't end well",
        "Share of the finished requests that were aborted, mostly by their client, or ended in an error.",
        PromQL(
            "sum by (finished_reason) "
            f'(rate(vllm:request_success_total{{$NS,finished_reason=~"abort|error"}}{_RATE})) / '
            f"ignoring (finished_reason) group_left () ({_REQUESTS} > 0)",
            "{{finished_reason}}",
        ),
        unit="percentunit",
    )
