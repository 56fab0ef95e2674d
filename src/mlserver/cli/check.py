"""`mlserver check`: settings, load and one prediction of every model of a folder, without serving anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import click

from ..errors import MLServerError, Unavailable
from ..logging import configure_logger
from ..parallel.executor import Executor, LoadedModel
from ..parallel.pool_manager import PoolExecutor
from ..pipeline import RequestContext
from ..repository import ModelRepositoryFactory
from ..settings import ModelSettings, Settings
from . import requirements, sample_requests
from .serve import prepare, run
from .terminal import CommandError


@dataclass
class Finding:
    """What was found out about one model.

    Attributes:
        problem: Why it would not serve; "" = it would.
        facts: What went well.
        notes: What the user should look at.
    """

    name: str
    problem: str = ""
    facts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@click.command(name="check", short_help="Try every model of a folder without serving it.")
@click.argument("model", metavar="FOLDER|URI", type=click.Path())
@click.option(
    "--timeout",
    default=300.0,
    show_default=True,
    help="Seconds for a model to load, and to answer.",
)
@click.option("--no-predict", is_flag=True, help="Load the models, but ask them nothing.")
@click.option(
    "--strict",
    is_flag=True,
    help="Notes, such as requirements that are not met, count as failures.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the log of the models.")
def command(model: str, timeout: float, no_predict: bool, strict: bool, verbose: bool) -> None:
    """Check that the models of FOLDER, or the one at URI, can be served: their settings, that each loads in a worker
    process, and that it answers a request.

    The request is sample-request.json beside the model's settings if there is one, else the input example of an MLflow
    model, else data made up from the inputs that the model names; made-up data that the model refuses is a note, no
    failure. Exit code 0: all would serve.
    """
    settings = prepare(model)
    settings.parallel_workers = 1
    settings.log_level = (settings.log_level or "DEBUG") if verbose else "CRITICAL"
    configure_logger(settings)
    findings: list[Finding] = []

    async def check_all() -> None:
        findings.extend(await check(settings, timeout, predict=not no_predict))

    run(check_all())
    for finding in findings:
        show(finding)
    failed = [each for each in findings if each.problem or (strict and each.notes)]
    if failed:
        raise CommandError(
            f"{len(failed)} of {_models(len(findings))} failed: {', '.join(each.name for each in failed)}"
        )
    if not findings:
        raise CommandError(f"{model}: no models found")
    click.echo(f"{_models(len(findings))}, all would serve")


async def check(settings: Settings, timeout: float, predict: bool) -> list[Finding]:
    """Check all models of the repository, one after another, in a worker process as the server's.

    Raises:
        MLServerError: The repository cannot be read, or no worker process can be started.
    """
    repository = ModelRepositoryFactory.resolve_model_repository(settings)
    models = await repository.list()
    findings = [Finding(name, problem=reason) for name, reason in repository.problems.items()]
    executor = PoolExecutor(settings)
    await executor.start()
    try:
        for model in models:
            finding = Finding(f"{model.name} ({model.version})" if model.version else model.name)
            findings.append(finding)
            await _check_model(executor, model, finding, timeout, predict)
    finally:
        await executor.stop(1.0)
    return findings


async def _check_model(
    executor: Executor, model: ModelSettings, finding: Finding, timeout: float, predict: bool
) -> None:
    finding.notes += _unmet(model)
    doing = "load"
    try:
        async with asyncio.timeout(timeout):
            loaded = await executor.load(model)
        finding.facts.append(f"loaded in {loaded.info.load_seconds:.2f} s")
        if not loaded.info.ready:
            finding.problem = "load() returned False"
        elif predict:
            doing = "answer"
            async with asyncio.timeout(timeout):
                await _predict(loaded, model, finding)
        await loaded.unload()
    except TimeoutError:
        finding.problem = f"it did not {doing} within {timeout:g} s"
    except MLServerError as error:
        finding.problem = error.message


def _unmet(model: ModelSettings) -> Iterable[str]:
    parameters = model.parameters
    if parameters is not None and (
        parameters.environment_path
        or parameters.environment_tarball
        or parameters.extra.get("env_manager", "local") != "local"
    ):
        return []  # it brings its own packages
    return [
        f"{os.path.basename(file)}: {line}"
        for file in requirements.files_of(model)
        for line in requirements.unmet(file)
    ]


async def _predict(loaded: LoadedModel, model: ModelSettings, finding: Finding) -> None:
    try:
        sample = sample_requests.of(model, loaded.info)
    except MLServerError as error:
        finding.problem = error.message
        return
    if sample is None:
        finding.notes.append(
            f"not asked: there is no {sample_requests.FILENAME}, and its inputs do not say what to ask"
        )
        return
    call = RequestContext()
    try:
        response = await loaded.infer(sample.request, call)
    except MLServerError as error:
        if sample.invented and not isinstance(error, Unavailable):
            # Made-up data need not make sense to the model, so a refusal says nothing about it.
            finding.notes.append(
                f"it refused {sample.origin}: {error.message} (a {sample_requests.FILENAME} beside its settings would be asked"
                " instead)"
            )
        else:
            finding.problem = f"it refused {sample.origin}: {error.message}"
        return
    outputs = (
        ", ".join(f"{each.name} {each.datatype}{list(each.shape)}" for each in response.outputs)
        or "nothing"
    )
    finding.facts.append(
        f"answered {sample.origin} in {call.timings.model_ns / 1e6:.1f} ms: {outputs}"
    )


def show(finding: Finding) -> None:
    """The finding, as a block of lines."""
    click.echo(f"{finding.name}: {'FAILED' if finding.problem else 'ok'}")
    problem = [finding.problem] if finding.problem else []
    for text in (*finding.facts, *problem, *(f"note: {note}" for note in finding.notes)):
        click.echo(f"  {' '.join(text.split())}")


def _models(count: int) -> str:
    return "1 model" if count == 1 else f"{count} models"
