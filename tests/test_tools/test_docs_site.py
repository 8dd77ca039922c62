"""docs/_ext/mmpd_docs.py: what the site is made of, without building it (and without Sphinx)."""
import json
import logging
import re

import pytest
from conftest import ROOT, load_script

site = load_script('docs/_ext/mmpd_docs.py')


class Parts:
    """Something.

    Args:
        first (int | dict[str, int], optional): One thing: that
            goes on.

            With a paragraph.
        second, third (Sequence[int]),
            fourth: See :class:`StyleGAN2Prior`.
        out_size, kwargs: See :class:`StyleGAN2Prior`.

    Raises:
        ValueError: Never.
    """

    def __init__(self, first, second=(1, 2), third=None, fourth=4, out_size=8):
        pass


def test_every_entry_of_a_docstring_is_read():
    args = site.documented(Parts)
    assert set(args) == {'first', 'second', 'third', 'fourth', 'out_size', 'kwargs'}
    assert args['first'] == ('int | dict[str, int], optional',
                             'One thing: that\ngoes on.\n\nWith a paragraph.')
    assert args['fourth'] == ('Sequence[int]', 'See :class:`StyleGAN2Prior`.')
    assert args['out_size'] == ('int', 'Power of two, at least 8.')  # as it is there
    assert site.default_of(Parts, 'first') is None and site.default_of(Parts, 'second') == '(1, 2)'


@pytest.mark.parametrize('room', site.ROOMS, ids=lambda room: room.file)
def test_every_option_of_every_public_type_is_described(room, caplog):
    with caplog.at_level(logging.WARNING, 'sphinx.mmpd_docs'):
        page = site.options_page(room)
    assert not caplog.messages, caplog.messages
    types = site.public_types(room.package)
    assert types
    for cls in types:
        own = page.split(f'\n{cls.__name__}\n---')[1].split('\n---')[0]
        for name, *_ in site.options(cls, site.NOT_OPTIONS.get(room.package, ())):
            assert f'\n``{name}``\n' in own, (cls, name)


def test_an_option_that_is_not_described_is_told(caplog):
    class Silent(Parts):
        """Nothing.

        Args:
            first (int): One.
        """

        def __init__(self, first, extra=1):
            pass

    with caplog.at_level(logging.WARNING, 'sphinx.mmpd_docs'):
        rows = site.options(Silent)
    assert [row[0] for row in rows] == ['first']
    assert len(caplog.messages) == 1 and 'option extra' in caplog.messages[0]


def test_settings_of_all_classes_are_told():
    from mmpd.models.editors import PDN
    rows = {name: text for name, _, _, text in site.options(PDN)}
    assert 'num_samples' in rows['test_cfg'] and 'quantize' in rows['test_cfg']
    assert 'r1_weight' in rows['train_cfg'] and 'seed' in rows['train_cfg']


@pytest.mark.parametrize('source, link, turned', [
    ('docs/stack.md', '../README.md#supported-stack', '_pages/readme.md#supported-stack'),
    ('docs/reproduction.md', '../configs/pulse', '_pages/methods/pulse.md'),
    ('docs/priors.md', 'theory.md#limits', 'theory.md#limits'),
    ('docs/theory.md', 'https://arxiv.org/abs/2211.13524', 'https://arxiv.org/abs/2211.13524'),
    ('docs/model_zoo.md', '../configs/pd_glean/pd_glean_x8_2xb8_cat.py',
     '../configs/pd_glean/pd_glean_x8_2xb8_cat.py'),
    ('README.md', 'docs/theory.md', '../theory.md'),
    ('README.md', 'docs/real_esrgan.png', '../real_esrgan.png'),
    ('configs/glean/README.md', './glean_x8_2xb8_cat.py',
     '../../../configs/glean/glean_x8_2xb8_cat.py'),
    ('configs/glean/README.md', '../../docs/reproduction.md', '../../reproduction.md')])
def test_links_are_turned_for_the_site(source, link, turned):
    path = ROOT / source
    page = site.outside().get(path, path)
    assert site.relink(f'see [this]({link}) too', path, page) == f'see [this]({turned}) too'


def test_bars_and_names_over_two_lines():
    assert site.mend('of |A x - y|, (a | b | c) and ``|x|``') == (
        'of \\|A x - y\\|, (a | b | c) and ``|x|``')
    assert site.mend('    a, b,\n        c: See.') == '    a, b, c: See.'


def test_every_public_package_is_in_the_reference():
    pages = '\n'.join(path.read_text() for path in (ROOT / 'docs' / 'api').glob('*.rst'))
    modules = set(re.findall(r'automodule:: (\S+)', pages))
    surface = json.loads((ROOT / 'tests/data/public_surface.json').read_text())
    assert set(surface) <= modules
    assert {f'{package}.{name}' for package, names in surface.items() for name in names
            if (ROOT / package.replace('.', '/') / f'{name}.py').is_file()
            and not (ROOT / package.replace('.', '/') / f'{name}').is_dir()
            and name[0].islower() and package in ('mmpd.utils', 'mmpd.evaluation')} <= modules


def test_every_file_outside_that_becomes_a_page_exists():
    assert all(path.is_file() for path in site.outside())
