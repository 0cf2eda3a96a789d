"""A Workflow of your own around ours, in Hera: something before the pipeline, the pipeline, something after it.

    python docs/around.py configs/my.yaml s3://bucket/store      (AWS_*, ARGO_SERVER, ARGO_NAMESPACE in the environment)

The pipeline is the WorkflowTemplate that the chart installed, with the chart's images, room and secrets. ``cluster.submit`` also gives
your Workflow what Argo would not look for there: volumes, where pods go, how many at a time, how long. ``surefoot status``, ``logs``
and ``report`` know the run by the name that this prints.
"""

import sys
from pathlib import Path

from hera.workflows import DAG, Container, Resources, Task, Workflow
from hera.workflows import models as m

from stages.common import config
from stages.common.store import open_store
from workflows import argo, cli, cluster

WAIT = "import datetime; print('yesterday is whole:', datetime.date.today() - datetime.timedelta(1))"  # yours: write a table into a bucket
TELL = "import sys; print('the verdict is', sys.argv[1] or 'none')"  # yours: a message to your colleagues


def nightly() -> Workflow:
    """Wait for the table, run the pipeline, tell the verdict."""
    ours = {name: m.TemplateRef(name=argo.NAME, template=name) for name in ("main", "exit")}
    with Workflow(generate_name="nightly-", entrypoint="nightly", on_exit="end", arguments=argo.parameters(), **argo.PODS) as workflow:
        wait, tell = (
            Container(
                name=name,
                image="{{workflow.parameters.images}}plan:{{workflow.parameters.tag}}",
                command=["python", "-c", text],
                args=args,
                resources=Resources(cpu_request="50m", memory_request="64Mi", memory_limit="64Mi"),
                security_context=argo.LOCKED,
                active_deadline_seconds=600,
            )
            for name, text, args in (("wait", WAIT, []), ("tell", TELL, ["{{= workflow.outputs?.parameters?.verdict ?? '' }}"]))
        )
        with DAG(name="nightly"):
            Task(name="wait", template=wait) >> Task(name="surefoot", template_ref=ours["main"])
        with DAG(name="end"):  # however it ended: our report, and then your message
            Task(name="report", template_ref=ours["exit"]) >> Task(name="tell", template=tell)
    return workflow


if __name__ == "__main__":
    path, address = sys.argv[1:]
    print(cluster.submit(cli.upload(config.load(Path(path)), open_store(address)), address, around=nightly()))  # noqa: T201
