"""The latent's regulariser: is a model that predicts worse the better one to learn in? `--config=configs/regularisers.py`.

A study of experiments/ablation.py on a task of each suite, with the quickstart's data; half an hour on 2 cores for the six variants of the
default. Others after a colon: `--config=configs/regularisers.py:simnorm-4,simnorm-cold`. A task with contacts is the study of
configs/regularisers_hopper.py.
"""

from ml_collections import ConfigDict

from configs import quickstart

# Without residual dynamics, which are SimNorm's, but for the last.
VARIANTS: dict[str, dict[str, object]] = {
    **{name: dict(regulariser=name) for name in ("relu", "none", "spectral", "simnorm")},
    **{f"simnorm-{size}": dict(simnorm_dim=size) for size in (2, 4, 16, 32)},
    "simnorm-cold": dict(simnorm_temperature=0.5),
    "simnorm-warm": dict(simnorm_temperature=2.0),
    "simnorm-residual": dict(residual_dynamics=True),
}


DEFAULT = "relu,none,spectral,simnorm,simnorm-2,simnorm-32"


def get_config(names: str = DEFAULT) -> ConfigDict:
    """Plain ReLU, LayerNorm with Mish ("none"), spectral norm, and SimNorm of several group sizes and temperatures; three seeds."""
    config = study_of("regularisers", {name: dict(model=changes) for name, changes in VARIANTS.items()}, names)
    config.model.residual_dynamics = False
    return config


def study_of(
    name: str,
    variants: dict[str, dict],
    names: str = "",
    methods: tuple[str, ...] = ("extracted",),
    base: ConfigDict | None = None,
) -> ConfigDict:
    """A study of experiments/ablation.py on `base`, or `small()`: those of `variants` that the comma-separated `names` say, or all."""
    chosen = names.split(",") if names else list(variants)
    unknown = [variant for variant in chosen if variant not in variants]
    if unknown:
        raise ValueError(f"unknown variants {', '.join(unknown)}; there are {', '.join(variants)}")
    config = small() if base is None else base
    # Two processes of one core each suit a CPU; on an accelerator one process, and all members at once (per_batch 0), are faster.
    config.sweep = ConfigDict(dict(study=name, seeds=(0, 1, 2), per_batch=1, processes=2, measure=True, publish=""))
    config.measure = ConfigDict(dict(windows=8, samples=64, chunk=32, horizon=16, directions=8, length=0.1))
    config.methods = methods
    config.variants = ConfigDict({variant: dict(variants[variant]) for variant in chosen})
    return config


def small(tasks: tuple[str, ...] = ("cartpole-swingup", "mw-door-close")) -> ConfigDict:
    """The quickstart on some of its tasks, in twice the updates of half as many windows, and shorter extraction.

    With half of the networks' width and fewer updates most policies stay at the data's level, whatever the regulariser.
    """
    config = quickstart.get_config()
    config.tasks = ",".join(tasks)
    config.world_model.batch_size = 128
    config.pretrain.update(steps=3_600 * len(tasks), log_every=200, checkpoint_every=1_200)
    config.extract.update(steps=1_000, checkpoint_every=500, eval_every=500)
    config.generalist.update(config.extract)
    return config
