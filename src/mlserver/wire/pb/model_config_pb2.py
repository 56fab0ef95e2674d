"""Messages of model_config.proto. Written by `make proto`."""

from . import enum_type, file_descriptor, message_class

DESCRIPTOR = file_descriptor("model_config.proto")
ModelInput = message_class("inference.ModelInput")
ModelOutput = message_class("inference.ModelOutput")
ModelInstanceGroup = message_class("inference.ModelInstanceGroup")
ModelDynamicBatching = message_class("inference.ModelDynamicBatching")
ModelTransactionPolicy = message_class("inference.ModelTransactionPolicy")
ModelResponseCache = message_class("inference.ModelResponseCache")
ModelParameter = message_class("inference.ModelParameter")
ModelConfig = message_class("inference.ModelConfig")
DataType = enum_type("inference.DataType")
TYPE_INVALID = 0
TYPE_BOOL = 1
TYPE_UINT8 = 2
TYPE_UINT16 = 3
TYPE_UINT32 = 4
TYPE_UINT64 = 5
TYPE_INT8 = 6
TYPE_INT16 = 7
TYPE_INT32 = 8
TYPE_INT64 = 9
TYPE_FP16 = 10
TYPE_FP32 = 11
TYPE_FP64 = 12
TYPE_STRING = 13
TYPE_BF16 = 14
