"""Content types and their codecs, from the registered classes."""

from __future__ import annotations

import inspect
import re
from typing import Any

import mlserver_mlflow.codecs
from mlserver import codecs
from mlserver.codecs.json import JsonColumnCodec

from .markdown import clean_docstring, code, start_page, table

INPUT_CODECS = (
    codecs.NumpyCodec,
    codecs.StringCodec,
    codecs.Base64Codec,
    codecs.DatetimeCodec,
    JsonColumnCodec,
)
REQUEST_CODECS = (
    codecs.NumpyRequestCodec,
    codecs.PandasCodec,
    codecs.StringRequestCodec,
    mlserver_mlflow.codecs.TensorDictCodec,
)
BODIES = (
    (
        "`application/json`, `application/*+json`, `application/octet-stream`, "
        "`application/x-www-form-urlencoded` (the default of `curl -d`), or none",
        "V2 as JSON",
        "V2 paths",
    ),
    (
        "one of these, with `inference-header-content-length`",
        "V2 as JSON, followed by binary tensors (binary data extension)",
        "V2 paths",
    ),
    (
        "`application/vnd.apache.arrow.stream`",
        "an Arrow stream of columns; needs `pip install 'mlserver[arrow]'`",
        "V2 paths",
    ),
    ("`application/json`", "MLflow's JSON forms", "`/invocations`"),
    ("`text/csv`", "CSV with a header line", "`/invocations`"),
    ("`application/vnd.apache.parquet`", "a Parquet file; needs pyarrow", "`/invocations`"),
)


def page() -> str:
    lines = start_page(
        "Content types and codecs",
        "the registered codecs",
        "A codec converts between tensors and Python values. A request selects one by the "
        "parameter "
        '`content_type`: `{"name": "text", "datatype": "BYTES", "shape": [1], '
        '"parameters": {"content_type": "str"}, "data": ["hello"]}`. Without it, the content '
        "type in "
        "the model's metadata or settings applies, then the model's own default.",
    )
    headings = ("content type", "codec", "Python value", "what it does")
    lines += ["## Codecs of one input or output", ""]
    lines += table(headings, [_row(codec) for codec in INPUT_CODECS])
    lines += ["## Codecs of a whole request", ""]
    lines += table(headings, [_row(codec) for codec in REQUEST_CODECS])
    lines += [
        "`dict` belongs to the MLflow runtime. A codec of your own: "
        "[custom codecs](../tutorials/custom-runtime.md#custom-codecs).",
        "",
        "## Content types of HTTP bodies",
        "",
    ]
    lines += table(("`content-type`", "body", "paths"), BODIES)
    lines += ["An unsupported content type is refused with 415. Bodies may be compressed"]
    lines += ["(`content-encoding: gzip` or `deflate`).", ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(codec: Any) -> tuple[str, str, str, str]:
    hint = codec.TypeHint
    text = inspect.formatannotation(hint) if hint is not None else "any JSON value"
    text = text.replace("datetime.datetime", "datetime").replace("pandas.", "pd.")
    text = text.replace("numpy.", "np.").removeprefix("core.frame.")
    text = text.replace("pd.core.frame.", "pd.")
    text = re.sub(r"np\.ndarray\[.*\]\]", "np.ndarray", text)
    name = f"`{codec.__module__.split('.')[0]}.codecs.{codec.__name__}`"
    return code(codec.ContentType), name, code(text), clean_docstring(codec.__doc__)
