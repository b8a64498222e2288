"""What the project promises of each precision: how far a runtime may be from the golden vectors."""

from kdas_edge.bundle.manifest import Precision, Tolerance

# A manifest may ask for more, not for less: a bundle cannot wave itself through with wide
# tolerances of its own.
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(probability=1e-4, disagreement=0.005),
    # every activation may be rounded to 11 bits, differently on each device; the mask counts
    "fp16": Tolerance(probability=1.0, disagreement=0.005),
    # probabilities of int8 kernels differ at the rounding edges; the mask is what counts
    "int8": Tolerance(probability=1.0, disagreement=0.005),
    # the expected probabilities are of the network with these very weights, so float rounding only
    "int8_weights": Tolerance(probability=1e-4, disagreement=0.005),
}
