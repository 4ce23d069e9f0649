"What a bundle says besides its weights: loss, draws, columns, ids, whether scores are ratings; and bundles of before"
import json
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from helpers import fit, learner_of, without_progress
from recfast.bundle import SCHEMA, _signed, bundle_config, load_bundle
from recfast.cli import app, describe_bundle
from recfast.core import BundleError
from recfast.data.loaders import CollabDataLoaders
from recfast.evaluate import evaluate_recommender
from recfast.learner import collab_learner
from recfast.losses import (BCE, BPRLoss, ClassLoss, CosineContrastiveLoss, MaskedCrossEntropy, MaskedMSE, MultinomialLoss, NextItemLoss, RMSELoss,
                            SampledSoftmaxLoss, SoftmaxLoss, loss_spec, make_loss)
from recfast.models.base import MODELS
from recfast.models.dot import DotProduct, DotProductBias
from recfast.models.ids import ids_digest
from recfast.models.ncf import NeuMF
from recfast.models.sequence import SASRec
from recfast.testing import synth_ratings

FRAME = synth_ratings(n_users=30, n_items=20)
SHOP = FRAME.rename(columns=dict(user_id='client', item_id='sku', rating='stars', timestamp='at'))
NAMES = dict(user_name='client', item_name='sku', time_name='at')

def clicks(loss_func, arch=DotProductBias, config=None, **kwargs):
    dls = CollabDataLoaders.implicit_from_df(SHOP[['client','sku','at']], **NAMES, **{'bs': 32, 'seed': 1, **kwargs})
    return fit(without_progress(collab_learner(dls, 4, arch=arch, loss_func=loss_func, config=config)), 1, 1e-2)

def stars(**kwargs):
    dls = CollabDataLoaders.from_df(SHOP, rating_name='stars', **NAMES, bs=32, seed=1)
    return fit(without_progress(collab_learner(dls, 4, **{'y_range': (0,5.5), **kwargs})), 1, 1e-2)

def config_of(learn, tmp_path): return bundle_config(learn.save_bundle(tmp_path/'b'))

# what is written

LOSSES = { # loss, loaders, model
    'bce': (BCE(), dict(n_neg=3), {}), 'probabilities': (BCE(y_range=(0,1)), dict(n_neg=1), dict(config=dict(y_range=(0,1)))),
    'bpr': (BPRLoss(), dict(n_neg=2, alpha=.75), {}), 'softmax': (SoftmaxLoss(.3), dict(n_neg=0), {}),
    'sampled': (SampledSoftmaxLoss(.5, log_q=False), dict(n_neg=3, alpha=.5, keep_positives=True), {}),
    'contrastive': (CosineContrastiveLoss(.2, 3.), dict(n_neg=4), dict(arch=DotProduct, config=dict(cosine=True)))}

@pytest.mark.parametrize('name', LOSSES)
def test_loss_and_draws_come_back_and_answer_histories_as_before(name, tmp_path):
    loss,draws,how = LOSSES[name]
    learn = clicks(loss, **draws, **how)
    config = config_of(learn, tmp_path)
    assert config['schema']==SCHEMA==2 and config['loss']==json.loads(json.dumps(loss_spec(learn.loss_func)))
    assert config['draws']==dict(dict(alpha=0., keep_positives=False), **draws) and config['scores_are_ratings'] is False
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        rec = load_bundle(tmp_path/'b')
    assert loss_spec(rec.loss)==config['loss'] and rec.draws==learn.recommender.draws
    want = learn.recommend(history=[4,7], k=5)
    pd.testing.assert_frame_equal(rec.recommend(history=[4,7], k=5), want, rtol=1e-5, atol=1e-6)
    again = load_bundle(rec.save_bundle(tmp_path/'again.zip'))
    pd.testing.assert_frame_equal(again.recommend(history=[4,7], k=5), want, rtol=1e-5, atol=1e-6)
    told = {k: v for k,v in again.info.items() if k not in ('created','checksum')}
    assert told=={k: v for k,v in config.items() if k not in ('created','checksum')}

@pytest.mark.parametrize('loss', [BCE(), BCE((0,1)), RMSELoss(), ClassLoss(1), BPRLoss(), CosineContrastiveLoss(.1, 2.), SoftmaxLoss(.2), SampledSoftmaxLoss(3., False),
    MultinomialLoss(), MaskedMSE(), MaskedCrossEntropy([1,2.5,4]), NextItemLoss('sum')], ids=lambda o: type(o).__name__)
def test_every_loss_is_written_with_its_arguments(loss):
    spec = json.loads(json.dumps(loss_spec(loss)))
    back = make_loss(spec)
    assert type(back) is type(loss) and json.loads(json.dumps(loss_spec(back)))==spec
    plain = {k: v.tolist() if torch.is_tensor(v) else v for k,v in vars(loss).items() if k in spec['args']}
    assert {k: list(v) if isinstance(v, tuple) else v for k,v in plain.items()}==spec['args']

def test_classes_that_begin_at_one_keep_their_level(tmp_path):
    whole = SHOP.assign(stars=SHOP.stars.round().clip(1, 5))
    dls = CollabDataLoaders.from_df(whole, rating_name='stars', **NAMES, bs=32, seed=1)
    learn = fit(without_progress(collab_learner(dls, 4, arch=NeuMF, config=dict(n_out=5), loss_func=ClassLoss(low=1))), 1)
    config = config_of(learn, tmp_path)
    assert config['loss']==dict(name='ClassLoss', args=dict(low=1)) and config['scores_are_ratings'] is True
    assert load_bundle(tmp_path/'b').predict(1, 2)==pytest.approx(learn.predict(1, 2), abs=1e-5)

def test_names_of_columns_ids_and_date(tmp_path):
    learn = stars()
    config = config_of(learn, tmp_path)
    assert config['columns']|dict(user='client', item='sku', rating='stars', time='at')==config['columns']
    assert config['ids']==ids_digest(learn.dls.classes)!=ids_digest(dict(list(learn.dls.classes.items())[::-1]))
    age = datetime.now(timezone.utc)-datetime.fromisoformat(config['created'])
    assert timedelta(0)<=age+timedelta(seconds=1)<timedelta(minutes=5)
    rec = load_bundle(tmp_path/'b')
    assert list(rec.seen.frame().columns)==['client','sku','stars'] and rec.train.columns[:4]==('client','sku','stars','at')
    untimed = CollabDataLoaders.from_df(SHOP.drop(columns='at'), user_name='client', item_name='sku', rating_name='stars', bs=32, seed=1)
    assert config_of(collab_learner(untimed, 3), tmp_path)['columns']['time'] is None

def test_a_history_is_read_in_the_order_of_trainings_own_times(tmp_path):
    dls = CollabDataLoaders.sequences_from_df(SHOP, seq_len=5, bs=8, seed=1, **NAMES)
    learn = fit(without_progress(collab_learner(dls, 8, arch=SASRec, config=dict(seq_len=5, p=0.))), 3, 1e-2)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    days = pd.DataFrame(dict(sku=[3,4,5,6], at=[4,3,2,1]))
    want = learn.recommend(history=days, k=5)
    assert want.score.tolist()!=learn.recommend(history=days.drop(columns='at'), k=5).score.tolist()
    pd.testing.assert_frame_equal(rec.recommend(history=days, k=5), want, rtol=1e-5, atol=1e-6)
    assert rec.rated is False

def test_evaluation_and_baseline_go_along(tmp_path):
    learn = stars()
    ev = learn.evaluate(k=5)
    told = config_of(learn, tmp_path)['training']
    assert told['metrics']['ndcg@5']==pytest.approx(ev['ndcg@5']) and told['baseline']['ndcg@5']==pytest.approx(ev.baseline['ndcg@5'])
    assert told['protocol']==ev.protocol

RATED = dict(dotproduct=True, neumf=True, autorec=True, ease=False, ials=False, itemknn=False, popularity=False, sasrec=False, nextitem=False)

@pytest.mark.parametrize('name', RATED)
def test_whether_scores_are_ratings_is_kept(name, tmp_path):
    learn = learner_of(name, FRAME, bs=16)
    fit(learn, 1)
    assert config_of(learn, tmp_path)['scores_are_ratings'] is RATED[name] is load_bundle(tmp_path/'b').rated

def test_scores_of_clicks_are_no_ratings_though_all_values_are_stars(tmp_path):
    learn = clicks(BPRLoss(), n_neg=2)
    test = SHOP[['client','sku']].assign(stars=4.)
    test[:40].to_csv(tmp_path/'t.csv', index=False)
    learn.save_bundle(tmp_path/'b')
    got = CliRunner().invoke(app, ['evaluate', str(tmp_path/'b'), str(tmp_path/'t.csv'), '--out', str(tmp_path/'m.json')])
    assert got.exit_code==0, got.output
    assert 'rmse' not in json.loads((tmp_path/'m.json').read_text(encoding='utf-8'))['metrics']

def test_the_shell_shows_it(tmp_path):
    learn = clicks(SampledSoftmaxLoss(.5), n_neg=3, alpha=.5)
    facts = describe_bundle(learn.save_bundle(tmp_path/'b')).set_index('what').value
    assert 'SampledSoftmaxLoss' in facts['loss'] and '0.5' in facts['loss'] and 'n_neg' in facts['draws'] and facts['created'].startswith('20')

# room for what is to come

@pytest.mark.parametrize('what', [dict(parts=['rater','ranker']), dict(features=dict(item=['genre'])), dict(weighing=dict(name='w'))], ids=lambda o: next(iter(o)))
def test_what_a_later_recfast_wrote_is_not_left_out_in_silence(what, tmp_path):
    path = stars().save_bundle(tmp_path/'b')
    config = json.loads((path/'config.json').read_text(encoding='utf-8'))
    assert config['parts']==[] and config['features']=={} and config['weighing'] is None
    (path/'config.json').write_text(json.dumps(_signed(config|what)), encoding='utf-8')
    with pytest.raises(BundleError, match=f"'{next(iter(what))}' came after recfast .*pip install -U recfast"): load_bundle(path)

@pytest.mark.parametrize('gone', ['columns','scores_are_ratings','parts','n_train','files'])
def test_a_config_without_a_part_is_damaged(gone, tmp_path):
    path = stars().save_bundle(tmp_path/'b')
    config = json.loads((path/'config.json').read_text(encoding='utf-8'))
    del config[gone]
    (path/'config.json').write_text(json.dumps(_signed(config)), encoding='utf-8')
    with pytest.raises(BundleError, match='do not fit together'): load_bundle(path)

# bundles of before

THEN = Path(__file__).parent/'schema1'
CLICKS = json.loads((THEN/'clicks'/'answers.json').read_text(encoding='utf-8'))
KEPT = dict(bpr=(BPRLoss,{}), bce=(BCE,dict(y_range=None)), sampled=(SampledSoftmaxLoss,dict(temperature=.5, log_q=False)))

@pytest.mark.parametrize('name', CLICKS)
def test_clicks_of_schema_1_are_answered_as_then(name):
    then,path = CLICKS[name],THEN/'clicks'/f'{name}.zip'
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        rec = load_bundle(path)
        new = rec.recommend(history=[4,7], k=3)
    assert bundle_config(path)['schema']==1 and rec.rated is False
    kind,args = KEPT[name]
    assert type(rec.loss) is kind and loss_spec(rec.loss)['args']==args
    pd.testing.assert_frame_equal(rec.recommend([1,2], k=3), pd.DataFrame(then['recommend']), check_dtype=False, rtol=1e-5, atol=1e-6)
    assert rec.predict(1, 4)==pytest.approx(then['predict']['score'][0], abs=1e-5)
    told = [str(o.message) for o in said if 'kept no settings of the loss' in str(o.message)]
    if name=='sampled': # written by 0.2.0 before schema 2: its settings are there
        assert not told and rec.draws==dict(n_neg=3, alpha=.5, keep_positives=False)
        pd.testing.assert_frame_equal(new, pd.DataFrame(then['history']), check_dtype=False, rtol=1e-5, atol=1e-6)
    else: assert len(told)==1 and f'{kind.__name__} with its defaults and 4 negatives' in told[0]

@pytest.mark.parametrize('name', ['bpr','bce'])
def test_a_bundle_of_then_is_written_down_as_it_is_read(name, tmp_path):
    with pytest.warns(UserWarning, match='kept no settings of the loss'): rec = load_bundle(THEN/'clicks'/f'{name}.zip')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        again = load_bundle(rec.save_bundle(tmp_path/'b'))
    assert again.info['schema']==2 and again.info['draws']==rec.draws and again.rated is False
    pd.testing.assert_frame_equal(again.recommend(history=[4,7], k=3), rec.recommend(history=[4,7], k=3))

def test_a_loss_that_is_given_needs_no_word():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert isinstance(load_bundle(THEN/'clicks'/'bpr.zip', loss=BPRLoss()).loss, BPRLoss)
        for name in ('dotproductbias','ease'): assert load_bundle(THEN/f'{name}.zip').rated is (name=='dotproductbias')

def test_a_model_from_a_bundle_goes_on_with_its_ids(tmp_path):
    "The rows of a loaded model are those of its ids, and training goes on from there"
    learn = stars()
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    more = fit(without_progress(collab_learner(learn.dls, arch=rec.model)), 1, 1e-2)
    assert np.isfinite(more.predict(1, 2)) and set(MODELS)>=set(RATED)

@pytest.mark.parametrize('unit', [None,'s','min'])
def test_an_order_is_not_compared_with_times(unit, tmp_path):
    "A bundle keeps the order of times only: a test with times is measured, and nothing is said of leakage"
    timed = SHOP.assign(at=SHOP['at'] if unit is None else pd.to_datetime(SHOP['at'], unit='s').dt.floor(unit))
    dls = CollabDataLoaders.from_df(timed[::2].reset_index(drop=True), rating_name='stars', **NAMES, bs=32, seed=1)
    learn = fit(without_progress(collab_learner(dls, 4, y_range=(0,5.5))), 1)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    test = timed[1::2].reset_index(drop=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        then = learn.evaluate(test, k=5)
    now = evaluate_recommender(rec.model, rec.train, test, k=5)
    assert now['ndcg@5']==pytest.approx(then['ndcg@5']) and 'leakage' in then.protocol and 'leakage' not in now.protocol
    early = test.assign(at=range(len(test)))
    assert 'leakage' not in evaluate_recommender(rec.model, rec.train, early, k=5).protocol
