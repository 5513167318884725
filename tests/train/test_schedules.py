import json

import jax
import numpy as np
import pytest

from flanjax.errors import ConfigError
from flanjax.train.schedules import ScheduleConfig, make_schedule


def test_every_recorded_t5x_schedule_is_reproduced(shared):
    golden = shared / "golden" / "t5x"
    settings = json.loads((golden / "meta.json").read_text())["lr_schedules"]
    with np.load(golden / "lr_schedules.npz") as expected:
        for name, arguments in settings.items():
            schedule = make_schedule(ScheduleConfig(**arguments))
            rates = jax.vmap(schedule)(expected["steps"])
            np.testing.assert_allclose(rates, expected[name], rtol=1e-6, err_msg=name)


def test_no_warmup_gives_the_full_rate_from_the_first_step():
    config = ScheduleConfig("constant * linear_warmup", 0.1, warmup_steps=0)
    assert float(make_schedule(config)(0)) == pytest.approx(0.1)


def test_unknown_factor_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'linear_warmup'"):
        make_schedule(ScheduleConfig("constant * linear_warmpu"))
