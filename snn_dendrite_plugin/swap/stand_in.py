"""The stand-in for a host's neuron while it is swapped, and putting it in every place where the host names the neuron.

See :mod:`.swap`, whose rules say what a stand-in builds.
"""

from __future__ import annotations

import abc
import contextlib
import copyreg
import importlib
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from .. import plugins
from ..conversion.undo import replaced
from .optimizer import resuming

if TYPE_CHECKING:
    from .rules import SwapRule

__all__ = ["swapping"]


class _StandInMeta(abc.ABCMeta):  # of ABCMeta, so that a script's `class Mine(LIFNode, ABC)` has no metaclass conflict
    """Class of the stand-ins and of the subclasses that scripts make of them."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        rule = vars(cls).get("_swap_rule")
        if rule is None:  # a script's own subclass
            for base in cls.__mro__:
                rule = vars(base).get("_swap_rule")
                if rule is not None and rule.active:
                    rule.keep(f"{cls.__qualname__}, a subclass of {rule.neuron}: what it computes is not known")
                    break
            return super().__call__(*args, **kwargs)
        return rule.build(*args, **kwargs) if rule.active else rule.original(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        rule = vars(cls).get("_swap_rule")
        if rule is None:
            return super().__instancecheck__(instance)
        if isinstance(instance, rule.original):
            return True
        held = replaced(instance) if isinstance(instance, nn.Module) else None
        if held is None or not isinstance(held.original, rule.original):
            return False
        # A script asks for the neurons it made. The host asks in order to reset, count or export them as what they are.
        caller = sys._getframe(1).f_globals.get("__name__", "")
        return caller.partition(".")[0] != rule.package

    def __subclasscheck__(cls, subclass: type) -> bool:
        rule = vars(cls).get("_swap_rule")
        return super().__subclasscheck__(subclass) if rule is None else issubclass(subclass, rule.original)

    # Tables from type(module) to something, and comparisons with type(module), find the host's class by its stand-in.
    def __eq__(cls, other: object) -> bool:
        rule = vars(cls).get("_swap_rule")
        return cls is other or (rule is not None and other is rule.original)

    def __hash__(cls) -> int:
        rule = vars(cls).get("_swap_rule")
        return type.__hash__(cls if rule is None else rule.original)

    @property
    def __signature__(cls) -> inspect.Signature:
        rule = vars(cls).get("_swap_rule")
        if rule is not None:
            return inspect.signature(rule.original)
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


def _stand_in(rule: SwapRule) -> type:
    space = next(iter(rule.adapter.namespaces()))
    body = {
        "_swap_rule": rule,
        "__module__": space.__name__,  # where a pickle finds it, here and, as the host's own class, elsewhere
        "__qualname__": rule.neuron,
        "__doc__": rule.original.__doc__,
    }
    return _StandInMeta(rule.original.__name__, (rule.original,), body)


@contextlib.contextmanager
def swapping(rules: Iterable[SwapRule]) -> Iterator[None]:
    """Swap neurons inside a ``with`` block: every name that the host has for them, and defaults of its functions.

    Names in other modules are not touched: import the neurons inside the block, as a script does that runs there.
    """
    rules = list(rules)
    undo = contextlib.ExitStack()
    with undo:
        for rule in rules:
            stand_in = _stand_in(rule)
            spaces = list(rule.adapter.namespaces())
            for name, module in list(sys.modules.items()):
                if name.partition(".")[0] != rule.package or not isinstance(module, types.ModuleType):
                    continue
                # The class's own methods may name it, in super() for one: where it is defined it stays, unless that is
                # where users look for it.
                if name != rule.original.__module__ or module in spaces:
                    _replace_names(module, rule.original, stand_in, undo)
                _replace_defaults(module, rule.original, stand_in, undo)
            if getattr(sys.modules[rule.original.__module__], rule.original.__name__, None) is not rule.original:
                # Its instances must still be pickled, and no name leads to their class.
                copyreg.pickle(rule.original, _reduce_point)
                undo.callback(copyreg.dispatch_table.pop, rule.original, None)
            rule.active = True
            undo.callback(setattr, rule, "active", False)
        undo.enter_context(resuming(rules))
        yield


def _replace_names(module: types.ModuleType, original: type, stand_in: type, undo: contextlib.ExitStack) -> None:
    for name, value in list(vars(module).items()):
        if value is original:
            setattr(module, name, stand_in)
            undo.callback(setattr, module, name, original)


def _replace_defaults(module: types.ModuleType, original: type, stand_in: type, undo: contextlib.ExitStack) -> None:
    """Defaults of the functions, and of the methods of the classes, that a module defines."""
    values = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    members = [member for value in values if isinstance(value, type) for member in vars(value).values()]
    for function in (value for value in (*values, *members) if isinstance(value, types.FunctionType)):
        if function.__defaults__ and any(value is original for value in function.__defaults__):
            undo.callback(setattr, function, "__defaults__", function.__defaults__)
            function.__defaults__ = tuple(stand_in if value is original else value for value in function.__defaults__)
        keywords = function.__kwdefaults__
        if keywords and any(value is original for value in keywords.values()):
            undo.callback(setattr, function, "__kwdefaults__", keywords)
            function.__kwdefaults__ = {k: stand_in if v is original else v for k, v in keywords.items()}


def _reduce_point(point: nn.Module) -> tuple[Any, ...]:
    return _new_point, (type(point).__module__, type(point).__name__), point.__getstate__()


def _new_point(module: str, name: str) -> nn.Module:
    """An empty neuron of the host, for unpickling, whether or not a stand-in has its name."""
    hosts = {spec.trigger.partition(".")[0] for spec in plugins.adapters().values()}
    if module.partition(".")[0] not in hosts:  # a pickle may say anything
        raise ValueError(f"module is {module!r}; it must be one of a host: {', '.join(sorted(hosts))}")
    cls = getattr(importlib.import_module(module), name)
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise TypeError(f"{module}.{name} is {cls!r}; it must be a class of modules")
    rule = vars(cls).get("_swap_rule")
    cls = cls if rule is None else rule.original
    return cls.__new__(cls)


_new_point.in_checkpoints = True  # type: ignore[attr-defined]
