"""Load a model on the first of several targets that works."""

from collections.abc import Sequence

from kdas_edge.bundle.reader import Bundle
from kdas_edge.errors import UserError
from kdas_edge.runtime.engine import Engine
from kdas_edge.runtime.failures import TargetError
from kdas_edge.runtime.targets import Target, parse_target


def read_targets(target: str | Target | Sequence[str | Target]) -> list[Target]:
    """One target or several, written or parsed, as a list.

    Raises:
        UserError: there is none, or one is unknown.
    """
    several = [target] if isinstance(target, str | Target) else list(target)
    if not several:
        raise UserError('no target given; for example target="openvino:CPU"')
    return [parse_target(one) if isinstance(one, str) else one for one in several]


def first_that_works(
    bundle: Bundle, targets: Sequence[Target], precision: str | None, preset: str | None
) -> tuple[Engine, list[Target], list[str]]:
    """Load on the first target that can be loaded on.

    Returns:
        The engine, the targets after it, and why those before it do not work.

    Raises:
        UserError: none works; of a single target the reason as it is.
    """
    failures: list[str] = []
    for index, target in enumerate(targets):
        try:
            engine = Engine.open(bundle, target, precision, preset)
        except TargetError as error:
            if len(targets) == 1:
                raise
            failures.append(str(error))
        else:
            return engine, list(targets[index + 1 :]), failures
    raise UserError(f"none of {len(targets)} targets works: {'; '.join(failures)}")
