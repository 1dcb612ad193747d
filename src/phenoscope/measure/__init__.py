"""Numbers about a network, or about networks trained side by side."""

from .calibration.scores import calibration_error, nll
from .capacity.complexity import complexity
from .capacity.ranking import rank_complexity
from .gradients.gsnr import GSNR, gsnr, osgr
from .gradients.noise import GradientNoise, gradient_noise
from .gradients.snr import gradient_snr
from .information.estimators import Information, mi_binned, mi_gaussian_linear, mi_kde
from .information.plane import information_plane
from .layers.criticality import layer_criticality
from .lazy.gram import gram_stability
from .lazy.neurons import lazy_neurons
from .lazy.report import lazy_report
from .margins.output import margin, normalized_margin
from .sensitivity.jacobian import jacobian, jacobian_norm, jacobian_singular_values
from .sensitivity.regions import region_transitions
from .signals.independence import gradient_independence
from .signals.trainable import crossing_depth, hidden_activation, trainable_depth
from .sweeps.batch_size import batch_size_sweep
from .sweeps.bias_variance import bias_variance, bias_variance_from_outputs
from .sweeps.deficits import deficit_sweep
from .sweeps.double_descent import double_descent, effective_model_complexity
from .sweeps.early_phase import early_phase
from .sweeps.identity import IdentityReport, identity_probe
from .sweeps.randomisation import randomization_test
from .sweeps.sample_size import sample_size_curve
from .weights.motion import weight_motion
from .weights.norms import distances, norms, path_norm

__all__ = [
    "GSNR",
    "GradientNoise",
    "IdentityReport",
    "Information",
    "batch_size_sweep",
    "bias_variance",
    "bias_variance_from_outputs",
    "calibration_error",
    "complexity",
    "crossing_depth",
    "deficit_sweep",
    "distances",
    "double_descent",
    "early_phase",
    "effective_model_complexity",
    "gradient_independence",
    "gradient_noise",
    "gradient_snr",
    "gram_stability",
    "gsnr",
    "hidden_activation",
    "identity_probe",
    "information_plane",
    "jacobian",
    "jacobian_norm",
    "jacobian_singular_values",
    "layer_criticality",
    "lazy_neurons",
    "lazy_report",
    "margin",
    "mi_binned",
    "mi_gaussian_linear",
    "mi_kde",
    "nll",
    "normalized_margin",
    "norms",
    "osgr",
    "path_norm",
    "randomization_test",
    "rank_complexity",
    "region_transitions",
    "sample_size_curve",
    "trainable_depth",
    "weight_motion",
]
