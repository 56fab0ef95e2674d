"""The settings of the server and of a model: every field, its default, its unit, and the order of the sources.

A value given in code or in a file beats an environment variable, which beats `.env` in the current folder, which
beats the default; objects are merged key by key. What all settings share is in `settings_base`.
"""

from __future__ import annotations

import inspect
import os
import uuid
from typing import Any, ClassVar, Self

from pydantic import Field, PrivateAttr
from pydantic_settings import SettingsConfigDict

from .. import model_imports
from ..errors import SettingsError
from ..types import MetadataTensor
from ..version import __version__
from .base import (
    ENV_FILE_SETTINGS,
    BaseSettings,
    Count,
    LogLevel,
    NotReadyStatus,
    OptionalPort,
    Port,
    Seconds,
    SecondsOrNone,
    ValidationStatus,
)
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

ENV_PREFIX_SETTINGS = "MLSERVER_"
ENV_PREFIX_MODEL_SETTINGS = "MLSERVER_MODEL_"

DEFAULT_PARALLEL_WORKERS = 1
DEFAULT_ENVIRONMENTS_DIR = os.path.join(os.getcwd(), ".envs")
DEFAULT_METRICS_DIR = os.path.join(os.getcwd(), ".metrics")


class CORSSettings(BaseSettings):
    """Cross-origin requests; see the settings of the same names of any CORS middleware."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX_SETTINGS)

    allow_origins: list[str] = []
    allow_origin_regex: str | None = None
    allow_credentials: bool = False
    allow_methods: list[str] = ["GET"]
    allow_headers: list[str] = []
    expose_headers: list[str] = []
    max_age: int = 600
    """Seconds for which a browser may keep the answer."""


class Settings(BaseSettings):
    """The server. Environment variables are `MLSERVER_` and the field's name."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX_SETTINGS)
    _import_paths: ClassVar[tuple[str, ...]] = ("model_repository_implementation",)

    debug: bool = False
    """Debug logs and access logs. Never changes what a caller sees."""
    log_level: LogLevel | None = None
    """CRITICAL, ERROR, WARNING, INFO or DEBUG; None = DEBUG with `debug`, else INFO."""
    access_log: bool | None = None
    """A log line per request; None = with `debug` only."""
    use_structured_logging: bool = False
    """Log lines are JSON objects."""
    logging_settings: str | dict[str, Any] | None = None
    """Python logging configuration: an object, a `.json` file with one, or a file in the configparser format."""

    parallel_workers: int = DEFAULT_PARALLEL_WORKERS
    """Worker processes per pool; 0 = models run in a thread of the server's own process."""
    parallel_workers_timeout: int = 5
    """Seconds to wait for a worker at shutdown before it is killed."""
    environments_dir: str = DEFAULT_ENVIRONMENTS_DIR
    """Folder where the environments of models are unpacked."""

    model_repository_implementation: str | None = None
    """Import path of the repository class (a class is taken too); None = the one that reads folders."""
    model_repository_root: str = "."
    """Folder with the models; `mlserver start FOLDER` sets it."""
    model_repository_implementation_args: dict[str, Any] = {}
    """Further arguments of the repository class."""
    load_models_at_startup: bool = True
    default_model: str | None = None
    """Model that answers on routes that name none; None = the only one, if there is only one."""

    server_name: str = "mlserver"
    server_version: str = __version__
    extensions: list[str] = []
    """Extensions that the server's metadata lists beside its own."""

    host: str = "0.0.0.0"
    """Address of all ports."""
    http_port: Port = 8080
    """0 = any free port; so for the other two."""
    grpc_port: Port = 8081
    metrics_port: OptionalPort = 8082
    """Port of the metrics page; None ("none" in a variable), or the same as `http_port` = on `http_port` alone, where
    the page is in any case."""
    root_path: str = ""
    """Prefix under which a proxy publishes the REST routes."""
    http_workers: Count = 1
    """Processes that speak HTTP and gRPC, on the same ports; more than 1 needs `parallel_workers` of 1 or more."""
    cors_settings: CORSSettings | None = None
    """None = no cross-origin requests."""
    gzip_enabled: bool = True
    """Compress responses for clients that accept it."""

    max_body_bytes: Count = 64 * 1024 * 1024
    """Bytes in one request, before and after decompression, over REST and gRPC."""
    grpc_max_message_length: int | None = None
    """Bytes in one gRPC message; None = `max_body_bytes`, -1 = no limit."""
    request_timeout: Seconds | None = 300
    """Seconds from a request's arrival to its answer, queue included; in a stream, to each answer. None = no limit."""
    load_timeout: Seconds | None = 1800
    """Seconds that the load of a model may take, downloads included; None = no limit."""
    max_queue_size: Count = 1000
    """Requests that may wait for one model; more are refused at once."""
    max_inputs: Count = 10_000
    """Inputs (for a table, columns) of one request."""
    shutdown_delay: SecondsOrNone = 0
    """Seconds of service after SIGTERM, not ready, before the server takes no more connections."""
    drain_timeout: SecondsOrNone = 30
    """Seconds that open requests get to finish at shutdown."""
    header_timeout: Seconds = 10
    """Seconds in which a request's headers must arrive."""
    body_timeout: Seconds = 60
    """Seconds in which a request's body must arrive."""
    keep_alive_timeout: Seconds = 75
    """Seconds that an idle connection stays open."""
    max_connections: Count = 4096
    """Open HTTP connections; more are refused."""
    validation_status: ValidationStatus = 400
    """Status for a body that is JSON, but not a request: 400, or 422 as MLServer 1.x answered."""

    not_ready_status: NotReadyStatus = 503
    """Status over REST of a request for a model that is loading or could not be loaded: 503, or 400 as MLServer 1.x
    answered. Readiness is not concerned."""

    tls: TLSSettings | None = None
    """Certificates of all ports; None = no encryption."""
    auth: AuthSettings | None = None
    """API keys and tokens; None = whoever reaches a port may ask models, see metadata and metrics."""
    admin_access: AdminAccess | None = None
    """Who may load and unload models without an `admin` credential: programs on this machine (`loopback`), nobody
    (`credential`), or everybody (`any`, as MLServer 1.x). None = `credential` if `auth` is set, else `loopback`.
    Behind a proxy on the same machine, use `credential`. A request that shows a credential is judged by it."""
    admin_host: str = "127.0.0.1"
    """Address of `admin_port`."""
    admin_port: Port | None = None
    """Port for REST on which alone models are loaded and unloaded; None = on `http_port` and `grpc_port`."""
    production: bool = False
    """Run only what is listed: the three settings below, and no model that is stored as pickle unless it is trusted."""
    allowed_runtimes: list[str] | None = None
    """Import paths of runtimes, `package.` = all of a package; None = all, with `production` MLflow's."""
    allowed_model_sources: list[str] | None = None
    """Where models may come from: folders, or the beginnings of addresses; None = anywhere, with `production` the repository."""
    trusted_models: list[str] = []
    """Models that may be stored as pickle though `production` is set: folders, or `sha256:` digests of `mlserver trust`."""

    strict_readiness: bool = True
    """The server is ready only while every model that should serve is; false = while it can take requests."""
    empty_registry_readiness: bool = True
    """Whether a server without models is ready."""

    metrics_endpoint: str | None = "/metrics"
    """Path of the metrics on `metrics_port` and `http_port`; None or "" = no metrics at all."""
    metrics_rest_server_prefix: str = "rest_server"
    """First part of the names of the REST metrics."""
    metrics_dir: str = DEFAULT_METRICS_DIR
    """Where the folder for metrics that models declare with prometheus_client is made; not set = among temporary ones."""
    tracing_server: str | None = None
    """OpenTelemetry collector (OTLP over gRPC) that gets the traces; None = no tracing."""

    kafka_enabled: bool = False
    """Answer the messages of a Kafka topic as well."""
    kafka_servers: str = "localhost:9092"
    """Brokers to start from, `host:port`, separated by commas."""
    kafka_topic_input: str = "mlserver-input"
    kafka_topic_output: str = "mlserver-output"
    kafka_group_id: str | None = None
    """Consumer group whose members share the messages; None = `server_name`."""
    kafka_max_in_flight: Count = 256
    """Messages that are answered at a time; while there are as many, no more are taken."""
    kafka_config: dict[str, Any] = {}
    """Further properties of librdkafka (`security.protocol`, ...); `consumer.` or `producer.` before a name = only there."""

    cache_enabled: bool = False
    """Remember responses of models whose own `cache_enabled` is true."""
    cache_size: int = 100
    """Responses to remember."""
    cache_max_bytes: Count = 128 * 1024 * 1024
    """Bytes of responses to remember; what was not asked for the longest time goes first."""

    _custom_rest_server_settings: dict[str, Any] | None = PrivateAttr(default=None)
    _custom_metrics_server_settings: dict[str, Any] | None = PrivateAttr(default=None)
    _custom_grpc_server_settings: dict[str, Any] | None = PrivateAttr(default=None)

    @property
    def has_metrics_port(self) -> bool:
        """Whether the metrics page has a port of its own."""
        port = self.metrics_port
        shares_http_port = port == self.http_port and port != 0  # 0 = any free one, for each
        return bool(self.metrics_endpoint) and port is not None and not shares_http_port

    @property
    def repository_class(self) -> type[Any] | None:
        """The class of `model_repository_implementation`, imported now; None = none is set."""
        path = self.model_repository_implementation
        if path is None or inspect.isclass(path):  # a class may have been assigned
            return path
        given = self._classes.get("model_repository_implementation")
        return given or model_imports.load(path, None, "model_repository_implementation")


class ModelParameters(BaseSettings):
    """Where a model's files are and how to run it. Any further key is kept, for the runtime to read.

    Environment variables are `MLSERVER_MODEL_` and the field's name; they reach every model that leaves the key out.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX_MODEL_SETTINGS, extra="allow")

    uri: str | None = None
    """File, folder or address of the model; relative paths start at the settings file's folder."""
    version: str | None = None
    environment_path: str | None = None
    """Folder of the Python environment to run in; None = the server's own."""
    environment_tarball: str | None = None
    """Packed Python environment, unpacked into `environments_dir`."""
    inference_pool_gid: str | None = None
    """Models with the same one share a pool of workers, and with no other model."""
    autogenerate_inference_pool_gid: bool = False
    """Give the model a pool of its own, if `inference_pool_gid` is not set."""
    format: str | None = None
    """Format of the model's file, where a runtime knows several."""
    content_type: str | None = None
    """Content type of requests that name none."""
    extra: dict[str, Any] = {}
    """Settings of the runtime."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.autogenerate_inference_pool_gid and self.inference_pool_gid is None:
            self.inference_pool_gid = str(uuid.uuid4())


class ModelSettings(BaseSettings):
    """One version of a model. Environment variables are `MLSERVER_MODEL_` and the field's name."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX_MODEL_SETTINGS)
    _import_paths: ClassVar[tuple[str, ...]] = ("implementation",)

    implementation_: str = Field(alias="implementation")
    """Import path of the runtime class, `package.module.Class`; a class is taken too."""
    name: str = ""
    platform: str = ""
    versions: list[str] = []
    inputs: list[MetadataTensor] = []
    outputs: list[MetadataTensor] = []

    max_batch_size: int = 0
    """Requests joined into one batch; up to 1 = no batching."""
    max_batch_time: float = 0.0
    """Seconds that a batch waits for more requests; 0 = no batching."""
    request_timeout: Seconds | None = None
    """Seconds from a request's arrival to its answer; None = the server's."""
    max_queue_size: Count | None = None
    """Requests that may wait for this model; None = the server's."""
    cache_enabled: bool = False
    """Remember responses, if the server's `cache_enabled` is true as well."""

    parallel_workers: int | None = None
    """Up to 0 = run in the server's own process; other numbers are ignored (deprecated in MLServer 1.x)."""
    warm_workers: bool = False
    """Ignored (deprecated in MLServer 1.x)."""
    parameters: ModelParameters | None = None

    @classmethod
    def load(cls, values: dict[str, Any] | None = None, source: str | None = None) -> Self:
        made = super().load(values, source)
        if made.parameters is not None:
            warn_of_misspelled(ModelParameters, made.parameters.model_extra or (), source)
        return made

    @property
    def version(self) -> str | None:
        return self.parameters.version if self.parameters else None

    @property
    def folder(self) -> str | None:
        """Folder of the file that these settings came from."""
        return os.path.dirname(os.path.abspath(self._source)) if self._source else None

    @property
    def implementation(self) -> Any:
        """The runtime class. Reading this imports the model's code: for the process that runs the model only.

        Raises:
            SettingsError: There is no such module or class.
        """
        given = self._classes.get("implementation")
        return given or model_imports.load(
            self.implementation_, self.folder, f"model '{self.name}': implementation"
        )

    @implementation.setter
    def implementation(self, value: Any) -> None:
        self._classes = {"implementation": value} if inspect.isclass(value) else {}
        self.implementation_ = (
            model_imports.path_of(value) if inspect.isclass(value) else str(value)
        )
