"""One of two racers: for each value on stdin, do all steps and say what they handed out.

python -m tests.toy.race CONFIG STORE
"""

import json
import sys
from pathlib import Path

from stages.common import log
from stages.common.store import open_store
from tests.toy import work
from tests.toy.pipeline import Pipeline


def main() -> None:
    """Answer each line with one line."""
    log.setup("ERROR")
    pipeline = Pipeline(Path(sys.argv[1]), open_store(sys.argv[2]))
    for line in sys.stdin:
        outputs = pipeline.do_all(*line.split())
        sys.stdout.write(json.dumps(outputs) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    with work.installed():
        main()
