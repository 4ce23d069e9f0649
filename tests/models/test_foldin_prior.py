"What is known before training: biases by their normal equations, a column by its formula"
import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recfast.models.foldin import column_prior, fit_biases, fit_column

def ratings(n_rows=12, n_cols=9, seed=0):
    rs = np.random.RandomState(seed)
    return csr_matrix(np.where(rs.rand(n_rows, n_cols)<.6, rs.randint(1, 6, (n_rows, n_cols)), 0).astype(np.float32))

@pytest.mark.parametrize('row_doubt,col_doubt', [(15.,10.), (2.,0.5)])
def test_biases_solve_their_normal_equations(row_doubt, col_doubt):
    R = ratings()
    mean,b_row,b_col,left = fit_biases(R, row_doubt, col_doubt, n_iter=200)
    stars = R.toarray().astype(float)
    known = stars>0
    off = np.where(known, stars-mean.item()-b_row.numpy()[:,None]-b_col.numpy(), 0)
    np.testing.assert_allclose(off.sum(1), row_doubt*b_row, atol=1e-6)
    np.testing.assert_allclose(off.sum(0), col_doubt*b_col, atol=1e-6)
    assert left.item()==pytest.approx((off**2).sum()/known.sum())

def test_a_row_without_ratings_has_no_bias():
    R = ratings().toarray()
    R[3] = 0
    assert fit_biases(csr_matrix(R), 5., 5.)[1][3]==0

def prior(n=20, d=5, seed=0):
    return column_prior(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double(), torch.tensor(.3).double())

def test_a_linear_column_is_ridge_regression_around_the_mean():
    p,X = prior(),torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double()
    r = torch.tensor([1.,2.,3.,4.]).double()
    prec = torch.linalg.inv(p.cov(torch.eye(5).double()))
    want = torch.linalg.solve(X.T@X/p.noise+prec, X.T@r/p.noise+prec@p.mean)
    torch.testing.assert_close(fit_column(p, lambda v: (v*X).sum(-1), r), want)

def test_a_column_under_a_sigmoid_is_a_minimum():
    p,X = prior(),torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double()
    r,scores = torch.tensor([.9,.1,.8,.3]).double(),lambda v: torch.sigmoid((v*X).sum(-1))
    prec = torch.linalg.inv(p.cov(torch.eye(5).double()))
    cost = lambda v: ((r-scores(v)).square().sum()/p.noise+(v-p.mean)@prec@(v-p.mean)).item()
    v = fit_column(p, scores, r, n_iter=50)
    near = [cost(v+s) for s in torch.randn(50, 5, generator=torch.Generator().manual_seed(2)).double()*.1]
    assert min(near)>cost(v)*(1-1e-4) and cost(v)<cost(p.mean)

def test_without_ratings_nobody_differs_from_the_mean():
    none = torch.zeros(0).double()
    assert torch.equal(fit_column(prior(), lambda v: v[...,0] if len(v.shape)>1 else v[:0], none), prior().mean)
