"""Walks of diffusers' schedulers: every sample of about 20 steps, for given outputs and noise.

Run: python tests/references/schedulers.py
"""

from __future__ import annotations

import importlib
import json
import warnings
from typing import Any

import common
import diffusers
import numpy as np
import torch

STEPS = 20
SHAPE = (2, 3, 2, 2)  # three channels: DPM-Solver there takes so many of learned variances
CALLS = 40  # of the model, at most: two a step
CALM = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
TRAINED = torch.linspace(0.001, 0.03, 100).tolist()

# Scheduler, options; what begins with @ is for this walk: number of steps, or arguments of `step`.
WALKS: list[tuple[str, dict[str, Any]]] = [
    ("DDPM", {}),
    ("DDPM", {"@steps": 7, "steps_offset": 1, "timestep_spacing": "leading"}),
    ("DDPM", {"timestep_spacing": "trailing", **ZERO_SNR}),
    ("DDPM", {"timestep_spacing": "linspace", "beta_schedule": "squaredcos_cap_v2"}),
    ("DDPM", {"variance_type": "fixed_large", "prediction_type": "sample", "clip_sample": False}),
    ("DDPM", {"variance_type": "fixed_small_log", "beta_schedule": "sigmoid"}),
    ("DDPM", {"variance_type": "learned_range", "clip_sample_range": 2.0}),
    ("DDPM", {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9}),
    ("DDPM", {"num_train_timesteps": 100, "trained_betas": TRAINED}),
    ("DDIM", {}),
    ("DDIM", {**CALM, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    ("DDIM", {"timestep_spacing": "trailing", **ZERO_SNR, "@eta": 0.5}),
    ("DDIM", {"timestep_spacing": "linspace", "prediction_type": "sample", "@eta": 1.0}),
    ("DDIM", {"thresholding": True, "sample_max_value": 3.0, "beta_schedule": "squaredcos_cap_v2"}),
    ("EulerDiscrete", CALM),
    ("EulerDiscrete", {**CALM, "use_karras_sigmas": True, "timestep_spacing": "leading"}),
    ("EulerDiscrete", {"use_exponential_sigmas": True, "prediction_type": "sample"}),
    ("EulerDiscrete", {"timestep_spacing": "trailing", **ZERO_SNR}),
    ("EulerDiscrete", {**CALM, "steps_offset": 1, "timestep_spacing": "leading", "@s_churn": 4.0}),
    (
        "EulerDiscrete",
        {"timestep_type": "continuous", "prediction_type": "v_prediction", "sigma_max": 90.0}
        | {"sigma_min": 0.002, "use_karras_sigmas": True},
    ),
    ("EulerDiscrete", {"interpolation_type": "log_linear", "final_sigmas_type": "sigma_min"}),
    ("EulerAncestralDiscrete", CALM),
    ("EulerAncestralDiscrete", {"timestep_spacing": "trailing", **ZERO_SNR}),
    ("EulerAncestralDiscrete", {"timestep_spacing": "leading", "steps_offset": 1}),
    ("HeunDiscrete", {}),
    ("HeunDiscrete", {"use_karras_sigmas": True, "prediction_type": "v_prediction"}),
    ("HeunDiscrete", {"prediction_type": "sample", "timestep_spacing": "trailing"}),
    ("HeunDiscrete", {"clip_sample": True, "timestep_spacing": "leading", "steps_offset": 1}),
    ("HeunDiscrete", {"beta_schedule": "exp", "use_exponential_sigmas": True}),
    ("DPMSolverMultistep", CALM),
    ("DPMSolverMultistep", {**CALM, "use_karras_sigmas": True, "solver_type": "heun"}),
    ("DPMSolverMultistep", {**CALM, "solver_order": 3, "timestep_spacing": "leading"}),
    ("DPMSolverMultistep", {"timestep_spacing": "trailing", **ZERO_SNR, "solver_order": 1}),
    ("DPMSolverMultistep", {**CALM, "algorithm_type": "sde-dpmsolver++"}),
    (
        "DPMSolverMultistep",
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "prediction_type": "sample"}
        | {"use_exponential_sigmas": True, "@steps": 12},
    ),
    (
        "DPMSolverMultistep",
        {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": 3},
    ),
    (
        "DPMSolverMultistep",
        {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "solver_type": "heun"}
        | {"thresholding": True, "prediction_type": "v_prediction"},
    ),
    (
        "DPMSolverMultistep",
        {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"}
        | {"prediction_type": "sample"},
    ),
    (
        "DPMSolverMultistep",
        {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"}
        | {"solver_type": "heun"},
    ),
    ("DPMSolverMultistep", {**CALM, "use_lu_lambdas": True, "euler_at_final": True}),
    (
        "DPMSolverMultistep",
        {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, "@steps": 9},
    ),
    (
        "DPMSolverMultistep",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
    ),
    ("DPMSolverMultistep", {"variance_type": "learned_range", "@steps": 10, "solver_order": 3}),
    ("PNDM", {**CALM, "skip_prk_steps": True, "steps_offset": 1}),
    ("PNDM", {"set_alpha_to_one": True}),
    ("PNDM", {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}),
    ("PNDM", {"timestep_spacing": "linspace", "skip_prk_steps": True, "@steps": 3}),
    ("UniPCMultistep", {}),
    # There a last sigma of zero gives NaN with bh1; here it does not.
    (
        "UniPCMultistep",
        {**CALM, "solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min"},
    ),
    ("UniPCMultistep", {**CALM, "solver_order": 3}),
    ("UniPCMultistep", {**CALM, "use_karras_sigmas": True, "timestep_spacing": "trailing"}),
    ("UniPCMultistep", {"predict_x0": False, "final_sigmas_type": "sigma_min"}),
    (
        "UniPCMultistep",
        {"predict_x0": False, "final_sigmas_type": "sigma_min", "use_exponential_sigmas": True}
        | {"prediction_type": "sample", "solver_order": 3},
    ),
    ("UniPCMultistep", {"timestep_spacing": "trailing", **ZERO_SNR, "disable_corrector": [0, 3]}),
    ("UniPCMultistep", {"timestep_spacing": "leading", "steps_offset": 1, "thresholding": True}),
    (
        "UniPCMultistep",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
        | {"shift_terminal": 0.02},
    ),
    ("LCM", {}),
    ("LCM", {"@steps": 4, "prediction_type": "v_prediction", "clip_sample": True}),
    ("LCM", {"@steps": 8, "prediction_type": "sample", "thresholding": True}),
    ("LCM", {"@steps": 6, "timestep_scaling": 1.0, "rescale_betas_zero_snr": False}),
    ("FlowMatchEulerDiscrete", {}),
    ("FlowMatchEulerDiscrete", {"shift": 3.0, "shift_terminal": 0.02}),
    ("FlowMatchEulerDiscrete", {"use_dynamic_shifting": True, "@mu": 0.8}),
    (
        "FlowMatchEulerDiscrete",
        {"use_dynamic_shifting": True, "@mu": 1.7, "time_shift_type": "linear"}
        | {"use_karras_sigmas": True},
    ),
    ("FlowMatchEulerDiscrete", {"invert_sigmas": True, "use_exponential_sigmas": True}),
    ("FlowMatchEulerDiscrete", {"stochastic_sampling": True}),
    # Steps that are given one by one.
    ("DDPM", {"@timesteps": [980, 700, 500, 499, 200, 20, 0]}),
    ("EulerDiscrete", {**CALM, "@timesteps": [999, 850.5, 600, 300, 10]}),
    ("EulerDiscrete", {**CALM, "@sigmas": [14.0, 6.5, 2.0, 0.7, 0.2, 0.0]}),
    (
        "EulerDiscrete",
        {"timestep_type": "continuous", "prediction_type": "v_prediction"}
        | {"@sigmas": [80.0, 9.0, 1.0, 0.3, 0.1, 0.02], "sigma_max": 80.0},
    ),
    ("HeunDiscrete", {"@timesteps": [990, 640, 250, 80]}),
    ("DPMSolverMultistep", {**CALM, "@timesteps": [999, 845, 730, 587, 443, 310, 193, 116, 53]}),
    ("DPMSolverMultistep", {"solver_order": 3, "@timesteps": [950, 845.7, 587, 310, 193, 53]}),
    ("LCM", {"@timesteps": [999, 759, 499, 259]}),
    (
        "UniPCMultistep",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 2.0}
        | {"@sigmas": [1.0, 0.8, 0.55, 0.3, 0.1]},
    ),
    ("FlowMatchEulerDiscrete", {"shift": 3.0, "@sigmas": [1.0, 0.7, 0.45, 0.2, 0.05]}),
    ("FlowMatchEulerDiscrete", {"shift": 2.0, "@timesteps": [1000.0, 800.0, 500.0, 100.0]}),
    (
        "FlowMatchEulerDiscrete",
        {"@timesteps": [990.0, 700.0, 300.0, 50.0], "@sigmas": [1.0, 0.65, 0.35, 0.1]},
    ),
    # Quantiles of a beta distribution.
    ("EulerDiscrete", {**CALM, "use_beta_sigmas": True, "@steps": 8}),
    ("EulerDiscrete", {"use_beta_sigmas": True, "sigma_max": 60.0, "sigma_min": 0.02, "@steps": 6}),
    ("HeunDiscrete", {"use_beta_sigmas": True, "@steps": 5}),
    ("DPMSolverMultistep", {**CALM, "use_beta_sigmas": True, "@steps": 9}),
    ("UniPCMultistep", {**CALM, "use_beta_sigmas": True, "@steps": 7}),
    ("FlowMatchEulerDiscrete", {"use_beta_sigmas": True, "shift": 3.0, "@steps": 7}),
    # Exponential ones, where they were not yet.
    ("UniPCMultistep", {**CALM, "use_exponential_sigmas": True, "@steps": 7}),
    ("DPMSolverMultistep", {**CALM, "use_exponential_sigmas": True, "@steps": 7}),
]


def walk(
    name: str, options: dict[str, Any], outputs: torch.Tensor, noises: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Every sample of a walk, its timesteps, and noise added to a sample at one of them."""
    kind = getattr(diffusers, f"{name}Scheduler")
    asked = {key[1:]: value for key, value in options.items() if key.startswith("@")}
    scheduler = kind(**{k: v for k, v in options.items() if not k.startswith("@")})
    chosen = {key: asked.pop(key) for key in ("mu", "timesteps", "sigmas") if key in asked}
    listed = chosen.keys() & {"timesteps", "sigmas"}
    if "sigmas" in chosen:
        chosen["sigmas"] = np.array(chosen["sigmas"])
    scheduler.set_timesteps(None if listed else asked.pop("steps", STEPS), **chosen)
    module = importlib.import_module(kind.__module__)
    sample = (
        noises[0] * scheduler.init_noise_sigma
        if hasattr(scheduler, "init_noise_sigma")
        else (noises[0])
    )
    samples, inputs = [], []
    wide = str(options.get("variance_type")).startswith("learned")
    for i, t in enumerate(scheduler.timesteps):
        if hasattr(module, "randn_tensor"):
            module.randn_tensor = lambda *_, i=i, **__: noises[i + 1]
        if hasattr(scheduler, "scale_model_input"):
            inputs.append(scheduler.scale_model_input(sample, t))
        output = torch.cat([outputs[i], outputs[i].tanh()], 1) if wide else outputs[i]
        sample = scheduler.step(output, t, sample, **asked).prev_sample
        samples.append(sample)
    result = {"timesteps": scheduler.timesteps.float(), "samples": torch.stack(samples)}
    if inputs:
        result["inputs"] = torch.stack(inputs[:1] + inputs[-1:])
    place = scheduler.timesteps[3].reshape(1)
    if hasattr(scheduler, "_step_index"):
        scheduler._step_index = None
    add = scheduler.scale_noise if name.startswith("Flow") else scheduler.add_noise
    noised = (
        (outputs[0], place, noises[0])
        if name.startswith("Flow")
        else (outputs[0], noises[0], place)
    )
    result["noisy"] = add(*noised)
    return result


def main() -> None:
    """Write `schedulers.safetensors`."""
    warnings.simplefilter("ignore")
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(CALLS, *SHAPE, generator=generator)
    noises = torch.randn(CALLS + 1, *SHAPE, generator=generator)
    arrays: dict[str, object] = {"outputs": outputs, "noises": noises}
    for i, (name, options) in enumerate(WALKS):
        for key, value in walk(name, options, outputs, noises).items():
            assert value.isfinite().all(), (name, options, key)
            arrays[f"{i}.{key}"] = value
    meta = common.metadata("diffusers", walks=json.dumps(WALKS))
    common.save(common.DATA / "schedulers.safetensors", arrays, meta)


if __name__ == "__main__":
    main()
