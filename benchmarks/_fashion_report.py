"""The Fashion-MNIST benchmark's results as Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks._tables import markdown_table

__all__ = ["markdown_report"]

TITLES = {"vog": "VoG (class z-score, the paper's)", "vog_relative": "relative VoG"}
TIMINGS = ("sessions", "data", "gradients", "kernels", "storage", "total")


def markdown_report(results: dict[str, Any]) -> str:
    """Results, as the benchmark writes them to JSON, for a reader."""
    training = results["training"]
    settings = training["settings"]
    last = training["epochs"][-1]
    machine = results["machine"]
    parts = [
        "# Fashion-MNIST: cost of a score run, and errors by decile of the score\n",
        f"{settings['n_train']:,} training and {settings['n_test']:,} test images, {settings['epochs']} checkpoints "
        f"(one per epoch), seed {settings['seed']}, one run. Network: {settings['network']}. "
        f"Training: {settings['optimiser']}, batch {settings['batch_size']}, augmentation {settings['augmentation']}. "
        f"Test accuracy at the last checkpoint: {last['test_accuracy']:.2%}.\n",
        "Directions are reported as measured; nothing was tuned to confirm or refute a claim.\n",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}. "
        f"Versions: {', '.join(f'{name} {version}' for name, version in results['versions'].items())}. "
        f"Written {results['created']}.\n",
        "## Cost\n",
        f"Training took {training['seconds']:.0f} s on {training['threads']} thread(s), exports included"
        f"{' (reused from an earlier run)' if results['training_reused'] else ''}.\n",
        _cost_table(results["commands"]),
        *(f"`{command['command']}`\n" for command in results["commands"]),
        "Wall time and peak memory are of the whole command, interpreter start included; the other columns are what "
        "the command itself measured, in seconds; storage is the score file written once more.\n",
        "## Test error in each decile of the score\n",
        "Per cent wrong among the test images, lowest scores on the left. Were higher scores harder, the rows would "
        "rise.\n",
        _decile_table(results["test"]["stages"]),
        "## Measured directions\n",
        "All score kinds in the score files. Spearman: rank correlation of the score with the loss at the last "
        "checkpoint, with its interval. AUROC: how well the score alone finds the errors of the last checkpoint "
        "(above 0.5: higher scores are the errors).\n",
        _direction_table(results),
    ]
    return "\n".join(parts)


def _cost_table(commands: list[dict[str, Any]]) -> str:
    rows = [
        [
            command["data"],
            f"{command['seconds']:.1f}",
            command["peak_memory_mib"],
            *(_number(command["timings"].get(name), 2) for name in TIMINGS),
        ]
        for command in commands
    ]
    return markdown_table(["data", "wall, s", "peak, MiB", *TIMINGS], rows)


def _decile_table(stages: dict[str, Any]) -> str:
    rows = [
        [f"{TITLES[score]}, {stage}", *(_number(error, 1, 100) for error in errors)]
        for score in TITLES
        for stage, entry in stages.items()
        if (errors := entry["decile_errors"].get(score)) is not None
    ]
    return markdown_table(["score, stage", *(str(decile) for decile in range(1, 11))], rows)


def _direction_table(results: dict[str, Any]) -> str:
    rows = []
    for part in ("train", "test"):
        for stage, entry in results[part]["stages"].items():
            for score, direction in entry["directions"].items():
                interval = f"{_number(direction['spearman_low'], 3)} to {_number(direction['spearman_high'], 3)}"
                rows.append(
                    [
                        f"{part}, {stage}, {score}",
                        direction["claimed"],
                        direction["measured"],
                        f"{_number(direction['spearman_loss'], 3)} ({interval})",
                        _number(direction["auroc_errors"], 3),
                        f"{direction['n_errors']} of {direction['n_examples']}",
                    ]
                )
    return markdown_table(["set, stage, score", "claimed", "measured", "Spearman", "AUROC", "errors"], rows)


def _number(value: float | None, digits: int, factor: float = 1) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"
