"""One model of a server's model repository."""

from dataclasses import dataclass

from kdas_edge.bundle.manifest import InputContract, ModelFile

# the number of the folder that holds a model's files
VERSION = "1"


@dataclass(frozen=True)
class Served:
    """One model of a repository.

    Attributes:
        name: in the server's URLs, and the model's folder.
        model: of the bundle.
        contract: of its input.
    """

    name: str
    model: ModelFile
    contract: InputContract
