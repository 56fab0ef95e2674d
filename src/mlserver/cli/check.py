"""`mlserver check`: check settings, load and one prediction of every model of a folder."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

import click

from ..errors import MLServerError, Unavailable
from ..known_faults import find_faults
from ..logging import configure_logger
from ..parallel.executor import Executor, LoadedModel
from ..parallel.pool_manager import PoolExecutor
from ..pipeline import RequestContext
from ..repository import ModelRepositoryFactory
from ..repository.folders import SAMPLE_REQUEST_FILENAME
from ..settings import ModelSettings, Settings
from ..startup_report import add_cure
from ..types import InferenceResponse
from . import requirements, sample_requests
from .hints import HintCollector
from .serve import prepare_settings, run_event_loop
from .terminal import CommandError, show_status
from .text_table import format_table, get_width


@dataclass
class CheckResult:
    """Result of checking one model.

    Attributes:
        error: Why the model cannot be served; "" = it can.
        load: Duration of the load; "" = it failed.
        inference: Duration of the inference request; "" = it failed, or there was none.
        facts: Successful steps.
        notes: Warnings for the user.
    """

    name: str
    error: str = ""
    load: str = ""
    inference: str = ""
    facts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@click.command(
    name="check", short_help="Load every model of a folder and run inference, without a server."
)
@click.argument("model", metavar="[FOLDER|URI]", default=".", type=click.Path())
@click.option(
    "--timeout",
    default=300.0,
    show_default=True,
    help="Maximum seconds for a model's load, and for its prediction.",
)
@click.option("--no-predict", is_flag=True, help="Load the models, but run no inference.")
@click.option(
    "--strict",
    is_flag=True,
    help="Treat notes, such as missing requirements, as failures.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print the log of the models.")
def command(model: str, timeout: float, no_predict: bool, strict: bool, verbose: bool) -> None:
    """Check that the models of FOLDER, or the model at URI, can be served: their settings are
    valid, each loads in a worker process, and each answers an inference request.

    The request is sample-request.json beside the model's settings; else the input example of an
    MLflow model; else synthetic data for the inputs in the model's metadata. A model that rejects
    synthetic data gets a note, not a failure. Exit code 0: all models can be served.

    \b
    Examples:
      mlserver check models
      mlserver check models:/wine@champion --strict
    """
    hints = HintCollector()
    with hints:
        settings = prepare_settings(model)
    settings.parallel_workers = 1
    settings.log_level = (settings.log_level or "DEBUG") if verbose else "CRITICAL"
    configure_logger(settings)
    hints.add(find_faults())
    results: list[CheckResult] = []

    async def check_all() -> None:
        results.extend(await check_models(settings, timeout, not no_predict, hints))

    run_event_loop(check_all())
    failed = [result.name for result in results if result.error or (strict and result.notes)]
    if not results:
        raise CommandError(f"{model}: no models found")
    count = _count_models(len(results))
    click.echo(f"\n{_format_table(results)}\n")
    if failed:
        raise CommandError(f"{len(failed)} of {count} failed: {', '.join(failed)}")
    click.echo(f"{count}: ready to serve")


async def check_models(
    settings: Settings, timeout: float, predict: bool, hints: HintCollector
) -> list[CheckResult]:
    """Check all models of the repository, one after another, in a worker process like the server's.

    Each result is printed as soon as it is known.

    Raises:
        MLServerError: the repository cannot be read, or no worker process can be started.
    """
    repository = ModelRepositoryFactory.resolve_model_repository(settings)
    repository.logs_problems = False
    with hints:
        models = await repository.list()
    for hint in hints.texts:
        click.echo(f"hint: {hint}")
    results = [CheckResult(name, error=reason) for name, reason in repository.problems.items()]
    for result in results:
        print_result(result)
    executor = PoolExecutor(settings)
    await executor.start()
    try:
        for number, model in enumerate(models, 1):
            label = f"{model.name} ({model.version})" if model.version else model.name
            result = CheckResult(label)
            results.append(result)
            with show_status(f"{label} ({number} of {len(models)}): loading ..."):
                await _check_model(executor, model, result, timeout, predict)
            print_result(result)
    finally:
        await executor.stop(1.0)
    return results


async def _check_model(
    executor: Executor, model: ModelSettings, result: CheckResult, timeout: float, predict: bool
) -> None:
    result.notes += _find_unmet_requirements(model)
    step = "load"
    try:
        async with asyncio.timeout(timeout):
            loaded = await executor.load(model)
        result.load = f"{loaded.info.load_seconds:.2f} s"
        result.facts.append(f"loaded in {result.load}")
        if not loaded.info.ready:
            result.error = "load() returned False"
        else:
            step = "inference"
        if predict and not result.error:
            async with asyncio.timeout(timeout):
                await _predict(loaded, model, result)
        await loaded.unload()
    except TimeoutError:
        result.error = f"{step} exceeded {timeout:g} s (option --timeout)"
    except MLServerError as error:
        result.error = error.message
    if step == "load" and result.error:
        result.error = add_cure(result.error)


def _find_unmet_requirements(model: ModelSettings) -> list[str]:
    if _has_environment(model):
        return []
    unmet = []
    for path in requirements.find_files(model):
        name = os.path.basename(path)
        unmet += [f"{name}: {line}" for line in requirements.find_unmet(path)]
    return unmet


def _has_environment(model: ModelSettings) -> bool:
    """Return whether the model runs in an environment with packages of its own."""
    parameters = model.parameters
    if parameters is None:
        return False
    has_path = bool(parameters.environment_path or parameters.environment_tarball)
    return has_path or parameters.extra.get("env_manager", "local") != "local"


async def _predict(loaded: LoadedModel, model: ModelSettings, result: CheckResult) -> None:
    try:
        sample = sample_requests.find_sample(model, loaded.info)
    except MLServerError as error:
        result.error = error.message
        return
    if sample is None:
        result.notes.append(
            f"no inference: {SAMPLE_REQUEST_FILENAME} does not exist,"
            " and the model's metadata does not define inputs to synthesize"
        )
        return
    context = RequestContext()
    try:
        response = await loaded.infer(sample.request, context)
    except MLServerError as error:
        message = f"inference failed for {sample.origin}: {error.message}"
        if sample.is_synthetic and not isinstance(error, Unavailable):
            # Synthetic data may be invalid for the model, so a rejection proves nothing.
            hint = f"add {SAMPLE_REQUEST_FILENAME} to test with valid data"
            result.notes.append(f"{message} ({hint})")
        else:
            result.error = message
        return
    milliseconds = context.timings.model_ns / 1e6
    result.inference = f"{milliseconds:.1f} ms"
    outputs = _describe_outputs(response)
    result.facts.append(f"inference with {sample.origin} in {result.inference}: {outputs}")


def _describe_outputs(response: InferenceResponse) -> str:
    outputs = [
        f"{output.name} {output.datatype}{list(output.shape)}" for output in response.outputs
    ]
    return ", ".join(outputs) or "no outputs"


def print_result(result: CheckResult) -> None:
    """Print the result as a block of lines."""
    click.echo(f"{result.name}: {'FAILED' if result.error else 'ok'}")
    errors = [result.error] if result.error else []
    notes = [f"note: {note}" for note in result.notes]
    for text in (*result.facts, *errors, *notes):
        click.echo(f"  {' '.join(text.split())}")


def _format_table(results: list[CheckResult]) -> str:
    rows = [("model", "load", "inference", "result")]
    for result in results:
        state = "FAILED" if result.error else "ok"
        notes = f", {len(result.notes)} notes" if len(result.notes) > 1 else ", 1 note"
        state += notes if result.notes else ""
        rows.append((result.name, result.load or "-", result.inference or "-", state))
    return format_table(rows, get_width())


def _count_models(count: int) -> str:
    return "1 model" if count == 1 else f"{count} models"
