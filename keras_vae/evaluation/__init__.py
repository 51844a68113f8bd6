"""Evaluation: distance of the bound from log p(x), use of the latents, anomaly scores.

Every value is in nats per example unless its name says otherwise. It comes with its error, and
says on which side of the truth it lies.
"""

from keras_vae.conformal import Conformal as Conformal
from keras_vae.conformal import Guarantee as Guarantee
from keras_vae.evaluation.bdmc import Bracket as Bracket
from keras_vae.evaluation.bdmc import bdmc as bdmc
from keras_vae.evaluation.code_usage import CodeUsage as CodeUsage
from keras_vae.evaluation.code_usage import code_usage as code_usage
from keras_vae.evaluation.diagnosis import Calibration as Calibration
from keras_vae.evaluation.diagnosis import Diagnosis as Diagnosis
from keras_vae.evaluation.diagnosis import diagnose as diagnose
from keras_vae.evaluation.diagnosis import is_normal as is_normal
from keras_vae.evaluation.diagnosis import rate_per_latent as rate_per_latent
from keras_vae.evaluation.disentanglement import Disentanglement as Disentanglement
from keras_vae.evaluation.disentanglement import dci as dci
from keras_vae.evaluation.disentanglement import disentanglement as disentanglement
from keras_vae.evaluation.disentanglement import factor_vae_score as factor_vae_score
from keras_vae.evaluation.disentanglement import mig as mig
from keras_vae.evaluation.disentanglement import sap as sap
from keras_vae.evaluation.ex_post_codes import fit_code_prior as fit_code_prior
from keras_vae.evaluation.ex_post_density import ex_post_density as ex_post_density
from keras_vae.evaluation.full_gaussian import FullGaussian as FullGaussian
from keras_vae.evaluation.geodesics import Geodesics as Geodesics
from keras_vae.evaluation.geodesics import geodesics as geodesics
from keras_vae.evaluation.independent_columns import IndependentColumns as IndependentColumns
from keras_vae.evaluation.inference_gap import BoundGap as BoundGap
from keras_vae.evaluation.inference_gap import bound_gap as bound_gap
from keras_vae.evaluation.marginal import LogMarginal as LogMarginal
from keras_vae.evaluation.marginal import log_marginal as log_marginal
from keras_vae.evaluation.novelty import compressed_bits as compressed_bits
from keras_vae.evaluation.novelty import ensemble_score as ensemble_score
from keras_vae.evaluation.novelty import input_complexity as input_complexity
from keras_vae.evaluation.novelty import likelihood_ratio as likelihood_ratio
from keras_vae.evaluation.novelty import likelihood_regret as likelihood_regret
from keras_vae.evaluation.novelty import mutated as mutated
from keras_vae.evaluation.novelty import typicality as typicality
from keras_vae.evaluation.rate_distortion import RateDistortion as RateDistortion
from keras_vae.evaluation.rate_distortion import rate_distortion as rate_distortion
from keras_vae.evaluation.row_scores import row_scores as row_scores
from keras_vae.evaluation.score_table import Auroc as Auroc
from keras_vae.evaluation.score_table import ScoreTable as ScoreTable
from keras_vae.evaluation.score_table import auroc as auroc
from keras_vae.evaluation.score_table import score_table as score_table
from keras_vae.evaluation.score_table import trivial_scores as trivial_scores
from keras_vae.evaluation.scores import AnomalyScores as AnomalyScores
from keras_vae.evaluation.scores import anomaly_scores as anomaly_scores
from keras_vae.evaluation.scores import bits_per_dim as bits_per_dim
from keras_vae.evaluation.stacked import stacked_elbo as stacked_elbo
from keras_vae.evaluation.summary import active_units as active_units
from keras_vae.evaluation.summary import mean_and_error as mean_and_error
from keras_vae.evaluation.summary import posterior_moments as posterior_moments
from keras_vae.evaluation.synthetic import SyntheticReport as SyntheticReport
from keras_vae.evaluation.synthetic import synthetic_report as synthetic_report
