"""What a run of operators needs from before and leaves behind, so that it can be replayed without them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from dtrain.kernels.cuda.form import Form
from dtrain.kernels.cuda.storage import Storage


@final
@dataclass
class Trace:
    """Follows every array between `Card.begin_trace` and `end_trace`.

    `place` is kept by whoever runs the layers, for messages. While the run is `captured`, nothing is
    executed: what it needs must be up to date already.
    """

    captured: bool = False
    place: str = ""
    inputs: dict[Storage, Form] = field(default_factory=dict)
    """The form that an array must have when the run begins."""
    touched: dict[Storage, bool] = field(default_factory=dict)
    """Whether the array was written in the run."""
    looked_at: dict[Storage, int] = field(default_factory=dict)
    """Arrays whose values the host has used, with the number of the host's write that made them."""
    on_the_host: list[str] = field(default_factory=list)
    """What the host did that a replay would leave out, and where."""
    ends: dict[Storage, tuple[frozenset[Form], bool]] = field(default_factory=dict)
    """The forms that are up to date in the end, and whether the values are lost to another array."""

    def reads(self, storage: Storage, form: Form) -> None:
        """Before the side is brought up to date."""
        if storage in self.touched:
            return
        self.touched[storage] = False
        if storage.is_bound:
            storage.forget_derived()  # whoever replays this has changed the values in the base form
        needed = form if form in storage.valid else storage.base
        self.inputs[storage] = needed
        if self.captured:
            assert needed in storage.valid, f"{self.place}: what a captured run reads is on the device"
        else:
            storage.bring(needed)

    def writes(self, storage: Storage) -> None:
        self.touched[storage] = True

    def host_reads(self, storage: Storage) -> None:
        """The host uses values that it has itself: a replay is right while it has not changed them."""
        self.looked_at.setdefault(storage, storage.host_version)

    def host(self, what: str) -> None:
        self.on_the_host.append(f"{self.place} {what}" if self.place else what)

    def end(self) -> None:
        self.ends = {storage: (frozenset(storage.valid), storage.is_lost) for storage in self.touched}

    # -- for replays

    def changed_by_host(self) -> list[Storage]:
        """Arrays whose values the run's launches have built in and that have changed since."""
        return [storage for storage, version in self.looked_at.items() if storage.host_version != version]

    def prepare(self) -> None:
        """Bring everything that the run reads up to date."""
        for storage, form in self.inputs.items():
            if form not in storage.valid or storage.is_lent:
                storage.bring(form)

    def conclude(self) -> None:
        """Mark everything as the run leaves it."""
        for storage, written in self.touched.items():
            valid, is_lost = self.ends[storage]
            if written:
                storage.host_is_valid = False
                storage.valid = set(valid)
                storage.is_lost = is_lost
            else:
                storage.valid |= valid
