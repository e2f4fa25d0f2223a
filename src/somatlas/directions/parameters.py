"""scikit-learn's contract for objects with parameters and a `fit`, without scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from somatlas.errors import InputError, NotFittedError
from somatlas.plugins import parameters_of


class Parameterised:
    """Parameters are what `__init__` takes, stored as given and under the same names; `fit`
    validates them, and what it makes has a trailing underscore.

    `sklearn.base.clone`, pipelines and searches over parameters work on such an object.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name. deep : for scikit-learn, and without effect."""
        return {name: getattr(self, name) for name in parameters_of(type(self))}

    def set_params(self, **params: Any) -> Self:
        """Change parameters; raises InputError for a name that is none of them."""
        known = parameters_of(type(self))
        for name, value in params.items():
            if name not in known:
                raise InputError(
                    f"{type(self).__name__} has no parameter {name!r}: it has {', '.join(known)}"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({given})"

    if not TYPE_CHECKING:  # a type checker is to find misspelt attributes

        def __getattr__(self, name: str) -> Any:
            fitted = any(own.endswith("_") for own in self.__dict__)
            if name.endswith("_") and not name.startswith("_") and not fitted:
                raise NotFittedError(
                    f"this {type(self).__name__} has no {name} yet: call fit first"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
