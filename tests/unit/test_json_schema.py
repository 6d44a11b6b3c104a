"""The editors' schemas say what the models say, and every committed file of the catalogue is valid by them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from lab_pipelines.catalog.json_schema import SCHEMA_DIR, documents
from lab_pipelines.catalog.loader import CATALOG_DIR, load_catalog, read_yaml


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((SCHEMA_DIR / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def as_json(file: str) -> dict[str, Any]:
    data, _ = read_yaml(CATALOG_DIR / file)
    return json.loads(json.dumps(data, default=str))  # JSON has no dates


def test_the_committed_schemas_are_the_models_own() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in SCHEMA_DIR.glob("*.json")}
    assert committed == documents(), "write them again: python -m lab_pipelines.catalog.json_schema"


def test_every_lab_and_the_calendar_are_valid_by_them() -> None:
    lab = validator("lab.json")
    wrong = {
        name: str(error.message) for name in load_catalog().ids for error in lab.iter_errors(as_json(f"{name}.yaml"))
    }
    assert wrong == {}
    assert list(validator("calendar.json").iter_errors(as_json("calendar.yaml"))) == []


@pytest.mark.parametrize(("field", "value"), [("week", "three"), ("qestion", "?"), ("namespace", "no"), ("nodes", {})])
def test_an_editor_would_underline_what_the_validation_refuses(field: str, value: Any) -> None:
    assert list(validator("lab.json").iter_errors({**as_json("L06.yaml"), field: value}))
