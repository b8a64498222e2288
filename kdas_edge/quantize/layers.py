"""Layers of a network by their module names, found in NNCF's graph of operations.

NNCF names operations by the call: `backbone/0/conv_dw/conv2d/1` is the second call of a `conv_dw`
below some module `0`, whichever block that is. A weighted operation is therefore named by the
module that owns its weight (`backbone.blocks.1.0.conv_dw`), any other by its place and kind
(`sam.matmul`), all calls together.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kdas_edge.errors import UserError
from kdas_edge.quantize.toolkit import import_nncf

_CONST = "nncf_model_const"
# SmoothQuant's multiplications live in hooks, and NNCF names them so
_IN_HOOK = "pre_hook__"
_ENDS = ("nncf_model_input", "nncf_model_output")

# an input of an operation: its name in NNCF's graph, and the port
Port = tuple[str, int]


@dataclass(frozen=True)
class LayerGraph:
    """The operations of a float network and the layers that they form.

    Attributes:
        operations: layer → names of its operations, in the order of the calls.
        layer_of: operation → layer; pass-through operations (reshape, concatenation …) have none.
        readers: (operation or input, output port) → the ports that read what comes out there.
        joining: the pass-through operations that make one tensor of several, or several of one.
        bias_of: layer → name of the parameter by which NNCF corrects its bias, where there is one:
            that of the batch normalisation behind a convolution, else the layer's own.
    """

    operations: dict[str, tuple[str, ...]]
    layer_of: dict[str, str]
    readers: dict[Port, tuple[Port, ...]]
    joining: frozenset[str]
    bias_of: dict[str, str]

    def consumers(self, port: Port) -> tuple[set[Port], set[str]]:
        """Where a tensor that enters at `port` is computed with.

        Returns:
            The ports of these operations, and the pass-through operations on the way there.
        """
        name, _ = port
        if name in self.layer_of:
            return {port}, set()
        found: set[Port] = set()
        passed = {name}
        for (source, _), readers in self.readers.items():
            if source == name:
                for reader in readers:
                    ports, between = self.consumers(reader)
                    found |= ports
                    passed |= between
        return found, passed


def layer_graph(network: nn.Module, size: int) -> LayerGraph:
    """Trace a network once, in eval mode.

    Args:
        network: float, returns `(z1, z2)`; SmoothQuant's factors may be in it, quantisers not.
        size: side S of its input, in pixels.
    """
    import_nncf()
    from nncf.common.quantization.quantizer_propagation.structs import QuantizationTrait
    from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import build_nncf_graph
    from nncf.torch.graph.operator_metatypes import PTBatchNormMetatype, PTSplitMetatype
    from nncf.torch.model_graph_manager import OPERATORS_WITH_BIAS_METATYPES
    from nncf.torch.quantization.default_quantization import DEFAULT_PT_QUANT_TRAIT_TO_OP_DICT

    device = next(network.parameters()).device
    with torch.no_grad():
        graph = build_nncf_graph(network.eval(), torch.zeros(1, 3, size, size, device=device))
    traits = DEFAULT_PT_QUANT_TRAIT_TO_OP_DICT
    joins = {*traits[QuantizationTrait.CONCAT], PTSplitMetatype}
    passing = {*traits[QuantizationTrait.QUANTIZATION_AGNOSTIC], *joins}

    operations: dict[str, list[str]] = {}
    layer_of: dict[str, str] = {}
    readers: dict[Port, tuple[Port, ...]] = {}
    joining: set[str] = set()
    bias_of: dict[str, str] = {}
    for node in graph.topological_sort():
        if node.node_type == _CONST:
            continue
        edges = graph.get_output_edges(node)
        for edge in edges:
            source = (node.node_name, edge.output_port_id)
            target = (edge.to_node.node_name, edge.input_port_id)
            if edge.to_node.node_type not in _ENDS:
                readers[source] = (*readers.get(source, ()), target)
        if node.metatype in joins:
            joining.add(node.node_name)
        if node.node_type in _ENDS or node.metatype in passing or _IN_HOOK in node.node_name:
            continue
        layer = _layer_name(graph, node)
        operations.setdefault(layer, []).append(node.node_name)
        layer_of[node.node_name] = layer
        behind = [edge.to_node for edge in edges if edge.to_node.metatype is PTBatchNormMetatype]
        bias = _constant(graph, behind[0] if behind else node, ".bias")
        if bias is not None and node.metatype in OPERATORS_WITH_BIAS_METATYPES:
            bias_of[layer] = bias
    return LayerGraph(
        operations={layer: tuple(names) for layer, names in operations.items()},
        layer_of=layer_of,
        readers=readers,
        joining=frozenset(joining),
        bias_of=bias_of,
    )


def ignored_operations(network: nn.Module, size: int, ignored: Iterable[str]) -> list[str]:
    """Return NNCF's names of the operations that stay in float.

    Args:
        network: float, in deploy form; put in eval mode.
        size: side S of its input, in pixels.
        ignored: names of layers or of modules, which mean all layers below them.

    Raises:
        UserError: a name that is no layer; the nearest is suggested.
    """
    wanted = list(ignored)
    if not wanted:
        return []
    graph = layer_graph(network, size)
    names = []
    for name in wanted:
        found = [layer for layer in graph.operations if _below(layer, name)]
        if not found:
            close = difflib.get_close_matches(name, graph.operations, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]!r}?" if close else "name a module, for example cim"
            raise UserError(f"ptq.ignored: {name!r} is no layer of the network; {hint}")
        names += [operation for layer in found for operation in graph.operations[layer]]
    return sorted(set(names))


def _below(layer: str, name: str) -> bool:
    return layer == name or layer.startswith(name + ".")


def _layer_name(graph: Any, node: Any) -> str:
    weight = _constant(graph, node, ".weight")
    if weight is not None:
        return weight.removesuffix(".weight")
    return str(node.node_name).rsplit("/", 1)[0].replace("/", ".").strip(".")


def _constant(graph: Any, node: Any, suffix: str) -> str | None:
    """The name of a parameter that the operation reads, `module.weight` or `module.bias`."""
    for edge in graph.get_input_edges(node):
        name = str(edge.from_node.node_name)
        if edge.from_node.node_type == _CONST and name.endswith(suffix):
            return name
    return None
