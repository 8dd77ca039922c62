"""Pages that are made when the site is built, so that they cannot differ from the code.

Before Sphinx reads anything, :func:`write_pages` fills ``docs/_pages``: the options of every public
type out of the docstrings, and the Markdown files that stand outside ``docs``. Links between files
work in the repository as they are written and are turned for the site.
"""
import inspect
import json
import logging
import re
import sys
from collections import namedtuple
from importlib import import_module
from os.path import relpath
from pathlib import Path
from textwrap import dedent, indent

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
PAGES = DOCS / '_pages'
LINK = re.compile(r'(\]\()([^)\s#]+)((?:#[^)\s]*)?\))')
# names and types of an entry of Args, up to the colon that ends them
HEADER = re.compile(r'[\w*][\w*, \n]*(?:\([^()]*(?:\([^()]*\)[^()]*)*\)[\w*, \n]*)*:(?:\s|$)')
SECTION = re.compile(r'^[A-Z][\w ]*:$')
log = logging.getLogger('sphinx.mmpd_docs')  # Sphinx counts the warnings below its name

Room = namedtuple('Room', 'file title package text')
ROOMS = (
    Room('models', 'Model types', 'mmpd.models.editors', 'Values of ``model.type``.'),
    Room('heads', 'The PD head', 'mmpd.models.heads', 'The keys of ``model.pd_head``.'),
    Room('operators', 'Operators', 'mmpd.operators',
         'Values of ``operator.type``, in ``model.pd_head``, ``LRSynthesis``, ``LRConsistency`` '
         'and ``PanelHook``.'),
    Room('generators', 'Generators', 'mmpd.models.generators',
         'Values of ``model.generator.type``.'),
    Room('losses', 'Losses', 'mmpd.models.losses',
         'Values of ``model.perceptual_loss.type``; other losses are MMagic\'s.'),
    Room('transforms', 'Transforms', 'mmpd.datasets.transforms', 'Members of a ``pipeline``.'),
    Room('metrics', 'Metrics', 'mmpd.evaluation.metrics',
         'Members of ``val_evaluator`` and ``test_evaluator``.'),
    Room('hooks', 'Hooks', 'mmpd.engine.hooks', 'Members of ``custom_hooks``.'),
    Room('loops', 'Loops', 'mmpd.engine.loops', 'Values of ``test_cfg.type``.'),
)
# set by MMagic's runner, not in a config
NOT_OPTIONS = {'mmpd.engine.loops': ('runner', 'dataloader', 'evaluator')}
# what every module of mmengine takes, in one wording
COMMON = {
    'init_cfg': ('dict, optional', 'How the weights are initialised, see mmengine; '
                 "``dict(type='Pretrained', checkpoint=..., prefix=...)`` loads a checkpoint, "
                 'completely or not at all.'),
}


def outside():
    """Markdown files outside ``docs`` -> their pages."""
    pages = {ROOT / f'{name}.md': PAGES / f'{name.lower()}.md'
             for name in ('README', 'CHANGELOG', 'CONTRIBUTING', 'SECURITY',
                          'CODE_OF_CONDUCT')}
    pages.update({path: PAGES / 'methods' / f'{path.parent.name}.md'
                  for path in sorted(ROOT.glob('configs/*/README.md'))})
    pages.update({path: PAGES / 'integrations' / f'{path.parent.name}.md'
                  for path in sorted(ROOT.glob('integrations/*/README.md'))})
    path = ROOT / 'tools/dataset_converters/README.md'
    pages[path] = PAGES / 'dataset_converters.md'
    return pages


def relink(text, source, page):
    """Links of the Markdown file ``source`` as they have to be in ``page``."""
    pages = outside()

    def turned(match):
        target = match[2]
        if re.match(r'[a-z]+:', target):
            return match[0]
        path = (source.parent / target).resolve()
        path = path / 'README.md' if path.is_dir() else path
        return match[1] + relpath(pages.get(path, path), page.parent) + match[3]

    return LINK.sub(turned, text)


def documented(cls):
    """The Args of a docstring: name -> (type, text in reStructuredText).

    One entry may describe several names, ``a, b (int): ...``; one that says ``See :class:`X`.``
    is described there.
    """
    args, inside, blocks = {}, False, []
    for line in dedent_docstring(cls).splitlines():
        if SECTION.match(line) or (line and not line.startswith(' ')):
            inside = line in ('Args:', 'Arguments:')
        elif inside and re.match(r'    [\w*]', line):
            blocks.append([line.strip()])
        elif inside and blocks:
            blocks[-1].append(line)
    for first, *rest in blocks:
        text = first + '\n' + dedent('\n'.join(rest))
        split = HEADER.match(text)
        if split is None:
            continue
        header, effect = split[0].rstrip(': \n'), text[split.end():].strip()
        kind = re.search(r'\(([^()]*(?:\([^()]*\)[^()]*)*)\)', header)
        for name in re.findall(r'\w+', re.sub(r'\([^()]*(?:\([^()]*\)[^()]*)*\)', '', header)):
            args[name] = (kind[1] if kind else '', effect)
            there = re.fullmatch(r'See :class:`(\w+)`\.', effect)
            if there:
                args[name] = documented(class_of(there[1])).get(name, args[name])
    return args


def class_of(name):
    """The class of that name, wherever in mmpd it is."""
    for room in ROOMS:
        import_module(room.package)
    return next(getattr(module, name) for key, module in sorted(sys.modules.items())
                if key.startswith('mmpd.') and hasattr(module, name))


def dedent_docstring(cls):
    return inspect.cleandoc(cls.__dict__.get('__doc__') or '' if isinstance(cls, type)
                            else cls.__doc__ or '')


def own(cls):
    return getattr(cls, '__module__', '').startswith('mmpd.')


def default_of(cls, name):
    """The default as Python writes it, None if the option has to be given."""
    for one in (cls.__mro__ if isinstance(cls, type) else [cls]):
        function = one.__dict__.get('__init__') if isinstance(one, type) else one
        if callable(function) and one is not object:
            parameter = inspect.signature(function).parameters.get(name)
            if parameter is not None:
                return None if parameter.default is parameter.empty else repr(parameter.default)
    return None


def options(cls, left_out=()):
    """(name, type, default or None, text) of every option of a type.

    The nearest class that describes an option is believed; of ``train_cfg`` and ``test_cfg``, which
    each class of mmpd gives some more keys, all of them.
    """
    from mmpd.utils.validation import parameters_of
    known = [(one, documented(one)) for one in
             (cls.__mro__ if isinstance(cls, type) else [cls])]
    rows = []
    for name in parameters_of(cls):
        if name in left_out:
            continue
        texts = [args[name] for one, args in known if name in args and own(one)
                 and args[name][1] != 'See ``BaseModule``.']
        texts = texts if name.endswith('_cfg') and name != 'init_cfg' else texts[:1]
        texts = texts or [text for one, text in COMMON.items() if one == name]
        texts = texts or [args[name] for _, args in known if name in args][:1]
        if not texts:
            log.warning('%s.%s: option %s is not described in any docstring',
                        cls.__module__, cls.__name__, name)
            continue
        rows.append((name, texts[0][0], default_of(cls, name),
                     '\n\n'.join(text for _, text in texts)))
    return rows


def summary(cls):
    """What stands before the first section of the docstring."""
    lines = []
    for line in dedent_docstring(cls).splitlines():
        if SECTION.match(line):
            break
        lines.append(line)
    return '\n'.join(lines).strip()


def public_types(package):
    """The public types of a package that a config can name."""
    from mmagic import registry
    from mmengine.registry import Registry
    module = import_module(package)
    registries = [value for value in vars(registry).values() if isinstance(value, Registry)]
    if hasattr(module, 'OPERATORS'):
        registries.append(module.OPERATORS)
    known = {id(value) for one in registries for value in one.module_dict.values()}
    pd_first = sorted(module.__all__, key=lambda name: (not name.startswith('PD'), name))
    return [getattr(module, name) for name in pd_first
            if id(getattr(module, name, None)) in known]


def options_page(room):
    """One page of the config guide, in reStructuredText."""
    parts = [room.title, '=' * len(room.title), '', room.text, '']
    for cls in public_types(room.package):
        name = cls.__name__
        role = 'class' if isinstance(cls, type) else 'func'
        parts += [name, '-' * len(name), '', summary(cls), '',
                  f':{role}:`In the API reference <{room.package}.{name}>`', '']
        rows = options(cls, NOT_OPTIONS.get(room.package, ()))
        for option, kind, default, text in rows:
            given = f'default ``{default}``' if default is not None else 'must be given'
            kind = kind.replace('|', 'or').replace('*', r'\*').replace(', optional', '')
            parts += [f'``{option}``', indent(f'*{kind}*, {given}' if kind else given, '    '), '',
                      indent(text, '    '), '']
        if not rows:
            parts += ['No options.', '']
    return mend('\n'.join(parts))


def write(path, text):
    """Write a page if it is new: what is unchanged is not read again by Sphinx."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)
    return path


def write_pages(app):
    """Fill ``docs/_pages`` and remove what no longer belongs there."""
    written = {write(PAGES / 'config' / f'{room.file}.rst', options_page(room)) for room in ROOMS}
    for source, page in outside().items():
        written.add(write(page, relink(source.read_text(), source, page)))
    for path in PAGES.rglob('*.*'):
        if path.is_file() and path not in written:
            path.unlink()


def read_page(app, name, source):
    """Turn the links of a page in ``docs``."""
    path = Path(app.env.doc2path(name))
    if path.suffix == '.md' and PAGES not in path.parents:
        source[0] = relink(source[0], path, path)


def resolve_short_name(app, env, node, content):
    """``:class:`PDHead``` in a docstring: the object of that name, wherever it is documented."""
    if node.get('refdomain') != 'py':
        return None
    target = node['reftarget'].lstrip('.~')
    domain = env.get_domain('py')
    found = [name for name in domain.objects if name.endswith(f'.{target.split(".")[-1]}')
             and (name.endswith(f'.{target}') or target.startswith('mmpd.'))]
    if len(found) != 1:
        return None
    node['reftarget'] = found[0]
    return domain.resolve_xref(env, node['refdoc'], app.builder, node['reftype'], found[0], node,
                               content)


def mend(text):
    """A docstring as reStructuredText takes it: bars are no substitution, names in one line."""
    text = re.sub(r'(``.*?``)|(?<!\|)\|(?=\S)([^|`\n]*[^|`\s])\|(?!\|)',
                  lambda match: match[1] or rf'\|{match[2]}\|', text)
    return re.sub(r'^(    \w+(?:, \w+)+,)\n +(\w+(?:, \w+)*:)', r'\1 \2', text, flags=re.M)


def mend_docstring(app, what, name, obj, options, lines):
    lines[:] = mend('\n'.join(lines)).split('\n')


def check_surface(app, env):
    """Warn of public names that the API reference lacks."""
    surface = json.loads((ROOT / 'tests/data/public_surface.json').read_text())
    known = {*env.get_domain('py').objects, *env.get_domain('py').modules}
    for package, names in surface.items():
        for name in names:
            if f'{package}.{name}' not in known and name != '__version__':
                log.warning('%s.%s is public and not in the API reference', package, name)


def setup(app):
    app.connect('builder-inited', write_pages)
    app.connect('source-read', read_page)
    app.connect('missing-reference', resolve_short_name)
    app.connect('autodoc-process-docstring', mend_docstring, priority=400)  # before napoleon
    app.connect('env-check-consistency', check_surface)
    return dict(version='1', parallel_read_safe=True, parallel_write_safe=True)
