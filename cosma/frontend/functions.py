"""Local functions: inlined, whatever opset each was written for, as long as that changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cosma.errors import ModelLoadError
from cosma.frontend.nodes import ONNX_DOMAINS, readable

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto


def inline_functions(model: ModelProto) -> ModelProto:
    """Replace every call of a local function by its body.

    An attribute that a call leaves out has the default that its function states. A function of another opset than the
    model's is taken as it is where its operators are the same in both, and converted where they are not. Raises
    ModelLoadError if a function calls itself, directly or through others, a call does not fit its function, or a
    function's operators mean something else in the model's opset and cannot be converted.
    """
    if not model.functions:
        return model
    _check_functions(model)
    from onnx import ModelProto
    from onnx.checker import ValidationError

    unified = ModelProto()
    unified.CopyFrom(model)
    versions = {_domain(entry.domain): entry.version for entry in unified.opset_import}
    for function in unified.functions:
        _unify(function, versions)
    for domain, version in versions.items():
        if all(_domain(entry.domain) != domain for entry in unified.opset_import):
            unified.opset_import.add(domain=domain, version=version)
    try:
        inlined = _inlined(unified)
    except (ValidationError, RuntimeError, ValueError, TypeError) as error:
        raise ModelLoadError(f"the model's local functions cannot be inlined: {error}") from error
    local = {_key(function) for function in model.functions}
    left = next((node for node in _all_nodes(inlined.graph.node) if _called(node) in local), None)
    if left is not None:
        raise ModelLoadError(
            f"node {readable(left.name or left.output[0])!r} calls the local function "
            f"{_named(left.domain, left.op_type)}, which cannot be inlined: its imports do not fit the model's"
        )
    return inlined


def _inlined(model: ModelProto) -> ModelProto:
    """The model without functions. Defaults of attributes, which ONNX's inliner leaves out, are written into calls.

    A body may hand on an attribute that its own call leaves out: the callee's default holds then. So functions with
    defaults around are inlined from outside in, one level at a time.
    """
    from onnx import inliner

    while any(function.attribute_proto for function in model.functions):
        before = len(model.functions)
        inner = list(_all_nodes(node for function in model.functions for node in function.node))
        defaults = {_key(function): function.attribute_proto for function in model.functions}
        for node in (*_all_nodes(model.graph.node), *inner):
            given = {attribute.name for attribute in node.attribute}
            node.attribute.extend(a for a in defaults.get(_called(node), ()) if a.name not in given)
        called = {_called(node) for node in inner}
        outermost = [(f.domain, f.name) for f in model.functions if _key(f) not in called]
        model = inliner.inline_selected_functions(model, outermost)
        if len(model.functions) == before:
            return model
    return inliner.inline_local_functions(model, convert_version=False)


def _key(function: FunctionProto) -> tuple[str, str, str]:
    return function.domain, function.name, function.overload


def _called(node: NodeProto) -> tuple[str, str, str]:
    return node.domain, node.op_type, node.overload


def _domain(domain: str) -> str:
    return "" if domain in ONNX_DOMAINS else readable(domain)


def _named(domain: str, name: str) -> str:
    return readable(f"{domain}.{name}" if domain else name)


def _unify(function: FunctionProto, versions: dict[str, int]) -> None:
    """Bring a function to the opsets of the model, and the model to domains that only the function imports.

    The function is changed in place; ``versions``, the model's version of each domain, gains those it lacks.
    """
    for entry in function.opset_import:
        domain = _domain(entry.domain)
        wanted = versions.setdefault(domain, entry.version)
        if wanted == entry.version:
            continue
        differing = _first_differing(function.node, domain, entry.version, wanted)
        if differing is not None:
            _convert(function, differing, domain, entry.version, wanted)
        entry.version = wanted


def _first_differing(nodes: Iterable[NodeProto], domain: str, old: int, new: int) -> NodeProto | None:
    """The first node, at any depth, whose operator has another definition in the other version of its domain."""
    from onnx import defs

    for node in _all_nodes(nodes):
        if _domain(node.domain) != domain:
            continue
        try:
            before = defs.get_schema(node.op_type, old, domain).since_version
        except defs.SchemaError:
            continue  # no operator of this domain's definitions: versions say nothing about it
        try:
            after = defs.get_schema(node.op_type, new, domain).since_version
        except defs.SchemaError:
            return node
        if before != after:
            return node
    return None


def _all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    stack = list(nodes)[::-1]
    while stack:
        node = stack.pop()
        yield node
        for graph in _subgraphs(node):
            stack.extend(list(graph.node)[::-1])


def _subgraphs(node: NodeProto) -> list[GraphProto]:
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return graphs + [graph for attribute in node.attribute for graph in attribute.graphs]


def _convert(function: FunctionProto, differing: NodeProto, domain: str, old: int, new: int) -> None:
    """Rewrite a function's body for another version of ONNX's operators, with ONNX's own converter.

    Raises ModelLoadError if that is not possible; the message names the function, both versions and the operator that
    differs.
    """
    from onnx import ValueInfoProto, helper, version_converter

    def refused(why: str) -> ModelLoadError:
        return ModelLoadError(
            f"local function {_named(function.domain, function.name)} is written for opset {old} of "
            f"{domain or 'ai.onnx'} and the model imports {new}; {differing.op_type} differs between the two, and "
            f"{why}: export the model with one opset for all"
        )

    if domain:
        raise refused("only ONNX's own operators can be converted")
    if any(attribute.ref_attr_name for node in _all_nodes(function.node) for attribute in node.attribute):
        raise refused("a function whose attributes are parameters cannot be converted")
    if any(_subgraphs(node) for node in function.node):
        raise refused("a function with subgraphs cannot be converted")
    graph = helper.make_graph(
        list(function.node), "function", [ValueInfoProto(name=name) for name in function.input],
        [ValueInfoProto(name=name) for name in function.output],
    )  # fmt: skip
    imports = [helper.make_opsetid(e.domain, e.version) for e in function.opset_import]
    try:
        converted = version_converter.convert_version(helper.make_model(graph, opset_imports=imports), new)
    except (RuntimeError, ValueError, TypeError, version_converter.ConvertError) as error:
        raise refused(f"ONNX's converter fails ({' '.join(str(error).split())[:200]})") from error
    constants = [helper.make_node("Constant", [], [t.name], value=t) for t in converted.graph.initializer]
    yielded = set(function.input) | {name for node in converted.graph.node for name in node.output}
    if not yielded.issuperset(function.output):
        raise refused("ONNX's converter drops one of its results")
    del function.node[:]
    function.node.extend([*constants, *converted.graph.node])


def _check_functions(model: ModelProto) -> None:
    """Refuse functions that call themselves: they have no finite expansion."""
    bodies = {_key(function): function for function in model.functions}
    calls = {
        key: [_called(node) for node in _all_nodes(body.node) if _called(node) in bodies]
        for key, body in bodies.items()
    }
    state: dict[tuple[str, str, str], int] = {}
    for first in bodies:
        stack = [(first, iter(calls[first]))] if first not in state else []
        state.setdefault(first, 1)
        while stack:
            key, rest = stack[-1]
            callee = next(rest, None)
            if callee is None:
                state[key] = 2
                stack.pop()
            elif state.get(callee) == 1:
                walk = [k for k, _ in stack]
                cycle = [*walk[walk.index(callee) :], callee]
                raise ModelLoadError(
                    "local functions call themselves: " + " -> ".join(_named(domain, name) for domain, name, _ in cycle)
                    + "; ONNX forbids recursive functions, so nothing finite can be planned"
                )
            elif callee not in state:
                state[callee] = 1
                stack.append((callee, iter(calls[callee])))
