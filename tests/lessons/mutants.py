"""Wrong answers made by machine: one small change of the syntax tree of a right one."""

import ast
import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

MODULES = {"torch", "F", "np", "numpy", "math", "nn", "itertools", "functools", "re"}
SWAPPED_OPERATORS = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div, ast.Add],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
    ast.Mod: [ast.FloorDiv],
    ast.Pow: [ast.Mult],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
}
SWAPPED_COMPARISONS = {
    ast.Lt: [ast.LtE, ast.Gt],
    ast.LtE: [ast.Lt, ast.GtE],
    ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.LtE],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
}
SWAPPED_NAMES = {
    name: other
    for pair in [
        ("max", "min"), ("amax", "amin"), ("argmax", "argmin"), ("tril", "triu"), ("sum", "mean"),
        ("stack", "cat"), ("floor", "ceil"), ("round", "floor"), ("any", "all"), ("sin", "cos"),
        ("softmax", "log_softmax"), ("zeros_like", "ones_like"), ("zeros", "ones"),
        ("startswith", "endswith"), ("lstrip", "rstrip"), ("removeprefix", "removesuffix"),
        ("log", "exp"), ("cumsum", "cumprod"),
    ]
    for name, other in (pair, pair[::-1])
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A changed function. what: its name, and the statement that is changed, as it is now."""

    what: str
    function: Callable


def mutants_of(function: Callable) -> list[Mutant]:
    """All changed versions of a function that Python can compile, each once."""
    while isinstance(function, partial):
        function = function.func
    found = []
    tree = copy.deepcopy(_tree_of(function))
    tree.decorator_list, tree.returns = [], None
    parameters = list(inspect.signature(function).parameters)
    texts = {ast.unparse(tree)}
    for what, changed in _changed_trees(tree, parameters):
        text = ast.unparse(changed)
        if text in texts:
            continue
        texts.add(text)
        made = _compiled(changed, function)
        if made is not None:
            found.append(Mutant(f"{function.__name__}: {what}", made))
    return found


def _tree_of(function: Callable) -> ast.FunctionDef | ast.Lambda:
    """The part of its file that a function was made from."""
    code = function.__code__
    with open(code.co_filename) as file:
        tree = ast.parse(file.read())
    kind = ast.Lambda if code.co_name == "<lambda>" else ast.FunctionDef
    arguments = code.co_varnames[: code.co_argcount]
    for node in ast.walk(tree):
        if isinstance(node, kind) and node.lineno == code.co_firstlineno:
            named = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            if tuple(named) == arguments:
                return node
    raise LookupError(f"no source of {code.co_name} in {code.co_filename}")


def _compiled(tree: ast.FunctionDef | ast.Lambda, like: Callable) -> Callable | None:
    space = dict(like.__globals__)
    try:
        if isinstance(tree, ast.Lambda):
            return eval(
                compile(ast.fix_missing_locations(ast.Expression(tree)), "mutant", "eval"), space
            )
        module = ast.fix_missing_locations(ast.Module([tree], []))
        exec(compile(module, "mutant", "exec"), space)
    except (SyntaxError, ValueError, TypeError, NameError):
        return None
    return space[tree.name]


def _changed_trees(tree: ast.AST, parameters: list[str]) -> Iterator[tuple[str, ast.AST]]:
    """Each change as words, and the tree with it."""
    told = set(ast.walk(tree.args)) | {n for n in ast.walk(tree) if _is_docstring(n)}
    statement = _statements(tree)
    for node in [node for node in ast.walk(tree) if node not in told]:
        put = partial(_put, tree, statement[node])
        for field, value in ast.iter_fields(node):
            if isinstance(value, list):
                for i, one in enumerate(value):
                    for new in _instead(one, field, parameters):
                        yield from put(value, i, new)
                for new in _lists_instead(node, field, value):
                    yield from put(value, slice(None), new)
            elif isinstance(value, ast.AST) and field != "args":
                for new in _instead(value, field, parameters):
                    yield from put(node.__dict__, field, new)


def _statements(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    """The innermost statement that each part stands in; a lambda is one."""
    found = {tree: tree}
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            found[child] = child if isinstance(child, ast.stmt) else found[node]
    return found


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _put(
    tree: ast.AST, statement: ast.AST, holder: dict | list, key: str | int | slice, new: Any
) -> Iterator[tuple[str, ast.AST]]:
    """The tree with new in this place, which is put back afterwards."""
    old = holder[key]
    holder[key] = new
    try:
        if isinstance(new, ast.Pass):
            yield f"without {_words(old)}", copy.deepcopy(tree)
        else:
            changed = new if isinstance(new, ast.stmt) else statement
            yield _words(changed), copy.deepcopy(tree)
    finally:
        holder[key] = old


def _words(node: ast.AST) -> str:
    try:
        return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split("\n")[0]
    except (AttributeError, ValueError):
        return type(node).__name__


def _instead(node: ast.AST, field: str, parameters: list[str]) -> Iterator[ast.AST]:
    """What may stand in the place of an expression or a statement."""
    if isinstance(node, ast.BinOp):
        yield from _of_operation(node)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for new in SWAPPED_COMPARISONS.get(type(node.ops[0]), ()):
            yield ast.Compare(node.left, [new()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        yield from node.values
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Constant):
        yield from _of_constant(node)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and field != "func":
        if node.id in parameters:
            yield from (ast.Name(p, ast.Load()) for p in parameters if p != node.id)
    elif isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        yield node.value
    elif isinstance(node, ast.Slice):
        yield from _of_slice(node)
    elif isinstance(node, ast.AugAssign | ast.If | ast.Expr | ast.Continue | ast.Break):
        if _is_docstring(node):
            return
        yield ast.Pass()
        if isinstance(node, ast.If):
            yield ast.If(ast.Constant(True), node.body, node.orelse)
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
        yield ast.Pass()
    if isinstance(node, ast.If | ast.IfExp) and not isinstance(node.test, ast.UnaryOp):
        kind, rest = type(node), (node.body, node.orelse)
        yield kind(ast.UnaryOp(ast.Not(), node.test), *rest)


def _of_operation(node: ast.BinOp) -> Iterator[ast.AST]:
    for new in SWAPPED_OPERATORS.get(type(node.op), ()):
        yield ast.BinOp(node.left, new(), node.right)
    if isinstance(node.op, ast.Sub | ast.Div | ast.Pow | ast.MatMult | ast.FloorDiv | ast.Mod):
        yield ast.BinOp(node.right, node.op, node.left)
    if isinstance(node.op, ast.Mult | ast.Div | ast.Pow | ast.Add | ast.Sub | ast.BitAnd):
        yield node.left


def _of_constant(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield from (ast.Constant(value + 1), ast.Constant(value - 1))
    elif isinstance(value, str) and value:
        yield ast.Constant("")


def _of_call(node: ast.Call) -> Iterator[ast.AST]:
    of_module = isinstance(node.func, ast.Attribute) and (
        isinstance(node.func.value, ast.Name) and node.func.value.id in MODULES
    )
    if isinstance(node.func, ast.Attribute):
        if not of_module:
            yield node.func.value  # a dropped step
        if node.func.attr in SWAPPED_NAMES:
            func = ast.Attribute(node.func.value, SWAPPED_NAMES[node.func.attr], ast.Load())
            yield ast.Call(func, node.args, node.keywords)
    elif isinstance(node.func, ast.Name) and node.func.id in SWAPPED_NAMES:
        yield ast.Call(ast.Name(SWAPPED_NAMES[node.func.id], ast.Load()), node.args, node.keywords)
    if node.args and (of_module or isinstance(node.func, ast.Name)):
        yield node.args[0]
    for i in range(len(node.keywords)):
        yield ast.Call(node.func, node.args, [*node.keywords[:i], *node.keywords[i + 1 :]])
    for i in range(len(node.args) - 1):
        swapped = [*node.args[:i], node.args[i + 1], node.args[i], *node.args[i + 2 :]]
        yield ast.Call(node.func, swapped, node.keywords)
    if len(node.args) > 1 or (node.args and not of_module):
        yield ast.Call(node.func, node.args[:-1], node.keywords)


def _of_slice(node: ast.Slice) -> Iterator[ast.AST]:
    parts = {"lower": node.lower, "upper": node.upper, "step": node.step}
    for name, part in parts.items():
        if part is not None:
            yield ast.Slice(**(parts | {name: None}))


def _lists_instead(node: ast.AST, field: str, value: list) -> Iterator[list]:
    """A condition of a comprehension dropped; neighbours of a tuple swapped."""
    if field == "ifs":
        yield from ([*value[:i], *value[i + 1 :]] for i in range(len(value)))
    if isinstance(node, ast.Tuple | ast.List) and isinstance(node.ctx, ast.Load):
        for i in range(len(value) - 1):
            yield [*value[:i], value[i + 1], value[i], *value[i + 2 :]]
