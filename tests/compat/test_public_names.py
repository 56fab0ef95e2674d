"""The names that programs for MLServer 1.x import, each in its module of 1.x."""

from __future__ import annotations

import importlib

import pytest

NAMES: dict[str, str] = {
    "mlserver": "__version__ MLServer MLModel Settings ModelSettings register log",
    "mlserver.types": (
        "MetadataServerResponse MetadataServerErrorResponse Datatype MetadataTensor MetadataModelErrorResponse Parameters "
        "TensorData RequestOutput ResponseOutput InferenceResponse InferenceErrorResponse MetadataModelResponse RequestInput "
        "InferenceRequest RepositoryIndexRequest RepositoryIndexResponseItem State RepositoryIndexResponse "
        "RepositoryLoadErrorResponse RepositoryUnloadErrorResponse"
    ),
    "mlserver.types.base": "BaseModel",
    "mlserver.types.dataplane": "InferenceRequest InferenceResponse RequestInput ResponseOutput RequestOutput Parameters TensorData",
    "mlserver.types.model_repository": "RepositoryIndexRequest RepositoryIndexResponse RepositoryIndexResponseItem State",
    "mlserver.codecs": (
        "CodecError NumpyCodec NumpyRequestCodec StringCodec StringRequestCodec Base64Codec DatetimeCodec PandasCodec InputCodec "
        "InputCodecLike RequestCodec RequestCodecLike DecodedParameterName register_input_codec register_request_codec "
        "has_decoded get_decoded get_decoded_or_raw encode_inference_response encode_response_output decode_request_input "
        "decode_inference_request decode_args"
    ),
    "mlserver.codecs.base": (
        "InputCodec RequestCodec InputCodecLike RequestCodecLike register_input_codec register_request_codec find_input_codec "
        "find_input_codec_by_payload find_input_codec_by_type_hint find_request_codec find_request_codec_by_payload "
        "find_request_codec_by_type_hint deprecated"
    ),
    "mlserver.codecs.utils": (
        "SingleInputRequestCodec InputOrOutput Codec Parametrised inject_batch_dimension DefaultOutputPrefix DefaultInputPrefix "
        "has_decoded get_decoded get_decoded_or_raw _save_decoded"
    ),
    "mlserver.codecs.numpy": "NumpyCodec NumpyRequestCodec to_datatype to_dtype convert_nan _to_ndarray _encode_data",
    "mlserver.codecs.string": "StringCodec StringRequestCodec encode_str decode_str",
    "mlserver.codecs.lists": "is_list_of as_list ListElement",
    "mlserver.codecs.json": (
        "encode_to_json_bytes decode_from_bytelike_json_to_dict JSONEncoderWithArray encode_to_json decode_json_input_or_output"
    ),
    "mlserver.codecs.pandas": "PandasCodec",
    "mlserver.codecs.base64": "Base64Codec",
    "mlserver.codecs.datetime": "DatetimeCodec",
    "mlserver.codecs.decorator": "SignatureCodec decode_args",
    "mlserver.codecs.errors": "CodecNotFound CodecError OutputNotFound InputsNotFound",
    "mlserver.errors": (
        "MLServerError InvalidModelURI ModelNotFound ModelNotReady InferenceError ModelParametersMissing "
        "ModelLoadError ModelUnloadError"
    ),
    "mlserver.handlers": "DataPlane ModelRepositoryHandlers get_custom_handlers custom_handler",
    "mlserver.handlers.custom": "CustomHandler custom_handler get_custom_handlers register_custom_handler",
    "mlserver.utils": (
        "get_model_uri to_absolute_path generate_uuid insert_headers extract_headers get_wrapped_method schedule_with_callback "
        "AsyncManager EventLoopBackend install_uvloop_event_loop"
    ),
    "mlserver.logging": "logger get_logger configure_logger apply_logging_file ModelLoggerFormatter LoggerName",
    "mlserver.metrics": "MetricsServer configure_metrics register log REGISTRY",
    "mlserver.metrics.registry": "MetricsRegistry REGISTRY",
    "mlserver.metrics.errors": "InvalidModelContext MetricNotFound",
    "mlserver.context": "model_context model_name_var model_version_var",
    "mlserver.settings": (
        "Settings ModelSettings ModelParameters CORSSettings BaseSettings ENV_FILE_SETTINGS ENV_PREFIX_SETTINGS "
        "ENV_PREFIX_MODEL_SETTINGS DEFAULT_PARALLEL_WORKERS DEFAULT_ENVIRONMENTS_DIR DEFAULT_METRICS_DIR"
    ),
    "mlserver.repository": "ModelRepository SchemalessModelRepository ModelRepositoryFactory DEFAULT_MODEL_SETTINGS_FILENAME",
    "mlserver.repository.load": "load_model_settings",
    "mlserver.grpc": "GRPCServer",
    "mlserver.grpc.dataplane_pb2": "ModelInferRequest ModelInferResponse InferTensorContents InferParameter",
    "mlserver.grpc.dataplane_pb2_grpc": "GRPCInferenceServiceStub GRPCInferenceServiceServicer",
    "mlserver.grpc.model_repository_pb2": "RepositoryIndexRequest",
    "mlserver.grpc.model_repository_pb2_grpc": "ModelRepositoryServiceStub",
    "mlserver.grpc.converters": "",
    "mlserver.cli": "main",
    "mlserver.cli.serve": "load_settings DEFAULT_SETTINGS_FILENAME",
    "mlserver.registry": "MultiModelRegistry SingleModelRegistry model_initialiser",
    "mlserver.cloudevents": (
        "CLOUDEVENTS_HEADER_SPECVERSION CLOUDEVENTS_HEADER_SPECVERSION_DEFAULT CLOUDEVENTS_HEADER_SOURCE CLOUDEVENTS_HEADER_TYPE "
        "CLOUDEVENTS_HEADER_ID CLOUDEVENTS_HEADER_REQUEST_ID CLOUDEVENTS_HEADER_MODEL_ID CLOUDEVENTS_HEADER_INFERENCE_SERVICE "
        "CLOUDEVENTS_HEADER_NAMESPACE CLOUDEVENTS_HEADER_ENDPOINT CloudEventsTypes CloudEventsMiddleware get_namespace"
    ),
    "mlserver.middleware": "InferenceMiddleware InferenceMiddlewares",
    "mlserver.batching": "AdaptiveBatcher load_batching BatchedRequests",
    "mlserver.parallel": "InferencePoolRegistry configure_inference_pool Worker",
    "mlserver.cache": "ResponseCache LocalCache",
    "mlserver.kafka": "KafkaServer",
    "mlserver.rest": "RESTServer",
    "mlserver.rest.responses": "Response ServerSentEvent",
    "mlserver.raw": "pack unpack inject_raw extract_raw",
    "mlserver.env": "Environment compute_hash_of_file compute_hash_of_string",
    "mlserver.tracing": "get_tracer_provider",
    "mlserver_mlflow": "MLflowRuntime",
}


@pytest.mark.parametrize("module", NAMES)
def test_public_names(module: str) -> None:
    actual = importlib.import_module(module)
    missing = [name for name in NAMES[module].split() if not hasattr(actual, name)]
    assert not missing


def test_the_package_lists_its_names() -> None:
    import mlserver

    assert set(NAMES["mlserver"].split()) <= {*dir(mlserver)}
    assert not hasattr(mlserver, "no_such_name")
