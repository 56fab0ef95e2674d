"""Strict JSON schemas of the kinds in deploy/ that are not Kubernetes' own.

Each has the fields that our files use, as the public custom resource definitions and references of
KServe, KubeRay, KEDA, the Prometheus operator, kustomize, Compose, Prometheus and Grafana describe
them. A new field of a manifest needs a line here.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
BOOLEAN: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
DURATION: Schema = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}
# The syntax of names of services, ports and objects (RFC 1123 label).
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}


def fields(required: str = "", **properties: Schema) -> Schema:
    """An object with these properties and no others; `required` lists names."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": required.split(),
    }


def list_of(item: Schema, least: int = 1) -> Schema:
    """A list without equal items."""
    return {"type": "array", "items": item, "minItems": least, "uniqueItems": True}


def one_of(*values: Any) -> Schema:
    """One of these values."""
    return {"enum": list(values)}


def map_of(value: Schema) -> Schema:
    """An object whose keys are the user's names."""
    return {"type": "object", "additionalProperties": value, "minProperties": 1}


def resource(api: str, kind: str, spec: Schema) -> Schema:
    """A resource of a cluster with a spec."""
    metadata = fields("name", name=NAME, labels=TEXTS, annotations=TEXTS)
    return fields(
        "apiVersion kind metadata spec",
        apiVersion=one_of(api),
        kind=one_of(kind),
        metadata=metadata,
        spec=spec,
    )


PROTOCOL = one_of("v1", "v2", "grpc-v1", "grpc-v2")
SERVING_RUNTIME = fields(
    "supportedModelFormats containers",
    annotations=TEXTS,
    supportedModelFormats=list_of(
        fields(
            "name",
            name=TEXT,
            version={"type": "string", "pattern": r"^\d+(\.\d+){0,2}$"},
            autoSelect=BOOLEAN,
            priority={"type": "integer", "minimum": 1},
        )
    ),
    protocolVersions=list_of(PROTOCOL),
    # Validated as parts of a pod too (`manifests.validate`).
    containers=list_of({"type": "object"}),
    volumes=list_of({"type": "object"}),
)
INFERENCE_SERVICE = fields(
    "predictor",
    predictor=fields(
        "model",
        model=fields(
            "modelFormat storageUri",
            modelFormat=fields("name", name=TEXT, version=TEXT),
            runtime=NAME,
            protocolVersion=PROTOCOL,
            storageUri={"type": "string", "pattern": "^(s3|gs|oci|pvc|hf|https?)://.+"},
            ports=list_of(
                fields(
                    "name containerPort protocol",
                    name=NAME,
                    containerPort={"type": "integer", "minimum": 1, "maximum": 65535},
                    protocol=one_of("TCP"),
                )
            ),
        ),
    ),
)
SCALED_OBJECT = fields(
    "scaleTargetRef triggers",
    scaleTargetRef=fields("name", name=NAME),
    minReplicaCount=COUNT,
    maxReplicaCount={"type": "integer", "minimum": 1},
    pollingInterval={"type": "integer", "minimum": 1},
    cooldownPeriod=COUNT,
    fallback=fields("failureThreshold replicas", failureThreshold=COUNT, replicas=COUNT),
    triggers=list_of(
        fields(
            "type metadata",
            type=one_of("prometheus"),
            metadata=fields(
                "serverAddress query threshold",
                serverAddress={"type": "string", "pattern": "^https?://"},
                query=TEXT,
                threshold={"type": "string", "pattern": r"^\d+(\.\d+)?$"},
            ),
        )
    ),
)
POD_MONITOR = fields(
    "selector podMetricsEndpoints",
    selector=fields("matchLabels", matchLabels=TEXTS),
    podMetricsEndpoints=list_of(
        fields("port", port=NAME, path=TEXT, interval=DURATION, scrapeTimeout=DURATION)
    ),
)
# Options of `ray start`. KubeRay accepts any, and Ray refuses an unknown one when the pod starts.
RAY_START_PARAMS = fields(
    "num-cpus object-store-memory metrics-export-port",
    **{
        "num-cpus": {"type": "string", "pattern": r"^\d+$"},
        "object-store-memory": {"type": "string", "pattern": r"^\d{8,}$"},
        "metrics-export-port": {"type": "string", "pattern": r"^\d{4,5}$"},
    },
)
# Its spec is validated as that of a pod too (`manifests.validate`).
POD_TEMPLATE = fields(
    "metadata spec", metadata=fields("labels", labels=TEXTS), spec={"type": "object"}
)
RAY_CLUSTER = fields(
    "rayVersion headGroupSpec workerGroupSpecs",
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=fields("mode", mode=one_of("disabled", "token")),
    headGroupSpec=fields(
        "rayStartParams template", rayStartParams=RAY_START_PARAMS, template=POD_TEMPLATE
    ),
    workerGroupSpecs=list_of(
        fields(
            "groupName replicas minReplicas maxReplicas rayStartParams template",
            groupName=NAME,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=RAY_START_PARAMS,
            template=POD_TEMPLATE,
        )
    ),
)
KUSTOMIZATION = fields(
    "apiVersion kind resources",
    apiVersion=one_of("kustomize.config.k8s.io/v1beta1"),
    kind=one_of("Kustomization"),
    namespace=NAME,
    resources=list_of(TEXT),
    images=list_of(fields("name", name=TEXT, newName=TEXT, newTag=TEXT)),
    replicas=list_of(fields("name count", name=NAME, count=COUNT)),
    patches=list_of(fields("path", path=TEXT)),
)

KIND_SCHEMAS: dict[tuple[Any, Any], Schema] = {
    (schema["properties"]["apiVersion"]["enum"][0], schema["properties"]["kind"]["enum"][0]): schema
    for schema in (
        resource("serving.kserve.io/v1alpha1", "ClusterServingRuntime", SERVING_RUNTIME),
        resource("serving.kserve.io/v1beta1", "InferenceService", INFERENCE_SERVICE),
        resource("keda.sh/v1alpha1", "ScaledObject", SCALED_OBJECT),
        resource("monitoring.coreos.com/v1", "PodMonitor", POD_MONITOR),
        resource("ray.io/v1", "RayCluster", RAY_CLUSTER),
        KUSTOMIZATION,
    )
}

ADAPTER_RULE = fields(
    "seriesQuery resources name metricsQuery",
    seriesQuery=TEXT,
    resources=fields("overrides", overrides=map_of(fields("resource", resource=TEXT))),
    name=fields("as", **{"as": TEXT}),
    metricsQuery=TEXT,
)

PORT_MAPPING: Schema = {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}
COMPOSE_SERVICE = fields(
    "image",
    image=TEXT,
    user={"type": "string", "pattern": r"^\d+:\d+$"},
    command=list_of(TEXT),
    environment=map_of({"type": "string"}),
    ports=list_of(PORT_MAPPING),
    volumes=list_of({"type": "string", "pattern": "^[^:]+(:-[^:]+)?:/[^:]+(:ro)?$"}),
    read_only=BOOLEAN,
    tmpfs=list_of(TEXT),
    cap_drop=list_of(one_of("ALL")),
    security_opt=list_of(one_of("no-new-privileges:true")),
    stop_grace_period=DURATION,
    restart=one_of("no", "always", "on-failure", "unless-stopped"),
    healthcheck=fields(
        "test",
        test=list_of(TEXT),
        interval=DURATION,
        timeout=DURATION,
        retries=COUNT,
        start_period=DURATION,
    ),
    depends_on=map_of(fields("condition", condition=one_of("service_started", "service_healthy"))),
)
COMPOSE = fields("services", name=NAME, services=map_of(COMPOSE_SERVICE), volumes=map_of(fields()))
PROMETHEUS = fields(
    "scrape_configs",
    **{
        "global": fields(scrape_interval=DURATION, evaluation_interval=DURATION),
        "rule_files": list_of(TEXT),
        "scrape_configs": list_of(
            fields(
                "job_name static_configs",
                job_name=TEXT,
                metrics_path=TEXT,
                static_configs=list_of(fields("targets", targets=list_of(TEXT))),
            )
        ),
    },
)
GRAFANA_DATASOURCES = fields(
    "apiVersion datasources",
    apiVersion=one_of(1),
    datasources=list_of(
        fields(
            "name type access url",
            name=TEXT,
            uid=TEXT,
            type=one_of("prometheus"),
            access=one_of("proxy"),
            url=TEXT,
            isDefault=BOOLEAN,
        )
    ),
)
GRAFANA_DASHBOARDS = fields(
    "apiVersion providers",
    apiVersion=one_of(1),
    providers=list_of(
        fields(
            "name type options", name=TEXT, type=one_of("file"), options=fields("path", path=TEXT)
        )
    ),
)

# Files without a kind, by their path in deploy/.
FILE_SCHEMAS: dict[str, Schema] = {
    "compose/compose.yaml": COMPOSE,
    "compose/prometheus.yaml": PROMETHEUS,
    "compose/grafana/datasource.yaml": GRAFANA_DATASOURCES,
    "compose/grafana/dashboards.yaml": GRAFANA_DASHBOARDS,
    "kubernetes/horizontalpodautoscaler/prometheus-adapter-values.yaml": fields(
        "rules", rules=fields("custom", custom=list_of(ADAPTER_RULE))
    ),
}
