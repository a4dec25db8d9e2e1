#!/usr/bin/env python3
"""Writes dashboards/*.json. The panels are the tables below; tests/deploy holds that the files are what
this program writes and that each query gives data when lwq runs."""
import json
import pathlib

DATASOURCE = {"type": "prometheus", "uid": "lwq-prometheus"}  # provisioning/datasources/prometheus.yml
# Calls that stay open by design say nothing about how fast the server answers.
UNARY = 'method!~"WatchJob|LeaseTasks|GetModel|ReadBlob|WriteBlob|ReadArtifact"'


def rate(metric, by, selector="", window="$__rate_interval"):
    return f"sum by ({by}) (rate({metric}{{{selector}}}[{window}]))"


def increase(metric, by, selector="", window="24h"):
    return f"sum by ({by}) (increase({metric}{{{selector}}}[{window}]))"


def quantile(q, metric, by="", selector="", window="$__rate_interval"):
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{selector}}}[{window}])))"


def two_quantiles(metric, by, selector="", window="1h"):
    legend = f"{{{{{by}}}}} " if by else ""
    return [(quantile(q, metric, by, selector, window), f"{legend}p{round(q * 100)}") for q in (0.5, 0.95)]


FINISHED = "sum(increase(lwq_jobs_finished_total{%s}[24h]))"

# file: (title, [(panel, unit, kind, [(query, legend)])])
DASHBOARDS = {
    "service": ("lwq service", [
        ("Version that serves", "none", "stat", [("sum by (version) (lwq_build_info)", "{{version}}")]),
        ("Jobs now", "none", "stat", [("sum by (state) (lwq_jobs)", "{{state}}")]),
        ("Jobs that succeeded, 24 h", "percentunit", "stat",
         [(FINISHED % 'state="succeeded"' + " / " + FINISHED % 'state!="cancelled"', "succeeded")]),
        ("Failed jobs by who can mend it, 24 h", "none", "timeseries",
         [(increase("lwq_jobs_finished_total", "blame", 'state="failed"'), "{{blame}}")]),
        ("Calls", "reqps", "timeseries", [(rate("lwq_grpc_requests_total", "method"), "{{method}}")]),
        ("Calls that failed", "reqps", "timeseries", [(rate("lwq_grpc_requests_total", "code", 'code!="OK"'), "{{code}}")]),
        ("Time of short calls, p99", "s", "timeseries",
         [(quantile(0.99, "lwq_grpc_request_seconds", "method", UNARY, "5m"), "{{method}}")]),
        ("Open calls", "none", "timeseries", [("sum by (method) (lwq_grpc_in_flight)", "{{method}}")]),
        ("Work waiting for a thread", "none", "timeseries", [("max by (executor) (lwq_executor_queue)", "{{executor}}")]),
        ("Time of a commit", "s", "timeseries",
         [(quantile(q, "lwq_store_op_seconds", window="5m"), f"p{round(q * 100)}") for q in (0.5, 0.99)]),
        ("Commits that failed", "ops", "timeseries", [(rate("lwq_store_errors_total", "op"), "{{op}}")]),
        ("Server's processors", "none", "timeseries",
         [('rate(process_cpu_seconds_total{job="lwq-server"}[$__rate_interval])', "{{instance}}")]),
        ("Server's memory", "bytes", "timeseries", [('process_resident_memory_bytes{job="lwq-server"}', "{{instance}}")]),
        ("Server's open files", "none", "timeseries", [('process_open_fds{job="lwq-server"}', "{{instance}}")]),
    ]),
    "workers": ("lwq workers", [
        ("Workers", "none", "stat", [("sum by (state) (lwq_workers)", "{{state}}")]),
        ("Share of time at work", "percentunit", "timeseries", [("avg_over_time(lwq_worker_busy[5m])", "{{instance}}")]),
        ("Devices", "none", "stat", [("count by (device, version) (lwq_worker_info)", "{{device}} {{version}}")]),
        ("Tasks that wait and run", "none", "timeseries",
         [("sum(lwq_tasks_ready)", "ready"), ("sum(lwq_tasks_leased)", "leased")]),
        ("Leases", "ops", "timeseries",
         [("sum(rate(lwq_leases_granted_total[$__rate_interval]))", "granted"),
          ("sum(rate(lwq_leases_expired_total[$__rate_interval]))", "expired"),
          (rate("lwq_leases_rejected_total", "reason"), "refused, {{reason}}")]),
        ("Tasks that did not end well, 1 h", "none", "timeseries",
         [(increase("lwq_task_events_total", "event", 'event=~"retry|failed"', "1h"), "{{event}}")]),
        ("Tasks of each worker", "ops", "timeseries",
         [(rate("lwq_worker_tasks_total", "instance, outcome"), "{{instance}} {{outcome}}")]),
        ("Where the time goes", "percentunit", "timeseries",
         [(rate("lwq_worker_stage_seconds_total", "stage", window="5m")
           + " / ignoring (stage) group_left () sum(rate(lwq_worker_stage_seconds_total[5m]))", "{{stage}}")]),
        ("Tokens put through models", "ops", "timeseries", [(rate("lwq_worker_tokens_total", "kind"), "{{kind}}")]),
        ("Blobs read and written", "Bps", "timeseries", [(rate("lwq_worker_blob_bytes_total", "stage"), "{{stage}}")]),
        ("Memory", "bytes", "timeseries", [("lwq_worker_memory_bytes", "{{instance}} {{kind}}")]),
        ("Processors", "none", "timeseries",
         [('rate(process_cpu_seconds_total{job="lwq-worker"}[$__rate_interval])', "{{instance}}")]),
        ("Threads", "none", "timeseries", [('process_threads{job="lwq-worker"}', "{{instance}}")]),
    ]),
    "jobs": ("lwq jobs", [
        ("Submitted, 24 h", "none", "stat", [(increase("lwq_jobs_created_total", "outcome"), "{{outcome}}")]),
        ("Finished, 24 h", "none", "stat", [(increase("lwq_jobs_finished_total", "state"), "{{state}}")]),
        ("Jobs now", "none", "timeseries", [("sum by (state) (lwq_jobs)", "{{state}}")]),
        ("From submission to the end", "s", "timeseries", two_quantiles("lwq_job_seconds", "state", 'state="succeeded"')),
        ("Compute time of a task", "s", "timeseries", two_quantiles("lwq_task_duration_seconds", "kind")),
        ("Compute time by kind", "percentunit", "timeseries",
         [(rate("lwq_task_duration_seconds_sum", "kind", window="5m"), "{{kind}}")]),
        ("Tasks that wait", "none", "timeseries", [("sum by (kind) (lwq_tasks_ready)", "{{kind}}")]),
        ("Tasks that run", "none", "timeseries", [("sum by (kind) (lwq_tasks_leased)", "{{kind}}")]),
        ("What happens to tasks", "ops", "timeseries", [(rate("lwq_task_events_total", "event"), "{{event}}")]),
    ]),
    "cache": ("lwq cache and cost", [
        # Of tasks, not of looks: a job that tries plans looks for its own results anew for each round.
        ("Tasks answered by the cache, 24 h", "percentunit", "stat",
         [('sum(increase(lwq_task_events_total{event="cached"}[24h])) / sum(increase(lwq_task_events_total{event=~"cached|done"}[24h]))',
           "answered")]),
        ("Compute time, 24 h", "s", "stat", [("sum(increase(lwq_task_duration_seconds_sum[24h]))", "spent"),
                                             ("sum(increase(lwq_cache_saved_seconds_total[24h]))", "spared")]),
        ("Blobs", "bytes", "stat", [("sum(lwq_blob_bytes)", "bytes")]),
        ("Looks for results", "ops", "timeseries",
         [(rate("lwq_cache_lookups_total", "kind, result"), "{{kind}} {{result}}")]),
        ("Compute time spent, 24 h", "s", "timeseries", [(increase("lwq_task_duration_seconds_sum", "kind"), "{{kind}}")]),
        ("Compute time spared, 24 h", "s", "timeseries", [(increase("lwq_cache_saved_seconds_total", "kind"), "{{kind}}")]),
        ("Number of blobs", "none", "timeseries", [("sum(lwq_blob_objects)", "blobs")]),
        ("Free space for blobs", "bytes", "timeseries", [("min(lwq_blob_free_bytes)", "free")]),
        ("Blobs through the server", "Bps", "timeseries", [(rate("lwq_blob_io_bytes_total", "op"), "{{op}}")]),
        ("Deleted by collection, 24 h", "none", "timeseries", [(increase("lwq_collected_total", "what"), "{{what}}")]),
        ("Bytes freed by collection, 24 h", "bytes", "stat", [("sum(increase(lwq_collected_bytes_total[24h]))", "freed")]),
    ]),
    "quality": ("lwq quality", [
        ("Jobs measured, 24 h", "none", "stat", [("sum(increase(lwq_job_kl_nats_count[24h]))", "texts")]),
        ("Budget used", "percentunit", "stat",
         [("sum(increase(lwq_job_budget_used_ratio_sum[24h])) / sum(increase(lwq_job_budget_used_ratio_count[24h]))", "mean, 24 h")]),
        ("Plans tried for a job", "none", "stat",
         [("sum(increase(lwq_job_trials_total[24h])) / sum(increase(lwq_job_bits_per_weight_count[24h]))", "mean, 24 h")]),
        ("KL divergence to the source, nats", "none", "timeseries", two_quantiles("lwq_job_kl_nats", "", window="24h")),
        ("Perplexity over the source's", "none", "timeseries", two_quantiles("lwq_job_perplexity_ratio", "", window="24h")),
        ("Bits per weight", "none", "timeseries", two_quantiles("lwq_job_bits_per_weight", "", window="24h")),
        ("Jobs by KL divergence, 24 h", "none", "bargauge",
         [(increase("lwq_job_kl_nats_bucket", "le"), "up to {{le}}")]),
        ("Jobs by budget used, 24 h", "none", "bargauge",
         [(increase("lwq_job_budget_used_ratio_bucket", "le"), "up to {{le}}")]),
        ("Share of compute time that measures", "percentunit", "timeseries",
         [('sum(increase(lwq_task_duration_seconds_sum{kind=~"evaluate|trial"}[24h])) / sum(increase(lwq_task_duration_seconds_sum[24h]))',
           "evaluation and trials")]),
    ]),
}


def is_count(unit, kind, query):
    """Of jobs, calls, ...: increase() of Prometheus extrapolates, and 5.01 jobs are nobody's."""
    return unit == "none" and kind != "timeseries" and "increase(" in query and "/" not in query


def panel(number, title, unit, kind, queries):
    decimals = {"decimals": 0} if all(is_count(unit, kind, query) for query, _ in queries) else {}
    return {
        "id": number + 1, "title": title, "type": kind, "datasource": DATASOURCE,
        "gridPos": {"h": 8, "w": 8, "x": 8 * (number % 3), "y": 8 * (number // 3)},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, **decimals}, "overrides": []},
        "targets": [{"refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": query, "legendFormat": legend}
                    for i, (query, legend) in enumerate(queries)],
    }


def dashboard(name):
    title, panels = DASHBOARDS[name]
    return {
        "uid": f"lwq-{name}", "title": title, "tags": ["lwq"], "schemaVersion": 38, "version": 1, "editable": True,
        "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "timezone": "browser", "templating": {"list": []},
        "links": [{"type": "dashboards", "tags": ["lwq"], "title": "lwq", "asDropdown": False}],
        "panels": [panel(i, *p) for i, p in enumerate(panels)],
    }


def text(name):
    return json.dumps(dashboard(name), indent=1) + "\n"


if __name__ == "__main__":
    folder = pathlib.Path(__file__).parent / "dashboards"
    for name in DASHBOARDS:
        (folder / f"{name}.json").write_text(text(name))
