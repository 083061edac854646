"""Damaged and hostile files of exported policies; the zip format keeps a checksum of every array."""

import dataclasses
import io
import json
import zipfile

import numpy as np
from guard import Reader
from mutation import counts, mutate_bytes, mutate_json

from pwm_jax.portable import Layer, PolicyFileError, PortablePolicy, encoded, load_policy


def policy(seed: int) -> PortablePolicy:
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    layers = (
        Layer(draw(3, 8), draw(8), "norm, mish", draw(8), draw(8)),
        Layer(draw(8, 4), draw(4), "norm, simnorm", draw(4), draw(4)),
        Layer(draw(4, 2), draw(2)),
    )
    return PortablePolicy("toy", seed, 2, layers, simnorm_dim=2, obs_mean=draw(3), obs_var=np.abs(draw(3)))


OBS = np.random.default_rng(0).normal(size=(5, 3))


def everything(path) -> list:
    loaded = load_policy(path)
    plain = [getattr(loaded, field.name) for field in dataclasses.fields(loaded) if not field.name.startswith(("obs", "layers"))]
    return [*plain, loaded(OBS).tobytes()]


@counts(150, 2500)
def test_a_damaged_policy(tmp_path, count):
    rng, reader, path = np.random.default_rng(count), Reader(PolicyFileError, tmp_path), tmp_path / "policy.npz"
    whole, other = encoded(policy(1)), encoded(policy(2))
    path.write_bytes(whole)
    wanted = everything(path)
    for number in range(count):
        what, changed = mutate_bytes(rng, whole, other)
        path.write_bytes(changed)
        reader.meet(lambda: everything(path), f"{number}: {what}", lambda found: found == wanted)
    reader.done("policies")


@counts(100, 1500)
def test_a_policy_whose_checksums_fit(tmp_path, count):
    """As somebody who means harm would write it: what is accepted acts, in finite numbers within [-1, 1]."""
    rng, reader, path = np.random.default_rng(count), Reader(PolicyFileError, tmp_path), tmp_path / "policy.npz"
    with zipfile.ZipFile(io.BytesIO(encoded(policy(1)))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    about = json.loads(str(np.load(io.BytesIO(members["about.npy"]))))
    for number in range(count):
        name = str(rng.choice(list(members)))
        if rng.uniform() < 0.6:
            name, (what, text) = "about.npy", mutate_json(rng, about)
            buffer = io.BytesIO()
            np.save(buffer, np.array(text))
            changed = buffer.getvalue()
        else:
            what, changed = mutate_bytes(rng, members[name], members["kernel_0.npy"])
        with zipfile.ZipFile(path, "w", int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
            for member, content in members.items():
                archive.writestr(member, changed if member == name else content)

        def act():
            with np.errstate(all="ignore"):
                return load_policy(path)(OBS)

        reader.meet(act, f"{number}: {what} of {name}", lambda found: found.shape[0] == 5 and bool((np.abs(found) <= 1).all()))
    reader.done("policies with checksums made to fit")
