"""Einstein summation."""

from __future__ import annotations

from tests.autodiff.cases.case import Case, normal

EQUATIONS: list[tuple[str, list[tuple[int, ...]]]] = [
    ("ij,jk->ik", [(2, 3), (3, 4)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("ba", [(2, 3)]),  # the implicit form sorts: a transpose
    ("bhid,bhjd->bhij", [(2, 2, 3, 4), (2, 2, 5, 4)]),
    ("b i d , b j d -> b i j", [(2, 3, 4), (2, 5, 4)]),
    ("bij->bji", [(2, 3, 4)]),
    ("ij->", [(2, 3)]),
    ("ij->i", [(2, 3)]),
    ("ij->j", [(2, 3)]),
    ("i,j->ij", [(2,), (3,)]),
    ("i,i->", [(3,), (3,)]),
    ("i,i", [(3,), (3,)]),
    (",ij->ij", [(), (2, 3)]),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 2)]),
    ("bij,bj->b", [(2, 3, 4), (2, 4)]),
    ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
    ("...ij,jk->...ik", [(2, 1, 3, 4), (4, 5)]),
    ("...ij,...jk->...ik", [(1, 3, 4), (5, 4, 2)]),
    ("...i,...i", [(2, 3), (2, 3)]),
    ("i...->...", [(2, 3, 4)]),
    ("...->...", [(2, 3)]),
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("bii->b", [(2, 3, 3)]),
    ("iji->j", [(2, 3, 2)]),
    ("iij,jk->ik", [(2, 2, 3), (3, 4)]),
    ("iii->i", [(3, 3, 3)]),
    ("ij,ij->ij", [(2, 3), (2, 1)]),
]


def _einsums() -> list[Case]:
    cases = [Case("Einsum", [normal(*s) for s in shapes], {"equation": equation}) for equation, shapes in EQUATIONS]
    cases += [Case("Einsum", [normal(*s) for s in p], {"equation": e}, dynamic=True) for e, p in EQUATIONS]
    cases += [
        Case("Einsum", [normal(2, 3), normal(3, 4)], {"equation": "ij,jk->ik"}, constants=(1,)),
        Case("Einsum", [normal(2, 3), normal(3, 4)], {"equation": "ij,jk->ik"}, opset=12),
    ]
    return cases


CASES: list[Case] = _einsums()
