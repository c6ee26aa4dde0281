"""What does not belong to one command: environment, exit codes, files, notation."""

from typing import ClassVar

from surgeon.record import Record

ENVIRONMENT = """\
Environment variables that surgeon and the libraries under it read.

HF_TOKEN              token for gated or private models and for push; never printed
HF_HOME               where models are cached (default ~/.cache/huggingface)
HF_HUB_OFFLINE=1      never use the network, as --offline
HF_ENDPOINT           another Hub, such as a mirror
HF_HUB_DISABLE_XET=1  upload and download over plain HTTP
OMP_NUM_THREADS       CPU threads of one process
CUDA_VISIBLE_DEVICES  which GPUs there are; empty for none
NO_COLOR              no colours
COLUMNS               width of tables
TERM=dumb             lines instead of progress bars

surgeon has no variables of its own: what decides a result is in the recipe or the options,
and is recorded with it."""

EXIT_CODES = """\
Exit codes, the same for every command.

0    done, whatever the verdict
1    failed: files, model, network, a failed verification
2    usage: an unknown option or name, a bad block, an invalid recipe
3    refused by a guard before anything was written: 7B class, unknown architecture,
     pickle, no space, existing output; push: verdict worse, undecided or unknown
4    needs a login: gated or private model, no token, an expired one
5    --require was given and the verdict does not meet it
130  interrupted; the same command goes on where it stopped

With --json an error is also a document on stdout: schema surgeon.error/1, with exit_code."""

NOTATION = """\
Blocks and layer plans.

6:11        a block: layers 6, 7, 8, 9, 10. Layers count from 0, the end is not included
:11,6:      a layer plan: run layers 0..10, then 6..N-1; what `--block 6:11` does
0:4,4,4,4:  layer 4 three times
:8,12:      without layers 8..11
owner/name@revision   a model on the Hub; the revision is resolved to a commit
demo:planted          the bundled model with a block that can run twice
demo:control          the bundled model without one
task:cups             the prompts of a bundled task, as `probe.prompts`"""

FILES = """\
Files of a run folder (surgeon run --out DIR).

recipe.yaml     the recipe as it was run, overrides included
inspect.json    the base model, from its headers         schema surgeon.inspect/1
probe.json      statistics per layer, ranked blocks      surgeon.probe/1
select.json     measured blocks, the winner              surgeon.select/1
model/          the new checkpoint; model/surgeon.json says how it was made, model/README.md
                is its card
duplicate.json  a copy of model/surgeon.json             surgeon.manifest/2
verify.json     what was verified                        surgeon.verify/1
check.json      the verdict with its numbers             surgeon.check/1
cost.json       tokens per second and memory             surgeon.cost/1
rows.jsonl      both models' answer to each document
candidates.jsonl  the candidates ever checked in this folder, one a line
run.json        what it all came to; what run --json prints   surgeon.run/1
report.html     the run on one page; loads nothing
report.md       the run for a pull request
stages.json     which stages are done and what from

A finished stage is not run again while its inputs are the same. JSON: null is not measured."""

TOPICS = {
    "environment": ENVIRONMENT,
    "exit-codes": EXIT_CODES,
    "files": FILES,
    "notation": NOTATION,
}


class Topic(Record):
    """One help text."""

    SCHEMA: ClassVar[str] = "surgeon.help/1"

    topic: str
    text: str
