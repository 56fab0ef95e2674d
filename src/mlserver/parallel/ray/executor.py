"""Executor of models in a Ray cluster (`engine` of `ray`)."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from ...errors import MLServerError
from ...logging import get_logger
from ...settings import ModelSettings, Settings, SettingsError
from ...settings.ray import RaySettings
from ..model_source import get_source, is_mutable_address
from ..model_unload import unload_in_time
from ..rpc.client import WorkerDied
from ..rpc.protocol import MessageType, unpack_error
from .agent_process import AgentProcess
from .applications import Plan, plan_application
from .following import Follower
from .replica_group import RayModel, ReplicaGroup

logger = get_logger()

KEY_SUFFIX = "#ray"
# Seconds that a load waits for the other replicas after the first one is ready.
OTHER_REPLICAS_WAIT = 5.0
WATCH_INTERVAL = 0.5
# Seconds that an unload waits for the end of the replicas if there is no `unload_timeout`.
RELEASE_LIMIT = 60.0
# Seconds between two checks of a load.
LOAD_INTERVAL = 1.0


class RayExecutor:
    """Loads models into Serve applications, and sends requests to their replicas.

    Args:
        settings: The server's settings.

    Raises:
        MLServerError: Ray is not installed, or a setting cannot be used with it.
    """

    # A cancelled load would leave the model in the directory, from which it is loaded again.
    can_cancel_load = False

    def __init__(self, settings: Settings) -> None:
        check_settings(settings)
        self._settings = settings
        self._server = f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
        self._agent = AgentProcess(settings, self._describe, self._on_state)
        self._groups: dict[str, ReplicaGroup] = {}
        self._plans: dict[str, Plan] = {}
        # Model -> the application of this server's latest load of it.
        self._current: dict[str, str] = {}
        self._state: dict[str, Any] = {"applications": {}, "models": {}, "failures": {}}
        self._follower = Follower(self._current, self._is_answered)
        self._waking: dict[str, asyncio.Task[None]] = {}
        self._watching: asyncio.Task[None] | None = None

    async def start(self, models: Sequence[ModelSettings] = ()) -> None:
        """Start to connect, without waiting for the cluster: models load once it is reachable."""
        self._agent.start()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self, grace: float) -> None:
        ray_settings = self._settings.ray or RaySettings()
        tasks = [task for task in (self._watching, *self._waking.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._follower.stop()
        await asyncio.gather(*(group.close() for group in self._groups.values()))
        await self._agent.stop(grace, ray_settings.on_exit == "delete")

    def follow(
        self,
        load: Callable[[ModelSettings], Awaitable[Any]],
        unload: Callable[[str, str | None], Awaitable[Any]],
    ) -> None:
        """Repeat the loads and unloads of other servers from now on."""
        self._follower.start(load, unload)

    # -- load --

    async def load(self, settings: ModelSettings) -> RayModel:
        limit = self._settings.load_timeout
        try:
            async with asyncio.timeout(limit):
                return await self._load(settings)
        except TimeoutError:
            reason = "" if self._is_answered() else ": the Ray cluster does not answer"
            raise MLServerError(
                f"Model {settings.name}: load exceeded {limit:g} s (setting 'load_timeout')"
                + reason,
                504,
            ) from None

    async def _load(self, settings: ModelSettings) -> RayModel:
        plan = await asyncio.to_thread(plan_application, self._settings, settings)
        with self._follower.paused(plan.model):
            followed = self._follower.take(plan.model)
            if followed is not None:
                return await self._use(plan, settings, followed, is_new=False)
            is_new = plan.model in self._current
            answer = await self._begin(plan, is_new)
            model = await self._use(plan, settings, **answer)
            return model if answer["is_new"] else await self._renew(plan, settings, model)

    async def _renew(self, plan: Plan, settings: ModelSettings, adopted: RayModel) -> RayModel:
        """Return an adopted model, or load it again if its mutable address has moved.

        Other servers keep the adopted one until they follow the new load.
        """
        try:
            if not await _has_moved(adopted, settings):
                return adopted
            if not await self._agent.call("is_shared", adopted.group.application):
                await adopted.unload()  # the new replicas may need its resources
            answer = await self._begin(plan, is_new=True)
            model = await self._use(plan, settings, **answer)
        except BaseException:
            await asyncio.shield(self._give_up(plan.model, adopted))
            raise
        await self._give_up(plan.model, adopted)
        return model

    async def _give_up(self, model: str, adopted: RayModel) -> None:
        """End the use of an adopted application, unless it has been unloaded."""
        application = adopted.group.application
        if self._current.get(model) == application:
            del self._current[model]
        if application in self._groups:
            await self._abandon(application, is_new=False)

    async def _begin(self, plan: Plan, is_new: bool) -> dict[str, Any]:
        arguments = plan.model, plan.digest, plan.settings, plan.prefix, is_new
        # Only a first load waits for a cluster that is not there yet.
        call = self._agent.call if is_new else self._agent.call_unlimited
        answer: dict[str, Any] = await call("begin", *arguments)
        return answer

    async def _use(
        self, plan: Plan, settings: ModelSettings, application: str, is_new: bool
    ) -> RayModel:
        """Deploy or adopt an application, and wait until it is loaded."""
        wake = partial(self._wake, application) if plan.may_sleep else None
        group = ReplicaGroup(application, wake, self._is_answered)
        self._groups[application] = group
        self._plans[application] = plan
        started = time.perf_counter()
        try:
            name = "deploy" if is_new else "use"
            call = self._agent.call_unlimited  # `load_timeout` is the limit
            await call(name, application, plan.options, plan.settings)
            self._on_state(self._state)
            if wake is not None and group.first_info is None:
                wake()  # no replica, and a directory that has restarted: what it is, is not known
            info = await self._wait_loaded(plan, group, settings.name)
            commit = plan.model, application, plan.digest, plan.settings, is_new
            await call("commit", *commit)
        except BaseException:
            await asyncio.shield(self._abandon(application, is_new))
            raise
        self._current[plan.model] = application
        if not is_new:
            logger.info(
                "Model '%s': uses the replicas of application '%s', which runs already (%.2f s)",
                settings.name,
                application,
                time.perf_counter() - started,
            )
        limit = settings.request_timeout or self._settings.request_timeout
        return RayModel(group, f"{settings.name}{KEY_SUFFIX}", info, limit, self._unload)

    async def _wait_loaded(self, plan: Plan, group: ReplicaGroup, name: str) -> Any:
        """Return the model's info once its replicas are ready.

        Raises:
            MLServerError: a replica could not load the model, or Ray could not start it.
        """
        ready_since: float | None = None
        while True:
            info, clients = group.first_info, len(group.clients)
            if info is None:
                self._raise_failure(group.application, name)
            elif clients >= plan.replicas or (plan.may_sleep and not clients):
                return info
            elif ready_since is None:
                ready_since = time.monotonic()
            elif time.monotonic() - ready_since > OTHER_REPLICAS_WAIT and clients:
                logger.warning(
                    "Model '%s': %d of %d replicas are ready; Ray starts the others when the "
                    "cluster has the resources",
                    name,
                    clients,
                    plan.replicas,
                )
                return info
            await group.wait_changed(LOAD_INTERVAL)

    def _raise_failure(self, application: str, name: str) -> None:
        """Raise the reason why an application has no replica, if there is one."""
        error = self._state["applications"].get(application, {}).get("error")
        if error is not None:
            raise unpack_error(error)
        reason = self._state["failures"].get(application)
        if reason:
            raise MLServerError(f"Model {name}: Ray could not start a replica: {reason}", 500)

    async def _abandon(self, application: str, is_new: bool) -> None:
        """End this server's part in an application; failures are logged.

        What was adopted belongs to other servers: it stays in the directory. So does a load whose
        commit has arrived there though its answer has not; this server then follows it.
        """
        await self._close_group(application)
        try:
            await self._end_use(application, ("abandon", application) if is_new else None)
        except MLServerError as error:
            logger.warning("Ray: application '%s' stays in the directory: %s", application, error)

    # -- unload --

    async def _unload(self, model: RayModel) -> bool:
        application = model.group.application
        plan = self._plans[application]
        is_current = self._current.get(plan.model) == application
        with self._follower.paused(plan.model):
            if is_current:
                del self._current[plan.model]
            try:
                return await self._unload_replicas(model)
            finally:
                await self._close_group(application)
                drop = ("drop", plan.model, application) if is_current else None
                await self._end_use(application, drop)

    async def _unload_replicas(self, model: RayModel) -> bool:
        """Run the model's own unload, unless other servers use the replicas."""
        application, limit = model.group.application, self._settings.unload_timeout
        if await self._agent.call("is_shared", application):
            return True
        calls = []
        for client in model.group.clients:
            call = client.call(MessageType.UNLOAD, {"key": model.key}, kill_after=limit)
            calls.append(unload_in_time(model.key, call, limit))
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, WorkerDied):
                raise result
        frames = [result for result in results if not isinstance(result, BaseException)]
        return all(bool(frame.head) for frame in frames)

    async def _close_group(self, application: str) -> None:
        self._plans.pop(application, None)
        group = self._groups.pop(application, None)
        if group is not None:
            await group.close()

    async def _end_use(self, application: str, removal: Sequence[str] | None) -> None:
        """Release an application, after the call that removes its entry in the directory.

        Raises:
            MLServerError: that call failed. Other failures are logged.
        """
        try:
            if removal is not None:
                await self._agent.call(*removal)
        finally:
            # An agent that has ended uses nothing, and the next one will not use this application.
            if self._agent.is_connected:
                await self._release(application)

    async def _release(self, application: str) -> None:
        limit = self._settings.unload_timeout or RELEASE_LIMIT
        try:
            async with asyncio.timeout(limit):
                await self._agent.call_unlimited("release", application)
        except (TimeoutError, MLServerError) as error:
            logger.warning(
                "Ray: application '%s' could not be deleted: %s", application, error or "timeout"
            )

    # -- state of the cluster --

    def _is_answered(self) -> bool:
        return self._agent.is_answered

    def _describe(self) -> dict[str, Any]:
        """Return the applications and models of this server, for a new agent."""
        deployments, models = [], {}
        for application, plan in self._plans.items():
            deployments.append([application, plan.options, plan.settings])
            if self._current.get(plan.model) == application:
                models[plan.model] = [application, plan.digest, plan.settings]
        return {"server": self._server, "deployments": deployments, "models": models}

    def _on_state(self, state: dict[str, Any]) -> None:
        self._state = state
        for application, values in state["applications"].items():
            group = self._groups.get(application)
            if group is not None:
                group.secret = bytes.fromhex(state["secret"])
                group.details = values["details"]
                group.update(values["replicas"])
                group.notify()
        self._follower.update(state["models"])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            groups = list(self._groups.values())
            # Side by side: a replica that hangs takes `PING_TIMEOUT`.
            await asyncio.gather(*(group.check_connections() for group in groups))

    def _wake(self, application: str) -> None:
        """Start a first replica, unless a call for one is in progress."""
        if application in self._waking:
            return
        work = self._agent.call_unlimited("wake", application)
        task = asyncio.get_running_loop().create_task(work)
        self._waking[application] = task

        def end(task: asyncio.Task[Any]) -> None:
            del self._waking[application]
            if not task.cancelled() and task.exception() is not None:
                logger.warning("Ray: no replica was started: %s", task.exception())

        task.add_done_callback(end)


async def _has_moved(model: RayModel, settings: ModelSettings) -> bool:
    """Return whether the mutable address of an adopted model now resolves to another version."""
    uri = settings.parameters.uri if settings.parameters is not None else None
    source = get_source(model.info)
    if uri is None or source is None or not is_mutable_address(settings):
        return False
    return await model.resolve_source(uri) != source


def check_settings(settings: Settings) -> None:
    """Raise if Ray is not installed, or a setting cannot be used with it.

    Raises:
        MLServerError: Ray is not installed; the text has the install command.
        SettingsError: a setting cannot be used with the engine.
    """
    if importlib.util.find_spec("ray") is None:
        raise MLServerError(
            "The engine 'ray' needs a library that is not installed: pip install 'mlserver[ray]'",
            500,
        )
    if settings.http_workers > 1:
        raise SettingsError(
            f"http_workers: expected 1 with the engine 'ray', received {settings.http_workers}: "
            "start several servers instead; they share the replicas"
        )
