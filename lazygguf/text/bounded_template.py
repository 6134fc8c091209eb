"""A chat template whose work is bounded.

A template is a program that comes with a model file. Jinja's sandbox keeps it away from Python's insides, but lets it
loop for ever or fill the memory. Here every loop, call, filter, operator and comparison is counted
(``template_limits.py``), and what it makes of a message's text stays marked as said (``said_text.py``). Owns what a
template may call; knows no messages.

How: the template's syntax tree gets a counting step at each place that repeats, and the environment's own hooks
(``call``, ``call_binop``, ``getitem``, ``concat``, the filters and tests) do the rest. What a template writes is the
same as without.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable, Optional, Union, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_context, pass_eval_context
from jinja2.visitor import NodeTransformer
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from . import said_text
from .said_text import SaidText, written
from .template_limits import (
    MAX_CHAIN,
    METER,
    WIDTH_METHODS,
    Meter,
    TemplateLimitError,
    check_number,
    filter_size,
    format_size,
    length,
    method_size,
    product_size,
)

# Compiling takes seconds and 200 MB at these limits. Known templates have up to 17 KB and 1,300 nodes.
MAX_CHARS = 1 << 17
MAX_NODES = 10_000  # of the syntax tree


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS = _names(
    "abs attr batch capitalize center count d default dictsort e escape filesizeformat first float forceescape format "
    "groupby indent int items join last length list lower map max min random reject rejectattr replace reverse round "
    "safe select selectattr slice sort string sum title tojson trim truncate unique upper urlencode wordcount"
)
_CHEAP = _names("attr count d default first last length")  # their work does not depend on the value's size
_COMPARING = _names("in == eq equalto != ne > gt greaterthan >= ge < lt lessthan <= le")
_METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (
        str,
        WIDTH_METHODS
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
        """What the template writes; a ``SaidText`` where some of it was said.

        Args:
            values: the template's variables; their size is what the limits grow with.

        Raises:
            TemplateLimitError: it takes more than it may.
            Exception: whatever else Jinja or the template's own ``raise_exception`` raise.
        """
        token = METER.set(Meter(values))
        try:
            return self._template.render(values)
        finally:
            METER.reset(token)


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

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> nodes.Node:  # noqa: N802
        raise TemplateLimitError("it turns autoescape on, which is for HTML")

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
    METER.get().step()
    return True


def _compared(value: Any) -> Any:
    if value is not None and not isinstance(value, (bool, float)):
        METER.get().handle(value)
    return value


def _slice(value: Any) -> Any:
    METER.get().make(length(value))
    return value


def _join(values: list[Any]) -> str:
    """What ``~`` gives."""
    meter = METER.get()
    meter.make(meter.weigh(values))
    return said_text.joined([written(value) for value in values])


@pass_eval_context
def _join_filter(
    eval_context: nodes.EvalContext, value: Iterable[Any], d: Any = "", attribute: Union[str, int, None] = None
) -> str:
    """Jinja's filter ``join``."""
    if attribute is not None:
        value = map(make_attrgetter(eval_context.environment, attribute), value)
    return said_text.between(written(d), [written(part) for part in value])


@pass_context
def _finalize(_: Any, value: Any) -> str:
    """Called for each expression that is written."""
    if not isinstance(value, str):
        meter = METER.get()
        meter.make(meter.weigh(value))
    return written(value)


class _Lazy(Iterator[Any]):
    """What ``map`` and ``select`` give, with each element counted."""

    def __init__(self, source: Iterator[Any], chain: int) -> None:
        if chain > MAX_CHAIN:
            raise TemplateLimitError(f"it has more than {MAX_CHAIN} lazy filters behind one another")
        self._source = source
        self.chain = chain

    def __next__(self) -> Any:
        METER.get().step()
        return next(self._source)


def _counted(name: str, function: Callable[..., Any], is_filter: bool) -> Callable[..., Any]:
    """A filter or test that counts what it handles and makes."""
    n_passed = int(hasattr(function, "jinja_pass_arg"))

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        meter = METER.get()
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
        size = filter_size(meter, name, given, kwargs)
        meter.make(size)
        result = function(*args, **kwargs)
        if isinstance(result, str):
            return _marked(
                name, result, given, kwargs, lambda values, more: function(*args[:n_passed], *values, **more)
            )
        if isinstance(result, Iterator):
            chain = max((value.chain for value in given if isinstance(value, _Lazy)), default=0)
            return _Lazy(result, chain + 1)
        return result

    return counted


_OF_METHODS = {"trim": "strip", **{name: name for name in ("capitalize", "lower", "replace", "title", "upper")}}


def _marked(
    name: str, result: str, given: tuple[Any, ...], kwargs: dict[str, Any], fill: Callable[[Any, Any], Any]
) -> str:
    """What a filter gives, with the marks of the texts that it was given."""
    if isinstance(result, SaidText) or not given:
        return result
    text = given[0]
    if name == "string":
        return written(text)
    if isinstance(text, SaidText) and text == result:  # "safe", and what changed nothing
        return text
    if name == "format":
        values = (given[1:], kwargs)
        return cast(str, said_text.filled_in(text, lambda v: fill((text, *v[0]), v[1]), values, result))
    if name in _OF_METHODS:
        texts = [value if isinstance(value, int) else written(value) for value in given[1:] if value is not None]
        return cast(str, said_text.method_result(written(text), _OF_METHODS[name], texts, kwargs, result))
    return cast(str, said_text.derived(result, given, kwargs))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Optional[int] = None,
    separators: Optional[tuple[str, str]] = None,
    sort_keys: bool = False,
) -> str:
    """As in transformers, piece by piece."""
    meter = METER.get()
    meter.handle(value, indent, separators)
    check_number(indent)
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    pieces = []
    for piece in encoder.iterencode(value):
        meter.make(len(piece))
        pieces.append(piece)
    return cast(str, said_text.derived("".join(pieces), value))


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox that counts."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, **kwargs: Any) -> None:
        extensions = [Jinja2ChatFormatter.IgnoreGenerationTags, loopcontrols]
        super().__init__(
            loader=jinja2.BaseLoader(), extensions=extensions, optimized=False, finalize=_finalize, **kwargs
        )
        self.globals.pop("lipsum", None)
        self.filters["join"] = _join_filter
        self.filters = {name: _counted(name, f, True) for name, f in self.filters.items() if name in _FILTERS}
        self.filters.update(tojson=_tojson, _step=_step, _compared=_compared, _slice=_slice, _join=_join)
        tests = cast(dict[str, Callable[..., Any]], self.tests)
        self.tests = {name: _counted(name, f, False) for name, f in tests.items()}

    def concat(self, pieces: Iterable[str]) -> str:
        """Joins what is written, by the whole template or by a macro."""
        meter, n, kept = METER.get(), 0, []
        for piece in pieces:
            n += len(piece)
            if n > meter.max_output:
                raise TemplateLimitError(f"it writes more than {meter.max_output} characters")
            meter.make(len(piece))
            kept.append(piece)
        return said_text.joined(kept)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if not isinstance(argument, (str, int)):
            METER.get().handle(argument)  # it is hashed
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        meter = METER.get()
        if operator == "+":
            meter.make(length(left) + length(right))
            result = super().call_binop(context, operator, left, right)
            if SaidText not in (type(left), type(right)) or not isinstance(result, str):
                return result
            made = said_text.joined([left, right])
            return made if made == result else said_text.derived(result, left, right)  # escaped as HTML
        if operator == "%" and isinstance(left, str):
            meter.make(format_size(meter, left, "%", right))
            result = super().call_binop(context, operator, left, right)
            return said_text.filled_in(left, lambda values: left % values, right, result)
        if operator != "%":
            meter.make(product_size(operator, left, right))
            for text, n in ((left, right), (right, left)):
                if isinstance(text, SaidText) and isinstance(n, int):
                    return said_text.repeated(text, n)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        meter = METER.get()
        meter.step()
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps str.format
        owner = getattr(method, "__self__", None)
        name = getattr(method, "__name__", "")
        if isinstance(owner, str) and name == "join" and len(args) == 1 and not isinstance(args[0], (str, Mapping)):
            args = (list(args[0]),)
        for kind, allowed in _METHODS:
            if isinstance(owner, kind):
                if name not in allowed:
                    raise TemplateLimitError(f"it calls {kind.__name__}.{name}, which a template may not")
                meter.make(method_size(meter, owner, name, args, kwargs))
                break
        else:
            if not isinstance(__obj, Macro):  # what a macro is given is counted where it is used
                meter.make(meter.weigh(args, kwargs))
        call = functools.partial(super().call, __context, __obj)
        result = call(*args, **kwargs)
        if not isinstance(owner, str):
            is_followed = isinstance(owner, tuple(kind for kind, _ in _METHODS)) or isinstance(
                __obj, (Macro, LoopContext)
            )
            return result if is_followed or not isinstance(result, str) else said_text.derived(result, args, kwargs)
        if name in ("format", "format_map"):
            return said_text.filled_in(owner, lambda values: call(*values[0], **values[1]), (args, kwargs), result)
        return said_text.method_result(owner, name, args, kwargs, result)
