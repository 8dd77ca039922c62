"""tools/docs_check.py finds blocks that do not do what their page says."""
import numpy as np
import pytest
from conftest import ROOT, load_script
from PIL import Image

docs_check = load_script('tools/docs_check.py')
TINY = docs_check.DEMO


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp('docs') / 'samples'
    folder.mkdir()
    docs_check.make_samples(folder)
    return folder


@pytest.fixture
def check(samples, tmp_path):
    def run(text):
        page = tmp_path / 'page.md'
        page.write_text(text)
        return list(docs_check.check_page(page, samples, tmp_path / 'folder'))
    return run


def block(text, language='shell', mark=''):
    return f'{mark}\n```{language}\n{text}\n```\n'


def test_marks_hold_for_the_next_block_or_for_the_page(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(block('a', mark='<!-- needs: gpu, data -->') + block('b') + block('c', 'text')
                    + block('x = 1', 'python', '<!-- options: a=1 -->\n<!-- needs: gpu -->\ntext'))
    blocks = docs_check.blocks_of(page)
    assert [(one.text, one.marks) for one in blocks] == [
        ('a\n', {'needs': 'gpu, data'}), ('b\n', {}), ('x = 1\n', {})]
    assert [one.line for one in blocks] == [2, 6, 16]
    page.write_text('<!-- every block needs: gpu -->\n' + page.read_text())
    assert {one.marks['needs'] for one in docs_check.blocks_of(page)} == {'gpu, data', 'gpu'}


def test_commands_lose_comments_and_continuations():
    text = '# first\npython a.py \\\n    --x "1 2"   # why\n\nmake b\n'
    assert docs_check.commands_of(text) == [['python', 'a.py', '--x', '1 2'], ['make', 'b']]


def test_what_is_written_to_is_new_what_is_read_is_there():
    words = 'mmpd-infer MODEL -i LR_FOLDER -o SR_FOLDER --csv OUT_FOLDER/a.csv'.split()
    assert docs_check.filled(words, '7_0') == [
        'mmpd-infer', 'realesrgan-x4plus', '-i', 'lr', '-o', 'SR_FOLDER_7_0', '--csv', 'out/a.csv']


def test_blocks_run_in_the_order_of_the_page(check, tmp_path):
    results = check(
        block('made = 1\nopen("made.txt", "w").write("1")', 'python')
        + block('mmpd-make-consistent --lr LR_FOLDER --sr SR_FOLDER --out results')
        + block('def answer():\n    return 42', 'python', '<!-- file: my_module.py -->')
        + block('from my_module import answer\nassert made == 1 and answer() == 42', 'python'))
    assert [result.state for result in results] == ['ran'] * 4, results
    assert (tmp_path / 'folder' / 'made.txt').is_file()
    lr, saved = (np.asarray(Image.open(tmp_path / 'folder' / name / 'a.png'), np.int64)
                 for name in ('lr', 'results'))
    assert (saved.reshape(16, 4, 16, 4, 3).sum((1, 3)) == 16 * lr).all()


NEEDS = '<!-- needs: gpu, data -->'


@pytest.mark.parametrize('text', [
    f'python tools/train.py {TINY} --cfg-options train_cfg.max_iters=1',
    'mmpd-test CONFIG CHECKPOINT --out metrics.json',
    'torchrun --nproc_per_node 2 tools/infer.py MODEL -i LR_FOLDER -o OUT --launcher pytorch',
    'bash tools/dist_train.sh CONFIG 4 --resume',
    'GPUS=8 bash tools/slurm_test.sh PART NAME CONFIG CHECKPOINT'])
def test_what_needs_more_is_parsed_and_not_started(check, tmp_path, text):
    result, = check(block(text, mark=NEEDS))
    assert result.state == 'dry-run' and 'needs gpu, data' in result.note, result.note
    assert not (tmp_path / 'folder' / 'work_dirs' / 'first').exists()


@pytest.mark.parametrize('text, said', [
    (f'python tools/train.py {TINY} --no-such-option', 'SystemExit'),
    ('python tools/train.py configs/none.py', 'no config configs/none.py'),
    (f'python tools/train.py {TINY} --cfg-options model.type=PDGLEEN', "registered as 'PDGLEEN'"),
    (f'python tools/train.py {TINY} --cfg-options model.pd_hed.strength=1', 'takes no pd_hed'),
    ('python tools/benchmark/pd_head.py --no-such-option', 'has no option --no-such-option'),
    ('bash tools/dist_train.sh CONFIG four', 'expected a number of processes, got four'),
    ('make nothing', 'make has no target nothing'),
    ('pip install "mmpd[nothing]"', 'no extra nothing'),
    ('pip install -r requirements/none.txt', 'no requirements/none.txt'),
    ('rm -rf /tmp/x', 'not known')])
def test_a_wrong_command_is_found_without_running_it(check, text, said):
    result, = check(block(text, mark=NEEDS))
    assert result.state == 'FAILED' and said in result.note, result.note


@pytest.mark.parametrize('text, said', [
    ('1 / 0', 'ZeroDivisionError'),
    ('from mmpd.operators import Nothing', 'Nothing'),
    ("head = dict(operator=dict(type='AveragePoling', scale=8))", "'AveragePoling'"),
    ("operator = dict(type='AveragePooling', factor=8)", 'takes no factor'),
    (f"_base_ = '{TINY}'\nmodel = dict(pd_head=dict(strenght=1))", 'strenght'),
    (f"_base_ = '../{TINY}'\nmodel = dict(type='PDGLEEN')", "'PDGLEEN'")])
def test_wrong_python_is_found(check, text, said):
    result, = check(block(text, 'python'))
    assert result.state == 'FAILED' and said in result.note, result.note


def test_a_failing_tool_fails_its_block_and_the_next_one_runs(check):
    results = check(block('mmpd-make-consistent --lr none --sr none --out x')
                    + block('x = 1', 'python'))
    assert [result.state for result in results] == ['FAILED', 'ran']
    assert 'ended with 2' in results[0].note or 'SystemExit: 2' in results[0].note


def test_a_test_that_runs_a_page_has_to_name_it(check):
    mark = '<!-- run by: tests/test_tools/test_reproduction.py -->'
    result, = check(block('python tools/train.py', mark=mark))
    assert result.state == 'FAILED' and 'is no test of page.md' in result.note


def test_the_exit_code_and_the_list(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(docs_check, 'make_checkpoint', lambda folder: None)
    page = tmp_path / 'page.md'
    page.write_text(block('x = 1', 'python') + block('make nothing'))
    assert docs_check.main([str(page)]) == 1
    said = capfd.readouterr().out
    assert '1 FAILED, 1 ran of 2 blocks' in said and '   2 ran      x = 1' in said
    page.write_text(block('x = 1', 'python'))
    assert docs_check.main([str(page)]) == 0


def test_modules_of_a_page_do_not_reach_the_next(check, tmp_path, samples):
    check(block("A = 'first'", 'python', '<!-- file: shared.py -->')
          + block('from shared import A', 'python'))
    page = tmp_path / 'other.md'
    page.write_text(block("A = 'second'", 'python', '<!-- file: shared.py -->')
                    + block("from shared import A\nassert A == 'second'", 'python'))
    results = list(docs_check.check_page(page, samples, tmp_path / 'other'))
    assert [result.state for result in results] == ['ran', 'ran'], results


def test_every_command_of_the_pages_is_known():
    """A new command has to be made known to the checker, or written as text."""
    for page in docs_check.pages_of(ROOT):
        for one in docs_check.blocks_of(page):
            if one.language == 'python':
                compile(one.text, str(page), 'exec')
                continue
            for words in docs_check.commands_of(one.text):
                while '=' in words[0]:
                    words = words[1:]
                assert docs_check.tool_of(words) or words[0] in (
                    'pip', 'make', 'bash', 'torchrun', 'srun', '.', 'git', 'source'), words
