"""Run the command blocks of the README and the docs (``make docs-check``).

Every ```shell, ```bash and ```python block of a page is run in a temporary folder of that page, in
the order of the page, on small pictures (crops of scikit-image's public-domain astronaut). A
comment directly above a block, which readers do not see, says what else is to be done with it:

    <!-- needs: gpu, data -->         not here: arguments are parsed and configs built, no more
    <!-- file: my_module.py -->       the block is that file; later blocks may use it
    <!-- options: a.b=1 -->           train and test get these --cfg-options, to be done soon
    <!-- run: command FILE -->        then this command is run on the config that the block is
    <!-- run by: tests/test_x.py -->  that test runs the block; its syntax is looked at here

``<!-- every block needs: ... -->`` and ``<!-- every block run by: ... -->`` are for a whole page.
Words in capitals (LR_FOLDER, CHECKPOINT ...) are replaced by files that exist, see PLACEHOLDERS;
in Python lr, sr and gt are RGB arrays, unless the page makes its own.
What ran and what did not is listed; the exit code is 1 if a block failed.
"""
import argparse
import ast
import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import namedtuple
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DEMO = 'configs/pd_glean/pd_glean_in8out64-tiny_1xb8-400_demo.py'
# what a reader puts there, and what is put there here
PLACEHOLDERS = dict(
    LR_FOLDER='lr', SR_FOLDER='sr', OUT_FOLDER='out', GT_FOLDER='gt', LR='lr', SR='sr', GT='gt',
    MY_DATA='my_data', CONFIG=DEMO, CHECKPOINT='work_dirs/demo/pdglean/iter_300.pth',
    MODEL='realesrgan-x4plus')
WORD = re.compile(r'(?<![\w/])(' + '|'.join(PLACEHOLDERS) + r')(?!\w)')
MARK = re.compile(r'<!-- (every block )?(needs|file|options|run by|run): (.+?) -->')
LANGUAGES = ('shell', 'bash', 'python')

Block = namedtuple('Block', 'page line language text marks')
Result = namedtuple('Result', 'block what state note')  # state: ran, dry-run or FAILED


class Wrong(Exception):
    """A block that does not do what its page says."""


def blocks_of(page):
    """The command blocks of a Markdown file, with the marks that hold for each."""
    lines = page.read_text().splitlines()
    whole, marks, found, start = {}, {}, [], None
    for number, line in enumerate(lines, 1):
        fence = re.match(r'```(\w*)', line)
        if start is None and fence and fence[1]:
            start, language, text = number, fence[1], []
        elif start is not None and line.startswith('```'):
            if language in LANGUAGES:
                found.append(Block(page, start, language, '\n'.join(text) + '\n',
                                   {**whole, **marks}))
            start, marks = None, {}
        elif start is not None:
            text.append(line)
        else:
            said = MARK.findall(line)
            for every, key, value in said:
                (whole if every else marks)[key] = value
            if line.strip() and not said:
                marks = {}
    return found


def commands_of(text):
    """The commands of a shell block, one list of words each, comments left out."""
    text = re.sub(r'\\\n\s*', ' ', text)
    words = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [line for line in words if line]


def filled(words, number):
    """Placeholders replaced by what stands in the page's folder; what is written to is new."""
    return [f'{word}_{number}' if before in ('-o', '--out') and WORD.match(word) else
            WORD.sub(lambda match: PLACEHOLDERS[match[0]], word)
            for before, word in zip(['', *words], words, strict=False)]


# --------------------------------------------------------------------------- the page's folder

def make_samples(folder):
    """Small pictures and a checkpoint, as the pages name them."""
    import skimage.data
    picture = Image.fromarray(skimage.data.astronaut())
    places = ('gt', 'my_data/GT', 'work_dirs/demo/data/train/GT', 'work_dirs/demo/data/val/GT')
    for name in ('lr', 'sr', 'my_data/LR', *places):
        (folder / name).mkdir(parents=True)
    for index, corner in enumerate(((180, 60), (210, 120))):
        gt = picture.crop((*corner, corner[0] + 64, corner[1] + 64))
        for name in places:
            gt.save(folder / name / f'{"ab"[index]}.png')
        gt.reduce(8).save(folder / f'my_data/LR/{"ab"[index]}.png')
        lr = gt.reduce(4)
        lr.save(folder / f'lr/{"ab"[index]}.png')
        sr = lr.resize(gt.size, Image.Resampling.BICUBIC)
        sr.save(folder / f'sr/{"ab"[index]}.png')
    lr.save(folder / 'lr.png')
    gt.reduce(8).save(folder / 'my_8px_image.png')
    for name in ('configs', 'tools', 'requirements', 'README.md'):
        (folder / name).symlink_to(ROOT / name)


def make_checkpoint(folder):
    """One iteration of the demo's model, its file where ``make demo`` leaves it."""
    from mmpd.cli.train import main
    with inside(folder):
        main([DEMO, '--work-dir', 'work_dirs/first', '--cfg-options', 'train_cfg.max_iters=1',
              'train_dataloader.batch_size=2', 'default_hooks.checkpoint.save_best=None'])
        target = Path(PLACEHOLDERS['CHECKPOINT'])
        target.parent.mkdir(parents=True)
        shutil.move('work_dirs/first/iter_1.pth', target)
        shutil.rmtree('work_dirs/first')


@contextlib.contextmanager
def inside(folder):
    """Work in ``folder``, whose modules can be imported."""
    before, path = Path.cwd(), list(sys.path)
    argv, modules = sys.argv, set(sys.modules)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:], sys.argv = path, argv
        for name in set(sys.modules) - modules:  # another page may have a module of that name
            file = getattr(sys.modules[name], '__file__', None)
            if file and Path(folder) in Path(file).parents and not Path(file).is_symlink():
                del sys.modules[name]


@contextlib.contextmanager
def quiet(log):
    """What a block prints, and what its libraries print, goes to ``log``."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    with open(log, 'w') as file:
        for number, _ in kept:
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)


# -------------------------------------------------------------------------------------- shell

def tool_of(words):
    """(name of the command module or path of the script, arguments), None if it is neither."""
    def is_command(name):
        return (ROOT / 'mmpd' / 'cli' / f'{name}.py').is_file()

    if words[0].startswith('mmpd-') and is_command(words[0][5:].replace('-', '_')):
        return words[0][5:].replace('-', '_'), words[1:]
    if words[0] == 'python' and len(words) > 1 and words[1].endswith('.py'):
        stem = Path(words[1]).stem
        if Path(words[1]).parent == Path('tools') and is_command(stem):
            return stem, words[2:]
        return Path(words[1]), words[2:]
    return None


def inner(words):
    """The mmpd tool that a launcher or a shell script starts, with its arguments."""
    if words[0] in ('torchrun', 'srun'):
        for index, word in enumerate(words[1:], 1):
            if word.startswith('mmpd-'):
                return words[index:]
            if word.endswith('.py'):
                return ['python', *words[index:]]
        raise Wrong(f'{words[0]} starts nothing of mmpd')
    script, args = words[1], words[2:]
    family = 'test' if 'test' in Path(script).stem else 'train'
    if 'slurm' in script:  # PARTITION JOB_NAME CONFIG WORK_DIR|CHECKPOINT ...
        known = args[2:4] if family == 'test' else [args[2], '--work-dir', args[3]]
        rest = args[4:]
    else:  # CONFIG [CHECKPOINT] PROCESSES ...
        count = 2 if family == 'test' else 1
        known, rest = args[:count], args[count + 1:]
        if not args[count].isdigit():
            raise Wrong(f'{script}: expected a number of processes, got {args[count]}')
    return ['python', f'tools/{family}.py', *known, *rest]


def run_tool(words, extra):
    """Run a command in this process."""
    name, args = tool_of(words)
    if extra and name in ('train', 'test'):
        if '--cfg-options' in args:
            args = [*args, *extra]
        else:
            args = [*args, '--cfg-options', *extra]
    if isinstance(name, Path):
        module = load(name)
        sys.argv = [str(name), *args]
        code = module.main()
    else:
        sys.argv = [words[0], *args]
        code = import_module(f'mmpd.cli.{name}').main(args)
    if code:
        raise Wrong(f'{" ".join(words)} ended with {code}')


def load(path):
    spec = importlib.util.spec_from_file_location(f'docs_check_{path.stem}', ROOT / path)
    if spec is None or not (ROOT / path).is_file():
        raise Wrong(f'there is no {path}')
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str((ROOT / path).parent))
    spec.loader.exec_module(module)
    return module


def dry_tool(words):
    """Parse the arguments of a command, build its config, start nothing."""
    name, args = tool_of(words)
    if isinstance(name, Path):
        known = set(re.findall(r'--?[\w-]+', help_of(name)))
        wrong = [word.partition('=')[0] for word in args if word.startswith('-')]
        wrong = [word for word in wrong if word not in known]
        if wrong:
            raise Wrong(f'{name} has no option {", ".join(wrong)}')
        return
    parsed = import_module(f'mmpd.cli.{name}').parse_args(args)
    if name in ('train', 'test'):
        from mmengine.config import Config
        path = Path(parsed.config)
        if not (path.is_file() or (ROOT / path).is_file()):
            raise Wrong(f'there is no config {path}')
        cfg = Config.fromfile(path if path.is_file() else ROOT / path)
        cfg.merge_from_dict(parsed.cfg_options or {})
        check_types(cfg.to_dict(), str(path))


def help_of(script):
    """What a script prints for --help."""
    import io
    text = io.StringIO()
    module = load(script)
    sys.argv = [str(script), '--help']
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        module.main()
    return text.getvalue()


def look_at(words):
    """What is never run here: set-ups, make, launchers. Returns a note."""
    if words[:2] == ['pip', 'install'] or words[:4] == ['python', '-m', 'pip', 'install']:
        check_pip(words[words.index('install') + 1:])
        return 'installs'
    if words[0] == 'make':
        targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M))
        wrong = [word for word in words[1:] if '=' not in word and word not in targets]
        if wrong:
            raise Wrong(f'make has no target {", ".join(wrong)}')
        return 'make'
    if words[0] in ('torchrun', 'srun'):
        dry_tool(inner(words))
        return 'several processes'
    if words[0] == 'bash' and len(words) > 1 and words[1].startswith('tools/'):
        subprocess.run(['bash', '-n', ROOT / words[1]], check=True)
        dry_tool(inner(words))
        return 'several processes'
    if words[0] in ('.', 'source', 'git', 'cd', 'export', 'conda', 'mim', 'pre-commit') or words[
            :3] == ['python', '-m', 'venv']:
        return 'sets up the shell'
    return None


def check_pip(words):
    """Requirements that parse, extras and files that exist."""
    from packaging.requirements import Requirement
    extras = set(re.findall(r"^            '(\w+)': ", (ROOT / 'setup.py').read_text(), re.M))
    words = iter(words)
    for word in words:
        if word in ('-r', '-c'):
            name = next(words)
            if not (ROOT / name).is_file():
                raise Wrong(f'pip: there is no {name}')
        elif word.startswith('-'):
            continue
        elif re.match(r'(\.|mmpd)(\[|$)', word):
            named = set(re.findall(r'\w+', word.partition('[')[2]))
            if named - extras:
                raise Wrong(f'mmpd has no extra {", ".join(named - extras)}')
        elif '://' not in word and not word.endswith('.whl'):
            Requirement(word)


def run_shell(block, dry):
    """Run the commands of a block. Returns (state, notes)."""
    notes, ran = [], False
    for number, words in enumerate(commands_of(block.text)):
        words = filled(words, f'{block.line}_{number}')
        while words and re.fullmatch(r'[A-Z_]+=\S*', words[0]):
            words = words[1:]
        if not words:
            continue
        note = look_at(words)
        if note:
            notes.append(f'{words[0]}: {note}')
        elif tool_of(words) is None:
            raise Wrong(f'not known to tools/docs_check.py: {" ".join(words)}')
        elif dry:
            dry_tool(words)
        else:
            run_tool(words, shlex.split(block.marks.get('options', '')))
            ran = True
    return 'ran' if ran else 'dry-run', notes


# ------------------------------------------------------------------------------------- python

def check_types(value, where):
    """Every ``dict(type='Name', ...)`` names something registered, with arguments mmpd's takes."""
    if isinstance(value, dict):
        kind = value.get('type')
        found = registered(kind) if isinstance(kind, str) else []
        if isinstance(kind, str) and not found:
            raise Wrong(f'{where}: nothing is registered as {kind!r}')
        if len(found) == 1 and found[0].__module__.startswith('mmpd.'):
            check_arguments(found[0], value, where)
        for key, item in value.items():
            check_types(item, f'{where}.{key}')
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_types(item, where)


def registered(name):
    """What a config may mean by ``type=name``."""
    from mmagic import registry
    from mmengine.registry import Registry, init_default_scope

    from mmpd.operators import OPERATORS
    init_default_scope('mmagic')
    everything = [*(one for one in vars(registry).values() if isinstance(one, Registry)), OPERATORS]
    found = {id(one.get(name)): one.get(name) for one in everything}
    return [one for one in found.values() if one is not None]


def check_arguments(cls, config, where):
    from mmpd.utils.validation import parameters_of
    known = parameters_of(cls)
    plain = not isinstance(cls, type)  # a function such as PDModel hands on what it does not know
    wrong = set(config) - {'type', '_scope_', *known}
    if wrong and not plain:
        raise Wrong(f'{where}: {cls.__name__} takes no {", ".join(sorted(wrong))}')


def quoted(text):
    """Placeholders that are strings of Python replaced by what stands in the page's folder."""
    names = '|'.join(set(PLACEHOLDERS) - {'LR', 'SR', 'GT'})  # these are folders of data sets
    return re.sub(rf"(?<=')({names})(?=')", lambda match: PLACEHOLDERS[match[0]], text)


def run_config(block, folder, dry):
    """A block that is a config: it is read, its types are known, its model can be built."""
    import torch
    from mmagic.registry import MODELS
    from mmengine.config import Config
    parent = folder / 'mine' if "'../" in block.text else folder
    parent.mkdir(exist_ok=True)
    path = parent / block.marks.get('file', f'block_{block.line}.py')
    path.write_text(quoted(block.text))
    cfg = Config.fromfile(path)
    check_types({key: value for key, value in cfg.to_dict().items() if not key.startswith('_')},
                path.name)
    if dry:
        return 'dry-run'
    cfg.model.pop('perceptual_loss', None)  # it would download its VGG here and now
    with torch.device('meta'):
        MODELS.build(cfg.model)
    if 'run' in block.marks:
        words = shlex.split(block.marks['run'])
        run_tool([str(path) if word == 'FILE' else word for word in words], [])
    return 'ran'


def run_python(block, folder, names, dry):
    """A block of Python: a config, a file or statements."""
    tree = ast.parse(block.text)
    if '_base_ =' in block.text:
        return run_config(block, folder, dry), ['a config']
    if 'file' in block.marks:
        path = folder / block.marks['file']
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        return 'ran', [f'written as {block.marks["file"]}']
    if dry:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level:
                module = import_module(node.module)
                missing = [one.name for one in node.names if not hasattr(module, one.name)]
                if missing:
                    raise Wrong(f'{node.module} has no {", ".join(missing)}')
        return 'dry-run', []
    before = set(names)
    exec(compile(quoted(block.text), f'{block.page.name}:{block.line}', 'exec'), names)  # noqa: S102
    for name in set(names) - before:
        if isinstance(names[name], dict):
            check_types(names[name], name)
    return 'ran', []


# --------------------------------------------------------------------------------------- pages

def run_block(block, folder, names):
    """Run one block. Returns (state, notes)."""
    if 'run by' in block.marks:
        test = ROOT / block.marks['run by']
        if not test.is_file() or block.page.name not in test.read_text():
            raise Wrong(f'{block.marks["run by"]} is no test of {block.page.name}')
        if block.language == 'python':
            ast.parse(block.text)
        else:
            commands_of(block.text)
        return 'by test', [block.marks['run by']]
    dry = 'needs' in block.marks
    if block.language == 'python':
        state, notes = run_python(block, folder, names, dry)
    else:
        state, notes = run_shell(block, dry)
    return state, [*(['needs ' + block.marks['needs']] if dry else []), *notes]


def check_page(page, samples, folder):
    """Run all blocks of a page. Yields a :class:`Result` for each."""
    shutil.copytree(samples, folder, symlinks=True)
    names, log = {'__name__': '__main__'}, folder.parent / 'output.txt'
    names.update({name: np.asarray(Image.open(folder / name / 'a.png'))
                  for name in ('lr', 'sr', 'gt')})
    for block in blocks_of(page):
        what = next((line for line in block.text.splitlines() if line.strip()), '')
        begin = time.monotonic()
        try:
            with inside(folder), quiet(log):
                state, notes = run_block(block, folder, names)
            if time.monotonic() - begin > 2:
                notes.append(f'{time.monotonic() - begin:.0f} s')
            note = '; '.join(dict.fromkeys(notes))
        except (Exception, SystemExit) as error:  # whatever a block may do
            state = 'FAILED'
            said = log.read_text().strip().splitlines()[-8:]
            frames = [] if isinstance(error, (Wrong, SystemExit)) else traceback.format_exception(
                error)[-3:]
            note = '\n    '.join([f'{type(error).__name__}: {error}', *said,
                                  *''.join(frames).splitlines()])
        yield Result(block, what, state, note)


def pages_of(root=ROOT):
    """README, CONTRIBUTING and the pages of the docs."""
    return [root / 'README.md', root / 'CONTRIBUTING.md', *sorted((root / 'docs').glob('*.md'))]


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('pages', nargs='*', type=Path, metavar='PAGE',
                        help='Markdown files; default README.md, CONTRIBUTING.md, docs/*.md')
    args = parser.parse_args(argv)
    for page in args.pages:
        if not page.is_file():
            parser.error(f'no page {page}')
    return args


def main(argv=None):
    args = parse_args(argv)
    pages = [page.resolve() for page in args.pages] or [
        page for page in pages_of() if page.is_file()]
    pages = [page for page in pages if blocks_of(page)]
    counts, begin = {}, time.monotonic()
    import mmpd  # noqa: F401  before MMagic, in whatever order the blocks import
    with tempfile.TemporaryDirectory() as parent:
        samples = Path(parent) / 'samples'
        samples.mkdir()
        make_samples(samples)
        with quiet(Path(parent) / 'output.txt'):
            make_checkpoint(samples)
        for index, page in enumerate(pages):
            print(page.relative_to(ROOT) if ROOT in page.parents else page, flush=True)
            for result in check_page(page, samples, Path(parent) / f'page_{index}'):
                counts[result.state] = counts.get(result.state, 0) + 1
                print(f'  {result.block.line:4} {result.state:8} {result.what[:60]:60} '
                      f'{result.note}'.rstrip(), flush=True)
    total = ', '.join(f'{count} {state}' for state, count in sorted(counts.items()))
    print(f'docs-check: {total} of {sum(counts.values())} blocks, '
          f'{time.monotonic() - begin:.0f} s')
    return 1 if 'FAILED' in counts else 0


if __name__ == '__main__':
    sys.exit(main())
