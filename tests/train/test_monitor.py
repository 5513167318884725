"""Loss spikes, norms of groups, goodput, and the profile's tables."""

import numpy as np
import pytest

from flanjax.errors import ConfigError
from flanjax.train import goodput as goodput_module
from flanjax.train.goodput import Goodput
from flanjax.train.monitor import MonitorConfig, SpikeWatch, group_norms
from flanjax.train.peak import peak_flops
from flanjax.train.profile import Timed, part, summary


def _noisy_losses(count, seed=0):
    noise = np.random.default_rng(seed).normal(size=count)
    return (2.0 + 0.3 * noise).tolist()


def test_a_planted_spike_is_told_from_noise_and_only_it():
    losses = _noisy_losses(300)
    losses[200] = 9.0
    watch = SpikeWatch(MonitorConfig())
    spikes = {i: usual for i, x in enumerate(losses) if (usual := watch.seen(x))}
    assert list(spikes) == [200]
    assert spikes[200] == pytest.approx(2.0, abs=0.1)


def test_a_falling_loss_and_non_finite_steps_are_no_spikes():
    watch = SpikeWatch(MonitorConfig())
    falling = [10.0 * 0.99**i for i in range(200)]
    falling[50] = float("nan")
    falling[60] = float("inf")
    assert not any(watch.seen(loss) for loss in falling)


def test_the_watch_can_be_turned_off_and_refuses_a_window_too_short_to_judge():
    watch = SpikeWatch(MonitorConfig(spike_deviations=0))
    assert not any(watch.seen(loss) for loss in [1.0] * 50 + [100.0])
    with pytest.raises(ConfigError, match="spike_window"):
        MonitorConfig(spike_window=3)


def test_norms_of_groups_add_up_to_the_norm_of_the_tree():
    rng = np.random.default_rng(1)
    tree = {
        "encoder": {
            "layers": {
                "mlp": {"wi": {"kernel": rng.normal(size=(2, 3, 4))}},
                "attention": {"out": {"kernel": rng.normal(size=(2, 3, 3))}},
            },
            "encoder_norm": {"scale": rng.normal(size=3)},
        },
        "token_embedder": {"embedding": rng.normal(size=(5, 3))},
    }
    norms = group_norms(tree, "grad_norm")
    assert set(norms) == {
        "grad_norm/encoder/mlp",
        "grad_norm/encoder/attention",
        "grad_norm/encoder/encoder_norm",
        "grad_norm/token_embedder/embedding",
    }
    mlp = np.linalg.norm(tree["encoder"]["layers"]["mlp"]["wi"]["kernel"])
    assert norms["grad_norm/encoder/mlp"] == pytest.approx(mlp, rel=1e-6)


def test_goodput_accounts_for_every_second(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(goodput_module.time, "monotonic", lambda: now[0])
    goodput = Goodput(setup=10.0)
    with goodput.span("compile"):
        now[0] += 20.0
    now[0] += 60.0
    with goodput.span("evaluation"):
        now[0] += 8.0
    now[0] += 2.0
    goodput.claim("data", 2.0)
    seconds = goodput.seconds()
    assert seconds == {
        "compute": 60.0,
        "setup": 10.0,
        "data": 2.0,
        "checkpoint": 0.0,
        "evaluation": 8.0,
        "compile": 20.0,
        "profile": 0.0,
    }
    assert goodput.share() == pytest.approx(0.6)
    assert goodput.line().startswith("goodput 60 %: compute 60.0 s, compile 20.0 s")


def test_a_stated_peak_is_taken_as_it_is_for_every_device():
    assert peak_flops([object()] * 4, stated=1.5) == 6e12
    with pytest.raises(ConfigError, match="peak_tflops"):
        MonitorConfig(peak_tflops=-1.0)


SCOPE = "decoder/layers/while/body/mlp/wi_0/dot_general"
PROGRAM = f"""
  %fusion.1 = f32[8]{{0}} fusion(%p), metadata={{op_name="jit(step)/jvp(T5)/{SCOPE}"}}
  ROOT %dot.7 = f32[8] dot(%a), metadata={{op_name="jit(f)/transpose(jvp(T5))/{SCOPE}"}}
"""


def test_the_summary_names_the_part_and_the_direction_of_each_operation():
    operations = [Timed("dot.7", 0.3, 10), Timed("fusion.1", 0.1, 10)]
    text = summary(operations, PROGRAM, steps=5)
    assert "80.0 ms of operations a step" in text
    lines = text.splitlines()
    assert any(" 75.0%" in x and "decoder/mlp/wi_0 backward" in x for x in lines)
    assert any(x.strip().startswith("25.0%") and "decoder/mlp/wi_0" in x for x in lines)


def test_operations_outside_the_model_and_of_no_program_have_a_place():
    assert part("jit(step)/mul") == "outside the model"
    assert part("") == "other"
