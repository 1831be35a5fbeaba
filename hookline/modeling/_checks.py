"""Reading of constructor arguments; refusals name the argument, the value and what would be valid."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Refuse a value that is not among the choices.

    Args:
        name: Name of the argument, as the user writes it.
        value: What the user gave.
        choices: All valid values.

    Raises:
        ValueError: With the valid values, and the nearest one if the value looks misspelt.
    """
    valid = list(choices)
    if value in valid:
        return
    near = difflib.get_close_matches(str(value), [str(choice) for choice in valid], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name}={value!r} is not known; valid: {', '.join(repr(choice) for choice in valid)}.{hint}")


def check_positive(**arguments: float) -> None:
    """Refuse numbers that are not above zero.

    Args:
        arguments: Values by argument name.

    Raises:
        ValueError: For the first one that is zero, negative or NaN.
    """
    for name, value in arguments.items():
        if not value > 0:
            raise ValueError(f"{name}={value!r} must be greater than 0.")


def check_fraction(**arguments: float) -> None:
    """Refuse numbers outside [0, 1].

    Args:
        arguments: Values by argument name.

    Raises:
        ValueError: For the first one outside.
    """
    for name, value in arguments.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value!r} must lie in [0, 1].")


def check_features(name: str, wanted: Iterable[str], available: Mapping[str, Any]) -> None:
    """Refuse feature map names that a backbone does not give.

    Args:
        name: Name of the argument that lists the features.
        wanted: Feature names asked for.
        available: The backbone's features by name.
    """
    for feature in wanted:
        check_choice(f"{name}: feature", feature, available)


def check_together(**arguments: Any) -> bool:
    """Refuse a group of arguments of which only some are given.

    Args:
        arguments: Values by argument name; None means not given.

    Returns:
        Whether the group is given.

    Raises:
        ValueError: When some are given and others are None.
    """
    missing = [name for name, value in arguments.items() if value is None]
    if missing and len(missing) < len(arguments):
        given = [name for name in arguments if name not in missing]
        raise ValueError(f"{', '.join(given)} given without {', '.join(missing)}: they belong together.")
    return not missing


def weights_by_name(loss_weight: float | Mapping[str, float], losses: Sequence[str]) -> dict[str, float]:
    """Read a `loss_weight` argument: one factor for all losses, or factors by name, 1 where none is given.

    Args:
        loss_weight: What the user gave.
        losses: Names of all losses.

    Returns:
        A factor for each loss.
    """
    if not isinstance(loss_weight, Mapping):
        return dict.fromkeys(losses, float(loss_weight))
    for name in loss_weight:
        check_choice("loss_weight: name", name, losses)
    return {name: float(loss_weight.get(name, 1.0)) for name in losses}
