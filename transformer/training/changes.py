"""Going on with other values of keys that shape the result: `transformer train CONFIG --change`."""

from collections.abc import Iterator

from transformer.config import Config
from transformer.data.dataset import PairDataset
from transformer.training.data import BatchSampler
from transformer.training.distributed import SINGLE_PROCESS
from transformer.training.run_keys import CHANGEABLE_KEYS, changed_values, yaml_value
from transformer.training.training_state import Progress

# With other values, the updates of an epoch consist of other pairs.
_PLAN_KEYS = {"seed", "train.batching", "train.tokens_per_update"}


def apply_changes(progress: Progress, pairs: PairDataset, before: Config, now: Config) -> Iterator[str]:
    """Make progress agree with a changed configuration; yields lines for the user.

    If updates consist of other pairs than before, training goes on at the beginning of the next epoch.

    Args:
        progress: of the checkpoint; changed in place.
        pairs: the training data.
        before: the configuration of the checkpoint.
        now: that of this start.
    """
    changed = changed_values(before, now, CHANGEABLE_KEYS)
    for key, (old, new) in changed.items():
        yield f"{key}: {yaml_value(old)} → {yaml_value(new)}"
    ends = [settings.decay_end for settings in (before.train, now.train)]
    if "train.schedule" not in changed and ends[0] != ends[1]:
        yield f"train.schedule={now.train.schedule} ends at step {ends[0]} → {ends[1]}"
    # A mixed update is drawn before it is split into batches.
    keys = _PLAN_KEYS | ({"train.max_tokens"} if before.train.batching == "bucketed" else set())
    if not changed.keys() & keys:
        return
    sampler = BatchSampler(pairs, before.train, before.seed, SINGLE_PROCESS)
    epoch = progress.epoch
    sampler.skip_epoch(progress)
    if progress.epoch != epoch:
        yield f"updates consist of other pairs from now on: training leaves epoch {epoch} and begins epoch {epoch + 1}"
