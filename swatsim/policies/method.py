"""What all of the house's policies are: frozen values, of which type checkers know the parameters.

A policy declares its parameters as fields, and nothing else: there is no constructor to write. One
that is given without its name says `Field(kw_only=False)`; all others have to be named.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from fractions import Fraction
from inspect import Parameter, Signature, cleandoc
from typing import Annotated, Any, ClassVar, Self, dataclass_transform

from pydantic import BeforeValidator, Field

from swatsim.arguments import sparsity
from swatsim.errors import PolicyError, SwatsimError
from swatsim.policies.interface import Site
from swatsim.validation import FrozenRecord, Whole


def as_float(check: Callable[[Any], Fraction]) -> BeforeValidator:
    """Return the validator of a field that holds a share: the check, then a float."""
    return BeforeValidator(lambda value: float(check(value)))


#: The share of values that a policy drops.
Sparsity = Annotated[float, as_float(sparsity)]
#: Steps from one choice to the next, or up to one.
Period = Annotated[Whole, Field(ge=1)]
#: The factor of a penalty.
Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
class PolicyValue(FrozenRecord):
    """Base of policies: frozen records, equal by value, refused in one line.

    To a type checker a subclass is a dataclass: it knows the name and type of each parameter.
    """

    error_type: ClassVar[type[SwatsimError]] = PolicyError

    def __init__(self, *values: Any, **named: Any) -> None:
        names = self._in_order()
        given = dict(zip(names, values, strict=False))
        twice = sorted(given.keys() & named.keys())
        if twice or len(values) > len(names):
            raise PolicyError(
                f"{type(self).__name__}: {len(values)} parameters are given without a name"
                f"{''.join(f', and {name} once more' for name in twice)}: only "
                f"{' and '.join(names) or 'none'} can be; name the others"
            )
        super().__init__(**given, **named)

    @classmethod
    def _in_order(cls) -> list[str]:
        """Return the parameters that can be given without their names, in their order."""
        return [name for name, field in cls.model_fields.items() if field.kw_only is False]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Set the class signature to its fields, for `help` and for completion."""
        shown = [
            Parameter(
                name,
                Parameter.KEYWORD_ONLY if field.kw_only is not False else _EITHER,
                default=Parameter.empty if field.is_required() else field.default,
                annotation=field.annotation,
            )
            for name, field in cls.model_fields.items()
        ]
        in_order = sorted(shown, key=lambda parameter: parameter.kind)
        setattr(cls, "__signature__", Signature(in_order))  # noqa: B010


_EITHER = Parameter.POSITIONAL_OR_KEYWORD


class Method(PolicyValue):
    """Base of published methods: policies that have a name, and can be made of a sparsity alone."""

    #: Its name in a trace, and in POLICIES.
    method: ClassVar[str]

    @classmethod
    def of_sparsity(cls, sparsity: float) -> Self:
        """Return the policy of a sparsity, with all other parameters at their defaults.

        Raises
        ------
        PolicyError
            If the sparsity is not allowed.
        """
        return cls(**{"sparsity": sparsity})

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the method's description."""
        return cleandoc(cls.__doc__ or "").partition("\n")[0]

    @abstractmethod
    def density(self, site: Site) -> Fraction | float | None:
        """Return the share of an operand's values that survives: see `Policy`."""

    def describe(self) -> dict[str, Any]:
        """Return the policy's name and parameters, as JSON."""
        return {"name": self.method, **self.model_dump(mode="json")}
