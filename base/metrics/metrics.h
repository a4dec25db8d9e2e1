// Metrics of a process, in Prometheus' model: families with their label sets, made at start. Third-
// party exceptions (a name that is not allowed) end as a fatal log line at start, never later.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
class Registry;
}  // namespace prometheus

namespace lwq {

// Values of one family's labels, in the order of its label names, joined by '\n'.
std::string LabelKey(const std::vector<std::string>& values);

// Counters of one family. Label sets that were not declared are ignored, so that nothing from
// outside can make one. Thread-safe.
class CounterFamily {
 public:
  void Add(const std::vector<std::string>& labels, double value = 1);

 private:
  friend class Metrics;
  std::map<std::string, prometheus::Counter*> counters_;
};
class GaugeFamily {
 public:
  void Set(const std::vector<std::string>& labels, double value);
  void Add(const std::vector<std::string>& labels, double value);

 private:
  friend class Metrics;
  std::map<std::string, prometheus::Gauge*> gauges_;
};
class HistogramFamily {
 public:
  void Observe(const std::vector<std::string>& labels, double value);

 private:
  friend class Metrics;
  std::map<std::string, prometheus::Histogram*> histograms_;
};

// Bucket bounds in seconds.
std::vector<double> LatencyBuckets();
std::vector<double> TaskBuckets();
std::vector<double> JobBuckets();

// Families are made before the first reading and live as long as this. Thread-safe afterwards.
class Metrics {
 public:
  using LabelSets = std::vector<std::vector<std::string>>;

  Metrics();
  ~Metrics();

  CounterFamily* AddCounter(const std::string& name, const std::string& help,
                            const std::vector<std::string>& label_names, const LabelSets& sets);
  GaugeFamily* AddGauge(const std::string& name, const std::string& help,
                        const std::vector<std::string>& label_names, const LabelSets& sets);
  HistogramFamily* AddHistogram(const std::string& name, const std::string& help,
                                const std::vector<double>& buckets,
                                const std::vector<std::string>& label_names, const LabelSets& sets);

  // The text exposition format.
  std::string Expose() const;

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  std::vector<std::unique_ptr<CounterFamily>> counters_;
  std::vector<std::unique_ptr<GaugeFamily>> gauges_;
  std::vector<std::unique_ptr<HistogramFamily>> histograms_;
};

// Every combination of the given values, one list a label.
Metrics::LabelSets AllOf(const std::vector<std::vector<std::string>>& values);

}  // namespace lwq
