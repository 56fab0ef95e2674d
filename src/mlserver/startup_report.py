"""What the server says about its start and stop: models, addresses, a request to try, failures.

On a terminal, the addresses and the request are a block of lines, ready to be clicked and copied;
otherwise each is a log line. With structured logging, the lines have the values as keys.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from .logging import get_logger, uses_terminal_format
from .registry import ModelRegistryView, ModelVersion
from .repository.folders import SAMPLE_REQUEST_FILENAME
from .settings import ModelSettings, Settings
from .version import __version__

logger = get_logger()

# Names in one line; the others are counted.
MAX_NAMES = 20
# Bytes of an example in a command that is printed; the documentation page has longer ones.
MAX_EXAMPLE_BYTES = 1500
# Seconds between two lines about models that are still loading. Models that have failed until then
# are logged as well; otherwise after the server is ready, where they are not overlooked.
PROGRESS_INTERVAL = 5.0
# Seconds at most to close connections, HTTP worker processes and tracing at shutdown.
CLOSING_SECONDS = 5
_JSON = "content-type: application/json"
# Words of a reason that says what to do; "unexpected keyword argument" does not.
_CURE = re.compile(r"install |setting '|\bexpected|did you mean")


def format_entry(entry: ModelVersion) -> str:
    """Return the label of a version in the log."""
    return f"{entry.name} ({entry.version})" if entry.version else entry.name


def log_found(
    models: Iterable[ModelSettings], problems: Mapping[str, str], settings: Settings
) -> None:
    """Log the version of the server, the models that it will load, and the worker processes.

    Args:
        problems: Models with invalid settings.
    """
    versions: dict[str, list[str]] = {}
    for model in models:
        versions.setdefault(model.name, []).extend([model.version] if model.version else [])
    names = []
    for name, listed in versions.items():
        names.append(f"{name} ({', '.join(listed)})" if listed else name)
    count = sum(max(len(listed), 1) for listed in versions.values())
    place = "" if settings.model_repository_implementation else f" of {_get_folder(settings)}"
    text = f"loading {_count(count, 'model')}{place}: {_shorten(names)}"
    if not count:
        text = f"no models to load{place}"
    if problems:
        text += f"; {len(problems)} with invalid settings"
    workers = settings.parallel_workers
    places = "in the server's process" if workers <= 0 else f"{_count(workers, 'worker process')}"
    fields = {
        "event": "start",
        "version": __version__,
        "models": list(versions),
        "workers": workers,
    }
    logger.info("mlserver %s, %s; %s", __version__, text, places, extra={"fields": fields})


def _get_folder(settings: Settings) -> str:
    folder = settings.model_repository_root
    return "this folder" if folder == "." else folder


def log_loading(pending: Sequence[str], seconds: float) -> None:
    """Log the models that are still loading."""
    logger.info(
        "Still loading after %.0f s: %s", seconds, _shorten([f"'{label}'" for label in pending])
    )


def log_failures(reasons: Mapping[str, str], settings: Settings) -> None:
    """Log each model that could not be loaded, with the reason and what to do."""
    for label, reason in reasons.items():
        text = add_cure(reason, settings.model_repository_root)
        fields = {"event": "model_failed", "model": label}
        logger.error("Model '%s' could not be loaded: %s", label, text, extra={"fields": fields})


def log_not_ready(reasons: Mapping[str, str]) -> None:
    """Log the names of the models that could not be loaded, if any."""
    if reasons:
        names = ", ".join(f"'{label}'" for label in reasons)
        logger.error("Not ready: %d of the models failed to load: %s", len(reasons), names)


def describe_failed_start(reasons: Mapping[str, str], settings: Settings) -> str:
    """Return the error message of a start without any loaded model.

    The reasons of several models are in the log only.
    """
    (label, reason), *others = reasons.items()
    if not others:
        reason = add_cure(reason, settings.model_repository_root)
        return f"No model could be loaded; '{label}': {reason}"
    names = ", ".join(f"'{label}'" for label in reasons)
    return f"No model could be loaded, the reasons are in the log above: {names}"


def log_ready(
    settings: Settings, seconds: float, front_ends: Sequence[Any], registry: ModelRegistryView
) -> ReadyReport:
    """Log that the server is ready, its addresses, and a request to try; return the report."""
    ready = [format_entry(entry) for entry in registry.entries() if entry.ready]
    names = ", ".join(ready) or "none"
    addresses = ", ".join(front_end.address for front_end in front_ends)
    if settings.http_workers > 1:
        addresses += f" (in {settings.http_workers} processes)"
    fields = {"event": "ready", "seconds": round(seconds, 3), "models": ready}
    if uses_terminal_format(settings):
        logger.info("Ready in %.2f s; models: %s", seconds, names)
    else:
        text = "Ready in %.2f s: %s; models: %s"
        logger.info(text, seconds, addresses, names, extra={"fields": fields})
    endpoints: dict[str, str] = {}
    for front_end in front_ends:
        endpoints |= front_end.endpoints
    report = make_ready_report(settings, endpoints, registry.defaults())
    report.log(settings)
    return report


def log_stopping(settings: Settings, entries: Iterable[ModelVersion], was_ready: bool) -> None:
    """Log what the shutdown waits for."""
    waits = []
    if was_ready and settings.shutdown_delay:
        waits.append(f"accepting requests for {settings.shutdown_delay:g} s ('shutdown_delay')")
    if settings.http_workers > 1:
        waits.append(f"waiting for requests in {settings.http_workers} HTTP worker processes")
    elif requests := format_open_requests(entries):
        waits.append(f"waiting for requests ({requests})")
    else:
        waits.append("no requests are running")
    limit = f"at most {settings.drain_timeout:g} s ('drain_timeout')"
    logger.info("Stopping: %s, %s; Ctrl-C again stops at once", "; ".join(waits), limit)


def get_shutdown_seconds(settings: Settings) -> float:
    """Return the seconds from SIGTERM to the exit, at most: the grace period that is needed."""
    requests = settings.shutdown_delay + settings.drain_timeout
    return requests + settings.parallel_workers_timeout + CLOSING_SECONDS


def add_cure(reason: str, folder: str | None = None) -> str:
    """Return the reason why a model could not be loaded, with what to do if it does not say so.

    Args:
        folder: The model repository; None = `mlserver check` reports the reason.
    """
    if _CURE.search(reason):
        return reason
    if "cannot be imported" in reason:
        cure = "check 'implementation' in model-settings.json and the files beside it"
    elif "No such file" in reason or "does not exist" in reason:
        cure = "check 'parameters.uri' in model-settings.json"
    elif folder is not None:
        cure = f"for the log of its load, run: mlserver check {shlex.quote(folder)} --verbose"
    else:
        cure = "--verbose prints the log of its load"
    return f"{reason.rstrip('.')}; {cure}"


@dataclass(frozen=True)
class ReadyReport:
    """What a client on this machine needs: addresses, and a request to try.

    Attributes:
        addresses: Name -> URL, or `host:port` for gRPC, in the order in which they are printed.
        title: The model of the request; "" = there is no model to try.
        command: Command of a shell, one argument group per line; () = none.
    """

    addresses: Mapping[str, str]
    title: str = ""
    command: tuple[str, ...] = ()

    def log(self, settings: Settings) -> None:
        """Log the report: as a block on a terminal, else as lines."""
        stops = "Ctrl-C stops the server"
        if uses_terminal_format(settings):
            logger.info("%s", self._format_block(stops), extra={"is_block": True})
            return
        text = ", ".join(f"{name} {address}" for name, address in self.addresses.items())
        fields = {"event": "addresses", "addresses": dict(self.addresses)}
        logger.info("Addresses: %s", text, extra={"fields": fields})
        if self.command:
            command = " ".join(self.command)
            fields = {"event": "example", "command": command}
            logger.info("%s: %s", self.title, command, extra={"fields": fields})
        logger.info("%s", stops)

    def _format_block(self, stops: str) -> str:
        width = max(map(len, self.addresses), default=0)
        lines = [f"  {name:<{width}}  {address}" for name, address in self.addresses.items()]
        if self.command:
            lines += ["", f"  {self.title}:", "  " + " \\\n    ".join(self.command)]
        return "\n".join(["", *lines, "", f"  {stops}.", ""])


def make_ready_report(
    settings: Settings, endpoints: Mapping[str, str], entries: Sequence[ModelVersion]
) -> ReadyReport:
    """Return the report of a server.

    Args:
        endpoints: Name -> URL of each front end.
        entries: The default versions of all models.
    """
    addresses = dict(endpoints)
    rest = addresses["REST"]
    if settings.metrics_endpoint and "metrics" not in addresses:
        addresses["metrics"] = f"{rest}/{settings.metrics_endpoint.strip('/')}"
    addresses["docs"] = f"{rest}/v2/docs"
    if settings.has_console:
        addresses["console"] = f"{rest}/console/"
    ready = [entry for entry in entries if entry.ready]
    if not ready or (settings.tls is not None and settings.tls.client_ca):
        return ReadyReport(addresses)
    title, request = _choose_request(rest, ready)
    options = ["curl -s"]
    if settings.tls is not None:
        options = ["curl -sk"]  # the certificate may not name this host
    if settings.auth is not None:
        options.append('-H "authorization: Bearer $API_KEY"')
    return ReadyReport(addresses, title, (f"{' '.join(options)} {request[0]}", *request[1:]))


def _choose_request(rest: str, entries: Sequence[ModelVersion]) -> tuple[str, tuple[str, ...]]:
    """Return a title and arguments of `curl` for the model with the shortest example."""
    examples: list[tuple[int, str, str, str]] = []
    for entry in entries:
        for key, path in (("v2_example", "infer"), ("example", "invocations")):
            body = _find_example(entry, key)
            if body and len(body) <= MAX_EXAMPLE_BYTES:
                examples.append((len(body), entry.name, path, body))
                break
    if examples:
        _, name, path, body = min(examples, key=lambda item: item[0])
        return f"Try the model '{name}'", _post(f"{_model_url(rest, name)}/{path}", body)
    for entry in entries:
        path = os.path.join(entry.settings.folder or "", SAMPLE_REQUEST_FILENAME)
        if entry.settings.folder and os.path.isfile(path):
            url = f"{_model_url(rest, entry.name)}/infer"
            return f"Try the model '{entry.name}'", _post(url, f"@{_shorten_path(path)}")
    name = entries[0].name
    return f"Metadata of the model '{name}'", (shlex.quote(_model_url(rest, name)),)


def _find_example(entry: ModelVersion, key: str) -> str:
    """Return the example that the model's runtime has verified, as JSON text; "" = none."""
    routes = entry.loaded.info.routes if entry.loaded is not None else ()
    examples = [route.config.get(key) for route in routes if route.config]
    example = next((example for example in examples if example is not None), None)
    return "" if example is None else orjson.dumps(example).decode()


def _post(url: str, body: str) -> tuple[str, ...]:
    return shlex.quote(url), f"-H '{_JSON}'", f"-d {shlex.quote(body)}"


def _model_url(rest: str, name: str) -> str:
    return f"{rest}/v2/models/{quote(name, safe='')}"


def _shorten_path(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def format_open_requests(entries: Iterable[ModelVersion]) -> str:
    """Return the models that have requests, with their numbers; "" = there are none."""
    parts = []
    for entry in entries:
        queued, running = (0, 0) if entry.pipeline is None else entry.pipeline.open_requests
        if queued or running:
            parts.append(f"'{entry.name}': {running} running, {queued} queued")
    return _shorten(parts)


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def _shorten(names: Sequence[str]) -> str:
    text = ", ".join(names[:MAX_NAMES])
    return text if len(names) <= MAX_NAMES else f"{text} and {len(names) - MAX_NAMES} more"


def warn_of_known_faults() -> None:
    """Log installed versions that have known faults. Reads their metadata: blocks."""
    from . import known_faults

    known_faults.log_warnings()
