#include "evaluation/published_core.h"

namespace nanochat {

const std::vector<PublishedCore>& published_core() {
  // Accuracies that the reference's base_eval.py measured of the weights on Hugging Face.
  static const std::vector<PublishedCore> rows = {
      {"GPT-2", 0.113891, {
          {"hellaswag_zeroshot", 0.308504}, {"jeopardy", 0.001889}, {"bigbench_qa_wikidata", 0.282663},
          {"arc_easy", 0.412458}, {"arc_challenge", 0.221843}, {"copa", 0.600000}, {"commonsense_qa", 0.224406},
          {"piqa", 0.622960}, {"openbook_qa", 0.278000}, {"lambada_openai", 0.322919}, {"hellaswag", 0.307907},
          {"winograd", 0.578755}, {"winogrande", 0.486188}, {"bigbench_dyck_languages", 0.155000},
          {"agi_eval_lsat_ar", 0.226087}, {"bigbench_cs_algorithms", 0.419697}, {"bigbench_operators", 0.085714},
          {"bigbench_repeat_copy_logic", 0.031250}, {"squad", 0.058278}, {"coqa", 0.133659}, {"boolq", 0.552294},
          {"bigbench_language_identification", 0.256600}}},
      {"GPT-2 medium", 0.184903, {
          {"hellaswag_zeroshot", 0.390000}, {"jeopardy", 0.044000}, {"bigbench_qa_wikidata", 0.428000},
          {"arc_easy", 0.480000}, {"arc_challenge", 0.262000}, {"copa", 0.660000}, {"commonsense_qa", 0.196000},
          {"piqa", 0.670000}, {"openbook_qa", 0.308000}, {"lambada_openai", 0.426000}, {"hellaswag", 0.395000},
          {"winograd", 0.655678}, {"winogrande", 0.521000}, {"bigbench_dyck_languages", 0.170000},
          {"agi_eval_lsat_ar", 0.230435}, {"bigbench_cs_algorithms", 0.456000}, {"bigbench_operators", 0.100000},
          {"bigbench_repeat_copy_logic", 0.062500}, {"squad", 0.169000}, {"coqa", 0.227000}, {"boolq", 0.606000},
          {"bigbench_language_identification", 0.269000}}},
      {"GPT-2 large", 0.214641, {
          {"hellaswag_zeroshot", 0.440000}, {"jeopardy", 0.045000}, {"bigbench_qa_wikidata", 0.480000},
          {"arc_easy", 0.535000}, {"arc_challenge", 0.264000}, {"copa", 0.670000}, {"commonsense_qa", 0.270000},
          {"piqa", 0.698000}, {"openbook_qa", 0.318000}, {"lambada_openai", 0.488000}, {"hellaswag", 0.444000},
          {"winograd", 0.688645}, {"winogrande", 0.541000}, {"bigbench_dyck_languages", 0.225000},
          {"agi_eval_lsat_ar", 0.256522}, {"bigbench_cs_algorithms", 0.440000}, {"bigbench_operators", 0.114286},
          {"bigbench_repeat_copy_logic", 0.062500}, {"squad", 0.235000}, {"coqa", 0.230000}, {"boolq", 0.567000},
          {"bigbench_language_identification", 0.261000}}},
      {"GPT-2 XL", 0.256525, {
          {"hellaswag_zeroshot", 0.502000}, {"jeopardy", 0.092000}, {"bigbench_qa_wikidata", 0.531000},
          {"arc_easy", 0.595000}, {"arc_challenge", 0.299000}, {"copa", 0.670000}, {"commonsense_qa", 0.227000},
          {"piqa", 0.725000}, {"openbook_qa", 0.346000}, {"lambada_openai", 0.523000}, {"hellaswag", 0.512000},
          {"winograd", 0.714286}, {"winogrande", 0.569000}, {"bigbench_dyck_languages", 0.247000},
          {"agi_eval_lsat_ar", 0.273913}, {"bigbench_cs_algorithms", 0.417000}, {"bigbench_operators", 0.157143},
          {"bigbench_repeat_copy_logic", 0.093750}, {"squad", 0.309000}, {"coqa", 0.280000}, {"boolq", 0.619000},
          {"bigbench_language_identification", 0.250000}}},
  };
  return rows;
}

}  // namespace nanochat
