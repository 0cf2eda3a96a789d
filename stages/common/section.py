"""How a stage states its options: typed fields with a default that works on a laptop."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """One section of the config. Unknown keys are refused, values are not coerced from other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @classmethod
    def result_fields(cls) -> list[str]:
        """Names of the fields that can change a result; they are part of the step's recipe."""
        return sorted(name for name, field in cls.model_fields.items() if changes_result(field))

    def results(self, item: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG002 - most sections have no items
        """Give the values that can change the result of an item."""
        return self.model_dump(mode="json", include=set(self.result_fields()))

    def unmet(self, sections: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: ARG002 - most sections ask nothing of the others
        """Say, by option, what it needs that another section lacks."""
        return {}


def result(default: Any, doc: str, **checks: Any) -> Any:
    """State a field that can change a result. ``doc`` says what it is, with its unit."""
    return Field(default, description=doc, json_schema_extra={"result": True}, **checks)


def other(default: Any, doc: str, **checks: Any) -> Any:
    """State a field that cannot change a result: memory, workers, log level, timeouts, paths."""
    return Field(default, description=doc, json_schema_extra={"result": False}, **checks)


def changes_result(field: FieldInfo) -> bool:
    """Tell whether a field was stated with ``result``; one stated otherwise is a bug."""
    extra = field.json_schema_extra
    if not isinstance(extra, dict) or "result" not in extra:
        raise TypeError(f"state the field with result() or other(): {field!r}")
    return bool(extra["result"])


def path(default: Any, doc: str, **checks: Any) -> Any:
    """State a file or folder: its place cannot change a result, its bytes do. Relative to the config file that names it."""
    return Field(default, description=doc, json_schema_extra={"result": False, "path": True}, **checks)
