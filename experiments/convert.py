"""Turn a published TD-MPC2 or PWM checkpoint into a pre-trained world model, and back: FILE -> <workdir>/pretrain, or the other way.

python -m experiments.convert --config=configs/tdmpc2.py:48M-mt30 --config.convert.read=mt30-48M.pt --workdir=runs/mt30-48M
python -m experiments.convert --config=configs/tdmpc2.py:48M-mt30 --config.convert.write=model.pt --workdir=runs/my_model

TD-MPC2's own files of 2023 do not hold the range of their prior's log-std: say --config.model.prior_log_std_low=-10 and _high=2, where the
preset has PWM's -5 and 0.5. Policies are then extracted with --config.pretrained=runs/mt30-48M in a working directory of their own.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from experiments import launch
from experiments.settings import ConfigError
from pwm_jax.config import check_fields

NOT_IN_SHAPES = (
    "simnorm_dim",
    "bin_low",
    "bin_high",
    "reward_space",
    "mask_actions",
    "q_dropout",
    "prior_log_std_low",
    "prior_log_std_high",
)


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """`read` a checkpoint file into the workdir, or `write` the workdir's model to a file. `q_heads` False leaves TD-MPC2's Q heads
    and policy prior out, which only planning needs. What shapes do not tell is the config's: tasks, the fields of `NOT_IN_SHAPES` in
    `config.model`; the prior's range only for files that do not hold it.
    """

    read: str = ""
    write: str = ""
    q_heads: bool = True

    def __post_init__(self) -> None:
        check_fields(self, "convert")
        if self.read and self.write:
            raise ValueError("convert.read and convert.write are two commands: give one of them")


def main(config: ConfigDict, workdir: Path) -> None:
    """Read or write one file."""
    settings = launch.to_dataclass(ConvertConfig, config.convert, where="config.convert")
    if settings.read:
        with launch.stage(workdir, "convert", config):
            _read(settings, config, workdir)
    elif settings.write:
        _write(settings, config, workdir)
    else:
        raise ConfigError("nothing to convert: set config.convert.read=FILE, or config.convert.write=FILE to write the workdir's model")


def _read(settings: ConvertConfig, config: ConfigDict, workdir: Path) -> None:
    import jax
    import jax.numpy as jnp

    from experiments import stages
    from pwm_jax import checkpoint, pwm, tdmpc2_checkpoint

    directory, task_set = workdir / "pretrain", stages.task_set_of(config)
    if checkpoint.latest_step(directory) is not None:
        raise checkpoint.CheckpointError(f"{directory} holds a world model already: choose another --workdir")
    wanted = stages.algorithm_of(config, task_set)
    model = wanted.model
    imported = tdmpc2_checkpoint.tree_of(
        tdmpc2_checkpoint.read_state(settings.read),
        model.action_dims,
        model.discounts,
        settings.q_heads,
        **{name: getattr(model, name) for name in NOT_IN_SHAPES},
    )
    if (imported.model.obs_dim, imported.model.action_dim) != (task_set.obs_dim, task_set.action_dim):
        raise tdmpc2_checkpoint.CheckpointFormatError(
            f"{settings.read} is for {imported.model.obs_dim} observations and {imported.model.action_dim} actions, config.tasks "
            f"have {task_set.obs_dim} and {task_set.action_dim}: name the checkpoint's own tasks"
        )
    algorithm = dataclasses.replace(wanted, model=imported.model)
    state = pwm.init_world_model(algorithm, jax.random.key(config.seed))
    state = state.replace(params=jax.tree.map(jnp.asarray, imported.params))
    if state.q is not None:
        state = state.replace(q=state.q.replace(target_params=jax.tree.map(jnp.asarray, imported.target_q)))
    metadata = stages.model_metadata(algorithm, task_set) | {"world_model": dataclasses.asdict(algorithm.world_model)}
    checkpoint.save(directory, 0, state, metadata)
    m = imported.model
    log_std = f"log-std {m.prior_log_std_low:g} to {m.prior_log_std_high:g}, {'the file' if imported.stored_range else 'the config'}'s"
    heads = f"{m.num_q} Q heads and a policy prior ({log_std})" if m.num_q else "no Q heads"
    print(f"{directory}: {task_set.num_tasks} tasks, latent {m.latent_dim}, encoder {m.enc_hidden}, other networks {m.mlp_hidden}, {heads}")
    if imported.ignored:
        print(f"left out, since the model has no place for them: {', '.join(imported.ignored)}")


def _write(settings: ConvertConfig, config: ConfigDict, workdir: Path) -> None:
    from experiments import stages
    from pwm_jax import tdmpc2, tdmpc2_checkpoint

    if not Path(settings.write).absolute().parent.is_dir():
        raise ConfigError(f"config.convert.write: {Path(settings.write).parent} is no directory; make it first")
    state, algorithm, _ = stages.load_world_model(config, workdir)
    target_q = state.q.target_params if state.q is not None and settings.q_heads else None
    params = state.params if target_q is not None else tdmpc2.without_q(state.params)
    tdmpc2_checkpoint.write(settings.write, algorithm.model, params, target_q)
    print(
        f"wrote {settings.write}" + ("" if target_q is not None else ", without Q heads and prior: PWM's code loads it, TD-MPC2's does not")
    )


if __name__ == "__main__":
    launch.run(main, stage=None, config="configs/tdmpc2.py")
