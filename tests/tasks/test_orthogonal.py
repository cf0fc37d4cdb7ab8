"""Orthogonal matrices are orthogonal, and those drawn by Haar's law are spread as it says."""

import torch
from scipy import stats

from tasks.orthogonal import haar, rotation_blocks
from tasks.streams import normals, uniforms

IDENTITY = torch.eye(4, dtype=torch.float64)


def test_haar_matrices_are_orthogonal_and_uniform() -> None:
    q = haar(normals([0], "test", 0, 4000, 4, 4).double())[0]
    torch.testing.assert_close(q @ q.mT, IDENTITY.expand_as(q), atol=1e-12, rtol=0)
    # an entry squared is Beta(1/2, (d - 1)/2), and as often positive as not, on the diagonal as well
    for entry in (q[:, 0, 0], q[:, 3, 3], q[:, 1, 2]):
        assert stats.kstest(entry.square().numpy(), stats.beta(0.5, 1.5).cdf).pvalue > 0.01
        assert stats.binomtest(int((entry > 0).sum()), len(entry)).pvalue > 0.01
    unsigned = torch.linalg.qr(normals([0], "test", 0, 4000, 4, 4).double()).Q[0, :, 0, 0]
    assert stats.binomtest(int((unsigned > 0).sum()), len(unsigned)).pvalue < 1e-6  # what the signs are for


def test_haar_law_does_not_change_under_rotation() -> None:
    q = haar(normals([0], "test", 0, 4000, 4, 4).double())[0]
    fixed = haar(normals([1], "test", 0, 4, 4).double())[0]
    traces = (matrices.diagonal(dim1=1, dim2=2).sum(-1).numpy() for matrices in (q[:2000], fixed @ q[2000:]))
    assert stats.ks_2samp(*traces).pvalue > 0.01


def test_rotation_blocks_turn_every_plane_by_its_angle_and_commute() -> None:
    angles = 2 * torch.pi * uniforms([0], "test", 0, 2, 2).double()[0]
    first, second = rotation_blocks(angles)
    torch.testing.assert_close(first @ first.mT, IDENTITY, atol=1e-12, rtol=0)
    torch.testing.assert_close(first @ second, second @ first, atol=1e-12, rtol=0)
    torch.testing.assert_close(first @ second, rotation_blocks(angles.sum(0)), atol=1e-12, rtol=0)
    expected = torch.stack([angles[0].cos(), angles[0].sin()], -1)
    torch.testing.assert_close(first[:, [0, 2]].reshape(2, 2, 2)[[0, 1], :, [0, 1]], expected, atol=1e-12, rtol=0)
