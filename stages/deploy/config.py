from stages.common.section import Section


class Config(Section):
    """Options of deploy: none yet."""
