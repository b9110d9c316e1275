#include "evaluation/published_core.h"

#include <array>
#include <cstddef>

namespace nanochat {
namespace {

struct Model {
  const char* name;
  double core;
};
constexpr std::array kModels = {Model{"GPT-2", 0.113891}, Model{"GPT-2 medium", 0.184903}, Model{"GPT-2 large", 0.214641},
                                Model{"GPT-2 XL", 0.256525}};

// Accuracies that the reference's base_eval.py measured of the weights on Hugging Face.
struct Accuracies {
  const char* task;
  std::array<double, kModels.size()> of;  // each of kModels
};
constexpr std::array kAccuracies = {
    Accuracies{"hellaswag_zeroshot", {0.308504, 0.390000, 0.440000, 0.502000}},
    Accuracies{"jeopardy", {0.001889, 0.044000, 0.045000, 0.092000}},
    Accuracies{"bigbench_qa_wikidata", {0.282663, 0.428000, 0.480000, 0.531000}},
    Accuracies{"arc_easy", {0.412458, 0.480000, 0.535000, 0.595000}},
    Accuracies{"arc_challenge", {0.221843, 0.262000, 0.264000, 0.299000}},
    Accuracies{"copa", {0.600000, 0.660000, 0.670000, 0.670000}},
    Accuracies{"commonsense_qa", {0.224406, 0.196000, 0.270000, 0.227000}},
    Accuracies{"piqa", {0.622960, 0.670000, 0.698000, 0.725000}},
    Accuracies{"openbook_qa", {0.278000, 0.308000, 0.318000, 0.346000}},
    Accuracies{"lambada_openai", {0.322919, 0.426000, 0.488000, 0.523000}},
    Accuracies{"hellaswag", {0.307907, 0.395000, 0.444000, 0.512000}},
    Accuracies{"winograd", {0.578755, 0.655678, 0.688645, 0.714286}},
    Accuracies{"winogrande", {0.486188, 0.521000, 0.541000, 0.569000}},
    Accuracies{"bigbench_dyck_languages", {0.155000, 0.170000, 0.225000, 0.247000}},
    Accuracies{"agi_eval_lsat_ar", {0.226087, 0.230435, 0.256522, 0.273913}},
    Accuracies{"bigbench_cs_algorithms", {0.419697, 0.456000, 0.440000, 0.417000}},
    Accuracies{"bigbench_operators", {0.085714, 0.100000, 0.114286, 0.157143}},
    Accuracies{"bigbench_repeat_copy_logic", {0.031250, 0.062500, 0.062500, 0.093750}},
    Accuracies{"squad", {0.058278, 0.169000, 0.235000, 0.309000}},
    Accuracies{"coqa", {0.133659, 0.227000, 0.230000, 0.280000}},
    Accuracies{"boolq", {0.552294, 0.606000, 0.567000, 0.619000}},
    Accuracies{"bigbench_language_identification", {0.256600, 0.269000, 0.261000, 0.250000}},
};

std::vector<PublishedCore> make_rows() {
  std::vector<PublishedCore> rows;
  for (std::size_t i = 0; i < kModels.size(); ++i) {
    rows.push_back({kModels[i].name, kModels[i].core, {}});
    for (const Accuracies& accuracies : kAccuracies) rows.back().accuracy[accuracies.task] = accuracies.of[i];
  }
  return rows;
}

}  // namespace

const std::vector<PublishedCore>& published_core() {
  static const std::vector<PublishedCore> rows = make_rows();
  return rows;
}

}  // namespace nanochat
