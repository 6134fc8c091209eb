"""A pickle interpreter that can build containers and call the few functions its user allows.

Owns the opcodes that torch.save writes. It imports nothing, looks up no attribute, sets no state and calls
only what find_global returned, so a hostile pickle can do nothing; whatever it asks for is refused by name.
"""

from __future__ import annotations

import pickletools
from typing import Any, Callable, Optional

_MARK = object()

# opcodes that push their argument: numbers, text and bytes, never what a name or the memo stands for
_CONSTANTS = frozenset([
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8",
])  # fmt: skip
_VALUES: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONTAINERS: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}  # of so many values
_SKIPPED = frozenset(["PROTO", "FRAME"])


class Refused(Exception):  # noqa: N818 (it is the machine's verdict, turned into ModelFileError outside)
    """The pickle is damaged or asks for what is not allowed; the message says what."""


def run_pickle(data: bytes, find_global: Callable[[str, str], Any], persistent_load: Callable[[Any], Any]) -> Any:
    """The object a pickle describes.

    Args:
        data: The pickle.
        find_global: Gives the stand-in for a module and a name, or raises Refused.
        persistent_load: Gives the object of a persistent id, or raises Refused.
    """
    machine = _Machine(find_global, persistent_load)
    try:
        for opcode, argument, position in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument, position or 0)
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise Refused(f"the pickle is damaged: {error!r}") from error
    raise Refused("the pickle has no end")


class _Machine:
    """Stack and memo of one run. Marks lie on the stack; the memo is a dict: a huge index costs nothing."""

    def __init__(self, find_global: Callable[[str, str], Any], persistent_load: Callable[[Any], Any]) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._find_global, self._persistent_load = find_global, persistent_load
        self._callable: set[int] = set()  # ids of what find_global gave out
        self._kept: list[Any] = []  # keeps those ids valid

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise Refused("the pickle is damaged: a mark where a value should be")
        return value

    def step(self, name: str, argument: Any, position: int) -> None:
        """Executes one opcode."""
        if name in _CONSTANTS:
            self._stack.append(argument)
        elif name in _VALUES:
            self._stack.append(_VALUES[name])
        elif name in _CONTAINERS:
            self._stack.append(_CONTAINERS[name]())
        elif name in _TUPLES:
            values = [self.pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(reversed(values)))
        elif name not in _SKIPPED:
            handler: Optional[Callable[[Any], None]] = getattr(self, f"_op_{name.lower()}", None)
            if handler is None:
                raise Refused(f"the pickle uses {name} at byte {position}, which no checkpoint of tensors needs")
            handler(argument)

    def _items(self) -> list[Any]:
        """Pops everything down to the last mark."""
        for i in range(len(self._stack) - 1, -1, -1):
            if self._stack[i] is _MARK:
                items = self._stack[i + 1 :]
                del self._stack[i:]
                return items
        raise Refused("the pickle is damaged: no mark")

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise Refused(f"the pickle puts items into a {type(self._stack[-1]).__name__}")
        return self._stack[-1]

    def _op_mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _op_pop(self, _: Any) -> None:
        self._stack.pop()

    def _op_pop_mark(self, _: Any) -> None:
        self._items()

    def _op_dict(self, _: Any) -> None:
        items = self._items()
        self._stack.append(dict(zip(items[0::2], items[1::2])))

    def _op_list(self, _: Any) -> None:
        self._stack.append(self._items())

    def _op_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._items()))

    def _op_append(self, _: Any) -> None:
        value = self.pop()
        self._top(list).append(value)

    def _op_appends(self, _: Any) -> None:
        items = self._items()
        self._top(list).extend(items)

    def _op_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._top(dict)[key] = value

    def _op_setitems(self, _: Any) -> None:
        items = self._items()
        self._top(dict).update(zip(items[0::2], items[1::2]))

    def _op_put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _op_binput = _op_long_binput = _op_put

    def _op_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _op_get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _op_binget = _op_long_binget = _op_get

    def _op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_global(module, name)

    def _op_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self._push_global(str(module), str(name))

    def _push_global(self, module: str, name: str) -> None:
        value = self._find_global(module, name)
        self._callable.add(id(value))
        self._kept.append(value)
        self._stack.append(value)

    def _op_reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if id(function) not in self._callable or not callable(function) or not isinstance(arguments, tuple):
            raise Refused(f"the pickle calls {function!r}")
        self._stack.append(function(*arguments))

    def _op_build(self, _: Any) -> None:
        # a state dict carries its module versions as a state: dropped, attributes are never set
        self.pop()
        self._top(dict)

    def _op_binpersid(self, _: Any) -> None:
        self._stack.append(self._persistent_load(self.pop()))
