"""Manifests against the types of the Kubernetes API, as the kubernetes package's own models have them.

Belongs here: which fields, containers and scalars a model allows. Doesn't belong here: rules that only an API server
knows (numbers in range, names that fit).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kubernetes.client import models

_NESTED = re.compile(r"^(list|dict)[\[(](?:str, )?(.+)[\])]$")
_SCALARS: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "datetime": (str,),
}


def mistakes(manifest: Mapping[str, Any]) -> list[str]:
    """`path: what is wrong` for each unknown field, wrong type and missing required field of an object.

    Raises `LookupError` for a kind that the kubernetes package has no model of, such as a custom resource.
    """
    version = manifest["apiVersion"].rsplit("/", 1)[-1]
    model = f"{version[0].upper()}{version[1:]}{manifest['kind']}"
    if not hasattr(models, model):
        raise LookupError(f"the kubernetes package has no model {model}")
    return _mistakes(manifest, model, "")


def _mistakes(value: Any, type_name: str, path: str) -> list[str]:
    if nested := _NESTED.match(type_name):
        kind, inner = nested.groups()
        if kind == "list" and isinstance(value, list):
            items = enumerate(value)
        elif kind == "dict" and isinstance(value, dict):
            items = value.items()
        else:
            return [f"{path}: expected a {'list' if kind == 'list' else 'mapping'}"]
        return [found for key, item in items for found in _mistakes(item, inner, f"{path}[{key}]")]
    if type_name == "object":  # a quantity may be a number, an IntOrString both
        return []
    if scalar := _SCALARS.get(type_name):
        is_right = isinstance(value, scalar) and (bool in scalar or not isinstance(value, bool))
        return [] if is_right else [f"{path}: expected {type_name}, but found {value!r}"]
    if not isinstance(value, dict):
        return [f"{path}: expected a mapping"]
    model = getattr(models, type_name)
    fields = {json_name: name for name, json_name in model.attribute_map.items()}
    found = [f"{path}.{key}: field not declared in schema" for key in value if key not in fields]
    for key, item in value.items():
        if key in fields:
            found += _mistakes(item, model.openapi_types[fields[key]], f"{path}.{key}")
    try:  # a model refuses to be made without what it requires
        model(**{fields[key]: item for key, item in value.items() if key in fields})
    except ValueError as error:
        found.append(f"{path}: {error}")
    return found
