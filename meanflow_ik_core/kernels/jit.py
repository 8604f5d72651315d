# SPDX-License-Identifier: Apache-2.0
"""How the kernels are compiled.

A function that another one calls is copied into it and compiled there, again and again. So the
large ones are `linked_jit`: compiled once, and called.
"""

import copy
import functools
from collections.abc import Callable, Iterator
from inspect import isfunction
from typing import Any

from llvmlite import binding
from numba import njit, types
from numba.core import sigutils
from numba.core.typing import signature as signature_of
from numba.core.typing.templates import ConcreteTemplate
from numba.extending import lower_builtin

from .code_cache import CodeCache

_inside = functools.partial(njit, nogil=True, error_model="numpy", no_cfunc_wrapper=True)


def jit(function, **options):
    """Compile a function that compiled ones call, into each of them.

    It has no door for Python, which may call its ``py_func``.
    """

    def refuse(*_, **__):
        raise TypeError(f"compiled code alone calls {function.__name__}; py_func is for Python")

    dispatcher = _inside(no_cpython_wrapper=True, **options)(function)
    # Numba would take Python through a door that is not there.
    dispatcher._insert = lambda *_, **__: None
    dispatcher._compile_for_args = refuse
    return dispatcher


inline_jit = functools.partial(jit, forceinline=True)


def cached_jit(function, signature=None):
    """Compile a function that Python calls; another process finds it on disk, see `code_cache`.

    With a signature it is compiled at once and for that alone, else when it is called.
    """
    dispatcher = _inside()(function)
    dispatcher._cache = _CacheOfCaller(function)
    if signature is not None:
        dispatcher.compile(signature)
        dispatcher.disable_compile()
    return dispatcher


def linked_jit(*signatures):
    """Compile a function once for each signature; compiled callers call it, they have no copy."""
    return functools.partial(_Linked, signatures)


class _Linked:
    """A function with an address for each signature, under a name that compiled code knows.

    It is compiled, or found on disk, when Python calls it or before a caller is compiled or found.
    """

    def __init__(self, signatures: tuple[Any, ...], function: Callable[..., Any]):
        functools.update_wrapper(self, function)
        self.dispatcher = cached_jit(function)
        self._known: dict[Any, Any] = {}
        cases = [
            signature_of(result, *arguments)
            for arguments, result in map(sigutils.normalize_signature, signatures)
        ]
        self._signatures = [case.args for case in cases]
        template = type(function.__name__, (ConcreteTemplate,), {"key": self, "cases": cases})
        self._numba_type_ = types.Function(template)
        for arguments in self._signatures:
            lower_builtin(self, *arguments)(self._lower)

    def __call__(self, *arguments):
        self.compile()
        return self.dispatcher(*arguments)

    def compile(self) -> None:
        """Compile or load all signatures, unless that is done."""
        if len(self._known) == len(self._signatures):
            return
        for index, arguments in enumerate(self._signatures):
            self.dispatcher.compile(arguments)
            compiled = self.dispatcher.overloads[arguments]
            described = copy.copy(compiled.fndesc)
            address = compiled.library.get_pointer_to_function(described.llvm_func_name)
            described.mangled_name = f"{self.__module__}.{self.__qualname__}.{index}"
            binding.add_symbol(described.mangled_name, address)
            self._known[arguments] = described
        self.dispatcher.disable_compile()

    def _lower(self, context, builder, signature, arguments):
        return context.call_internal(builder, self._known[signature.args], signature, arguments)


def _linked_functions(function, seen: set[int]) -> Iterator[_Linked]:
    """What a function calls that is linked, directly or in functions that are copied into it."""
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        value = getattr(value, "py_func", value)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, _Linked):
            yield value
        elif isfunction(value):
            yield from _linked_functions(value, seen)


class _CacheOfCaller(CodeCache):
    """Code that is loaded after what it calls."""

    def __init__(self, function):
        super().__init__(function)
        self._function = function

    def load_overload(self, sig, target_context):
        for linked in _linked_functions(self._function, set()):
            linked.compile()
        return super().load_overload(sig, target_context)
