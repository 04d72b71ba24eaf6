"""What the solver asks of every layer that reads samples: where in the stream it is, and to go elsewhere."""

from __future__ import annotations

from abc import abstractmethod

from dtrain.layers.layer import NONE, Layer


class DataSource(Layer):
    """A layer that serves the next batch of a stream of samples in every forward pass.

    In TRAIN the ranks share one stream. In TEST one pass over the net is `scope.test_iter` batches, and
    rank r serves the batches r, r + size, r + 2 size, ... of each pass.
    """

    num_bottoms = NONE

    batch_size: int
    """Samples that one forward pass serves on this rank."""
    waited_s: float
    """Seconds that forward has waited for samples, in all."""

    @abstractmethod
    def position(self) -> int:
        """Samples that the whole job has consumed, counting the forward passes that were run."""

    @abstractmethod
    def seek(self, samples: int) -> None:
        """Go on as if the job had consumed so many; reads `scope.seed` anew."""
