#include "base/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "absl/strings/str_join.h"
#include "base/log.h"

namespace lwq {
namespace {

prometheus::Labels Zip(const std::vector<std::string>& names,
                       const std::vector<std::string>& values) {
  prometheus::Labels labels;
  for (size_t i = 0; i < names.size() && i < values.size(); ++i) labels[names[i]] = values[i];
  return labels;
}

template <typename Map>
auto* FindIn(const Map& map, const std::vector<std::string>& labels) {
  auto it = map.find(LabelKey(labels));
  return it == map.end() ? nullptr : it->second;
}

// The library throws on names that Prometheus does not allow: a mistake in this program.
template <typename Make>
void Guarded(const std::string& name, const Make& make) {
  try {
    make();
  } catch (const std::exception& e) {
    spdlog::critical("making the metric {}: {}", name, e.what());
  }
}

}  // namespace

std::string LabelKey(const std::vector<std::string>& values) { return absl::StrJoin(values, "\n"); }

void CounterFamily::Add(const std::vector<std::string>& labels, double value) {
  if (auto* counter = FindIn(counters_, labels)) counter->Increment(value);
}
void GaugeFamily::Set(const std::vector<std::string>& labels, double value) {
  if (auto* gauge = FindIn(gauges_, labels)) gauge->Set(value);
}
void GaugeFamily::Add(const std::vector<std::string>& labels, double value) {
  if (auto* gauge = FindIn(gauges_, labels)) gauge->Increment(value);
}
void HistogramFamily::Observe(const std::vector<std::string>& labels, double value) {
  if (auto* histogram = FindIn(histograms_, labels)) histogram->Observe(value);
}

std::vector<double> LatencyBuckets() {
  return {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10};
}
std::vector<double> TaskBuckets() { return {.1, .5, 1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600}; }
std::vector<double> JobBuckets() {
  return {1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 43200, 86400};
}

Metrics::Metrics() : registry_(std::make_shared<prometheus::Registry>()) {}
Metrics::~Metrics() = default;

CounterFamily* Metrics::AddCounter(const std::string& name, const std::string& help,
                                   const std::vector<std::string>& label_names,
                                   const LabelSets& sets) {
  CounterFamily* family = counters_.emplace_back(std::make_unique<CounterFamily>()).get();
  Guarded(name, [&] {
    auto& made = prometheus::BuildCounter().Name(name).Help(help).Register(*registry_);
    for (const auto& set : sets)
      family->counters_[LabelKey(set)] = &made.Add(Zip(label_names, set));
  });
  return family;
}

GaugeFamily* Metrics::AddGauge(const std::string& name, const std::string& help,
                               const std::vector<std::string>& label_names, const LabelSets& sets) {
  GaugeFamily* family = gauges_.emplace_back(std::make_unique<GaugeFamily>()).get();
  Guarded(name, [&] {
    auto& made = prometheus::BuildGauge().Name(name).Help(help).Register(*registry_);
    for (const auto& set : sets) family->gauges_[LabelKey(set)] = &made.Add(Zip(label_names, set));
  });
  return family;
}

HistogramFamily* Metrics::AddHistogram(const std::string& name, const std::string& help,
                                       const std::vector<double>& buckets,
                                       const std::vector<std::string>& label_names,
                                       const LabelSets& sets) {
  HistogramFamily* family = histograms_.emplace_back(std::make_unique<HistogramFamily>()).get();
  Guarded(name, [&] {
    auto& made = prometheus::BuildHistogram().Name(name).Help(help).Register(*registry_);
    for (const auto& set : sets) {
      family->histograms_[LabelKey(set)] = &made.Add(Zip(label_names, set), buckets);
    }
  });
  return family;
}

std::string Metrics::Expose() const {
  return prometheus::TextSerializer().Serialize(registry_->Collect());
}

Metrics::LabelSets AllOf(const std::vector<std::vector<std::string>>& values) {
  Metrics::LabelSets sets = {{}};
  for (const std::vector<std::string>& choices : values) {
    Metrics::LabelSets longer;
    for (const std::vector<std::string>& set : sets) {
      for (const std::string& choice : choices) {
        longer.push_back(set);
        longer.back().push_back(choice);
      }
    }
    sets = std::move(longer);
  }
  return sets;
}

}  // namespace lwq
