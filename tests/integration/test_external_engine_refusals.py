"""What a wrong address of an engine or a Prometheus leads to: a message before the load, and nothing left behind."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.stack import Variant
from resources.cluster import ClusterError, Session, StackOrder
from resources.cluster_external import ExternalEngineCluster
from resources.leases import LeaseBook
from tests.support.tiny_llama import MODEL, TinyLlama, tiny_llama


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyLlama]:
    with tiny_llama(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture
def nobody() -> Iterator[str]:
    """A loopback address on which nobody can listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def deploy(
    folder: Path, base_url: str, *, prometheus_url: str | None, model: str | None = None, variant: Variant | None = None
) -> Session:
    spec = load_catalog().spec("L06")
    cluster = ExternalEngineCluster(
        data_dir=str(folder),
        base_url=base_url,
        model=model,
        prometheus_url=prometheus_url,
        prometheus_selector="",
        sku=None,
    )
    try:
        order = StackOrder(
            spec=spec,
            variant=variant or spec.variants[0],
            run_id="run",
            pace_name="smoke",
            pace=spec.paces["smoke"],
            hold=None,
        )
        return cluster.deploy(order, progress=lambda line: None)
    except ClusterError:
        assert LeaseBook(folder / "state").all() == []
        raise


def test_no_engine_at_the_base_url(tmp_path: Path, nobody: str) -> None:
    with pytest.raises(ClusterError, match="LABS_OPENAI_BASE_URL"):
        deploy(tmp_path, f"{nobody}/v1", prometheus_url=nobody)


def test_no_engine_at_the_base_url_when_the_model_is_named(tmp_path: Path, nobody: str) -> None:
    with pytest.raises(ClusterError, match=re.escape(f"{nobody}/v1/completions did not answer")):
        deploy(tmp_path, f"{nobody}/v1", model=MODEL, prometheus_url=nobody)


def test_a_path_that_the_engine_does_not_have(tmp_path: Path, engine: TinyLlama, nobody: str) -> None:
    with pytest.raises(ClusterError, match="completions answered 404"):
        deploy(tmp_path, f"{engine.base_url}/wrong", model=MODEL, prometheus_url=nobody)


def test_an_engine_whose_own_interface_is_not_openais(tmp_path: Path, engine: TinyLlama, nobody: str) -> None:
    with pytest.raises(ClusterError, match="not with an OpenAI completion"):
        deploy(tmp_path, engine.base_url.removesuffix("/v1"), prometheus_url=nobody)


def test_no_prometheus_at_its_address(tmp_path: Path, engine: TinyLlama, nobody: str) -> None:
    with pytest.raises(ClusterError, match="LABS_PROMETHEUS_URL"):
        deploy(tmp_path, engine.base_url, prometheus_url=nobody)


def test_another_server_at_prometheus_address(tmp_path: Path, engine: TinyLlama) -> None:
    with pytest.raises(ClusterError, match="does not answer as a Prometheus does"):
        deploy(tmp_path, engine.base_url, prometheus_url=engine.base_url)


def test_a_variant_that_would_have_to_change_the_engine(tmp_path: Path, engine: TinyLlama) -> None:
    larger = Variant(id="larger", description="Two replicas", values={"vllm": {"replicas": 2}})
    with pytest.raises(ClusterError, match="an engine that is not ours can't be changed"):
        deploy(tmp_path, engine.base_url, prometheus_url=None, variant=larger)
