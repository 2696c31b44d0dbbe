"""The operator's own client of the API server, connected to the one of the lab."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from lab.lab import Lab
from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.clock import ServerClock

T = TypeVar("T")


def connected(lab: Lab, work: Callable[[ApiServer], Awaitable[T]]) -> T:
    """The result of the work; the connection is closed after it."""

    async def worked() -> T:
        configuration = Configuration()
        await config.load_kube_config(str(lab.kubeconfig), client_configuration=configuration)
        api = ApiServer(ApiClient(configuration), configuration, ServerClock())
        try:
            return await work(api)
        finally:
            await api.close()

    return asyncio.run(worked())
