"""The paper's figure and the theory around it, in one report.

    python -m launch --config configs/theory_figures.py

One isotropic Gaussian is fitted to a correlated Gaussian and to a density with several modes, at five places of the
dial (Huszár, 2015, figure 1); all other figures are closed forms and enumerations. PNGs are in plots/, the numbers
behind them in report.json. 1 min 54 s on 2 CPU cores.
"""

from configs import base, theory_gaussian


def get_config():
    config = theory_gaussian.get_config()
    # A wide and a narrow start, of which the better end is drawn: beyond pi ~ 0.4 there is one minimum to a mode.
    config.model.gaussian.mean = -1.0
    config.sweep = base.grid(
        {
            "data.name": ("world:gaussian", "world:blobs"),
            "objective.real_prior": theory_gaussian.PRIORS,
            "model.gaussian.scale": (2.0, 0.5),
        }
    )
    config.report.figures = (
        *("scheduled_sampling_bias", "js_dial", "gaussian_fit", "phase_transition", "first_order_jump"),
        *("non_saturating_inversion", "temperature_frontier", "mauve_frontier", "rewards"),
    )
    return config
