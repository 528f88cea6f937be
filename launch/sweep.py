"""Runs the variants of a config one after another, each in a folder of its own, and reports across them."""

from collections.abc import Collection
from pathlib import Path

from ml_collections import ConfigDict

from gentrain import console, files
from gentrain.errors import Corrupted, GentrainError, LostPeer, ReportError, Stopped, first_line
from gentrain.options import check
from gentrain.runtime import signals


def sweep(
    config: ConfigDict,
    workdir: Path,
    mode: str,
    stop: signals.Stop,
    allow: Collection[str] = (),
    step: str | None = None,
) -> None:
    """Trains (or evaluates, or samples, at a step) every variant; what was done before is not done again.

    A variant that fails is named and the others run; the first failure is raised at the end. A signal, a device that
    computes wrongly and a fault of the program end the sweep at once, and so does any failure in several processes: it
    may be one process's alone, which the others, in a collective, would wait for.
    """
    import jax

    from gentrain import train
    from gentrain.look import look
    from gentrain.reporting import report

    variants = check.variants(config)
    primary = jax.process_index() == 0
    failed: dict[str, GentrainError] = {}
    for number, (name, variant) in enumerate(variants.items(), 1):
        if primary:
            console.say(f"[{number}/{len(variants)}] {name}")
        try:
            if mode == "train":
                train.train(variant, workdir / name, stop, allow=allow)
            else:
                look(variant, workdir / name, mode, allow, step)
        except (Stopped, LostPeer, Corrupted):
            raise
        except GentrainError as error:
            if jax.process_count() > 1:
                raise
            failed[name] = type(error)(*error.args)  # without the frames, which hold the variant's arrays
            console.say(f"{name} failed, exit code {error.exit_code}: {first_line(error)}")
        done = {name: workdir / name for name in list(variants)[:number] if name not in failed}
        reasons = {name: f"{first_line(error)} (exit code {error.exit_code})" for name, error in failed.items()}
        if mode == "train" and primary and number < len(variants):
            report.refresh(done, workdir, reasons)
    if mode == "train" and primary:
        try:
            page = report.compare(done, workdir, reasons, config.report.figures)
            conclusion = files.read_json(workdir / "report.json").get("conclusion", [])
            console.say("\n".join(conclusion))
            console.say(f"{'all' if not failed else f'{len(done)} of {len(variants)} variants'} done: {page}")
        except ReportError as error:
            failed["the report"] = error
    if failed:
        first = next(iter(failed.values()))
        raise type(first)(f"{first} ({'; '.join(failed)} failed; the same command tries again)")
