"""What the solver asks of every layer that reads samples: where in the stream it is, and to go elsewhere."""

from __future__ import annotations

from abc import abstractmethod

from dtrain.data.bad_records import BadRecords
from dtrain.layers.layer import NONE, Layer


class DataSource(Layer):
    """A layer that serves the next batch of a stream of samples in every forward pass.

    In TRAIN the ranks share one stream. In TEST one pass over the net is `scope.test_iter` batches, and
    rank r serves the batches r, r + size, r + 2 size, ... of each pass.
    """

    num_bottoms = NONE

    batch_size: int
    """Samples that one forward pass serves on this rank."""
    num_records: int
    """Samples of one epoch; 0 where there are no epochs."""
    source_name: str
    """What is read, as log lines name it; empty where a script hands samples over."""
    waited_s: float
    """Seconds that forward has waited for samples, in all."""
    bad_records: BadRecords | None = None
    """Those that were replaced; None where a bad one always stops."""

    @abstractmethod
    def position(self) -> int:
        """Samples that the whole job has consumed, counting the forward passes that were run."""

    @abstractmethod
    def seek(self, samples: int) -> None:
        """Go on as if the job had consumed so many; reads `scope.seed` anew."""

    @abstractmethod
    def close(self) -> None:
        """End the threads and give back files and memory; calling it again does nothing."""
