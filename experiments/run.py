"""The main job end to end: collect, pretrain, bc, extract, evaluate, report, each resuming where it stopped.

python -m experiments.run --config=configs/quickstart.py --workdir=runs/quickstart
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from experiments import launch


def main(config: ConfigDict, workdir: Path) -> None:
    """Run the stages in order; finished ones only check that they are."""
    from experiments import bc, collect, evaluate, extract, pretrain, report

    for name, stage in (
        ("collect", collect),
        ("pretrain", pretrain),
        ("bc", bc),
        ("extract", extract),
        ("evaluate", evaluate),
    ):
        with launch.stage(workdir, name, config):
            stage.main(config, workdir)
    report.main(config, workdir)


if __name__ == "__main__":
    launch.run(main, stage=None, config="configs/quickstart.py")
