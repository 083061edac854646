"""Checkpoints: exact round trips, damage, foreign and unfit directories, killed and failed saves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pwm_jax import checkpoint, types
from pwm_jax.checkpoint import CheckpointError


def make_state(seed: int = 0, width: int = 8) -> types.WorldModelState:
    """A trained-looking WorldModelState: optax moments are non-zero after one step."""
    kernel, bias = jax.random.normal(jax.random.key(seed), (4, width)), jnp.arange(width, dtype=jnp.bfloat16)
    params = {"params": {"encoder": {"Dense_0": {"kernel": kernel, "bias": bias}}}}
    tx = optax.chain(optax.clip_by_global_norm(20.0), optax.adam(1e-3))
    _, opt_state = tx.update(params, tx.init(params), params)
    moments = types.Moments(mean=jnp.float32(0.1), var=jnp.float32(1.5), count=jnp.int32(7))
    return types.WorldModelState(step=jnp.int32(seed), params=params, opt_state=opt_state, reward_moments=moments)


def assert_identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("like", [make_state(5), jax.eval_shape(make_state)], ids=["arrays", "shapes"])
def test_round_trip_of_a_world_model_state(tmp_path, like):
    state = make_state(3)
    checkpoint.save(tmp_path, 3, state, {"model": {"width": 8}, "tasks": ["walker-run"]})
    restored, metadata = checkpoint.restore(tmp_path, like)
    assert_identical(restored, state)
    assert isinstance(restored.params["params"]["encoder"]["Dense_0"]["kernel"], jax.Array)
    assert metadata == {"model": {"width": 8}, "tasks": ["walker-run"]}
    assert checkpoint.load_metadata(tmp_path) == metadata


@flax.struct.dataclass
class Mixed:
    """One leaf of every kind."""

    key: jax.Array
    legacy_key: jax.Array
    host: np.ndarray
    empty: np.ndarray
    nothing: None
    number: float
    flag: bool
    pair: tuple


def make_mixed(seed: int) -> Mixed:
    return Mixed(
        key=jax.random.split(jax.random.key(seed, impl="rbg"), 3),
        legacy_key=jax.random.PRNGKey(seed),
        host=np.array([seed, np.nan, -0.0]),
        empty=np.zeros((0, 4), np.float32),
        nothing=None,
        number=0.5 + seed,
        flag=seed > 0,
        pair=(np.int64(seed), jnp.uint8(seed)),
    )


def test_round_trip_of_keys_scalars_and_empty_arrays(tmp_path):
    state = make_mixed(1)
    checkpoint.save(tmp_path, 0, state)
    restored, metadata = checkpoint.restore(tmp_path, make_mixed(0))
    assert metadata == {}
    assert jax.random.key_impl(restored.key) == "rbg"
    np.testing.assert_array_equal(jax.random.key_data(restored.key), jax.random.key_data(state.key))
    np.testing.assert_array_equal(jax.random.normal(restored.key[2], (5,)), jax.random.normal(state.key[2], (5,)))
    np.testing.assert_array_equal(restored.legacy_key, state.legacy_key)
    assert type(restored.host) is np.ndarray
    assert restored.host.tobytes() == state.host.tobytes()
    assert restored.empty.shape == (0, 4)
    assert (restored.number, restored.flag, restored.pair) == (1.5, True, (1, 1))
    assert type(restored.flag) is bool


def test_restore_follows_the_sharding_of_like(tmp_path):
    device = jax.devices()[0]
    checkpoint.save(tmp_path, 0, {"w": jnp.ones(4)})
    restored, _ = checkpoint.restore(tmp_path, {"w": jax.device_put(jnp.zeros(4), device)})
    assert restored["w"].committed
    assert restored["w"].devices() == {device}


def test_keeps_the_newest_and_drops_what_a_run_went_back_before(tmp_path):
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, make_state(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0000000003", "0000000004"]
    checkpoint.save(tmp_path, 3, make_state(30), keep=2)
    assert checkpoint.latest_step(tmp_path) == 3
    assert int(checkpoint.restore(tmp_path, make_state())[0].step) == 30


def test_a_step_can_be_named(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, make_state(step), {"at": step})
    assert int(checkpoint.restore(tmp_path, make_state(), step=1)[0].step) == 1
    assert checkpoint.load_metadata(tmp_path, step=1) == {"at": 1}
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7 .*there are 2, 1"):
        checkpoint.restore(tmp_path, make_state(), step=7)


def flip_a_byte(path: Path) -> None:
    """Damage the largest data file of a checkpoint without changing its length."""
    victim = max((p for p in path.rglob("*") if p.is_file() and "arrays" in p.parts), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0x10
    victim.write_bytes(data)


def truncate_all(path: Path) -> None:
    for file in path.rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)


def delete_arrays(path: Path) -> None:
    for file in (path / "arrays").rglob("*"):
        if file.is_file():
            file.unlink()


def delete_all(path: Path) -> None:
    for file in path.rglob("*"):
        if file.is_file():
            file.unlink()


@pytest.mark.parametrize("damage", [flip_a_byte, truncate_all, delete_arrays, delete_all])
def test_a_damaged_newest_checkpoint_is_passed_over_and_named(tmp_path, caplog, damage):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, make_state(step, width=256))
    damage(tmp_path / "0000000002")
    with caplog.at_level("WARNING"):
        restored, _ = checkpoint.restore(tmp_path, make_state(width=256))
    assert_identical(restored, make_state(1, width=256))
    assert "damaged checkpoint passed over" in caplog.text
    assert "0000000002" in caplog.text
    assert len(caplog.records) == 1
    damage(tmp_path / "0000000001")
    with pytest.raises(CheckpointError, match=r"no whole checkpoint.*Delete it and run the stage"):
        checkpoint.restore(tmp_path, make_state(width=256))


def test_missing_and_foreign_directories(tmp_path):
    assert checkpoint.latest_step(tmp_path / "nowhere") is None
    with pytest.raises(CheckpointError, match=r"nowhere does not exist.*run the stage"):
        checkpoint.restore(tmp_path / "nowhere", make_state())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is empty of checkpoints"):
        checkpoint.load_metadata(tmp_path)
    checkpoint.save(tmp_path, 1, make_state())
    manifest = tmp_path / "0000000001" / "manifest" / "metadata"
    (tmp_path / "0000000001" / "files.json").unlink()
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": "somebody else's"}))
    with pytest.raises(CheckpointError, match="no checkpoint of this version"):
        checkpoint.restore(tmp_path, make_state())


def test_the_first_leaf_that_differs_is_named(tmp_path):
    checkpoint.save(tmp_path, 1, make_state(width=8))
    with pytest.raises(CheckpointError, match=r"params/params/encoder/Dense_0/bias is bfloat16\[8\] in it, bfloat16\[9\] is expected"):
        checkpoint.restore(tmp_path, make_state(width=9))
    state = make_state(width=8)
    with pytest.raises(CheckpointError, match=r"leaf params/new int32\[\] is expected but not in it"):
        checkpoint.restore(tmp_path, state.replace(params={"new": jnp.int32(0), **state.params}))
    with pytest.raises(CheckpointError, match=r"its leaf params/params/encoder/Dense_0/bias bfloat16\[8\] is not expected"):
        checkpoint.restore(tmp_path, state.replace(params={}))
    with pytest.raises(CheckpointError, match=r"step is int32\[\] in it, float32\[\] is expected"):
        checkpoint.restore(tmp_path, state.replace(step=jnp.float32(0)))


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"metadata of checkpoint 1 .* is not JSON"):
        checkpoint.save(tmp_path, 1, make_state(), {"path": tmp_path})
    with pytest.raises(CheckpointError, match="leaf name is a str, not an array"):
        checkpoint.save(tmp_path, 1, {"name": "walker"})
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*file/.*choose a writable directory"):
        checkpoint.save(tmp_path / "file", 1, make_state())
    assert checkpoint.latest_step(tmp_path) is None


def run_python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_four_devices_saved_one_restores(tmp_path):
    code = """
import sys
import jax, jax.numpy as jnp, numpy as np
from pwm_jax import checkpoint
mesh = jax.make_mesh((4,), ("device",))
spread = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("device"))
checkpoint.save(sys.argv[1], 1, {"w": jax.device_put(jnp.arange(8.0), spread), "last": jax.device_put(jnp.ones(2), jax.devices()[3])})
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, timeout=60)
    restored, _ = checkpoint.restore(tmp_path, {"w": jnp.zeros(8), "last": jax.ShapeDtypeStruct((2,), jnp.float32)})
    np.testing.assert_array_equal(restored["w"], np.arange(8.0))
    assert restored["last"].devices() == {jax.devices()[0]}


def test_a_write_that_fails_half_way_leaves_the_older_checkpoint(tmp_path):
    code = """
import resource, signal, sys
import numpy as np
from pwm_jax import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoint.save(sys.argv[1], 1, {"w": np.arange(4)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(sys.argv[1], 2, {"w": np.random.default_rng(0).normal(size=200_000)})
except checkpoint.CheckpointError as error:
    print(error)
"""
    out, err = run_python(code, tmp_path).communicate(timeout=60)
    assert "cannot write checkpoint" in out, err
    assert len(out.splitlines()) == 1
    assert err == ""
    assert checkpoint.latest_step(tmp_path) == 1
    np.testing.assert_array_equal(checkpoint.restore(tmp_path, {"w": np.zeros(4, np.int64)})[0]["w"], np.arange(4))


@pytest.mark.parametrize("kilobytes", [24, 100, 160])
def test_a_disk_that_is_really_full_is_one_line(tmp_path, kilobytes):
    code = """
import sys
import numpy as np
from pwm_jax import checkpoint
state = {f"w{i}": np.random.default_rng(i).normal(size=500) for i in range(20)}
try:
    for step in range(9):
        checkpoint.save(sys.argv[1], step, state, keep=9)
except checkpoint.CheckpointError as error:
    print(step, checkpoint.latest_step(sys.argv[1]), error)
    if step:
        restored, _ = checkpoint.restore(sys.argv[1], state)
        assert all((restored[name] == state[name]).all() for name in state)
"""
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs {tmp_path}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets users make no small file systems")
    command = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" -c "$1" {tmp_path}', sys.executable, code]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    step, last, error = done.stdout.split(maxsplit=2)
    assert last == (str(int(step) - 1) if int(step) else "None")
    assert error == f"cannot write checkpoint {tmp_path}/{int(step):010d}: the disk is full. Free space or choose a writable directory.\n"


def test_a_killed_writer_leaves_a_whole_checkpoint(tmp_path):
    code = """
import sys
import numpy as np
from pwm_jax import checkpoint
for step in range(10_000):
    checkpoint.save(sys.argv[1], step, {f"w{i}": np.full(50_000, step) for i in range(5)})
    print(step, flush=True)
"""
    writer = run_python(code, tmp_path)
    for line in writer.stdout:
        if int(line) == 4:
            break
    time.sleep(0.015)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    like = {f"w{i}": np.zeros(50_000, np.int64) for i in range(5)}
    restored, _ = checkpoint.restore(tmp_path, like)
    step = restored["w0"][0]
    assert step >= 4
    assert all((w == step).all() for w in restored.values())
    checkpoint.save(tmp_path, 20_000, like)
    assert not [p.name for p in tmp_path.iterdir() if "tmp" in p.name]
