"""The environment is read once; a wrong value is named with its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_pipelines.budgets import load_budgets
from lab_pipelines.deployment import Deployment, DeploymentError


def test_an_empty_environment_is_the_modelled_server_on_this_machine() -> None:
    deployment = Deployment.from_env({})
    assert deployment.target == "local"
    assert deployment.external_engine is None
    assert deployment.pace is None
    assert deployment.variant is None


def test_every_setting_is_read(tmp_path: Path) -> None:
    deployment = Deployment.from_env(
        {
            "LABS_PACE": "smoke",
            "LABS_VARIANT": "gmu-0.85",
            "LABS_TURNS": "6",
            "LABS_DATA_DIR": str(tmp_path),
            "LABS_LAKE_URL": "abfss://lake@account.dfs.core.windows.net/lake",
            "LABS_OPENAI_BASE_URL": "http://127.0.0.1:8000/v1/",
            "LABS_OPENAI_MODEL": "tiny",
            "LABS_PROMETHEUS_URL": "http://127.0.0.1:9090",
            "LABS_PROMETHEUS_SELECTOR": 'namespace="llm"',
            "LABS_SKU": "Standard_NC4as_T4_v3",
        }
    )
    assert (deployment.pace, deployment.data_dir, deployment.sku) == ("smoke", tmp_path, "Standard_NC4as_T4_v3")
    assert (deployment.variant, deployment.turns) == ("gmu-0.85", 6)
    assert deployment.lake_url == "abfss://lake@account.dfs.core.windows.net/lake"
    assert deployment.external_engine is not None
    assert deployment.external_engine.base_url == "http://127.0.0.1:8000/v1"
    assert deployment.external_engine.prometheus_selector == 'namespace="llm"'


@pytest.mark.parametrize("value", ["0", "101", "-1", "six", "1.5"])
def test_a_wrong_number_of_turns_names_the_variable_and_the_bounds(value: str) -> None:
    with pytest.raises(DeploymentError, match=r"LABS_TURNS='.*' is no number from 1 to 100"):
        Deployment.from_env({"LABS_TURNS": value})


def test_budgets_are_read_where_a_changed_configmap_s_link_goes(tmp_path: Path) -> None:
    """As the kubelet mounts one: the file is a link through `..data`, which a change turns to another folder."""
    (tmp_path / "budgets.yaml").symlink_to(Path("..data", "budgets.yaml"))
    budgets = None
    for content in ("month_usd: 1", "month_usd: 2"):
        folder = tmp_path / f"..{content[-1]}"
        folder.mkdir()
        (folder / "budgets.yaml").write_text(content, encoding="utf-8")
        (tmp_path / "..data").unlink(missing_ok=True)
        (tmp_path / "..data").symlink_to(folder.name)
        budgets = budgets or Deployment.from_env({"LABS_BUDGETS": str(tmp_path / "budgets.yaml")}).budgets
        assert budgets is not None and load_budgets(budgets).month_usd == int(content[-1])


@pytest.mark.parametrize(
    ("environ", "days"),
    [
        ({}, None),
        ({"LABS_TARGET": "kubernetes"}, None),
        ({"LABS_TARGET": "aks"}, 30),
        ({"LABS_TARGET": "aks", "LABS_PRICE_MAX_AGE_DAYS": "off"}, None),
        ({"LABS_TARGET": "aks", "LABS_PRICE_MAX_AGE_DAYS": "90"}, 90),
        ({"LABS_TARGET": "rehearsal", "LABS_PRICE_MAX_AGE_DAYS": "7"}, 7),
    ],
)
def test_where_azure_bills_the_nodes_a_price_may_not_be_old(environ: dict[str, str], days: int | None) -> None:
    assert Deployment.from_env(environ).price_max_age_days == days


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"LABS_TARGET": "cloud"}, r"LABS_TARGET='cloud' is not a target; set one of: local"),
        ({"LABS_OPENAI_BASE_URL": "localhost:8000"}, r"LABS_OPENAI_BASE_URL='localhost:8000' is not an http\(s\) URL"),
        ({"LABS_PROMETHEUS_URL": "http://127.0.0.1:9090"}, r"LABS_PROMETHEUS_URL is set without LABS_OPENAI_BASE_URL"),
        ({"LABS_LAKE_URL": "/mnt/lake"}, r"LABS_LAKE_URL='/mnt/lake' is not a URL; expected e.g. abfss://"),
        ({"LABS_LAKE_URL": "s3://key:planted@bucket/lake"}, r"LABS_LAKE_URL holds a password or a query"),
        ({"LABS_LAKE_URL": "https://a.blob/lake?sig=planted"}, r"LABS_LAKE_URL holds a password or a query"),
        ({"LABS_PRICE_MAX_AGE_DAYS": "a week"}, r"LABS_PRICE_MAX_AGE_DAYS='a week' is no number of days; set e.g. 30"),
        ({"LABS_PRICE_MAX_AGE_DAYS": "0"}, r"LABS_PRICE_MAX_AGE_DAYS='0' is no number of days"),
        ({"LABS_RETAIL_PRICES_URL": "prices"}, r"LABS_RETAIL_PRICES_URL='prices' is not an http\(s\) URL"),
        ({"LABS_EXECUTOR": "celery"}, r"LABS_EXECUTOR='celery' is not known; set one of: in-process, k8s"),
        (
            {"LABS_EXECUTOR": "k8s"},
            r"LABS_EXECUTOR=k8s needs a target whose stacks are .*: kubernetes, aks",
        ),
        ({"LABS_TARGET": "aks", "LABS_LOAD": "there"}, r"LABS_LOAD='there' is not known; set one of: here, in-cluster"),
        ({"LABS_TARGET": "aks", "LABS_LOAD_WORKERS": "0"}, r"LABS_LOAD_WORKERS='0' is no number from 1 to 32"),
        ({"LABS_TARGET": "aks", "LABS_LOAD_WORKERS": "many"}, r"LABS_LOAD_WORKERS='many' is no number from 1 to 32"),
        (
            {"LABS_TARGET": "aks", "LABS_LOAD_SECRET": "lake"},
            r"LABS_LOAD_SECRET='lake' can't come to a lab's",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(environ: dict[str, str], message: str) -> None:
    with pytest.raises(DeploymentError, match=message) as raised:
        Deployment.from_env(environ)
    assert "planted" not in str(raised.value)


def test_the_settings_of_a_load_in_the_cluster_are_read() -> None:
    deployment = Deployment.from_env(
        {
            "LABS_TARGET": "aks",
            "LABS_LAKE_URL": "abfss://lake@labs.dfs.core.windows.net/lake",
            "LABS_LOAD": "in-cluster",
            "LABS_LOAD_WORKERS": "4",
            "LABS_LOAD_SECRET": "lake-writer",
            "LABS_SECRETS_NAMESPACE": "lab-secrets",
        }
    )
    assert deployment.lake_url == "abfss://lake@labs.dfs.core.windows.net/lake"
    assert (deployment.cluster.load, deployment.cluster.load_workers) == ("in-cluster", 4)
    assert (deployment.cluster.load_secret, deployment.cluster.secrets_namespace) == ("lake-writer", "lab-secrets")
