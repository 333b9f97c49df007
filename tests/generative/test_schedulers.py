"""Schedulers: walks equal to diffusers', options, and what they say of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.weights import safetensors as files
from bestiary.generative import schedulers as S
from bestiary.generative.schedulers.quantiles import beta_distribution, beta_quantiles

REFERENCE = Path(__file__).parent.parent / "references" / "data" / "schedulers.safetensors"
ARRAYS = files.load_file(REFERENCE)
with files.SafetensorsFile(REFERENCE) as _file:
    WALKS = json.loads(_file.metadata["walks"])


def _close(ours, theirs):
    """The largest difference, in units of the values where they are large."""
    theirs = np.asarray(theirs)
    return np.abs(np.asarray(ours) - theirs).max() / max(1.0, np.abs(theirs).max())


def _named(walk):
    name, options = walk
    return "-".join([name, *(f"{k}={v}" for k, v in options.items() if k != "trained_betas")])


@pytest.mark.parametrize("number", range(len(WALKS)), ids=[_named(w) for w in WALKS])
def test_a_walk_equals_diffusers_at_every_step(number):
    name, options = WALKS[number]
    stored = {k.partition(".")[2]: v for k, v in ARRAYS.items() if k.startswith(f"{number}.")}
    outputs, noises = bt.asarray(ARRAYS["outputs"]), bt.asarray(ARRAYS["noises"])
    asked = {k[1:]: v for k, v in options.items() if k.startswith("@")}
    plain = {k: v for k, v in options.items() if not k.startswith("@")}
    scheduler = S.scheduler_of({"_class_name": f"{name}Scheduler", **plain})
    chosen = {key: asked.pop(key) for key in ("mu", "timesteps", "sigmas") if key in asked}
    listed = chosen.keys() & {"timesteps", "sigmas"}
    scheduler.set_timesteps(None if listed else asked.pop("steps", 20), **chosen)
    assert _close(scheduler.timesteps, stored["timesteps"]) <= 1e-6
    sample = noises[0] * scheduler.init_noise_sigma
    wide = options.get("variance_type", "").startswith("learned")
    steps = len(scheduler.timesteps)
    for i, t in enumerate(scheduler.timesteps):
        if i in (0, steps - 1) and "inputs" in stored:
            seen = scheduler.scale_model_input(sample, t)
            assert _close(seen.numpy(), stored["inputs"][min(i, 1)]) <= 1e-5
        output = bt.concat([outputs[i], bt.tanh(outputs[i])], axis=1) if wide else outputs[i]
        step = scheduler.step(output, t, sample, noise=noises[i + 1], **asked)
        sample = step.prev_sample
        assert sample.dtype == bt.float32
        assert _close(sample.numpy(), stored["samples"][i]) <= 1e-5, f"step {i}"
    place = scheduler.timesteps[[3]]
    noisy = scheduler.add_noise(outputs[0], noises[0], place)
    assert _close(noisy.numpy(), stored["noisy"]) <= 1e-5


# -- options -----------------------------------------------------------------------------------


def test_options_of_other_schedulers_are_passed_over_and_told():
    stable_diffusion = {
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.6.0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
        "clip_sample": False,
    }
    scheduler = S.scheduler_of(stable_diffusion)
    assert isinstance(scheduler, S.PNDMScheduler)
    assert scheduler.unused == ("clip_sample",)
    other = S.DPMSolverMultistepScheduler.from_config(stable_diffusion, use_karras_sigmas=True)
    assert other.config.beta_end == 0.012
    assert other.config.use_karras_sigmas
    assert set(other.unused) == {"clip_sample", "set_alpha_to_one", "skip_prk_steps"}


@pytest.mark.parametrize("name", sorted(S.SCHEDULERS))
def test_a_configuration_survives_being_written(name):
    scheduler = S.scheduler_of(name)
    again = S.scheduler_of(json.loads(json.dumps(scheduler.to_config())))
    assert again.config == scheduler.config
    assert repr(again) == f"{name}()"


@pytest.mark.parametrize("name", sorted(set(S.SCHEDULERS) - {"FlowMatchEulerDiscreteScheduler"}))
def test_every_scheduler_takes_the_settings_of_every_other(name):
    for kind in S.SCHEDULERS.values():
        other = S.scheduler_of(name, num_train_timesteps=500)
        made = kind.from_config(other)
        made.set_timesteps(10)
        assert made.config.num_train_timesteps == 500


def test_solvers_of_similar_schedulers_become_the_nearest():
    unipc = S.scheduler_of("unipc")
    dpm = S.DPMSolverMultistepScheduler.from_config(unipc)
    assert dpm.config.solver_type == "midpoint"
    assert S.UniPCMultistepScheduler.from_config(dpm).config.solver_type == "bh2"
    deis = {"algorithm_type": "deis", "solver_type": "logrho"}
    assert S.DPMSolverMultistepScheduler.from_config(deis).config.algorithm_type == "dpmsolver++"


def test_an_option_that_no_scheduler_has_is_refused():
    with pytest.raises(bt.errors.ConfigError, match=r"no scheduler has:\n  beta_strat=0\.1"):
        S.scheduler_of({"_class_name": "DDIMScheduler", "beta_strat": 0.1})
    with pytest.raises(bt.errors.ConfigError, match="DDIMScheduler has no option solver_order"):
        S.DDIMScheduler(solver_order=2)
    with pytest.raises(bt.errors.ConfigError, match="'VQScheduler' is not supported"):
        S.scheduler_of("VQScheduler")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"beta_schedule": "quadratic"}, "beta_schedule='quadratic'"),
        ({"prediction_type": "noise"}, "prediction_type='noise'"),
        ({"timestep_spacing": "even"}, "timestep_spacing='even'"),
        ({"num_train_timesteps": 0}, "num_train_timesteps=0"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps='many'"),
        ({"beta_start": -0.1}, "beta_start=-0.1"),
        ({"beta_end": float("nan")}, "beta_end=nan"),
        ({"trained_betas": [0.1, 0.2]}, "2 trained_betas for num_train_timesteps=1000"),
        ({"steps_offset": -1}, "steps_offset=-1"),
        ({"clip_sample": "yes"}, "clip_sample='yes'"),
        ({"dynamic_thresholding_ratio": 1.5}, "dynamic_thresholding_ratio=1.5"),
    ],
)
def test_options_that_make_no_sense_are_named(options, told):
    with pytest.raises(bt.errors.ConfigError, match=told.replace(".", r"\.")):
        S.DDIMScheduler(**options)


def test_options_that_exclude_each_other_are_named():
    with pytest.raises(bt.errors.ConfigError, match="exclude each other"):
        S.EulerDiscreteScheduler(use_karras_sigmas=True, use_exponential_sigmas=True)
    for kind in (S.EulerDiscreteScheduler, S.FlowMatchEulerDiscreteScheduler):
        with pytest.raises(bt.errors.ConfigError, match="karras_sigmas and use_beta_sigmas excl"):
            kind(use_karras_sigmas=True, use_beta_sigmas=True)
    with pytest.raises(bt.errors.ConfigError, match="final_sigmas_type='sigma_min'"):
        S.DPMSolverMultistepScheduler(algorithm_type="dpmsolver")
    with pytest.raises(bt.errors.ConfigError, match="order 1 or 2"):
        S.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=3)
    with pytest.raises(bt.errors.ConfigError, match="use_flow_sigmas=True"):
        S.UniPCMultistepScheduler(shift_terminal=0.1)


# -- walks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(S.SCHEDULERS))
def test_a_perfect_model_leads_to_its_sample(name):
    """With the true noise as prediction every scheduler ends at the clean sample."""
    clean, noise = bt.asarray(ARRAYS["noises"][1]) * 0.3, bt.asarray(ARRAYS["noises"][0])
    scheduler = S.scheduler_of(name)
    scheduler.set_timesteps(20)
    times = scheduler.timesteps
    x = scheduler.add_noise(clean, noise, times[:1])
    for t in times:
        if name.startswith("Flow"):
            output = (x - clean) / float(scheduler.sigmas[scheduler.index_of(t)])
        else:
            signal, sigma = scheduler.scales(t)
            output = (x - signal * clean) / sigma
        x = scheduler.step(output, t, x, generator=bt.Generator(0)).prev_sample
    assert _close(x.numpy(), clean.numpy()) <= 0.05


def test_noise_is_drawn_per_sample():
    """A sample's noise depends on its own generator, not on the batch."""
    scheduler = S.DDPMScheduler()
    scheduler.set_timesteps(10)
    t = scheduler.timesteps[0]
    x = bt.asarray(ARRAYS["noises"][0])
    both = scheduler.step(x, t, x, generator=[bt.Generator(3), bt.Generator(4)]).prev_sample
    one = scheduler.step(x[1:], t, x[1:], generator=[bt.Generator(4)]).prev_sample
    assert np.array_equal(both[1:].numpy(), one.numpy())
    assert not np.array_equal(both[:1].numpy(), one.numpy())


def test_noise_is_added_as_the_formula_says():
    scheduler = S.DDPMScheduler()
    clean, noise = bt.asarray(ARRAYS["outputs"][0]), bt.asarray(ARRAYS["noises"][0])
    betas = np.linspace(1e-4, 0.02, 1000)
    left = np.cumprod(1 - betas)[[10, 700]].reshape(2, 1, 1, 1)
    times = bt.asarray([10, 700])
    noisy = scheduler.add_noise(clean, noise, times)
    wanted = np.sqrt(left) * clean.numpy() + np.sqrt(1 - left) * noise.numpy()
    assert np.abs(noisy.numpy() - wanted).max() < 5e-6
    speed = scheduler.get_velocity(clean, noise, times)
    wanted = np.sqrt(left) * noise.numpy() - np.sqrt(1 - left) * clean.numpy()
    assert np.abs(speed.numpy() - wanted).max() < 5e-6


def test_nothing_of_the_signal_is_left_with_zero_terminal_snr():
    assert S.DDPMScheduler(rescale_betas_zero_snr=True).signal[-1] == 0
    assert S.EulerDiscreteScheduler(rescale_betas_zero_snr=True).sigmas[0] == pytest.approx(4096)


def test_a_walk_can_begin_in_the_middle():
    scheduler = S.EulerDiscreteScheduler()
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(4)
    x = bt.asarray(ARRAYS["noises"][0])
    scheduler.step(x, scheduler.timesteps[4], x)
    assert scheduler.index == 5
    with pytest.raises(bt.errors.IndexRangeError, match="no step 10 among 10"):
        scheduler.set_begin_index(10)


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(S.SCHEDULERS))
def test_wrong_steps_shapes_and_timesteps_are_named(name):
    scheduler = S.scheduler_of(name)
    x = bt.asarray(ARRAYS["noises"][0])
    for bad in (0, -3, 2.5, 100_000):
        with pytest.raises(bt.errors.ConfigError, match="steps make no sense"):
            scheduler.set_timesteps(bad)
    if name != "DDPMScheduler":
        with pytest.raises(bt.errors.ConfigError, match="set_timesteps"):
            scheduler.step(x, scheduler.timesteps[0], x)
    scheduler.set_timesteps(10)
    with pytest.raises(bt.errors.ShapeError, match="must have one shape"):
        scheduler.step(x[:, :1], scheduler.timesteps[0], x)
    with pytest.raises(bt.errors.IndexRangeError, match="is none of its"):
        scheduler.step(x, 12_345, x)


@pytest.mark.parametrize("name", ["ddpm", "dpm++", "euler", "heun", "lcm"])
def test_wrong_lists_of_steps_are_named(name):
    scheduler = S.scheduler_of(name)
    for bad in ([], [5, 5], [1, 2], [1000], [-1], ["x"], 7, [[3]], [float("nan")], None):
        with pytest.raises(bt.errors.ConfigError, match=r"timesteps|make no sense"):
            scheduler.set_timesteps(timesteps=bad)
    with pytest.raises(bt.errors.ConfigError, match="give one of the two"):
        scheduler.set_timesteps(2, timesteps=[10, 3])
    if hasattr(scheduler.config, "use_beta_sigmas"):
        other = type(scheduler)(use_beta_sigmas=True)
        with pytest.raises(bt.errors.ConfigError, match="use_beta_sigmas=True chooses"):
            other.set_timesteps(timesteps=[10, 3])
    scheduler.set_timesteps(timesteps=bt.tensor([10, 3]))
    assert scheduler.timesteps[0] == 10


def test_wrong_sigmas_are_named():
    euler = S.EulerDiscreteScheduler()
    for bad in ([1.0], [1.0, 2.0], [1.0, 0.0, 0.0], [2.0, float("inf")], [2.0, -1.0]):
        with pytest.raises(bt.errors.ConfigError, match="sigmas"):
            euler.set_timesteps(sigmas=bad)
    with pytest.raises(bt.errors.ConfigError, match="give one of them"):
        euler.set_timesteps(sigmas=[1.0, 0.0], timesteps=[4])
    told = S.EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction")
    with pytest.raises(bt.errors.ConfigError, match="give sigmas"):
        told.set_timesteps(timesteps=[4])
    for options in ({}, {"use_flow_sigmas": True, "use_karras_sigmas": True}):
        with pytest.raises(bt.errors.ConfigError, match="those of a flow"):
            S.UniPCMultistepScheduler(**options).set_timesteps(sigmas=[0.9, 0.4])
    with pytest.raises(bt.errors.ConfigError, match="those of a flow"):
        S.UniPCMultistepScheduler(use_flow_sigmas=True).set_timesteps(sigmas=[1.5, 0.4])
    with pytest.raises(bt.errors.ConfigError, match="2 timesteps and 3 sigmas"):
        S.FlowMatchEulerDiscreteScheduler().set_timesteps(timesteps=[9, 4], sigmas=[0.9, 0.5, 0.1])
    with pytest.raises(bt.errors.ConfigError, match="use_lu_lambdas"):
        S.DPMSolverMultistepScheduler(use_lu_lambdas=True).set_timesteps(timesteps=[9, 4])


def test_quantiles_are_the_reverse_of_the_distribution():
    shares = np.linspace(0, 1, 41)
    for a, b in ((0.6, 0.6), (2.5, 0.3), (7.0, 1.0)):
        places = beta_quantiles(shares, a, b)
        assert places[0] == 0 and places[-1] == 1 and (np.diff(places) > 0).all()
        assert np.abs(beta_distribution(places[:-1], a, b) - shares[:-1]).max() < 1e-9
    # The integral itself, where it has a closed form: b = 1 and a = b = 1/2.
    x = np.array([0.1, 0.5, 0.9])
    assert np.abs(beta_distribution(x, 7.0, 1.0) - x**7).max() < 1e-14
    arcsine = 2 / np.pi * np.arcsin(np.sqrt(x))
    assert np.abs(beta_distribution(x, 0.5, 0.5) - arcsine).max() < 1e-14


def test_a_walk_that_is_done_says_so():
    for name in ("euler", "dpm++", "unipc", "pndm"):
        scheduler = S.scheduler_of(name)
        scheduler.set_timesteps(4)
        x = bt.asarray(ARRAYS["noises"][0])
        for t in scheduler.timesteps:
            scheduler.step(x, t, x)
        with pytest.raises(bt.errors.ConfigError, match="steps are done"):
            scheduler.step(x, scheduler.timesteps[-1], x)


def test_mismatched_noise_and_timesteps_are_named():
    scheduler = S.DDPMScheduler()
    x = bt.asarray(ARRAYS["noises"][0])
    with pytest.raises(bt.errors.ShapeError, match="one timestep for each of the 2 samples"):
        scheduler.add_noise(x, x, [1, 2, 3])
    with pytest.raises(bt.errors.IndexRangeError, match="1000 is none of its 1000"):
        scheduler.add_noise(x, x, 1000)
    with pytest.raises(bt.errors.ShapeError, match="noise"):
        scheduler.step(x, 10, x, noise=x[:1])
    with pytest.raises(bt.errors.ShapeError, match="3 generators for 2 samples"):
        scheduler.step(x, 10, x, generator=[bt.Generator(i) for i in range(3)])
    with pytest.raises(bt.errors.ConfigError, match="beyond the last"):
        S.DDPMScheduler(steps_offset=5).set_timesteps(1000)
    with pytest.raises(bt.errors.ConfigError, match="fewer than the 4"):
        S.PNDMScheduler().set_timesteps(3)
    with pytest.raises(bt.errors.ConfigError, match="cannot be chosen of 50"):
        S.LCMScheduler().set_timesteps(60)
    with pytest.raises(bt.errors.ConfigError, match="mu belongs to"):
        S.FlowMatchEulerDiscreteScheduler().set_timesteps(4, mu=1.0)
