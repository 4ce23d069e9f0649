"What a model may offer is one table, and it is asked in one way"
import ast

import pytest

from house import MODULES, read
from recfast.models.base import HOOKS, MODELS, offers
from recfast.models import zoo  # noqa: F401 (registers every model)

OWN = {'y_range','hyper','classes','cosine','by'} # arguments of a model, not ways it has

def probed(text):
    "Names that `hasattr` asks of what is called a model or a class"
    for o in ast.walk(ast.parse(text)):
        if not (isinstance(o, ast.Call) and isinstance(o.func, ast.Name) and o.func.id=='hasattr' and len(o.args)==2): continue
        who,name = ast.unparse(o.args[0]),o.args[1]
        if isinstance(name, ast.Constant) and who.split('.')[-1] in ('model','cls'): yield name.value

def test_nobody_probes_a_model_for_a_hook_but_its_room():
    assert {p.stem: names for p in MODULES if (names:=set(probed(read(p)))-OWN)}=={}

def test_a_probe_is_found(): assert set(probed("if hasattr(self.model, 'solve'): pass"))=={'solve'}

def test_an_unknown_hook_is_an_error():
    with pytest.raises(KeyError, match='is no hook; there are'): offers(object, 'score_item')

@pytest.mark.parametrize('name', MODELS)
def test_what_a_model_offers_has_the_form_the_table_says(name):
    cls,caps = MODELS[name]
    for hook in [o for o in HOOKS if offers(cls, o)]:
        form,value = HOOKS[hook].form,getattr(cls, hook)
        kind = {'a bool': bool, 'a number': (int,float)}.get(form)
        assert isinstance(value, kind) if kind else callable(value), hook
    assert caps['reads'] in ('pairs','rows','sequences','histories')

def test_every_hook_is_offered_by_some_model_or_asked_of_anybody():
    unused = [o for o in HOOKS if not any(offers(cls, o) for cls,_ in MODELS.values())]
    assert set(unused)<={'rated','reads','note','finish'}, unused
