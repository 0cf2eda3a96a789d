from stages.common import step

step.main("validate")
