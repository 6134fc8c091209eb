"""A chat template whose work is bounded.

A template is a program that comes with a model file. Jinja's sandbox keeps it away from Python's insides, but lets it
loop for ever or fill the memory. Here every loop, call, filter, operator and comparison is counted, and the size of
what it would make is known before it is made. Owns the limits and what a template may call; knows no messages.

How: the template's syntax tree gets a counting step at each place that repeats, and the environment's own hooks
(``call``, ``call_binop``, ``getitem``, ``concat``, the filters and tests) do the rest. What a template writes is the
same as without.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from typing import Any, Callable, Optional, cast

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Macro, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context, pass_eval_context
from jinja2.visitor import NodeTransformer
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

# What a render may take. A long conversation may take more: each limit grows with the text that the template is given.
MAX_STEPS = 1_000_000  # loop rounds, calls, operators; 64 characters or elements that one of them handles are a step
MAX_OUTPUT = 1 << 20  # characters of the prompt
MAX_VALUE = 4 << 20  # characters and elements of one value, written out
MAX_MADE = 16 << 20  # characters and elements of all values that are made
MAX_SECONDS = 10.0  # of the thread's processor time
MAX_NUMBER = 10_000  # a width, a precision, a count that a filter or a text's method is given
MAX_GIVEN = 1 << 28  # characters of the conversation
MAX_BITS = 4096  # of a whole number
MAX_CHAIN = 20  # lazy filters (map, select) behind one another

# Compiling takes seconds and 200 MB at these limits. Known templates have up to 17 KB and 1,300 nodes.
MAX_CHARS = 1 << 17
MAX_NODES = 10_000  # of the syntax tree

_CLOCK_STEPS = 1024  # steps between two looks at the clock
_PER_STEP = 64


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS = _names(
    "abs attr batch capitalize center count d default dictsort e escape filesizeformat first float forceescape format "
    "groupby indent int items join last length list lower map max min random reject rejectattr replace reverse round "
    "safe select selectattr slice sort string sum title tojson trim truncate unique upper urlencode wordcount"
)
_CHEAP = _names("attr count d default first last length")  # their work does not depend on the value's size
_COMPARING = _names("in == eq equalto != ne > gt greaterthan >= ge < lt lessthan <= le")
_WIDTH_METHODS = _names("center expandtabs ljust rjust zfill")
_METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (
        str,
        _WIDTH_METHODS
        | _names(
            "capitalize casefold count endswith find format format_map index isalnum isalpha isascii isdecimal isdigit "
            "isidentifier islower isnumeric isprintable isspace istitle isupper join lower lstrip partition "
            "removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines startswith strip "
            "swapcase title upper"
        ),
    ),
    (dict, _names("copy get items keys values")),
    (list, _names("copy count index")),
    (tuple, _names("count index")),
    (int, frozenset()),
    (float, frozenset(["is_integer"])),
    (bytes, frozenset()),
)
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(\*|\d{4})|\{[^{}]*(:[^{}]*\{|\d{4})")


class TemplateLimitError(SecurityError):
    """A template that takes more than it may, or calls what it may not."""


class BoundedTemplate:
    """A compiled template."""

    def __init__(self, source: str) -> None:
        """
        Raises:
            jinja2.TemplateError: ``source`` is not a template, or it is too long.
        """
        if len(source) > MAX_CHARS:
            raise TemplateLimitError(f"it has {len(source)} characters, expected at most {MAX_CHARS}")
        environment = _Environment(trim_blocks=True, lstrip_blocks=True)
        tree = environment.parse(source)
        _check_nodes(tree)
        tree = _Counting().visit(tree)
        tree.set_environment(environment)
        code = environment.compile(tree, filename="<chat template>")
        self._template = jinja2.Template.from_code(environment, code, environment.make_globals(None))

    def render(self, values: Mapping[str, Any]) -> str:
        """What the template writes.

        Args:
            values: the template's variables; their size is what the limits grow with.

        Raises:
            TemplateLimitError: it takes more than it may.
            Exception: whatever else Jinja or the template's own ``raise_exception`` raise.
        """
        token = _METER.set(_Meter(values))
        try:
            return self._template.render(values)
        finally:
            _METER.reset(token)


class _Meter:
    """What one render has taken so far."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._max_value = MAX_GIVEN
        n_given = self.weigh(values)
        self._n_steps = 0
        self._n_made = 0
        self._max_steps = MAX_STEPS + n_given
        self._max_value = MAX_VALUE + 8 * n_given
        self._max_made = MAX_MADE + 64 * n_given
        self.max_output = MAX_OUTPUT + 8 * n_given
        self._look = _CLOCK_STEPS
        self._until = time.thread_time() + MAX_SECONDS

    def step(self, n: int = 1) -> None:
        self._n_steps += n
        if self._n_steps > self._max_steps:
            raise TemplateLimitError(f"it takes more than {self._max_steps} steps")
        if self._n_steps >= self._look:
            self._look = self._n_steps + _CLOCK_STEPS
            if time.thread_time() > self._until:
                raise TemplateLimitError(f"it takes more than {MAX_SECONDS:g} seconds")

    def handle(self, *values: Any) -> int:
        """Counts work that looks at all of some values; returns their size."""
        n = self.weigh(*values)
        self.step(1 + n // _PER_STEP)
        return n

    def make(self, n: int) -> None:
        """Counts a value of this size, before it is made where that can be told."""
        if n > self._max_value:
            raise TemplateLimitError(f"it makes a value of more than {self._max_value} characters or elements")
        self._n_made += n
        if self._n_made > self._max_made:
            raise TemplateLimitError(f"it makes more than {self._max_made} characters and elements")
        self.step(1 + n // _PER_STEP)

    def weigh(self, *values: Any) -> int:
        """Characters and elements, each as often as it would be written out: shared ones count again."""
        n, todo = 0, list(values)
        while todo:
            value = todo.pop()
            if isinstance(value, str):
                n += 1 + len(value)
            elif isinstance(value, int):
                n += 1 + value.bit_length() // 3
            elif isinstance(value, range):
                n += 1 + len(value)
            else:
                parts = _parts(value)
                n += 1 + len(parts)
                if n <= self._max_value:
                    todo.extend(parts)
            if n > self._max_value:
                raise TemplateLimitError(f"it handles a value of more than {self._max_value} characters or elements")
        return n


_METER: ContextVar[_Meter] = ContextVar("lazygguf_template_meter")


def _parts(value: Any) -> Sequence[Any]:
    """What a value shows when it is written, compared or hashed."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, Namespace):
        return list(getattr(value, "_Namespace__attrs", {}).items())
    if isinstance(value, (AbstractSet, ValuesView)):
        return list(value)
    return ()


def _check_nodes(tree: nodes.Template) -> None:
    n, todo = 0, [cast(nodes.Node, tree)]
    while todo:
        n += 1
        todo.extend(todo.pop().iter_child_nodes())
    if n > MAX_NODES:
        raise TemplateLimitError(f"it has {n} parts, expected at most {MAX_NODES}")


class _Counting(NodeTransformer):
    """Puts a counting filter at each place that repeats, or where the generated code works without a hook."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, _step_statement(node))
        if node.test is not None:
            node.test = nodes.And(_filter(nodes.Const(None, lineno=node.lineno), "_step"), node.test)
        return node

    def _body(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, _step_statement(node))
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = visit_FilterBlock = visit_Block = _body  # noqa: N815

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "_join")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filter(node.expr, "_compared")
        for operand in node.ops:
            operand.expr = _filter(operand.expr, "_compared")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, "_slice") if isinstance(node.arg, nodes.Slice) else node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.key = _filter(node.key, "_compared")
        return node


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _step_statement(node: nodes.Node) -> nodes.ExprStmt:
    return nodes.ExprStmt(_filter(nodes.Const(None, lineno=node.lineno), "_step"), lineno=node.lineno)


def _step(_: Any) -> bool:
    _METER.get().step()
    return True


def _compared(value: Any) -> Any:
    if value is not None and not isinstance(value, (bool, float)):
        _METER.get().handle(value)
    return value


def _slice(value: Any) -> Any:
    _METER.get().make(_length(value))
    return value


@pass_eval_context
def _join(eval_context: nodes.EvalContext, values: list[Any]) -> str:
    meter = _METER.get()
    meter.make(meter.weigh(values))
    return str(str_join(values)) if not eval_context.autoescape else markup_join(values)


@pass_context
def _finalize(_: Any, value: Any) -> Any:
    """Called for each expression that is written, before it becomes text."""
    if not isinstance(value, str):
        meter = _METER.get()
        meter.make(meter.weigh(value))
    return value


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple, dict)) else 1


def _number(value: Any) -> None:
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise TemplateLimitError(f"it uses a width or count of {_short(value)}, expected at most {MAX_NUMBER}")


def _short(value: int) -> str:
    return str(value) if value.bit_length() < 64 else f"2 ** {value.bit_length() - 1}"


def _format_size(meter: _Meter, pattern: str, mark: str, values: Any) -> int:
    """At most this many characters: each place may show all values."""
    if _WIDE_FORMAT.search(pattern):
        raise TemplateLimitError("it formats text with a width of 4 or more digits or one that is computed")
    return len(pattern) + pattern.count(mark) * (1000 + meter.weigh(values))


def _replace_size(text: str, old: str, new: str) -> int:
    return len(text) + (text.count(old) if old else len(text) + 1) * len(new)


class _Lazy(Iterator[Any]):
    """What ``map`` and ``select`` give, with each element counted."""

    def __init__(self, source: Iterator[Any], chain: int) -> None:
        if chain > MAX_CHAIN:
            raise TemplateLimitError(f"it has more than {MAX_CHAIN} lazy filters behind one another")
        self._source = source
        self.chain = chain

    def __next__(self) -> Any:
        _METER.get().step()
        return next(self._source)


def _counted(name: str, function: Callable[..., Any], is_filter: bool) -> Callable[..., Any]:
    """A filter or test that counts what it handles and makes."""
    n_passed = int(hasattr(function, "jinja_pass_arg"))

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        meter = _METER.get()
        given = args[n_passed:]
        if not is_filter:
            if name in _COMPARING:
                meter.handle(*given)
            else:
                meter.step()
            return function(*args, **kwargs)
        if name in _CHEAP:
            meter.step()
            return function(*args, **kwargs)
        size = _filter_size(meter, name, given, kwargs)
        meter.make(size)
        result = function(*args, **kwargs)
        if isinstance(result, Iterator):
            chain = max((value.chain for value in given if isinstance(value, _Lazy)), default=0)
            return _Lazy(result, chain + 1)
        return result

    return counted


def _filter_size(meter: _Meter, name: str, given: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The size of what a filter makes at most, before it makes it."""
    size = meter.weigh(*given, kwargs)
    values = [*given[1:], *kwargs.values()]
    if name in ("map", "select", "reject", "default", "d", "int", "float", "format"):
        numbers: Iterable[Any] = ()
    else:
        numbers = values
    for value in numbers:
        _number(value)
    text = given[0] if given else None
    if name == "format":
        return size + _format_size(meter, str(text), "%", values)
    if name == "center":
        return size + MAX_NUMBER
    if name == "indent":
        width = given[1] if len(given) > 1 else kwargs.get("width", 4)
        return size + (str(text).count("\n") + 1) * (len(width) if isinstance(width, str) else int(width))
    if name == "join":
        between = given[1] if len(given) > 1 else kwargs.get("d", "")
        return size * (1 + len(str(between)))
    if name == "replace" and len(given) > 2:
        return size + _replace_size(str(text), str(given[1]), str(given[2]))
    if name == "sum" and not isinstance(given[2] if len(given) > 2 else kwargs.get("start", 0), (int, float)):
        raise TemplateLimitError("it sums what are no numbers")
    if name in ("slice", "batch"):
        return size + sum(abs(value) for value in values if isinstance(value, int))
    return size


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Optional[int] = None,
    separators: Optional[tuple[str, str]] = None,
    sort_keys: bool = False,
) -> str:
    """As in transformers, piece by piece."""
    meter = _METER.get()
    meter.handle(value, indent, separators)
    _number(indent)
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    pieces = []
    for piece in encoder.iterencode(value):
        meter.make(len(piece))
        pieces.append(piece)
    return "".join(pieces)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox that counts."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, **kwargs: Any) -> None:
        extensions = [Jinja2ChatFormatter.IgnoreGenerationTags, loopcontrols]
        super().__init__(
            loader=jinja2.BaseLoader(), extensions=extensions, optimized=False, finalize=_finalize, **kwargs
        )
        self.globals.pop("lipsum", None)
        self.filters = {name: _counted(name, f, True) for name, f in self.filters.items() if name in _FILTERS}
        self.filters.update(tojson=_tojson, _step=_step, _compared=_compared, _slice=_slice, _join=_join)
        tests = cast(dict[str, Callable[..., Any]], self.tests)
        self.tests = {name: _counted(name, f, False) for name, f in tests.items()}

    def concat(self, pieces: Iterable[str]) -> str:
        """Joins what is written, by the whole template or by a macro."""
        meter, n, kept = _METER.get(), 0, []
        for piece in pieces:
            n += len(piece)
            if n > meter.max_output:
                raise TemplateLimitError(f"it writes more than {meter.max_output} characters")
            meter.make(len(piece))
            kept.append(piece)
        return "".join(kept)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if not isinstance(argument, (str, int)):
            _METER.get().handle(argument)  # it is hashed
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        meter = _METER.get()
        if operator == "+":
            meter.make(_length(left) + _length(right))
        elif operator == "%" and isinstance(left, str):
            meter.make(_format_size(meter, left, "%", right))
        elif operator != "%":
            meter.make(_product_size(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        meter = _METER.get()
        meter.step()
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps str.format
        owner = getattr(method, "__self__", None)
        name = getattr(method, "__name__", "")
        for kind, allowed in _METHODS:
            if isinstance(owner, kind):
                if name not in allowed:
                    raise TemplateLimitError(f"it calls {kind.__name__}.{name}, which a template may not")
                meter.make(_method_size(meter, owner, name, args, kwargs))
                break
        else:
            if not isinstance(__obj, Macro):  # what a macro is given is counted where it is used
                meter.make(meter.weigh(args, kwargs))
        return super().call(__context, __obj, *args, **kwargs)


def _product_size(operator: str, left: Any, right: Any) -> int:
    if isinstance(left, int) and isinstance(right, int):
        if operator == "*":
            bits = left.bit_length() + right.bit_length()
        else:
            bits = left.bit_length() * max(0, right)
        if bits > MAX_BITS and abs(left) > 1:
            raise TemplateLimitError(f"it computes a number of more than {MAX_BITS} bits")
        return 1
    n, many = (left, right) if isinstance(left, int) else (right, left)
    return _length(many) * max(0, n) if isinstance(n, int) else 1


def _method_size(meter: _Meter, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The size of what a built-in method makes at most, before it makes it."""
    if not isinstance(owner, str):
        return _length(owner) if name in ("copy", "count", "index") else 1
    size = 1 + len(owner) + meter.weigh(args, kwargs)
    if name in _WIDTH_METHODS:
        for value in args:
            _number(value)
        width = args[0] if args and isinstance(args[0], int) else 8
        return size + (owner.count("\t") if name == "expandtabs" else 1) * abs(width)
    if name == "join":
        return size * (1 + len(owner))
    if name == "replace" and len(args) > 1:
        return size + _replace_size(owner, str(args[0]), str(args[1]))
    if name in ("format", "format_map"):
        return size + _format_size(meter, owner, "{", (args, kwargs))
    return size
