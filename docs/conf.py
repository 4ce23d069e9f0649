"Sphinx reads the pages that build.py wrote"
import json,sys
from pathlib import Path
from docutils import nodes
from docutils.parsers.rst import directives
from myst_nb import sphinx_ext
from sphinx.util.docutils import SphinxDirective
sys.path.insert(0, str(Path(__file__).parent.parent))
import recfast

release = recfast.__version__
project,author,copyright = 'recfast','The recfast developers','the recfast developers, Apache-2.0'
extensions = ['myst_nb','sphinx_copybutton','sphinx_design','sphinx-mathjax-offline','sphinx.ext.mathjax']
exclude_patterns = ['.doctrees','.outputs']
html_theme,html_title,html_static_path,html_css_files = 'pydata_sphinx_theme','recfast',['_static'],['recfast.css']
html_js_files = ['search.js']
html_logo,html_favicon = '_static/logo.svg','_static/logo.svg'
html_extra_path = ['../nbs/llms.txt']
html_copy_source,html_show_sourcelink = False,False
html_baseurl = 'https://recfast.github.io/recfast/'
html_theme_options = dict(
    logo=dict(text='recfast'), github_url='https://github.com/recfast/recfast', use_edit_page_button=True, header_links_before_dropdown=8,
    show_toc_level=2, navigation_with_keys=False, secondary_sidebar_items=['page-toc','edit-this-page'], footer_start=['copyright'], footer_end=[])
html_context = dict(default_mode='auto',
    edit_page_url_template='https://github.com/recfast/recfast/edit/main/{{ sources.get(file_name.rsplit(".", 1)[0], "") }}', edit_page_provider_name='GitHub',
    sources={'changelog': 'CHANGELOG.md', **{o: 'docs/build.py' for o in ('tutorials','guides','api')},
             **{k: f'nbs/{v}' for k,v in json.loads((Path(__file__).parent.parent/'_proc/.pages/sources.json').read_text()).items()}})
html_sidebars = {o: [] for o in ('index','changelog','benchmarks','gallery','design')}
myst_enable_extensions = ['dollarmath','attrs_block','attrs_inline','colon_fence','deflist']
myst_heading_anchors,myst_url_schemes = 4,{'http': None, 'https': None, 'mailto': None, 'page': '{{path}}#{{fragment}}'}
sphinx_ext.OUTPUT_FOLDER = '_proc/.pages/.outputs'
nb_execution_mode,nb_render_markdown_format,nb_merge_streams = 'off','myst',True
nb_code_prompt_show,nb_code_prompt_hide = 'Show the code','Hide the code'
copybutton_exclude,copybutton_prompt_text,copybutton_only_copy_prompt_lines = '.linenos, .gp, .go','! ',False

class Symbol(SphinxDirective):
    "The anchor that nbdev links to, entered into Sphinx's index of Python objects"
    required_arguments,option_spec = 1,dict(kind=directives.unchanged, anchor=directives.unchanged)
    def run(self):
        anchor,ids = self.options['anchor'],self.state.document.ids
        target = nodes.target('', '', ids=[f'entry-{anchor}' if anchor in ids else anchor])
        self.env.get_domain('py').note_object(self.arguments[0], self.options['kind'], anchor, location=target)
        return [ids.setdefault(target['ids'][0], target)]

def take_anchors(app, doctree):
    "An anchor that a heading of prose has too, perhaps far above, is the entry's"
    held = [o for o in doctree.findall(nodes.Element) if o.get('ids')]
    mine = {i[6:] for o in held for i in o['ids'] if i.startswith('entry-')}
    for o in held: o['ids'] = [i.removeprefix('entry-') if i.startswith('entry-') else f'about-{i}' if i in mine else i for i in o['ids']]
    for o in doctree.findall(nodes.target):
        if 'refid' in o: o['refid'] = o['refid'].removeprefix('entry-')

def setup(app):
    app.add_directive('symbol', Symbol)
    app.connect('doctree-read', take_anchors, priority=100)
