"The committed comparison with the peers' metrics: equal where definitions agree, explained where not; ten cases of it anew"
import json
from pathlib import Path

import numpy as np
import pytest

from recfast.metrics import auc, average_precision_at_k, mrr_at_k, ndcg_at_k, precision_at_k

BENCHMARKS = Path(__file__).parents[2]/'benchmarks'
RES = json.loads((BENCHMARKS/'results'/'metric_parity.json').read_text(encoding='utf-8'))
PEERS = dict(implicit={'ndcg','map','precision, one user','precision, pooled','auc, K = all items'},
    cornac={'NDCG','Recall','Precision','HitRatio','FMeasure','MRR','MAP','AUC','RMSE','MAE'},
    sklearn={'ndcg_score','precision_score','recall_score','average_precision_score','roc_auc_score','root_mean_squared_error','mean_absolute_error'})

@pytest.mark.parametrize('row', RES['rows'], ids=lambda r: f"{r['peer']} {r['theirs']}")
def test_the_stored_comparison_is_of_a_thousand_cases_that_agree(row):
    assert row['cases']==1000 and row['numbers']>=1000 and row['max_abs_difference']<=1e-6

def test_the_stored_comparison_has_every_metric_of_the_peers():
    assert {p: {r['theirs'] for r in RES['rows'] if r['peer']==p} for p in PEERS}==PEERS

def test_the_stored_comparison_names_the_peers_with_their_versions():
    assert (RES['versions']['implicit'],RES['versions']['cornac'])==('0.7.3','3.0.1') and 'scikit-learn' in RES['versions']

@pytest.mark.parametrize('d', RES['differences'], ids=lambda d: f"{d['peer']} {d['theirs']}")
def test_a_stored_difference_has_two_numbers_and_a_reason(d):
    assert abs(d['our_value']-d['their_value'])>.01 and len(d['why'])>40
    e = d['example']
    s = np.where(e['seen'], -np.inf, np.array(e['scores'], float))
    hits,n = np.take_along_axis(np.array(e['relevant']), np.argsort(-s, 1, kind='stable')[:,:e['k']], 1),np.sum(e['relevant'], 1)
    ours = dict(precision=precision_at_k, mrr=mrr_at_k, ndcg=ndcg_at_k, map=average_precision_at_k)
    if d['ours']=='auc': got = auc(e['scores'], e['relevant'], ~np.array(e['seen'], bool))
    else: got = ours[d['ours'].split('@')[0]](hits, n, **({'denominator': 'rel'} if 'rel' in d['ours'] else {}))
    assert got.mean()==pytest.approx(d['our_value'])

def test_ten_cases_agree_with_scikit_learn_now(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import metric_parity
    monkeypatch.setattr(metric_parity, 'PAIRS', {'sklearn': metric_parity.PAIRS['sklearn']})
    cases = metric_parity.make_cases(10, seed=1)
    rows = metric_parity.compare(cases, {'sklearn': metric_parity.ask_sklearn(cases)})
    assert {o['theirs'] for o in rows}==PEERS['sklearn'] and {o['cases'] for o in rows}=={10}
    assert max(o['max_abs_difference'] for o in rows)<=1e-6
