"""Metrics: name, type, labels and meaning, from the instruments."""

from __future__ import annotations

from mlserver.metrics.instruments import Instrument
from mlserver.metrics.model_metrics import ModelInstruments
from mlserver.metrics.server_metrics import ServerMetrics
from mlserver.metrics.state_instruments import StateInstruments

from .markdown import code, start_page, table

HEADINGS = ("metric", "type", "labels", "meaning")
LABELS = (
    (
        "`model`, `version`",
        "name and version of the model; an empty version is a model without one",
    ),
    ("`model_name`, `model_version`", "the same, in metrics of MLServer 1.x"),
    ("`path`", "the route, as `/v2/models/{model_name}/infer`; no values from clients"),
    ("`status_code`", "HTTP status"),
    ("`grpc_code`", "name of the gRPC status, such as `OK`"),
    ("`reason` (rejected)", "`queue_full` or `deadline`: why a request was not admitted"),
    (
        "`reason` (deaths)",
        "`exit`: an exit code; `killed`: SIGKILL; `signal`: "
        "another signal; `stuck`: killed by the server, because it did not react; "
        "`out_of_memory`: probably killed by the kernel for lack of memory",
    ),
    ("`kind`", "`worker`, which runs models, or `http_worker`"),
    ("`pool`", "number of the worker pool, as in the console; `http`: HTTP worker processes"),
    ("`state`", "`ready`, or `missing`: ended and not replaced yet"),
    ("`pid`", "process id"),
    ("`outcome` (swaps)", "`loaded` or `failed`"),
    ("`outcome` (shadow)", "`same`, `different`, `failed` or `dropped`"),
)


def page() -> str:
    lines = start_page(
        "Metrics",
        "the server's instruments",
        "The page `/metrics`, in Prometheus' text format or OpenMetrics, has these metrics. A "
        "counter "
        "has the suffix `_total`; a histogram has `_bucket`, `_sum` and `_count`. How to scrape "
        "it and "
        "what to alert on: [monitoring](../how-to/monitoring.md).",
    )
    models = ModelInstruments().all()
    names = {instrument.name for instrument in models}
    server = [entry for entry in ServerMetrics().instruments() if entry.name not in names]
    lines += ["## Models", ""]
    lines += table(HEADINGS, [_row(instrument) for instrument in models])
    state = StateInstruments().all()
    about_models = [entry for entry in state if "model" in entry.labels]
    lines += ["## State of models", ""]
    lines += table(HEADINGS, [_row(entry) for entry in about_models])
    lines += ["## Server and worker processes", ""]
    lines += table(HEADINGS, [_row(entry) for entry in state if entry not in about_models])
    lines += [
        "`mlserver_forks_refused_total` counts the pools that have started workers as new "
        "interpreters, which costs memory and start-up time; the log has the reason. Where it may "
        "be temporary, forks are tried again after 1, 10 and 60 minutes; the pool stays counted.",
        "",
    ]
    lines += ["## HTTP and gRPC", ""]
    lines += table(HEADINGS, [_row(instrument) for instrument in server])
    lines += [
        "The prefix `rest_server` is the setting `metrics_rest_server_prefix`. "
        "`process_...` and `python_...` are those of the server's process, from prometheus_client.",
        "",
        "Counters of a model start at 0 when it is loaded, so that Prometheus' `increase` sees the "
        "first event.",
        "",
        "## Labels",
        "",
    ]
    lines += table(("label", "value"), LABELS)
    lines += [
        "## Metrics of models",
        "",
        "`mlserver.log(name=value)` in a runtime makes a histogram with the labels `model_name` "
        "and "
        "`model_version`; metrics that a model declares with prometheus_client are on the page "
        "too. "
        "See [custom metrics](../tutorials/custom-runtime.md#custom-metrics).",
        "",
    ]
    return "\n".join(lines).rstrip() + "\n"


def _row(instrument: Instrument) -> tuple[str, str, str, str]:
    kind = type(instrument).__name__.lower()
    suffix = "_total" if kind == "counter" else ""
    labels = ", ".join(code(label) for label in instrument.labels)
    return code(instrument.name + suffix), kind, labels, instrument.description
