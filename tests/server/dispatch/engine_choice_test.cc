#include "server/dispatch/engine_choice.h"

#include "gtest/gtest.h"

namespace lwq {
namespace {

class EngineChoiceTest : public ::testing::Test {
 protected:
  void AddWorker(const std::string& id, const std::string& numerics_class, double rate,
                 bool cordoned = false) {
    v1::WorkerRecord worker;
    worker.mutable_registration()->set_worker_id(id);
    worker.mutable_registration()->set_numerics_class(numerics_class);
    worker.mutable_registration()->set_operations_per_second(rate);
    worker.set_cordoned(cordoned);
    state_.Load(worker, {});
  }
  std::string Choice() const {
    return ChooseEngine(state_, /*steady_us=*/0, {TaskNeed()}).engine.numerics_class();
  }
  DispatchState state_{DispatchOptions()};
};

TEST_F(EngineChoiceTest, IsTheFastestClassAndNotTheOneOfMostWorkers) {
  for (const char* id : {"a", "b", "c"}) AddWorker(id, "cpu-1", 1e9);
  AddWorker("gpu", "cuda-1", 4e9);
  EXPECT_EQ(Choice(), "cuda-1");
  for (const char* id : {"d", "e"}) AddWorker(id, "cpu-1", 1e9);
  EXPECT_EQ(Choice(), "cpu-1") << "five together are faster";
  AddWorker("d", "cpu-1", 1e9, /*cordoned=*/true);
  AddWorker("e", "cpu-1", 1e9, /*cordoned=*/true);
  EXPECT_EQ(Choice(), "cuda-1") << "of those that take tasks";
}

TEST_F(EngineChoiceTest, IsTheOneOfMostWorkersWhereNoneSaysHowFastItIs) {
  AddWorker("a", "cpu-1", 0);
  AddWorker("b", "cpu-2", 0);
  AddWorker("c", "cpu-2", 0);
  EXPECT_EQ(Choice(), "cpu-2");
}

}  // namespace
}  // namespace lwq
