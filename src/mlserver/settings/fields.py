"""Fields of the server's and the models' settings, each with its default, unit and description.

Sources, the first wins: code or a settings file, environment variables, `.env` in the current
folder, the default. Objects are merged key by key. The string below a field is its description:
`descriptions.read_descriptions` returns them, and `tests/unit/test_settings.py` requires one for
each.
"""

from __future__ import annotations

import inspect
import os
from typing import Any, ClassVar, Self

from pydantic import Field, PrivateAttr
from pydantic_settings import SettingsConfigDict

from .. import model_imports
from ..errors import SettingsError
from ..types import MetadataTensor
from ..version import __version__
from .base import (
    ENV_FILE_SETTINGS,
    ENV_PREFIX_SETTINGS,
    BaseSettings,
    Count,
    LogLevel,
    NotReadyStatus,
    OptionalPort,
    Port,
    RootPath,
    Seconds,
    SecondsOrNone,
    ValidationStatus,
    WorkerStart,
)
from .cors import CORSSettings
from .model_parameters import ENV_PREFIX_MODEL_SETTINGS, ModelParameters
from .payload_log import PayloadLogSettings
from .ray import Engine, ModelRaySettings, RaySettings
from .security import AdminAccess, AuthSettings, TLSSettings
from .sources import warn_of_misspelled

__all__ = [
    "DEFAULT_ENVIRONMENTS_DIR",
    "DEFAULT_METRICS_DIR",
    "DEFAULT_PARALLEL_WORKERS",
    "ENV_FILE_SETTINGS",
    "ENV_PREFIX_MODEL_SETTINGS",
    "ENV_PREFIX_SETTINGS",
    "BaseSettings",
    "CORSSettings",
    "ModelParameters",
    "ModelSettings",
    "Settings",
    "SettingsError",
]

DEFAULT_PARALLEL_WORKERS = 1
DEFAULT_ENVIRONMENTS_DIR = os.path.join(os.getcwd(), ".envs")
DEFAULT_METRICS_DIR = os.path.join(os.getcwd(), ".metrics")


class Settings(BaseSettings):
    """Settings of the server. Environment variables are `MLSERVER_` and the field's name."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX_SETTINGS)
    _import_paths: ClassVar[tuple[str, ...]] = ("model_repository_implementation",)

    debug: bool = False
    """Write debug logs and access logs. Responses are the same with and without it."""
    log_level: LogLevel | None = None
    """CRITICAL, ERROR, WARNING, INFO or DEBUG; None = DEBUG with `debug`, else INFO."""
    access_log: bool | None = None
    """Whether to log a line per request of REST, gRPC and Kafka; None = only with `debug`. With
    `use_structured_logging` its values are fields."""
    use_structured_logging: bool = False
    """Write log lines as JSON objects; those of a request have its id and trace."""
    logging_settings: str | dict[str, Any] | None = None
    """Python logging configuration: an object, the path of a `.json` file with one, or the path of
    a file in the configparser format; None = the server's own format."""

    engine: Engine = "local"
    """What runs models: `local` = processes of this machine, `ray` = replicas in a Ray cluster."""
    ray: RaySettings | None = None
    """The Ray cluster; None = the defaults. The engine `local` ignores it."""
    parallel_workers: int = DEFAULT_PARALLEL_WORKERS
    """Worker processes per pool; 0 = run models in a thread of the server's process."""
    parallel_workers_timeout: int = 5
    """Seconds to wait for a worker to exit at shutdown before it is killed."""
    worker_start: WorkerStart = "auto"
    """How worker processes start: `auto` = as forks of a template process that has imported their
    libraries, and as new interpreters where that is not safe; `fresh` = as new interpreters."""
    environments_dir: str = DEFAULT_ENVIRONMENTS_DIR
    """Folder for the unpacked Python environments of models; default: `.envs` in the current
    folder."""

    model_repository_implementation: str | None = None
    """Import path of the repository class (in code, also a class); None = models are read from
    folders."""
    model_repository_root: str = "."
    """Folder of the model repository; `mlserver start FOLDER` sets it."""
    model_repository_implementation_args: dict[str, Any] = {}
    """Further keyword arguments of the repository class."""
    load_models_at_startup: bool = True
    """Load all models of the repository at start; false = only on request."""
    default_model: str | None = None
    """Model that serves paths without a model name; None = the only loaded model, if there is
    one."""

    server_name: str = "mlserver"
    """Name in the server's metadata, in CloudEvents headers and in traces."""
    server_version: str = __version__
    """Version in the server's metadata; default: the version of the package."""
    extensions: list[str] = []
    """Protocol extensions listed in the server's metadata in addition to the built-in ones."""

    host: str = "0.0.0.0"
    """Address on which the HTTP, gRPC and metrics ports listen."""
    http_port: Port = 8080
    """Port of REST; 0 = any free port."""
    grpc_port: Port = 8081
    """Port of gRPC; 0 = any free port."""
    metrics_port: OptionalPort = 8082
    """Port of the metrics endpoint; 0 = any free port. The endpoint is always on `http_port` as
    well: None ("none" in a variable) or the value of `http_port` = only there."""
    root_path: RootPath = ""
    """Path prefix under which a reverse proxy publishes the REST routes."""
    http_workers: Count = 1
    """Processes that serve HTTP and gRPC on the same ports; above 1 requires `parallel_workers` >=
    1."""
    cors_settings: CORSSettings | None = None
    """Cross-origin requests to REST; None = not allowed."""
    gzip_enabled: bool = True
    """Compress REST responses for clients that accept gzip."""

    max_body_bytes: Count = 64 * 1024 * 1024
    """Bytes of one request, before and after decompression, over REST, gRPC and Kafka."""
    grpc_max_message_length: int | None = None
    """Bytes of one gRPC message; None = `max_body_bytes`, -1 = no limit."""
    request_timeout: Seconds | None = 300
    """Seconds from the arrival of a request to its response, time in the queue included; in a
    stream, to each response. None = no limit."""
    load_timeout: Seconds | None = 1800
    """Seconds that loading a model may take, downloads included, and as many for building or
    unpacking its environment; None = no limit."""
    unload_timeout: Seconds | None = 60
    """Seconds that unloading a model may take in a worker, the end of its plain functions included;
    None = no limit."""
    max_queue_size: Count = 1000
    """Requests in the queue of one model; the server rejects further ones with status 429."""
    max_inputs: Count = 10_000
    """Inputs of one request (columns, for a table), and the outputs that it requests."""
    shutdown_delay: SecondsOrNone = 0
    """Seconds after SIGTERM for which the server is not ready but still accepts connections: the
    time that a load balancer needs to notice."""
    drain_timeout: SecondsOrNone = 30
    """Seconds that open requests have to finish at shutdown."""
    header_timeout: Seconds = 10
    """Seconds within which the headers of an HTTP request must arrive, and a handshake must end: of
    TLS, and of a gRPC connection."""
    body_timeout: Seconds = 60
    """Seconds within which the body of an HTTP request must arrive."""
    keep_alive_timeout: Seconds = 75
    """Seconds after which an idle HTTP connection is closed."""
    max_connections: Count = 4096
    """Open HTTP connections, and as many of gRPC; further ones receive status 503, over gRPC they
    are closed."""
    grpc_max_connection_age: Seconds | None = None
    """Seconds after which a gRPC client is sent to a new connection (GOAWAY), give or take 10 %;
    calls and streams that are open finish on the old one. None = no limit."""
    validation_status: ValidationStatus = 400
    """HTTP status for a body that is JSON but not a valid request: 400, or 422 as in MLServer
    1.x."""
    not_ready_status: NotReadyStatus = 503
    """HTTP status for a request to a model that is loading or failed to load: 503, or 400 as in
    MLServer 1.x. Readiness endpoints are not affected."""

    tls: TLSSettings | None = None
    """Certificates of the HTTP, gRPC and metrics ports; None = no encryption."""
    auth: AuthSettings | None = None
    """API keys and tokens; None = inference, metadata and metrics are open to every client."""
    admin_access: AdminAccess | None = None
    """Clients that may load and unload models without an `admin` credential: `loopback` = programs
    on the same machine, `credential` = none, `any` = all, as in MLServer 1.x. None = `credential`
    if `auth` is set, else `loopback`. Behind a proxy on the same machine, use `credential`. A
    request with a credential is always judged by it."""
    admin_host: str = "127.0.0.1"
    """Address on which `admin_port` listens."""
    admin_port: Port | None = None
    """REST port to which loading and unloading models is limited; None = `http_port` and
    `grpc_port`."""
    production: bool = False
    """Enforce `allowed_runtimes` and `allowed_model_sources`, and load models that contain pickled
    or other code only if they are in `trusted_models`."""
    allowed_runtimes: list[str] | None = None
    """Import paths of runtime classes, or `package.` for all of a package; None = all, with
    `production` those of installed runtimes with hooks (entry points `mlserver.runtimes`)."""
    allowed_model_sources: list[str] | None = None
    """Folders and URI prefixes that models may be loaded from; None = all, with `production` the
    model repository."""
    trusted_models: list[str] = []
    """Models that may contain code with `production`: folders, or `sha256:` digests that `mlserver
    trust` prints."""

    strict_readiness: bool = True
    """The server is ready only while all its models are; false = while it accepts requests."""
    empty_registry_readiness: bool = True
    """Whether a server without models is ready."""

    console: bool = True
    """Whether to serve the console, a page for browsers, at `/console/`, and its data at
    `/v2/console/...`; with `production` only if `auth` is set."""
    metrics_endpoint: str | None = "/metrics"
    """Path of the metrics on `metrics_port` and `http_port`; None or "" = no metrics."""
    metrics_rest_server_prefix: str = "rest_server"
    """Prefix of the names of the REST metrics."""
    metrics_dir: str = DEFAULT_METRICS_DIR
    """Parent folder of the files in which worker processes store metrics declared with
    prometheus_client; not set = the folder for temporary files."""
    payload_log: PayloadLogSettings | None = None
    """Log of requests and responses, which may be personal data; None = only of models whose
    settings have one."""
    tracing_server: str | None = None
    """Address of the OpenTelemetry collector, `host:port` or a URL; None = that of the variable
    `OTEL_EXPORTER_OTLP_ENDPOINT`, without which there is no tracing. `OTEL_EXPORTER_OTLP_PROTOCOL`
    is `grpc` (default) or `http/protobuf`."""

    kafka_enabled: bool = False
    """Serve inference requests from a Kafka topic as well."""
    kafka_servers: str = "localhost:9092"
    """Bootstrap brokers, `host:port`, separated by commas."""
    kafka_topic_input: str = "mlserver-input"
    """Topic of the requests."""
    kafka_topic_output: str = "mlserver-output"
    """Topic of the responses."""
    kafka_group_id: str | None = None
    """Consumer group; its members share the partitions. None = `server_name`."""
    kafka_max_in_flight: Count = 256
    """Messages processed at a time; the consumer is paused while there are as many."""
    kafka_config: dict[str, Any] = {}
    """Further librdkafka properties, such as `security.protocol`. The prefix `consumer.` or
    `producer.` limits a property to that client."""

    cache_enabled: bool = False
    """Cache the responses of models whose own `cache_enabled` is true."""
    cache_size: int = 100
    """Responses in the cache."""
    cache_max_bytes: Count = 128 * 1024 * 1024
    """Bytes of responses in the cache; the least recently used are evicted."""

    _custom_rest_server_settings: dict[str, Any] | None = PrivateAttr(default=None)
    _custom_metrics_server_settings: dict[str, Any] | None = PrivateAttr(default=None)
    _custom_grpc_server_settings: dict[str, Any] | None = PrivateAttr(default=None)

    @property
    def has_metrics_port(self) -> bool:
        """Whether the metrics endpoint has its own port."""
        port = self.metrics_port
        shares_http_port = port == self.http_port and port != 0  # 0: a free port for each
        return bool(self.metrics_endpoint) and port is not None and not shares_http_port

    @property
    def has_console(self) -> bool:
        """Whether the console is served."""
        return self.console and (not self.production or self.auth is not None)

    @property
    def repository_class(self) -> type[Any] | None:
        """Class of `model_repository_implementation`, imported on access; None = not set."""
        path = self.model_repository_implementation
        if path is None or inspect.isclass(path):  # attribute assignment is not validated
            return path
        local_class = self._classes.get("model_repository_implementation")
        return local_class or model_imports.import_class(
            path, None, "model_repository_implementation"
        )


class ModelSettings(BaseSettings):
    """Settings of one version of a model. Environment variables: `MLSERVER_MODEL_` and the name."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX_MODEL_SETTINGS)
    _import_paths: ClassVar[tuple[str, ...]] = ("implementation",)

    implementation_: str = Field(alias="implementation")
    """Import path of the runtime class, `package.module.Class` (in code, also a class).
    Required."""
    name: str = ""
    """Name of the model; "" = the name of the folder."""
    platform: str = ""
    """Platform in the model's metadata."""
    versions: list[str] = []
    """Versions in the model's metadata."""
    inputs: list[MetadataTensor] = []
    """Input tensors in the model's metadata; their content types are the defaults of requests."""
    outputs: list[MetadataTensor] = []
    """Output tensors in the model's metadata; their content types are the defaults of responses."""

    max_batch_size: int = 0
    """Requests joined into one batch; 0 or 1 = no batching."""
    max_batch_time: float = 0.0
    """Seconds that a batch waits for more requests; 0 = no batching."""
    max_concurrency: Count | None = None
    """Calls that run at a time in each worker: 1 = one after the other, for models that are not
    thread-safe. None = 40 for a runtime whose `predict` is a plain function (run in threads), 64
    for a coroutine (run on the event loop), or what the runtime chooses."""
    request_timeout: Seconds | None = None
    """Seconds from the arrival of a request to its response; None = the server's
    `request_timeout`."""
    max_queue_size: Count | None = None
    """Requests in the model's queue; None = the server's `max_queue_size`."""
    cache_enabled: bool = False
    """Cache responses, if the server's `cache_enabled` is true as well."""

    payload_log: PayloadLogSettings | None = None
    """Log of the model's requests and responses; its keys override those of the server's
    `payload_log`. None = the server's."""
    parallel_workers: int | None = None
    """0 or less = run in the server's process; other values are ignored (deprecated in MLServer
    1.x)."""
    warm_workers: bool = False
    """Ignored (deprecated in MLServer 1.x)."""
    ray: ModelRaySettings | None = None
    """Replicas of the model in a Ray cluster; None = the defaults. Not for the engine `local`."""
    parameters: ModelParameters | None = None
    """Location and execution of the model; None = as the folder and the environment variables
    say."""

    @classmethod
    def load(cls, values: dict[str, Any] | None = None, source: str | None = None) -> Self:
        settings = super().load(values, source)
        if settings.parameters is not None:
            warn_of_misspelled(ModelParameters, settings.parameters.model_extra or (), source)
        return settings

    @property
    def version(self) -> str | None:
        return self.parameters.version if self.parameters else None

    @property
    def folder(self) -> str | None:
        """Folder of the settings file; None for settings from code or the environment."""
        return os.path.dirname(os.path.abspath(self._source)) if self._source else None

    @property
    def implementation(self) -> Any:
        """The runtime class, imported on access: use only in the process that runs the model.

        Raises:
            SettingsError: the module or the class does not exist.
        """
        local_class = self._classes.get("implementation")
        return local_class or model_imports.import_class(
            self.implementation_, self.folder, f"model '{self.name}': implementation"
        )

    @implementation.setter
    def implementation(self, value: Any) -> None:
        is_class = inspect.isclass(value)
        self._classes = {"implementation": value} if is_class else {}
        self.implementation_ = model_imports.get_import_path(value) if is_class else str(value)
