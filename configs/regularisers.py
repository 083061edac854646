"""The latent's regulariser: is a model that predicts worse the better one to learn in? `--config=configs/regularisers.py`.

A study of experiments/ablation.py on the quickstart's tasks and data. Some variants, after a colon, and one seed take about 15 minutes on 2
cores: `--config=configs/regularisers.py:relu,none,simnorm --config.sweep.seeds='(0,)'`; the whole of it takes some three hours.
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


def get_config(names: str = ",".join(VARIANTS)) -> ConfigDict:
    """Plain ReLU, LayerNorm with Mish ("none"), spectral norm, and SimNorm of several group sizes and temperatures; three seeds."""
    config = study_of("regularisers", {name: dict(model=changes) for name, changes in VARIANTS.items()}, names)
    config.model.residual_dynamics = False
    return config


def study_of(
    name: str,
    variants: dict[str, dict[str, dict[str, object]]],
    names: str,
    methods: tuple[str, ...] = ("extracted",),
    base: ConfigDict | None = None,
) -> ConfigDict:
    """A study of experiments/ablation.py on `base`, or the quickstart: those of `variants` that the comma-separated `names` say."""
    chosen = names.split(",")
    unknown = [variant for variant in chosen if variant not in variants]
    if unknown:
        raise ValueError(f"unknown variants {', '.join(unknown)}; there are {', '.join(variants)}")
    config = quickstart.get_config() if base is None else base
    config.sweep = ConfigDict(dict(study=name, seeds=(0, 1, 2), processes=1, measure=True, publish=""))
    config.measure = ConfigDict(dict(windows=16, samples=128, chunk=32, horizon=16, directions=16, length=0.1))
    config.methods = methods
    config.variants = ConfigDict({variant: variants[variant] for variant in chosen})
    return config
