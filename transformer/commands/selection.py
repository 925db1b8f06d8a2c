"""Which checkpoint of a run a command took, in words."""

from pathlib import Path

from transformer.cli import print_aside
from transformer.config import load_config
from transformer.hub import is_model_id
from transformer.training.integrity import averaged_steps
from transformer.training.metrics import read_metrics
from transformer.training.run_directory import checkpoints, step_of


def report_checkpoint(given: str | Path, taken: str) -> None:
    """Print on standard error which checkpoint was taken, and a note if it is not the newest.

    Args:
        given: a run, a checkpoint or a hub id, as for `locate_checkpoint`.
        taken: the name that `locate_checkpoint` returned for it.
    """
    if is_model_id(given) or Path(given) == Path(taken):
        print_aside(f"checkpoint: {taken}")
        return
    run, path = Path(given), Path(taken)
    is_inside = path.parent == run and step_of(path) >= 0  # of a run's directory of checkpoints
    run = run.parent if is_inside else run
    steps = averaged_steps(path / "model.safetensors") if step_of(path) < 0 else []
    validated = [record["step"] for record in read_metrics(run) if record["kind"] == "validation"]
    print_aside(f"checkpoint: {taken} ({_kind(path, steps, len(validated), is_inside)})")
    newest = max([*checkpoints(run / "checkpoints"), *checkpoints(run / "best")], key=step_of, default=path)
    if steps and step_of(newest) > max(steps):
        print_aside(f"note: {newest} is newer than this average")
    elif step_of(newest) > step_of(path) >= 0 and step_of(newest) not in validated:
        print_aside(f"note: {newest} is newer and was not validated")


def _kind(path: Path, steps: list[int], num_validations: int, is_inside: bool) -> str:
    if step_of(path) < 0:
        return f"average of the steps {', '.join(map(str, steps))}" if steps else "average"
    if path.parent.name != "best":
        return "the last of the directory" if is_inside else "the last; none is kept as the best"
    measure = load_config(path / "config.yaml", saved=True).train.best_measure
    return f"best validation {measure} of {num_validations}" if num_validations else f"best validation {measure}"
