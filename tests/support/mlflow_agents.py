"""Chat models and agents of MLflow, built in a child process: tests do not import MLflow.

`python -m support.mlflow_agents FOLDER` writes them; the fixture `agent_models` calls `build`.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from support.model_cache import build_once, run_builder

KINDS = ("chat", "plain", "agent", "responds", "whole")


def build() -> Path:
    """Return a model repository with a model of every kind, built once per machine."""
    return build_once(
        "agents", [Path(__file__)], lambda folder: run_builder("support.mlflow_agents", folder)
    )


# -- the builder process --


def models() -> dict[str, Any]:
    """Models that repeat the last message.

    Word by word if they stream, and failing at the word "fail".
    """
    from mlflow.pyfunc import ChatAgent, ChatModel, ResponsesAgent
    from mlflow.types.agent import ChatAgentChunk, ChatAgentMessage, ChatAgentResponse
    from mlflow.types.llm import (
        ChatChoice,
        ChatCompletionChunk,
        ChatCompletionResponse,
        ChatMessage,
    )
    from mlflow.types.responses import ResponsesAgentResponse, ResponsesAgentStreamEvent

    def words(text: str) -> Any:
        for word in text.split():
            if word == "fail":
                raise ValueError("not that word")
            yield word

    class Plain(ChatModel):  # type: ignore[misc]
        def predict(self, context, messages, params):  # type: ignore[no-untyped-def]
            text = f"{messages[-1].content} {params.temperature} {params.max_tokens} {params.stop}"
            message = ChatMessage(role="assistant", content=text)
            return ChatCompletionResponse(choices=[ChatChoice(message=message)])

    class Chat(Plain):
        def predict_stream(self, context, messages, params):  # type: ignore[no-untyped-def]
            for word in words(messages[-1].content):
                delta = {"role": "assistant", "content": word}
                yield ChatCompletionChunk.from_dict({"choices": [{"index": 0, "delta": delta}]})

    class Agent(ChatAgent):  # type: ignore[misc]
        def predict(self, messages, context=None, custom_inputs=None):  # type: ignore[no-untyped-def]
            tool = ChatAgentMessage(role="tool", content="42", id="1", name="t", tool_call_id="c")
            message = ChatAgentMessage(role="assistant", content=messages[-1].content, id="2")
            return ChatAgentResponse(messages=[tool, message])

        def predict_stream(self, messages, context=None, custom_inputs=None):  # type: ignore[no-untyped-def]
            tool = ChatAgentMessage(role="tool", content="42", id="1", name="t", tool_call_id="c")
            yield ChatAgentChunk(delta=tool)
            for word in words(messages[-1].content):
                yield ChatAgentChunk(delta=ChatAgentMessage(role="assistant", content=word, id="2"))

    class Whole(ResponsesAgent):  # type: ignore[misc]
        def predict(self, request):  # type: ignore[no-untyped-def]
            item = self.create_text_output_item(text=str(request.input[-1].content), id="1")
            return ResponsesAgentResponse(output=[item])

    class Responds(Whole):
        def predict_stream(self, request):  # type: ignore[no-untyped-def]
            for word in words(str(request.input[-1].content)):
                yield ResponsesAgentStreamEvent(**self.create_text_delta(delta=word, item_id="1"))

    return {
        "chat": Chat(),
        "plain": Plain(),
        "agent": Agent(),
        "responds": Responds(),
        "whole": Whole(),
    }


def save(folder: Path) -> None:
    import mlflow

    for name, model in models().items():
        (folder / name).mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.pyfunc.save_model(
                folder / name / "model", python_model=model, pip_requirements=["mlflow"]
            )
        settings = {
            "name": name,
            "implementation": "mlserver_mlflow.MLflowRuntime",
            "parameters": {"uri": "./model"},
        }
        (folder / name / "model-settings.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    save(Path(sys.argv[1]))
