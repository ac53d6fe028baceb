"""How a kernel wants a network: tiles of `lanes` subnetworks, and within a tile the subnetwork as innermost index.

Subnetworks are disjoint and alike, so that with this layout every operation runs over whole vectors of them,
whatever the widths of their layers.
"""

import numpy as np
import numpy.typing as npt

from snn.network import Network, subnetworks

Float = npt.NDArray[np.float32]


def first_weights(network: Network, lanes: int) -> Float:
    """[tiles, m, w, lanes] of the first layer."""
    weights = network[0].weights.cpu().numpy()
    return _tiled(weights.reshape(len(weights), subnetworks(network), -1).swapaxes(0, 1), lanes)


def parameters(network: Network, lanes: int) -> Float:
    """[tiles, L], for each layer one behind the other: bias, leak and threshold [w, lanes], the weights above the
    first layer [below, w, lanes], and where it is recurrent V [w, w, lanes]."""
    count, parts = subnetworks(network), []
    for number, layer in enumerate(network):
        own = [(layer.bias, -1.0), (layer.leak, 0.0), (layer.threshold, 1.0)]  # what fills a tile stays silent
        parts += [_tiled(part.cpu().numpy().reshape(count, -1), lanes, filler) for part, filler in own]
        if number > 0:
            parts.append(_tiled(layer.weights.cpu().numpy(), lanes))
        if layer.recurrent is not None:
            parts.append(_tiled(layer.recurrent.cpu().numpy(), lanes))
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def _tiled(values: Float, lanes: int, filler: float = 0.0) -> Float:
    """[P, ...] to [tiles, ..., lanes]."""
    tiles, shape = -(-len(values) // lanes), values.shape[1:]
    filled = np.full((tiles * lanes, *shape), filler, np.float32)
    filled[: len(values)] = values
    return np.ascontiguousarray(np.moveaxis(filled.reshape(tiles, lanes, *shape), 1, -1))
