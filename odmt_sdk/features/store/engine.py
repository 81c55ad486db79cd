"""What an engine needs to write the shards of a store in other processes."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from odmt_sdk.features.extractor import TokenExtractor


class ExtractorRecipe(NamedTuple):
    """How a process makes the extractor of a modality.

    Args:
        build: makes the extractor.
        provenance: of the extractor that the store was planned with.
    """

    build: Callable[[], TokenExtractor]
    provenance: Mapping[str, Any]

    def make(self, modality: str) -> TokenExtractor:
        """Make the extractor.

        Args:
            modality: name of the modality, for messages.

        Returns:
            The extractor.

        Raises:
            ValueError: if the extractor of this process would make other tokens.
        """
        extractor = self.build()
        found = json.loads(json.dumps(extractor.provenance))
        wanted = json.loads(json.dumps(self.provenance))
        for key in (*wanted, *found):
            if found.get(key) != wanted.get(key):
                raise ValueError(
                    f"the {modality} extractor of this worker has {key}={found.get(key)!r}, the "
                    f"one of the program that started it has {wanted.get(key)!r}; give both the "
                    'same files and, on different devices, precision="float32" or "bfloat16"'
                )
        return extractor


class ShardJob(Protocol):
    """One shard to write, with everything that a worker needs besides the extractor."""

    @property
    def modality(self) -> str:
        """Name of the modality."""

    @property
    def size(self) -> int:
        """Number of values to encode."""

    def write(self, extractor: TokenExtractor) -> None:
        """Write the shard.

        Args:
            extractor: encodes the values.

        Raises:
            ValueError: if an item is not given, or tokens are not finite.
            OSError: if writing fails.
        """


class ExtractionEngine(Protocol):
    """Writes shards in other processes, perhaps of other machines; see `RayExtraction`."""

    def run(
        self, recipes: Mapping[str, ExtractorRecipe], jobs: Sequence[ShardJob]
    ) -> Iterator[int]:
        """Write shards.

        Args:
            recipes: modality -> how to make its extractor.
            jobs: the shards to write, in any order.

        Yields:
            The number of values of each shard that has been written.
        """
