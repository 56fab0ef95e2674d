"""The models other than wine as custom runtimes, for this server and for MLServer 1.x."""

from __future__ import annotations

from work import busy, row_sums, run, upper, wait

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class RowSums(MLModel):
    """FP32 [n, m] -> FP32 [n]."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("sum", row_sums(rows))]
        )


class Upper(MLModel):
    """BYTES [n] -> BYTES [n]."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = self.decode(payload.inputs[0], default_codec=StringCodec)
        return InferenceResponse(
            model_name=self.name, outputs=[StringCodec.encode_output("upper", upper(texts))]
        )


class Busy(MLModel):
    """FP64 [n] -> the same, after 5 ms of Python."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = busy(self.decode(payload.inputs[0], default_codec=NumpyCodec))
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("same", values)]
        )


class Wait(MLModel):
    """FP64 [n] -> the same, after 20 ms without the GIL; as a plain function, in threads."""

    def predict(  # type: ignore[override]
        self, payload: InferenceRequest
    ) -> InferenceResponse:
        values = wait(self.decode(payload.inputs[0], default_codec=NumpyCodec))
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("same", values)]
        )


class WaitInThread(MLModel):
    """The same for MLServer 1.x, which runs coroutine functions only."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output("same", await run("wait", values))],
        )
