"""Mixed precision: some layers of a quantised network compute in float again.

No range is calibrated anew. The fake quantisers before a layer are taken out of NNCF's storage of
hooks, and its bias loses the correction that made up for them. What is left is an ordinary
quantised network with fewer quantisers: it is saved, loaded and exported like any other.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdas_edge.models.architecture import SegmentationNetwork
from kdas_edge.quantize.layers import LayerGraph, Port, layer_graph
from kdas_edge.quantize.toolkit import import_nncf

_PRE = "pre_hooks"


@dataclass(frozen=True)
class _Hook:
    """One place of one hook, under NNCF's name for it, and the module that runs there.

    `consumers` are the inputs that read what the hook gives, for a quantiser; `movable` says that
    the quantiser may sit at these inputs as well as here.
    """

    name: str
    module: nn.Module
    consumers: frozenset[Port] | None
    movable: bool


class MixedNetwork:
    """A quantised network whose layers can be returned to float and back.

    Args:
        quantized: from `post_training_quantize` or `load_quantized`; changed in place.
        float_state: the float student's `state_dict`, if the network has not been trained since it
            was quantised: a layer that returns gets the bias back that it had. None after
            fine-tuning, which has made the biases its own.
    """

    def __init__(
        self, quantized: SegmentationNetwork, float_state: Mapping[str, Tensor] | None = None
    ) -> None:
        import_nncf()
        from nncf.torch.function_hook.hook_storage import decode_hook_name
        from nncf.torch.function_hook.wrapper import get_hook_storage
        from nncf.torch.quantization.layers import BaseQuantizer

        self.network = quantized
        self._storage = get_hook_storage(quantized)
        stored = list(self._storage.named_hooks(remove_duplicate=False))
        quantisers = {name for name, module in stored if isinstance(module, BaseQuantizer)}
        self._clear()
        for name, module in stored:
            if name not in quantisers:  # SmoothQuant's factors: the weights are divided by them
                self._storage.insert_hook_by_name(name, module)
        self._graph = layer_graph(quantized, quantized.architecture.size)
        places = {name: decode_hook_name(name) for name, _ in stored}
        taken = {(operation, port) for kind, operation, port in places.values() if kind == _PRE}
        self._hooks: list[_Hook] = []
        for name, module in stored:
            if name not in quantisers:
                self._hooks.append(_Hook(name, module, None, False))
                continue
            kind, operation, port = places[name]
            consumers, passed = _consumers(self._graph, kind, (operation, port))
            # one range per tensor commutes with a reshape, not with a concatenation of ranges;
            # and where an input has hooks already, their order would decide
            movable = not consumers & taken and (
                not passed or (not module.per_channel and not passed & self._graph.joining)
            )
            self._hooks.append(_Hook(name, module, frozenset(consumers), movable))
        self._parameters = dict(quantized.named_parameters())
        self._biases = self._corrected_biases(float_state)
        self._layers = tuple(
            layer
            for layer in self._graph.operations
            if any(self._reads(hook, {layer}) for hook in self._hooks)
        )
        self.set_float(())

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers with a quantised input or weight, in the order of computation."""
        return self._layers

    def set_float(self, layers: Collection[str]) -> None:
        """Compute these layers in float and all others in int8.

        A quantiser whose result only these layers read disappears; one that others read as well
        moves to their inputs.

        Raises:
            KeyError: no such layer.
        """
        chosen = set(layers)
        unknown = chosen - set(self._layers)
        if unknown:
            raise KeyError(f"no quantised layer {sorted(unknown)[0]!r}")
        self._clear()
        for hook in self._hooks:
            reads = hook.consumers or frozenset()
            rest = {port for port in reads if self._layer(port) not in chosen}
            if reads and not rest:
                continue
            if rest == reads or not hook.movable:
                self._storage.insert_hook_by_name(hook.name, hook.module)
                continue
            for port in sorted(rest):
                self._storage.register_pre_function_hook(*port, hook.module)
        with torch.no_grad():
            for layer, (corrected, plain) in self._biases.items():
                bias = self._parameters[self._graph.bias_of[layer]]
                bias.copy_(plain if layer in chosen else corrected)

    def _clear(self) -> None:
        self._storage.pre_hooks.clear()
        self._storage.post_hooks.clear()

    def _layer(self, port: Port) -> str | None:
        return self._graph.layer_of.get(port[0])

    def _reads(self, hook: _Hook, layers: set[str]) -> bool:
        return any(self._layer(port) in layers for port in hook.consumers or ())

    def _corrected_biases(
        self, float_state: Mapping[str, Tensor] | None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer → its bias as corrected for int8, and as it was in float."""
        pairs = {}
        for layer, name in self._graph.bias_of.items():
            if float_state is not None and name in float_state and name in self._parameters:
                own = self._parameters[name].detach().clone()
                pairs[layer] = (own, float_state[name].to(own.device))
        return pairs


def fewest(total: int, passes: Callable[[int], bool]) -> int | None:
    """Find the least count in 1…total that passes, by doubling and then bisection.

    Whoever passes with n is expected to pass with more. Where that is not so, the answer still
    passes, and the count before it on the way did not.

    Args:
        total: the largest count.
        passes: whether a count of layers is enough; called at most about 2·log₂(total) times,
            never twice for one.

    Returns:
        The count, or None if the doubling reached `total` and it did not pass.
    """
    failed, count = 0, 1
    while total > 0:
        count = min(count, total)
        if passes(count):
            break
        if count == total:
            return None
        failed, count = count, 2 * count
    else:
        return None
    while count - failed > 1:
        middle = (failed + count) // 2
        if passes(middle):
            count = middle
        else:
            failed = middle
    return count


def in_words(layers: Sequence[str], total: int, most: int = 4) -> str:
    """Say which layers are in float, for example `2 of 83 layers in float: cim.mul, head2`."""
    named = ", ".join(layers[:most]) + (" …" if len(layers) > most else "")
    return f"{len(layers)} of {total} layers in float: {named}"


def _consumers(graph: LayerGraph, kind: str, port: Port) -> tuple[set[Port], set[str]]:
    found: set[Port] = set()
    passed: set[str] = set()
    for start in [port] if kind == _PRE else graph.readers.get(port, ()):
        ports, between = graph.consumers(start)
        found |= ports
        passed |= between
    return found, passed
