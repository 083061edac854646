"""Every field of every stage at its published or neutral default; the other configs start from this one and change what they need.

A preset after a colon sets the model size and the task set that it is published for: `--config=configs/base.py:48M` or `:48M-mt30`
for the 30 tasks of MT30, `:48M-mt80` for the 80 of MT80. Sizes: 1M, 5M, 19M, 48M, 317M, TD-MPC2's (arXiv 2310.16828); some of
them have another embedding or latent on MT80, so a model of one set is loaded only by its own preset.
"""

from ml_collections import ConfigDict

SIZES = {
    "1M": dict(enc_hidden=(256,), mlp_hidden=(384, 384), latent_dim=128, task_dim=96),
    "5M": dict(enc_hidden=(256,), mlp_hidden=(512, 512), latent_dim=512, task_dim=64),
    "19M": dict(enc_hidden=(1024,) * 2, mlp_hidden=(1024, 1024), latent_dim=512, task_dim=64),
    "48M": dict(enc_hidden=(1792,) * 3, mlp_hidden=(1792, 1792), latent_dim=768, task_dim=64),
    "317M": dict(enc_hidden=(4096,) * 4, mlp_hidden=(4096, 4096), latent_dim=1376, task_dim=96),
}
MT80_SIZES = {
    "1M": SIZES["1M"],
    "5M": SIZES["5M"] | dict(task_dim=96),
    "19M": SIZES["19M"] | dict(latent_dim=768, task_dim=96),
    "48M": SIZES["48M"] | dict(task_dim=96),
    "317M": SIZES["317M"],
}
PRESETS = {
    **SIZES,
    **{f"{size}-mt30": fields for size, fields in SIZES.items()},
    **{f"{size}-mt80": fields for size, fields in MT80_SIZES.items()},
}


def get_config(preset: str = "5M") -> ConfigDict:
    """The published multi-task settings at one of the published model sizes: see `PRESETS`."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
    config = ConfigDict()
    config.seed = 0
    config.tasks = "mt80" if preset.endswith("-mt80") else "mt30"  # or comma-separated names
    config.dataset = ""  # directory of the offline data; empty: <workdir>/dataset
    # With a `task`, only the share `kept` of its episodes is used; world models learn from all, the `others`, or its `own`.
    config.subset = ConfigDict(dict(task="", kept=1.0, model_tasks="all"))
    config.pretrained = ""  # workdir whose world model is used; empty: this workdir
    config.num_workers = 0  # processes that step environments; 0: one a core

    config.model = ConfigDict(
        dict(
            **PRESETS[preset],
            regulariser="simnorm",
            simnorm_dim=8,
            simnorm_temperature=1.0,
            reward_head="two_hot",
            reward_space="symlog",
            num_bins=101,
            bin_low=-10.0,
            bin_high=10.0,
            termination_head=False,
            mask_actions=True,
            model_ensemble=1,
            residual_dynamics=False,
            normalise_obs=False,
            num_q=0,
            q_dropout=0.01,
            prior_log_std_low=-5.0,
            prior_log_std_high=0.5,
            matmul_dtype="float32",
        )
    )
    config.world_model = ConfigDict(
        dict(
            horizon=16,
            batch_size=1024,
            rho=0.99,
            consistency_coef=20.0,
            reward_coef=0.1,
            termination_coef=1.0,
            normalise_reward=False,
            lr=3e-4,
            encoder_lr_scale=0.3,
            final_lr=1e-5,
            clip_norm=20.0,
            value_coef=0.1,
            target_q_rate=0.01,
            prior_lr=3e-4,
            prior_entropy_coef=1e-4,
            prior_clip_norm=20.0,
        )
    )
    config.policy = ConfigDict(
        dict(
            dynamics="model",
            horizon=16,
            batch_size=512,
            gamma=0.99,
            lam=0.95,
            critic_target="td_lambda",
            bootstrap_power_offset=0,
            detach_actor_input=True,
            normalise_returns=True,
            min_return_scale=0.0,
            actor_hidden=(400, 200, 100),
            critic_hidden=(400, 200),
            num_critics=3,
            log_std_init=-1.0,
            log_std_floor=-1.427,
            actor_lr=5e-4,
            critic_lr=5e-4,
            final_lr=1e-5,
            adam_b1=0.7,
            adam_b2=0.95,
            actor_clip_norm=1.0,
            critic_clip_norm=100.0,
            critic_passes=8,
            critic_minibatches=4,
            target_critic=1.0,
            task_discounts=False,
            task_conditioned=False,
            reward_scale=1.0,
            entropy_coef=0.0,
            start_balance=0.0,
            behaviour_weight=0.0,
            behaviour_kept=1.0,
            behaviour_filter="none",
            uncertainty_penalty=0.0,
            exploration_bonus=0.0,
            matmul_dtype="float32",
        )
    )
    # `sources` are collected in alphabetical order, each under its name. kind: random, expert (Meta-World's scripted policies), policy
    # (those of an extraction or online run, found in the directory `workdir`), dataset (episodes of the dataset directory `path`).
    # `shipped` names a compact dataset file to unpack instead of collecting.
    config.collect = ConfigDict(
        dict(shipped="", episodes_per_shard=100, envs_per_task=4, sources=dict(random=dict(kind="random", episodes=100)))
    )
    config.pretrain = ConfigDict(
        dict(
            steps=1_000_000,
            log_every=100,
            eval_every=5_000,
            checkpoint_every=5_000,
            heldout_fraction=0.05,
            eval_windows=256,
            balance="frames",
            device_bytes=8 << 30,
            devices=0,
            shard_parameters=False,
        )
    )
    config.extract = ConfigDict(
        dict(
            tasks=(),
            seeds=(0,),
            steps=10_000,
            log_every=100,
            eval_every=1_000,
            eval_episodes=10,
            checkpoint_every=1_000,
            max_episodes=2_000,
            policies_per_batch=0,
        )
    )
    config.generalist = ConfigDict(config.extract.to_dict() | dict(batch_size=0))
    config.bc = ConfigDict(dict(steps=10_000, log_every=500, batch_size=256, hidden=(400, 200, 100), lr=1e-3))
    config.mppi = ConfigDict(
        dict(
            guide="policy",
            seeds=(),
            envs_per_batch=0,
            horizon=3,
            iterations=6,
            num_samples=512,
            num_prior=24,
            num_elites=64,
            min_std=0.05,
            max_std=2.0,
            temperature=0.5,
        )
    )
    config.evaluate = ConfigDict(dict(episodes=10, seed=1_000, methods=("extracted", "bc", "data", "random"), videos=1, picture=192))
    config.online = ConfigDict(
        dict(
            tasks=(),
            adaptation_rounds=0,
            env_steps=1_000_000,
            envs_per_task=64,
            steps_per_epoch=16,
            wm_updates=8,
            policy_updates=1,
            seed_steps=10_000,
            noise_hold=1,
            replay_capacity=1_000_000,
            imagine_from="replay",
            eval_every=50_000,
            eval_episodes=10,
            checkpoint_every=100_000,
            policies_per_batch=0,
            save_replay=True,
        )
    )
    config.single_task = ConfigDict(
        dict(
            seeds=(0,),
            env_steps=1_000_000,
            num_envs=64,
            steps_per_epoch=16,
            wm_updates=8,
            policy_updates=1,
            seed_steps=10_000,
            replay_capacity=1_000_000,
            eval_every=50_000,
            eval_envs=32,
            checkpoint_every=200_000,
            seeds_per_batch=1,
            save_replay=False,
        )
    )
    config.convert = ConfigDict(dict(read="", write="", q_heads=True))
    config.export = ConfigDict(dict(source="extract", formats=("npz", "stablehlo")))
    # `published`, mt30 or mt80, shows the scores beside the published ones of that set.
    config.report = ConfigDict(dict(study="", publish="", published=""))
    return config
