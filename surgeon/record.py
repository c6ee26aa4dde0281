"""`Record`: the base of every value that crosses a stage boundary or reaches a file.

Records are frozen, refuse unknown keys, and carry a schema tag in their JSON form, so a
file says what it is and a newer or foreign file is refused instead of being half read.
Not measured is NaN in memory and `null` in JSON.
"""

import json
import math
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)

from surgeon.errors import UsageError

Measured = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: value if math.isfinite(value) else None, when_used="json"),
    WithJsonSchema({"type": ["number", "null"]}),
]
"""A float that may be missing: NaN in memory, `null` in JSON."""


class Record(BaseModel):
    """A frozen value with a JSON form; subclasses with a `SCHEMA` carry the tag."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    SCHEMA: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: plain dicts, lists, strings, numbers; `schema` first where tagged."""
        body = self.model_dump(mode="json")
        return {"schema": self.SCHEMA, **body} if self.SCHEMA else body

    def to_json(self) -> str:
        """`to_dict` as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The value that `to_dict` came from.

        Raises:
            UsageError: not a JSON object, another schema tag, or fields that do not fit.
        """
        if not isinstance(data, dict):
            raise UsageError(f"expected a JSON object, got {type(data).__name__}")
        body = dict(data)
        if cls.SCHEMA:
            tag = body.pop("schema", None)
            if tag != cls.SCHEMA:
                raise UsageError(f"schema is `{tag}`, expected `{cls.SCHEMA}`")
        return cls.from_part(body)

    @classmethod
    def from_part(cls, body: Any) -> Self:
        """The value of a part of another record's JSON, where there is no tag.

        Raises:
            UsageError: fields that do not fit.
        """
        try:
            return cls.model_validate_json(json.dumps(body))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"{cls.SCHEMA or cls.__name__}: `{where}`: {first['msg']}") from error

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON Schema of the JSON form, the schema tag included."""
        schema = cls.model_json_schema(mode="serialization")
        if cls.SCHEMA:
            schema["properties"] = {"schema": {"const": cls.SCHEMA}, **schema["properties"]}
            schema["required"] = ["schema", *schema.get("required", [])]
        return schema
