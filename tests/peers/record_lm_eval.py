#!/usr/bin/env python3
"""Records what lm-evaluation-harness reports for the sample model.

    python3 tests/peers/record_lm_eval.py SHARED_DATA [ITEMS] > tests/golden/lm-eval-sample.json

Needs lm-eval with the HF backend; float32, batch size 1, no network. Every item's log-likelihoods and
is_greedy, the accuracies, and rolling log-likelihoods of texts. The multiple-choice items are given
to the harness as its own task files render them (hellaswag through its own process_docs).
"""
import json
import os
import re
import shutil
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
import datasets
import lm_eval
from lm_eval.tasks import TaskManager
from lm_eval.tasks.hellaswag.utils import process_docs

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.realpath(os.path.join(HERE, "../../examples/lwq-books-10m"))
CHOICE = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{text}"
doc_to_choice: "{choices}"
doc_to_target: {gold}
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
ROLLING = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - {{metric: word_perplexity}}
  - {{metric: byte_perplexity}}
  - {{metric: bits_per_byte}}
"""


def rows(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


def wikitext_pages(path, count):
    pages, page = [], []
    for line in open(path, encoding="utf-8"):
        flat = line.replace("= = =", "===").replace("= =", "==").strip()
        if flat.startswith("= ") and flat.endswith(" ="):
            pages.append("".join(page))
            page = []
        page.append(line)
    return [p for p in pages if p.strip()][:count]


def main():
    root = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    folder = tempfile.mkdtemp()

    def task(name, template, data, **fields):
        path = os.path.join(folder, name + ".jsonl")
        with open(path, "w", encoding="utf-8") as out:
            out.writelines(json.dumps(row) + "\n" for row in data)
        with open(os.path.join(folder, name + ".yaml"), "w") as out:
            out.write(template.format(name=name, path=path, **fields))
        return name

    piqa = rows(os.path.join(root, "piqa/valid.jsonl"))[:count]
    labels = open(os.path.join(root, "piqa/valid-labels.lst")).read().split()
    for row, label in zip(piqa, labels):
        row["label"] = int(label)
    arc = [{"question": r["question"], "texts": r["choices"]["text"],
            "gold": r["choices"]["label"].index(r["answerKey"])}
           for r in rows(os.path.join(root, "arc_easy/test.jsonl"))[:count]]
    hella = process_docs(datasets.Dataset.from_list(rows(os.path.join(root, "hellaswag/val-1000.jsonl"))[:count]))
    hella = [{k: r[k] for k in ("query", "choices", "gold")} for r in hella]
    held_out = open(os.path.join(MODEL, "held-out.txt"), encoding="utf-8", newline="").read()
    texts = [held_out[:20000]] + wikitext_pages(os.path.join(root, "wikitext-2/wiki.test.raw"), 2)
    names = [
        task("lwq_choices", CHOICE, rows(os.path.join(MODEL, "choices.jsonl"))[:2 * count], text="{{context}}",
             choices="{{choices}}", gold="answer"),
        task("lwq_piqa", CHOICE, piqa, text="Question: {{goal}}\\nAnswer:",
             choices="{{[sol1, sol2]}}", gold="label"),
        task("lwq_arc_easy", CHOICE, arc, text="Question: {{question}}\\nAnswer:",
             choices="{{texts}}", gold="gold"),
        task("lwq_hellaswag", CHOICE, hella, text="{{query}}", choices="choices", gold="gold"),
        task("lwq_rolling", ROLLING, [{"text": t} for t in texts]),
    ]
    if "--held-out" in sys.argv:
        names.append(task("lwq_held_out", ROLLING, [{"text": held_out}]))
    # transformers 5 rebuilds Llama tokenizers by rules of its own, which differ from tokenizer.json for
    # texts that begin with a blank: the file as it stands is the reference.
    config = json.load(open(os.path.join(MODEL, "tokenizer_config.json")))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    json.dump(config, open(os.path.join(folder, "tokenizer_config.json"), "w"))
    shutil.copy(os.path.join(MODEL, "tokenizer.json"), folder)
    if "--rolling-only" in sys.argv:
        names = [name for name in names if name in ("lwq_rolling", "lwq_held_out")]
    result = lm_eval.simple_evaluate(
        model="hf", model_args=f"pretrained={MODEL},dtype=float32,tokenizer={folder}", tasks=names,
        batch_size=1, device="cpu", log_samples=True,
        task_manager=TaskManager(include_path=folder, include_defaults=False),
        bootstrap_iters=1000)
    out = {"lm_eval": lm_eval.__version__, "tasks": {}}
    for name in names:
        record = {"results": {re.sub(",none$", "", k): v for k, v in result["results"][name].items()
                              if isinstance(v, (int, float))}}
        samples = sorted(result["samples"][name], key=lambda s: s["doc_id"])
        if "held_out" in name or "rolling" in name:
            record["log_likelihoods"] = [float(s["resps"][0][0]) for s in samples]
        else:
            record["items"] = [[[float(r[0][0]), str(r[0][1]) == "True"] for r in s["resps"]]
                               for s in samples]
        out["tasks"][name] = record
    out["tasks"]["lwq_rolling"]["texts"] = texts
    json.dump(out, sys.stdout, indent=0)
    print()


main()
