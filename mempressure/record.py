"""Records: classes that only declare named values, a lighter form of dataclasses for what every worker loads.

A worker holds 2 KB for a record's class, 6 for a `NamedTuple`, and 25 for a `dataclass` of as many fields as its state.
"""

from typing import Any, Self, dataclass_transform


@dataclass_transform()
class Record:
    """Base of records: the fields are the annotations of a class in order, with the class' values as defaults.

    Made with positional or keyword arguments, compared by content; a record is hashable if its values are. Each has its
    own copy of a default list or dict.
    """

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = type(self).__annotations__
        if values:
            named.update(zip(fields, values, strict=False))
        if named.keys() != fields.keys() or len(values) > len(fields):
            named = self._completed(named, too_many=len(values) > len(fields))
        self.__dict__ = named

    def replaced(self, **changes: Any) -> Self:
        """Return a copy with other values."""
        return type(self)(**(vars(self) | changes))

    def _completed(self, named: dict[str, Any], *, too_many: bool) -> dict[str, Any]:
        kind = type(self)
        fields = kind.__annotations__
        missing = [name for name in fields if name not in named and not hasattr(kind, name)]
        if missing or too_many or not named.keys() <= fields.keys():
            raise TypeError(f"{kind.__name__} takes {', '.join(fields)}; got {', '.join(named) or 'nothing'}")
        defaults = {name: getattr(kind, name) for name in fields if name not in named}
        return named | {
            name: value.copy() if isinstance(value, (list, dict)) else value for name, value in defaults.items()
        }

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in type(self).__annotations__)))

    def __repr__(self) -> str:
        content = (f"{name}={getattr(self, name)!r}" for name in type(self).__annotations__)
        return f"{type(self).__name__}({', '.join(content)})"
