"""`lwqctl eval` gives lm-evaluation-harness's figures for the same model and items: accuracies exactly,
perplexities within 1e-4 (both sides sum in another order: f32 differences of 1e-6 relative a token)."""
import json
import os

import lwq

TASKS = 120  # items: enough for the decisions to differ if a rule did
TEXT = 30000  # characters of held-out text, 15 windows of the model's 512 tokens

text_file = os.path.join(lwq.TMP, "text.txt")
with open(text_file, "w", encoding="utf-8") as f:
    f.write(lwq.sample_text(TEXT))
task_file = os.path.join(lwq.TMP, "choices.jsonl")
with open(os.path.join(lwq.SAMPLE, "choices.jsonl"), encoding="utf-8") as f:
    lines = f.readlines()[:TASKS]
with open(task_file, "w", encoding="utf-8") as f:
    f.writelines(lines)


def harness():
    """{task: results} of the harness, in f32, one request at a time."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = os.path.join(lwq.TMP, "tasks")
    os.makedirs(folder)
    rolling_file = os.path.join(folder, "text.jsonl")
    with open(rolling_file, "w", encoding="utf-8") as f:
        json.dump({"text": lwq.sample_text(TEXT)}, f)
    data = "dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {}\ntest_split: test\n"
    with open(os.path.join(folder, "choices.yaml"), "w", encoding="utf-8") as f:
        f.write("task: lwq_choices\n" + data.format(task_file) + "output_type: multiple_choice\n"
                "doc_to_text: \"{{context}}\"\ndoc_to_choice: choices\ndoc_to_target: answer\n"
                "metric_list:\n  - metric: acc\n  - metric: acc_norm\n")
    with open(os.path.join(folder, "text.yaml"), "w", encoding="utf-8") as f:
        f.write("task: lwq_text\n" + data.format(rolling_file) + "output_type: loglikelihood_rolling\n"
                "doc_to_text: \"\"\ndoc_to_target: \"{{text}}\"\n"
                "metric_list:\n  - metric: word_perplexity\n  - metric: byte_perplexity\n  - metric: bits_per_byte\n")
    model = HFLM(pretrained=lwq.SAMPLE, dtype="float32", device="cpu", batch_size=1)
    manager = TaskManager(include_path=folder, include_defaults=False)
    return lm_eval.simple_evaluate(model, tasks=["lwq_choices", "lwq_text"], task_manager=manager, bootstrap_iters=0)["results"]


def close(what, found, expected, relative):
    lwq.below(f"{what}: {found:.8g}, lm-eval {expected:.8g}: relative difference", abs(found / expected - 1), relative)


theirs = harness()
answer = json.loads(lwq.run("lwqctl", "eval", lwq.SAMPLE, "--text", text_file, "--tasks", task_file, "--json",
                            "--data-dir", os.path.join(lwq.TMP, "service")))
results = lwq.evaluations(answer)
choice = next(r["choice"] for r in results if "choice" in r)
text = next(r["text"] for r in results if "text" in r)
lwq.equal("acc", choice["acc"], theirs["lwq_choices"]["acc,none"])
lwq.equal("acc_norm", choice["acc_norm"], theirs["lwq_choices"]["acc_norm,none"])
for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
    close(metric, text[metric], theirs["lwq_text"][metric + ",none"], 1e-4)
lwq.finish()
