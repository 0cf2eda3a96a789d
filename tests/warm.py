"""What the processes of a drill are forked with, since each would read it anew: libraries, and the recipes of all steps."""

import alembic.command  # noqa: F401
import sklearn.metrics  # noqa: F401
import xgboost  # noqa: F401

from stages.common import recipe

recipe.recipes()
