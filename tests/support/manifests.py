"""The files of deploy/, read and validated offline, strictly: an unknown field is an error.

Kinds of Kubernetes are validated with the schemas of `kubernetes-validate`, others with the schemas
of `support/manifest_schemas.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import yaml
from kubernetes_validate import utils

from support.manifest_schemas import FILE_SCHEMAS, KIND_SCHEMAS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
# The oldest version with all fields, and the newest that the package has schemas for.
KUBERNETES_VERSIONS = ("1.29", kubernetes_validate.latest_version())

# Strategic merge patches, and the files that they change.
PATCHES = {"kubernetes/example/model.yaml": "kubernetes/base/deployment.yaml"}

Document = dict[str, Any]


class InvalidManifest(Exception):
    """A document does not follow its schema."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # no types
    """Refuses two equal keys of a mapping, of which YAML keeps the last without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise InvalidManifest(f"{node.start_mark}: a key occurs twice in {keys}")
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def read_documents(path: Path) -> list[Document]:
    """Return the documents of a YAML file.

    Raises:
        InvalidManifest: a mapping has two equal keys.
    """
    return list(yaml.load_all(path.read_text(), _Loader))


def read_document(path: Path) -> Document:
    """Return the only document of a YAML file."""
    [document] = read_documents(path)
    return document


def list_files() -> list[Path]:
    """Paths of the YAML files of deploy/ that are not another tool's (see `is_validated`)."""
    return sorted(path for path in DEPLOY.rglob("*.yaml") if is_validated(path))


def is_validated(path: Path) -> bool:
    """Whether this module has schemas for a file: deploy/observability has tests of its own."""
    return path.relative_to(DEPLOY).parts[0] in ("kserve", "kubernetes", "ray", "compose")


def validate_file(path: Path) -> None:
    """Validate each document of a file.

    Raises:
        InvalidManifest: a document does not follow the schema of its kind, or has no schema.
    """
    for document in read_documents(path):
        validate(document, path)


def validate(document: Document, path: Path) -> None:
    """Validate a document of the file `path`. Raises `InvalidManifest`."""
    name = str(path.relative_to(DEPLOY))
    if name in FILE_SCHEMAS:
        _validate_with(FILE_SCHEMAS[name], document, path)
        return
    if name in PATCHES:
        document = merge(read_document(DEPLOY / PATCHES[name]), document)
    kind = (document.get("apiVersion"), document.get("kind"))
    if kind in KIND_SCHEMAS:
        _validate_with(KIND_SCHEMAS[kind], document, path)
        for pod in _list_pods(document):
            _validate_kubernetes(pod, path)
        return
    _validate_kubernetes(document, path)


def _validate_with(schema: Document, document: Document, path: Path) -> None:
    errors = list(jsonschema_rs.validator_for(schema).iter_errors(document))
    if errors:
        raise InvalidManifest(f"{path}: {errors[0].instance_path}: {errors[0].message}")


def _validate_kubernetes(document: Document, path: Path) -> None:
    for version in KUBERNETES_VERSIONS:
        try:
            error = next(_kubernetes_validator(document, version).iter_errors(document), None)
        except (KeyError, FileNotFoundError, utils.SchemaNotFoundError):
            kind = f"{document.get('apiVersion')} {document.get('kind')}"
            raise InvalidManifest(f"{path}: Kubernetes {version} has no kind {kind}") from None
        if error is not None:
            raise InvalidManifest(f"{path}: {error.instance_path}: {error.message}")


def _kubernetes_validator(document: Document, version: str) -> Any:
    group, _, api = str(document["apiVersion"]).rpartition("/")
    prefix = group.partition(".")[0] + "-" if group else ""
    return _make_kubernetes_validator(f"{document['kind'].lower()}-{prefix}{api}", version)


@cache
def _make_kubernetes_validator(name: str, version: str) -> jsonschema_rs.Validator:
    """A validator with the strict schemas of `kubernetes-validate`."""
    folder = _strict_folder(version)
    schema = utils.schema_contents(f"{folder}/{name}.json", version)
    return jsonschema_rs.validator_for(schema, registry=_read_definitions(version))


@cache
def _read_definitions(version: str) -> jsonschema_rs.Registry:
    definitions = utils.schema_contents(f"{_strict_folder(version)}/_definitions.json", version)
    return jsonschema_rs.Registry([(definitions["$id"], definitions)])


def _strict_folder(version: str) -> str:
    full_version = next(each for each in utils.all_versions() if each.startswith(f"{version[:4]}."))
    return f"kubernetes-json-schema/v{full_version}-local-strict"


def _list_pods(document: Document) -> Iterator[Document]:
    """Yield pods with the containers and volumes that a kind outside Kubernetes contains."""
    spec = document.get("spec", {})
    if "containers" in spec:
        names = ("containers", "volumes")
        yield make_pod({name: spec[name] for name in names if name in spec})
    for group in (spec.get("headGroupSpec"), *spec.get("workerGroupSpecs", ())):
        if group is not None:
            yield make_pod(group["template"]["spec"])


def make_pod(spec: Document) -> Document:
    """A pod with a spec."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}


def merge(value: Any, patch: Any) -> Any:
    """Return a value with a strategic merge patch applied: lists of named items merge by name."""
    if isinstance(value, dict) and isinstance(patch, dict):
        merged = {name: merge(value.get(name), change) for name, change in patch.items()}
        return {**value, **merged}
    if isinstance(value, list) and isinstance(patch, list) and _has_names(value + patch):
        by_name = {item["name"]: item for item in value}
        for change in patch:
            by_name[change["name"]] = merge(by_name.get(change["name"]), change)
        return list(by_name.values())
    return patch


def _has_names(items: list[Any]) -> bool:
    return all(isinstance(item, dict) and "name" in item for item in items)


# -- planted faults --


def list_misspelled(document: Document) -> Iterator[tuple[str, Document]]:
    """Yield copies of a document in each of which one field's name has a letter too many."""
    for path in list_field_paths(document):
        changed = copy.deepcopy(document)
        *parents, name = path
        parent: Any = changed
        for step in parents:
            parent = parent[step]
        parent[f"{name}x"] = parent.pop(name)
        yield ".".join(map(str, path)), changed


# Mappings whose keys are the user's.
FREE = {
    "labels",
    "annotations",
    "matchLabels",
    "selector",
    "limits",
    "requests",
    "environment",
    "services",
    "volumes",
    "depends_on",
    "overrides",
}


def list_field_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each field's name in a document, apart from names in `FREE` mappings."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from list_field_paths(item, (*path, index))
    if isinstance(value, dict):
        is_free = bool(path) and path[-1] in FREE
        for name, item in value.items():
            if not is_free:
                yield (*path, name)
            yield from list_field_paths(item, (*path, name))
