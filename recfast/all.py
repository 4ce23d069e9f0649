"Everything for a notebook: `from recfast.all import *` gives fastai's `tabular.all` and recfast over it"
import warnings as _warnings
with _warnings.catch_warnings():
    _warnings.filterwarnings('ignore', category=FutureWarning, module='torch')
    from fastai.tabular.all import *
    from fastai.collab import TabularCollab
from recfast.core import *
from recfast.testing import *
from recfast.data.datasets import *
from recfast.data.ratings import *
from recfast.data.split import *
from recfast.data.sampling import *
from recfast.data.loaders import *
from recfast.data.implicit import *
from recfast.data.sequences import *
from recfast.data.rows import *
from recfast.models.base import *
from recfast.models.dot import *
from recfast.models.params import *
from recfast.models.ncf import *
from recfast.models.sequence import *
from recfast.models.autorec import *
from recfast.models.linear import *
from recfast.losses import *
from recfast.ranking import *
from recfast.metrics import *
from recfast.evaluate import *
from recfast.callbacks import *
from recfast.recommend import *
from recfast.interpret import *
from recfast.rerank import *
from recfast.learner import *
from recfast.tune import *
from recfast.bundle import *
from recfast.files import *
from recfast.report import *
