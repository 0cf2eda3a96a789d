"""The Argo server: how a run is submitted, and how it is asked. What it refuses is said in words that help."""

import os
import re
from collections.abc import Callable
from typing import Any, override

import requests
from hera import exceptions as refused
from hera.workflows import Parameter, Workflow, WorkflowsService
from hera.workflows import models as m
from requests.exceptions import InvalidURL, SSLError

from stages.common import log
from stages.common.errors import ConfigError, NotNow
from stages.common.store import retry
from workflows import argo

TIMEOUT = (5, 30)  # seconds to connect, and without a byte
# What the template says of a run's pods, in Hera's words: it holds for a Workflow around ours, too, where that one says nothing itself.
OF_PODS = (
    *("parallelism", "active_deadline_seconds", "ttl_strategy", "pod_spec_patch"),
    *("node_selector", "tolerations", "affinity", "pod_priority_class_name"),
)
LONGEST = 55  # letters of a name before those of chance: Kubernetes takes 63


def submit(config: str, store: str, around: Workflow | None = None, **parameters: str) -> str:
    """Create a Workflow from the cluster's WorkflowTemplate, or one of your own ``around`` it, and give its name.

    Every parameter of the template is copied into the Workflow, since ``argo retry -p`` forgets those that it does not state.
    ``config`` is an address in ``store``; ``parameters`` go over the template's values. The Argo server, a token and the
    namespace are taken from ARGO_SERVER, ARGO_TOKEN and ARGO_NAMESPACE.

    Raises:
        ConfigError: the server's address is not given, or it refuses.
        NotNow: the server is not there: it was asked again for a minute, or longer where it says nothing.

    """
    server = service()
    found = retry("the workflow template", lambda: ask(lambda: server.get_workflow_template(argo.NAME)))
    known = {parameter.name: parameter.value for parameter in (found.spec.arguments and found.spec.arguments.parameters) or []}
    given = {**known, **parameters, "config": config, "store": store}
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"WorkflowTemplate {argo.NAME} knows no parameter {', '.join(unknown)}. Known: {', '.join(known)}.")
    workflow = around or Workflow(generate_name=f"{argo.NAME}-", workflow_template_ref=m.WorkflowTemplateRef(name=argo.NAME))
    workflow.arguments = [Parameter(name=name, value=value) for name, value in given.items()]
    built: Any = workflow.build()
    if not built.spec.workflow_template_ref:
        _share(found.spec, built.spec)
    # With a name of its own, who asks again makes no second one.
    is_ours = not built.metadata.name
    name = built.metadata.name = built.metadata.name or f"{(workflow.generate_name or f'{argo.NAME}-')[:LONGEST]}{os.urandom(4).hex()}"

    def create() -> None:
        try:
            ask(lambda: server.create_workflow(m.WorkflowCreateRequest(workflow=built)))
        except AlreadyThere:
            if not is_ours:
                raise
            log.info("workflow.created", workflow=name, so="the answer to an earlier try was lost")

    retry(f"the workflow {name}", create)
    return str(name)


def _share(theirs: Any, mine: Any) -> None:
    """Give a Workflow what the template says of its pods; Argo asks the Workflow alone, also for the volumes of the steps that it runs."""
    for name in OF_PODS:
        if getattr(mine, name) is None:
            setattr(mine, name, getattr(theirs, name))
    known = {volume.name for volume in mine.volumes or []}
    if added := [volume for volume in theirs.volumes or [] if volume.name not in known]:
        mine.volumes = [*(mine.volumes or []), *added]


class AlreadyThere(ConfigError):
    """There is a Workflow of that name."""


class _Session(requests.Session):
    """Does not wait for ever: a forwarded port can be open with nobody behind it."""

    @override
    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        return super().request(*arguments, **{"timeout": TIMEOUT, **options})


def service() -> WorkflowsService:
    """Give a client of the Argo server that ARGO_SERVER, ARGO_NAMESPACE and ARGO_TOKEN name.

    Raises:
        ConfigError: one of the first two is not set, or is none.

    """
    server, namespace = os.environ.get("ARGO_SERVER", ""), os.environ.get("ARGO_NAMESPACE", "")
    wanted = "Set ARGO_SERVER=https://host:2746, ARGO_NAMESPACE, and ARGO_TOKEN where the server asks for one."
    if missing := [name for name, value in (("ARGO_SERVER", server), ("ARGO_NAMESPACE", namespace)) if not value]:
        raise ConfigError(f"{' and '.join(missing)} not set. {wanted}")
    if "://" not in server:  # as the argo command takes it
        server = f"{'http' if os.environ.get('ARGO_SECURE') == 'false' else 'https'}://{server}"
    if not re.match("https?://[^/]", server):
        raise ConfigError(f"ARGO_SERVER={server}: no address of a server. {wanted}")
    verify = os.environ.get("ARGO_INSECURE_SKIP_VERIFY") != "true"
    token = os.environ.get("ARGO_TOKEN")
    return WorkflowsService(server.rstrip("/") + "/", verify_ssl=verify, token=token, namespace=namespace, session=_Session())


def where() -> str:
    """Name the Argo server and the namespace."""
    return f"the Argo server {os.environ.get('ARGO_SERVER')}, namespace {os.environ.get('ARGO_NAMESPACE')}"


def ask[T](question: Callable[[], T]) -> T:
    """Ask the Argo server and say its refusals in words that help."""
    try:
        return question()
    except refused.NotFound as error:
        raise ConfigError(f"{where()}: {error}. Install the chart there: helm install surefoot charts/surefoot.") from error
    except (refused.Unauthorized, refused.Forbidden) as error:
        raise ConfigError(f"{where()}: {error}. Set ARGO_TOKEN to the token of an account that may use workflows there.") from error
    except refused.AlreadyExists as error:
        raise AlreadyThere(f"{where()}: {error}") from error
    except (refused.BadRequest, SSLError, InvalidURL) as error:  # no time heals these
        raise ConfigError(f"{where()}: {error}") from error
    except (refused.HeraException, requests.RequestException) as error:
        raise NotNow(f"{where()}: {error}") from error
