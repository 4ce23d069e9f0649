"Everything for a notebook: `from recfast.all import *` gives fastai's `tabular.all` and recfast over it"
import warnings as _warnings
from importlib import import_module as _import_module
from recfast.core import homes as _homes
with _warnings.catch_warnings():
    _warnings.filterwarnings('ignore', category=FutureWarning, module='torch')
    from fastai.tabular.all import *
    from fastai.collab import TabularCollab
from recfast.core import (
    BundleError, LeakageWarning, NeedsMemoryError, ON_UNKNOWN, RatingsError, RecfastError, UnknownIdError, quiet,
)
from recfast.testing import check_model, synth_ratings
from recfast.tables import read_table
from recfast.data.datasets import solo, movie_night, ml_100k, ml_1m, ml_1m_ncf
from recfast.data.ratings import wide_to_long, long_to_wide, full_grid, k_core, to_implicit, leakage
from recfast.data.split import (
    random_split, user_split, item_split, stratified_split, k_fold, leave_last_out, global_time_split,
    held_out_users,
)
from recfast.data.vocab import Vocab
from recfast.data.interactions import Interactions
from recfast.data.batches import RatingDL
from recfast.data.windows import random_windows
from recfast.data.loaders import CollabDataLoaders
from recfast.models.base import (
    MODELS, register, find_model, id_tables, item_vectors, model_device, score_items, score_pairs,
)
from recfast.flat_losses import FlatLoss, BCE, ClassLoss, RMSELoss, MultinomialLoss, MaskedMSE
from recfast.losses import BlockLoss, PairLoss, BPRLoss, SoftmaxLoss, SampledSoftmaxLoss, CosineContrastiveLoss
from recfast.models.dot import DotProduct, DotProductBias, EmbeddingDotBias
from recfast.models.params import DotProductParams, create_params
from recfast.models.ncf import EmbeddingNN, GMF, MLP, NeuMF, PairNet, init_kaiming, init_normal, init_xavier
from recfast.models.autorec import AutoRec
from recfast.models.sequence import NextItem, SASRec, SequenceModel
from recfast.models.rules import SequentialRules
from recfast.models.two_speed import TwoSpeedRidge
from recfast.models.linear import Popularity, EASE, ClosedForm, HistoryModel
from recfast.models.ials import IALS
from recfast.models.svdpp import SVDpp
from recfast.models.bayesian import BayesianSVDpp
from recfast.ordinal import OrdinalLoss
from recfast.models.knn import ItemKNN
from recfast.ranking import rank_items
from recfast.registry import metric
from recfast.metrics import ndcg_at_k, rmse
from recfast.evaluate import evaluate_recommender
from recfast.given_lists import evaluate_lists
from recfast.compare import compare
from recfast.callbacks import RankingMetrics, EarlyStoppingCallback, SaveModelCallback, ReduceLROnPlateau
from recfast.recommend import Recommender
from recfast.explain import plot_explain
from recfast.interpret import label_points, item_factors, plot_bias, plot_factors
from recfast.rerank import mmr, blend, calibrate
from recfast.collab import CollabLearner
from recfast.tune import tune
from recfast.learner import collab_learner
from recfast.two_stage import two_stage
from recfast.bundle import save_bundle, load_bundle
from recfast.experiment import run_experiment
from recfast.export import export_onnx

_DOORS = ('recfast.cli','recfast.routes','recfast.serve','recfast.shell','recfast.worker') # nothing of theirs was ever here
_RUNS = ('run_quickstart','run_train') # of recfast.report, nor were these

def __getattr__(name):
    "What left this surface is still found, with a warning that says where it is"
    home = _homes('recfast').get(name, _DOORS[0])
    if home in _DOORS or name in _RUNS: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    message = f"{name} is no longer among the names of recfast.all: from {home} import {name}"
    _warnings.warn(message, DeprecationWarning, stacklevel=2)
    return getattr(_import_module(home), name)
